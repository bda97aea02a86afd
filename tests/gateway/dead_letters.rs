//! What operators do with what bots could not take: list, replay in order, drop.

use turnwire::proto::v1;
use turnwire::proto::v1::SessionState;

use crate::harness::{Gateway, added_to, name, seconds, within};

async fn listed(gateway: &Gateway) -> Vec<v1::DeadLetter> {
    let request = v1::ListDeadLettersRequest::default();
    let page = within("a page", gateway.wire().admin().list_dead_letters(request)).await;
    page.expect("a page").into_inner().dead_letters
}

async fn replay(gateway: &Gateway, sequences: &[u64]) -> v1::ReplayDeadLettersResponse {
    let request = v1::ReplayDeadLettersRequest {
        conversation: Some(name("web", "c1")),
        bot_id: "echo".to_owned(),
        sequences: sequences.to_vec(),
    };
    let done = within(
        "a replay",
        gateway.wire().admin().replay_dead_letters(request),
    )
    .await;
    done.expect("it is taken").into_inner()
}

async fn drop_letters(gateway: &Gateway, sequences: &[u64]) -> u64 {
    let request = v1::DropDeadLettersRequest {
        conversation: Some(name("web", "c1")),
        bot_id: "echo".to_owned(),
        sequences: sequences.to_vec(),
    };
    let done = within("a drop", gateway.wire().admin().drop_dead_letters(request)).await;
    done.expect("it is taken").into_inner().count
}

/// A gateway where `bad 1` and `bad 2` are dead letters, and its bot.
async fn with_two() -> (Gateway, crate::harness::Bot) {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["bad 1", "good", "bad 2"] {
        gateway.user("c1").says(text).await;
        let delivery = bot.expect("c1", text, 1).await;
        if text == "good" {
            bot.acks(&delivery).await;
        } else {
            bot.poison(&delivery, &format!("cannot read {text}")).await;
        }
    }
    (gateway, bot)
}

#[tokio::test]
async fn they_are_listed_with_their_reason_and_their_activity() {
    let (gateway, _bot) = with_two().await;
    let letters = listed(&gateway).await;
    let said: Vec<_> = letters
        .iter()
        .map(|letter| {
            let text = letter.activity.as_ref().and_then(|a| a.text.clone());
            let reason = letter.reason.clone();
            (letter.sequence, letter.attempts, reason, text)
        })
        .collect();
    assert_eq!(
        said,
        [
            (
                1,
                1,
                "cannot read bad 1".to_owned(),
                Some("bad 1".to_owned())
            ),
            (
                3,
                1,
                "cannot read bad 2".to_owned(),
                Some("bad 2".to_owned())
            ),
        ]
    );
    assert!(letters.iter().all(|letter| letter.bot_id == "echo"));
}

#[tokio::test]
async fn a_replay_comes_in_order_marked_and_anew_and_the_conversation_goes_on() {
    let (gateway, mut bot) = with_two().await;
    assert_eq!(replay(&gateway, &[]).await.count, 2);
    assert_eq!(
        replay(&gateway, &[]).await.count,
        0,
        "they are on their way"
    );
    let first = bot.expect("c1", "bad 1", 1).await;
    assert!(first.replay && first.sequence == 1 && !first.after_gap);
    gateway.user("c1").says("live").await;
    bot.expect_nothing().await;
    bot.commits(&first, &["at last"]).await;
    let second = bot.expect("c1", "bad 2", 1).await;
    assert!(second.replay);
    bot.acks(&second).await;
    let live = bot.expect("c1", "live", 1).await;
    assert!(!live.replay);
    bot.acks(&live).await;
    assert!(listed(&gateway).await.is_empty());
}

