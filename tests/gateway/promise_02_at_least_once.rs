//! Promise 2: what is not acked comes again, and nothing that was acked does.

use std::time::Duration;

use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome;
use turnwire::proto::v1::subscribe_request::Frame as Asked;

use crate::harness::{Bot, Gateway, seconds};

const MILLISECOND: Duration = Duration::from_millis(1);

fn deadline_after(delivery: &v1::Delivery, gateway: &Gateway) -> Duration {
    use turnwire::clock::Clock;
    let deadline = delivery.deadline.expect("a deadline");
    let deadline = deadline.seconds as u64 * 1_000 + deadline.nanos as u64 / 1_000_000;
    Duration::from_millis(deadline - gateway.clock.now().0)
}

#[tokio::test]
async fn an_unacked_delivery_comes_back_at_its_deadline_and_not_before() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let promised = bot.welcome.delivery_deadline.expect("a deadline");
    assert_eq!(promised.seconds, 60);
    gateway.user("c1").says("hi").await;
    let first = bot.expect("c1", "hi", 1).await;
    assert_eq!(deadline_after(&first, &gateway), seconds(60));
    gateway.pass(seconds(60) - MILLISECOND).await;
    bot.expect_nothing().await;
    gateway.pass(MILLISECOND).await;
    let second = bot.expect("c1", "hi", 2).await;
    assert_ne!(first.delivery_id, second.delivery_id);
    assert_eq!(first.sequence, second.sequence);
    bot.acks(&second).await;
}

