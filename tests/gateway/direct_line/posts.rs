//! Posting (reference, section 2.6).

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{hears, quiet};
use crate::harness::{Chat, Gateway, says};

fn keyed(text: &str, client_activity_id: &str) -> Value {
    let mut activity = says("ann", text);
    activity["channelData"] = json!({"clientActivityID": client_activity_id});
    activity
}

#[tokio::test]
async fn a_post_is_answered_with_the_place_of_its_activity() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    bot.commits(&update, &["welcome"]).await;
    let answer = chat.line.post(&chat.id, &says("ann", "hi")).await;
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/json"))
    );
    // The update and the welcome are counted, too.
    assert_eq!(
        answer.is(200),
        json!({"id": format!("{}|0000003", chat.id)})
    );
    assert_eq!(
        chat.everything().await[1]["id"],
        format!("{}|0000003", chat.id)
    );
}

#[tokio::test]
async fn the_gateway_says_what_is_its_to_say_and_keeps_the_rest() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    hears(&mut bot, "conversationUpdate").await;
    let kept = json!({
        "type": "message", "text": "hi", "locale": "de-CH", "textFormat": "plain",
        "localTimestamp": "2020-01-01T00:00:00.123+01:00", "localTimezone": "Europe/Zurich",
        "channelData": {"clientActivityID": "x", "deep": {"a": [1, null, {"b": 1.5}]}},
        "entities": [{"type": "ClientCapabilities", "supportsListening": true, "extra": {}}],
        "value": {"n": 12_345_678_901_u64, "text": "\u{1f600}"},
        "attachments": [{"contentType": "image/png", "contentUrl": "data:image/png;base64,AA==",
            "name": "x.png", "thumbnailUrl": "data:,"}],
        "ofNobodysSchema": {"kept": ["as", {"it": "is"}]},
        "serviceUrlish": "x",
    });
    let mut posted = kept.clone();
    for (name, forged) in [
        ("id", json!("mine")),
        ("timestamp", json!("1999-01-01T00:00:00Z")),
        ("channelId", json!("webchat")),
        ("conversation", json!({"id": "other"})),
        ("serviceUrl", json!("http://evil.example/")),
        ("recipient", json!({"id": "someone"})),
        ("from", json!({"id": "ann", "role": "bot", "name": "Ann"})),
    ] {
        posted[name] = forged;
    }
    let id = chat.posts(&posted).await;
    let told = hears(&mut bot, "message").await;
    let seen = chat.everything().await.remove(0);
    for view in [&told, &seen] {
        for (name, value) in kept.as_object().expect("members") {
            assert_eq!(view[name], *value, "`{name}`");
        }
        assert_eq!(view["id"], *id);
        assert_ne!(view["timestamp"], "1999-01-01T00:00:00Z");
        assert_eq!(view["channelId"], "site");
        assert_eq!(view["conversation"]["id"], *chat.id);
        assert_eq!(view["serviceUrl"], format!("http://{}/", gateway.address()));
        assert_eq!(view["recipient"]["id"], "echo");
        assert_eq!(
            view["from"],
            json!({"id": "ann", "role": "user", "name": "Ann"})
        );
    }
}

