//! `turnwire bench`: measures a gateway.

mod adapter;
mod bot;
mod child;
mod facts;
mod latency;
mod load;
mod message;
mod report;
mod target;
mod turns;

use super::connection::Connection;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Durable turns: a message is stored, delivered, answered, the answer stored and received
    Turns(turns::Args),
}

impl Args {
    /// Threads the load generator runs on.
    pub(super) fn threads(&self) -> usize {
        match &self.what {
            What::Turns(args) => args.threads(),
        }
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    match args.what {
        What::Turns(args) => turns::run(args, connection, json).await,
    }
}

/// How often to send heartbeats: twice as often as the gateway asks.
fn heartbeat(asked: Option<prost_types::Duration>) -> std::time::Duration {
    let asked = asked.and_then(|asked| std::time::Duration::try_from(asked).ok());
    let asked = asked.unwrap_or(std::time::Duration::from_secs(20));
    (asked / 2).max(std::time::Duration::from_millis(10))
}
