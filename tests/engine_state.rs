//! Documents that several shards write at one time, on a store that takes its time and fails: no
//! update is lost, and none happens twice.
//!
//! Shards and their writes are threads, so what meets what is left to them; what must hold in the end
//! is not.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use prost_types::Struct;
use prost_types::value::Kind;
use turnwire::clock::{Clock, Manual, Timestamp};
use turnwire::engine::log::{Author, Page};
use turnwire::engine::session::{Credit, Event, Events, Outcome};
use turnwire::engine::settings::{Bot, Channel, Hears, OnPoison, Outbound, Settings};
use turnwire::engine::state::{self, Condition, Scope, Write};
use turnwire::engine::terms::Terms;
use turnwire::engine::{Engine, Error, Link, Opening};
use turnwire::id::{BotId, ChannelId, ConversationKey, DeliveryId, Etag, Sequence};
use turnwire::limits::Limits;
use turnwire::metrics::Metrics;
use turnwire::proto::v1;
use turnwire::store::memory::Verdict;
use turnwire::store::{self, Batch, Durability, Key, KeyRange, Memory, Order, Store};

const SHARDS: usize = 4;
const CONVERSATIONS: usize = 8;
const TURNS: usize = 8;
/// Longer than a shard pauses after a failure.
const AFTER_A_FAILURE: Duration = Duration::from_millis(2_100);
/// How long nothing happens before a test looks whether all is done, or moves time on.
const QUIET: Duration = Duration::from_millis(20);
/// How long a test may take. A limit for a broken engine, not a measure of a good one.
const PATIENCE: Duration = Duration::from_secs(120);

fn bot() -> BotId {
    "echo".into()
}

fn channel() -> ChannelId {
    "chat".into()
}

/// A store that others get a word in at, before a batch is there and before its writer knows.
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
        let let_others = || (0..20).for_each(|_| std::thread::yield_now());
        self.gate.pass();
        let_others();
        let committed = self.memory.commit(batch, durability);
        let_others();
        committed
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

struct Gateway {
    memory: Memory,
    gate: Gate,
    clock: Arc<Manual>,
    engine: Engine,
    metrics: Arc<Metrics>,
}

impl Gateway {
    fn new() -> Self {
        // Many small rounds, so that many are in the air.
        Self::open(Memory::new(), 1, 4)
    }

    fn open(memory: Memory, epoch: u32, shard_round: usize) -> Self {
        let gate = Gate::default();
        let clock = Arc::new(Manual::new(Timestamp(1_700_000_000_000)));
        let settings = Settings {
            limits: Limits {
                shard_round,
                ..Limits::default()
            },
            bots: HashMap::from([(
                bot(),
                Bot {
                    account: v1::ChannelAccount::default(),
                    delivery_deadline: Duration::from_secs(600),
                    // Nothing is parked: every activity must be answered.
                    delivery_attempts: 1_000_000,
                    on_poison: OnPoison::Skip,
                    hears: Hears::Users,
                },
            )]),
            channels: HashMap::from([(
                channel(),
                Channel {
                    bot: bot(),
                    also: Vec::new(),
                    capabilities: v1::ChannelCapabilities::default(),
                    outbound: Outbound::Watch,
                    service_url: None,
                    end_closes: false,
                    stream_interval: Limits::default().stream_interval,
                },
            )]),
            shards: SHARDS,
            seed: 7,
        };
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::open(
            Arc::new(Slow {
                memory: memory.clone(),
                gate: gate.clone(),
            }),
            epoch,
            Arc::clone(&clock) as Arc<dyn Clock>,
            settings,
            Arc::clone(&metrics),
        );
        Self {
            memory,
            gate,
            clock,
            engine: engine.expect("it opens"),
            metrics,
        }
    }

    async fn attach(&self) -> (Link, Events) {
        let credit = Credit {
            deliveries: 100_000,
            bytes: 64 << 20,
        };
        let terms = Terms::new("one", credit);
        let attached = self.engine.attach_bot(&bot(), terms).await;
        let Opening { link, events, .. } = attached.expect("the bot is let in");
        (link, events)
    }

