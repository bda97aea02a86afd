//! Promise 10: a bot that is away misses nothing within its retention.

use turnwire::proto::v1;

use crate::harness::{Gateway, Setup, message, refused, seconds};

const DAY: u64 = 24 * 3_600;

fn setup(on_disk: bool) -> Setup {
    let setup = Gateway::setup();
    if on_disk { setup.on_disk() } else { setup }
}

#[tokio::test]
async fn a_bot_that_was_away_gets_everything_in_order() {
    let gateway = Gateway::start().await;
    for number in 1..=100 {
        for conversation in ["c1", "c2", "c3"] {
            gateway.user(conversation).says(&format!("m{number}")).await;
        }
    }
    // Long enough for the conversations to leave memory.
    gateway.pass(seconds(3 * DAY)).await;
    gateway.pass_slowly(15).await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut seen = std::collections::HashMap::new();
    for _ in 0..300 {
        let delivery = bot.next_delivery().await;
        let conversation = delivery
            .conversation
            .clone()
            .expect("a name")
            .conversation_id;
        let last = seen.entry(conversation).or_insert(0);
        *last += 1;
        assert_eq!((delivery.sequence, delivery.attempt), (*last, 1));
        assert!(!delivery.after_gap);
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [100; 3]);
}

#[tokio::test]
async fn a_bot_that_was_away_over_restarts_gets_everything() {
    for on_disk in [false, true] {
        let mut gateway = setup(on_disk).start().await;
        for number in 1..=6 {
            for conversation in ["c1", "c2"] {
                gateway.user(conversation).says(&format!("m{number}")).await;
            }
            match number % 3 {
                0 => gateway.restart().await,
                1 => gateway.crash().await,
                _ => gateway.pass_slowly(12).await,
            }
        }
        let mut bot = gateway.bot("echo").attach().await;
        let mut count = 0;
        for _ in 0..12 {
            let delivery = bot.next_delivery().await;
            count += delivery.sequence;
            bot.acks(&delivery).await;
        }
        assert_eq!(count, 2 * (1..=6).sum::<u64>());
        bot.expect_nothing().await;
    }
}

#[tokio::test]
async fn opening_finds_what_is_pending_among_what_is_not() {
    for on_disk in [false, true] {
        let mut gateway = setup(on_disk).start().await;
        let mut bot = gateway.bot("echo").attach().await;
        for number in 0..200 {
            let conversation = format!("c{number}");
            gateway.user(&conversation).says("hi").await;
            let delivery = bot.expect(&conversation, "hi", 1).await;
            bot.acks(&delivery).await;
        }
        drop(bot);
        for conversation in ["c7", "c77", "c177"] {
            gateway.user(conversation).says("pending").await;
        }
        gateway.restart().await;
        let mut bot = gateway.bot("echo").attach().await;
        let waiting = bot.waiting().await;
        let mut pending: Vec<_> = waiting
            .iter()
            .map(|delivery| {
                delivery
                    .conversation
                    .clone()
                    .expect("a name")
                    .conversation_id
            })
            .collect();
        pending.sort();
        assert_eq!(pending, ["c177", "c7", "c77"]);
    }
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes_and_the_next_delivery_says_so() {
    for on_disk in [false, true] {
        let gateway = setup(on_disk).start().await;
        for number in 1..=5 {
            gateway.user("c1").says(&format!("old{number}")).await;
        }
        gateway.pass(seconds(6 * DAY)).await;
        assert_eq!(gateway.log("c1").await.len(), 5);
        gateway.user("c1").says("young").await;
        gateway.pass(seconds(DAY + 3_600)).await;
        gateway.pass_slowly(3).await;
        assert_eq!(gateway.texts("c1").await, ["young"]);
        let known = gateway.conversation("c1").await;
        assert_eq!((known.first_sequence, known.last_sequence), (6, 6));
        let mut bot = gateway.bot("echo").attach().await;
        let young = bot.expect("c1", "young", 1).await;
        assert_eq!((young.sequence, young.after_gap), (6, true));
        bot.acks(&young).await;
        gateway.user("c1").says("new").await;
        assert!(!bot.expect("c1", "new", 1).await.after_gap);
    }
}

#[tokio::test]
async fn a_conversation_of_which_nothing_is_kept_goes_on_with_the_next_sequence() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("old").await;
    gateway.pass(seconds(7 * DAY + 3_600)).await;
    gateway.pass_slowly(3).await;
    assert!(gateway.log("c1").await.is_empty());
    let known = gateway.conversation("c1").await;
    assert_eq!((known.first_sequence, known.last_sequence), (2, 1));
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect_nothing().await;
    drop(bot);
    gateway.restart().await;
    assert_eq!(gateway.user("c1").says("new").await.sequence, 2);
    let mut bot = gateway.bot("echo").attach().await;
    let new = bot.expect("c1", "new", 1).await;
    assert!(new.after_gap);
}

#[tokio::test]
async fn what_a_session_holds_is_kept_while_it_is_held() {
    let setup = Gateway::setup().config(|config| {
        config.limits.log_retention = seconds(3_600);
        config.limits.delivery_ceiling = seconds(10 * DAY);
    });
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("held").await;
    let held = bot.expect("c1", "held", 1).await;
    for _ in 0..30 {
        bot.extend(&held, Some(seconds(600))).await;
        gateway.pass(seconds(599)).await;
    }
    bot.expect_nothing().await;
    assert_eq!(gateway.texts("c1").await, ["held"]);
    bot.commits(&held, &["at last"]).await;
    gateway.pass(seconds(2)).await;
    assert_eq!(gateway.texts("c1").await, ["at last"]);
}

#[tokio::test]
async fn a_retention_of_zero_keeps_everything() {
    let setup = Gateway::setup().config(|config| config.limits.log_retention = seconds(0));
    let gateway = setup.start().await;
    gateway.user("c1").says("old").await;
    gateway.pass(seconds(1_000 * DAY)).await;
    gateway.pass_slowly(3).await;
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect("c1", "old", 1).await;
}

#[tokio::test]
async fn a_transcript_page_of_what_is_gone_is_empty_and_a_watcher_is_told() {
    let gateway = Gateway::start().await;
    for number in 1..=3 {
        gateway.user("c1").says(&format!("old{number}")).await;
    }
    gateway.pass(seconds(7 * DAY + 3_600)).await;
    gateway.user("c1").posts(message("new")).await;
    gateway.pass_slowly(3).await;
    let start = v1::watch_conversation_request::Start::AfterSequence(1);
    let watch = crate::harness::Watcher::start(&gateway.wire(), "c1", Some(start)).await;
    let facts = refused(watch.map(drop), tonic::Code::OutOfRange, "SEQUENCE_GONE");
    assert_eq!(facts["first_sequence"], "4");
    // Where nothing is missing: after the last that is gone, and from whatever is the beginning.
    for after in [3, 0] {
        gateway.watch("c1", after).await.expect(4, "new").await;
    }
}