#[tokio::test]
async fn an_acked_delivery_never_comes_again() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.acks(&delivery).await;
    gateway.pass(seconds(3_600)).await;
    bot.expect_nothing().await;
    drop(bot);
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    bot.expect_nothing().await;
    for _ in 0..2 {
        gateway.crash().await;
        bot = gateway.bot("echo").attach().await;
        gateway.pass(seconds(3_600)).await;
        bot.expect_nothing().await;
        gateway.restart().await;
        bot = gateway.bot("echo").attach().await;
        gateway.pass(seconds(3_600)).await;
        bot.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_bots_own_deadline_goes_before_the_limit() {
    let setup = Gateway::setup().config(|config| {
        config.bots[0].delivery_deadline = Some(seconds(5));
    });
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    assert_eq!(
        bot.welcome.delivery_deadline.expect("a deadline").seconds,
        5
    );
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    gateway.pass(seconds(5) - MILLISECOND).await;
    bot.expect_nothing().await;
    gateway.pass(MILLISECOND).await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn what_a_lost_stream_held_comes_again_at_once() {
    let gateway = Gateway::start().await;
    let mut lost = gateway.bot("echo").attach().await;
    for conversation in ["c1", "c2"] {
        gateway.user(conversation).says("hi").await;
        lost.expect(conversation, "hi", 1).await;
    }
    drop(lost);
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = bot.next_delivery().await;
        assert_eq!(delivery.attempt, 2);
        seen.push(delivery.conversation.expect("a name").conversation_id);
    }
    seen.sort();
    assert_eq!(seen, ["c1", "c2"]);
}

#[tokio::test]
async fn what_a_bot_held_that_has_finished_its_frames_comes_again_at_once() {
    let gateway = Gateway::start().await;
    let mut done = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    done.expect("c1", "hi", 1).await;
    done.finish();
    assert!(done.end().await.is_none());
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn the_attempt_number_survives_restarts() {
    for on_disk in [false, true] {
        let setup = Gateway::setup();
        let setup = if on_disk { setup.on_disk() } else { setup };
        let mut gateway = setup.start().await;
        gateway.user("c1").says("hi").await;
        for attempt in [1, 2, 3, 4] {
            let mut bot = gateway.bot("echo").attach().await;
            bot.expect("c1", "hi", attempt).await;
            drop(bot);
            gateway.restart().await;
        }
    }
}

#[tokio::test]
async fn after_a_crash_the_attempt_number_is_at_least_what_was_synced() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    // Synced with the round that answers.
    bot.says("c1", "working on it").await;
    gateway.crash().await;
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn an_append_that_was_answered_survives_a_crash() {
    for on_disk in [false, true] {
        let setup = Gateway::setup();
        let setup = if on_disk { setup.on_disk() } else { setup };
        let mut gateway = setup.start().await;
        for round in 1..=3 {
            gateway.user("c1").says(&format!("m{round}")).await;
            gateway.crash().await;
            assert_eq!(gateway.log("c1").await.len(), round);
        }
        let mut bot = gateway.bot("echo").attach().await;
        for round in 1..=3 {
            let delivery = bot.next_delivery().await;
            assert_eq!(delivery.sequence, round);
            bot.acks(&delivery).await;
        }
    }
}

/// How long a delivery rests after a nack, to a tenth of a second.
async fn rest(gateway: &Gateway, bot: &mut Bot) -> (Duration, v1::Delivery) {
    const STEP: Duration = Duration::from_millis(100);
    let mut rested = Duration::ZERO;
    loop {
        let mut waiting = bot.waiting().await;
        if let Some(delivery) = waiting.pop() {
            return (rested, delivery);
        }
        assert!(rested < seconds(200), "it never comes back");
        // Far from where anything can come, in larger steps.
        let step = if rested > seconds(36) && rested < seconds(95) {
            seconds(1)
        } else {
            STEP
        };
        gateway.pass(step).await;
        rested += step;
    }
}

#[tokio::test]
async fn a_nack_waits_by_the_backoff_with_jitter() {
    let setup = Gateway::setup().config(|config| config.limits.delivery_attempts = 100);
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let mut delivery = bot.expect("c1", "hi", 1).await;
    let mut exact = 0;
    for (attempt, wait) in [(1, 1.0), (2, 5.0), (3, 30.0), (4, 120.0), (5, 120.0)] {
        assert_eq!(delivery.attempt, attempt);
        assert_eq!(bot.retry(&delivery, None).await, AckOutcome::Ok);
        let (rested, next) = rest(&gateway, &mut bot).await;
        let rested = rested.as_secs_f64();
        // A tenth more, for the step.
        let allowed = wait * 0.8..=wait * 1.2 + 0.1;
        assert!(allowed.contains(&rested), "attempt {attempt}: {rested}");
        exact += u32::from((rested - wait).abs() < 0.05);
        delivery = next;
    }
    assert!(exact < 3, "there is no jitter");
}

#[tokio::test]
async fn a_nack_may_say_how_long_to_wait() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let first = bot.expect("c1", "hi", 1).await;
    bot.retry(&first, Some(seconds(600))).await;
    gateway.pass(seconds(600) - MILLISECOND).await;
    bot.expect_nothing().await;
    gateway.pass(MILLISECOND).await;
    let second = bot.expect("c1", "hi", 2).await;
    bot.retry(&second, Some(Duration::ZERO)).await;
    bot.expect("c1", "hi", 3).await;
}

#[tokio::test]
async fn a_nack_may_not_wait_longer_than_ten_minutes() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    for (seconds, nanos) in [(600, 1_000_000), (-1, 0), (i64::MAX, 0)] {
        bot.write(Asked::Nack(v1::Nack {
            delivery_ids: vec![delivery.delivery_id],
            mode: v1::NackMode::Retry as i32,
            delay: Some(prost_types::Duration { seconds, nanos }),
            ..Default::default()
        }));
        let error = bot.expect_error("FRAME_INVALID").await;
        assert_eq!(error.metadata["field"], "delay");
    }
    bot.acks(&delivery).await;
}

