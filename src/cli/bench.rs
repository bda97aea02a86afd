//! `turnwire bench`: measures a gateway.

mod rate;
mod turns;

mod fanout;
mod idle;
mod sockets;

mod backlog;
mod grow;
mod reopen;

mod failover;

mod adapter;
mod bot;
mod ceiling;
mod child;
mod disk;
mod facts;
mod flags;
mod latency;
mod load;
mod memory;
mod message;
mod names;
mod nats;
mod poster;
mod ready;
mod report;
mod run;
mod schedule;
mod sheet;
mod taker;
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
    /// Fan-out: one conversation, and many who watch it
    Fanout(fanout::Args),
    /// The memory of attached bots that have nothing to do
    Idle(idle::Args),
    /// Direct Line sockets: the memory of idle ones, and how soon they show what is said
    Sockets(sockets::Args),
    /// A backlog: what waits for a bot that is away, and how fast it takes it
    Backlog(backlog::Args),
    /// Growth: turns as the log grows, beside a gateway whose log is empty
    Grow(grow::Args),
    /// Starting again: time to be ready with many conversations in the store
    Reopen(reopen::Args),
    /// A bot's process dies: the longest silence in its conversations
    Failover(failover::Args),
    /// A bot of `failover`
    #[command(hide = true)]
    BotProcess(failover::bot_process::Args),
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
            What::Fanout(args) => args.threads(),
            What::Idle(args) => args.threads(),
            What::Sockets(args) => args.threads(),
            What::Backlog(args) => args.threads(),
            What::Grow(args) => args.threads(),
            What::Reopen(args) => args.threads(),
            What::Failover(args) => args.threads(),
            What::BotProcess(_) => 1,
            What::Rate(args) => args.threads(),
            // As many as a gateway has.
            What::EchoServer => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    match args.what {
        What::Turns(args) => turns::run(args, connection, json).await,
        What::Fanout(args) => fanout::run(args, connection, json).await,
        What::Idle(args) => idle::run(args, connection, json).await,
        What::Sockets(args) => sockets::run(args, connection, json).await,
        What::Backlog(args) => backlog::run(args, connection, json).await,
        What::Grow(args) => grow::run(args, connection, json).await,
        What::Reopen(args) => reopen::run(args, connection, json).await,
        What::Failover(args) => failover::run(args, connection, json).await,
        What::BotProcess(args) => failover::bot_process::run(args, connection).await,
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
