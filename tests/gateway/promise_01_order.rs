//! Promise 1: deliveries of a conversation come in sequence order, and a conversation that is
//! blocked delays no other.

use crate::harness::{Gateway, seconds};

#[tokio::test]
async fn deliveries_of_a_conversation_come_in_sequence_order() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let user = gateway.user("c1");
    for number in 1..=20 {
        user.says(&format!("m{number}")).await;
    }
    for number in 1..=20 {
        let delivery = bot.expect("c1", &format!("m{number}"), 1).await;
        assert_eq!(delivery.sequence, number);
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
}

#[tokio::test]
async fn the_next_delivery_of_a_conversation_comes_after_the_ack_and_not_before() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("first").await;
    gateway.user("c1").says("second").await;
    let first = bot.expect("c1", "first", 1).await;
    bot.expect_nothing().await;
    bot.answers(&first, "an answer is no ack").await;
    bot.expect_nothing().await;
    bot.acks(&first).await;
    let second = bot.expect("c1", "second", 1).await;
    bot.acks(&second).await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_commit_brings_the_next_delivery_as_an_ack_does() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("first").await;
    gateway.user("c1").says("second").await;
    let first = bot.expect("c1", "first", 1).await;
    bot.commits(&first, &["re: first"]).await;
    let second = bot.expect("c1", "second", 1).await;
    // The bot's own answer has a sequence of its own, and is not delivered to it.
    assert_eq!(second.sequence, 2);
    bot.commits(&second, &[]).await;
    bot.expect_nothing().await;
    assert_eq!(gateway.texts("c1").await, ["first", "second", "re: first"]);
}

#[tokio::test]
async fn a_conversation_that_is_blocked_delays_no_other() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("blocked").says("held").await;
    gateway.user("blocked").says("behind").await;
    let held = bot.expect("blocked", "held", 1).await;
    for number in 0..10 {
        let conversation = format!("c{number}");
        gateway.user(&conversation).says("hi").await;
        let delivery = bot.expect(&conversation, "hi", 1).await;
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
    bot.acks(&held).await;
    bot.expect("blocked", "behind", 1).await;
}

#[tokio::test]
async fn a_conversation_that_rests_delays_no_other() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("resting").says("later").await;
    gateway.user("resting").says("behind").await;
    let later = bot.expect("resting", "later", 1).await;
    bot.retry(&later, Some(seconds(60))).await;
    gateway.user("c1").says("now").await;
    bot.expect("c1", "now", 1).await;
    bot.expect_nothing().await;
    gateway.pass(seconds(60)).await;
    bot.expect("resting", "later", 2).await;
}

#[tokio::test]
async fn a_conversation_that_was_released_delays_no_other() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    // Another session that has no room: there is nobody to release to.
    let mut full = gateway
        .bot("echo")
        .instance("full")
        .credit(0, 0)
        .attach()
        .await;
    gateway.user("released").says("not for me").await;
    let released = bot.expect("released", "not for me", 1).await;
    bot.release(&released).await;
    gateway.user("c1").says("hi").await;
    let mut seen: Vec<_> = bot
        .waiting()
        .await
        .iter()
        .map(crate::harness::said)
        .collect();
    seen.retain(|text| text == "hi");
    assert_eq!(seen, ["hi"]);
    full.expect_nothing().await;
}

#[tokio::test]
async fn order_holds_over_redelivery_and_reconnection() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["a", "b", "c"] {
        gateway.user("c1").says(text).await;
    }
    let a = bot.expect("c1", "a", 1).await;
    bot.acks(&a).await;
    bot.expect("c1", "b", 1).await;
    drop(bot);
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    let b = bot.expect("c1", "b", 2).await;
    gateway.user("c1").says("d").await;
    bot.acks(&b).await;
    for text in ["c", "d"] {
        let delivery = bot.expect("c1", text, 1).await;
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
}
