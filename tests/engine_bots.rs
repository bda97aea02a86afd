//! Changes of a conversation's bots on a store that fails, and on a machine that goes down: whichever
//! commit of a run it is, every question is answered once, by whoever had the conversation, and every change
//! happens once.
//!
//! There are no sockets and no time but the test's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use prost::Message;
use turnwire::clock::{Clock, Manual, Timestamp};
use turnwire::engine::log::Page;
use turnwire::engine::session::{Credit, Delivery, Event, Events};
use turnwire::engine::settings::{Bot, Channel, Hears, OnPoison, Outbound, Settings};
use turnwire::engine::terms::Terms;
use turnwire::engine::{Asker, Changed, Engine, Error, Link, Opening, Start};
use turnwire::id::{BotId, ChannelId, ConversationKey, Sequence};
use turnwire::limits::Limits;
use turnwire::metrics::Metrics;
use turnwire::proto::v1;
use turnwire::store::memory::Verdict;
use turnwire::store::{self, Memory, Order, Store};

const CHANNEL: &str = "chat";
const BOTS: [&str; 2] = ["first", "second"];
/// Longer than an engine pauses after a failure, and than its tick.
const AFTER_A_FAILURE: Duration = Duration::from_millis(2_100);
/// Steps after which something that fails once must have succeeded.
const PATIENCE: usize = 20;

/// What becomes of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is not written.
    Refused,
    /// It is written, and says that it is not.
    WrittenAndFailed,
    /// The machine goes down before it.
    DownBefore,
    /// The machine goes down after it, before anyone is told.
    DownAfter,
}

impl Fault {
    const ALL: [Self; 4] = [
        Self::Refused,
        Self::WrittenAndFailed,
        Self::DownBefore,
        Self::DownAfter,
    ];

    fn is_written(self) -> bool {
        matches!(self, Self::WrittenAndFailed | Self::DownAfter)
    }

    fn is_down(self) -> bool {
        matches!(self, Self::DownBefore | Self::DownAfter)
    }
}

fn conversation() -> ConversationKey {
    ConversationKey {
        channel: CHANNEL.into(),
        conversation: "c1".into(),
    }
}

fn told_to_fail() -> store::Error {
    store::Error::Failed {
        place: "memory".to_owned(),
        source: Arc::new(std::io::Error::other("told to fail")),
    }
}

fn open(memory: &Memory, clock: &Arc<Manual>, epoch: u32) -> Engine {
    let bot = |id: &str| Bot {
        account: v1::ChannelAccount {
            id: Some(id.to_owned()),
            role: Some("bot".to_owned()),
            ..Default::default()
        },
        delivery_deadline: Duration::from_secs(600),
        delivery_attempts: 1_000,
        hears: Hears::Users,
        on_poison: OnPoison::Skip,
    };
    let channel = Channel {
        bot: BOTS[0].into(),
        also: Vec::new(),
        capabilities: v1::ChannelCapabilities::default(),
        outbound: Outbound::Watch,
        service_url: None,
        end_closes: false,
        stream_interval: Limits::default().stream_interval,
    };
    let settings = Settings {
        limits: Limits::default(),
        bots: BOTS.map(|id| (BotId::from(id), bot(id))).into(),
        channels: HashMap::from([(CHANNEL.into(), channel)]),
        shards: 1,
        seed: 7,
    };
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    Engine::open(store, epoch, clock, settings, Arc::new(Metrics::new())).expect("it opens")
}

struct World {
    memory: Memory,
    clock: Arc<Manual>,
    engine: Engine,
    epoch: u32,
    bots: Vec<(Link, Events)>,
    frames: u64,
    /// The machine has gone down, and nobody has noticed yet.
    is_down: Arc<AtomicBool>,
    commits: Arc<AtomicUsize>,
}

