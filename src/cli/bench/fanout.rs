//! `turnwire bench fanout`: how fast one conversation reaches all who watch it.
//!
//! An adapter posts into a conversation that many WatchConversation streams follow. At most a given
//! number of activities are under way: the next is posted when the slowest watcher has the oldest of
//! them. Every watcher checks that nothing is left out and that the order is right. No bot is
//! attached, so that nothing but the fan-out is measured.

mod race;
mod watcher;

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use turnwire_client::proto::ConversationName;

use self::race::Race;
use super::child;
use super::facts::Facts;
use super::latency::Latencies;
use super::names::Names;
use super::poster::Poster;
use super::report::{Column, Table};
use super::target::{self, Target};
use crate::cli::connection;

/// How long the watchers may take for what is under way when the measurement ends.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// The conversation's number: there is one.
const CONVERSATION: usize = 0;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Watchers of the conversation, one measurement for each number
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    watchers: Vec<u32>,
    /// Connections the watchers share; in earnest each would have its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Activities that some watcher does not have yet, at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    in_flight: u16,
    /// Activities posted in a second [default: as many as the watchers take]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,
    /// How long each is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long each runs before that
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warmup: u64,
    /// Bytes of text in an activity
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    #[command(flatten)]
    target: target::Flags,
}

const COLUMNS: &[Column] = &[
    Column::count("watchers", "watchers"),
    Column::number("posts/s", "postsPerSecond", 0),
    Column::number("received/s", "receivedPerSecond", 0),
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

pub(super) async fn run(
    args: Args,
    connection: &connection::Connection,
    json: bool,
) -> anyhow::Result<()> {
    let target = Target::open(
        args.target.data.as_deref(),
        connection,
        &child::Options::default(),
    )
    .await?;
    let facts = Facts::gather(target.data())
        .setting("bytes", args.size)
        .setting("seconds", args.seconds)
        .setting("warmupSeconds", args.warmup)
        .setting("connections", args.connections)
        .setting("inFlight", args.in_flight)
        .setting("rate", args.rate.map(NonZeroU32::get))
        .setting("threads", args.target.threads);
    let mut table = Table::begin("fanout", &facts, COLUMNS, json)?;
    for watchers in &args.watchers {
        let watchers = *watchers as usize;
        let measured = Duration::from_secs(args.seconds);
        let latencies = measure(&args, watchers, &target, connection.token())
            .await
            .with_context(|| format!("with {watchers} watchers"))?;
        let received = latencies.per_second(measured);
        table.row(&[
            watchers.into(),
            (received / watchers as f64).into(),
            received.into(),
            latencies.quantile_ms(0.5).into(),
            latencies.quantile_ms(0.99).into(),
            latencies.quantile_ms(0.999).into(),
            latencies.max_ms().into(),
        ])?;
    }
    table.end()?;
    target.close().await
}

/// All watch first, then the clock starts.
async fn measure(
    args: &Args,
    watchers: usize,
    target: &Target,
    token: Option<&str>,
) -> anyhow::Result<Latencies> {
    let names = Names::new();
    let client = target.connect().await?;
    let mut poster = Poster::open(&client, &args.target.channel, args.size as usize).await?;
    // Only a conversation that has begun can be watched. This is its sequence 1.
    poster.post(&names, CONVERSATION, 1).await?;
    poster.finish().await?;

    let conversation = ConversationName::new(&args.target.channel, names.id(CONVERSATION));
    let race = Arc::new(Race::new(watchers, args.in_flight.into(), 1));
    let latencies = Arc::new(Mutex::new(Latencies::new()?));
    let mut connections = Vec::new();
    for _ in 0..watchers.min(args.connections.into()) {
        connections.push(watcher::Connection::open(&target.gateway, token).await?);
    }
    let mut streams = Vec::with_capacity(watchers);
    for connection in connections.iter().cycle().take(watchers) {
        streams.push(connection.watch(&conversation, 1).await?);
    }
    let begin = Instant::now() + Duration::from_secs(args.warmup);
    let measured = begin..begin + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(stream.run(Arc::clone(&race), measured.clone(), Arc::clone(&latencies)));
    }
    let patience = measured.end + STRAGGLERS;
    let posting = post(&mut poster, &names, &race, &measured, args.rate);
    tokio::select! {
        posted = tokio::time::timeout_at(patience, posting) => {
            posted.context("some watchers never got what was posted")??;
        }
        // A watcher ends only when something is wrong.
        Some(ended) = tasks.join_next() => ended.context("a watcher's task failed")??,
    }
    tasks.shutdown().await;
    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(latencies.clone())
}

/// Posts until the end, and waits until all have everything.
async fn post(
    poster: &mut Poster,
    names: &Names,
    race: &Race,
    measured: &Range<Instant>,
    rate: Option<NonZeroU32>,
) -> anyhow::Result<()> {
    let mut pace = rate.map(|rate| {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / rate.get());
        // What could not be posted in time is posted as soon as it can be.
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        pace
    });
    let mut posted = 1;
    loop {
        let next = posted + 1;
        // When it was due, so that a delay before it is posted counts.
        let due = match &mut pace {
            Some(pace) => pace.tick().await,
            None => Instant::now(),
        };
        while !race.has_room(next) {
            tokio::select! {
                () = race.more() => {}
                ended = poster.stay() => ended?,
            }
        }
        let now = Instant::now();
        if now >= measured.end {
            break;
        }
        race.post(next, if pace.is_some() { due } else { now });
        poster.post(names, CONVERSATION, next).await?;
        posted = next;
    }
    while race.complete() < posted {
        tokio::select! {
            () = race.more() => {}
            ended = poster.stay() => ended?,
        }
    }
    Ok(())
}
