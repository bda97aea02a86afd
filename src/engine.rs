//! The engine: conversations, deliveries and sessions, without any transport.
//!
//! [`Engine`] is the cheap handle that every front door holds; [`Link`] is what a stream holds of it.
//! Behind them, shards own the conversations: see `shard`.

mod address;
mod attach;
mod bots;
mod command;
mod conversation;
pub mod create;
pub mod delivery;
pub mod erase;
mod error;
mod feed;
mod heard;
mod letters;
mod link;
pub mod log;
mod read;
pub mod receipt;
mod reload;
mod retry;
mod room;
mod round;
pub mod schedule;
pub mod session;
mod sessions;
pub mod settings;
mod shard;
pub mod state;
mod stream;
pub mod terms;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::activity;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::id::{BotId, ChannelId, ConversationId, ConversationKey, DeliveryId};
use crate::metrics::Metrics;
use crate::proto::v1;
use crate::store::{self, KeyRange, Order, Store};

pub use address::{Found, User};
pub use attach::Opening;
pub use bots::{Asker, Changed};
pub use command::{Backlog, Deal, Dealt, Nack};
pub use conversation::Stored as Conversation;
pub use error::{Error, FrameError};
pub use feed::{Ephemeral, Follower, Step};
pub use letters::{DeadLetter, LetterFilter, Letters};
pub use link::Link;
pub use read::{Filter, ListPosition};
pub use sessions::{Doing, SessionInfo};
pub use stream::Piece;

use command::{Append, Command, From as Origin, Keyed, Reply};
use create::Creations;
use session::{Appended, Event, Session, Subscriber};
use settings::Settings;
use shard::{Shard, Shared};

/// A handle on the engine. Cheap to clone; the engine runs until [`stop`](Self::stop).
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    shards: Vec<mpsc::Sender<Command>>,
    /// Room for what waits for the shards, in bytes.
    room: Capacity,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// The attached sessions; one for each subscriber and instance.
    sessions: Mutex<HashMap<(Subscriber, String), Arc<Session>>>,
    next_session: AtomicU64,
    random: Mutex<StdRng>,
    draining: AtomicBool,
    /// Places for those who watch conversations.
    watchers: Capacity,
    /// Places for those who wait for receipts.
    waiters: Arc<Semaphore>,
    creations: Creations,
}

/// Where to start following a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After a sequence; after zero is the oldest that is kept.
    After(crate::id::Sequence),
    /// After the newest activity.
    End,
}

