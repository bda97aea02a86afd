//! Promise 3: only the present holder of a delivery can answer it; anyone else is STALE, and writes
//! nothing.

use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome::{Ok as Taken, Stale, Unknown};

use crate::harness::{Bot, Gateway, seconds};

/// Tries all that cites a delivery, none of which may be taken.
async fn tries_all(zombie: &mut Bot, delivery: &v1::Delivery) {
    assert_eq!(zombie.answers(delivery, "too late").await.outcome(), Stale);
    let nameless = v1::Send {
        client_id: format!("nameless-{}", delivery.delivery_id),
        conversation: None,
        activity: Some(crate::harness::message("too late").into()),
        delivery_id: delivery.delivery_id,
    };
    assert_eq!(zombie.send(nameless).await.outcome(), Stale);
    let commit = zombie.commit(delivery, &["too late"]).await;
    assert_eq!(commit.outcome(), Stale);
    assert!(commit.appended.is_empty());
    assert_eq!(zombie.ack(delivery).await, Stale);
    assert_eq!(zombie.retry(delivery, None).await, Stale);
    assert_eq!(zombie.release(delivery).await, Stale);
    assert_eq!(zombie.poison(delivery, "zombie").await, Stale);
}

#[tokio::test]
async fn the_holder_is_taken() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    assert_eq!(bot.answers(&delivery, "one").await.outcome(), Taken);
    assert_eq!(bot.commit(&delivery, &["two"]).await.outcome(), Taken);
    assert_eq!(gateway.texts("c1").await, ["hi", "one", "two"]);
}

#[tokio::test]
async fn an_earlier_attempt_of_the_same_session_writes_nothing() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let first = bot.expect("c1", "hi", 1).await;
    gateway.pass(seconds(60)).await;
    let second = bot.expect("c1", "hi", 2).await;
    tries_all(&mut bot, &first).await;
    bot.expect_nothing().await;
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    bot.commits(&second, &["in time"]).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "in time"]);
}

#[tokio::test]
async fn a_former_holder_writes_nothing() {
    let gateway = Gateway::start().await;
    let mut zombie = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let old = zombie.expect("c1", "hi", 1).await;
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    zombie.release(&old).await;
    let new = bot.expect("c1", "hi", 1).await;
    assert!(new.fence > old.fence, "{} {}", new.fence, old.fence);
    tries_all(&mut zombie, &old).await;
    // Nor with what the new holder has.
    tries_all(&mut zombie, &new).await;
    bot.commits(&new, &["mine"]).await;
    tries_all(&mut zombie, &old).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "mine"]);
}

#[tokio::test]
async fn another_bot_writes_nothing_with_a_delivery_that_is_not_its_own() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    assert_eq!(other.commit(&delivery, &["theirs"]).await.outcome(), Stale);
    assert_eq!(other.ack(&delivery).await, Stale);
    bot.commits(&delivery, &["mine"]).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "mine"]);
}

#[tokio::test]
async fn a_session_that_was_replaced_writes_nothing() {
    let gateway = Gateway::start().await;
    let mut zombie = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let old = zombie.expect("c1", "hi", 1).await;
    let mut bot = gateway.bot("echo").attach().await;
    let new = bot.expect("c1", "hi", 2).await;
    assert!(new.fence > old.fence);
    zombie.commit_all(old.delivery_id, vec![crate::harness::message("too late")]);
    zombie
        .expect_end(tonic::Code::Aborted, "SESSION_REPLACED")
        .await;
    // Nor does its successor with what it left behind.
    tries_all(&mut bot, &old).await;
    bot.commits(&new, &["mine"]).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "mine"]);
}

#[tokio::test]
async fn a_delivery_of_before_a_restart_is_stale() {
    for crash in [false, true] {
        let mut gateway = Gateway::start().await;
        let mut bot = gateway.bot("echo").attach().await;
        gateway.user("c1").says("hi").await;
        let old = bot.expect("c1", "hi", 1).await;
        drop(bot);
        if crash {
            gateway.crash().await;
        } else {
            gateway.restart().await;
        }
        let mut bot = gateway.bot("echo").attach().await;
        let new = bot.next_delivery().await;
        assert!(new.delivery_id > old.delivery_id);
        assert!(new.fence > old.fence);
        tries_all(&mut bot, &old).await;
        bot.commits(&new, &["after"]).await;
        assert_eq!(gateway.texts("c1").await, ["hi", "after"]);
    }
}

#[tokio::test]
async fn what_was_acked_is_stale_and_what_never_was_is_unknown() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.acks(&delivery).await;
    tries_all(&mut bot, &delivery).await;
    for id in [0, 1, delivery.delivery_id + 1, u64::MAX] {
        assert_eq!(bot.ack_id(id).await, Unknown, "{id}");
        let mut never = delivery.clone();
        never.delivery_id = id;
        assert_eq!(bot.commit(&never, &["?"]).await.outcome(), Unknown, "{id}");
        if id != 0 {
            assert_eq!(bot.answers(&never, "?").await.outcome(), Unknown, "{id}");
        }
    }
    assert_eq!(gateway.texts("c1").await, ["hi"]);
}

#[tokio::test]
async fn an_id_that_is_repeated_in_an_ack_is_stale_the_second_time() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let id = delivery.delivery_id;
    bot.write(v1::subscribe_request::Frame::Ack(v1::Ack {
        delivery_ids: vec![id, id],
        want_result: true,
    }));
    let outcomes = bot.outcomes(&[id, id]).await;
    assert_eq!(outcomes, [Taken, Stale]);
}

#[tokio::test]
async fn a_fence_stays_while_a_session_keeps_a_conversation_and_grows_when_it_moves() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["a", "b", "c"] {
        gateway.user("c1").says(text).await;
    }
    let a = bot.expect("c1", "a", 1).await;
    bot.acks(&a).await;
    let b = bot.expect("c1", "b", 1).await;
    assert_eq!(a.fence, b.fence);
    let mut fence = b.fence;
    for instance in ["two", "three", "four"] {
        drop(bot);
        bot = gateway.bot("echo").instance(instance).attach().await;
        let again = bot.next_delivery().await;
        assert!(again.fence > fence);
        fence = again.fence;
    }
}
