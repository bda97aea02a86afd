//! `turnwire bench sockets`: what a web chat's socket costs the gateway, and how soon it shows what is
//! said.
//!
//! Each user starts a Direct Line conversation of its own and opens its stream. What the gateway has
//! in memory is read before and after, while nobody says anything. Then some of the users talk: each
//! posts at times that are fixed beforehand, as in [`rate`](super::rate), over a connection that it
//! keeps. A bot answers. What counts is when the user's own activity, and then the answer, come down
//! the socket; each must come once.

mod http;
mod talk;
mod user;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::http::Line;
use self::talk::{Heard, Talk, Turns};
use self::user::User;
use super::facts::Facts;
use super::load::{Level, Load};
use super::memory::{Memory, SETTLE};
use super::report::{Cell, Column, Table};
use super::target::Target;
use super::{bot, child};
use crate::auth::secret::Token;
use crate::cli::connection::Connection;
use crate::cli::descriptors;
use crate::cli::exit::Usage;

/// Users that are opening their socket at one time.
const OPENING: usize = 64;

/// How long nothing more may come after the last answer that was waited for: what comes twice, comes
/// then.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sockets, one measurement for each number, each with a gateway of its own
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "5000",
        value_parser = clap::value_parser!(u32).range(1..=500_000)
    )]
    sockets: Vec<u32>,
    /// How many of them talk, once the memory was read
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    talking: u32,
    /// Posts a second of all together [default: one of each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How long they talk
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long they talk before that
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warmup: u64,
    /// How long all are silent before the memory is read: with the default limits a socket has been
    /// sent a sign of life by then
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    idle: u64,
    /// Bytes of text in a message and in its answer
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(64..=100_000))]
    size: u32,
    /// The secret of a Direct Line channel of the gateway named by --gateway
    #[arg(
        long,
        value_name = "SECRET",
        env = "TURNWIRE_SECRET",
        hide_env_values = true
    )]
    secret: Option<String>,
    /// The bot that the channel is routed to
    #[arg(long, default_value = child::BOT)]
    bot: String,
    /// Threads of the load generator, which shares the machine with a gateway of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Where the gateway of its own keeps its data [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", conflicts_with = "gateway")]
    data: Option<PathBuf>,
}

/// Sizes are in binary units.
const COLUMNS: &[Column] = &[
    Column::count("sockets", "sockets"),
    Column::number("opened/s", "openedPerSecond", 0),
    Column::number("before MiB", "beforeMib", 1),
    Column::number("after MiB", "afterMib", 1),
    Column::number("KiB each", "kibEach", 1),
    Column::number("PSS KiB each", "pssKibEach", 1),
    Column::count("talking", "talking"),
    Column::text("what", "what", 6),
    Column::number("posts/s", "postsPerSecond", 0),
    Column::number("p50 ms", "p50Ms", 3),
    Column::number("p99 ms", "p99Ms", 3),
    Column::number("p99.9 ms", "p999Ms", 3),
    Column::number("max ms", "maxMs", 3),
    Column::count("lost", "lost"),
    Column::count("doubled", "doubled"),
];

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.threads.into()
    }

    fn level(&self, sockets: u32) -> Level {
        let talking = self.talking.min(sockets);
        let rate = self.rate.unwrap_or(talking);
        Level {
            conversations: talking as usize,
            streams: 1,
            size: self.size as usize,
            warmup: Duration::from_secs(self.warmup),
            measured: Duration::from_secs(self.seconds),
            // The secret says which.
            channel: String::new(),
            bot: self.bot.clone(),
            rate: (talking > 0).then(|| rate.into()),
        }
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    if connection.gateway.is_some() != args.secret.is_some() {
        let problem = "`--gateway` and `--secret` go together: without both, the gateway is one of \
                       its own";
        return Err(Usage(problem.to_owned()).into());
    }
    let most = args.sockets.iter().copied().max().unwrap_or_default();
    // Whoever opens a socket or talks has another connection for calls.
    let connections = u64::from(most) + u64::from(args.talking.min(most)) + OPENING as u64;
    descriptors::check(connections, "ask for fewer `--sockets`")?;
    let own_secret = Token::generate();
    let options = child::Options {
        limits: format!(
            "watchers = {}\nconnections = {connections}",
            u64::from(most) + 1
        ),
        tables: channel(&own_secret),
    };
    let secret = args.secret.as_deref().unwrap_or(own_secret.reveal());
    let facts = Facts::gather(args.data.as_deref())
        .setting("bytes", args.size)
        .setting("seconds", args.seconds)
        .setting("warmupSeconds", args.warmup)
        .setting("idleSeconds", args.idle)
        .setting("threads", args.threads);
    let mut table = Table::begin("sockets", &facts, COLUMNS, json)?;
    for sockets in &args.sockets {
        let target = Target::open(args.data.as_deref(), connection, &options).await?;
        let trial = Trial {
            sockets: *sockets as usize,
            idle: Duration::from_secs(args.idle),
            line: Line::new(&target.gateway, secret)?,
            load: Load::new(args.level(*sockets)),
        };
        let measured = trial.run(&target).await;
        let measured = measured.with_context(|| format!("with {sockets} sockets"))?;
        measured.tell(&trial, &mut table)?;
        target.close().await?;
    }
    table.end()
}