impl Engine {
    /// Starts an engine on a store that was opened for the `epoch`th time.
    ///
    /// Takes time in proportion to the conversations that may have pending work, and no more.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`] when the store cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        epoch: u32,
        clock: Arc<dyn Clock>,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let count = settings.shards;
        assert!(
            (1..=shard::MOST).contains(&count),
            "1 to {} shards",
            shard::MOST
        );
        let mut live: Vec<VecDeque<ConversationKey>> = vec![VecDeque::new(); count];
        let mut corrupt = None;
        store.scan(&KeyRange::live(), Order::Ascending, &mut |key, _| {
            match store::keys::decode_live(key) {
                Ok(conversation) => {
                    live[shard_of(&conversation, count)].push_back(conversation);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    corrupt = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = corrupt {
            return Err(error.into());
        }
        let random = Mutex::new(StdRng::seed_from_u64(settings.seed));
        let limits = settings.limits.clone();
        let shared = Arc::new(Shared {
            store,
            clock,
            settings: settings::InForce::new(settings),
            metrics,
            epoch,
            declared: Mutex::default(),
            backlogs: Mutex::default(),
            held: AtomicUsize::new(0),
            resident: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            failed: Notify::new(),
            pending: shard::pending::Pending::default(),
        });
        let mut shards = Vec::new();
        let mut tasks = Vec::new();
        for (index, live) in live.into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel(limits.shard_commands);
            let shard = Shard::new(index as u8, Arc::clone(&shared), live);
            tasks.push(shard::spawn(shard, receiver));
            shards.push(sender);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                watchers: Capacity::new(limits.watchers),
                room: Capacity::new(limits.shard_bytes),
                waiters: Arc::new(Semaphore::new(limits.delivery_waiters)),
                creations: Creations::new(limits.creations),
                shared,
                shards,
                tasks: Mutex::new(tasks),
                sessions: Mutex::default(),
                next_session: AtomicU64::new(1),
                random,
                draining: AtomicBool::new(false),
            }),
        })
    }

    /// The engine's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.shared.clock
    }

    /// How long a bot may hold a delivery.
    #[must_use]
    pub fn delivery_deadline(&self, bot: &BotId) -> Duration {
        self.settings().look().delivery_deadline(bot)
    }

    /// Whether the store took the last write, and no shutdown has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.shared.healthy.load(Ordering::Relaxed) && !self.is_draining()
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// Appends what a channel posts, durably. The first activity of a conversation starts it.
    ///
    /// The activity's own id, if it has one, makes repeating safe.
    ///
    /// # Errors
    ///
    /// [`Error::ChannelUnknown`], [`Error::Activity`], [`Error::GroupsUnsupported`],
    /// [`Error::IdempotencyMismatch`], [`Error::StoreFull`], [`Error::StoreFailed`],
    /// [`Error::ShuttingDown`].
    pub async fn post(
        &self,
        channel: &ChannelId,
        activity: Box<v1::Activity>,
    ) -> Result<Appended, Error> {
        let (reply, result) = oneshot::channel();
        self.append_post(channel, activity, None, Reply::Caller(reply))
            .await?;
        result.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Like [`post`](Self::post), made safe to repeat by `key` and not by the activity's id: what is
    /// posted with a key that was used before, whatever it is, gives the result of the first.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post), but for [`Error::IdempotencyMismatch`].
    pub async fn post_once(
        &self,
        channel: &ChannelId,
        key: String,
        activity: Box<v1::Activity>,
    ) -> Result<Appended, Error> {
        let (reply, result) = oneshot::channel();
        let key = Some(Keyed::whatever(key));
        self.append_post(channel, activity, key, Reply::Caller(reply))
            .await?;
        result.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Appends what a backend says for a bot, durably. `key` makes repeating safe; `reference` is
    /// applied in place of the one the gateway keeps.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::BotAbsent`], [`Error::BotAmbiguous`],
    /// [`Error::Activity`], [`Error::IdempotencyMismatch`], [`Error::StoreFull`],
    /// [`Error::StoreFailed`], [`Error::ShuttingDown`].
    pub async fn send_activity(
        &self,
        conversation: ConversationKey,
        bot: Option<BotId>,
        reference: Option<Box<v1::ConversationReference>>,
        key: Option<String>,
        mut activity: Box<v1::Activity>,
    ) -> Result<Appended, Error> {
        let (reply, result) = oneshot::channel();
        let draft = activity::outbound(&mut activity, &self.limits())?;
        let key = key.map(|key| Keyed::new(key, &draft).with(reference.as_deref()));
        let from = Origin::Backend { bot, reference };
        let shard = self.shard(&conversation);
        let conversation = Some(conversation);
        let append = Append {
            room: self.room(draft.body().len()).await,
            conversation,
            draft,
            from,
            key,
            reply: Reply::Caller(reply),
        };
        self.command(shard, Command::Append(Box::new(append)))
            .await?;
        result.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Follows a conversation from `start` on.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`]; [`Error::SequenceGone`] when retention has removed what
    /// follows `start`; [`Error::StoreFailed`], [`Error::ShuttingDown`].
    pub async fn follow(
        &self,
        conversation: ConversationKey,
        start: Start,
    ) -> Result<Follower, Error> {
        let (reply, followed) = oneshot::channel();
        let shard = self.shard(&conversation);
        let id = conversation.conversation.clone();
        let command = Command::Follow {
            reply,
            conversation,
        };
        self.command(shard, command).await?;
        let followed = followed.await.map_err(|_| Error::ShuttingDown)??;
        let kept_after = followed.first.previous();
        let position = match start {
            Start::End => followed.last,
            Start::After(crate::id::Sequence::START) => kept_after,
            Start::After(sequence) if sequence < kept_after => {
                return Err(Error::SequenceGone {
                    first: followed.first,
                });
            }
            // Beyond the end there is nothing yet: what is appended from now on is new.
            Start::After(sequence) => sequence.min(followed.last),
        };
        let store = Arc::clone(&self.inner.shared.store);
        Ok(Follower::new(
            (id, followed.conversation),
            position,
            followed.settled,
            followed.feed,
            store,
            &self.limits(),
        ))
    }

    /// What waits for a subscriber, as of the last second.
    #[must_use]
    pub fn backlog(&self, subscriber: &Subscriber) -> Backlog {
        let backlogs = self.inner.shared.backlogs();
        let shards = 0..self.inner.shards.len() as u8;
        let parts = shards.filter_map(|shard| backlogs.get(&(shard, subscriber.clone())));
        parts.fold(Backlog::default(), |sum, part| sum.with(*part))
    }

    /// Brings the gauges up to date: sessions, conversations in memory, what waits for each bot.
    pub fn gauge(&self) {
        let metrics = &self.inner.shared.metrics;
        let (mut bots, mut channels, mut away) = (0, 0, 0);
        for session in self.sessions().values() {
            match (session.is_away(), &session.subscriber) {
                (true, _) => away += 1,
                (false, Subscriber::Bot(_)) => bots += 1,
                (false, Subscriber::Egress(_)) => channels += 1,
            }
        }
        metrics.sessions.bot.set(bots);
        metrics.sessions.channel.set(channels);
        metrics.sessions_away.set(away);
        metrics
            .conversations_resident
            .set(self.inner.shared.resident.load(Ordering::Relaxed) as i64);
        let settings = self.settings().get();
        for bot in settings.bots.keys() {
            let backlog = self.backlog(&Subscriber::Bot(bot.clone()));
            metrics
                .undelivered(bot.as_str())
                .set(backlog.undelivered as i64);
        }
        for channel in settings.channels.keys() {
            let backlog = self.backlog(&Subscriber::Egress(channel.clone()));
            metrics
                .outbound(channel.as_str())
                .set(backlog.undelivered as i64);
        }
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.shared.metrics
    }

    /// Begins a shutdown: hands nothing more over, tells every session, and waits until what is in
    /// work is finished, or for the grace.
    pub async fn drain(&self) {
        const LOOK_INTERVAL: Duration = Duration::from_millis(20);
        self.inner.draining.store(true, Ordering::Relaxed);
        // A shard that is gone has nothing to drain.
        let _ = self.command_all(|| Command::Drain).await;
        let grace = self.limits().shutdown_grace;
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        for session in sessions {
            let reconnect_after = Duration::from_millis(self.random().random_range(100..1_000));
            session.tell(Event::Drain {
                reconnect_after,
                grace,
            });
        }
        let clock = self.clock();
        let until = clock.now().after(grace);
        while self.inner.shared.held.load(Ordering::Relaxed) > 0 && clock.now() < until {
            clock.sleep_until(clock.now().after(LOOK_INTERVAL)).await;
        }
    }

    /// Ends all sessions and stops the shards, with everything durable. Later calls are refused with
    /// [`Error::ShuttingDown`].
    pub async fn stop(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        self.inner.creations.end();
        // The shards first: they answer what was sent before, and then nothing more is told.
        for shard in &self.inner.shards {
            let (done, stopped) = oneshot::channel();
            if shard.send(Command::Stop(done)).await.is_ok() {
                // A shard that has failed does not answer, and has nothing to say.
                let _ = stopped.await;
            }
        }
        let sessions: Vec<_> = self
            .sessions()
            .drain()
            .map(|(_, session)| session)
            .collect();
        for session in sessions {
            session.end(Error::ShuttingDown);
        }
        let tasks = std::mem::take(&mut *lock(&self.inner.tasks));
        for task in tasks {
            // They have said that they stopped; a panic was reported when it happened.
            let _ = task.await;
        }
    }

    /// Completes when a shard has failed: an invariant of its own was broken, and its conversations
    /// can no longer be served. The process must be started again.
    pub async fn failed(&self) {
        self.inner.shared.failed.notified().await;
    }

    async fn append_post(
        &self,
        channel: &ChannelId,
        mut activity: Box<v1::Activity>,
        key: Option<Keyed>,
        reply: Reply,
    ) -> Result<(), Error> {
        if !self.settings().look().channels.contains_key(channel) {
            return Err(Error::ChannelUnknown(channel.clone()));
        }
        let draft = activity::inbound(&mut activity, &self.limits())?;
        let id = draft
            .conversation
            .as_ref()
            .and_then(|conversation| conversation.id.as_deref());
        let conversation = ConversationKey {
            channel: channel.clone(),
            conversation: ConversationId::from(id.unwrap_or_default()),
        };
        let shard = self.shard(&conversation);
        let own = || draft.id.clone().map(|id| Keyed::new(id, &draft));
        let key = key.or_else(own);
        let conversation = Some(conversation);
        let append = Append {
            room: self.room(draft.body().len()).await,
            conversation,
            draft,
            from: Origin::Channel,
            key,
            reply,
        };
        self.command(shard, Command::Append(Box::new(append))).await
    }

    async fn command(&self, shard: usize, command: Command) -> Result<(), Error> {
        self.inner.shards[shard]
            .send(command)
            .await
            .map_err(|_| Error::ShuttingDown)
    }

    async fn command_all(&self, command: impl Fn() -> Command) -> Result<(), Error> {
        for shard in 0..self.inner.shards.len() {
            self.command(shard, command()).await?;
        }
        Ok(())
    }

    /// How many shards there are.
    fn shards(&self) -> usize {
        self.inner.shards.len()
    }

    /// The shard to ask about a delivery. Any will do for one that none has made.
    fn shard_of_delivery(&self, delivery: DeliveryId) -> usize {
        usize::from(shard::Ids::shard_of(delivery)).min(self.shards() - 1)
    }

    fn next_session(&self) -> u64 {
        self.inner.next_session.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, conversation: &ConversationKey) -> usize {
        shard_of(conversation, self.inner.shards.len())
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<(Subscriber, String), Arc<Session>>> {
        lock(&self.inner.sessions)
    }

    fn random(&self) -> MutexGuard<'_, StdRng> {
        lock(&self.inner.random)
    }
}

/// Locks what stays valid whatever happened to another holder: single inserts and reads.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of `shards` owns a conversation.
fn shard_of(conversation: &ConversationKey, shards: usize) -> usize {
    hashed(conversation, shards)
}

/// One of `shards`, by what is hashed.
fn hashed(what: &impl Hash, shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    (hasher.finish() % shards as u64) as usize
}
