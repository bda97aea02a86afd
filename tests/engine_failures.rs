//! The engine on a store that fails and loses what was not synced: what was promised holds, and
//! what was not is said.
//!
//! There are no sockets and no time but the test's own. Every step waits until the shard has done
//! all that it was asked for, so that a seed decides what happens; only how many commands share a
//! round is left to the threads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turnwire::clock::{Clock, Manual, Timestamp};
use turnwire::engine::create::{Answer, Created, Wanted};
use turnwire::engine::log::{Author, Entry, Page};
use turnwire::engine::receipt::{Receipt, State};
use turnwire::engine::schedule::{Cancelled, Sent, Times};
use turnwire::engine::session::{Appended, Credit, Delivery, Event, Events, Outcome};
use turnwire::engine::settings::{Bot, Channel, Hears, OnPoison, Outbound, Settings};
use turnwire::engine::terms::{Selector, Terms};
use turnwire::engine::{
    Deal, Engine, Error, Follower, LetterFilter, Link, Nack, Opening, Start, Step,
};
use turnwire::id::{BotId, ChannelId, ConversationKey, DeliveryId, ScheduleId, Sequence};
use turnwire::limits::Limits;
use turnwire::metrics::Metrics;
use turnwire::proto::v1;
use turnwire::store::memory::Verdict;
use turnwire::store::{self, Batch, Durability, Key, KeyRange, Memory, Order, Store};

const BOT: &str = "echo";
const CHANNEL: &str = "chat";
const CREDIT: Credit = Credit {
    deliveries: 1_000,
    bytes: 1 << 20,
};
/// Longer than an engine pauses after a failure, and than its tick.
const AFTER_A_FAILURE: Duration = Duration::from_millis(2_100);
const DEADLINE: Duration = Duration::from_secs(60);

fn conversation(id: &str) -> ConversationKey {
    ConversationKey {
        channel: CHANNEL.into(),
        conversation: id.into(),
    }
}

fn question(conversation: &ConversationKey, id: &str) -> v1::Activity {
    v1::Activity {
        r#type: Some("message".to_owned()),
        id: Some(id.to_owned()),
        text: Some(format!("question {id}")),
        from: Some(v1::ChannelAccount {
            id: Some("user".to_owned()),
            ..Default::default()
        }),
        conversation: Some(v1::ConversationAccount {
            id: Some(conversation.conversation.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn message(text: impl Into<String>) -> v1::Activity {
    v1::Activity {
        r#type: Some("message".to_owned()),
        text: Some(text.into()),
        ..Default::default()
    }
}

fn told_to_fail() -> store::Error {
    store::Error::Failed {
        place: "memory".to_owned(),
        source: Arc::new(std::io::Error::other("told to fail")),
    }
}

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Nothing is written.
    Refuse,
    /// It is written, and says that it is not.
    ApplyAndFail,
}

impl Failure {
    const BOTH: [Self; 2] = [Self::Refuse, Self::ApplyAndFail];

    fn verdict(self) -> Verdict {
        match self {
            Self::Refuse => Verdict::Refuse(told_to_fail()),
            Self::ApplyAndFail => Verdict::ApplyAndFail(told_to_fail()),
        }
    }
}

/// The same store as one that a shard does not wait for: rounds are written on another thread while
/// the next ones are decided on top of them.
struct Slow {
    memory: Memory,
    gate: Gate,
}

/// Holds up the next commit until it is told to go on.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Option<mpsc::Receiver<()>>>>);

impl Gate {
    fn close(&self) -> mpsc::Sender<()> {
        let (go_on, told) = mpsc::channel();
        *self.0.lock().expect("no panic") = Some(told);
        go_on
    }

    fn pass(&self) {
        let told = self.0.lock().expect("no panic").take();
        if let Some(told) = told {
            told.recv().expect("the test goes on");
        }
    }
}

impl Store for Slow {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), store::Error> {
        self.gate.pass();
        self.memory.commit(batch, durability)
    }

    fn blocks(&self) -> bool {
        true
    }

    fn get(&self, key: &Key<'_>) -> Result<Option<Bytes>, store::Error> {
        self.memory.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        order: Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), store::Error> {
        self.memory.scan(range, order, visit)
    }

    fn free_bytes(&self) -> Result<u64, store::Error> {
        self.memory.free_bytes()
    }
}

/// How rounds are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounds {
    /// Each where it was decided: what waits makes up one round.
    Here,
    /// Each elsewhere, if anything waits: a command makes up a round.
    InFlight,
}

impl Rounds {
    const BOTH: [Self; 2] = [Self::Here, Self::InFlight];
}

/// An engine on a store that outlives it.
struct Gateway {
    rounds: Rounds,
    gate: Gate,
    memory: Memory,
    clock: Arc<Manual>,
    engine: Engine,
    epoch: u32,
}

impl Gateway {
    fn new() -> Self {
        Self::with(Rounds::Here)
    }

    fn with(rounds: Rounds) -> Self {
        let memory = Memory::new();
        let clock = Arc::new(Manual::new(Timestamp(1_700_000_000_000)));
        let gate = Gate::default();
        let engine = Self::open(rounds, &gate, &memory, &clock, 1);
        Self {
            rounds,
            gate,
            memory,
            clock,
            engine,
            epoch: 1,
        }
    }

    fn open(
        rounds: Rounds,
        gate: &Gate,
        memory: &Memory,
        clock: &Arc<Manual>,
        epoch: u32,
    ) -> Engine {
        let bot = Bot {
            account: v1::ChannelAccount {
                id: Some(BOT.to_owned()),
                ..Default::default()
            },
            delivery_deadline: DEADLINE,
            // Nothing is parked: every activity must be finished.
            delivery_attempts: 1_000_000,
            on_poison: OnPoison::Skip,
            hears: Hears::Users,
        };
        let channel = Channel {
            bot: BOT.into(),
            also: Vec::new(),
            capabilities: v1::ChannelCapabilities {
                update: true,
                delete: true,
                create: true,
                ..Default::default()
            },
            outbound: Outbound::Queue,
            service_url: None,
            stream_interval: Limits::default().stream_interval,
            end_closes: false,
        };
        let (store, limits): (Arc<dyn Store>, _) = match rounds {
            Rounds::Here => (Arc::new(memory.clone()), Limits::default()),
            Rounds::InFlight => {
                let limits = Limits {
                    shard_round: 1,
                    ..Limits::default()
                };
                let store = Slow {
                    memory: memory.clone(),
                    gate: gate.clone(),
                };
                (Arc::new(store), limits)
            }
        };
        let settings = Settings {
            limits,
            bots: HashMap::from([(BOT.into(), bot)]),
            channels: HashMap::from([(CHANNEL.into(), channel)]),
            shards: 1,
            seed: 7,
        };
        let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
        Engine::open(store, epoch, clock, settings, Arc::new(Metrics::new())).expect("it opens")
    }

    /// Returns when the shard has done everything that was asked of it.
    async fn settle(&self) {
        // What was dropped detaches in a task.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        // Twice: what a round hands over is told after it has answered.
        for _ in 0..2 {
            let nobody = conversation("nobody");
            let answer = self.engine.follow(nobody, Start::End).await;
            assert!(matches!(answer, Err(Error::ConversationUnknown(_))));
        }
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    /// Fails the next `count` commits.
    fn fail_next(&self, count: usize, how: Failure) {
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
    async fn restart(&mut self, keep: usize) -> usize {
        self.memory.on_commit(|_, _| Failure::Refuse.verdict());
        self.engine.stop().await;
        self.memory.heal();
        let lost = self.memory.crash(keep);
        self.epoch += 1;
        self.engine = Self::open(
            self.rounds,
            &self.gate,
            &self.memory,
            &self.clock,
            self.epoch,
        );
        lost
    }

    async fn attach_bot(&self, instance: &str) -> (Link, Events) {
        let terms = Terms::new(instance, CREDIT);
        let attached = self.engine.attach_bot(&BOT.into(), terms).await;
        let Opening { link, events, .. } = attached.expect("the bot is let in");
        (link, events)
    }

    async fn attach_adapter(&self) -> (Link, Events) {
        let channel = ChannelId::from(CHANNEL);
        let attached = self
            .engine
            .attach_channel(&channel, Terms::new("adapter", CREDIT), None);
        let Opening { link, events, .. } = attached.await.expect("the adapter is let in");
        (link, events)
    }

    async fn post(&self, key: &ConversationKey, id: &str) -> Result<Appended, Error> {
        let activity = question(key, id);
        self.engine
            .post(&ChannelId::from(CHANNEL), activity.into())
            .await
    }

    async fn send(&self, key: &ConversationKey, text: &str) -> Result<Appended, Error> {
        let bot = Some(BotId::from(BOT));
        let request = Some(text.to_owned());
        self.engine
            .send_activity(key.clone(), bot, None, request, message(text).into())
            .await
    }

    fn log(&self, key: &ConversationKey) -> Vec<Arc<Entry>> {
        let page = Page {
            entries: usize::MAX,
            bytes: usize::MAX,
        };
        let all = (Sequence(1), Sequence(u64::MAX));
        let number = self
            .engine
            .conversation(key)
            .expect("it was started")
            .number;
        let log = self
            .engine
            .activities(number, all.0, all.1, Order::Ascending, page);
        log.expect("a readable log")
    }

    fn last(&self, key: &ConversationKey) -> u64 {
        let conversation = self.engine.conversation(key);
        conversation.map_or(0, |conversation| conversation.last.0)
    }

    /// Whether everybody has everything of a conversation.
    fn is_finished(&self, key: &ConversationKey) -> bool {
        let conversation = self.engine.conversation(key).expect("it was started");
        let last = conversation.last;
        conversation
            .cursors
            .iter()
            .all(|(_, cursor)| cursor.finished == last)
    }
}

/// What a session was told and has not been looked at.
fn told(events: &mut Events) -> Vec<Event> {
    let next = || tokio::task::unconstrained(events.next()).now_or_never();
    std::iter::from_fn(next).flatten().collect()
}

fn the_delivery(events: &mut Events) -> Delivery {
    let mut told = told(events);
    match told.pop() {
        Some(Event::Delivery(delivery)) if told.is_empty() => delivery,
        last => panic!("not one delivery: {told:?} {last:?}"),
    }
}

/// Panics unless the only thing that was told is that the store failed.
fn the_failure(events: &mut Events) -> turnwire::engine::session::Refused {
    let mut told = told(events);
    match told.pop() {
        Some(Event::Refused(refused)) if told.is_empty() => {
            assert!(matches!(refused.error, Error::StoreFailed(_)));
            refused
        }
        last => panic!("not one failure: {told:?} {last:?}"),
    }
}

fn text(entry: &Entry) -> String {
    let activity = v1::Activity::decode(&*entry.activity).expect("an activity");
    activity.text.unwrap_or_default()
}

fn failed<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::StoreFailed(_))), "{result:?}");
}