#[tokio::test]
async fn one_that_was_tried_too_often_begins_with_its_first_attempt_again() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("bad").await;
    for attempt in 1..=5 {
        let bad = bot.expect("c1", "bad", attempt).await;
        bot.retry(&bad, Some(seconds(0))).await;
    }
    bot.expect_nothing().await;
    assert_eq!(listed(&gateway).await[0].attempts, 5);
    replay(&gateway, &[1]).await;
    for attempt in 1..=5 {
        let bad = bot.expect("c1", "bad", attempt).await;
        bot.retry(&bad, Some(seconds(0))).await;
    }
    bot.expect_nothing().await;
    let letters = listed(&gateway).await;
    assert_eq!(letters[0].reason, "too many attempts");
    assert_eq!(letters[0].attempts, 5);
    assert!(!letters[0].replay);
}

#[tokio::test]
async fn a_replay_that_fails_again_is_a_dead_letter_again() {
    let (gateway, mut bot) = with_two().await;
    replay(&gateway, &[1]).await;
    let again = bot.expect("c1", "bad 1", 1).await;
    bot.poison(&again, "still bad").await;
    bot.expect_nothing().await;
    let letters = listed(&gateway).await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter.reason.as_str())
        .collect();
    assert_eq!(reasons, ["still bad", "cannot read bad 2"]);
}

#[tokio::test]
async fn a_replay_survives_a_crash_and_is_over_once_it_is_acked() {
    let (mut gateway, mut bot) = with_two().await;
    replay(&gateway, &[]).await;
    let first = bot.expect("c1", "bad 1", 1).await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    let again = bot.expect("c1", "bad 1", 2).await;
    assert!(again.replay && again.delivery_id != first.delivery_id);
    bot.acks(&again).await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    let second = bot.next_delivery().await;
    assert_eq!((second.sequence, second.replay), (3, true));
    bot.acks(&second).await;
    bot.expect_nothing().await;
    assert!(listed(&gateway).await.is_empty());
}

#[tokio::test]
async fn dropped_ones_are_gone_and_come_no_more() {
    let (gateway, mut bot) = with_two().await;
    assert_eq!(drop_letters(&gateway, &[1]).await, 1);
    assert_eq!(drop_letters(&gateway, &[1]).await, 0);
    assert_eq!(replay(&gateway, &[]).await.count, 1);
    let left = bot.expect("c1", "bad 2", 1).await;
    assert_eq!(drop_letters(&gateway, &[3]).await, 0, "it is in work");
    bot.acks(&left).await;
    assert!(listed(&gateway).await.is_empty());
    assert_eq!(gateway.texts("c1").await, ["bad 1", "good", "bad 2"]);
}

/// A gateway whose bot blocks, with `bad` blocking `behind it`.
async fn blocked() -> (Gateway, crate::harness::Bot) {
    let setup = Gateway::setup().rewritten(|config| {
        config.replacen(
            "name = \"Echo\"",
            "name = \"Echo\"\non_poison = \"block\"",
            1,
        )
    });
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    for text in ["bad", "behind it"] {
        gateway.user("c1").says(text).await;
    }
    let bad = bot.expect("c1", "bad", 1).await;
    bot.poison(&bad, "bad").await;
    bot.expect_nothing().await;
    (gateway, bot)
}

#[tokio::test]
async fn what_is_blocked_goes_on_when_it_is_replayed() {
    let (mut gateway, bot) = blocked().await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    assert_eq!(replay(&gateway, &[]).await.count, 1);
    let again = bot.expect("c1", "bad", 1).await;
    bot.acks(&again).await;
    let next = bot.expect("c1", "behind it", 1).await;
    assert!(!next.after_gap);
    bot.acks(&next).await;
    assert!(listed(&gateway).await.is_empty());
}

#[tokio::test]
async fn what_is_blocked_goes_on_with_a_gap_when_it_is_dropped() {
    let (mut gateway, bot) = blocked().await;
    gateway.crash().await;
    drop(bot);
    let mut bot = gateway.bot("echo").attach().await;
    assert_eq!(drop_letters(&gateway, &[]).await, 1);
    let next = bot.expect("c1", "behind it", 1).await;
    assert!(next.after_gap);
    bot.acks(&next).await;
    assert!(listed(&gateway).await.is_empty());
}

