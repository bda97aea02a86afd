//! `turnwire bench turns`: how many durable turns a gateway makes in a second, and how long one
//! takes.
//!
//! A user's message is posted on an Attach stream; the gateway stores it and delivers it to a bot
//! on a Subscribe stream; the bot answers and acknowledges in one Commit; the gateway stores that
//! and hands the answer to the adapter, which says Delivered and posts the conversation's next
//! message. Every answer is checked against its question.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use turnwire_client::{Client, ClientOptions};

use super::child::Child;
use super::facts::Facts;
use super::load::{Level, Load};
use super::report;
use super::{adapter, bot};
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
    /// Threads of the load generator, which shares the machine with a gateway of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Where the gateway of its own keeps its data [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", conflicts_with = "gateway")]
    data: Option<PathBuf>,
    /// The channel, of kind `grpc` and with queued outbound, of the gateway named by --gateway
    #[arg(long, default_value = super::child::CHANNEL)]
    channel: String,
    /// The bot that the channel is routed to
    #[arg(long, default_value = super::child::BOT)]
    bot: String,
}

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.threads.into()
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let (gateway, options, child) = match &connection.gateway {
        Some(gateway) => (gateway.clone(), connection.options(), None),
        None => {
            let child = Child::start(args.data.as_deref()).await?;
            (
                child.gateway().to_owned(),
                ClientOptions::default(),
                Some(child),
            )
        }
    };
    let facts = Facts::gather(&args, child.as_ref().map(Child::data));
    let mut rows = Vec::new();
    if !json {
        report::head(&facts)?;
    }
    for conversations in &args.conversations {
        let load = Load::new(Level {
            conversations: *conversations as usize,
            streams: args.streams.into(),
            size: args.size as usize,
            warmup: Duration::from_secs(args.warmup),
            measured: Duration::from_secs(args.seconds),
            channel: args.channel.clone(),
            bot: args.bot.clone(),
        });
        let row = measure(&load, &gateway, &options)
            .await
            .with_context(|| format!("with {conversations} conversations"))?;
        if !json {
            report::row(&row)?;
        }
        rows.push(row);
    }
    if json {
        report::json(&facts, &rows)?;
    }
    if let Some(child) = child {
        child.stop().await?;
    }
    Ok(())
}

impl From<&Args> for report::Settings {
    fn from(args: &Args) -> Self {
        Self {
            seconds: args.seconds,
            warmup: args.warmup,
            size: args.size,
            streams: args.streams,
            threads: args.threads,
        }
    }
}

/// Runs one level: all streams open first, then the clock starts.
async fn measure(
    load: &Load,
    gateway: &str,
    options: &ClientOptions,
) -> anyhow::Result<report::Row> {
    let mut bots = tokio::task::JoinSet::new();
    let mut streams = Vec::new();
    for stream in 0..load.level.streams {
        let client = Client::connect(gateway, options.clone()).await?;
        bots.spawn(bot::open(&client, load, stream).await?.run());
        let client = Client::connect(gateway, options.clone()).await?;
        streams.push(adapter::open(&client, load, stream).await?);
    }
    let clock = load.start();
    let mut adapters = tokio::task::JoinSet::new();
    for adapter in streams {
        adapters.spawn(adapter.run(clock));
    }
    let all = async {
        let mut turns = report::Turns::new()?;
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
    let turns = match tokio::time::timeout(patience, all).await {
        Ok(turns) => turns?,
        Err(_) => anyhow::bail!(
            "{} of {} conversations were never answered",
            load.unfinished(),
            load.level.conversations
        ),
    };
    Ok(turns.row(&load.level))
}