#[tokio::test]
async fn a_post_that_failed_is_said_to_have_failed_and_is_there_once_when_it_is_repeated() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.fail_next(1, how);
        failed(gateway.post(&key, "a").await);
        assert_eq!(gateway.last(&key), u64::from(how == Failure::ApplyAndFail));
        let appended = gateway.post(&key, "a").await.unwrap();
        assert_eq!(appended.repeated, how == Failure::ApplyAndFail);
        assert_eq!(
            (appended.sequence, gateway.log(&key).len()),
            (Sequence(1), 1)
        );
    }
}

#[tokio::test]
async fn a_send_that_failed_is_said_to_have_failed_and_is_there_once_when_it_is_repeated() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        gateway.fail_next(1, how);
        failed(gateway.send(&key, "hello").await);
        let appended = gateway.send(&key, "hello").await.unwrap();
        assert_eq!(appended.repeated, how == Failure::ApplyAndFail);
        assert_eq!(
            (appended.sequence, gateway.log(&key).len()),
            (Sequence(2), 2)
        );
    }
}

#[tokio::test]
async fn a_frame_whose_write_failed_is_refused_by_its_own_name() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        let (bot, mut events) = gateway.attach_bot("one").await;
        let (adapter, mut adapter_events) = gateway.attach_adapter().await;
        gateway.settle().await;
        let delivery = the_delivery(&mut events).id;

        gateway.fail_next(1, how);
        bot.send(
            2,
            "key".to_owned(),
            Some(key.clone()),
            None,
            message("hi").into(),
        )
        .await
        .unwrap();
        gateway.settle().await;
        let refused = the_failure(&mut events);
        assert_eq!((refused.frame, &*refused.client_id), (2, "key"));

        gateway.fail_next(1, how);
        adapter
            .post(3, "post".to_owned(), question(&key, "b").into())
            .await
            .unwrap();
        gateway.settle().await;
        let refused = the_failure(&mut adapter_events);
        assert_eq!((refused.frame, &*refused.client_id), (3, "post"));

        // The failures took the delivery back.
        gateway.advance(AFTER_A_FAILURE).await;
        let again = the_delivery(&mut events);
        assert!(again.id > delivery && again.attempt == 2);
        gateway.fail_next(1, how);
        bot.commit(4, again.id, vec![message("answer")])
            .await
            .unwrap();
        gateway.settle().await;
        let refused = the_failure(&mut events);
        assert_eq!((refused.frame, refused.delivery), (4, Some(again.id)));
    }
}

#[tokio::test]
async fn a_commit_that_was_not_written_left_nothing_and_its_delivery_comes_again() {
    let gateway = Gateway::new();
    let key = conversation("1");
    gateway.post(&key, "a").await.unwrap();
    let (bot, mut events) = gateway.attach_bot("one").await;
    gateway.settle().await;
    let first = the_delivery(&mut events);
    gateway.memory.fail_next_commits(1);
    bot.commit(2, first.id, vec![message("x"), message("y")])
        .await
        .unwrap();
    gateway.settle().await;
    the_failure(&mut events);
    assert_eq!(gateway.log(&key).len(), 1);
    // It is not held any more: a zombie cannot answer.
    bot.commit(3, first.id, vec![message("x")]).await.unwrap();
    gateway.settle().await;
    assert!(
        matches!(&told(&mut events)[..], [Event::Acked(acked)] if acked[0].outcome == Outcome::Stale)
    );

    gateway.advance(AFTER_A_FAILURE).await;
    let second = the_delivery(&mut events);
    assert_eq!((second.sequence, second.attempt), (first.sequence, 2));
    assert!(second.fence > first.fence);
    bot.commit(4, second.id, vec![message("x"), message("y")])
        .await
        .unwrap();
    gateway.settle().await;
    assert!(
        matches!(&told(&mut events)[..], [Event::Acked(acked)] if acked[0].outcome == Outcome::Ok)
    );
    assert_eq!(gateway.log(&key).len(), 3);
}

#[tokio::test]
async fn a_commit_that_was_written_and_failed_is_whole_and_its_delivery_does_not_come_again() {
    let gateway = Gateway::new();
    let key = conversation("1");
    gateway.post(&key, "a").await.unwrap();
    let (bot, mut events) = gateway.attach_bot("one").await;
    gateway.settle().await;
    let first = the_delivery(&mut events);
    gateway.fail_next(1, Failure::ApplyAndFail);
    bot.commit(2, first.id, vec![message("x"), message("y")])
        .await
        .unwrap();
    gateway.settle().await;
    the_failure(&mut events);
    gateway.advance(AFTER_A_FAILURE).await;
    gateway.advance(DEADLINE).await;
    assert!(told(&mut events).is_empty());
    assert_eq!(gateway.log(&key).len(), 3);
    // And what is in memory agrees: the next comes after it.
    assert_eq!(gateway.post(&key, "b").await.unwrap().sequence, Sequence(4));
    gateway.settle().await;
    assert_eq!(the_delivery(&mut events).sequence, Sequence(4));
}

#[tokio::test]
async fn an_ack_that_failed_is_refused_when_a_result_was_asked_for() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        let (bot, mut events) = gateway.attach_bot("one").await;
        gateway.settle().await;
        let delivery = the_delivery(&mut events);
        gateway.fail_next(1, how);
        bot.ack(2, vec![delivery.id], true).await.unwrap();
        gateway.settle().await;
        assert_eq!(the_failure(&mut events).delivery, Some(delivery.id));
        gateway.advance(AFTER_A_FAILURE).await;
        match how {
            Failure::Refuse => assert_eq!(the_delivery(&mut events).attempt, 2),
            Failure::ApplyAndFail => assert!(told(&mut events).is_empty()),
        }
    }
}

#[tokio::test]
async fn a_hand_over_that_failed_is_not_told_and_uses_no_credit() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        gateway.send(&key, "hello").await.unwrap();
        let (adapter, mut adapter_events) = gateway.attach_adapter().await;
        gateway.settle().await;
        the_delivery(&mut adapter_events);
        gateway.fail_next(1, how);
        let (bot, mut events) = gateway.attach_bot("one").await;
        gateway.settle().await;
        assert!(told(&mut events).is_empty());
        assert_eq!(bot.session().credit(), CREDIT);
        // What the adapter had was taken back with the conversation.
        assert_eq!(adapter.session().credit(), CREDIT);

        gateway.advance(AFTER_A_FAILURE).await;
        let delivery = the_delivery(&mut events);
        let written = u32::from(how == Failure::ApplyAndFail);
        assert_eq!(
            delivery.attempt,
            1 + written,
            "what may have been told counts"
        );
        assert_eq!(bot.session().credit().deliveries, CREDIT.deliveries - 1);
        let outbound = the_delivery(&mut adapter_events);
        assert_eq!(adapter.session().credit().deliveries, CREDIT.deliveries - 1);
        adapter.delivered(2, outbound.id, None).await.unwrap();
        gateway.settle().await;
        assert_eq!(adapter.session().credit(), CREDIT);
    }
}