/// The channel that users of a gateway of its own come by. Tokens are good for longer than anything
/// is measured.
fn channel(secret: &Token) -> String {
    format!(
        "[[channels]]\nid = \"web\"\nkind = \"direct_line\"\nbot = \"{}\"\n\
         secrets_sha256 = \"{}\"\ntoken_lifetime = \"24h\"\n",
        child::BOT,
        secret.digest()
    )
}

/// One measurement.
struct Trial {
    sockets: usize,
    idle: Duration,
    line: Line,
    load: Load,
}

struct Measured {
    opening: Duration,
    /// Sockets that were sent a sign of life.
    told: usize,
    /// Of a gateway of its own: before the sockets were there, with them, and after the talking.
    memory: Option<[Memory; 3]>,
    heard: Option<Heard>,
}

impl Trial {
    /// All open first, then all are silent, then some talk.
    async fn run(&self, target: &Target) -> anyhow::Result<Measured> {
        let memory = || {
            target
                .child
                .as_ref()
                .map(|_| Memory::of(target))
                .transpose()
        };
        let (talk, turns) = Talk::new(self.load.clone())?;
        let talk = Arc::new(talk);
        let told = Arc::new(AtomicUsize::new(0));
        // Each ends only when something is wrong.
        let mut staying = JoinSet::new();
        let bot = bot::open(&target.connect().await?, &self.load, 0).await?;
        staying.spawn(bot.run());
        // What the first one costs once is not of the others: buffers of threads, tables of metrics.
        let first = User::open(&mut self.line.client(), self.sockets).await?;
        let unheard = Arc::new(AtomicUsize::new(0));
        staying.spawn(first.socket.stay(self.sockets, Arc::clone(&talk), unheard));
        tokio::time::sleep(SETTLE).await;
        let before = memory()?;

        let begun = Instant::now();
        let (opened, mut users) = mpsc::channel(OPENING);
        let mut opening = self.open_all(opened);
        let mut talkers = Vec::new();
        while let Some(user) = or_wrong(&mut staying, users.recv()).await? {
            let (talk, told) = (Arc::clone(&talk), Arc::clone(&told));
            staying.spawn(user.socket.stay(user.number, talk, told));
            if user.number < self.load.level.conversations {
                talkers.push((user.number, user.place));
            }
        }
        while let Some(ended) = opening.join_next().await {
            ended.context("a user's task failed")??;
        }
        let opening = begun.elapsed();

        or_wrong(&mut staying, tokio::time::sleep(self.idle)).await?;
        let after = memory()?;
        let told = told.load(Ordering::Relaxed);
        let mut heard = None;
        if let Some(turns) = turns.filter(|_| !talkers.is_empty()) {
            self.talk(&talk, turns, talkers, &mut staying).await?;
            heard = Some(talk.heard(Instant::now())?);
        }
        let last = memory()?;
        staying.shutdown().await;
        let memory = before.zip(after).zip(last);
        Ok(Measured {
            opening,
            told,
            memory: memory.map(|((before, after), last)| [before, after, last]),
            heard,
        })
    }