#[tokio::test]
async fn what_blocks_can_be_dropped_while_a_replay_waits() {
    let (mut gateway, mut bot) = with_two().await;
    let blocks = |config: &str| {
        let named = "name = \"Echo\"";
        config.replacen(named, &format!("{named}\non_poison = \"block\""), 1)
    };
    gateway.reload(blocks).await.expect("it is in force");
    gateway.user("c1").says("bad 3").await;
    let third = bot.expect("c1", "bad 3", 1).await;
    gateway.user("c1").says("behind it").await;
    bot.poison(&third, "bad").await;
    bot.expect_nothing().await;
    drop(bot);
    assert_eq!(replay(&gateway, &[1]).await.count, 1);
    assert_eq!(drop_letters(&gateway, &[4]).await, 1);
    let mut bot = gateway.bot("echo").attach().await;
    let first = bot.expect("c1", "bad 1", 1).await;
    bot.acks(&first).await;
    let next = bot.expect("c1", "behind it", 1).await;
    assert!(next.after_gap);
    bot.acks(&next).await;
}

/// A gateway where `bad 1` and `bad 2` are dead letters, and its bot, which begins anew from the start
/// and holds `bad 1` once more.
async fn with_two_and_added_again() -> (Gateway, crate::harness::Bot, v1::Delivery) {
    let (gateway, mut bot) = with_two().await;
    gateway.removes("c1", "echo").await;
    let from_the_start = v1::AddBotRequest {
        start: Some(v1::add_bot_request::Start::AfterSequence(0)),
        ..added_to("c1", "echo")
    };
    let added = gateway.wire().adds(from_the_start).await;
    added.expect("it is added");
    let held = bot.expect("c1", "bad 1", 1).await;
    (gateway, bot, held)
}

#[tokio::test]
async fn dropping_letters_of_a_bot_that_began_anew_takes_nothing_from_it() {
    let (gateway, mut bot, held) = with_two_and_added_again().await;
    assert_eq!(drop_letters(&gateway, &[]).await, 2);
    bot.acks(&held).await;
    for text in ["good", "bad 2"] {
        let delivery = bot.expect("c1", text, 1).await;
        bot.acks(&delivery).await;
    }
    assert_eq!(listed(&gateway).await, []);
}

#[tokio::test]
async fn replaying_letters_that_a_bot_comes_to_anyway_doubles_nothing() {
    let (gateway, mut bot, held) = with_two_and_added_again().await;
    assert_eq!(replay(&gateway, &[]).await.count, 2);
    bot.acks(&held).await;
    for text in ["good", "bad 2"] {
        let delivery = bot.expect("c1", text, 1).await;
        bot.acks(&delivery).await;
    }
    assert_eq!(listed(&gateway).await, []);
}

async fn sessions(gateway: &Gateway) -> Vec<v1::SessionInfo> {
    let request = v1::ListSessionsRequest {};
    let sessions = within("sessions", gateway.wire().admin().list_sessions(request)).await;
    let sessions = sessions.expect("they are listed").into_inner().sessions;
    sessions
        .into_iter()
        .filter(|session| session.instance_id != "one" || session.credit_deliveries > 0)
        .collect()
}

#[tokio::test]
async fn sessions_say_what_they_hold_and_whether_they_look_deaf() {
    let gateway = Gateway::start().await;
    let resumable = |hello: &mut v1::Hello| hello.resume = Some(v1::Resume::default());
    let mut bot = gateway.bot("echo").hello(resumable).attach().await;
    gateway.user("c1").says("hi").await;
    let held = bot.expect("c1", "hi", 1).await;
    let listed = sessions(&gateway).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].leases, listed[0].held), (1, 1));
    assert_eq!(listed[0].state(), SessionState::Open);
    assert!(listed[0].held_since.is_some() && !listed[0].deaf);
    gateway.pass(seconds(30)).await;
    assert!(sessions(&gateway).await[0].deaf, "half of its deadline");
    bot.acks(&held).await;
    let listed = sessions(&gateway).await;
    assert!(!listed[0].deaf && listed[0].held == 0 && listed[0].leases == 1);
    gateway.cut(bot).await;
    assert_eq!(sessions(&gateway).await[0].state(), SessionState::Away);
}