    /// What a counter says, and the condition that nobody has written since.
    fn read(&self, scope: &Scope) -> (f64, Condition) {
        match self.engine.document(&bot(), scope, "count") {
            Ok(document) => (
                number(&document.content),
                Condition::Match(document.etag.to_string()),
            ),
            Err(Error::State(state::Error::Unknown(_))) => (0.0, Condition::Absent),
            Err(error) => panic!("the counter cannot be read: {error}"),
        }
    }

    /// A write that adds one to what the counter says now.
    fn one_more(&self, scope: &Scope) -> Write {
        let (count, condition) = self.read(scope);
        Write {
            scope: scope.clone(),
            name: "count".to_owned(),
            content: Some(content(count + 1.0)),
            condition,
        }
    }

    fn answers(&self, conversation: &ConversationKey) -> usize {
        let number = self.engine.conversation(conversation);
        let number = number.expect("it was started").number;
        let page = Page {
            entries: usize::MAX,
            bytes: usize::MAX,
        };
        let (first, last) = (Sequence(1), Sequence(u64::MAX));
        let log = self
            .engine
            .activities(number, first, last, Order::Ascending, page);
        let log = log.expect("a readable log");
        log.iter()
            .filter(|entry| matches!(entry.author, Author::Bot(_)))
            .count()
    }
}

fn content(number: f64) -> Bytes {
    let object = Struct {
        fields: [("n".to_owned(), number.into())].into(),
    };
    object.encode_to_vec().into()
}

fn number(content: &Struct) -> f64 {
    match content.fields["n"].kind {
        Some(Kind::NumberValue(number)) => number,
        ref other => panic!("no number but {other:?}"),
    }
}

fn conversation(index: usize) -> ConversationKey {
    ConversationKey {
        channel: channel(),
        conversation: format!("c{index}").into(),
    }
}

