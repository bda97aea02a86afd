//! `turnwire bench turns`: how many durable turns a gateway makes in a second, and how long one
//! takes.
//!
//! A user's message is posted on an Attach stream; the gateway stores it and delivers it to a bot
//! on a Subscribe stream; the bot answers and acknowledges in one Commit; the gateway stores that
//! and hands the answer to the adapter, which says Delivered and posts the conversation's next
//! message. Every answer is checked against its question.

use std::time::Duration;

use anyhow::Context;

use super::facts::Facts;
use super::latency::Latencies;
use super::load::{Level, Load};
use super::report::{Column, Table};
use super::target::{self, Target};
use super::{adapter, bot, child};
use crate::cli::connection::Connection;

/// How long the answers may take that are awaited when a level ends, before they are called lost.
const STRAGGLERS: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Conversations at a time, one measurement for each number
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,64,512",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    conversations: Vec<u32>,
    /// How long each is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long each runs before that
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warmup: u64,
    /// Bytes of text in a message and in its answer
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    size: u32,
    /// Streams of the adapter, and as many of the bot, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    streams: u16,
    #[command(flatten)]
    target: target::Flags,
}

/// Latencies are in milliseconds.
const COLUMNS: &[Column] = &[
    Column::count("conversations", "conversations"),
    Column::count("turns", "turns"),
    Column::number("turns/s", "turnsPerSecond", 0),
    Column::number("p50 ms", "p50Ms", 3),
    Column::number("p99 ms", "p99Ms", 3),
    Column::number("p99.9 ms", "p999Ms", 3),
    Column::number("max ms", "maxMs", 3),
];

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.target.threads.into()
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let target = Target::open(&args.target, connection, &child::Options::default()).await?;
    let facts = Facts::gather(target.data())
        .setting("bytes", args.size)
        .setting("seconds", args.seconds)
        .setting("warmupSeconds", args.warmup)
        .setting("streams", args.streams)
        .setting("threads", args.target.threads);
    let mut table = Table::begin("turns", &facts, COLUMNS, json)?;
    for conversations in &args.conversations {
        let load = Load::new(Level {
            conversations: *conversations as usize,
            streams: args.streams.into(),
            size: args.size as usize,
            warmup: Duration::from_secs(args.warmup),
            measured: Duration::from_secs(args.seconds),
            channel: args.target.channel.clone(),
            bot: args.target.bot.clone(),
        });
        let latencies = measure(&load, &target)
            .await
            .with_context(|| format!("with {conversations} conversations"))?;
        table.row(&[
            load.level.conversations.into(),
            latencies.count().into(),
            latencies.per_second(load.level.measured).into(),
            latencies.quantile_ms(0.5).into(),
            latencies.quantile_ms(0.99).into(),
            latencies.quantile_ms(0.999).into(),
            latencies.max_ms().into(),
        ])?;
    }
    table.end()?;
    target.close().await
}

/// Runs one level: all streams open first, then the clock starts.
pub(super) async fn measure(load: &Load, target: &Target) -> anyhow::Result<Latencies> {
    let mut bots = tokio::task::JoinSet::new();
    let mut streams = Vec::new();
    for stream in 0..load.level.streams {
        let client = target.connect().await?;
        bots.spawn(bot::open(&client, load, stream).await?.run());
        let client = target.connect().await?;
        streams.push(adapter::open(&client, load, stream).await?);
    }
    let clock = load.start();
    let mut adapters = tokio::task::JoinSet::new();
    for adapter in streams {
        adapters.spawn(adapter.run(clock));
    }
    let all = async {
        let mut turns = Latencies::new()?;
        loop {
            tokio::select! {
                // A bot ends only when something is wrong.
                Some(ended) = bots.join_next() => ended.context("the bot's task failed")??,
                ended = adapters.join_next() => match ended {
                    Some(ended) => turns.add(&ended.context("the adapter's task failed")??)?,
                    None => return anyhow::Ok(turns),
                },
            }
        }
    };
    let patience = load.level.warmup + load.level.measured + STRAGGLERS;
    match tokio::time::timeout(patience, all).await {
        Ok(turns) => turns,
        Err(_) => anyhow::bail!(
            "{} of {} conversations were never answered",
            load.unfinished(),
            load.level.conversations
        ),
    }
}
