//! `turnwire bench failover`: how long users wait when one of a bot's processes dies.
//!
//! Three processes of one bot answer many conversations, of which each stays with the process that
//! has it. One process is killed, as a crash would; the gateway notices, and gives its conversations
//! to the others. What counts is the longest time that passed between two answers in one of those
//! conversations. Every turn must be answered in the end, and once.

pub(super) mod bot_process;
mod process;
mod silence;
mod users;

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use self::process::Process;
use self::silence::Conversation;
use self::users::Users;
use super::child;
use super::facts::Facts;
use super::report::{Column, Table};
use super::target::{self, Target};
use crate::cli::connection::Connection;

/// How long the last answers may take.
const STRAGGLERS: Duration = Duration::from_secs(90);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Processes of the bot
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=64))]
    processes: u16,
    /// How often one is killed; another takes its place afterwards
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    kills: u16,
    /// Conversations, each with one turn at a time
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    conversations: u32,
    /// How long a user waits between an answer and the next message
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pause_ms: u64,
    /// How long each round is measured, from the kill on
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How long users talk before each kill
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    warmup: u64,
    /// Bytes of text in a message
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    #[command(flatten)]
    target: target::Flags,
}

/// Silences are those of the conversations that the killed process held, and of all others.
const COLUMNS: &[Column] = &[
    Column::count("kill", "kill"),
    Column::count("held", "held"),
    Column::number("silence ms", "silenceMs", 0),
    Column::number("others ms", "othersMs", 0),
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
    let target = Target::open(
        args.target.data.as_deref(),
        connection,
        &child::Options::default(),
    )
    .await?;
    let facts = Facts::gather(target.data())
        .setting("bytes", args.size)
        .setting("processes", args.processes)
        .setting("conversations", args.conversations)
        .setting("pauseMs", args.pause_ms)
        .setting("seconds", args.seconds)
        .setting("warmupSeconds", args.warmup)
        .setting("threads", args.target.threads);
    let mut table = Table::begin("failover", &facts, COLUMNS, json)?;

    let bot = &args.target.bot;
    let mut numbers = 0..;
    let mut start = async || {
        let number = numbers.next().context("there are numbers enough")?;
        Process::start(&target.gateway, connection, bot, number).await
    };
    let mut processes = Vec::new();
    for _ in 0..args.processes {
        processes.push(start().await?);
    }
    let client = target.connect().await?;
    let mut users = Users::open(
        &client,
        &args.target.channel,
        args.conversations as usize,
        args.size as usize,
        Duration::from_millis(args.pause_ms),
    )
    .await?;
    for kill in 1..=args.kills {
        users.talk(Duration::from_secs(args.warmup)).await?;
        let index = busiest(&processes, &users.conversations);
        let mut victim = processes.swap_remove(index);
        let held: Vec<bool> = users
            .conversations
            .iter()
            .map(|conversation| conversation.is_held_by(victim.number))
            .collect();
        users.begin_round()?;
        victim.kill().await?;
        users.talk(Duration::from_secs(args.seconds)).await?;
        let now = Instant::now();
        let longest = |of_held: bool| {
            let conversations = users.conversations.iter().zip(&held);
            let silences = conversations
                .filter(|(_, held)| **held == of_held)
                .map(|(conversation, _)| conversation.silence(now));
            silences
                .max()
                .map(|silence| silence.as_secs_f64() * 1_000.0)
        };
        table.row(&[
            u64::from(kill).into(),
            held.iter().filter(|held| **held).count().into(),
            longest(true).into(),
            longest(false).into(),
            users
                .latencies
                .per_second(Duration::from_secs(args.seconds))
                .into(),
            users.latencies.quantile_ms(0.5).into(),
            users.latencies.quantile_ms(0.99).into(),
            users.latencies.quantile_ms(0.999).into(),
            users.latencies.max_ms().into(),
        ])?;
        processes.push(start().await?);
    }
    let lost = users.listen(STRAGGLERS).await?;
    let duplicates = users.duplicates;
    table.note(&format!(
        "{lost} turns were never answered, {duplicates} were answered twice"
    ))?;
    table.end()?;
    ensure!(lost == 0, "{lost} turns were never answered");
    // Before the gateway, which they would miss.
    for process in &mut processes {
        process.kill().await?;
    }
    target.close().await
}

/// The process that holds most conversations: one that has just come holds none.
fn busiest(processes: &[Process], conversations: &[Conversation]) -> usize {
    let holds = |process: &Process| {
        let held = conversations.iter();
        held.filter(|conversation| conversation.is_held_by(process.number))
            .count()
    };
    let busiest = processes.iter().enumerate();
    let busiest = busiest.max_by_key(|(_, process)| holds(process));
    busiest.map_or(0, |(index, _)| index)
}
