//! Draining, in both directions: a bot that goes away, and a gateway that does.

use turnwire::proto::v1;
use turnwire::proto::v1::subscribe_request::Frame as Asked;

use crate::harness::{Bot, Gateway, said, seconds};

fn drain(bot: &Bot) {
    bot.write(Asked::Drain(v1::BotDrain {}));
}

#[tokio::test]
async fn a_bot_that_drains_gets_nothing_new_and_its_stream_ends_when_its_work_is_done() {
    let gateway = Gateway::start().await;
    let mut old = gateway.bot("echo").instance("old").attach().await;
    gateway.user("c1").says("in work").await;
    let held = old.expect("c1", "in work", 1).await;
    let mut new = gateway.bot("echo").instance("new").attach().await;
    drain(&old);
    old.barrier().await;
    for conversation in ["c2", "c3", "c4", "c5", "c6"] {
        gateway.user(conversation).says("hi").await;
        let delivery = new.expect(conversation, "hi", 1).await;
        new.acks(&delivery).await;
    }
    gateway.user("c1").says("next").await;
    new.expect_nothing().await;
    // The answer comes before the end, and the conversation goes on elsewhere.
    old.commits(&held, &["done"]).await;
    assert!(old.end().await.is_none(), "the stream ends with OK");
    let next = new.expect("c1", "next", 1).await;
    assert!(next.fence > held.fence);
    new.acks(&next).await;
}

#[tokio::test]
async fn a_bot_that_has_nothing_in_work_is_let_go_at_once() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    drain(&bot);
    assert!(bot.end().await.is_none());
    gateway.user("c1").says("waits").await;
    let mut next = gateway.bot("echo").attach().await;
    next.expect("c1", "waits", 1).await;
}

#[tokio::test]
async fn draining_twice_is_draining() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("in work").await;
    let held = bot.expect("c1", "in work", 1).await;
    drain(&bot);
    drain(&bot);
    bot.barrier().await;
    bot.acks(&held).await;
    assert!(bot.end().await.is_none());
}

#[tokio::test]
async fn what_a_draining_bot_gives_back_goes_to_others() {
    let gateway = Gateway::start().await;
    let mut old = gateway.bot("echo").instance("old").attach().await;
    gateway.user("c1").says("hi").await;
    let held = old.expect("c1", "hi", 1).await;
    let mut new = gateway.bot("echo").instance("new").attach().await;
    drain(&old);
    old.release(&held).await;
    assert!(old.end().await.is_none());
    new.expect("c1", "hi", 1).await;
}

#[tokio::test]
async fn a_draining_bot_that_is_lost_is_not_waited_for() {
    let gateway = Gateway::start().await;
    let resumable = |hello: &mut v1::Hello| hello.resume = Some(v1::Resume::default());
    let old = gateway.bot("echo").instance("old").hello(resumable);
    let mut old = old.attach().await;
    gateway.user("c1").says("hi").await;
    old.expect("c1", "hi", 1).await;
    let mut new = gateway.bot("echo").instance("new").attach().await;
    drain(&old);
    old.barrier().await;
    drop(old);
    new.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn a_rolling_restart_of_a_bot_loses_nothing_doubles_nothing_and_keeps_the_order() {
    const CONVERSATIONS: usize = 12;
    const ROUNDS: usize = 9;
    let gateway = Gateway::start().await;
    let mut replicas = Vec::new();
    for number in 0..3 {
        let instance = format!("replica-{number}");
        replicas.push(gateway.bot("echo").instance(&instance).attach().await);
    }
    for round in 0..ROUNDS {
        for conversation in 0..CONVERSATIONS {
            let user = gateway.user(&format!("c{conversation}"));
            user.says(&format!("{round}")).await;
        }
        // One of them goes while it has work, another comes.
        let mut old = replicas.remove(round % replicas.len());
        let in_work = old.waiting().await;
        drain(&old);
        let instance = format!("replica-{}", 3 + round);
        replicas.push(gateway.bot("echo").instance(&instance).attach().await);
        let mut left = CONVERSATIONS - answer(&mut old, in_work).await;
        assert!(old.end().await.is_none());
        while left > 0 {
            for replica in &mut replicas {
                let in_work = replica.waiting().await;
                left -= answer(replica, in_work).await;
            }
        }
    }
    for conversation in 0..CONVERSATIONS {
        let texts = gateway.texts(&format!("c{conversation}")).await;
        let wanted: Vec<_> = (0..ROUNDS)
            .flat_map(|round| [format!("{round}"), format!("re {round}")])
            .collect();
        assert_eq!(texts, wanted);
    }
}

/// Answers deliveries, each of which must be a first attempt. Returns how many they were.
async fn answer(bot: &mut Bot, deliveries: Vec<v1::Delivery>) -> usize {
    for delivery in &deliveries {
        assert_eq!(delivery.attempt, 1);
        let answer = format!("re {}", said(delivery));
        bot.commits(delivery, &[&answer]).await;
    }
    deliveries.len()
}

#[tokio::test]
async fn a_gateway_that_goes_down_waits_for_work_and_not_for_sessions_that_are_away() {
    let setup = Gateway::setup().config(|config| config.limits.shutdown_grace = seconds(600));
    let mut gateway = setup.start().await;
    let resumable = |hello: &mut v1::Hello| hello.resume = Some(v1::Resume::default());
    let mut away = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("away").await;
    away.expect("c1", "away", 1).await;
    gateway.cut(away).await;
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    gateway.user("c2").says("in work").await;
    let held = bot.expect("c2", "in work", 1).await;
    gateway.begin_stop();
    let drain = bot.expect_drain().await;
    assert!(drain.reconnect_after.is_some());
    bot.commits(&held, &["done"]).await;
    // A look at what is left, and not the grace.
    gateway.clock.advance(seconds(1));
    gateway.stopped().await;
    gateway.start_again().await;
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect("c1", "away", 2).await;
    bot.expect_nothing().await;
    gateway.pass(seconds(1)).await;
    assert_eq!(gateway.texts("c2").await, ["in work", "done"]);
}
