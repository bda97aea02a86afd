//! The engine while its settings are replaced: what is decided before goes by the old ones, what is
//! decided after by the new ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use turnwire::clock::{Clock, Manual, Timestamp};
use turnwire::engine::session::{Credit, Delivery, Event, Events};
use turnwire::engine::settings::{Bot, Channel, Hears, OnPoison, Outbound, Settings};
use turnwire::engine::terms::Terms;
use turnwire::engine::{Engine, Error, Filter, Opening, Start};
use turnwire::id::ConversationKey;
use turnwire::limits::Limits;
use turnwire::metrics::Metrics;
use turnwire::proto::v1;
use turnwire::store::Memory;

/// How long anything may take. A limit for a broken engine, not a measure of a good one.
const PATIENCE: Duration = Duration::from_secs(20);

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn bot(id: &str, delivery_deadline: Duration) -> Bot {
    Bot {
        account: v1::ChannelAccount {
            id: Some(id.to_owned()),
            ..Default::default()
        },
        delivery_deadline,
        delivery_attempts: 5,
        on_poison: OnPoison::Skip,
        hears: Hears::Users,
    }
}

fn settings(delivery_deadline: Duration) -> Settings {
    let channel = Channel {
        bot: "echo".into(),
        also: Vec::new(),
        capabilities: v1::ChannelCapabilities::default(),
        outbound: Outbound::Queue,
        service_url: None,
        stream_interval: Limits::default().stream_interval,
        end_closes: false,
    };
    Settings {
        limits: Limits::default(),
        bots: HashMap::from([("echo".into(), bot("echo", delivery_deadline))]),
        channels: HashMap::from([("chat".into(), channel)]),
        shards: 2,
        seed: 7,
    }
}

fn open(settings: Settings) -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(Manual::new(NOW));
    let store = Arc::new(Memory::new());
    Engine::open(store, 1, clock, settings, Arc::new(Metrics::new())).expect("it opens")
}