#[tokio::test]
async fn an_outcome_gives_an_adapter_room_for_other_conversations() {
    let gateway = Gateway::new();
    for id in ["1", "2", "3"] {
        gateway.post(&conversation(id), "a").await.unwrap();
        gateway.send(&conversation(id), "hello").await.unwrap();
    }
    let one = Credit {
        deliveries: 1,
        ..CREDIT
    };
    let channel = ChannelId::from(CHANNEL);
    let attached = gateway
        .engine
        .attach_channel(&channel, Terms::new("adapter", one), None);
    let Opening {
        link: adapter,
        mut events,
        ..
    } = attached.await.unwrap();
    let mut seen = HashSet::new();
    for frame in 2..5 {
        gateway.settle().await;
        let outbound = the_delivery(&mut events);
        assert!(seen.insert(outbound.conversation));
        adapter.delivered(frame, outbound.id, None).await.unwrap();
    }
}

#[tokio::test]
async fn an_engine_is_not_ready_from_a_failure_to_the_next_write_that_succeeds() {
    let gateway = Gateway::new();
    let key = conversation("1");
    assert!(gateway.engine.is_ready());
    gateway.memory.fail_next_commits(2);
    failed(gateway.post(&key, "a").await);
    assert!(!gateway.engine.is_ready());
    failed(gateway.post(&key, "a").await);
    assert!(!gateway.engine.is_ready());
    gateway.post(&key, "a").await.unwrap();
    assert!(gateway.engine.is_ready());
}

#[tokio::test]
async fn a_follower_is_shown_what_is_durable_and_follows_again_after_a_failure() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        let mut follower = gateway
            .engine
            .follow(key.clone(), Start::After(Sequence::START))
            .await
            .unwrap();
        assert_eq!(follower.next().await.unwrap().len(), 1);
        gateway.fail_next(1, how);
        failed(gateway.post(&key, "b").await);
        assert!(matches!(follower.next().await, Err(Error::FollowAgain)));
        let position = follower.position();
        assert_eq!(position, Sequence(1));
        let mut follower = gateway
            .engine
            .follow(key.clone(), Start::After(position))
            .await
            .unwrap();
        gateway.post(&key, "b").await.unwrap();
        gateway.post(&key, "c").await.unwrap();
        let mut shown = Vec::new();
        while shown.len() < 2 {
            shown.extend(follower.next().await.unwrap());
        }
        let shown: Vec<_> = shown
            .iter()
            .map(|entry| (entry.sequence.0, &*entry.activity_id))
            .collect();
        assert_eq!(shown, [(2, "b"), (3, "c")]);
    }
}

#[tokio::test]
async fn a_failure_leaves_other_conversations_alone() {
    let gateway = Gateway::new();
    let (here, there) = (conversation("1"), conversation("2"));
    gateway.post(&there, "a").await.unwrap();
    let (bot, mut events) = gateway.attach_bot("one").await;
    gateway.settle().await;
    let delivery = the_delivery(&mut events);
    gateway.memory.fail_next_commits(1);
    failed(gateway.post(&here, "a").await);
    bot.commit(2, delivery.id, vec![message("x")])
        .await
        .unwrap();
    gateway.settle().await;
    assert!(
        matches!(&told(&mut events)[..], [Event::Acked(acked)] if acked[0].outcome == Outcome::Ok)
    );
}

#[tokio::test]
async fn what_was_answered_survives_a_machine_that_loses_all_that_was_not_synced() {
    let mut gateway = Gateway::new();
    let key = conversation("1");
    for id in ["a", "b", "c"] {
        gateway.post(&key, id).await.unwrap();
    }
    let (bot, mut events) = gateway.attach_bot("one").await;
    gateway.settle().await;
    let first = the_delivery(&mut events);
    bot.commit(2, first.id, vec![message("x")]).await.unwrap();
    gateway.settle().await;
    let mut events_told = told(&mut events);
    let Some(Event::Delivery(second)) = events_told.pop() else {
        panic!("{events_told:?}");
    };
    bot.ack(3, vec![second.id], true).await.unwrap();
    gateway.settle().await;
    let mut events_told = told(&mut events);
    let Some(Event::Delivery(third)) = events_told.pop() else {
        panic!("{events_told:?}");
    };
    // Without a result nothing is promised, and nothing is synced.
    bot.ack(4, vec![third.id], false).await.unwrap();
    gateway.settle().await;
    assert!(gateway.is_finished(&key) || gateway.last(&key) == 4);
    assert!(gateway.restart(0).await > 0, "something was not synced");

    assert_eq!(gateway.log(&key).len(), 4);
    let (_bot, mut events) = gateway.attach_bot("one").await;
    gateway.settle().await;
    let again = the_delivery(&mut events);
    assert_eq!(again.sequence, third.sequence);
    assert!(again.id > third.id && again.fence > third.fence);
}

#[tokio::test]
async fn a_stop_makes_durable_what_was_not_yet() {
    let gateway = Gateway::new();
    let key = conversation("1");
    gateway.post(&key, "a").await.unwrap();
    gateway.post(&key, "b").await.unwrap();
    let (bot, mut events) = gateway.attach_bot("one").await;
    gateway.settle().await;
    let delivery = the_delivery(&mut events);
    bot.ack(2, vec![delivery.id], false).await.unwrap();
    gateway.settle().await;
    gateway.engine.stop().await;
    assert_eq!(gateway.memory.crash(0), 0);
}

#[tokio::test]
async fn a_replay_that_no_session_takes_stays_a_dead_letter_and_nothing_else_is_passed_over() {
    let gateway = Gateway::new();
    let key = conversation("1");
    let event = v1::Activity {
        r#type: Some("event".to_owned()),
        name: Some("news".to_owned()),
        ..question(&key, "event")
    };
    let channel = ChannelId::from(CHANNEL);
    gateway.engine.post(&channel, event.into()).await.unwrap();
    let (bot, mut events) = gateway.attach_bot("all").await;
    gateway.settle().await;
    let bad = the_delivery(&mut events);
    let poison = Nack::Poison("bad".to_owned());
    bot.nack(2, vec![bad.id], poison, false).await.unwrap();
    drop(bot);
    gateway.settle().await;

    let replay = || {
        let reader = BOT.to_owned();
        let all = Vec::new();
        gateway.engine.deal(key.clone(), reader, all, Deal::Replay)
    };
    let letter = || {
        let filter = LetterFilter::default();
        let letters = gateway.engine.dead_letters(&filter, None, 9).unwrap();
        let [letter] = &letters.letters[..] else {
            panic!("not one dead letter: {letters:?}")
        };
        (letter.sequence, letter.replay, letter.reason.clone())
    };
    let mut terms = Terms::new("messages", CREDIT);
    terms.selectors.push(Selector {
        types: vec!["message".to_owned()],
        ..Selector::default()
    });
    let attached = gateway.engine.attach_bot(&BOT.into(), terms).await;
    let Opening {
        link: bot,
        mut events,
        ..
    } = attached.unwrap();
    // Once with nothing behind it, and once with something.
    for id in ["a", "b"] {
        assert_eq!(replay().await.unwrap().count, 1);
        gateway.settle().await;
        let again = || (Sequence(1), false, "no session takes it".to_owned());
        assert_eq!(letter(), again());
        assert!(told(&mut events).is_empty());
        gateway.post(&key, id).await.unwrap();
        assert_eq!(replay().await.unwrap().count, 1);
        gateway.settle().await;
        let next = the_delivery(&mut events);
        let activity = v1::Activity::decode(&*next.activity).unwrap();
        assert_eq!(activity.id.as_deref(), Some(id));
        bot.ack(3, vec![next.id], false).await.unwrap();
        gateway.settle().await;
        assert_eq!(letter(), again());
    }

    // One that takes everything gets it.
    drop(bot);
    let (_bot, mut events) = gateway.attach_bot("all").await;
    assert_eq!(replay().await.unwrap().count, 1);
    gateway.settle().await;
    let again = the_delivery(&mut events);
    assert!(again.replay && again.sequence == Sequence(1));
}

// ---------------------------------------------------------------------------------------------
// Seeds.

/// The receipt of a conversation's activity at a position, as it is stored.
fn receipt(gateway: &Gateway, key: &ConversationKey, position: u64) -> Receipt {
    let stored = gateway.engine.conversation(key).expect("it was started");
    let log = gateway.log(key);
    let receipts = gateway.engine.receipts(key, &stored, &log);
    let receipts = receipts.expect("it can be read").into_iter().flatten();
    { receipts }
        .find(|receipt| receipt.sequence == Sequence(position))
        .expect("a bot said it")
}

