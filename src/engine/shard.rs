//! A shard: the one writer of its share of the conversations.
//!
//! A shard is a task that goes round: take the commands that wait, decide each on what memory and
//! store say, write everything with one durable batch, and only then tell anyone. While the disk
//! syncs, the next commands gather, so concurrent appends share a sync and a lone one waits for
//! nothing but its own.
//!
//! One task per conversation was the other way to have one writer each. It costs a wake-up and a
//! channel per frame and still needs a common place to share syncs; here that place decides, too.
//! Since nothing else writes these conversations and a round is all or nothing, what is in memory
//! after a round is what is on disk, and after a failed round the conversations it touched are
//! simply forgotten and read again.

mod acknowledge;
mod append;
mod attach;
mod bots;
mod change;
mod create;
mod dispatch;
mod due;
mod ephemeral;
mod erase;
mod filter;
mod lease;
mod letters;
mod members;
pub(super) mod once;
pub(super) mod pending;
mod queue;
mod receipt;
mod reseat;
mod residency;
mod retention;
pub(super) mod schedule;
mod state;
pub(super) mod stream;
mod write;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt, HashSet};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use slab::Slab;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::clock::{Clock, Timestamp};
use crate::engine::command::{Backlog, Command, Erase};
use crate::engine::conversation::Conversation;
use crate::engine::lock;
use crate::engine::round::Round;
use crate::engine::session::{self, Session, Subscriber};
use crate::engine::settings::{self, Settings};
use crate::id::{ChannelId, ConversationKey, ConversationNumber, DeliveryId, Etag};
use crate::metrics::Metrics;
use crate::proto::v1;
use crate::store::Store;

/// Most shards of an engine.
pub(crate) const MOST: usize = 64;
/// How often a shard looks for conversations to let go, and publishes what waits.
const TICK: Duration = Duration::from_secs(1);
/// How often conversations that could not be read are looked at again.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// Conversations that may have work that are looked at in one round.
const SORTED_PER_ROUND: usize = 64;

/// What all shards of an engine share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// For those who are no shard, which keeps its own.
    pub(crate) settings: settings::InForce,
    pub(crate) metrics: Arc<Metrics>,
    /// How often the store was opened: the high part of every delivery id.
    pub(crate) epoch: u32,
    /// Capabilities that adapters declared when they attached.
    pub(crate) declared: Mutex<HashMap<ChannelId, v1::ChannelCapabilities>>,
    /// What waits, by shard and subscriber, as of each shard's last tick.
    pub(crate) backlogs: Mutex<HashMap<(u8, Subscriber), Backlog>>,
    /// Deliveries that sessions have.
    pub(crate) held: AtomicUsize,
    /// Conversations in memory.
    pub(crate) resident: AtomicUsize,
    /// The store took the last write.
    pub(crate) healthy: AtomicBool,
    /// Told when a shard has failed.
    pub(crate) failed: Notify,
    /// Documents that a shard is writing.
    pub(crate) pending: pending::Pending,
}

impl Shared {
    pub(crate) fn declared(&self) -> MutexGuard<'_, HashMap<ChannelId, v1::ChannelCapabilities>> {
        lock(&self.declared)
    }

    pub(crate) fn backlogs(&self) -> MutexGuard<'_, HashMap<(u8, Subscriber), Backlog>> {
        lock(&self.backlogs)
    }
}

/// Starts a shard's task.
///
/// It blocks its worker of the runtime while the disk syncs. That is meant: a frame's reader that
/// wakes the shard is followed by it on the same thread, and the shard by the streams that it tells,
/// without a thread being woken in between. The runtime has a worker more for each shard, see
/// `server::workers`.
pub(crate) fn spawn(shard: Shard, commands: mpsc::Receiver<Command>) -> JoinHandle<()> {
    /// Says that the shard has failed when it unwinds. A broken invariant ends the gateway: what is
    /// on disk is whole, and another start serves it.
    struct Watchdog(Arc<Shared>);
    impl Drop for Watchdog {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.healthy.store(false, Ordering::Relaxed);
                self.0.failed.notify_one();
            }
        }
    }
    let watchdog = Watchdog(Arc::clone(&shard.shared));
    tokio::spawn(async move {
        let _watchdog = watchdog;
        shard.run(commands).await;
    })
}