#[tokio::test]
async fn an_extension_moves_the_deadline() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    gateway.pass(seconds(50)).await;
    bot.extend(&delivery, Some(seconds(300))).await;
    gateway.pass(seconds(300) - MILLISECOND).await;
    bot.expect_nothing().await;
    bot.acks(&delivery).await;
    gateway.pass(seconds(600)).await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn an_extension_without_a_time_is_by_the_bots_deadline() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    gateway.pass(seconds(50)).await;
    bot.extend(&delivery, None).await;
    gateway.pass(seconds(60) - MILLISECOND).await;
    bot.expect_nothing().await;
    gateway.pass(MILLISECOND).await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn an_extension_may_also_shorten() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.extend(&delivery, Some(seconds(5))).await;
    gateway.pass(seconds(5) - MILLISECOND).await;
    bot.expect_nothing().await;
    gateway.pass(MILLISECOND).await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn a_heartbeat_extends_what_it_names_and_nothing_else() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    gateway.user("c2").says("hi").await;
    let named = bot.next_delivery().await;
    let other = bot.next_delivery().await;
    gateway.pass(seconds(30)).await;
    bot.write(Asked::Heartbeat(v1::BotHeartbeat {
        delivery_ids: vec![named.delivery_id],
    }));
    bot.barrier().await;
    gateway.pass(seconds(30)).await;
    let again = bot.next_delivery().await;
    assert_eq!((again.conversation, again.attempt), (other.conversation, 2));
    bot.expect_nothing().await;
    bot.acks(&named).await;
}

#[tokio::test]
async fn no_delivery_is_extended_beyond_the_ceiling() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.extend(&delivery, Some(seconds(600))).await;
    for _ in 0..7 {
        gateway.pass(seconds(500)).await;
        bot.extend(&delivery, Some(seconds(600))).await;
    }
    // 3,500 s have passed; the ceiling is at 3,600 s.
    gateway.pass(seconds(100) - MILLISECOND).await;
    bot.expect_nothing().await;
    gateway.pass(MILLISECOND).await;
    bot.expect("c1", "hi", 2).await;
    assert_eq!(bot.ack(&delivery).await, AckOutcome::Stale);
}

#[tokio::test]
async fn extensions_out_of_range_are_refused_and_those_of_others_do_nothing() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut other = gateway
        .bot("echo")
        .instance("two")
        .credit(0, 0)
        .attach()
        .await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    for seconds in [4, 601, -5] {
        bot.write(Asked::Extend(v1::Extend {
            delivery_ids: vec![delivery.delivery_id],
            deadline: Some(prost_types::Duration { seconds, nanos: 0 }),
        }));
        let error = bot.expect_error("FRAME_INVALID").await;
        assert_eq!(error.metadata["field"], "deadline");
    }
    other.extend(&delivery, Some(seconds(600))).await;
    gateway.pass(seconds(60)).await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn a_release_does_not_count_and_goes_to_another_session() {
    let gateway = Gateway::start().await;
    let mut one = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = one.expect("c1", "hi", 1).await;
    let mut two = gateway.bot("echo").instance("two").attach().await;
    assert_eq!(one.release(&delivery).await, AckOutcome::Ok);
    one.expect_nothing().await;
    let delivery = two.expect("c1", "hi", 1).await;
    assert_eq!(two.release(&delivery).await, AckOutcome::Ok);
    let delivery = one.expect("c1", "hi", 1).await;
    one.acks(&delivery).await;
    two.expect_nothing().await;
}

#[tokio::test]
async fn a_delivery_that_was_tried_often_enough_is_parked_and_the_next_says_so() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("bad").await;
    gateway.user("c1").says("good").await;
    gateway.user("c1").says("fine").await;
    for attempt in 1..=5 {
        let delivery = bot.expect("c1", "bad", attempt).await;
        bot.retry(&delivery, Some(Duration::ZERO)).await;
    }
    let good = bot.expect("c1", "good", 1).await;
    assert!(good.after_gap);
    bot.acks(&good).await;
    let fine = bot.expect("c1", "fine", 1).await;
    assert!(!fine.after_gap);
    assert_eq!(gateway.metric("turnwire_dead_letters_total").await, 1.0);
}

#[tokio::test]
async fn a_poisoned_delivery_is_parked_at_once() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("bad").await;
    gateway.user("c1").says("good").await;
    let bad = bot.expect("c1", "bad", 1).await;
    assert_eq!(bot.poison(&bad, "it hurts").await, AckOutcome::Ok);
    assert!(bot.expect("c1", "good", 1).await.after_gap);
    gateway.crash().await;
    let mut bot = gateway.bot("echo").attach().await;
    let good = bot.next_delivery().await;
    // Whether the gap was noticed survives.
    assert_eq!((good.sequence, good.after_gap), (2, true));
}