#[tokio::test]
async fn what_is_posted_is_one_activity_with_a_type_and_a_user() {
    let gateway = Gateway::start().await;
    // Without a user in the token.
    let line = gateway.line("site-one");
    let started = line.start(&Value::Null).await.is(201);
    let chat = Chat::of(&line, &started, "ann");
    for missing in [
        json!({"from": {"id": "ann"}}),
        json!({"type": "", "from": {"id": "ann"}}),
        json!({"type": null, "from": {"id": "ann"}}),
        json!({"type": "message"}),
        json!({"type": "message", "from": null}),
        json!({"type": "message", "from": {}}),
        json!({"type": "message", "from": {"id": ""}}),
        json!({"type": "message", "from": "ann"}),
        json!({"type": "message", "from": {"id": 7}}),
    ] {
        chat.line
            .post(&chat.id, &missing)
            .await
            .refused(400, "MissingProperty");
    }
    for wrong in [
        json!([]),
        json!([says("ann", "hi")]),
        json!("hi"),
        json!(7),
        json!({"type": 7, "from": {"id": "ann"}}),
        json!({"type": "message", "from": {"id": "a\u{0}"}}),
        json!({"type": "message", "from": {"id": "ann"}, "attachments": "x"}),
        json!({"type": "message", "from": {"id": "ann"}, "entities": {}}),
    ] {
        chat.line
            .post(&chat.id, &wrong)
            .await
            .refused(400, "BadArgument");
    }
    for kind in [
        "conversationUpdate",
        "installationUpdate",
        "messageUpdate",
        "messageDelete",
        "trace",
    ] {
        let refused = json!({"type": kind, "id": "x", "from": {"id": "ann"}});
        chat.line
            .post(&chat.id, &refused)
            .await
            .refused(400, "BadArgument");
    }
    assert_eq!(chat.everything().await, Vec::<Value>::new());
    chat.says("hi").await;
}

#[tokio::test]
async fn everything_that_users_do_reaches_the_bot() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    hears(&mut bot, "conversationUpdate").await;
    for posted in [
        json!({"type": "event", "name": "webchat/join", "value": {"language": "de"}}),
        json!({"type": "invoke", "name": "message/submitAction", "value": {"actionName": "feedback"}}),
        json!({"type": "messageReaction", "reactionsAdded": [{"type": "like"}], "replyToId": "x"}),
        json!({"type": "my/own", "value": 1}),
        json!({"type": "message", "text": "hi"}),
    ] {
        let mut from_ann = posted.clone();
        from_ann["from"] = json!({"id": "ann"});
        chat.posts(&from_ann).await;
        let told = hears(&mut bot, posted["type"].as_str().expect("a type")).await;
        for (name, value) in posted.as_object().expect("members") {
            assert_eq!(told[name], *value, "`{name}`");
        }
    }
}

#[tokio::test]
async fn what_is_posted_again_by_its_client_is_one_activity() {
    let mut gateway = quiet().await;
    let chat = gateway.chat().await;
    let id = chat.posts(&keyed("hi", "x1")).await;
    assert_eq!(chat.posts(&keyed("hi", "x1")).await, id);
    // Web Chat writes a new local time as it tries again.
    assert_eq!(chat.posts(&keyed("otherwise", "x1")).await, id);
    assert_ne!(chat.posts(&keyed("hi", "x2")).await, id);
    gateway.crash().await;
    let chat = chat.at(&gateway);
    assert_eq!(chat.posts(&keyed("hi", "x1")).await, id);
    assert_eq!(chat.texts().await, ["hi", "hi"]);
}

#[tokio::test]
async fn what_is_posted_many_times_at_once_is_one_activity() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let posts = (0..16).map(|_| {
        let chat = chat.clone();
        async move { chat.posts(&keyed("hi", "x1")).await }
    });
    let ids = join_all(posts).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(chat.texts().await, ["hi"]);
}

#[tokio::test]
async fn what_two_users_call_the_same_is_not_the_same() {
    let gateway = Gateway::start().await;
    let line = gateway.line("site-one");
    let started = line.start(&Value::Null).await.is(201);
    let chat = Chat::of(&line, &started, "ann");
    let mut ids = Vec::new();
    for user in ["ann", "bob"] {
        let mut activity = keyed(user, "x1");
        activity["from"]["id"] = user.into();
        ids.push(chat.posts(&activity).await);
    }
    assert_ne!(ids[0], ids[1]);
    // An id of any length, and one that is no text.
    let long = "x".repeat(10_000);
    let id = chat.posts(&keyed("long", &long)).await;
    assert_eq!(chat.posts(&keyed("long", &long)).await, id);
    let mut number = says("ann", "number");
    number["channelData"] = json!({"clientActivityID": 7});
    chat.posts(&number).await;
    assert_eq!(chat.texts().await, ["ann", "bob", "long", "number"]);
}