/// Makes delivery ids: `epoch (24 bits) | shard (6) | counter (34)`. They only grow within a
/// conversation, which stays with its shard while the epoch lasts.
#[derive(Debug)]
pub(crate) struct Ids {
    epoch: u32,
    shard: u8,
    /// Deliveries.
    counter: u64,
    /// Conversations that were started.
    conversations: u64,
    /// Documents that were written.
    documents: u64,
    /// Sends that were scheduled.
    schedules: u64,
}

impl Ids {
    const COUNTER_BITS: u32 = 34;
    const SHARD_BITS: u32 = MOST.ilog2();

    fn next(&mut self) -> DeliveryId {
        self.counter += 1;
        DeliveryId(self.compose(self.counter))
    }

    /// A number for a new conversation, made as delivery ids are and from a count of its own.
    fn next_number(&mut self) -> ConversationNumber {
        self.conversations += 1;
        ConversationNumber(self.compose(self.conversations))
    }

    /// An etag for a document, made in the same way from a count of its own.
    fn next_etag(&mut self) -> Etag {
        self.documents += 1;
        Etag(self.compose(self.documents))
    }

    /// The same for a scheduled send.
    fn next_schedule(&mut self) -> u64 {
        self.schedules += 1;
        self.compose(self.schedules)
    }

    fn compose(&self, count: u64) -> u64 {
        assert!(
            count < 1 << Self::COUNTER_BITS,
            "17 billion of a kind in one epoch"
        );
        let high = u64::from(self.epoch) << Self::SHARD_BITS | u64::from(self.shard);
        high << Self::COUNTER_BITS | count
    }

    /// Whether a conversation was started since the store was opened, and so by this shard.
    fn has_started(&self, conversation: ConversationNumber) -> bool {
        conversation.0 >> (Self::COUNTER_BITS + Self::SHARD_BITS) == u64::from(self.epoch)
    }

    /// Whether this shard, or one of an earlier epoch, may have made the id.
    fn has_made(&self, id: DeliveryId) -> bool {
        let epoch = (id.0 >> (Self::COUNTER_BITS + Self::SHARD_BITS)) as u32;
        let counter = id.0 & ((1 << Self::COUNTER_BITS) - 1);
        let is_earlier = epoch > 0 && epoch < self.epoch && counter > 0;
        let is_ours = epoch == self.epoch && Self::shard_of(id) == self.shard;
        is_earlier || is_ours && (1..=self.counter).contains(&counter)
    }

    /// The shard that made an id.
    pub(crate) fn shard_of(id: DeliveryId) -> u8 {
        (id.0 >> Self::COUNTER_BITS) as u8 & ((1 << Self::SHARD_BITS) - 1)
    }
}

/// A subscriber as one shard sees it.
struct Subscribed {
    name: Subscriber,
    sessions: Vec<session::Number>,
    /// Conversations with work for it.
    queue: queue::Queue,
}

/// A session as one shard sees it.
struct Attached {
    session: Arc<Session>,
    subscriber: usize,
    held: HashSet<DeliveryId>,
    /// It has lost its stream, and may come back.
    is_away: bool,
    /// It gets nothing more.
    is_draining: bool,
}

impl Attached {
    /// Whether it may be handed anything.
    fn is_open(&self) -> bool {
        !self.is_away && !self.is_draining
    }

    /// Whether it may be handed something now.
    fn has_room(&self) -> bool {
        self.is_open() && self.session.credit().deliveries > 0
    }
}

/// A conversation that may have work.
enum Unsorted {
    /// The store has a mark on it.
    Marked(ConversationKey),
    /// It was dropped from memory, or could not be read.
    Dropped(ConversationKey),
}

/// Where a delivery belongs.
#[derive(Clone, Copy)]
struct Place {
    slot: usize,
    seat: usize,
}

