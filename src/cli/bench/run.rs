//! A level, run against a system: Turnwire, or a peer that does the same turn.

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::load::{Clock, Load, Measured};
use super::nats::{self, Peer};
use super::target::Target;
use super::{adapter, bot};

/// What serves turns.
pub(super) enum System {
    Turnwire(Box<Target>),
    Nats(Peer),
}

/// One stream of users.
enum User {
    Turnwire(Box<adapter::Adapter>),
    Nats(Box<nats::User>),
}

/// A level whose streams are open.
struct Open {
    /// Each ends only when something is wrong.
    bots: JoinSet<anyhow::Result<()>>,
    users: Vec<User>,
}

/// How a level went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) measured: Measured,
    /// Turns that began, or should have begun, and were not over when the measured time was.
    pub(super) backlog: u64,
    /// Turns that were never over. They are among the latencies, with how long they had waited.
    pub(super) unanswered: u64,
}

impl System {
    /// All that are measured, Turnwire first.
    pub(super) fn all(target: Target, peers: Vec<Peer>) -> Vec<Self> {
        let mut systems = vec![Self::Turnwire(Box::new(target))];
        systems.extend(peers.into_iter().map(Self::Nats));
        systems
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Turnwire(_) => "turnwire".to_owned(),
            Self::Nats(peer) => peer.name(),
        }
    }

    pub(super) fn is_turnwire(&self) -> bool {
        matches!(self, Self::Turnwire(_))
    }

    /// Ends the gateways of their own. Fails if one has ended by itself.
    pub(super) async fn close_all(systems: Vec<Self>) -> anyhow::Result<()> {
        for system in systems {
            if let Self::Turnwire(target) = system {
                target.close().await?;
            }
        }
        Ok(())
    }

    /// Runs one level: all streams open first, then the clock starts.
    pub(super) async fn run(&self, load: &Load) -> anyhow::Result<Outcome> {
        match self {
            Self::Turnwire(target) => turnwire(target, load).await,
            Self::Nats(peer) => {
                // They are removed even if the level failed: a peer is not ours to fill.
                let queues = peer.create(load).await?;
                let outcome = async {
                    let (bots, users) = queues.open(load).await?;
                    let users = users.into_iter().map(|user| User::Nats(Box::new(user)));
                    let users = users.collect();
                    drive(load, Open { bots, users }).await
                }
                .await;
                let removed = queues.remove().await;
                let outcome = outcome?;
                removed?;
                Ok(outcome)
            }
        }
    }
}

impl User {
    async fn run(self, clock: Clock) -> anyhow::Result<Measured> {
        match self {
            Self::Turnwire(adapter) => adapter.run(clock).await,
            Self::Nats(user) => user.run(clock).await,
        }
    }
}

/// Runs one level against a gateway.
pub(super) async fn turnwire(target: &Target, load: &Load) -> anyhow::Result<Outcome> {
    drive(load, open(target, load).await?).await
}

async fn open(target: &Target, load: &Load) -> anyhow::Result<Open> {
    let mut bots = JoinSet::new();
    let mut users = Vec::new();
    for stream in 0..load.level.streams {
        let client = target.connect().await?;
        bots.spawn(bot::open(&client, load, stream).await?.run());
        let client = target.connect().await?;
        let adapter = adapter::open(&client, load, stream).await?;
        users.push(User::Turnwire(Box::new(adapter)));
    }
    Ok(Open { bots, users })
}

/// Users give up by themselves, so that this ends.
async fn drive(load: &Load, open: Open) -> anyhow::Result<Outcome> {
    let Open { mut bots, users } = open;
    let clock = load.start();
    let mut running = JoinSet::new();
    for user in users {
        running.spawn(user.run(clock));
    }
    let mut measured = Measured::new()?;
    loop {
        tokio::select! {
            Some(ended) = bots.join_next() => ended.context("the bot's task failed")??,
            ended = running.join_next() => match ended {
                Some(ended) => measured.add(&ended.context("a user's task failed")??)?,
                None => break,
            },
        }
    }
    let backlog = match load.schedule() {
        Some(schedule) => schedule.turns().saturating_sub(measured.before_end),
        None => {
            ensure!(
                load.unfinished() == 0,
                "{} of {} conversations were never answered",
                load.unfinished(),
                load.level.conversations
            );
            load.level.conversations as u64
        }
    };
    let unanswered = load.count_unanswered(&clock, Instant::now(), &mut measured);
    Ok(Outcome {
        measured,
        backlog,
        unanswered,
    })
}