    /// Begins to open all sockets; `opened` is given each.
    fn open_all(&self, opened: mpsc::Sender<User>) -> JoinSet<anyhow::Result<()>> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut opening = JoinSet::new();
        for _ in 0..OPENING.min(self.sockets) {
            let (opened, next, sockets) = (opened.clone(), Arc::clone(&next), self.sockets);
            let mut client = self.line.client();
            opening.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= sockets {
                        return Ok(());
                    }
                    let user = User::open(&mut client, number).await?;
                    // Nobody to give it to: the measurement has failed, and says why.
                    if opened.send(user).await.is_err() {
                        return Ok(());
                    }
                }
            });
        }
        opening
    }

    /// Has the talkers talk until all was answered or nobody should wait any longer.
    async fn talk(
        &self,
        talk: &Arc<Talk>,
        turns: Vec<Turns>,
        mut talkers: Vec<(usize, user::Place)>,
        staying: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        talkers.sort_unstable_by_key(|(number, _)| *number);
        for ((number, place), turns) in talkers.into_iter().zip(turns) {
            let mut client = self.line.client();
            client.open().await?;
            staying.spawn(place.post(client, number, Arc::clone(talk), turns));
        }
        let clock = self.load.start();
        staying.spawn(Arc::clone(talk).pace(clock)?);
        or_wrong(staying, self.load.over(clock)).await?;
        or_wrong(staying, tokio::time::sleep(LINGER)).await
    }
}

/// Waits, unless one of those who stay ends.
async fn or_wrong<T>(
    staying: &mut JoinSet<anyhow::Result<()>>,
    waiting: impl Future<Output = T>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        Some(ended) = staying.join_next() => {
            ended.context("a task failed")??;
            anyhow::bail!("a task ended too early")
        }
        done = waiting => Ok(done),
    }
}

impl Measured {
    /// A row for each thing that comes down the sockets.
    fn tell(self, trial: &Trial, table: &mut Table) -> anyhow::Result<()> {
        let per_second = trial.sockets as f64 / self.opening.as_secs_f64();
        let mut cells: Vec<Cell> = vec![trial.sockets.into(), per_second.into()];
        match &self.memory {
            Some([before, after, _]) => {
                let each = after.grown_kib(before, trial.sockets);
                cells.extend([
                    before.resident_mib().into(),
                    after.resident_mib().into(),
                    each.resident.into(),
                    each.proportional.into(),
                ]);
            }
            None => cells.extend([const { Cell::Absent }; 4]),
        }
        let level = &trial.load.level;
        cells.push(level.conversations.into());
        match &self.heard {
            Some(heard) => {
                for (what, came) in [("echo", &heard.echoes), ("answer", &heard.answers)] {
                    let latencies = &came.measured.latencies;
                    let per_second = came.measured.within as f64 / level.measured.as_secs_f64();
                    let mut cells = cells.clone();
                    cells.extend([
                        what.into(),
                        per_second.into(),
                        latencies.quantile_ms(0.5).into(),
                        latencies.quantile_ms(0.99).into(),
                        latencies.quantile_ms(0.999).into(),
                        latencies.max_ms().into(),
                        came.lost.into(),
                        came.doubled.into(),
                    ]);
                    table.row(&cells)?;
                }
            }
            None => {
                cells.resize(COLUMNS.len(), Cell::Absent);
                table.row(&cells)?;
            }
        }
        table.note(&format!(
            "{} of {} sockets were sent a sign of life while all were silent",
            self.told, trial.sockets
        ))?;
        if let (Some([_, _, last]), Some(_)) = (&self.memory, &self.heard) {
            table.note(&format!("{:.1} MiB after the talking", last.resident_mib()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Kind, Overrides};

    #[test]
    fn the_channel_of_its_own_is_one_of_direct_line() -> anyhow::Result<()> {
        let secret = Token::generate();
        let text = format!("[[bots]]\nid = \"{}\"\n{}", child::BOT, channel(&secret));
        let config = Config::parse(&text, "bench", &|_| None, &Overrides::default())?;
        assert_eq!(config.channels[0].kind, Kind::DirectLine);
        let site = config.channels[0].direct_line.as_ref();
        assert!(site.is_some_and(|site| site.secrets == [secret.digest()]));
        Ok(())
    }
}
