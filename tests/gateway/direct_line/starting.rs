//! Starting conversations and coming back to them (reference, sections 2.3 and 2.4).

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{hears, quiet};
use crate::harness::{Chat, Gateway, Line, says};

/// A token of a conversation that was not started.
async fn unstarted(gateway: &Gateway, user: &Value) -> (Line, String) {
    let line = gateway.line("site-one");
    let grant = line.generate(&json!({"user": user})).await.is(200);
    let id = grant["conversationId"].as_str().expect("a text").to_owned();
    (line.with(grant["token"].as_str().expect("a text")), id)
}

#[tokio::test]
async fn starting_is_said_once_with_bot_and_user() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let (line, id) = unstarted(&gateway, &json!({"id": "dl_ann", "name": "Ann"})).await;
    let started = line
        .start(&json!({"user": {}, "locale": "de-CH"}))
        .await
        .is(201);
    assert_eq!(started["conversationId"], id);
    assert_eq!(started["expires_in"], 1_800);
    let update = hears(&mut bot, "conversationUpdate").await;
    let ids = |update: &Value| {
        let members = update["membersAdded"].as_array().expect("members").clone();
        let ids = members
            .iter()
            .map(|member| member["id"].as_str().expect("an id").to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&update), ["echo", "dl_ann"]);
    assert_eq!(update["conversation"]["id"], id);
    assert_eq!(update["recipient"]["id"], "echo");
    assert_eq!(update["channelId"], "site");
    assert_eq!(update["locale"], "de-CH");

    let again = line.start(&json!({"user": {}})).await.is(200);
    assert_eq!(again["conversationId"], id);
    assert!(again["streamUrl"].is_string() && again["token"].is_string());
    bot.expect_nothing().await;
}

#[tokio::test]
async fn who_starts_at_one_time_starts_once() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let (line, _) = unstarted(&gateway, &json!({"id": "dl_ann"})).await;
    let starts = (0..8).map(|_| {
        let line = line.clone();
        async move { line.start(&Value::Null).await.status }
    });
    let mut statuses = join_all(starts).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    hears(&mut bot, "conversationUpdate").await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_secret_starts_a_new_conversation_each_time() {
    let gateway = Gateway::start().await;
    let line = gateway.line("site-one");
    let first = line.start(&Value::Null).await.is(201);
    let second = line.start(&json!({})).await.is(201);
    assert_ne!(first["conversationId"], second["conversationId"]);
}

#[tokio::test]
async fn a_conversation_that_crashed_while_it_started_is_started_once() {
    let mut gateway = Gateway::start().await;
    let (line, _) = unstarted(&gateway, &json!({"id": "dl_ann"})).await;
    line.start(&Value::Null).await.is(201);
    gateway.crash().await;
    line.at(&gateway).start(&Value::Null).await.is(200);
    let mut bot = gateway.bot("echo").attach().await;
    hears(&mut bot, "conversationUpdate").await;
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_stream_url_says_where_its_caller_reached_the_gateway() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let base = format!(
        "ws://{}/v3/directline/conversations/{}/stream?",
        gateway.address(),
        chat.id
    );
    assert!(chat.url.starts_with(&base), "{}", chat.url);
}

#[tokio::test]
async fn coming_back_gives_a_token_and_a_stream_every_time() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    for line in [
        chat.line.clone(),
        gateway.line("site-one"),
        gateway.line("site-two"),
    ] {
        let back = line.reconnect(&chat.id, Some("")).await.is(200);
        assert_eq!(back["conversationId"], chat.id);
        let back = Chat::of(&chat.line, &back, "ann");
        back.says("hi").await;
        back.stream().await.expect("hi").await;
    }
}

#[tokio::test]
async fn without_a_watermark_a_stream_has_what_is_new_and_with_an_empty_one_everything() {
    let gateway = quiet().await;
    let mut chat = gateway.chat().await;
    chat.says("one").await;
    let mut new = chat.back(None).await;
    let mut all = chat.back(Some("")).await;
    chat.says("two").await;
    new.expect("two").await;
    let first = all.expect("one").await;
    all.expect("two").await;
    chat.back(Some(&first)).await.expect("two").await;
}

