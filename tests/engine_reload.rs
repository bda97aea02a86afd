//! The engine while its settings are replaced: what is decided before goes by the old ones, what is
//! decided after by the new ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use turnwire::clock::{Clock, Manual, Timestamp};
use turnwire::engine::session::{Credit, Delivery, Event, Events};
use turnwire::engine::settings::{Bot, Channel, Hears, Outbound, Settings};
use turnwire::engine::{Engine, Error, Start};
use turnwire::id::ConversationKey;
use turnwire::limits::Limits;
use turnwire::metrics::Metrics;
use turnwire::proto::v1;
use turnwire::store::Memory;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn bot(id: &str, delivery_deadline: Duration) -> Bot {
    Bot {
        account: v1::ChannelAccount {
            id: Some(id.to_owned()),
            ..Default::default()
        },
        delivery_deadline,
        delivery_attempts: 5,
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
    let (_link, mut events) = engine
        .attach_bot(&"echo".into(), "1", credit)
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
