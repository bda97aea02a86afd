//! What is said and what opens doors is in no log.

use serde_json::{Value, json};

use crate::harness::{Gateway, Logs, says};

const SAID: &str = "the-text-of-a-message";

#[tokio::test]
async fn no_message_and_no_token_is_logged() {
    let logs = Logs::default();
    let mut gateway = Gateway::setup().logged(&logs).start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    bot.commits(&update, &[SAID]).await;
    chat.says(SAID).await;
    let mut stream = chat.back(Some("")).await;
    stream.expect(SAID).await;
    let longer = chat.line.refresh().await.is(200);
    let longer = longer["token"].as_str().expect("a text").to_owned();
    let forged = format!("{}forged", chat.token);
    let stream_token = chat.url.split_once("&t=").expect("a token").1.to_owned();

    // Refusals of every kind, and what they say to their callers.
    let path = format!("/conversations/{}/activities", chat.id);
    for body in [
        format!("{{\"{SAID}"),
        format!("\"{SAID}\""),
        json!({"type": "message", "text": SAID}).to_string(),
        json!({"type": "message", "text": SAID, "from": {"id": "ann"}, "attachments": SAID})
            .to_string(),
        json!({"type": "message", "text": [SAID], "from": {"id": "ann"}}).to_string(),
    ] {
        let answer = chat.line.call("POST", &path, body).await;
        assert!(!answer.body.to_string().contains(SAID), "{answer:?}");
    }
    for credential in [&forged, &stream_token, "a-wrong-secret"] {
        let answer = chat
            .line
            .with(credential)
            .post(&chat.id, &says("ann", SAID))
            .await;
        answer.refused(403, "Forbidden");
        assert!(!answer.body.to_string().contains(credential), "{answer:?}");
    }
    let url = format!("{}forged", chat.url);
    chat.line
        .open(&url)
        .await
        .err()
        .expect("refused")
        .refused_by(403);
    chat.line
        .with(&longer)
        .generate(&Value::Null)
        .await
        .refused(403, "Forbidden");
    gateway
        .line("trusting")
        .page("https://evil.example")
        .start(&Value::Null)
        .await
        .refused(403, "Forbidden");
    chat.posts(&json!({"type": "endOfConversation", "text": SAID, "from": {"id": "ann"}}))
        .await;
    chat.line
        .post(&chat.id, &says("ann", SAID))
        .await
        .refused(409, "BadArgument");
    drop((stream, bot));
    gateway.stop().await;

    let logged = logs.text();
    assert!(
        logged.contains("refused") && logged.contains("stopped"),
        "{logged}"
    );
    let signature = |token: &str| token.rsplit_once('.').expect("parts").1.to_owned();
    for secret in [
        SAID,
        "site-one",
        "a-wrong-secret",
        &signature(&chat.token),
        &signature(&longer),
        &signature(&stream_token),
    ] {
        assert!(
            !logged.contains(secret),
            "`{secret}` is in the log: {logged}"
        );
    }
}
