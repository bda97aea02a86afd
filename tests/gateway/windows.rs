//! Windows above one: several deliveries of a conversation at a time, finished in order, and taken back
//! together from the first that failed.

use std::time::Duration;

use turnwire::proto::v1;
use turnwire::proto::v1::subscribe_request::Frame as Asked;
use turnwire::proto::v1::{AckOutcome, CancelReason};

use crate::harness::{Bot, Gateway, Watcher, info, message, seconds, text};

/// How often a streamed reply is shown anew.
const INTERVAL: Duration = Duration::from_millis(250);

fn window(window: u32) -> impl FnOnce(&mut v1::Hello) {
    move |hello| hello.window = window
}

/// A session that has the first three of four messages.
async fn with_three(gateway: &Gateway) -> (Bot, [v1::Delivery; 3]) {
    let mut bot = gateway.bot("echo").hello(window(3)).attach().await;
    assert_eq!(bot.welcome.window, 3);
    for text in ["a", "b", "c", "d"] {
        gateway.user("c1").says(text).await;
    }
    let a = bot.expect("c1", "a", 1).await;
    let b = bot.expect("c1", "b", 1).await;
    let c = bot.expect("c1", "c", 1).await;
    bot.expect_nothing().await;
    (bot, [a, b, c])
}

#[tokio::test]
async fn a_window_of_three_has_three_at_a_time_and_each_ack_brings_the_next() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, c]) = with_three(&gateway).await;
    assert!(a.fence == b.fence && b.fence == c.fence);
    bot.acks(&a).await;
    let d = bot.expect("c1", "d", 1).await;
    for delivery in [b, c, d] {
        bot.acks(&delivery).await;
    }
    gateway.user("c1").says("e").await;
    let e = bot.expect("c1", "e", 1).await;
    bot.acks(&e).await;
}

#[tokio::test]
async fn what_is_finished_before_its_turn_is_out_of_order_and_stays_held() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, c]) = with_three(&gateway).await;
    assert_eq!(bot.ack(&b).await, AckOutcome::OutOfOrder);
    assert_eq!(bot.poison(&c, "bad").await, AckOutcome::OutOfOrder);
    let commit = bot.commit(&b, &["early"]).await;
    assert_eq!(commit.outcome(), AckOutcome::OutOfOrder);
    assert!(commit.appended.is_empty());
    bot.commits(&a, &["to a"]).await;
    bot.commits(&b, &["to b"]).await;
    bot.acks(&c).await;
    let texts = gateway.texts("c1").await;
    assert_eq!(texts, ["a", "b", "c", "d", "to a", "to b"]);
}

#[tokio::test]
async fn acks_of_one_frame_are_taken_in_the_order_in_which_they_are_named() {
    let gateway = Gateway::start().await;
    let (mut bot, deliveries) = with_three(&gateway).await;
    let ids: Vec<u64> = deliveries.iter().map(|d| d.delivery_id).collect();
    bot.write(Asked::Ack(v1::Ack {
        delivery_ids: ids.clone(),
        want_result: true,
    }));
    let outcomes = bot.outcomes(&ids).await;
    assert_eq!(outcomes, [AckOutcome::Ok; 3]);
}

#[tokio::test]
async fn a_nack_takes_back_all_that_came_after_and_they_come_again_in_order() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, c]) = with_three(&gateway).await;
    bot.retry(&b, Some(seconds(3))).await;
    assert_eq!(bot.ack(&c).await, AckOutcome::Stale, "it was withdrawn");
    bot.acks(&a).await;
    bot.expect_nothing().await;
    gateway.pass(seconds(3)).await;
    let b = bot.expect("c1", "b", 2).await;
    // It did nothing wrong.
    let c = bot.expect("c1", "c", 1).await;
    let d = bot.expect("c1", "d", 1).await;
    for delivery in [b, c, d] {
        bot.acks(&delivery).await;
    }
}

