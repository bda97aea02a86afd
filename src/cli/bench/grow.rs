//! `turnwire bench grow`: whether turns stay as fast as the log grows.
//!
//! One gateway's log grows from nothing to many activities, by turns in many conversations, always
//! new ones. At each size, windows of measured turns on it alternate with windows on a gateway that
//! has just been started with an empty store: a machine is not as fast in one minute as in the next,
//! and only so can the two be compared. What is told of each is the median window.

use std::time::Duration;

use anyhow::Context;

use super::facts::Facts;
use super::latency::Latencies;
use super::load::{Level, Load};
use super::report::{Column, Table};
use super::run::turnwire;
use super::target::{self, Target};
use super::{child, disk};
use crate::cli::connection::Connection;
use crate::cli::exit::Usage;

/// Sizes at which it is measured, in percent of the last.
const STEPS: [u64; 5] = [0, 10, 20, 50, 100];

/// What a turn adds to the log: a question and its answer.
const ACTIVITIES_PER_TURN: u64 = 2;

/// Conversations between windows: enough that every round of a shard is full.
const FILLING_CONVERSATIONS: usize = 2_048;

/// How long the log grows with the same conversations.
const SLICE: Duration = Duration::from_secs(10);

/// The last slice: what is left is estimated, and should not be far exceeded.
const SHORTEST_SLICE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Activities in the log at the end
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000))]
    activities: u64,
    /// Windows at each size
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=101))]
    windows: u16,
    /// Conversations in a window, each with one turn at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    conversations: u32,
    /// How long a window is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How long it runs before that
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warmup: u64,
    /// How long after the log has grown, for the disk and for merges to finish what that left them
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    settle: u64,
    /// Bytes of text in a message and in its answer
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    size: u32,
    #[command(flatten)]
    target: target::Flags,
}

/// Sizes are in binary units, and the disk's in those of its makers.
const COLUMNS: &[Column] = &[
    Column::count("activities", "activities"),
    Column::number("turns/s", "turnsPerSecond", 0),
    Column::number("lowest", "lowestTurnsPerSecond", 0),
    Column::number("highest", "highestTurnsPerSecond", 0),
    Column::number("empty turns/s", "emptyTurnsPerSecond", 0),
    Column::number("ratio", "ratio", 2),
    Column::number("p50 ms", "p50Ms", 3),
    Column::number("p99 ms", "p99Ms", 3),
    Column::number("memory MiB", "memoryMib", 0),
    Column::number("disk GB", "diskGb", 2),
];

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.target.threads.into()
    }

    fn level(&self, conversations: usize, warmup: Duration, measured: Duration) -> Level {
        Level {
            conversations,
            streams: 1,
            size: self.size as usize,
            warmup,
            measured,
            channel: self.target.channel.clone(),
            bot: self.target.bot.clone(),
            rate: None,
        }
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    if connection.gateway.is_some() {
        let problem = "compares gateways of its own: leave `--gateway` away";
        return Err(Usage(problem.to_owned()).into());
    }
    disk::check(&args.target, args.activities, args.size)?;
    let open = async || {
        Target::open(
            args.target.data.as_deref(),
            connection,
            &child::Options::default(),
        )
        .await
    };
    let grown = open().await?;
    let facts = Facts::gather(grown.data())
        .setting("bytes", args.size)
        .setting("windows", args.windows)
        .setting("conversations", args.conversations)
        .setting("seconds", args.seconds)
        .setting("warmupSeconds", args.warmup)
        .setting("settleSeconds", args.settle)
        .setting("threads", args.target.threads);
    let mut table = Table::begin("grow", &facts, COLUMNS, json)?;
    let mut activities = 0;
    for step in STEPS {
        let wanted = args.activities / 100 * step;
        activities += fill(&args, &grown, wanted.saturating_sub(activities)).await?;
        settle(Duration::from_secs(args.settle)).await?;
        let before = activities;
        let empty = open().await?;
        let mut on_grown = Windows::new()?;
        let mut on_empty = Windows::new()?;
        for window in 0..args.windows {
            // Who is first could matter, so they take turns.
            if window % 2 == 0 {
                activities += on_grown.measure(&args, &grown).await?;
                on_empty.measure(&args, &empty).await?;
            } else {
                on_empty.measure(&args, &empty).await?;
                activities += on_grown.measure(&args, &grown).await?;
            }
        }
        empty.close().await?;
        let (rate, empty_rate) = (on_grown.median(), on_empty.median());
        table.row(&[
            before.into(),
            rate.into(),
            on_grown.rates.first().copied().into(),
            on_grown.rates.last().copied().into(),
            empty_rate.into(),
            rate.zip(empty_rate)
                .map(|(rate, empty)| rate / empty)
                .into(),
            on_grown.latencies.quantile_ms(0.5).into(),
            on_grown.latencies.quantile_ms(0.99).into(),
            grown.resident_mib().into(),
            grown
                .data()
                .map(|data| disk::used_bytes(data) as f64 / 1e9)
                .into(),
        ])?;
    }
    table.end()?;
    grown.close().await
}

