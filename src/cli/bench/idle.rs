//! `turnwire bench idle`: what an attached bot that has nothing to do costs the gateway.
//!
//! Bots attach with a Subscribe stream each, and then say only that they are alive, as the protocol
//! asks. What the gateway has in memory is read before and after; the difference is divided by the
//! streams. What the system holds for each socket is not in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::Instant;
use turnwire_client::Client;
use turnwire_client::bot::{BotStream, GatewayFrame};
use turnwire_client::proto::{BotHeartbeat, Credit, Hello};

use super::child;
use super::facts::Facts;
use super::memory::{Memory, SETTLE};
use super::report::{Column, Table};
use super::target::{self, Target};
use crate::cli::connection::Connection;
use crate::cli::exit::Usage;
use crate::cli::{descriptors, fresh};

/// Streams that are attaching at one time.
const ATTACHING: usize = 64;

/// How long one of them may take.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams on a connection, of the gateway and so of its clients.
const STREAMS_PER_CONNECTION: u32 = 10_000;

/// Frames that may wait for a stream: a heartbeat, and one more.
const QUEUE_FRAMES: usize = 2;

/// What a bot of the client library grants by default.
const CREDIT: Credit = Credit {
    deliveries: 128,
    bytes: 16 * 1024 * 1024,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Attached streams, one measurement for each number, each with a gateway of its own
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "10000",
        value_parser = clap::value_parser!(u32).range(1..=500_000)
    )]
    streams: Vec<u32>,
    /// Connections the streams share [default: one for each stream]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500_000))]
    connections: Option<u32>,
    /// How long they stay, alive by their heartbeats, before the memory is read
    #[arg(long, value_name = "SECONDS", default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    #[command(flatten)]
    target: target::Flags,
}

/// Sizes are in binary units.
const COLUMNS: &[Column] = &[
    Column::count("streams", "streams"),
    Column::count("connections", "connections"),
    Column::number("attached/s", "attachedPerSecond", 0),
    Column::number("before MiB", "beforeMib", 1),
    Column::number("after MiB", "afterMib", 1),
    Column::number("KiB each", "kibEach", 1),
    Column::number("PSS KiB each", "pssKibEach", 1),
];

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.target.threads.into()
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    if connection.gateway.is_some() {
        let problem = "reads the memory of a gateway of its own: leave `--gateway` away";
        return Err(Usage(problem.to_owned()).into());
    }
    let most = args.streams.iter().copied().max().unwrap_or_default();
    let connections = |streams: u32| args.connections.unwrap_or(streams).min(streams);
    if most.div_ceil(connections(most)) > STREAMS_PER_CONNECTION {
        let problem = format!(
            "a connection has at most {STREAMS_PER_CONNECTION} streams: ask for more `--connections`"
        );
        return Err(Usage(problem).into());
    }
    descriptors::check(
        connections(most).into(),
        "share connections with `--connections`",
    )?;
    let options = child::Options {
        limits: format!(
            "sessions = {}\nconnections = {}",
            u64::from(most) + 1,
            u64::from(most) + 1
        ),
        ..Default::default()
    };
    let facts = Facts::gather(args.target.data.as_deref())
        .setting("seconds", args.seconds)
        .setting("threads", args.target.threads);
    let mut table = Table::begin("idle", &facts, COLUMNS, json)?;
    for streams in &args.streams {
        let connections = connections(*streams);
        let target = Target::open(args.target.data.as_deref(), connection, &options).await?;
        let level = Level {
            streams: *streams as usize,
            connections: connections as usize,
            stay: Duration::from_secs(args.seconds),
        };
        let measured = measure(&level, &args.target.bot, &target)
            .await
            .with_context(|| format!("with {streams} streams"))?;
        let (before, after) = (measured.before, measured.after);
        let each = after.grown_kib(&before, level.streams);
        table.row(&[
            level.streams.into(),
            level.connections.into(),
            (level.streams as f64 / measured.attaching.as_secs_f64()).into(),
            before.resident_mib().into(),
            after.resident_mib().into(),
            each.resident.into(),
            each.proportional.into(),
        ])?;
        table.note(&format!(
            "{} of {streams} streams were told in that time that the gateway is alive",
            measured.told
        ))?;
        target.close().await?;
    }
    table.end()
}

