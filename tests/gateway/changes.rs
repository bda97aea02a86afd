//! Updates and deletions: a bot changes what it said itself, where users can see that.

use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome;

use crate::harness::{Gateway, message, name, text};

/// A channel whose users see changes, with a bot of its own.
const LIVELY: &str = r#"
[[channels]]
id = "lively"
kind = "grpc"
bot = "echo"
outbound = "watch"
capabilities = ["update", "delete"]
"#;

fn change(kind: &str, id: &str, text: &str) -> v1::Activity {
    v1::Activity {
        r#type: Some(kind.to_owned()),
        id: Some(id.to_owned()),
        ..message(text)
    }
}

fn send(client_id: &str, channel: &str, activity: v1::Activity) -> v1::Send {
    v1::Send {
        client_id: client_id.to_owned(),
        conversation: Some(name(channel, "c1")),
        activity: Some(activity.into()),
        delivery_id: 0,
    }
}

#[tokio::test]
async fn a_bot_updates_and_deletes_what_it_said_and_the_log_keeps_both() {
    let gateway = Gateway::setup().and(LIVELY).start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").on("lively").says("hi").await;
    let said = bot.send(send("1", "lively", message("helo"))).await;
    let id = said.appended.expect("appended").activity_id;

    let updated = bot
        .send(send("2", "lively", change("messageUpdate", &id, "hello")))
        .await;
    assert_eq!(updated.outcome(), AckOutcome::Ok);
    assert_eq!(updated.appended.expect("appended").activity_id, id);
    let deleted = bot
        .send(send("3", "lively", change("messageDelete", &id, "")))
        .await;
    assert_eq!(deleted.outcome(), AckOutcome::Ok);

    let log = gateway.log_on("lively", "c1").await;
    let kinds: Vec<_> = log
        .iter()
        .map(|entry| {
            let activity = entry.activity.as_ref().expect("an activity");
            (
                activity.r#type.clone().unwrap_or_default(),
                text(&entry.activity),
            )
        })
        .collect();
    let expected = [
        ("message", "hi"),
        ("message", "helo"),
        ("messageUpdate", "hello"),
        ("messageDelete", ""),
    ];
    let expected = expected.map(|(kind, text)| (kind.to_owned(), text.to_owned()));
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_bot_changes_nothing_that_others_said_or_nobody_did() {
    let gateway = Gateway::setup().and(LIVELY).start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    let users = gateway.user("c1").on("lively").says("hi").await;
    let elsewhere = gateway.user("c2").on("lively").says("hi").await;
    for (key, id) in [
        ("users", users.activity_id.as_str()),
        ("elsewhere", elsewhere.activity_id.as_str()),
        ("later", "c1|0000099"),
        ("strange", "c1|x"),
        ("foreign", "abc"),
    ] {
        let update = change("messageUpdate", id, "mine now");
        bot.write_send(send(key, "lively", update));
        let error = bot.expect_error("ACTIVITY_UNKNOWN").await;
        assert_eq!(error.client_id, key);
    }
    assert_eq!(gateway.log_on("lively", "c1").await.len(), 1);
}

#[tokio::test]
async fn a_channel_without_changes_refuses_them_also_in_a_commit() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let said = bot.says("c1", "helo").await;
    let id = said.appended.expect("appended").activity_id;
    bot.commit_all(
        delivery.delivery_id,
        vec![message("fine"), change("messageUpdate", &id, "hello")],
    );
    bot.expect_error("CAPABILITY_MISSING").await;
    assert_eq!(gateway.texts("c1").await, ["hi", "helo"]);
    bot.commits(&delivery, &["fine"]).await;
}

#[tokio::test]
async fn a_change_says_what_it_changes() {
    let gateway = Gateway::setup().and(LIVELY).start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").on("lively").says("hi").await;
    let mut update = change("messageUpdate", "", "hello");
    update.id = None;
    bot.write_send(send("k", "lively", update));
    let error = bot.expect_error("ACTIVITY_INVALID").await;
    assert_eq!(error.metadata["field"], "activity.id");
}
