//! What bots and backends say, as clients see it (reference, sections 3, 6 and 9).

use serde_json::{Value, json};
use turnwire::proto::v1;
use turnwire::proto::v1::send_activity_request::Target;

use super::{activity, quiet};
use crate::harness::{Bot, Chat, Gateway, message, name, within};

/// A conversation whose bot has taken its start.
async fn talk(gateway: &Gateway) -> (Bot, Chat) {
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    bot.acks(&update).await;
    (bot, chat)
}

/// A bot says something of its own accord. Returns the id that it got.
async fn sends(bot: &mut Bot, chat: &Chat, key: &str, said: v1::Activity) -> String {
    let send = v1::Send {
        client_id: key.to_owned(),
        conversation: Some(name("site", &chat.id)),
        activity: Some(said.into()),
        delivery_id: 0,
    };
    let sent = bot.send(send).await;
    sent.appended.expect("it is taken").activity_id
}

/// A backend says something in a bot's name.
async fn backend(gateway: &Gateway, chat: &Chat, said: v1::Activity) -> String {
    let request = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("site", &chat.id))),
        bot_id: "echo".to_owned(),
        activity: Some(said.into()),
        request_id: String::new(),
        ..Default::default()
    };
    let sent = within(
        "a send",
        gateway.wire().conversations().send_activity(request),
    )
    .await;
    let sent = sent.expect("it is taken").into_inner();
    sent.appended.expect("where it was appended").activity_id
}

#[tokio::test]
async fn what_a_bot_says_arrives_unchanged() {
    let gateway = quiet().await;
    let (mut bot, chat) = talk(&gateway).await;
    let mut stream = chat.stream().await;
    let said = json!({
        "type": "message", "text": "choose", "textFormat": "markdown", "inputHint": "expectingInput",
        "attachmentLayout": "carousel",
        "suggestedActions": {"to": ["ann"], "actions": [
            {"type": "imBack", "title": "Yes", "value": "yes"},
            {"type": "postBack", "title": "No", "value": {"answer": [false, null]}},
        ]},
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "content":
                {"type": "AdaptiveCard", "version": "1.5", "body": [{"type": "TextBlock", "wrap": true}]}},
            {"contentType": "application/vnd.microsoft.card.hero", "content":
                {"title": "T", "buttons": [{"type": "openUrl", "title": "Go", "value": "https://x.example"}]}},
            {"contentType": "image/png", "contentUrl": "https://x.example/a.png", "name": "a.png"},
        ],
        "entities": [{"type": "https://schema.org/Message", "@type": "Message", "citation": []}],
        "channelData": {"own": {"deep": [1, 2.5, "x"]}},
        "value": {"any": true},
    });
    sends(&mut bot, &chat, "s1", activity(&said)).await;
    let live = stream.next().await;
    let later = chat.everything().await.remove(0);
    assert_eq!(live, later);
    for (name, value) in said.as_object().expect("members") {
        assert_eq!(live[name], *value, "`{name}`");
    }
}

#[tokio::test]
async fn what_is_the_developers_or_the_channels_stays_with_them() {
    let gateway = quiet().await;
    let (mut bot, chat) = talk(&gateway).await;
    let mut stream = chat.stream().await;
    for (key, hidden) in [
        json!({"type": "trace", "name": "t", "value": 1}),
        json!({"type": "conversationUpdate", "topicName": "x"}),
        json!({"type": "installationUpdate", "action": "add"}),
        json!({"type": "invokeResponse", "value": {"status": 200}}),
        json!({"type": "delay", "value": 10}),
    ]
    .iter()
    .enumerate()
    {
        sends(&mut bot, &chat, &key.to_string(), activity(hidden)).await;
    }
    sends(&mut bot, &chat, "last", message("shown")).await;
    stream.expect("shown").await;
    assert_eq!(chat.texts().await, ["shown"]);
    assert_eq!(chat.everything().await.len(), 1);
}