/// Lets the log grow by so many activities, or a few more. Returns by how many.
/// Waits until the disk has what was written, and then for the gateway's own work on it: a log grows
/// slower in earnest than it is filled here.
async fn settle(wait: Duration) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(rustix::fs::sync)
        .await
        .context("the disk cannot be synced")?;
    tokio::time::sleep(wait).await;
    Ok(())
}

async fn fill(args: &Args, target: &Target, wanted: u64) -> anyhow::Result<u64> {
    let mut filled = 0;
    let mut slice = SHORTEST_SLICE;
    while filled < wanted {
        let conversations = FILLING_CONVERSATIONS.min(usize::try_from(wanted)?);
        let load = Load::new(args.level(conversations, Duration::ZERO, slice));
        turnwire(target, &load)
            .await
            .context("while the log was filled")?;
        let added = load.turns() * ACTIVITIES_PER_TURN;
        filled += added;
        let per_activity = slice.as_secs_f64() / added.max(1) as f64;
        let left = wanted.saturating_sub(filled) as f64 * per_activity;
        slice = Duration::from_secs_f64(left).clamp(SHORTEST_SLICE, SLICE);
    }
    Ok(filled)
}

/// The windows on one gateway at one size.
struct Windows {
    /// Turns a second, the slowest first.
    rates: Vec<f64>,
    latencies: Latencies,
}

impl Windows {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            rates: Vec::new(),
            latencies: Latencies::new()?,
        })
    }

    /// Measures one more. Returns by how many activities the log grew.
    async fn measure(&mut self, args: &Args, target: &Target) -> anyhow::Result<u64> {
        let level = args.level(
            args.conversations as usize,
            Duration::from_secs(args.warmup),
            Duration::from_secs(args.seconds),
        );
        let load = Load::new(level);
        let latencies = turnwire(target, &load).await?.measured.latencies;
        self.add(latencies.per_second(load.level.measured));
        self.latencies.add(&latencies)?;
        Ok(load.turns() * ACTIVITIES_PER_TURN)
    }

    fn add(&mut self, rate: f64) {
        let place = self.rates.partition_point(|other| *other < rate);
        self.rates.insert(place, rate);
    }

    /// The rate in the middle.
    fn median(&self) -> Option<f64> {
        self.rates.get(self.rates.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_windows_in_any_order() -> anyhow::Result<()> {
        let mut windows = Windows::new()?;
        assert_eq!(windows.median(), None);
        for rate in [3.0, 1.0, 2.0, 9.0, 0.5] {
            windows.add(rate);
        }
        assert_eq!(windows.median(), Some(2.0));
        assert_eq!(windows.rates, [0.5, 1.0, 2.0, 3.0, 9.0]);
        Ok(())
    }
}
