//! Promise 4: replies and the ack of a commit are one durable write; all of it happens, or none.

use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome::{Ok as Taken, Stale};
use turnwire::store::Table;
use turnwire::store::memory::Verdict;

use crate::harness::{Gateway, message, padded, seconds};

#[tokio::test]
async fn a_commit_appends_all_its_activities_in_order_and_acks() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let result = bot.commit(&delivery, &["a", "b", "c"]).await;
    assert_eq!(result.outcome(), Taken);
    let sequences: Vec<_> = result.appended.iter().map(|a| a.sequence).collect();
    assert_eq!(sequences, [2, 3, 4]);
    let log = gateway.log("c1").await;
    for (entry, appended) in log[1..].iter().zip(&result.appended) {
        let activity = entry.activity.as_ref().expect("an activity");
        assert_eq!(activity.id.as_deref(), Some(appended.activity_id.as_str()));
        assert_eq!(entry.author(), v1::Author::Bot);
    }
    gateway.crash().await;
    assert_eq!(gateway.texts("c1").await, ["hi", "a", "b", "c"]);
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_commit_is_one_synced_batch_of_the_store() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    gateway.settle().await;
    let batches = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&batches);
    gateway.memory().on_commit(move |batch, durability| {
        let tables: Vec<_> = batch
            .writes()
            .filter_map(|w| Table::from_tag(w.key[0]))
            .collect();
        let activities = tables
            .iter()
            .filter(|table| **table == Table::Activity)
            .count();
        let heads = tables.iter().filter(|table| **table == Table::Head).count();
        seen.lock()
            .expect("no panic")
            .push((activities, heads, durability));
        Verdict::Apply
    });
    bot.commits(&delivery, &["a", "b", "c"]).await;
    gateway.memory().heal();
    let batches = batches.lock().expect("no panic");
    // The cursor is in the newest activity's record: it costs no write of its own.
    assert_eq!(*batches, [(3, 0, turnwire::store::Durability::Synced)]);
}

#[tokio::test]
async fn after_a_commit_that_the_store_refused_nothing_has_happened() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    gateway.settle().await;
    gateway.memory().fail_next_commits(1);
    bot.commit_all(delivery.delivery_id, vec![message("a"), message("b")]);
    let error = bot.expect_error("STORE_FAILED").await;
    assert_eq!(error.delivery_id, delivery.delivery_id);
    assert_eq!(error.retry(), v1::Retry::Uncertain);
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    // It comes again when the gateway has drawn breath, and can be answered then.
    bot.expect_nothing().await;
    gateway.pass(seconds(2)).await;
    let again = bot.next_delivery().await;
    assert_eq!(again.sequence, 1);
    assert_eq!(bot.commit(&delivery, &["zombie"]).await.outcome(), Stale);
    bot.commits(&again, &["a", "b"]).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "a", "b"]);
    gateway.crash().await;
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn after_a_commit_that_was_written_and_failed_all_has_happened() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    gateway.settle().await;
    let mut once = true;
    gateway.memory().on_commit(move |_, _| {
        if !std::mem::take(&mut once) {
            return Verdict::Apply;
        }
        Verdict::ApplyAndFail(turnwire::store::Error::Failed {
            place: "memory".to_owned(),
            source: std::sync::Arc::new(std::io::Error::other("the answer was lost")),
        })
    });
    bot.commit_all(delivery.delivery_id, vec![message("a"), message("b")]);
    bot.expect_error("STORE_FAILED").await;
    gateway.pass(seconds(2)).await;
    bot.expect_nothing().await;
    assert_eq!(gateway.texts("c1").await, ["hi", "a", "b"]);
    gateway.user("c1").says("next").await;
    let next = bot.expect("c1", "next", 1).await;
    assert_eq!(next.sequence, 4);
}

#[tokio::test]
async fn what_is_posted_while_the_store_fails_is_refused_and_can_be_repeated() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.settle().await;
    let activity = v1::Activity {
        id: Some("a1".to_owned()),
        ..message("hi")
    };
    gateway.memory().fail_next_commits(1);
    let failed = gateway.user("c1").tries(activity.clone()).await;
    crate::harness::refused(failed, tonic::Code::Unavailable, "STORE_FAILED");
    assert_eq!(gateway.get("/readyz").await.0, 503);
    let posted = gateway.user("c1").posts(activity).await;
    assert_eq!(posted.sequence, 1);
    assert_eq!(gateway.get("/readyz").await.0, 200);
    gateway.pass(seconds(2)).await;
    bot.expect("c1", "hi", 1).await;
}

#[tokio::test]
async fn one_bad_activity_refuses_all_of_a_commit_and_the_delivery_stays_held() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let bad = v1::Activity {
        expiration: Some("tomorrow".to_owned()),
        ..message("bad")
    };
    bot.commit_all(delivery.delivery_id, vec![message("a"), bad, message("c")]);
    let error = bot.expect_error("ACTIVITY_INVALID").await;
    assert_eq!(error.delivery_id, delivery.delivery_id);
    assert_eq!(error.metadata["field"], "activity.expiration");
    assert_eq!(error.retry(), v1::Retry::Never);
    let large = padded("large", 1 << 20);
    bot.commit_all(delivery.delivery_id, vec![message("a"), large]);
    bot.expect_error("ACTIVITY_TOO_LARGE").await;
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    bot.commits(&delivery, &["good"]).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "good"]);
}

#[tokio::test]
async fn a_commit_has_at_most_64_activities() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    assert_eq!(bot.welcome.max_commit_sends, 64);
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.commit_all(delivery.delivery_id, vec![message("x"); 65]);
    let error = bot.expect_error("TOO_MANY_SENDS").await;
    assert_eq!(error.delivery_id, delivery.delivery_id);
    assert_eq!(gateway.log("c1").await.len(), 1);
    bot.commits(&delivery, &["x"; 64]).await;
    assert_eq!(gateway.log("c1").await.len(), 65);
}