#[tokio::test]
async fn a_bot_that_types_is_seen_as_it_does() {
    let gateway = quiet().await;
    let (mut bot, chat) = talk(&gateway).await;
    let mut stream = chat.stream().await;
    sends(&mut bot, &chat, "s1", activity(&json!({"type": "typing"}))).await;
    let typing = stream.next().await;
    assert_eq!(
        (&typing["type"], &typing["from"]["role"]),
        (&json!("typing"), &json!("bot"))
    );
    assert_eq!(chat.everything().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_backend_speaks_first() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    let id = backend(&gateway, &chat, message("your parcel is here")).await;
    let seen = stream.next().await;
    assert_eq!(seen["id"], id);
    assert_eq!(
        (&seen["from"]["id"], &seen["from"]["role"]),
        (&json!("echo"), &json!("bot"))
    );
    assert_eq!(seen["recipient"]["id"], "ann");
    assert_eq!(seen["serviceUrl"], format!("http://{}/", gateway.address()));
    assert_eq!(chat.texts().await, ["your parcel is here"]);
}

#[tokio::test]
async fn what_is_said_before_any_user_is_known_is_whole_all_the_same() {
    let gateway = quiet().await;
    let line = gateway.line("site-one");
    let started = line.start(&Value::Null).await.is(201);
    let chat = Chat::of(&line, &started, "ann");
    let mut stream = chat.stream().await;
    backend(&gateway, &chat, message("hello")).await;
    let seen = stream.next().await;
    assert_ne!(
        seen["recipient"]["id"], "echo",
        "nobody speaks to themselves: {seen}"
    );
    assert_eq!(seen["from"]["role"], "bot");
}

#[tokio::test]
async fn an_updated_message_is_the_same_message_with_what_it_says_now() {
    let mut gateway = quiet().await;
    let (mut bot, mut chat) = talk(&gateway).await;
    let mut stream = chat.stream().await;
    let id = sends(&mut bot, &chat, "s1", message("old")).await;
    chat.says("between").await;
    let (first, before) = stream.entry().await;
    stream.expect("between").await;
    let update = json!({"type": "messageUpdate", "id": id, "text": "new"});
    assert_eq!(sends(&mut bot, &chat, "s2", activity(&update)).await, id);
    let seen = stream.next().await;
    assert_eq!(
        (&seen["type"], &seen["id"], &seen["text"]),
        (&json!("message"), &json!(id), &json!("new"))
    );
    // By a backend as well.
    let update = json!({"type": "messageUpdate", "id": id, "text": "newest"});
    backend(&gateway, &chat, activity(&update)).await;
    stream.expect("newest").await;

    drop(bot);
    gateway.crash().await;
    chat = chat.at(&gateway);
    let all = chat.everything().await;
    assert_eq!(
        (&all[0]["id"], &all[0]["timestamp"]),
        (&json!(id), &first["timestamp"])
    );
    assert_eq!(all[1]["text"], "between");
    for seen in all.iter().filter(|seen| seen["id"] == *id) {
        assert_eq!(
            (&seen["type"], &seen["text"]),
            (&json!("message"), &json!("newest"))
        );
    }
    // One who has seen the old content is told of the new.
    let mut late = chat.back(Some(&before)).await;
    late.expect("between").await;
    let seen = late.next().await;
    assert_eq!((&seen["id"], &seen["text"]), (&json!(id), &json!("newest")));
}

#[tokio::test]
async fn a_deleted_message_is_gone() {
    let gateway = quiet().await;
    let (mut bot, mut chat) = talk(&gateway).await;
    let mut stream = chat.stream().await;
    let id = sends(&mut bot, &chat, "s1", message("regretted")).await;
    let (_, before) = stream.entry().await;
    let delete = json!({"type": "messageDelete", "id": id});
    sends(&mut bot, &chat, "s2", activity(&delete)).await;
    let seen = stream.next().await;
    assert_eq!(
        (&seen["type"], &seen["id"]),
        (&json!("messageDelete"), &json!(id))
    );
    assert!(seen.get("text").is_none());
    chat.says("after").await;
    assert_eq!(chat.texts().await, ["after"]);
    let messages = chat.everything().await;
    let messages = messages.iter().filter(|seen| seen["type"] == "message");
    assert_eq!(messages.count(), 1);
    // One who has seen it is told.
    let seen = chat.back(Some(&before)).await.next().await;
    assert_eq!(
        (&seen["type"], &seen["id"]),
        (&json!("messageDelete"), &json!(id))
    );
}

#[tokio::test]
async fn a_change_beyond_the_page_is_in_the_page_all_the_same() {
    let setup = Gateway::setup().config(|config| config.limits.page = 2);
    let gateway = setup.start().await;
    let (mut bot, chat) = talk(&gateway).await;
    let id = sends(&mut bot, &chat, "s1", message("old")).await;
    let gone = sends(&mut bot, &chat, "s2", message("gone")).await;
    for text in ["1", "2", "3"] {
        chat.says(text).await;
    }
    let update = json!({"type": "messageUpdate", "id": id, "text": "new"});
    sends(&mut bot, &chat, "s3", activity(&update)).await;
    let delete = json!({"type": "messageDelete", "id": gone});
    sends(&mut bot, &chat, "s4", activity(&delete)).await;
    let texts = chat.texts().await;
    assert_eq!(texts[..4], ["new", "1", "2", "3"]);
    assert!(
        !texts.iter().any(|text| text == "old" || text == "gone"),
        "{texts:?}"
    );
}

#[tokio::test]
async fn a_streamed_reply_says_what_it_is_where_web_chat_reads_it() {
    let gateway = quiet().await;
    let (mut bot, chat) = talk(&gateway).await;
    let mut stream = chat.stream().await;
    let info = |kind: &str, sequence: Option<u32>| {
        let mut info = json!({"type": "streaminfo", "streamType": kind, "streamId": "s1"});
        if let Some(sequence) = sequence {
            info["streamSequence"] = sequence.into();
        }
        json!([info])
    };
    let piece = json!({"type": "typing", "text": "Hel", "entities": info("streaming", Some(1))});
    sends(&mut bot, &chat, "p1", activity(&piece)).await;
    let end = json!({"type": "message", "text": "Hello", "entities": info("final", None)});
    sends(&mut bot, &chat, "p2", activity(&end)).await;
    let seen = stream.next().await;
    assert_eq!(
        seen["channelData"],
        json!({"streamType": "streaming", "streamId": "s1", "streamSequence": 1})
    );
    let seen = stream.next().await;
    assert_eq!(
        seen["channelData"],
        json!({"streamType": "final", "streamId": "s1"})
    );
    assert_eq!(chat.everything().await, [seen], "only the whole stays");
}
