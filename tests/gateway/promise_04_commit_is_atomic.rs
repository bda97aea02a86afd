//! Promise 4: replies, state writes and the ack of a commit are one durable write; all of it happens, or
//! none.

use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome::{Ok as Taken, Stale};
use turnwire::store::Table;
use turnwire::store::memory::Verdict;

use crate::harness::{Gateway, content, message, padded, put, seconds};

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

#[tokio::test]
async fn a_commit_writes_its_answers_its_state_and_its_ack_in_one_synced_batch() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let (ann, own) = (v1::StateScope::user("web", "ann"), v1::StateScope::bot());
    let old = gateway.puts(put(&own, "old", 1.0)).await;
    gateway.settle().await;
    let batches = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&batches);
    gateway.memory().on_commit(move |batch, durability| {
        let tables = batch.writes().filter_map(|w| Table::from_tag(w.key[0]));
        let (mut activities, mut documents) = (0, 0);
        for table in tables {
            activities += usize::from(table == Table::Activity);
            documents += usize::from(table == Table::State);
        }
        let mut seen = seen.lock().expect("no panic");
        seen.push((activities, documents, durability));
        Verdict::Apply
    });
    let writes = vec![
        put(&ann, "n", 1.0).if_absent(),
        put(&own, "n", 2.0),
        v1::StateWrite::delete(own.clone(), "old").if_match(old),
    ];
    let result = bot.commit_with(&delivery, "a", writes).await;
    gateway.memory().heal();
    assert_eq!(result.outcome(), Taken);
    let batches = batches.lock().expect("no panic").clone();
    assert_eq!(batches, [(1, 3, turnwire::store::Durability::Synced)]);
    // The new etags come in the order of the writes; what was removed has none.
    let [first, second, third] = &result.state_etags[..] else {
        panic!("{result:?}")
    };
    assert_eq!(third, "");
    gateway.crash().await;
    assert_eq!(gateway.texts("c1").await, ["hi", "a"]);
    for (scope, number, etag) in [(&ann, 1.0, first), (&own, 2.0, second)] {
        assert_eq!(gateway.number(scope, "n").await, Some(number));
        let document = gateway.document(scope, "n").await.expect("it is there");
        assert_eq!(&document.etag, etag);
    }
    assert_eq!(gateway.number(&own, "old").await, None);
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_stale_etag_refuses_all_of_a_commit_and_the_delivery_stays_held() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let scope = v1::StateScope::conversation(crate::harness::name("web", "c1"));
    let etag = gateway.puts(put(&scope, "n", 1.0)).await;
    gateway.puts(put(&scope, "n", 2.0)).await;
    let stale = || {
        vec![
            put(&scope, "before", 1.0),
            put(&scope, "n", 9.0).if_match(&etag),
            put(&scope, "after", 1.0),
        ]
    };
    for _ in 0..2 {
        bot.write_commit(&delivery, "no", stale());
        let error = bot.expect_error("STATE_STALE").await;
        assert_eq!(error.delivery_id, delivery.delivery_id);
        assert_eq!(error.retry(), v1::Retry::Never);
        assert_eq!(error.code, tonic::Code::Aborted as i32);
        assert_eq!(error.metadata["document"], "n");
    }
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    assert_eq!(gateway.number(&scope, "n").await, Some(2.0));
    assert_eq!(gateway.number(&scope, "before").await, None);
    // It is this session's still, and what the others were to write is free.
    gateway.puts(put(&scope, "before", 5.0)).await;
    let now = gateway.document(&scope, "n").await.expect("it is there");
    let fresh = vec![put(&scope, "n", 3.0).if_match(now.etag)];
    let result = bot.commit_with(&delivery, "yes", fresh).await;
    assert_eq!(result.outcome(), Taken);
    assert_eq!(gateway.texts("c1").await, ["hi", "yes"]);
    assert_eq!(gateway.number(&scope, "n").await, Some(3.0));
}

