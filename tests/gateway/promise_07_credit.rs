//! Promise 7: credit counts deliveries and bytes over the whole session, and is never exceeded.

use prost::Message;
use turnwire::proto::v1;
use turnwire::proto::v1::subscribe_request::Frame as Asked;

use crate::harness::{Bot, Gateway, message, padded, refused, seconds, text};

/// How many bytes of credit the first activity of a conversation costs.
async fn cost(gateway: &Gateway, conversation: &str) -> i64 {
    let log = gateway.log(conversation).await;
    let activity = log[0].activity.as_ref().expect("an activity");
    activity.encoded_len() as i64
}

async fn conversations(gateway: &Gateway, count: usize) {
    for number in 0..count {
        gateway.user(&format!("c{number}")).says("hi").await;
    }
}

async fn texts(bot: &mut Bot) -> Vec<String> {
    let waiting = bot.waiting().await;
    waiting
        .iter()
        .map(|delivery| text(&delivery.activity))
        .collect()
}

#[tokio::test]
async fn deliveries_never_exceed_the_credit_and_grants_add_up() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(3, 1 << 20).attach().await;
    conversations(&gateway, 10).await;
    assert_eq!(bot.waiting().await.len(), 3);
    bot.credit(1, 0).await;
    bot.credit(1, 0).await;
    assert_eq!(bot.waiting().await.len(), 2);
    bot.credit(100, 0).await;
    assert_eq!(bot.waiting().await.len(), 5);
}

#[tokio::test]
async fn bytes_never_exceed_the_credit_and_grants_add_up() {
    let gateway = Gateway::start().await;
    conversations(&gateway, 4).await;
    let cost = cost(&gateway, "c0").await;
    let mut bot = gateway.bot("echo").credit(100, 3 * cost - 1).attach().await;
    assert_eq!(bot.waiting().await.len(), 2);
    bot.credit(0, 1).await;
    assert_eq!(bot.waiting().await.len(), 1);
    bot.credit(0, cost - 1).await;
    assert_eq!(bot.waiting().await.len(), 0);
    bot.credit(0, 1).await;
    assert_eq!(bot.waiting().await.len(), 1);
}

#[tokio::test]
async fn without_credit_nothing_comes() {
    let gateway = Gateway::start().await;
    conversations(&gateway, 3).await;
    for (deliveries, bytes) in [(0, 0), (0, 1 << 20), (10, 0)] {
        let mut bot = gateway.bot("echo").credit(deliveries, bytes).attach().await;
        bot.expect_nothing().await;
    }
    let mut bot = gateway
        .bot("echo")
        .hello(|hello| hello.credit = None)
        .attach()
        .await;
    bot.expect_nothing().await;
    bot.credit(1, 1 << 20).await;
    assert_eq!(bot.waiting().await.len(), 1);
}

#[tokio::test]
async fn acks_give_no_credit_back() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(1, 1 << 20).attach().await;
    conversations(&gateway, 2).await;
    let delivery = bot.next_delivery().await;
    bot.acks(&delivery).await;
    bot.expect_nothing().await;
    bot.credit(1, 0).await;
    bot.next_delivery().await;
}

#[tokio::test]
async fn redeliveries_cost_credit_and_go_ahead_of_what_is_new() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(2, 1 << 20).attach().await;
    gateway.user("old1").says("old").await;
    gateway.user("old2").says("old").await;
    assert_eq!(bot.waiting().await.len(), 2);
    conversations(&gateway, 20).await;
    gateway.pass(seconds(60)).await;
    bot.expect_nothing().await;
    bot.credit(1, 0).await;
    assert_eq!(texts(&mut bot).await, ["old"]);
    bot.credit(1, 0).await;
    assert_eq!(texts(&mut bot).await, ["old"]);
    bot.credit(1, 0).await;
    assert_eq!(texts(&mut bot).await, ["hi"]);
}