/// One measurement.
struct Level {
    streams: usize,
    connections: usize,
    stay: Duration,
}

struct Measured {
    attaching: Duration,
    /// Streams that the gateway has told that it is alive.
    told: usize,
    before: Memory,
    after: Memory,
}

/// What the streams have in common.
struct Shared {
    bot: String,
    /// Streams that the gateway has told that it is alive.
    told: AtomicUsize,
}

async fn measure(level: &Level, bot: &str, target: &Target) -> anyhow::Result<Measured> {
    let shared = Arc::new(Shared {
        bot: bot.to_owned(),
        told: AtomicUsize::new(0),
    });
    let mut staying = JoinSet::new();
    // What the first one costs once is not of the others: buffers of threads, tables of metrics.
    staying.spawn(attach(target.connect().await?, Arc::clone(&shared)).await?);
    tokio::time::sleep(SETTLE).await;
    let before = Memory::of(target)?;

    let begun = Instant::now();
    let mut clients: Vec<Client> = Vec::new();
    let mut left = level.streams;
    while left > 0 {
        let mut attaching = JoinSet::new();
        for _ in 0..left.min(ATTACHING) {
            // Round and round, once there are all.
            let stream = level.streams - left;
            let client = match clients.get(stream % level.connections) {
                Some(client) => client.clone(),
                None => {
                    let client = target.connect().await?;
                    clients.push(client.clone());
                    client
                }
            };
            attaching.spawn(attach(client, Arc::clone(&shared)));
            left -= 1;
        }
        while let Some(attached) = attaching.join_next().await {
            staying.spawn(attached.context("a bot's task failed")??);
        }
    }
    let attaching = begun.elapsed();

    tokio::select! {
        () = tokio::time::sleep(level.stay) => {}
        // One ends only when something is wrong.
        Some(ended) = staying.join_next() => ended.context("a bot's task failed")??,
    }
    let after = Memory::of(target)?;
    // Without the first one.
    let told = shared.told.load(Ordering::Relaxed).saturating_sub(1);
    staying.shutdown().await;
    Ok(Measured {
        attaching,
        told,
        before,
        after,
    })
}

/// Opens a session, and returns what keeps it alive until something is wrong.
async fn attach(
    client: Client,
    shared: Arc<Shared>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
    let hello = Hello {
        min_protocol: 1,
        max_protocol: 1,
        bot_id: shared.bot.clone(),
        instance_id: fresh::id() + &fresh::id(),
        credit: Some(CREDIT),
        ..Hello::default()
    };
    let opening = BotStream::open_with_queue(&client, hello, QUEUE_FRAMES);
    let stream = tokio::time::timeout(ATTACH_TIMEOUT, opening)
        .await
        .context("a bot was not let in in time")?
        .context("a bot was not let in")?;
    let interval = super::heartbeat(stream.welcome().heartbeat_interval);
    Ok(stay(stream, interval, shared))
}

async fn stay(
    mut stream: BotStream,
    interval: Duration,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    let mut heartbeat = tokio::time::interval(interval);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            _ = heartbeat.tick() => stream.send(BotHeartbeat::default()).await?,
            frame = stream.next() => match frame?.context("the gateway ended a session")? {
                GatewayFrame::Heartbeat(_) => {
                    if !std::mem::replace(&mut told, true) {
                        shared.told.fetch_add(1, Ordering::Relaxed);
                    }
                }
                GatewayFrame::Error(error) => {
                    return Err(turnwire_client::Error::from(error))
                        .context("the gateway refused a frame");
                }
                GatewayFrame::Drain(_) => bail!("the gateway is going down"),
                GatewayFrame::Delivery(_) => bail!("an idle bot got something to do"),
                GatewayFrame::Welcome(_)
                | GatewayFrame::AckResult(_)
                | GatewayFrame::SendResult(_)
                | GatewayFrame::Receipt(_) => {}
            },
        }
    }
}
