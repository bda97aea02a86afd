//! Updates and deletions: a bot changes what it said itself, where users can see that.

use tonic::Code;
use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Gateway, message, name, refused, text, within};

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

    // What is deleted stays so.
    let late = change("messageUpdate", &id, "back again");
    bot.write_send(send("4", "lively", late));
    bot.expect_error("ACTIVITY_UNKNOWN").await;

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

#[tokio::test]
async fn a_backend_updates_and_deletes_for_a_bot_and_may_repeat_it() {
    let gateway = Gateway::setup().and(LIVELY).start().await;
    gateway.user("c1").on("lively").says("hi").await;
    let mut client = gateway.wire().conversations();
    let conversation = Some(name("lively", "c1"));
    let request = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("lively", "c1"))),
        activity: Some(message("helo").into()),
        ..Default::default()
    };
    let sent = within("a send", client.send_activity(request)).await;
    let sent = sent.expect("sent").into_inner().appended.expect("appended");

    let update = v1::UpdateActivityRequest {
        request_id: "once".to_owned(),
        conversation: conversation.clone(),
        activity_id: sent.activity_id.clone(),
        activity: Some(message("hello").into()),
        ..Default::default()
    };
    for repeated in [false, true] {
        let updated = within("an update", client.update_activity(update.clone())).await;
        let updated = updated.expect("updated").into_inner();
        assert_eq!(updated.repeated_send, repeated);
        let appended = updated.appended.expect("appended");
        assert_eq!(
            (appended.activity_id, appended.sequence),
            (sent.activity_id.clone(), 3)
        );
    }
    let delete = v1::DeleteActivityRequest {
        conversation: conversation.clone(),
        activity_id: sent.activity_id,
        ..Default::default()
    };
    let deleted = within("a deletion", client.delete_activity(delete)).await;
    let deleted = deleted.expect("deleted").into_inner().appended;
    assert_eq!(deleted.expect("appended").sequence, 4);

    let unnamed = v1::DeleteActivityRequest {
        conversation,
        ..Default::default()
    };
    let refusal = within("a deletion", client.delete_activity(unnamed)).await;
    refused(refusal, Code::InvalidArgument, "REQUEST_INVALID");
}