#[tokio::test]
async fn a_conversation_that_always_fails_gives_way_when_its_attempts_are_used_up() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(1, 1 << 20).attach().await;
    gateway.user("bad").says("bad").await;
    conversations(&gateway, 3).await;
    for attempt in 1..=5 {
        let delivery = bot.expect("bad", "bad", attempt).await;
        bot.retry(&delivery, Some(seconds(0))).await;
        bot.credit(1, 0).await;
    }
    for conversation in ["c0", "c1", "c2"] {
        let delivery = bot.expect(conversation, "hi", 1).await;
        bot.acks(&delivery).await;
        bot.credit(1, 0).await;
    }
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_large_activity_is_not_overtaken_by_small_ones_for_ever() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(100, 5_000).attach().await;
    gateway.user("large").posts(padded("large", 20_000)).await;
    conversations(&gateway, 5).await;
    bot.expect_nothing().await;
    for _ in 0..3 {
        bot.credit(0, 5_000).await;
        bot.expect_nothing().await;
    }
    bot.credit(0, 10_000).await;
    let all = texts(&mut bot).await;
    assert_eq!(all, ["large", "hi", "hi", "hi", "hi", "hi"]);
}

#[tokio::test]
async fn another_session_with_room_takes_what_the_first_cannot() {
    let gateway = Gateway::start().await;
    let mut small = gateway.bot("echo").credit(100, 1_000).attach().await;
    let mut roomy = gateway.bot("echo").instance("roomy").attach().await;
    gateway.user("large").posts(padded("large", 20_000)).await;
    roomy.expect("large", "large", 1).await;
    small.expect_nothing().await;
}

#[tokio::test]
async fn credit_of_a_round_that_failed_is_given_back() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(1, 1 << 20).attach().await;
    gateway.settle().await;
    gateway.memory().fail_next_commits(1);
    let failed = gateway.user("c1").tries(message("lost")).await;
    refused(failed, tonic::Code::Unavailable, "STORE_FAILED");
    bot.expect_nothing().await;
    gateway.pass(seconds(2)).await;
    gateway.user("c1").says("kept").await;
    bot.expect("c1", "kept", 1).await;
}

#[tokio::test]
async fn negative_and_absurd_grants_are_refused_and_leave_the_balance() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(1, 1 << 20).attach().await;
    let limits = (100_000, 256 << 20);
    for (deliveries, bytes, field) in [
        (-1, 0, "deliveries"),
        (0, -1, "bytes"),
        (limits.0, 0, "deliveries"),
        (0, limits.1, "bytes"),
        (i64::MAX, i64::MAX, "deliveries"),
        (i64::MIN, i64::MIN, "deliveries"),
    ] {
        bot.write(Asked::Credit(v1::Credit { deliveries, bytes }));
        let error = bot.expect_error("CREDIT_OUT_OF_RANGE").await;
        assert_eq!(error.metadata["field"], field);
    }
    conversations(&gateway, 2).await;
    assert_eq!(bot.waiting().await.len(), 1);
    bot.credit(limits.0, limits.1 - (1 << 20)).await;
    assert_eq!(bot.waiting().await.len(), 1);
}

#[tokio::test]
async fn a_hello_with_a_grant_out_of_range_is_refused() {
    let gateway = Gateway::start().await;
    for (deliveries, bytes) in [(-1, 0), (0, -1), (100_001, 0), (0, (256 << 20) + 1)] {
        let bot = gateway
            .bot("echo")
            .credit(deliveries, bytes)
            .try_attach()
            .await;
        refused(
            bot.map(drop),
            tonic::Code::InvalidArgument,
            "CREDIT_OUT_OF_RANGE",
        );
    }
    let mut bot = gateway
        .bot("echo")
        .credit(100_000, 256 << 20)
        .attach()
        .await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn heartbeats_tell_what_waits_and_the_balance() {
    let setup = Gateway::setup().config(|config| config.limits.heartbeat_interval = seconds(5));
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").credit(2, 1 << 20).attach().await;
    conversations(&gateway, 5).await;
    assert_eq!(bot.waiting().await.len(), 2);
    gateway.pass(seconds(2)).await;
    gateway.clock.advance(seconds(3));
    let heartbeat = bot.expect_heartbeat().await;
    assert_eq!(heartbeat.undelivered, 5);
    assert!(heartbeat.oldest_time.is_some());
    assert_eq!(heartbeat.credit_deliveries, 0);
    assert!(heartbeat.credit_bytes < 1 << 20);
}

#[tokio::test]
async fn heartbeats_tell_of_what_has_waited_for_long() {
    let setup = Gateway::setup().config(|config| config.limits.heartbeat_interval = seconds(20));
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    for _ in 0..3 {
        conversations(&gateway, 5).await;
    }
    gateway.pass_slowly(15).await;
    gateway.clock.advance(seconds(5));
    let heartbeat = bot.expect_heartbeat().await;
    assert_eq!(heartbeat.undelivered, 15);
    assert!(heartbeat.oldest_time.is_some());
}
