//! `turnwire bench`: measures a gateway.

mod rate;
mod turns;

mod adapter;
mod bot;
mod ceiling;
mod child;
mod facts;
mod flags;
mod latency;
mod load;
mod message;
mod nats;
mod report;
mod run;
mod schedule;
mod sheet;
mod target;
mod timer;

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
    /// The same at a fixed rate: how long turns take, the waiting of those that begin late included
    Rate(rate::Args),
    /// The other process of a ceiling
    #[command(name = ceiling::echo::COMMAND, hide = true)]
    EchoServer,
}

impl Args {
    /// Threads that it runs on.
    pub(super) fn threads(&self) -> usize {
        match &self.what {
            What::Turns(args) => args.threads(),
            What::Rate(args) => args.threads(),
            // As many as a gateway has.
            What::EchoServer => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    match args.what {
        What::Turns(args) => turns::run(args, connection, json).await,
        What::Rate(args) => rate::run(args, connection, json).await,
        What::EchoServer => ceiling::echo::serve().await,
    }
}

/// How often to send heartbeats: twice as often as the gateway asks.
fn heartbeat(asked: Option<prost_types::Duration>) -> std::time::Duration {
    let asked = asked.and_then(|asked| std::time::Duration::try_from(asked).ok());
    let asked = asked.unwrap_or(std::time::Duration::from_secs(20));
    (asked / 2).max(std::time::Duration::from_millis(10))
}