#[tokio::test]
async fn a_deadline_that_passes_takes_back_all_that_came_after() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, c]) = with_three(&gateway).await;
    for delivery in [&a, &c] {
        bot.extend(delivery, Some(seconds(300))).await;
    }
    gateway.pass(seconds(60)).await;
    let b_again = bot.expect("c1", "b", 2).await;
    let c_again = bot.expect("c1", "c", 1).await;
    assert_eq!(bot.ack(&b).await, AckOutcome::Stale);
    assert_eq!(bot.ack(&c).await, AckOutcome::Stale);
    for delivery in [a, b_again, c_again] {
        bot.acks(&delivery).await;
    }
}

#[tokio::test]
async fn when_a_session_is_lost_only_the_first_counts_an_attempt() {
    let gateway = Gateway::start().await;
    let (bot, _) = with_three(&gateway).await;
    drop(bot);
    gateway.settle().await;
    let two = gateway.bot("echo").instance("two").hello(window(3));
    let mut bot = two.attach().await;
    bot.expect("c1", "a", 2).await;
    bot.expect("c1", "b", 1).await;
    bot.expect("c1", "c", 1).await;
}

#[tokio::test]
async fn attempts_of_later_ones_survive_a_crash() {
    let mut gateway = Gateway::start().await;
    let (mut bot, [_, b, _]) = with_three(&gateway).await;
    bot.retry(&b, Some(seconds(0))).await;
    let b = bot.expect("c1", "b", 2).await;
    bot.retry(&b, Some(seconds(5))).await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").hello(window(3)).attach().await;
    bot.expect("c1", "a", 2).await;
    bot.expect("c1", "b", 3).await;
    bot.expect("c1", "c", 1).await;
}

#[tokio::test]
async fn a_poisoned_first_is_parked_and_the_others_come_again_after_the_gap() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, _]) = with_three(&gateway).await;
    assert_eq!(bot.poison(&a, "bad").await, AckOutcome::Ok);
    assert_eq!(bot.ack(&b).await, AckOutcome::Stale);
    let b = bot.expect("c1", "b", 1).await;
    assert!(b.after_gap);
    bot.acks(&b).await;
    bot.expect("c1", "c", 1).await;
}

#[tokio::test]
async fn a_conversation_does_not_move_while_a_session_holds_some_of_it() {
    let gateway = Gateway::start().await;
    let bot = gateway.bot("echo").hello(window(2)).credit(2, 1 << 20);
    let mut bot = bot.attach().await;
    for text in ["a", "b", "c"] {
        gateway.user("c1").says(text).await;
    }
    let a = bot.expect("c1", "a", 1).await;
    let b = bot.expect("c1", "b", 1).await;
    let mut other = gateway
        .bot("echo")
        .instance("two")
        .hello(window(2))
        .attach()
        .await;
    // The holder has no room, and still holds one: another might be done with the third before it.
    bot.acks(&a).await;
    gateway.pass(seconds(30)).await;
    other.expect_nothing().await;
    bot.credit(1, 0).await;
    let c = bot.expect("c1", "c", 1).await;
    bot.acks(&b).await;
    bot.acks(&c).await;
}

#[tokio::test]
async fn a_release_in_a_window_moves_the_conversation_once_the_rest_is_finished() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, _]) = with_three(&gateway).await;
    let mut other = gateway
        .bot("echo")
        .instance("two")
        .hello(window(3))
        .attach()
        .await;
    bot.release(&b).await;
    other.expect_nothing().await;
    bot.acks(&a).await;
    let again = other.expect("c1", "b", 1).await;
    assert!(again.fence > a.fence);
    other.expect("c1", "c", 1).await;
    other.expect("c1", "d", 1).await;
}

#[tokio::test]
async fn a_send_may_cite_any_delivery_that_is_held() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, c]) = with_three(&gateway).await;
    bot.answers(&c, "to c").await;
    bot.answers(&a, "to a").await;
    let log = gateway.log("c1").await;
    let answered: Vec<_> = log[4..]
        .iter()
        .map(|entry| entry.activity.as_ref().and_then(|a| a.reply_to_id.clone()))
        .collect();
    let id_of = |delivery: &v1::Delivery| delivery.activity.as_ref().and_then(|a| a.id.clone());
    assert_eq!(answered, [id_of(&c), id_of(&a)]);
    for delivery in [a, b, c] {
        bot.commit_all(delivery.delivery_id, vec![message("done")]);
    }
    bot.expect("c1", "d", 1).await;
}