fn the_receipts(events: &mut Events) -> Vec<Receipt> {
    let receipts = told(events).into_iter().filter_map(|event| match event {
        Event::Receipt(receipted) => Some(receipted.receipt),
        _ => None,
    });
    receipts.collect()
}

#[tokio::test]
async fn a_receipt_that_was_not_written_is_told_to_nobody() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        let (bot, mut bot_events) = gateway.attach_bot("bot").await;
        bot.session().want_receipts();
        let (adapter, mut events) = gateway.attach_adapter().await;
        gateway.send(&key, "hello").await.unwrap();
        gateway.settle().await;
        let outbound = the_delivery(&mut events);
        let follower = gateway.engine.follow(key.clone(), Start::End).await;
        let mut follower = follower.unwrap().with_receipts();
        gateway.fail_next(1, how);
        adapter.delivered(2, outbound.id, None).await.unwrap();
        gateway.settle().await;
        assert_eq!(the_receipts(&mut bot_events), []);
        let news = follower.step().now_or_never();
        assert!(matches!(news, Some(Err(Error::FollowAgain))), "{news:?}");
        gateway.advance(AFTER_A_FAILURE).await;
        match how {
            // The activity comes again, and its outcome then counts.
            Failure::Refuse => {
                assert_eq!(receipt(&gateway, &key, 2).state, State::Accepted);
                let again = the_delivery(&mut events);
                adapter.delivered(3, again.id, None).await.unwrap();
                gateway.settle().await;
                let receipts = the_receipts(&mut bot_events);
                assert_eq!(receipts, [receipt(&gateway, &key, 2)]);
            }
            // It is there, whatever was said, and can be read.
            Failure::ApplyAndFail => assert!(told(&mut events).is_empty()),
        }
        assert_eq!(receipt(&gateway, &key, 2).state, State::Delivered);
    }
}

#[tokio::test]
async fn a_receipt_that_was_told_survives_a_machine_that_loses_all_that_was_not_synced() {
    let mut gateway = Gateway::new();
    let key = conversation("1");
    gateway.post(&key, "a").await.unwrap();
    let (bot, mut bot_events) = gateway.attach_bot("bot").await;
    bot.session().want_receipts();
    let (adapter, mut events) = gateway.attach_adapter().await;
    gateway.send(&key, "hello").await.unwrap();
    gateway.settle().await;
    let outbound = the_delivery(&mut events);
    let theirs = Some("theirs".to_owned());
    adapter.delivered(2, outbound.id, theirs).await.unwrap();
    gateway.settle().await;
    let receipts = the_receipts(&mut bot_events);
    assert_eq!(receipts[0].channel_activity_id, "theirs");
    drop((adapter, events, bot, bot_events));
    gateway.restart(0).await;
    assert_eq!(receipts, [receipt(&gateway, &key, 2)]);
}

#[tokio::test]
async fn an_outcome_that_nobody_was_told_of_may_come_again_and_one_that_was_asked_for_does_not() {
    for asks in [false, true] {
        let mut gateway = Gateway::new();
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        let (adapter, mut events) = gateway.attach_adapter().await;
        let sent = gateway.send(&key, "hello").await.unwrap();
        gateway.settle().await;
        let outbound = the_delivery(&mut events);
        adapter.delivered(2, outbound.id, None).await.unwrap();
        gateway.settle().await;
        let read = receipt(&gateway, &key, 2);
        assert_eq!((read.state, read.time), (State::Delivered, None));
        if asks {
            assert_eq!(gateway.engine.receipt(&key, &sent, DEADLINE).await, read);
            let after = Start::After(Sequence::START);
            let follower = gateway.engine.follow(key.clone(), after).await;
            let mut follower = follower.unwrap().with_receipts();
            follower.next().await.expect("the log");
            let step = follower.step().await.expect("what it was not told");
            assert!(
                matches!(&step, Step::Receipts(told) if *told == [read]),
                "{step:?}"
            );
        }
        drop((adapter, events));
        gateway.restart(0).await;
        let (_adapter, mut events) = gateway.attach_adapter().await;
        gateway.settle().await;
        let again = told(&mut events);
        let expected = if asks { 0 } else { 1 };
        assert_eq!(again.len(), expected, "{again:?}");
        let state = receipt(&gateway, &key, 2).state;
        assert_eq!(state == State::Delivered, asks, "{state:?}");
    }
}

#[tokio::test]
async fn who_waits_for_a_receipt_goes_on_waiting_over_a_failure() {
    let gateway = Gateway::new();
    let key = conversation("1");
    gateway.post(&key, "a").await.unwrap();
    let (adapter, mut events) = gateway.attach_adapter().await;
    let sent = gateway.send(&key, "hello").await.unwrap();
    let mut waits = Box::pin(gateway.engine.receipt(&key, &sent, DEADLINE));
    assert!(waits.as_mut().now_or_never().is_none());
    gateway.settle().await;
    let outbound = the_delivery(&mut events);
    gateway.fail_next(1, Failure::Refuse);
    adapter.delivered(2, outbound.id, None).await.unwrap();
    gateway.settle().await;
    assert!(
        waits.as_mut().now_or_never().is_none(),
        "it was not written"
    );
    gateway.advance(AFTER_A_FAILURE).await;
    let again = the_delivery(&mut events);
    adapter.delivered(3, again.id, None).await.unwrap();
    assert_eq!(waits.await.state, State::Delivered);
}

#[tokio::test]
async fn a_deletion_and_an_outcome_that_come_together_are_both_kept() {
    for rounds in Rounds::BOTH {
        let gateway = Gateway::with(rounds);
        let key = conversation("1");
        gateway.post(&key, "a").await.unwrap();
        let (adapter, mut events) = gateway.attach_adapter().await;
        let sent = gateway.send(&key, "hello").await.unwrap();
        gateway.settle().await;
        let outbound = the_delivery(&mut events);
        let deletion = v1::Activity {
            r#type: Some("messageDelete".to_owned()),
            id: Some(sent.activity_id.to_string()),
            ..Default::default()
        };
        let bot = Some(BotId::from(BOT));
        let deleting =
            gateway
                .engine
                .send_activity(key.clone(), bot.clone(), None, None, deletion.into());
        let outcome = adapter.delivered(2, outbound.id, Some("theirs".to_owned()));
        let (deleted, outcome) = futures_util::future::join(deleting, outcome).await;
        outcome.unwrap();
        deleted.unwrap();
        gateway.settle().await;
        assert_eq!(receipt(&gateway, &key, 2).channel_activity_id, "theirs");
        // What is deleted cannot be updated.
        let update = v1::Activity {
            r#type: Some("messageUpdate".to_owned()),
            id: Some(sent.activity_id.to_string()),
            text: Some("again".to_owned()),
            ..Default::default()
        };
        let updated = gateway
            .engine
            .send_activity(key.clone(), bot, None, None, update.into())
            .await;
        let is_gone = matches!(updated, Err(Error::ActivityUnknown { .. }));
        assert!(is_gone, "{rounds:?}: {updated:?}");
    }
}

