//! Promise 8: what a bot can never take is parked, and the same conversation goes on as the bot wants it.

use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome;

use crate::harness::{Gateway, seconds, text};

/// A gateway whose bot `echo` has a policy of its own.
async fn with_policy(policy: &str) -> Gateway {
    let setup = Gateway::setup().rewritten(|config| {
        config.replacen("name = \"Echo\"", &format!("name = \"Echo\"\n{policy}"), 1)
    });
    setup.start().await
}

#[tokio::test]
async fn skip_parks_what_is_poison_and_the_next_says_that_there_is_a_gap() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["bad", "good", "better"] {
        gateway.user("c1").says(text).await;
    }
    let bad = bot.expect("c1", "bad", 1).await;
    assert_eq!(bot.poison(&bad, "cannot read it").await, AckOutcome::Ok);
    let good = bot.expect("c1", "good", 1).await;
    assert!(good.after_gap);
    bot.acks(&good).await;
    let better = bot.expect("c1", "better", 1).await;
    assert!(!better.after_gap);
    bot.acks(&better).await;
    assert_eq!(gateway.metric("turnwire_dead_letters_total").await, 1.0);
}

#[tokio::test]
async fn after_a_dead_letter_the_same_conversation_goes_on_over_restarts() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("bad").await;
    for attempt in 1..=5 {
        let bad = bot.expect("c1", "bad", attempt).await;
        bot.retry(&bad, Some(seconds(0))).await;
    }
    bot.expect_nothing().await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect_nothing().await;
    for round in 0..3 {
        gateway.user("c1").says("more").await;
        let more = bot.expect("c1", "more", 1).await;
        assert_eq!(more.after_gap, round == 0);
        bot.commits(&more, &["yes"]).await;
    }
}

#[tokio::test]
async fn block_holds_up_the_conversation_and_no_other() {
    let mut gateway = with_policy("on_poison = \"block\"").await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["bad", "behind it"] {
        gateway.user("c1").says(text).await;
    }
    let bad = bot.expect("c1", "bad", 1).await;
    assert_eq!(bot.poison(&bad, "bad").await, AckOutcome::Ok);
    bot.expect_nothing().await;
    gateway.user("c2").says("other").await;
    let other = bot.expect("c2", "other", 1).await;
    bot.acks(&other).await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    gateway.pass(seconds(3_600)).await;
    bot.expect_nothing().await;
    // Sends are not held up.
    bot.says("c1", "we are looking into it").await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_reply_to_what_blocks_is_broken_off_at_once() {
    let gateway = with_policy("on_poison = \"block\"").await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("bad").await;
    let bad = bot.expect("c1", "bad", 1).await;
    let mut live = gateway.watch_live("c1").await;
    bot.streams(&bad, "Well").await;
    let first = live.snapshot("Well").await;
    bot.poison(&bad, "bad").await;
    let end = live.snapshot("Well…").await;
    assert_eq!((end.id, end.result.as_deref()), (first.id, Some("error")));
}

#[tokio::test]
async fn fallback_answers_the_user_and_asks_for_a_person_and_goes_on() {
    let policy = "on_poison = \"fallback\"\nfallback_text = \"Sorry, a colleague comes.\"";
    let gateway = with_policy(policy).await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["bad", "next"] {
        gateway.user("c1").says(text).await;
    }
    let bad = bot.expect("c1", "bad", 1).await;
    bot.poison(&bad, "secret words of the user").await;
    let next = bot.expect("c1", "next", 1).await;
    assert!(next.after_gap);
    bot.acks(&next).await;
    let log = gateway.log("c1").await;
    let [_, _, answer, event] = &log[..] else {
        panic!("{log:?}")
    };
    assert_eq!(text(&answer.activity), "Sorry, a colleague comes.");
    assert_eq!(answer.author(), v1::Author::Bot);
    let answer = answer.activity.as_ref().expect("an activity");
    let asked = bad.activity.as_ref().expect("an activity");
    assert_eq!(answer.reply_to_id, asked.id);
    assert_eq!(answer.recipient, asked.from);
    let event = event.activity.as_ref().expect("an activity");
    assert_eq!(event.r#type.as_deref(), Some("event"));
    assert_eq!(event.name.as_deref(), Some("handoff.initiate"));
    assert_eq!(event.value, None, "the bot's reason is for operators");
}

#[tokio::test]
async fn a_fallback_is_said_once_though_the_gateway_crashes_right_after() {
    let policy = "on_poison = \"fallback\"\nfallback_text = \"Sorry.\"";
    let mut gateway = with_policy(policy).await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("bad").await;
    let bad = bot.expect("c1", "bad", 1).await;
    bot.poison(&bad, "bad").await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect_nothing().await;
    let log = gateway.log("c1").await;
    let said = log
        .iter()
        .filter_map(|entry| entry.activity.as_ref()?.text.as_deref());
    assert_eq!(said.filter(|said| *said == "Sorry.").count(), 1);
}