/// The next activity is the end of a reply: of which, and to what.
async fn whole(live: &mut Watcher, said: &str) -> (String, Option<String>) {
    let entry = live.entry().await;
    assert_eq!(text(&entry.activity), said);
    let activity = entry.activity.expect("an activity");
    let info = info(&activity).expect("the end of a reply");
    assert_eq!(info.kind, "final");
    (info.id, activity.reply_to_id)
}

fn activity_id(delivery: &v1::Delivery) -> Option<String> {
    delivery.activity.as_ref().and_then(|said| said.id.clone())
}

#[tokio::test]
async fn a_reply_in_a_window_is_that_of_its_delivery() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, c]) = with_three(&gateway).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&b, "for ").await;
    let first = live.ephemeral().await.activity.expect("an activity");
    assert_eq!(first.reply_to_id, activity_id(&b));
    let of_b = info(&first).expect("a part of a reply").id;
    bot.streams(&a, "For ").await;
    let first = live.ephemeral().await.activity.expect("an activity");
    assert_eq!(first.reply_to_id, activity_id(&a));
    let of_a = info(&first).expect("a part of a reply").id;
    assert_ne!(of_a, of_b);
    gateway.pass(INTERVAL).await;
    bot.streams(&a, "a").await;
    assert_eq!(live.snapshot("For a").await.id, of_a);
    bot.streams(&b, "b").await;
    assert_eq!(live.snapshot("for b").await.id, of_b);

    // An answer finishes the reply to what it cites, whichever was begun first.
    bot.answers(&a, "For a.").await;
    let ended = whole(&mut live, "For a.").await;
    assert_eq!(ended, (of_a, activity_id(&a)));
    bot.answers(&b, "for b.").await;
    let ended = whole(&mut live, "for b.").await;
    assert_eq!(ended, (of_b, activity_id(&b)));
    bot.streams(&c, "C").await;
    let of_c = live.snapshot("C").await.id;
    bot.acks(&a).await;
    bot.acks(&b).await;
    // What is finished before it leaves it open.
    bot.commits(&c, &["C."]).await;
    let ended = whole(&mut live, "C.").await;
    assert_eq!(ended, (of_c, activity_id(&c)));
    bot.expect_quiet().await;
}

#[tokio::test]
async fn a_reply_whose_delivery_was_withdrawn_goes_on_when_it_comes_again() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, _]) = with_three(&gateway).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&b, "for ").await;
    let of_b = live.snapshot("for ").await;
    bot.retry(&a, Some(seconds(9))).await;
    bot.expect_cancel(&b, 0, CancelReason::Stale).await;
    gateway.pass(seconds(9)).await;
    bot.expect("c1", "a", 2).await;
    let b = bot.expect("c1", "b", 1).await;
    bot.streams(&b, "for b").await;
    let again = live.snapshot("for b").await;
    assert_eq!((again.id, again.sequence), (of_b.id, Some(2)));
    bot.expect_quiet().await;
}

#[tokio::test]
async fn a_reply_whose_delivery_was_withdrawn_and_comes_too_late_is_broken_off() {
    let gateway = Gateway::start().await;
    let (mut bot, [a, b, _]) = with_three(&gateway).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&b, "for").await;
    let of_b = live.snapshot("for").await;
    bot.retry(&a, Some(seconds(60))).await;
    gateway.pass(seconds(10)).await;
    let end = live.snapshot("for…").await;
    assert_eq!((end.id, end.result.as_deref()), (of_b.id, Some("error")));
}

#[tokio::test]
async fn a_window_that_is_too_large_is_refused() {
    let gateway = Gateway::start().await;
    let refused = gateway.bot("echo").hello(window(33)).try_attach().await;
    let refused = refused.err().expect("it is refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("delivery_window=32"));
}