pub(crate) struct Shard {
    index: u8,
    shared: Arc<Shared>,
    /// What each command is decided by: replaced between two of them.
    settings: Arc<Settings>,
    ids: Ids,
    conversations: Slab<Conversation>,
    slots: HashMap<ConversationKey, usize>,
    subscribers: Vec<Subscribed>,
    subscriber_numbers: HashMap<Subscriber, usize>,
    attached: HashMap<session::Number, Attached>,
    held: HashMap<DeliveryId, Place>,
    timers: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// Leases of conversations that have left memory.
    leases: lease::Leases,
    /// Draining sessions that a failed write has left with nothing, to be told with the next round.
    drained: Vec<Arc<Session>>,
    /// Counts reloads; tells conversations that were not looked at since the last one.
    reloads: u64,
    /// The first slot of those that are still to be looked at after a reload.
    next_reseated: Option<usize>,
    /// Resident conversations, the one looked at longest ago first.
    leaving: VecDeque<(usize, u64)>,
    /// Counts conversations that came into memory; tells two users of a slot apart.
    residencies: u64,
    /// Conversations to be looked at, since they may have work.
    unsorted: VecDeque<Unsorted>,
    /// Conversations that could not be read, to be looked at again.
    unreadable: Vec<ConversationKey>,
    /// When the unreadable are looked at again.
    next_reading: Timestamp,
    /// There is more to do than one round may: the next one does not wait.
    unfinished: bool,
    /// Subscribers whose conversations are to be looked at in the next round.
    pump_next: Vec<usize>,
    random: SmallRng,
    disk: append::Disk,
    retention: retention::Progress,
    due: due::Progress,
    next_tick: Timestamp,
    paused_until: Timestamp,
    draining: bool,
    /// The round that is being written.
    flight: Option<write::Flight>,
    /// The egress' cursor of a conversation has moved, which is not surely on disk.
    outcomes_may_be_lost: bool,
    /// Pages that a user is to be erased from: of each caller one.
    erasing: VecDeque<Box<Erase>>,
    /// Results that were kept since the shard began.
    kept: filter::Filter,
    /// Replies that are being made.
    streams: stream::Streams,
    /// How fast ephemeral activities come.
    pace: ephemeral::Pace,
}

impl Shard {
    pub(crate) fn new(index: u8, shared: Arc<Shared>, live: VecDeque<ConversationKey>) -> Self {
        let now = shared.clock.now();
        let settings = shared.settings.get();
        let ids = Ids {
            epoch: shared.epoch,
            shard: index,
            counter: 0,
            conversations: 0,
            documents: 0,
            schedules: 0,
        };
        Self {
            index,
            ids,
            conversations: Slab::new(),
            slots: HashMap::new(),
            subscribers: Vec::new(),
            subscriber_numbers: HashMap::new(),
            attached: HashMap::new(),
            held: HashMap::new(),
            timers: BinaryHeap::new(),
            leases: lease::Leases::default(),
            drained: Vec::new(),
            reloads: 0,
            next_reseated: None,
            leaving: VecDeque::new(),
            residencies: 0,
            unsorted: live.into_iter().map(Unsorted::Marked).collect(),
            unreadable: Vec::new(),
            next_reading: now.after(READ_AGAIN),
            unfinished: false,
            pump_next: Vec::new(),
            random: SmallRng::seed_from_u64(settings.seed ^ u64::from(index)),
            disk: append::Disk::default(),
            retention: retention::Progress::default(),
            due: due::Progress::default(),
            next_tick: now.after(TICK),
            paused_until: Timestamp::default(),
            draining: false,
            flight: None,
            // Of a run before this one.
            outcomes_may_be_lost: true,
            erasing: VecDeque::new(),
            kept: filter::Filter::default(),
            settings,
            streams: stream::Streams::default(),
            pace: ephemeral::Pace::default(),
            shared,
        }
    }

