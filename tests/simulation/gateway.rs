//! The real engine, on a store that outlives it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use turnwire::clock::{Clock, Timestamp};
use turnwire::engine::Engine;
use turnwire::engine::log::{Entry, Page};
use turnwire::engine::settings::{Bot, Channel, Hears, OnPoison, Outbound, Settings};
use turnwire::id::{ConversationKey, Sequence};
use turnwire::limits::Limits;
use turnwire::metrics::Metrics;
use turnwire::proto::v1;
use turnwire::store::memory::Verdict;
use turnwire::store::{self, Memory, Order};

use crate::clock::Simulated;

/// A channel, its bot, and what becomes of what the bot cannot take.
pub(crate) const ROUTES: [(&str, &str); 3] = [
    ("chat", "skips"),
    ("desk", "blocks"),
    ("help", "falls-back"),
];
/// What the user is told in the place of a bot.
pub(crate) const FALLBACK: &str = "a person will answer";
/// How long logs are kept: longer than all but the longest jumps of the clock together.
pub(crate) const RETENTION: Duration = Duration::from_secs(6 * 3600);
/// Attempts before a delivery is parked.
pub(crate) const ATTEMPTS: u32 = 3;
/// More than a shard needs, on this very thread, until it waits for something.
const ENOUGH_YIELDS: usize = 24;

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing is written.
    Refuse,
    /// It is written, and says that it is not.
    ApplyAndFail,
}

impl Failure {
    fn verdict(self) -> Verdict {
        let error = store::Error::Failed {
            place: "memory".to_owned(),
            source: Arc::new(std::io::Error::other("told to fail")),
        };
        match self {
            Self::Refuse => Verdict::Refuse(error),
            Self::ApplyAndFail => Verdict::ApplyAndFail(error),
        }
    }
}

pub(crate) struct Gateway {
    pub(crate) memory: Memory,
    pub(crate) clock: Arc<Simulated>,
    pub(crate) engine: Engine,
    seed: u64,
    shards: usize,
    epoch: u32,
}

impl Gateway {
    pub(crate) fn new(seed: u64, shards: usize) -> Self {
        let memory = Memory::new();
        let clock = Arc::new(Simulated::new(Timestamp(1_700_000_000_000)));
        let engine = open(seed, shards, &memory, &clock, 1);
        Self {
            memory,
            clock,
            engine,
            seed,
            shards,
            epoch: 1,
        }
    }

    /// Lets everyone do what is to be done now.
    pub(crate) async fn settle(&self) {
        for _ in 0..ENOUGH_YIELDS {
            tokio::task::yield_now().await;
        }
    }

    /// Fails the next `count` commits.
    pub(crate) fn fail_next(&self, count: usize, how: Failure) {
        let left = AtomicUsize::new(count);
        self.memory.on_commit(move |_, _| {
            let less = |left: usize| left.checked_sub(1);
            match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
                Ok(_) => how.verdict(),
                Err(_) => Verdict::Apply,
            }
        });
    }

    /// The process ends, whatever it was doing, and another one begins. `keep` of the writes that
    /// were not synced are left. Returns how many were lost.
    pub(crate) async fn restart(&mut self, keep: usize) -> usize {
        self.memory.on_commit(|_, _| Failure::Refuse.verdict());
        self.engine.stop().await;
        self.memory.heal();
        let lost = self.memory.crash(keep);
        self.epoch += 1;
        self.engine = open(
            self.seed,
            self.shards,
            &self.memory,
            &self.clock,
            self.epoch,
        );
        lost
    }

    /// All that is kept of a conversation's log.
    pub(crate) fn log(&self, key: &ConversationKey) -> Vec<Arc<Entry>> {
        let page = Page {
            entries: usize::MAX,
            bytes: usize::MAX,
        };
        let Ok(conversation) = self.engine.conversation(key) else {
            return Vec::new();
        };
        let (from, to) = (conversation.first, Sequence(u64::MAX));
        let log = self
            .engine
            .activities(conversation.number, from, to, Order::Ascending, page);
        log.expect("a readable log")
    }

    /// The oldest activity that is kept of a conversation.
    pub(crate) fn first(&self, key: &ConversationKey) -> Sequence {
        let conversation = self.engine.conversation(key);
        conversation.map_or(Sequence(1), |conversation| conversation.first)
    }

    /// Whether everybody has everything of a conversation.
    pub(crate) fn is_finished(&self, key: &ConversationKey) -> bool {
        let Ok(conversation) = self.engine.conversation(key) else {
            return true;
        };
        let last = conversation.last;
        let mut cursors = conversation.cursors.iter();
        cursors.all(|(_, cursor)| cursor.finished == last && !cursor.replays)
    }
}

fn open(seed: u64, shards: usize, memory: &Memory, clock: &Arc<Simulated>, epoch: u32) -> Engine {
    let bot = |(_, id): (&str, &str)| {
        let bot = Bot {
            account: v1::ChannelAccount {
                id: Some(id.to_owned()),
                ..Default::default()
            },
            delivery_deadline: Duration::from_secs(60),
            delivery_attempts: ATTEMPTS,
            hears: Hears::Users,
            on_poison: match id {
                "blocks" => OnPoison::Block,
                "falls-back" => OnPoison::Fallback {
                    text: FALLBACK.to_owned(),
                },
                _ => OnPoison::Skip,
            },
        };
        (id.into(), bot)
    };
    let channel = |(id, bot): (&str, &str)| {
        let channel = Channel {
            bot: bot.into(),
            also: Vec::new(),
            capabilities: v1::ChannelCapabilities::default(),
            outbound: match id {
                "help" => Outbound::Watch,
                _ => Outbound::Queue,
            },
            service_url: None,
            end_closes: false,
            stream_interval: Duration::from_secs(1),
        };
        (id.into(), channel)
    };
    let limits = Limits {
        log_retention: RETENTION,
        // What is repeated is always known.
        idempotency_retention: Duration::from_secs(365 * 24 * 3600),
        // Conversations come and go.
        conversation_idle: Duration::from_secs(2),
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        bots: ROUTES.into_iter().map(bot).collect::<HashMap<_, _>>(),
        channels: ROUTES.into_iter().map(channel).collect::<HashMap<_, _>>(),
        shards,
        seed,
    };
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let (store, metrics) = (Arc::new(memory.clone()), Arc::new(Metrics::new()));
    Engine::open(store, epoch, clock, settings, metrics).expect("it opens")
}
