//! The stream (reference, section 3).

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::quiet;
use crate::harness::{Chat, Frame, Gateway, says, seconds};

/// The `t` of a stream's URL.
fn token_of(url: &str) -> &str {
    url.split_once("&t=").expect("a token").1
}

#[tokio::test]
async fn a_user_sees_what_they_said_before_any_answer_to_it() {
    let gateway = quiet().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    let update = bot.next_delivery().await;
    bot.acks(&update).await;
    let mut hi = says("ann", "hi");
    hi["channelData"] = json!({"clientActivityID": "x1"});
    let id = chat.posts(&hi).await;
    let delivery = bot.next_delivery().await;
    bot.commits(&delivery, &["hello", "how are you"]).await;
    let (echo, first) = stream.entry().await;
    assert_eq!((&echo["id"], &echo["text"]), (&json!(id), &json!("hi")));
    assert_eq!(echo["channelData"]["clientActivityID"], "x1");
    assert_eq!(echo["from"], json!({"id": "ann", "role": "user"}));
    let (answer, second) = stream.entry().await;
    assert_eq!(
        (&answer["text"], &answer["replyToId"]),
        (&json!("hello"), &json!(id))
    );
    assert_eq!(
        (&answer["from"]["id"], &answer["from"]["role"]),
        (&json!("echo"), &json!("bot"))
    );
    assert_ne!(first, second);
    stream.expect("how are you").await;
}

#[tokio::test]
async fn a_stream_goes_on_from_any_watermark_with_nothing_lost_or_doubled() {
    let gateway = quiet().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    bot.commits(&update, &["welcome"]).await;
    for number in 0..4 {
        chat.says(&number.to_string()).await;
        let delivery = bot.next_delivery().await;
        bot.commits(&delivery, &["yes"]).await;
    }
    let mut all = Vec::new();
    let mut stream = chat.stream().await;
    for _ in 0..9 {
        all.push(stream.entry().await);
    }
    for seen in 0..all.len() {
        let mut rest = chat.back(Some(&all[seen].1)).await;
        for entry in &all[seen + 1..] {
            assert_eq!(rest.entry().await, *entry);
        }
        let page = chat
            .line
            .history(&chat.id, Some(&all[seen].1))
            .await
            .is(200);
        let left: Vec<Value> = all[seen + 1..]
            .iter()
            .map(|entry| entry.0.clone())
            .collect();
        assert_eq!(
            page["activities"],
            json!(left),
            "both ways of reading agree"
        );
    }
}

#[tokio::test]
async fn typing_is_seen_as_it_happens_and_by_nobody_later() {
    let gateway = quiet().await;
    let mut chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    chat.posts(&json!({"type": "typing", "from": {"id": "ann"}}))
        .await;
    chat.says("hi").await;
    assert_eq!(stream.next().await["type"], "typing");
    stream.expect("hi").await;
    chat.back(Some("")).await.expect("hi").await;
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_empty_texts() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    chat.says("hi").await;
    stream.expect("hi").await;
    for _ in 0..3 {
        gateway.pass(seconds(15)).await;
        assert_eq!(stream.frame().await, Frame::Empty);
        // Its client is there, and says so by itself or like this.
        stream.write(Message::text("")).await;
    }
    chat.says("still here").await;
    stream.expect("still here").await;
}

#[tokio::test]
async fn what_a_client_sends_down_its_stream_changes_nothing() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    for message in [
        Message::text(""),
        Message::text(says("ann", "by socket").to_string()),
        Message::text("{"),
        Message::text("x".repeat(60_000)),
        Message::binary(vec![0_u8, 255, 1]),
        Message::Ping("ping".into()),
        Message::Pong("pong".into()),
    ] {
        stream.write(message).await;
    }
    chat.says("hi").await;
    stream.expect("hi").await;
    assert_eq!(chat.texts().await, ["hi"]);
}

#[tokio::test]
async fn a_url_opened_again_closes_its_older_stream_and_no_other_clients() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let other = chat.line.reconnect(&chat.id, None).await.is(200);
    let mut other = Chat::of(&chat.line, &other, "ann").stream().await;
    let mut first = chat.stream().await;
    let mut second = chat.stream().await;
    assert_eq!(
        first.end().await,
        Frame::Close(1008, "collision".to_owned())
    );
    chat.says("hi").await;
    second.expect("hi").await;
    other.expect("hi").await;
    let mut third = chat.stream().await;
    assert_eq!(
        second.end().await,
        Frame::Close(1008, "collision".to_owned())
    );
    third.expect("hi").await;
}

#[tokio::test]
async fn a_url_that_is_refused_closes_no_stream() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    gateway.pass(seconds(60)).await;
    chat.line
        .open(&chat.url)
        .await
        .err()
        .expect("late")
        .refused_by(403);
    let path = chat.url.split_once("/v3/directline").expect("the base").1;
    chat.line
        .call("GET", path, "")
        .await
        .refused(400, "BadArgument");
    chat.says("hi").await;
    stream.expect("hi").await;
}