fn wanted(request_id: &str) -> Wanted {
    Wanted {
        channel: CHANNEL.into(),
        bot: BOT.into(),
        request_id: Some(request_id.to_owned()),
        asked: v1::CreateConversation {
            members: vec![v1::ChannelAccount {
                id: Some("user".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        },
        activity: Some(message("first").into()),
    }
}

/// Asks for a conversation, and lets the adapter answer.
async fn create(
    gateway: &Gateway,
    adapter: &Link,
    events: &mut Events,
    request_id: &str,
) -> Result<Created, Error> {
    let engine = gateway.engine.clone();
    let wanted = wanted(request_id);
    let creating = tokio::spawn(async move { engine.create_conversation(wanted).await });
    gateway.settle().await;
    for event in told(events) {
        if let Event::Create(asked) = event {
            let conversation = v1::ConversationAccount {
                id: Some("new".to_owned()),
                ..Default::default()
            };
            let created = v1::Created {
                conversation: Some(conversation),
                ..Default::default()
            };
            let answer = Answer::Created(created.into());
            adapter
                .created(asked.request_id, answer)
                .expect("it is awaited");
        }
    }
    creating.await.expect("it does not panic")
}

#[tokio::test]
async fn a_creation_that_failed_is_said_to_have_failed_and_is_there_once_when_it_is_repeated() {
    for how in Failure::BOTH {
        let gateway = Gateway::new();
        let (adapter, mut events) = gateway.attach_adapter().await;
        gateway.fail_next(1, how);
        failed(create(&gateway, &adapter, &mut events, "r").await);
        gateway.advance(AFTER_A_FAILURE).await;
        let created = create(&gateway, &adapter, &mut events, "r").await.unwrap();
        assert_eq!(created.repeated, how == Failure::ApplyAndFail);
        let again = create(&gateway, &adapter, &mut events, "r").await.unwrap();
        assert!(again.repeated);
        let log = gateway.log(&conversation("new"));
        let kinds: Vec<_> = log
            .iter()
            .map(|entry| entry.author.bot().is_some())
            .collect();
        assert_eq!(
            kinds,
            [false, true],
            "an update and the first activity, once"
        );
        assert_eq!(text(&log[1]), "first");
    }
}

#[tokio::test]
async fn a_creation_that_was_answered_survives_a_machine_that_loses_all_that_was_not_synced() {
    let mut gateway = Gateway::new();
    let (adapter, mut events) = gateway.attach_adapter().await;
    let created = create(&gateway, &adapter, &mut events, "r").await.unwrap();
    drop((adapter, events));
    gateway.restart(0).await;
    let again = gateway.engine.create_conversation(wanted("r")).await;
    let again = again.expect("no adapter is needed for what is there");
    assert_eq!(again.conversation, created.conversation);
    assert!(again.repeated);
    assert_eq!(gateway.log(&created.conversation).len(), 2);
}

/// One conversation as the world outside the gateway knows it.
#[derive(Default)]
struct Book {
    /// By activity id: where it is, once that was answered.
    posts: BTreeMap<String, Option<Sequence>>,
    /// By text, which is also the key.
    sends: BTreeMap<String, Option<Sequence>>,
    commits: BTreeMap<DeliveryId, Commit>,
    turns: BTreeMap<Sequence, Turn>,
    newest: Option<Delivery>,
    newest_session: Option<usize>,
    /// What the adapter was last handed: which, and at which attempt.
    newest_outbound: Option<(Sequence, u32)>,
    shown: BTreeSet<Sequence>,
    /// What the adapter said of each, whether or not it was taken.
    said: BTreeMap<Sequence, Vec<State>>,
    /// What bots were told of what became of it.
    receipts: BTreeMap<Sequence, Receipt>,
    followed: Vec<Arc<str>>,
    /// What followers were told of what became of it.
    watched: Vec<Receipt>,
}

#[derive(Default)]
struct Turn {
    attempt: u32,
    answered: bool,
    finished: bool,
}

struct Commit {
    question: Sequence,
    replies: usize,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nobody was told.
    Unknown,
    Taken,
    /// It was stale: nothing was written.
    Refused,
}

/// A bot's session.
struct Session {
    number: usize,
    link: Link,
    events: Events,
    told: i64,
    holds: Vec<Delivery>,
}

/// The gateway, and everyone around it.
struct World {
    gateway: Gateway,
    random: StdRng,
    books: BTreeMap<ConversationKey, Book>,
    bots: Vec<Session>,
    adapter: Option<(Link, Events)>,
    outbound: Vec<Delivery>,
    followers: BTreeMap<ConversationKey, Follower>,
    ids: HashMap<DeliveryId, (ConversationKey, Sequence)>,
    sessions: usize,
    frame: u64,
    posts: usize,
}

impl World {
    fn new(seed: u64, rounds: Rounds) -> Self {
        Self {
            gateway: Gateway::with(rounds),
            random: StdRng::seed_from_u64(seed),
            books: BTreeMap::new(),
            bots: Vec::new(),
            adapter: None,
            outbound: Vec::new(),
            followers: BTreeMap::new(),
            ids: HashMap::new(),
            sessions: 0,
            frame: 1,
            posts: 0,
        }
    }

    fn frame(&mut self) -> u64 {
        self.frame += 1;
        self.frame
    }

    fn any_conversation(&mut self) -> ConversationKey {
        conversation(&self.random.random_range(0..4).to_string())
    }

    fn started(&mut self) -> Option<ConversationKey> {
        let started: Vec<_> = self
            .books
            .iter()
            .filter(|(_, book)| book.posts.values().any(Option::is_some))
            .map(|(key, _)| key.clone())
            .collect();
        (!started.is_empty()).then(|| started[self.random.random_range(0..started.len())].clone())
    }

    /// One thing happens.
    async fn step(&mut self, may_break: bool) {
        match self.random.random_range(0..100) {
            0..25 => self.post().await,
            25..32 => self.post_over_the_stream().await,
            32..40 => self.send().await,
            40..65 => self.answer().await,
            65..70 => self.show().await,
            70..76 => self.attach().await,
            76..78 => self.lose_a_session().await,
            78..80 => self.follow().await,
            80..90 => {
                let by = [1, 200, 1_100, 6_000, 61_000][self.random.random_range(0..5)];
                self.gateway.advance(Duration::from_millis(by)).await;
            }
            90..95 if may_break => {
                let how = Failure::BOTH[self.random.random_range(0..2)];
                let count = self.random.random_range(1..4);
                self.gateway.fail_next(count, how);
            }
            95..97 if may_break => self.gateway.memory.heal(),
            97..100 if may_break => self.restart().await,
            _ => {}
        }
        self.look().await;
    }

    async fn post(&mut self) {
        let key = self.any_conversation();
        let book = self.books.entry(key.clone()).or_default();
        // What failed is repeated, sooner or later.
        let open = book.posts.iter().find(|(_, at)| at.is_none());
        let id = match open {
            Some((id, _)) if self.random.random_bool(0.5) => id.clone(),
            _ => {
                self.posts += 1;
                format!("p{}", self.posts)
            }
        };
        self.post_as(&key, &id).await;
    }

    async fn post_as(&mut self, key: &ConversationKey, id: &str) {
        let book = self.books.entry(key.clone()).or_default();
        book.posts.entry(id.to_owned()).or_default();
        match self.gateway.post(key, id).await {
            Ok(appended) => {
                assert_eq!(&*appended.activity_id, id);
                book.posts.insert(id.to_owned(), Some(appended.sequence));
            }
            Err(Error::StoreFailed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn post_over_the_stream(&mut self) {
        let key = self.any_conversation();
        let frame = self.frame();
        let Some((adapter, _)) = &self.adapter else {
            return;
        };
        for _ in 0..self.random.random_range(1..4) {
            self.posts += 1;
            let id = format!("p{}", self.posts);
            let book = self.books.entry(key.clone()).or_default();
            book.posts.insert(id.clone(), None);
            let post_id = format!("{}|{id}", key.conversation);
            adapter
                .post(frame, post_id, question(&key, &id).into())
                .await
                .expect("the engine runs");
        }
    }

    async fn send(&mut self) {
        let Some(key) = self.started() else { return };
        let book = self.books.entry(key.clone()).or_default();
        let open = book.sends.iter().find(|(_, at)| at.is_none());
        let text = match open {
            // Those of bots are repeated by bots.
            Some((text, _)) if text.starts_with("backend") => text.clone(),
            _ => format!("backend {}", book.sends.len()),
        };
        book.sends.entry(text.clone()).or_default();
        match self.gateway.send(&key, &text).await {
            Ok(appended) => {
                book.sends.insert(text, Some(appended.sequence));
            }
            Err(Error::StoreFailed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// A bot does something with what it holds.
    async fn answer(&mut self) {
        let frame = self.frame();
        let how = self.random.random_range(0..10);
        let holding: Vec<_> = (0..self.bots.len())
            .filter(|&bot| !self.bots[bot].holds.is_empty())
            .collect();
        if holding.is_empty() {
            return;
        }
        let bot = holding[self.random.random_range(0..holding.len())];
        let which = self.random.random_range(0..self.bots[bot].holds.len());
        let delivery = self.bots[bot].holds.swap_remove(which);
        let (id, sequence) = (delivery.id, delivery.sequence);
        let book = self.books.entry(delivery.conversation.clone()).or_default();
        let turn = book.turns.entry(sequence).or_default();
        let link = &self.bots[bot].link;
        match how {
            0..5 => {
                turn.answered = true;
                let replies = how % 3;
                let commit = Commit {
                    question: sequence,
                    replies,
                    fate: Fate::Unknown,
                };
                book.commits.insert(id, commit);
                let text = |n| message(format!("reply {id} {n}"));
                link.commit(frame, id, (0..replies).map(text).collect())
                    .await
            }
            5 | 6 => {
                turn.answered = true;
                link.ack(frame, vec![id], how == 5).await
            }
            7 => {
                let text = format!("sent {} {sequence}", delivery.conversation.conversation);
                book.sends.entry(text.clone()).or_default();
                link.send(frame, text.clone(), None, Some(id), message(text).into())
                    .await
            }
            8 => {
                let delay = Duration::from_millis(self.random.random_range(0..2_000));
                link.nack(frame, vec![id], Nack::Retry(Some(delay)), false)
                    .await
            }
            _ => {
                // If it is held still, the attempt does not count.
                turn.attempt = turn.attempt.saturating_sub(1);
                link.nack(frame, vec![id], Nack::Release, false).await
            }
        }
        .expect("the engine runs");
        if how == 7 {
            // It has said something, and is not done.
            self.bots[bot].holds.push(delivery);
        }
    }

    /// The adapter says what became of what it was handed.
    async fn show(&mut self) {
        let frame = self.frame();
        let Some((adapter, _)) = &self.adapter else {
            return;
        };
        for outbound in std::mem::take(&mut self.outbound) {
            let id = outbound.id;
            let (said, done) = match self.random.random_range(0..12) {
                0..2 => {
                    let soon = Nack::Retry(Some(Duration::ZERO));
                    (None, adapter.nack(frame, vec![id], soon, false).await)
                }
                2 => {
                    let no = Nack::Poison("no".to_owned());
                    let done = adapter.nack(frame, vec![id], no, false).await;
                    (Some(State::Failed), done)
                }
                3 => {
                    let done = adapter.undetermined(frame, id, "?".to_owned()).await;
                    (Some(State::Unknown), done)
                }
                _ => {
                    let theirs = Some("theirs".to_owned());
                    let done = adapter.delivered(frame, id, theirs).await;
                    (Some(State::Delivered), done)
                }
            };
            done.expect("the engine runs");
            let book = self.books.entry(outbound.conversation).or_default();
            book.said.entry(outbound.sequence).or_default().extend(said);
        }
    }

    async fn attach(&mut self) {
        if self.adapter.is_none() {
            self.adapter = Some(self.gateway.attach_adapter().await);
        }
        if self.bots.len() < 2 {
            self.sessions += 1;
            let (link, events) = self
                .gateway
                .attach_bot(&format!("bot{}", self.sessions))
                .await;
            link.session().want_receipts();
            self.bots.push(Session {
                number: self.sessions,
                link,
                events,
                told: 0,
                holds: Vec::new(),
            });
        }
    }

    async fn lose_a_session(&mut self) {
        if self.random.random_ratio(1, 3) {
            self.adapter = None;
            self.outbound.clear();
        } else if !self.bots.is_empty() {
            let lost = self.random.random_range(0..self.bots.len());
            // What it was told before it went was told.
            self.look().await;
            self.bots.swap_remove(lost);
        }
    }

    async fn follow(&mut self) {
        let Some(key) = self.started() else { return };
        let book = self.books.entry(key.clone()).or_default();
        let start = Start::After(Sequence(book.followed.len() as u64));
        match self.gateway.engine.follow(key.clone(), start).await {
            Ok(follower) => drop(self.followers.insert(key, follower.with_receipts())),
            Err(Error::StoreFailed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn restart(&mut self) {
        self.look().await;
        self.bots.clear();
        self.adapter = None;
        self.outbound.clear();
        self.followers.clear();
        let keep = match self.random.random_range(0..3) {
            0 => usize::MAX,
            1 => self.random.random_range(0..5),
            _ => 0,
        };
        if self.gateway.restart(keep).await > 0 {
            for book in self.books.values_mut() {
                // Hand-overs and acks without a result are not synced.
                for turn in book.turns.values_mut() {
                    turn.attempt = 0;
                }
                book.newest_outbound = None;
                book.newest = None;
            }
        }
    }

    /// Everyone looks at what they were told.
    async fn look(&mut self) {
        self.gateway.settle().await;
        for bot in 0..self.bots.len() {
            for event in told(&mut self.bots[bot].events) {
                self.bot_is_told(bot, event);
            }
            let Session { link, told, .. } = &self.bots[bot];
            let credit = link.session().credit().deliveries;
            assert_eq!(
                credit + told,
                CREDIT.deliveries,
                "credit is for what was told"
            );
        }
        let told_adapter = self.adapter.as_mut().map(|(_, events)| told(events));
        for event in told_adapter.into_iter().flatten() {
            self.adapter_is_told(event);
        }
        let mut ended = Vec::new();
        for (key, follower) in &mut self.followers {
            let book = self.books.entry(key.clone()).or_default();
            loop {
                match tokio::task::unconstrained(follower.step()).now_or_never() {
                    None => break,
                    Some(Ok(Step::Receipts(receipts))) => {
                        for receipt in receipts {
                            let seen = receipt.sequence.0 <= book.followed.len() as u64;
                            assert!(seen, "an activity first, and then what became of it");
                            book.watched.push(receipt);
                        }
                    }
                    Some(Ok(Step::Entries(entries))) => {
                        for entry in entries {
                            book.followed.push(Arc::clone(&entry.activity_id));
                            let position = Sequence(book.followed.len() as u64);
                            assert_eq!(entry.sequence, position, "no gap and no double");
                        }
                    }
                    Some(Ok(Step::Ephemeral(shown))) => panic!("nobody asked for {shown:?}"),
                    Some(Err(Error::FollowAgain)) => {
                        ended.push(key.clone());
                        break;
                    }
                    Some(Err(error)) => panic!("{error}"),
                }
            }
        }
        for key in ended {
            self.followers.remove(&key);
        }
    }

    fn bot_is_told(&mut self, bot: usize, event: Event) {
        match event {
            Event::Delivery(delivery) => self.delivered(bot, delivery),
            Event::Acked(acked) => {
                for acked in acked {
                    let (key, sequence) = self.ids[&acked.id].clone();
                    let book = self.books.entry(key).or_default();
                    let commit = book.commits.get_mut(&acked.id);
                    match acked.outcome {
                        Outcome::Ok => {
                            book.turns.entry(sequence).or_default().finished = true;
                            if let Some(commit) = commit {
                                assert_eq!(commit.replies, acked.appended.len());
                                commit.fate = Fate::Taken;
                            }
                        }
                        Outcome::Stale => {
                            if let Some(commit) = commit {
                                commit.fate = Fate::Refused;
                            }
                        }
                        Outcome::Unknown => panic!("{} was made", acked.id),
                        Outcome::OutOfOrder => panic!("one at a time: {}", acked.id),
                    }
                }
            }
            Event::Sent(sent) => {
                if let Ok(appended) = sent.result {
                    let id = sent.client_id.split(' ').nth(1).expect("as it was sent");
                    let book = self.books.entry(conversation(id)).or_default();
                    book.sends.insert(sent.client_id, Some(appended.sequence));
                }
            }
            Event::Refused(refused) => {
                assert!(
                    matches!(refused.error, Error::StoreFailed(_)),
                    "{refused:?}"
                );
            }
            Event::Receipt(receipted) => {
                let book = self.books.entry(receipted.conversation).or_default();
                let receipt = receipted.receipt;
                let before = book.receipts.insert(receipt.sequence, receipt);
                assert_eq!(before, None, "a receipt is told once");
            }
            // Since its session has a window of one and finishes what it gets.
            _ => panic!("{event:?}"),
        }
    }

    fn is_new(&mut self, delivery: &Delivery) {
        let place = (delivery.conversation.clone(), delivery.sequence);
        let before = self.ids.insert(delivery.id, place);
        assert_eq!(before, None, "delivery ids are never used again");
    }

    fn delivered(&mut self, bot: usize, delivery: Delivery) {
        self.is_new(&delivery);
        let session = &mut self.bots[bot];
        session.told += 1;
        let book = self.books.entry(delivery.conversation.clone()).or_default();
        if let Some(newest) = &book.newest {
            assert!(delivery.id > newest.id, "delivery ids grow");
            assert!(delivery.fence >= newest.fence, "fences grow");
            let moved = book.newest_session != Some(session.number);
            assert!(
                !moved || delivery.fence > newest.fence,
                "a new holder has a new fence"
            );
            let answered = book
                .turns
                .get(&newest.sequence)
                .is_some_and(|turn| turn.answered);
            assert!(
                delivery.sequence == newest.sequence
                    || delivery.sequence > newest.sequence && answered,
                "{} after {}, which was not answered",
                delivery.sequence,
                newest.sequence
            );
        }
        assert!(!delivery.after_gap, "nothing was skipped");
        let turn = book.turns.entry(delivery.sequence).or_default();
        assert!(
            !turn.finished,
            "{} was finished and comes again",
            delivery.sequence
        );
        assert!(delivery.attempt > turn.attempt, "attempts grow");
        turn.attempt = delivery.attempt;
        book.newest = Some(delivery.clone());
        book.newest_session = Some(session.number);
        session
            .holds
            .retain(|held| held.conversation != delivery.conversation);
        session.holds.push(delivery);
    }

    fn adapter_is_told(&mut self, event: Event) {
        match event {
            Event::Delivery(delivery) => {
                self.is_new(&delivery);
                let book = self.books.entry(delivery.conversation.clone()).or_default();
                let this = (delivery.sequence, delivery.attempt);
                let before = book.newest_outbound.replace(this);
                assert!(before < Some(this), "outbound in order, or once more");
                book.shown.insert(delivery.sequence);
                self.outbound.push(delivery);
            }
            Event::Posted(posted) => {
                let (conversation_id, id) =
                    posted.post_id.split_once('|').expect("as it was posted");
                let book = self.books.entry(conversation(conversation_id)).or_default();
                book.posts
                    .insert(id.to_owned(), Some(posted.appended.sequence));
            }
            Event::Refused(refused) => {
                let is_fine = matches!(
                    refused.error,
                    Error::StoreFailed(_) | Error::DeliveryStale(_)
                );
                assert!(is_fine, "{refused:?}");
            }
            _ => panic!("{event:?}"),
        }
    }

    /// All is well again, and everyone does what they should until nothing is left to do.
    async fn heal(&mut self) {
        self.gateway.memory.heal();
        let open: Vec<_> = self
            .books
            .iter()
            .flat_map(|(key, book)| {
                let open = book.posts.iter().filter(|(_, at)| at.is_none());
                open.map(|(id, _)| (key.clone(), id.clone()))
            })
            .collect();
        for (key, id) in open {
            self.post_as(&key, &id).await;
        }
        self.attach().await;
        let keys: Vec<_> = self.books.keys().cloned().collect();
        for _ in 0..2_000 {
            self.look().await;
            self.show().await;
            for bot in 0..self.bots.len() {
                for delivery in std::mem::take(&mut self.bots[bot].holds) {
                    let frame = self.frame();
                    let book = self.books.entry(delivery.conversation.clone()).or_default();
                    book.turns.entry(delivery.sequence).or_default().answered = true;
                    let link = &self.bots[bot].link;
                    link.ack(frame, vec![delivery.id], true)
                        .await
                        .expect("the engine runs");
                }
            }
            self.look().await;
            if keys.iter().all(|key| self.gateway.is_finished(key)) {
                self.gateway.settle().await;
                return;
            }
            self.gateway.advance(Duration::from_secs(1)).await;
        }
        let left: Vec<_> = keys
            .iter()
            .filter(|key| !self.gateway.is_finished(key))
            .collect();
        panic!("{left:?} are never finished");
    }

    /// Everything that was promised, of all conversations.
    async fn audit(&mut self) {
        for key in self.books.keys().cloned().collect::<Vec<_>>() {
            let start = Start::After(Sequence(self.books[&key].followed.len() as u64));
            let follower = self.gateway.engine.follow(key.clone(), start).await;
            let follower = follower.expect("it can be followed");
            self.followers.insert(key, follower.with_receipts());
        }
        self.look().await;
        for (key, book) in &self.books {
            let log = self.gateway.log(key);
            let last = self
                .gateway
                .engine
                .conversation(key)
                .expect("it was started")
                .last;
            assert_eq!(last.0, log.len() as u64, "the head says what the log has");
            assert!(
                log.iter().zip(1..).all(|(entry, n)| entry.sequence.0 == n),
                "no gaps"
            );
            let ids: Vec<_> = log
                .iter()
                .map(|entry| Arc::clone(&entry.activity_id))
                .collect();
            assert_eq!(book.followed, ids, "followers are shown the log");
            assert_eq!(
                ids.iter().collect::<BTreeSet<_>>().len(),
                ids.len(),
                "no doubles"
            );

            let mut texts = BTreeMap::new();
            let mut replies: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for entry in &log {
                let text = text(entry);
                if let Some(reply) = text.strip_prefix("reply ") {
                    let (delivery, n) = reply.split_once(' ').expect("as it was sent");
                    let replies = replies.entry(delivery.parse().expect("an id")).or_default();
                    replies.push(n.parse().expect("a number"));
                    continue;
                }
                let twice = texts.insert(text, entry.sequence);
                assert_eq!(twice, None, "nothing is said twice");
            }
            for (id, at) in &book.posts {
                assert!(at.is_some(), "every post is answered in the end");
                assert_eq!(texts.get(&format!("question {id}")), at.as_ref(), "{id}");
            }
            for (text, at) in &book.sends {
                assert!(at.is_none() || texts.get(text) == at.as_ref(), "{text}");
            }
            let mut questions = HashSet::new();
            for (id, found) in &replies {
                let commit = &book.commits[&DeliveryId(*id)];
                let whole: Vec<_> = (0..commit.replies).collect();
                assert_eq!(*found, whole, "a commit is whole");
                assert!(commit.fate != Fate::Refused, "what is stale writes nothing");
                assert!(
                    questions.insert(commit.question),
                    "a question is answered once"
                );
            }
            for (id, commit) in &book.commits {
                let found = replies.get(&id.0).map_or(0, Vec::len);
                assert!(
                    commit.fate != Fate::Taken || found == commit.replies,
                    "what was taken is there"
                );
            }
            let engine = &self.gateway.engine;
            let stored = engine.conversation(key).expect("it was started");
            let receipts = engine.receipts(key, &stored, &log).expect("it is there");
            let receipts: BTreeMap<_, _> = { receipts.into_iter().flatten() }
                .map(|receipt| (receipt.sequence, receipt))
                .collect();
            for told in book.receipts.values().chain(&book.watched) {
                assert_eq!(receipts.get(&told.sequence), Some(told), "it stays so");
            }
            for entry in log.iter().filter(|entry| entry.author.bot().is_some()) {
                let state = receipts[&entry.sequence].state;
                let said = &book.said[&entry.sequence];
                assert!(said.contains(&state), "{state:?} was said: {said:?}");
            }
            for entry in &log {
                match entry.author {
                    Author::Channel => assert!(book.turns[&entry.sequence].answered, "answered"),
                    Author::Bot(_) | Author::Backend(_) => {
                        assert!(book.shown.contains(&entry.sequence), "shown");
                    }
                }
            }
        }
    }

    async fn end(mut self) {
        self.heal().await;
        self.audit().await;
        if let Some((adapter, _)) = &self.adapter {
            assert_eq!(
                adapter.session().credit(),
                CREDIT,
                "an adapter with nothing has all its room"
            );
        }
        self.gateway.engine.stop().await;
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("TURNWIRE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("TURNWIRE_LONG").is_some() => 0..5_000,
        None => 0..200,
    }
}

/// Posts that come while a round is written: the first of `ids` is in flight until the second is
/// decided.
async fn post_together(
    gateway: &Gateway,
    key: &ConversationKey,
    ids: &[&str],
) -> Vec<Result<Appended, Error>> {
    let go_on = gateway.gate.close();
    let posts = ids.iter().map(|id| gateway.post(key, id));
    let release = async {
        // More often than the shard, on this very thread, has to be asked until it waits.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        go_on.send(()).expect("a commit waits");
    };
    futures_util::future::join(futures_util::future::join_all(posts), release)
        .await
        .0
}

#[tokio::test]
async fn what_is_in_flight_is_known_to_what_is_decided_on_top_of_it() {
    let gateway = Gateway::with(Rounds::InFlight);
    let key = conversation("c");
    let flights = Arc::new(AtomicUsize::new(0));
    let test = std::thread::current().id();
    let elsewhere = Arc::clone(&flights);
    gateway.memory.on_commit(move |_, _| {
        if std::thread::current().id() != test {
            elsewhere.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Apply
    });
    let posted = post_together(&gateway, &key, &["a", "a", "b", "a", "c"]).await;
    let posted: Vec<_> = posted
        .into_iter()
        .map(|posted| posted.expect("it is taken"))
        .map(|posted| (posted.sequence.0, posted.repeated))
        .collect();
    assert_eq!(
        posted,
        [(1, false), (1, true), (2, false), (1, true), (3, false)]
    );
    assert_eq!(gateway.last(&key), 3);
    assert!(flights.load(Ordering::Relaxed) > 0, "none was in flight");
    gateway.engine.stop().await;
}

#[tokio::test]
async fn a_flight_that_fails_takes_along_what_was_decided_on_top_of_it() {
    for how in Failure::BOTH {
        let gateway = Gateway::with(Rounds::InFlight);
        let key = conversation("c");
        gateway.fail_next(1, how);
        let posted = post_together(&gateway, &key, &["a", "b"]).await;
        for result in posted {
            assert!(matches!(result, Err(Error::StoreFailed(_))), "{result:?}");
        }
        gateway.advance(AFTER_A_FAILURE).await;
        let written = u64::from(how == Failure::ApplyAndFail);
        assert_eq!(gateway.last(&key), written, "{how:?}");
        let posted = gateway.post(&key, "b").await.expect("it is healthy again");
        assert_eq!((posted.sequence.0, posted.repeated), (written + 1, false));
        gateway.engine.stop().await;
    }
}

#[tokio::test]
async fn whatever_fails_and_whenever_all_promises_hold() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut world = World::new(seed, Rounds::BOTH[seed as usize % 2]);
        for _ in 0..150 {
            world.step(true).await;
        }
        world.end().await;
    }
}

#[tokio::test]
async fn whichever_commit_fails_all_promises_hold() {
    for how in Failure::BOTH {
        for broken in 0..80 {
            println!("commit {broken}, {how:?}");
            let mut world = World::new(broken as u64 % 4, Rounds::BOTH[broken % 2]);
            let commits = AtomicUsize::new(0);
            world.gateway.memory.on_commit(move |_, _: Durability| {
                if commits.fetch_add(1, Ordering::Relaxed) == broken {
                    how.verdict()
                } else {
                    Verdict::Apply
                }
            });
            world.attach().await;
            for _ in 0..100 {
                world.step(false).await;
            }
            world.end().await;
        }
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

impl Gateway {
    /// Schedules a text, under itself as the key.
    async fn schedule(
        &self,
        key: &ConversationKey,
        text: &str,
        at: Timestamp,
    ) -> Result<Sent, Error> {
        let times = Times {
            deliver_at: Some(at),
            expire_at: None,
        };
        let (bot, request) = (Some(BotId::from(BOT)), Some(text.to_owned()));
        self.engine
            .send_at(times, key.clone(), bot, None, request, message(text).into())
            .await
    }

    async fn scheduled(&self, key: &ConversationKey, text: &str, at: Timestamp) -> ScheduleId {
        match self.schedule(key, text, at).await {
            Ok(Sent::Scheduled { id, .. }) => id,
            other => panic!("it was to wait: {other:?}"),
        }
    }

    async fn cancel(&self, key: &ConversationKey, id: ScheduleId) -> Result<Cancelled, Error> {
        self.engine.cancel_scheduled(key.clone(), id, None).await
    }

    fn texts(&self, key: &ConversationKey) -> Vec<String> {
        self.log(key).iter().map(|entry| text(entry)).collect()
    }

    /// How many records there are of sends that wait.
    fn left(&self) -> usize {
        let mut left = 0;
        for table in [store::Table::Scheduled, store::Table::ScheduledDue] {
            let range = KeyRange::table(table);
            let counted = self.memory.scan(&range, Order::Ascending, &mut |_, _| {
                left += 1;
                ControlFlow::Continue(())
            });
            counted.expect("a readable store");
        }
        left
    }
}

#[tokio::test]
async fn whichever_commit_of_scheduled_sends_fails_each_is_sent_once_and_what_was_taken_back_never()
{
    for (rounds, how) in [
        (Rounds::Here, Failure::Refuse),
        (Rounds::Here, Failure::ApplyAndFail),
        (Rounds::InFlight, Failure::Refuse),
        (Rounds::InFlight, Failure::ApplyAndFail),
    ] {
        let mut failing = 0;
        loop {
            let mut gateway = Gateway::with(rounds);
            let key = conversation("c");
            gateway.post(&key, "q").await.unwrap();
            let start = gateway.clock.now();
            let commits = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&commits);
            gateway.memory.on_commit(move |_, _| {
                if count.fetch_add(1, Ordering::Relaxed) == failing {
                    how.verdict()
                } else {
                    Verdict::Apply
                }
            });
            let mut ids = Vec::new();
            for (text, hours) in [("one", 1), ("never", 1), ("two", 1), ("three", 2)] {
                let at = start.after(HOUR * hours);
                // Whoever was told that it failed asks again.
                let id = loop {
                    match gateway.schedule(&key, text, at).await {
                        Ok(Sent::Scheduled { id, .. }) => break id,
                        Err(Error::StoreFailed(_)) => gateway.advance(AFTER_A_FAILURE).await,
                        other => panic!("{other:?}"),
                    }
                };
                ids.push(id);
            }
            while let Err(error) = gateway.cancel(&key, ids[1]).await {
                assert!(matches!(error, Error::StoreFailed(_)), "{error:?}");
                gateway.advance(AFTER_A_FAILURE).await;
            }
            gateway.advance(HOUR).await;
            gateway.advance(AFTER_A_FAILURE).await;
            gateway.advance(HOUR).await;
            gateway.advance(AFTER_A_FAILURE).await;
            gateway.advance(AFTER_A_FAILURE).await;
            let sent = ["question q", "one", "two", "three"];
            assert_eq!(gateway.texts(&key), sent, "{rounds:?} {how:?} {failing}");
            assert_eq!(gateway.left(), 0, "{rounds:?} {how:?} {failing}");
            let was_reached = commits.load(Ordering::Relaxed) > failing;
            gateway.restart(0).await;
            gateway.advance(HOUR).await;
            assert_eq!(gateway.texts(&key), sent, "{rounds:?} {how:?} {failing}");
            if !was_reached {
                break;
            }
            failing += 1;
        }
        assert!(failing > 6, "only {failing} commits");
    }
}

#[tokio::test]
async fn a_machine_that_goes_down_around_any_commit_of_a_scheduled_send_sends_it_once() {
    for failing in 0..3 {
        for how in Failure::BOTH {
            let mut gateway = Gateway::new();
            let key = conversation("c");
            gateway.post(&key, "q").await.unwrap();
            let at = gateway.clock.now().after(HOUR);
            let commits = AtomicUsize::new(0);
            // From that commit on the machine is down.
            gateway.memory.on_commit(move |_, _| {
                match commits.fetch_add(1, Ordering::Relaxed).cmp(&failing) {
                    std::cmp::Ordering::Less => Verdict::Apply,
                    std::cmp::Ordering::Equal => how.verdict(),
                    std::cmp::Ordering::Greater => Failure::Refuse.verdict(),
                }
            });
            let first = gateway.schedule(&key, "hello", at).await;
            gateway.advance(HOUR).await;
            gateway.restart(0).await;
            gateway.settle().await;
            if first.is_err() {
                let again = gateway.schedule(&key, "hello", at).await;
                assert!(again.is_ok(), "{again:?}");
            }
            gateway.advance(AFTER_A_FAILURE).await;
            let said = gateway.texts(&key);
            assert_eq!(said, ["question q", "hello"], "{failing} {how:?}");
            assert_eq!(gateway.left(), 0);
        }
    }
}

/// Does two things at one time: the first, and what is due with it, is in flight while the second is
/// decided.
async fn on_top<A, B>(
    gateway: &Gateway,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let go_on = gateway.gate.close();
    let release = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        go_on.send(()).expect("a commit waits");
    };
    let (first, second, ()) = futures_util::future::join3(first, second, release).await;
    (first, second)
}

#[tokio::test]
async fn taking_back_what_is_just_being_sent_waits_for_it_and_says_what_became_of_it() {
    for fails in [None, Some(Failure::Refuse), Some(Failure::ApplyAndFail)] {
        let gateway = Gateway::with(Rounds::InFlight);
        let key = conversation("c");
        gateway.post(&key, "q").await.unwrap();
        let at = gateway.clock.now().after(HOUR);
        let id = gateway.scheduled(&key, "hello", at).await;
        gateway.clock.advance(HOUR);
        if let Some(how) = fails {
            gateway.fail_next(1, how);
        }
        let other = conversation("other");
        let (posted, cancelled) = on_top(
            &gateway,
            gateway.post(&other, "a"),
            gateway.cancel(&key, id),
        )
        .await;
        match fails {
            None => {
                posted.unwrap();
                let sent = matches!(cancelled, Err(Error::ScheduleSent { sequence, .. })
                    if sequence == Sequence(2));
                assert!(sent, "{cancelled:?}");
            }
            Some(_) => {
                failed(posted);
                // Nobody knows whether it was sent, and so nobody says so.
                failed(cancelled);
            }
        }
        let is_sent = fails != Some(Failure::Refuse);
        let again = gateway.cancel(&key, id).await;
        if is_sent {
            assert!(
                matches!(again, Err(Error::ScheduleSent { .. })),
                "{again:?}"
            );
        } else {
            assert!(again.is_ok_and(|cancelled| !cancelled.repeated));
        }
        gateway.advance(AFTER_A_FAILURE).await;
        let said = usize::from(is_sent);
        assert_eq!(gateway.texts(&key), ["question q", "hello"][..=said]);
        assert_eq!(gateway.left(), 0);
    }
}

#[tokio::test]
async fn what_is_scheduled_or_taken_back_in_flight_is_known_to_what_repeats_it() {
    let gateway = Gateway::with(Rounds::InFlight);
    let key = conversation("c");
    gateway.post(&key, "q").await.unwrap();
    let at = gateway.clock.now().after(HOUR);
    let (first, second) = on_top(
        &gateway,
        gateway.schedule(&key, "hello", at),
        gateway.schedule(&key, "hello", at),
    )
    .await;
    let (
        Ok(Sent::Scheduled {
            id,
            repeated: false,
        }),
        Ok(again),
    ) = (first, second)
    else {
        panic!("one is the repeat of the other");
    };
    assert_eq!(again, Sent::Scheduled { id, repeated: true });
    assert_eq!(gateway.left(), 2);
    let (first, second) =
        on_top(&gateway, gateway.cancel(&key, id), gateway.cancel(&key, id)).await;
    let end = v1::ScheduleEnd::Cancelled;
    let cancelled = |repeated| Cancelled { end, repeated };
    assert_eq!(first.unwrap(), cancelled(false));
    assert_eq!(second.unwrap(), cancelled(true));
    gateway.advance(HOUR).await;
    assert_eq!(gateway.texts(&key), ["question q"]);
    assert_eq!(gateway.left(), 0);
}
