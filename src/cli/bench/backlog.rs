//! `turnwire bench backlog`: what happens when a bot comes back to much that waits for it.
//!
//! Activities are posted into many conversations while no bot is attached. Then a bot attaches,
//! takes all of them and acknowledges each; it checks that every conversation comes in order and
//! whole. Between the two the gateway is left alone, so that the memory is not that of the posting.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::facts::Facts;
use super::names::Names;
use super::poster::Poster;
use super::report::{Cell, Column, Table};
use super::taker::Taker;
use super::target::{self, Target};
use super::{child, disk};
use crate::cli::connection::Connection;

/// How long the gateway is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Activities that wait for the bot, one measurement for each number
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1000000",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000)
    )]
    pending: Vec<u64>,
    /// Conversations they are in, as evenly as can be
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    conversations: u32,
    /// Bytes of text in an activity
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    #[command(flatten)]
    target: target::Flags,
}

/// Sizes are in binary units.
const COLUMNS: &[Column] = &[
    Column::count("pending", "pending"),
    Column::count("conversations", "conversations"),
    Column::number("fill s", "fillSeconds", 1),
    Column::number("posts/s", "postsPerSecond", 0),
    Column::number("first ms", "firstDeliveryMs", 1),
    Column::number("drain s", "drainSeconds", 1),
    Column::number("drained/s", "drainedPerSecond", 0),
    Column::number("empty MiB", "emptyMib", 1),
    Column::number("filled MiB", "filledMib", 1),
    Column::number("drained MiB", "drainedMib", 1),
];

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.target.threads.into()
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let most = args.pending.iter().copied().max().unwrap_or_default();
    if connection.gateway.is_none() {
        disk::check(&args.target, most, args.size)?;
    }
    let facts = Facts::gather(args.target.data.as_deref())
        .setting("bytes", args.size)
        .setting("threads", args.target.threads);
    let mut table = Table::begin("backlog", &facts, COLUMNS, json)?;
    for pending in &args.pending {
        let target = Target::open(
            args.target.data.as_deref(),
            connection,
            &child::Options::default(),
        )
        .await?;
        let cells = measure(&args, *pending, &target)
            .await
            .with_context(|| format!("with {pending} pending activities"))?;
        table.row(&cells)?;
        target.close().await?;
    }
    table.end()
}

async fn measure(args: &Args, pending: u64, target: &Target) -> anyhow::Result<Vec<Cell>> {
    let conversations = (args.conversations as usize).min(usize::try_from(pending)?);
    let names = Names::new();
    let client = target.connect().await?;
    let mut poster = Poster::open(&client, &args.target.channel, args.size as usize).await?;
    let empty = target.resident_mib();
    let begun = Instant::now();
    for number in 0..pending {
        let (turn, conversation) = (number / conversations as u64, number % conversations as u64);
        poster
            .post(&names, usize::try_from(conversation)?, turn)
            .await?;
    }
    poster.finish().await?;
    let filling = begun.elapsed();

    tokio::select! {
        () = tokio::time::sleep(SETTLE) => {}
        ended = poster.stay() => ended?,
    }
    let filled = target.resident_mib();

    let client = target.connect().await?;
    let begun = Instant::now();
    let mut taker = Taker::open(&client, &args.target.bot, &names, vec![0; conversations]).await?;
    taker.take(1).await?;
    let first = begun.elapsed();
    let taking = taker.take(pending);
    let progress = tokio::select! {
        progress = taking => progress?,
        ended = poster.stay() => return ended.map(|()| Vec::new()),
    };
    let draining = begun.elapsed();
    ensure!(
        progress.again == 0,
        "{} activities were delivered again",
        progress.again
    );

    Ok(vec![
        pending.into(),
        conversations.into(),
        filling.as_secs_f64().into(),
        (pending as f64 / filling.as_secs_f64()).into(),
        (first.as_secs_f64() * 1_000.0).into(),
        draining.as_secs_f64().into(),
        (pending as f64 / draining.as_secs_f64()).into(),
        empty.into(),
        filled.into(),
        target.resident_mib().into(),
    ])
}