#[tokio::test]
async fn a_zombies_commit_writes_no_state() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let scope = v1::StateScope::bot();
    let result = bot
        .commit_with(&delivery, "a", vec![put(&scope, "n", 1.0)])
        .await;
    assert_eq!(result.outcome(), Taken);
    let again = bot
        .commit_with(&delivery, "b", vec![put(&scope, "n", 2.0)])
        .await;
    assert_eq!((again.outcome(), again.state_etags.len()), (Stale, 0));
    assert_eq!(gateway.number(&scope, "n").await, Some(1.0));
}

#[tokio::test]
async fn a_crash_leaves_all_of_a_commit_with_state_or_nothing() {
    let mut gateway = Gateway::start().await;
    let scope = v1::StateScope::user("web", "ann");
    for written in [false, true] {
        let said = format!("written: {written}");
        let mut bot = gateway.bot("echo").attach().await;
        gateway.user("c1").says(&said).await;
        let delivery = bot.next_delivery().await;
        gateway.settle().await;
        let before = gateway.texts("c1").await;
        let failed = || turnwire::store::Error::Failed {
            place: "memory".to_owned(),
            source: std::sync::Arc::new(std::io::Error::other("the machine went down")),
        };
        gateway.memory().on_commit(move |_, _| {
            if written {
                Verdict::ApplyAndFail(failed())
            } else {
                Verdict::Refuse(failed())
            }
        });
        bot.write_commit(&delivery, "answer", vec![put(&scope, "n", 1.0).if_absent()]);
        bot.expect_error("STORE_FAILED").await;
        gateway.kill().await;
        drop(bot);
        gateway.memory().heal();
        gateway.start_again().await;
        let after = gateway.texts("c1").await;
        let mut bot = gateway.bot("echo").attach().await;
        if written {
            assert_eq!(after.len(), before.len() + 1);
            assert_eq!(gateway.number(&scope, "n").await, Some(1.0));
            bot.expect_nothing().await;
        } else {
            assert_eq!(after, before);
            assert_eq!(gateway.number(&scope, "n").await, None);
            let again = bot.next_delivery().await;
            assert_eq!((again.sequence, again.attempt), (delivery.sequence, 2));
            assert_eq!(bot.ack(&again).await, Taken);
        }
    }
}

#[tokio::test]
async fn state_writes_that_break_a_rule_refuse_all_of_a_commit() {
    use v1::state_write::{Change, Condition};
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let scope = v1::StateScope::bot();
    let good = put(&scope, "n", 1.0);
    let with = |change: fn(&mut v1::StateWrite)| {
        let mut write = good.clone();
        change(&mut write);
        vec![put(&scope, "other", 1.0), write]
    };
    let many = (0..17).map(|n| put(&scope, &n.to_string(), 1.0)).collect();
    for (reason, writes) in [
        ("FRAME_INVALID", with(|write| write.scope = None)),
        ("FRAME_INVALID", with(|write| write.name.clear())),
        ("FRAME_INVALID", with(|write| write.change = None)),
        (
            "FRAME_INVALID",
            with(|write| write.change = Some(Change::Delete(false))),
        ),
        (
            "FRAME_INVALID",
            with(|write| {
                write.change = Some(Change::Delete(true));
                write.condition = Some(Condition::IfAbsent(true));
            }),
        ),
        (
            "FRAME_INVALID",
            with(|write| write.condition = Some(Condition::IfMatch(String::new()))),
        ),
        // One document twice.
        (
            "FRAME_INVALID",
            with(|write| "other".clone_into(&mut write.name)),
        ),
        (
            "STATE_INVALID",
            with(|write| write.change = Some(Change::Put(content(f64::NAN)))),
        ),
        ("TOO_MANY_STATE_WRITES", many),
    ] {
        bot.write_commit(&delivery, "no", writes);
        let error = bot.expect_error(reason).await;
        assert_eq!(error.delivery_id, delivery.delivery_id);
        assert_eq!(error.retry(), v1::Retry::Never);
    }
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    assert_eq!(gateway.number(&scope, "other").await, None);
    let result = bot.commit_with(&delivery, "yes", vec![good]).await;
    assert_eq!(result.outcome(), Taken);
}