#[tokio::test]
async fn a_token_speaks_for_its_user_whoever_an_activity_says() {
    let gateway = Gateway::start().await;
    let chat = Chat::start(&gateway.line("site-one"), "dl_ann").await;
    for from in [
        json!({"id": "dl_bob"}),
        json!({"id": "echo", "role": "bot"}),
        json!(null),
    ] {
        chat.posts(&json!({"type": "message", "text": "hi", "from": from}))
            .await;
    }
    for seen in chat.everything().await {
        assert_eq!(
            (&seen["from"]["id"], &seen["from"]["role"]),
            (&json!("dl_ann"), &json!("user"))
        );
    }
}

#[tokio::test]
async fn a_user_is_announced_before_the_bot_hears_them() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let line = gateway.line("site-one");
    let started = line.start(&Value::Null).await.is(201);
    let chat = Chat::of(&line, &started, "ann");
    let update = hears(&mut bot, "conversationUpdate").await;
    assert_eq!(update["membersAdded"].as_array().map(Vec::len), Some(1));
    for user in ["ann", "bob"] {
        let posts = (0..3).map(|_| {
            let chat = chat.clone();
            async move { chat.posts(&says(user, "hi")).await }
        });
        join_all(posts).await;
        let update = hears(&mut bot, "conversationUpdate").await;
        assert_eq!(update["membersAdded"][0]["id"], user);
        assert_eq!(update["membersAdded"].as_array().map(Vec::len), Some(1));
        for _ in 0..3 {
            assert_eq!(hears(&mut bot, "message").await["from"]["id"], user);
        }
    }
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_body_may_have_a_mebibyte_and_no_more() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let size = |bytes: usize| {
        let empty = says("ann", "").to_string().len();
        says("ann", &"x".repeat(bytes - empty))
    };
    // With room for what the gateway adds.
    chat.posts(&size((1 << 20) - 1_024)).await;
    for bytes in [(1 << 20) + 1, 2 << 20] {
        let answer = chat.line.post(&chat.id, &size(bytes)).await;
        answer.refused(413, "MessageSizeTooBig");
    }
    assert_eq!(chat.everything().await.len(), 1);
    chat.says("hi").await;
}

#[tokio::test]
async fn nothing_is_posted_to_a_conversation_that_its_user_ended() {
    let mut gateway = quiet().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    chat.says("hi").await;
    chat.posts(&json!({"type": "endOfConversation", "from": {"id": "ann"}}))
        .await;
    let late = chat.line.post(&chat.id, &says("ann", "late")).await;
    late.refused(409, "BadArgument");
    for kind in ["conversationUpdate", "message", "endOfConversation"] {
        hears(&mut bot, kind).await;
    }
    bot.expect_nothing().await;
    gateway.crash().await;
    let mut chat = chat.at(&gateway);
    let late = chat.line.post(&chat.id, &says("ann", "late")).await;
    late.refused(409, "BadArgument");
    assert_eq!(chat.texts().await, ["hi"]);
    let mut stream = chat.back(Some("")).await;
    stream.expect("hi").await;
    assert_eq!(stream.next().await["type"], "endOfConversation");
}

#[tokio::test]
async fn nothing_is_posted_to_a_conversation_that_its_bot_ended() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    let end = json!({"type": "endOfConversation", "code": "completedSuccessfully"});
    bot.commit_all(update.delivery_id, vec![super::activity(&end)]);
    bot.barrier().await;
    chat.line
        .post(&chat.id, &says("ann", "late"))
        .await
        .refused(409, "BadArgument");
    let stranger = gateway.line("site-one");
    stranger
        .post(&chat.id, &says("bob", "late"))
        .await
        .refused(409, "BadArgument");
    bot.expect_nothing().await;
    let all = chat.everything().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["code"], "completedSuccessfully");
}

#[tokio::test]
async fn what_was_posted_before_the_end_is_known_after_it() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let id = chat.posts(&keyed("hi", "x1")).await;
    chat.posts(&json!({"type": "endOfConversation", "from": {"id": "ann"}}))
        .await;
    assert_eq!(chat.posts(&keyed("hi", "x1")).await, id);
}