fn message(text: &str, conversation: Option<&ConversationKey>) -> v1::Activity {
    v1::Activity {
        r#type: Some("message".to_owned()),
        text: Some(text.to_owned()),
        from: Some(v1::ChannelAccount {
            id: Some("ann".to_owned()),
            ..Default::default()
        }),
        conversation: conversation.map(|key| v1::ConversationAccount {
            id: Some(key.conversation.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A bot that counts its turns in one document, in all conversations at one time, and answers each turn
/// once.
async fn count_turns(gateway: &Gateway, scope: &Scope, turns: usize) -> Refusals {
    let (link, mut events) = gateway.attach().await;
    let mut refusals = Refusals::default();
    let mut frame = 1;
    let mut held: BTreeSet<DeliveryId> = BTreeSet::new();
    loop {
        let Ok(event) = tokio::time::timeout(QUIET, events.next()).await else {
            if answered(gateway) == turns {
                return refusals;
            }
            // What failed comes again when the shards have drawn breath.
            gateway.clock.advance(AFTER_A_FAILURE);
            continue;
        };
        let event = event.expect("the engine goes on");
        let delivery = match event {
            Event::Delivery(delivery) => {
                held.insert(delivery.id);
                delivery.id
            }
            Event::Acked(acked) => {
                for acked in acked {
                    held.remove(&acked.id);
                    if acked.outcome == Outcome::Ok {
                        assert_eq!((acked.appended.len(), acked.etags.len()), (1, 1));
                        assert!(acked.etags[0].is_some());
                    }
                }
                continue;
            }
            Event::Refused(refused) => {
                let delivery = refused.delivery.expect("a commit cites its delivery");
                match refused.error {
                    Error::State(state::Error::Stale { .. }) => refusals.stale += 1,
                    Error::State(state::Error::Busy { .. }) => refusals.busy += 1,
                    Error::StoreFailed(_) => {
                        // It may have been written, with the answer and the ack; or it comes again.
                        refusals.failed += 1;
                        held.remove(&delivery);
                        continue;
                    }
                    error => panic!("refused for another reason: {error}"),
                }
                delivery
            }
            other => panic!("{other:?}"),
        };
        if held.contains(&delivery) {
            frame += 1;
            let (answer, write) = (message("counted", None), gateway.one_more(scope));
            link.commit_with_state(frame, delivery, vec![answer], vec![write])
                .await
                .expect("it reaches its shard");
        }
    }
}

#[derive(Debug, Default)]
struct Refusals {
    stale: usize,
    busy: usize,
    failed: usize,
}

fn answered(gateway: &Gateway) -> usize {
    let all = (0..CONVERSATIONS).map(conversation);
    all.map(|conversation| gateway.answers(&conversation)).sum()
}

async fn post_all(gateway: &Gateway) {
    let posts = (0..CONVERSATIONS * TURNS).map(|index| async move {
        let key = conversation(index % CONVERSATIONS);
        let activity = message("count me", Some(&key));
        let posted = gateway.engine.post(&key.channel, activity.into()).await;
        posted.expect("it is taken")
    });
    join_all(posts).await;
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it does not take for ever")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_when_many_turns_in_several_shards_add_to_one_counter() {
    let gateway = Gateway::new();
    post_all(&gateway).await;
    let refusals = within(count_turns(&gateway, &Scope::Bot, CONVERSATIONS * TURNS)).await;
    assert_eq!(gateway.read(&Scope::Bot).0, (CONVERSATIONS * TURNS) as f64);
    assert_eq!(answered(&gateway), CONVERSATIONS * TURNS);
    // They did meet.
    assert!(refusals.stale + refusals.busy > 0, "{refusals:?}");
    let counted = gateway.metrics.state_writes.stale.get();
    assert_eq!(counted, refusals.stale as u64);
    gateway.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counter_and_the_answers_agree_when_rounds_fail_under_them() {
    for apply in [false, true] {
        let gateway = Gateway::new();
        post_all(&gateway).await;
        let commits = AtomicU64::new(0);
        gateway.memory.on_commit(move |_, _| {
            let error = || store::Error::Failed {
                place: "memory".to_owned(),
                source: Arc::new(std::io::Error::other("told to fail")),
            };
            match commits.fetch_add(1, Ordering::Relaxed) % 31 {
                30 if apply => Verdict::ApplyAndFail(error()),
                30 => Verdict::Refuse(error()),
                _ => Verdict::Apply,
            }
        });
        let scope = Scope::User(channel(), "ann".to_owned());
        let refusals = within(count_turns(&gateway, &scope, CONVERSATIONS * TURNS)).await;
        assert!(refusals.failed > 0, "{refusals:?}");
        gateway.memory.heal();
        assert_eq!(answered(&gateway), CONVERSATIONS * TURNS);
        assert_eq!(gateway.read(&scope).0, (CONVERSATIONS * TURNS) as f64);
        gateway.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_without_a_commit_wait_for_each_other_and_lose_nothing() {
    let gateway = Gateway::new();
    let scope = Scope::Conversation(conversation(0));
    let writers = (0..8).map(|_| async {
        for _ in 0..TURNS {
            loop {
                let write = gateway.one_more(&scope);
                match gateway.engine.write_document(&bot(), write).await {
                    Ok(etag) => break assert!(etag.is_some()),
                    Err(Error::State(state::Error::Stale { .. })) => {}
                    Err(error) => panic!("refused for another reason: {error}"),
                }
            }
        }
    });
    within(join_all(writers)).await;
    assert_eq!(gateway.read(&scope).0, (8 * TURNS) as f64);
    gateway.engine.stop().await;
}

#[tokio::test]
async fn an_etag_is_never_given_twice_not_even_after_a_restart() {
    let put = Write {
        scope: Scope::Bot,
        name: "count".to_owned(),
        content: Some(content(1.0)),
        condition: Condition::Any,
    };
    let delete = Write {
        content: None,
        ..put.clone()
    };
    let memory = Memory::new();
    let mut etags: BTreeSet<Etag> = BTreeSet::new();
    for epoch in 1..=3 {
        let gateway = Gateway::open(memory.clone(), epoch, 4);
        for _ in 0..3 {
            let written = gateway.engine.write_document(&bot(), put.clone()).await;
            etags.insert(written.expect("it is written").expect("an etag"));
            let removed = gateway.engine.write_document(&bot(), delete.clone()).await;
            assert_eq!(removed.expect("it is removed"), None);
        }
        gateway.engine.stop().await;
    }
    assert_eq!(etags.len(), 9);
}

fn count_is(number: f64, condition: Condition) -> Write {
    Write {
        scope: Scope::Bot,
        name: "count".to_owned(),
        content: Some(content(number)),
        condition,
    }
}

/// Two writes of one document, the second decided while the first is in the air, which then fails or not.
async fn on_top(second: Write, fails: bool) -> (Gateway, [Result<Option<Etag>, Error>; 2]) {
    // A command makes up a round, and one that has another behind it is written elsewhere.
    let gateway = Gateway::open(Memory::new(), 1, 1);
    let once = AtomicU64::new(u64::from(!fails));
    gateway.memory.on_commit(move |_, _| {
        if once.fetch_add(1, Ordering::Relaxed) > 0 {
            return Verdict::Apply;
        }
        Verdict::Refuse(store::Error::Failed {
            place: "memory".to_owned(),
            source: Arc::new(std::io::Error::other("told to fail")),
        })
    });
    let go_on = gateway.gate.close();
    let bot = bot();
    let first = count_is(1.0, Condition::Absent);
    let decided = gateway.metrics.clone();
    let release = async {
        // Of a second that is refused, what it was refused for is counted.
        let writes = &decided.state_writes;
        while writes.written.get() + writes.stale.get() < 2 {
            tokio::task::yield_now().await;
        }
        go_on.send(()).expect("the store waits");
    };
    let (first, second, ()) = within(futures_util::future::join3(
        gateway.engine.write_document(&bot, first),
        gateway.engine.write_document(&bot, second),
        release,
    ))
    .await;
    (gateway, [first, second])
}

#[tokio::test]
async fn what_is_decided_on_top_of_a_flight_knows_what_that_writes() {
    let (gateway, results) = on_top(count_is(2.0, Condition::Any), false).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(gateway.read(&Scope::Bot).0, 2.0);
    gateway.engine.stop().await;
    // The store does not have the first one yet, and still the second comes too late.
    let (gateway, [first, second]) = on_top(count_is(2.0, Condition::Absent), false).await;
    first.expect("there was none");
    let stale = Err(state::Error::Stale {
        name: "count".to_owned(),
    });
    assert_eq!(
        second.map_err(|error| match error {
            Error::State(error) => error,
            error => panic!("refused for another reason: {error}"),
        }),
        stale
    );
    assert_eq!(gateway.read(&Scope::Bot).0, 1.0);
    gateway.engine.stop().await;
}

#[tokio::test]
async fn a_flight_that_fails_takes_along_what_was_decided_on_top_and_lets_the_document_go() {
    let (gateway, results) = on_top(count_is(2.0, Condition::Any), true).await;
    for result in results {
        assert!(matches!(result, Err(Error::StoreFailed(_))), "{result:?}");
    }
    let unknown = gateway.engine.document(&bot(), &Scope::Bot, "count");
    assert!(matches!(
        unknown,
        Err(Error::State(state::Error::Unknown(_)))
    ));
    // Nobody has it, and so who expects none is right.
    let anew = count_is(3.0, Condition::Absent);
    let anew = within(gateway.engine.write_document(&bot(), anew)).await;
    anew.expect("it is written");
    assert_eq!(gateway.read(&Scope::Bot).0, 3.0);
    gateway.engine.stop().await;
}