impl World {
    /// A gateway whose commit of this number meets a fault.
    async fn new(fault: Fault, broken: usize) -> Self {
        let memory = Memory::new();
        let clock = Arc::new(Manual::new(Timestamp(1_700_000_000_000)));
        let is_down = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(AtomicUsize::new(0));
        let (down, count) = (Arc::clone(&is_down), Arc::clone(&commits));
        memory.on_commit(move |_, _| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if number != broken {
                return match down.load(Ordering::Relaxed) {
                    true => Verdict::Refuse(told_to_fail()),
                    false => Verdict::Apply,
                };
            }
            down.store(fault.is_down(), Ordering::Relaxed);
            match fault.is_written() {
                true => Verdict::ApplyAndFail(told_to_fail()),
                false => Verdict::Refuse(told_to_fail()),
            }
        });
        let engine = open(&memory, &clock, 1);
        let mut world = Self {
            memory,
            clock,
            engine,
            epoch: 1,
            bots: Vec::new(),
            frames: 0,
            is_down,
            commits,
        };
        world.attach().await;
        world
    }

    async fn attach(&mut self) {
        self.bots.clear();
        let credit = Credit {
            deliveries: 1_000,
            bytes: 1 << 20,
        };
        for bot in BOTS.map(BotId::from) {
            let attached = self.engine.attach_bot(&bot, Terms::new("one", credit));
            let Opening { link, events, .. } = attached.await.expect("it is let in");
            self.bots.push((link, events));
        }
    }

    /// Comes back after whatever has failed.
    async fn recover(&mut self) {
        if self.is_down.load(Ordering::Relaxed) {
            self.engine.stop().await;
            // The fault has been: what comes now is written.
            self.memory.heal();
            self.memory.crash(0);
            self.is_down.store(false, Ordering::Relaxed);
            self.epoch += 1;
            self.engine = open(&self.memory, &self.clock, self.epoch);
            self.attach().await;
        }
        self.clock.advance(AFTER_A_FAILURE);
        self.settle().await;
    }

    /// Returns when the shard has done everything that was asked of it.
    async fn settle(&self) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            let nobody = ConversationKey {
                conversation: "nobody".into(),
                ..conversation()
            };
            let answer = self.engine.follow(nobody, Start::End).await;
            assert!(matches!(answer, Err(Error::ConversationUnknown(_))));
        }
    }

    /// Posts a question until it is taken.
    async fn asks(&mut self, id: &str) {
        for _ in 0..PATIENCE {
            let question = v1::Activity {
                r#type: Some("message".to_owned()),
                id: Some(id.to_owned()),
                text: Some(id.to_owned()),
                from: Some(v1::ChannelAccount {
                    id: Some("user".to_owned()),
                    ..Default::default()
                }),
                conversation: Some(v1::ConversationAccount {
                    id: Some("c1".to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let channel = ChannelId::from(CHANNEL);
            match self.engine.post(&channel, question.into()).await {
                Ok(_) => return self.settle().await,
                Err(Error::StoreFailed(_)) => self.recover().await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("`{id}` is not taken");
    }

    /// Changes the bots until it is done. Others, too, did it at most once: the key is the same.
    async fn changes(&mut self, change: impl AsyncFn(&Engine) -> Result<Changed, Error>) {
        for _ in 0..PATIENCE {
            match change(&self.engine).await {
                Ok(changed) => {
                    assert!(changed.appended.is_some());
                    return self.settle().await;
                }
                Err(Error::StoreFailed(_)) => self.recover().await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it is not done");
    }

    async fn hand_over(&mut self, key: &str, from: &str, to: &str) {
        self.changes(async |engine| {
            engine
                .hand_over(
                    conversation(),
                    Some(from.into()),
                    to.into(),
                    "over to you".to_owned(),
                    None,
                    Asker::Backend,
                    Some(key.to_owned()),
                )
                .await
        })
        .await;
    }

    /// What a bot was handed and has not been looked at, the newest.
    fn handed(&mut self, bot: usize) -> Option<Delivery> {
        let (_, events) = &mut self.bots[bot];
        let next = || tokio::task::unconstrained(events.next()).now_or_never();
        let told = std::iter::from_fn(next).flatten();
        let deliveries = told.filter_map(|event| match event {
            Event::Delivery(delivery) => Some(delivery),
            _ => None,
        });
        deliveries.last()
    }

    /// Answers a delivery, and waits for nothing.
    async fn answers(&mut self, bot: usize, delivery: &Delivery) {
        let heard = v1::Activity::decode(&*delivery.activity).expect("an activity");
        let is_question = heard.r#type.as_deref() == Some("message");
        let answer = v1::Activity {
            r#type: Some("message".to_owned()),
            text: heard.text.clone(),
            ..Default::default()
        };
        let answers = if is_question {
            vec![answer]
        } else {
            Vec::new()
        };
        self.frames += 1;
        let (link, _) = &self.bots[bot];
        let sent = link.commit(self.frames, delivery.id, answers).await;
        sent.expect("the engine runs");
    }

    /// Lets a bot answer until it has nothing left to do.
    async fn works(&mut self, bot: usize) {
        for _ in 0..PATIENCE * 2 {
            self.settle().await;
            match self.handed(bot) {
                Some(delivery) => self.answers(bot, &delivery).await,
                None if self.is_finished() => return,
                None => self.recover().await,
            }
        }
        panic!("`{}` does not come to an end", BOTS[bot]);
    }

    fn is_finished(&self) -> bool {
        let stored = self.engine.conversation(&conversation());
        let stored = stored.expect("it was started");
        let mut cursors = stored.cursors.iter();
        !self.is_down.load(Ordering::Relaxed)
            && cursors.all(|(_, cursor)| cursor.finished == stored.last)
    }

    /// The whole log, as who said what.
    fn log(&self) -> Vec<(String, v1::Activity)> {
        let page = Page {
            entries: usize::MAX,
            bytes: usize::MAX,
        };
        let stored = self.engine.conversation(&conversation());
        let number = stored.expect("it was started").number;
        let all = (Sequence(1), Sequence(u64::MAX));
        let log = self
            .engine
            .activities(number, all.0, all.1, Order::Ascending, page);
        let log = log.expect("a readable log").into_iter().map(|entry| {
            let by = entry.author.bot().map(ToString::to_string);
            let activity = v1::Activity::decode(&*entry.activity).expect("an activity");
            (by.unwrap_or_default(), activity)
        });
        log.collect()
    }
}

/// A run in which a conversation goes to and fro, with something held at each hand-over. Returns how many
/// commits it took.
async fn run(fault: Fault, broken: usize) -> usize {
    let mut world = World::new(fault, broken).await;
    world.asks("one").await;
    world.asks("two").await;
    // Held, and answered too late.
    let late = world.handed(0);
    world.hand_over("there", BOTS[0], BOTS[1]).await;
    if let Some(late) = &late {
        world.answers(0, late).await;
    }
    world.asks("three").await;
    world.works(1).await;
    world.asks("four").await;
    // Held, and answered at the same moment: the answer is before the hand-over.
    if let Some(in_time) = world.handed(1) {
        world.answers(1, &in_time).await;
    }
    world.hand_over("back", BOTS[1], BOTS[0]).await;
    world.works(0).await;
    world
        .changes(async |engine| {
            let key = Some("leave".to_owned());
            let asker = Asker::Bots(vec![BOTS[0].into()]);
            engine
                .remove_bot(conversation(), BOTS[0].into(), asker, key)
                .await
        })
        .await;
    world
        .changes(async |engine| {
            let key = Some("join".to_owned());
            engine
                .add_bot(conversation(), BOTS[1].into(), Start::End, key)
                .await
        })
        .await;
    world.asks("five").await;
    world.works(1).await;

    let log = world.log();
    for question in ["one", "two", "three", "four", "five"] {
        let said = |by_bot: bool| {
            let is_it = |(by, activity): &&(String, v1::Activity)| {
                activity.text.as_deref() == Some(question) && by.is_empty() != by_bot
            };
            log.iter().filter(is_it).count()
        };
        assert_eq!((said(false), said(true)), (1, 1), "`{question}`: {log:?}");
    }
    let changes: Vec<String> = log
        .iter()
        .filter(|(_, activity)| activity.r#type.as_deref() != Some("message"))
        .map(|(_, activity)| {
            let ids = |members: &[v1::ChannelAccount]| {
                let ids = members.iter().filter_map(|member| member.id.clone());
                ids.collect::<Vec<_>>().join(",")
            };
            match &activity.name {
                Some(name) => name.clone(),
                None => format!(
                    "+{} -{}",
                    ids(&activity.members_added),
                    ids(&activity.members_removed)
                ),
            }
        })
        .collect();
    assert_eq!(
        changes,
        [
            "+second -first",
            "handoff.initiate",
            "+first -second",
            "handoff.initiate",
            "+ -first",
            "+second -",
        ]
    );
    let stored = world.engine.conversation(&conversation());
    let stored = stored.expect("it was started");
    let bots: Vec<String> = stored.bots().map(ToString::to_string).collect();
    assert_eq!((bots, stored.vacant), (vec![BOTS[1].to_owned()], false));
    world.engine.stop().await;
    world.commits.load(Ordering::Relaxed)
}

#[tokio::test]
async fn whichever_commit_fails_every_question_is_answered_once_and_every_change_happens_once() {
    let undisturbed = run(Fault::Refused, usize::MAX).await;
    assert!(undisturbed > 15, "{undisturbed} commits");
    for fault in Fault::ALL {
        for broken in 0..undisturbed {
            println!("commit {broken}, {fault:?}");
            run(fault, broken).await;
        }
    }
}
