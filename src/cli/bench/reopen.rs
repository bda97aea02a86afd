//! `turnwire bench reopen`: how long a gateway takes to be ready with many conversations on disk.
//!
//! A store is filled with conversations that a bot has finished with, and a few that have something
//! for it. Then the gateway is stopped and started again, several times: in good order first, and
//! then after it was killed, as a crash would. In the end the bot comes back and takes what waits.
//! The files are in the system's cache, as they are when a process is started again.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::facts::Facts;
use super::names::Names;
use super::poster::Poster;
use super::report::{Cell, Column, Table};
use super::taker::Taker;
use super::target::{self, Target};
use super::{child, disk, ready};
use crate::cli::connection::Connection;
use crate::cli::exit::Usage;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Conversations in the store
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    conversations: u32,
    /// Conversations that have an activity for the bot
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pending: u32,
    /// Starts after each way to stop
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=101))]
    starts: u16,
    /// Bytes of text in an activity
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    #[command(flatten)]
    target: target::Flags,
}

/// Sizes are in binary units, and the disk's in those of its makers.
const COLUMNS: &[Column] = &[
    Column::text("stopped by", "stoppedBy", 10),
    Column::count("starts", "starts"),
    Column::number("median ms", "medianMs", 0),
    Column::number("max ms", "maxMs", 0),
    Column::number("first ms", "firstDeliveryMs", 1),
    Column::number("drained ms", "drainedMs", 1),
    Column::number("memory MiB", "memoryMib", 0),
    Column::number("disk GB", "diskGb", 2),
];

/// How a gateway is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// By SIGTERM: it drains and syncs.
    Term,
    /// By SIGKILL: it does nothing more.
    Kill,
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.target.threads.into()
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    if connection.gateway.is_some() {
        let problem = "stops a gateway of its own: leave `--gateway` away";
        return Err(Usage(problem.to_owned()).into());
    }
    if args.pending > args.conversations {
        let problem = "there are fewer conversations than `--pending` of them";
        return Err(Usage(problem.to_owned()).into());
    }
    let activities = u64::from(args.conversations) + u64::from(args.pending);
    disk::check(&args.target, activities, args.size)?;
    let mut target = Target::open(
        args.target.data.as_deref(),
        connection,
        &child::Options::default(),
    )
    .await?;
    let facts = Facts::gather(target.data())
        .setting("bytes", args.size)
        .setting("conversations", args.conversations)
        .setting("pending", args.pending)
        .setting("threads", args.target.threads);
    let mut table = Table::begin("reopen", &facts, COLUMNS, json)?;
    let names = Names::new();
    fill(&args, &target, &names).await?;

    for stop in [Stop::Term, Stop::Kill] {
        let mut starts = Vec::new();
        for _ in 0..args.starts {
            starts.push(restart(&mut target, stop).await?);
        }
        starts.sort_unstable();
        // What waits is taken once, after the last start.
        let drained = match stop {
            Stop::Term => None,
            Stop::Kill => Some(drain(&args, &target, &names).await?),
        };
        let disk = target
            .data()
            .map(|data| disk::used_bytes(data) as f64 / 1e9);
        table.row(&[
            stop.name().into(),
            starts.len().into(),
            starts.get(starts.len() / 2).map(milliseconds).into(),
            starts.last().map(milliseconds).into(),
            drained.map(|(first, _)| milliseconds(&first)).into(),
            drained.map(|(_, all)| milliseconds(&all)).into(),
            target.resident_mib().map_or(Cell::Absent, Cell::Number),
            disk.into(),
        ])?;
    }
    table.end()?;
    target.close().await
}

/// Begins every conversation, lets a bot finish with all of them, and then leaves it something in a
/// few.
async fn fill(args: &Args, target: &Target, names: &Names) -> anyhow::Result<()> {
    let conversations = args.conversations as usize;
    let client = target.connect().await?;
    let mut poster = Poster::open(&client, &args.target.channel, args.size as usize).await?;
    let client = target.connect().await?;
    let mut taker = Taker::open(&client, &args.target.bot, names, vec![0; conversations]).await?;
    let posting = async {
        for conversation in 0..conversations {
            poster.post(names, conversation, 1).await?;
        }
        poster.finish().await
    };
    let taking = taker.take(conversations as u64);
    tokio::try_join!(posting, taking).context("while the store was filled")?;
    drop(taker);
    for conversation in spread(args.pending as usize, conversations) {
        poster.post(names, conversation, 2).await?;
    }
    poster.finish().await
}

/// Stops the gateway, and measures from its start until it says that it is ready.
async fn restart(target: &mut Target, stop: Stop) -> anyhow::Result<Duration> {
    let child = target.child.as_mut().context("a gateway of its own")?;
    match stop {
        Stop::Term => child.terminate().await?,
        Stop::Kill => child.kill().await?,
    }
    let begun = Instant::now();
    child.restart().await?;
    ready::wait(child.gateway()).await?;
    let took = begun.elapsed();
    target.gateway = child.gateway().to_owned();
    Ok(took)
}

/// Takes what waits. Returns when the first was there and when the last was acknowledged, from the
/// bot's connecting.
async fn drain(
    args: &Args,
    target: &Target,
    names: &Names,
) -> anyhow::Result<(Duration, Duration)> {
    let begun = Instant::now();
    let client = target.connect().await?;
    let taken = vec![1; args.conversations as usize];
    let mut taker = Taker::open(&client, &args.target.bot, names, taken).await?;
    taker.take(1).await?;
    let first = begun.elapsed();
    let progress = taker.take(args.pending.into()).await?;
    let all = begun.elapsed();
    ensure!(
        progress.delivered == u64::from(args.pending),
        "{} activities waited, and {} were delivered",
        args.pending,
        progress.delivered
    );
    Ok((first, all))
}

/// So many conversations, evenly spread over all.
fn spread(some: usize, all: usize) -> impl Iterator<Item = usize> {
    (0..some).map(move |number| number * all / some)
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_spread_over_all_and_none_twice() {
        assert_eq!(spread(3, 9).collect::<Vec<_>>(), [0, 3, 6]);
        assert_eq!(spread(4, 4).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(spread(2, 3).collect::<Vec<_>>(), [0, 1]);
    }
}