#[tokio::test]
async fn what_was_said_between_coming_back_and_opening_is_on_the_stream() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    chat.says("before").await;
    let back = chat.line.reconnect(&chat.id, None).await.is(200);
    let back = Chat::of(&chat.line, &back, "ann");
    chat.says("between").await;
    back.stream().await.expect("between").await;
}

#[tokio::test]
async fn no_watermark_that_a_client_sends_is_a_failure() {
    let gateway = quiet().await;
    let mut chat = gateway.chat().await;
    chat.says("one").await;
    for strange in [
        "null",
        "undefined",
        "-",
        "%00",
        "%ff",
        "-1",
        "0x1",
        "1.5",
        "a%26b",
    ] {
        chat.back(Some(strange)).await.expect("one").await;
        let page = chat.line.history(&chat.id, Some(strange)).await.is(200);
        assert_eq!(page["activities"][0]["text"], "one", "{strange}");
    }
    // One of a future that does not come, and one that no number holds.
    for ahead in ["9999", "18446744073709551615", "99999999999999999999999999"] {
        let mut stream = chat.back(Some(ahead)).await;
        let page = chat.line.history(&chat.id, Some(ahead)).await.is(200);
        assert_eq!(page["activities"], json!([]));
        chat.says(ahead).await;
        stream.expect(ahead).await;
    }
    let path = format!(
        "/conversations/{}/activities?watermark=0&watermark=99",
        chat.id
    );
    let page = chat.line.call("GET", &path, "").await.is(200);
    assert_eq!(page["activities"][0]["text"], "one", "the first counts");
}

#[tokio::test]
async fn a_conversation_that_is_not_known_is_not_found() {
    let gateway = Gateway::start().await;
    let line = gateway.line("site-one");
    for answer in [
        line.reconnect("none", None).await,
        line.history("none", None).await,
        line.post("none", &says("ann", "hi")).await,
    ] {
        answer.refused(404, "NotFound");
    }
    // A secret is of one channel, and so are conversations.
    let chat = gateway.chat().await;
    let line = gateway.line("elsewhere");
    line.reconnect(&chat.id, None)
        .await
        .refused(404, "NotFound");
    line.history(&chat.id, None).await.refused(404, "NotFound");
    line.post(&chat.id, &says("ann", "hi"))
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn a_token_reads_a_conversation_that_has_not_started_as_an_empty_one() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let (line, id) = unstarted(&gateway, &json!({"id": "dl_ann"})).await;
    let page = line.history(&id, None).await.is(200);
    assert_eq!(page["activities"], json!([]));
    assert!(page["watermark"].is_string());
    bot.expect_nothing().await;
    line.start(&Value::Null).await.is(201);
}

#[tokio::test]
async fn a_first_post_starts_the_conversation_of_a_token() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let (line, id) = unstarted(&gateway, &json!({"id": "dl_ann"})).await;
    line.post(&id, &says("x", "hi")).await.is(200);
    let update = hears(&mut bot, "conversationUpdate").await;
    assert_eq!(update["membersAdded"][1]["id"], "dl_ann");
    assert_eq!(hears(&mut bot, "message").await["text"], "hi");
    line.start(&Value::Null).await.is(200);
    bot.expect_nothing().await;
}

#[tokio::test]
async fn coming_back_starts_the_conversation_of_a_token() {
    let gateway = quiet().await;
    let mut bot = gateway.bot("echo").attach().await;
    let (line, id) = unstarted(&gateway, &json!({"id": "dl_ann"})).await;
    let back = line.reconnect(&id, Some("")).await.is(200);
    hears(&mut bot, "conversationUpdate").await;
    let chat = Chat::of(&line, &back, "ann");
    let mut stream = chat.stream().await;
    chat.says("hi").await;
    stream.expect("hi").await;
}