    /// Goes round until all who could command are gone, or one says stop.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut inbox = Vec::new();
        let mut alarm: Option<(Timestamp, crate::clock::Sleep)> = None;
        let mut round: Option<Round> = None;
        let mut stop = None;
        let mut writing: Option<write::Writing> = None;
        loop {
            let most = self.settings.limits.shard_round;
            if let Some(task) = &mut writing {
                // The next round is decided while one is written, and ends when that has landed. It
                // may have more commands already than new settings allow.
                let decided = round.as_ref().map_or(0, |round| round.decided);
                let room = most.saturating_sub(decided);
                tokio::select! {
                    biased;
                    written = task => {
                        writing = None;
                        // It panics only if the store does, which is what a broken invariant is.
                        let written = written.expect("a commit does not panic");
                        round = self.land(written, round);
                        match (&round, &stop) {
                            (Some(_), _) => {}
                            (None, Some(_)) => break,
                            (None, None) => continue,
                        }
                    }
                    count = commands.recv_many(&mut inbox, room), if room > 0 && stop.is_none() => {
                        if count == 0 {
                            stop = Some(None);
                        }
                    }
                }
            } else {
                let wake = self.next_wake();
                if alarm.as_ref().is_none_or(|(at, _)| *at != wake) {
                    alarm = Some((wake, self.shared.clock.sleep_until(wake)));
                }
                let Some((_, sleep)) = &mut alarm else {
                    unreachable!("it was just set")
                };
                let has_more = self.unfinished || !self.unsorted.is_empty();
                self.unfinished = false;
                tokio::select! {
                    biased;
                    count = commands.recv_many(&mut inbox, most) => if count == 0 { break },
                    () = std::future::ready(()), if has_more => {}
                    () = sleep => alarm = None,
                }
            }
            let open = round.get_or_insert_with(|| Round::new(self.shared.clock.now()));
            open.decided += inbox.len();
            for command in inbox.drain(..) {
                stop = self.decide(command, open).map(Some).or(stop);
            }
            if writing.is_some() {
                continue;
            }
            // Readers that have frames bring them now, without anyone waiting for a reader that has
            // none: under load a round is larger by it, and there are fewer of them. A lone command
            // is no load.
            if open.decided > 1 {
                tokio::task::yield_now().await;
                while open.decided < most
                    && stop.is_none()
                    && let Ok(command) = commands.try_recv()
                {
                    open.decided += 1;
                    stop = self.decide(command, open).map(Some).or(stop);
                }
            }
            let Some(mut ended) = round.take() else {
                unreachable!("it was just made")
            };
            self.end(&mut ended);
            // One that nobody waits behind is written here and now, without waking another thread.
            let here = commands.is_empty() || stop.is_some() || !self.shared.store.blocks();
            writing = self.write(ended, here);
            // Those who were told something are to say it before the next round blocks their worker.
            tokio::task::yield_now().await;
            if writing.is_none() && stop.is_some() {
                break;
            }
        }
        self.leave();
        if let Some(Some(stopped)) = stop {
            // Whoever asked may have gone away.
            let _ = stopped.send(());
        }
    }

    /// Does what a round does besides its commands.
    fn end(&mut self, round: &mut Round) {
        self.shared.metrics.round_size.observe(round.decided as f64);
        round.pump.append(&mut self.pump_next);
        round.drained.append(&mut self.drained);
        self.reseat_some(round);
        self.sort(round);
        self.fire_timers(round);
        self.fire_streams(round);
        self.tick(round);
        self.send_due(round);
        self.retain(round);
        self.settle_streams(round);
        self.pump_all(round);
        self.erase_next(round);
    }

    fn decide(
        &mut self,
        command: Command,
        round: &mut Round,
    ) -> Option<tokio::sync::oneshot::Sender<()>> {
        match command {
            Command::Append(append) => self.append(*append, round),
            Command::Create(create) => self.create(*create, round),
            Command::Commit(commit) => self.commit(*commit, round),
            Command::WriteState(write) => self.write_state(*write, round),
            Command::Schedule(asked, reply) => self.schedule(*asked, reply, round),
            Command::Cancel(asked, reply) => self.cancel(&asked, reply, round),
            Command::Ack(acks) => self.ack(acks, round),
            Command::Nack(nacks, how) => self.nack(nacks, &how, round),
            Command::Extend {
                session,
                deliveries,
                by,
            } => {
                self.extend(&session, &deliveries, by, round);
            }
            Command::Partial(partial) => self.partial(*partial, round),
            Command::StopStream(conversation, id) => self.stop_streams(&conversation, &id, round),
            Command::Attach(session) => self.attach(session, round),
            Command::Lose(number, stream) => self.lose(number, stream, round),
            Command::Resume(resume) => self.resume(*resume, round),
            Command::Detach(number) => self.detach(number, round),
            Command::DrainSession(number) => self.drain_session(number, round),
            // Who asked may have gone away.
            Command::Describe(reply) => drop(reply.send(self.describe())),
            Command::Granted(session) => {
                let number = self.subscriber(&session.subscriber);
                round.pump.push(number);
            }
            Command::Deal(letters) => self.deal(*letters, round),
            Command::Bots(change) => self.change_bots(*change, round),
            Command::Follow {
                conversation,
                reply,
            } => {
                let followed = self.follow(&conversation, round);
                round.followed(reply, followed);
            }
            // Whichever they are by now: of two reloads, the later one stays everywhere.
            Command::Drain => self.begin_drain(round),
            Command::Erase(erase) => self.erasing.push_back(erase),
            Command::Reload => self.reload(),
            Command::Stop(done) => return Some(done),
        }
        None
    }

    /// When something happens without a command.
    fn next_wake(&self) -> Timestamp {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let next = self.next_tick.min(self.due.next());
        let timers = timer.into_iter().chain(self.streams.next_wake());
        timers.fold(next, Timestamp::min)
    }

    fn tick(&mut self, round: &mut Round) {
        // One that is further off than a tick was meant for before the clock was set back.
        if round.now < self.next_tick && self.next_tick <= round.now.after(TICK) {
            return;
        }
        self.next_tick = round.now.after(TICK);
        self.let_go(round);
        self.leases.expire(round.now);
        self.retention.begin();
        self.due.begin();
        self.publish_backlogs();
        self.pace.begin();
        let attached = &self.attached;
        self.streams
            .forget_told(|number| attached.contains_key(&number));
        if round.now >= self.next_reading {
            self.next_reading = round.now.after(READ_AGAIN);
            self.unsorted
                .extend(self.unreadable.drain(..).map(Unsorted::Dropped));
        }
        if self.paused_until <= round.now {
            for subscriber in 0..self.subscribers.len() {
                self.look_again(subscriber);
                round.pump.push(subscriber);
            }
        }
    }

    /// Marks that a conversation's head is to be written with this round.
    fn touch(&mut self, slot: usize, round: &mut Round) {
        if !std::mem::replace(&mut self.conversations[slot].dirty, true) {
            round.dirty.push(slot);
        }
    }

    /// The shard's number for a subscriber.
    fn subscriber(&mut self, name: &Subscriber) -> usize {
        if let Some(&number) = self.subscriber_numbers.get(name) {
            return number;
        }
        let number = self.subscribers.len();
        self.subscribers.push(Subscribed {
            name: name.clone(),
            sessions: Vec::new(),
            queue: queue::Queue::default(),
        });
        self.subscriber_numbers.insert(name.clone(), number);
        number
    }

    /// Says what waits, for the heartbeats of sessions.
    fn publish_backlogs(&self) {
        let mut backlogs = vec![Backlog::default(); self.subscribers.len()];
        for (_, conversation) in &self.conversations {
            for seat in &conversation.seats {
                let backlog = &mut backlogs[seat.subscriber];
                *backlog = backlog.with(seat.backlog(conversation.last));
            }
        }
        let mut shared = self.shared.backlogs();
        for (subscribed, backlog) in self.subscribers.iter().zip(backlogs) {
            let backlog = backlog.with(subscribed.queue.away());
            shared.insert((self.index, subscribed.name.clone()), backlog);
        }
    }
}