async fn post(engine: &Engine, conversation: &str, text: &str) -> Result<(), Error> {
    let activity = v1::Activity {
        r#type: Some("message".to_owned()),
        text: Some(text.to_owned()),
        from: Some(v1::ChannelAccount {
            id: Some("user".to_owned()),
            ..Default::default()
        }),
        conversation: Some(v1::ConversationAccount {
            id: Some(conversation.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    engine
        .post(&"chat".into(), Box::new(activity))
        .await
        .map(drop)
}

/// Returns when the shards have done everything that was asked of them.
async fn settle(engine: &Engine) {
    for _ in 0..2 {
        for nobody in 0..16 {
            let nobody = ConversationKey {
                channel: "chat".into(),
                conversation: format!("nobody {nobody}").as_str().into(),
            };
            let answer = engine.follow(nobody, Start::End).await;
            assert!(matches!(answer, Err(Error::ConversationUnknown(_))));
        }
    }
}

fn the_delivery(events: &mut Events) -> Delivery {
    match events.next().now_or_never() {
        Some(Some(Event::Delivery(delivery))) => delivery,
        other => panic!("a delivery was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_delivery_has_the_deadline_that_is_in_force_when_it_is_handed_over() {
    let engine = open(settings(Duration::from_secs(60)));
    let credit = Credit {
        deliveries: 10,
        bytes: 1 << 20,
    };
    let Opening {
        link: _link,
        mut events,
        ..
    } = engine
        .attach_bot(&"echo".into(), Terms::new("1", credit))
        .await
        .expect("it attaches");

    post(&engine, "a", "before").await.expect("it is posted");
    settle(&engine).await;
    let before = the_delivery(&mut events);
    assert_eq!(before.deadline, Some(NOW.after(Duration::from_secs(60))));

    engine
        .reload(settings(Duration::from_secs(5)))
        .await
        .expect("it is put in force");
    post(&engine, "b", "after").await.expect("it is posted");
    settle(&engine).await;
    let after = the_delivery(&mut events);
    assert_eq!(after.deadline, Some(NOW.after(Duration::from_secs(5))));
    engine.stop().await;
}

#[tokio::test]
async fn a_limit_is_in_force_from_the_next_call_on() {
    let engine = open(settings(Duration::from_secs(60)));
    let text = "x".repeat(4_096);
    post(&engine, "a", &text).await.expect("it is posted");

    let mut small = settings(Duration::from_secs(60));
    small.limits.activity_bytes = 1_024;
    engine.reload(small).await.expect("it is put in force");
    assert_eq!(engine.limits().activity_bytes, 1_024);
    let refused = post(&engine, "a", &text).await;
    assert!(matches!(refused, Err(Error::Activity(_))), "{refused:?}");
    post(&engine, "a", "short").await.expect("it is posted");
    engine.stop().await;
}

/// As [`settings`], with one more bot, and without the one that channel `chat` is routed to otherwise.
fn without_echo() -> Settings {
    let deadline = Duration::from_secs(60);
    let mut settings = settings(deadline);
    settings.bots = HashMap::from([("other".into(), bot("other", deadline))]);
    for channel in settings.channels.values_mut() {
        channel.bot = "other".into();
    }
    settings
}

#[tokio::test]
async fn every_conversation_in_memory_comes_to_another_bot_though_nobody_touches_it() {
    const MANY: usize = 3_000;
    let engine = open(settings(Duration::from_secs(60)));
    for number in 0..MANY {
        let conversation = format!("c{number}");
        post(&engine, &conversation, "hi").await.expect("posted");
    }
    engine.reload(without_echo()).await.expect("in force");
    let listed = || {
        let filter = Filter::Bot("other".into());
        engine
            .conversations(&filter, None, MANY + 1)
            .expect("it can be read")
            .len()
    };
    // Some in each round, and a round for each of these at least.
    for _ in 0..MANY {
        if listed() == MANY {
            break;
        }
        settle(&engine).await;
    }
    assert_eq!(listed(), MANY);
    engine.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_bot_that_comes_and_goes_waits_once() {
    const WAITING: usize = 200;
    let engine = open(settings(Duration::from_secs(60)));
    for number in 0..WAITING {
        let conversation = format!("c{number}");
        post(&engine, &conversation, "hi").await.expect("posted");
    }
    for round in 0..100 {
        engine.reload(without_echo()).await.expect("in force");
        // The shards see some of them, and others are over before they look.
        if round % 3 > 0 {
            settle(&engine).await;
        }
        let settings = settings(Duration::from_secs(60));
        engine.reload(settings).await.expect("in force");
        if round % 3 > 1 {
            settle(&engine).await;
        }
    }
    let credit = Credit {
        deliveries: 10 * WAITING as i64,
        bytes: 1 << 24,
    };
    let terms = Terms::new("1", credit);
    let attached = engine.attach_bot(&"echo".into(), terms).await;
    let Opening {
        link: _link,
        mut events,
        ..
    } = attached.expect("it attaches");
    let mut got = std::collections::BTreeSet::new();
    for _ in 0..WAITING {
        settle(&engine).await;
        while let Some(Some(event)) = events.next().now_or_never() {
            let Event::Delivery(delivery) = event else {
                panic!("a delivery was expected, not {event:?}");
            };
            assert_eq!(delivery.attempt, 1);
            assert!(got.insert(delivery.conversation.to_string()), "once");
        }
    }
    assert_eq!(got.len(), WAITING);
    engine.stop().await;
}

#[tokio::test]
async fn a_session_that_attaches_while_its_bot_is_removed_does_not_stay() {
    let engine = open(settings(Duration::from_secs(60)));
    let credit = Credit {
        deliveries: 1,
        bytes: 1 << 20,
    };
    for _ in 0..50 {
        let (bot, other) = ("echo".into(), engine.clone());
        let attaching =
            tokio::spawn(async move { other.attach_bot(&bot, Terms::new("1", credit)).await });
        engine.reload(without_echo()).await.expect("in force");
        match attaching.await.expect("no panic") {
            Err(Error::BotUnknown(_)) => {}
            Err(other) => panic!("{other}"),
            Ok(Opening {
                link: _link,
                mut events,
                ..
            }) => {
                let end = tokio::time::timeout(PATIENCE, events.next()).await;
                let end = end.expect("it is told");
                assert!(matches!(end, Some(Event::End(Error::BotUnknown(_)))));
            }
        }
        let settings = settings(Duration::from_secs(60));
        engine.reload(settings).await.expect("in force");
    }
    engine.stop().await;
}