#[tokio::test]
async fn a_url_is_good_for_a_minute() {
    let gateway = quiet().await;
    let mut chat = gateway.chat().await;
    gateway.pass(seconds(59)).await;
    drop(chat.stream().await);
    gateway.pass(seconds(1)).await;
    chat.line
        .open(&chat.url)
        .await
        .err()
        .expect("late")
        .refused_by(403);
    chat.says("hi").await;
    chat.back(Some("")).await.expect("hi").await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    gateway.pass(seconds(1_799)).await;
    chat.says("hi").await;
    stream.expect("hi").await;
    gateway.pass(seconds(1)).await;
    assert_eq!(
        stream.frame().await,
        Frame::Close(1008, "token expired".to_owned())
    );
}

#[tokio::test]
async fn a_refreshed_token_keeps_its_stream_open() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    gateway.pass(seconds(900)).await;
    let longer = chat.line.refresh().await.is(200);
    let line = chat.line.with(longer["token"].as_str().expect("a text"));
    let chat = chat.over(line);
    gateway.pass(seconds(1_799)).await;
    chat.says("hi").await;
    stream.expect("hi").await;
    gateway.pass(seconds(1)).await;
    assert!(matches!(stream.end().await, Frame::Close(1008, _)));
}

#[tokio::test]
async fn a_refreshed_token_keeps_no_other_clients_stream_open() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    // One that a secret let in: a session of its own.
    let other = gateway
        .line("site-one")
        .reconnect(&chat.id, None)
        .await
        .is(200);
    let mut other = Chat::of(&chat.line, &other, "ann").stream().await;
    gateway.pass(seconds(900)).await;
    chat.line.refresh().await.is(200);
    gateway.pass(seconds(900)).await;
    assert!(matches!(other.end().await, Frame::Close(1008, _)));
}

#[tokio::test]
async fn a_gateway_that_stops_says_goodbye() {
    let mut gateway = quiet().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    chat.says("hi").await;
    stream.expect("hi").await;
    gateway.begin_stop();
    assert_eq!(
        stream.frame().await,
        Frame::Close(1001, "shutting down".to_owned())
    );
    gateway.stopped().await;
    gateway.start_again().await;
    let mut chat = chat.at(&gateway);
    chat.back(Some("")).await.expect("hi").await;
}

#[tokio::test]
async fn a_stream_takes_the_token_of_its_url_and_nothing_else() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let other = gateway.chat().await;
    let base = chat.url.split_once("&t=").expect("a token").0;
    for token in [
        "site-one",
        "",
        "x",
        &chat.token,
        token_of(&other.url),
        &format!("{}x", token_of(&chat.url)),
    ] {
        let url = format!("{base}&t={token}");
        chat.line
            .open(&url)
            .await
            .err()
            .expect("refused")
            .refused_by(403);
    }
    chat.line
        .open(base)
        .await
        .err()
        .expect("refused")
        .refused_by(401);
    // The first of two counts.
    let twice = format!("{base}&t=x&t={}", token_of(&chat.url));
    chat.line
        .open(&twice)
        .await
        .err()
        .expect("refused")
        .refused_by(403);
    // And a stream's token is good for nothing else.
    let line = chat.line.with(token_of(&chat.url));
    line.history(&chat.id, None).await.refused(403, "Forbidden");
    line.refresh().await.refused(403, "Forbidden");
    chat.stream().await;
}

#[tokio::test]
async fn a_url_is_of_its_conversation() {
    let gateway = quiet().await;
    let (chat, other) = (gateway.chat().await, gateway.chat().await);
    let url = chat.url.replace(&chat.id, &other.id);
    chat.line
        .open(&url)
        .await
        .err()
        .expect("refused")
        .refused_by(403);
    let unknown = chat.url.replace(&chat.id, "none");
    chat.line
        .open(&unknown)
        .await
        .err()
        .expect("refused")
        .refused_by(403);
}

#[tokio::test]
async fn a_url_with_a_strange_watermark_shows_everything() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    chat.says("hi").await;
    let token = token_of(&chat.url);
    let base = chat.url.split_once('?').expect("a query").0;
    for watermark in ["", "null", "undefined", "-", "%ff", "%00"] {
        let url = format!("{base}?watermark={watermark}&t={token}");
        chat.line
            .open(&url)
            .await
            .expect("let in")
            .expect("hi")
            .await;
    }
    let ahead = format!("{base}?watermark=99999999999999999999999&t={token}");
    let mut stream = chat.line.open(&ahead).await.expect("let in");
    chat.says("new").await;
    stream.expect("new").await;
}

#[tokio::test]
async fn a_client_that_is_gone_for_a_minute_is_given_up() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    chat.says("hi").await;
    stream.expect("hi").await;
    assert!(gateway.metric("turnwire_watchers ").await > 0.5);
    // It answers no ping, because nobody reads.
    for _ in 0..6 {
        gateway.pass(seconds(15)).await;
    }
    assert_eq!(stream.end().await, Frame::Gone);
}

#[tokio::test]
async fn there_are_no_more_streams_than_watchers_are_allowed() {
    let setup = Gateway::setup().config(|config| {
        config.limits.watchers = 1;
        config.limits.watch_report_interval = seconds(365 * 24 * 3600);
    });
    let gateway = setup.start().await;
    let (chat, other) = (gateway.chat().await, gateway.chat().await);
    let _stream = chat.stream().await;
    let refused = other.line.open(&other.url).await.err().expect("full");
    refused.refused_by(503);
    assert!(refused.header("retry-after").is_some());
}
