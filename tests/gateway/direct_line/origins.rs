//! Which pages are let in, and what their browsers are told (reference, sections 1 and 4).

use serde_json::{Value, json};

use super::quiet;
use crate::harness::{Answer, Chat, Gateway, says};

const TRUSTED: [&str; 4] = [
    "https://www.example.org",
    "http://localhost",
    "http://localhost:3000",
    "http://localhost:65535",
];

const UNTRUSTED: [&str; 9] = [
    "https://example.org",
    "http://www.example.org",
    "https://www.example.org:8443",
    "https://www.example.org.evil.example",
    "https://localhost:3000",
    "http://localhost.evil.example",
    "http://localhost:80.evil.example",
    "null",
    "",
];

#[tokio::test]
async fn only_pages_that_are_listed_are_let_in() {
    let gateway = quiet().await;
    let line = gateway.line("trusting");
    // A program is no page.
    let chat = Chat::start(&line, "ann").await;
    for origin in TRUSTED {
        let page = chat.over(chat.line.page(origin));
        page.says("hi").await;
        page.stream().await.expect("hi").await;
        line.page(origin).generate(&Value::Null).await.is(200);
    }
    for origin in UNTRUSTED {
        let page = chat.line.page(origin);
        for answer in [
            page.history(&chat.id, None).await,
            page.reconnect(&chat.id, None).await,
            page.post(&chat.id, &says("ann", "hi")).await,
            page.refresh().await,
            page.start(&Value::Null).await,
            page.call("GET", "/session/getsessionid", "").await,
            line.page(origin).generate(&Value::Null).await,
            line.page(origin).start(&Value::Null).await,
        ] {
            answer.refused(403, "Forbidden");
        }
        page.open(&chat.url)
            .await
            .err()
            .expect("untrusted")
            .refused_by(403);
    }
    assert_eq!(chat.texts().await.len(), TRUSTED.len());
}

#[tokio::test]
async fn where_no_page_is_listed_every_page_is_let_in() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    for origin in TRUSTED.iter().chain(&UNTRUSTED) {
        chat.line.page(origin).history(&chat.id, None).await.is(200);
        let opened = chat.line.page(origin).open(&chat.url).await;
        assert!(opened.is_ok(), "{origin}");
    }
}

#[tokio::test]
async fn a_token_may_list_its_own_pages_where_its_channel_lists_none() {
    let gateway = quiet().await;
    let own = json!({"trustedOrigins": ["https://a.example"], "user": {"id": "ann"}});
    let tokened = async |secret: &str| {
        let line = gateway.line(secret);
        let grant = line.generate(&own).await.is(200);
        line.with(grant["token"].as_str().expect("a text"))
    };
    let line = tokened("site-one").await;
    line.page("https://b.example")
        .start(&Value::Null)
        .await
        .refused(403, "Forbidden");
    let page = line.page("https://a.example");
    let chat = Chat::of(&page, &page.start(&Value::Null).await.is(201), "ann");
    chat.says("hi").await;
    chat.stream().await.expect("hi").await;
    let other = line.page("https://b.example");
    other
        .open(&chat.url)
        .await
        .err()
        .expect("untrusted")
        .refused_by(403);
    // What is made of it lists the same.
    let longer = page.refresh().await.is(200);
    let longer = other.with(longer["token"].as_str().expect("a text"));
    longer
        .history(&chat.id, None)
        .await
        .refused(403, "Forbidden");

    let line = tokened("trusting").await;
    line.page("https://a.example")
        .start(&Value::Null)
        .await
        .refused(403, "Forbidden");
    line.page("https://www.example.org")
        .start(&Value::Null)
        .await
        .is(201);
}

/// What a browser wants to read before it shows an answer to its page.
#[track_caller]
fn is_open_to(answer: &Answer, origin: &str) {
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some(origin),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_credential() {
    let gateway = Gateway::start().await;
    let origin = "https://www.example.org";
    for (path, method) in [
        ("/tokens/generate", "POST"),
        ("/tokens/refresh", "POST"),
        ("/conversations", "POST"),
        ("/conversations/x", "GET"),
        ("/conversations/x/activities", "GET"),
        ("/conversations/x/activities", "POST"),
        ("/session/getsessionid", "GET"),
    ] {
        let asked = "authorization,content-type,x-ms-bot-agent,x-requested-with";
        let browser = gateway
            .line("x")
            .anonymous()
            .page(origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", asked);
        let answer = browser.call("OPTIONS", path, "").await;
        assert!([200, 204].contains(&answer.status), "{answer:?}");
        is_open_to(&answer, origin);
        let methods = answer
            .header("access-control-allow-methods")
            .expect("methods");
        assert!(methods.contains(method), "{methods}");
        let headers = answer
            .header("access-control-allow-headers")
            .expect("headers");
        let headers = headers.to_ascii_lowercase();
        assert!(
            asked.split(',').all(|name| headers.contains(name)),
            "{headers}"
        );
        assert!(headers.contains("accept"), "{headers}");
    }
}

#[tokio::test]
async fn a_page_may_read_every_answer_and_every_refusal() {
    let gateway = Gateway::start().await;
    let origin = "http://localhost:3000";
    let chat = gateway.chat().await;
    let page = chat.line.page(origin);
    for answer in [
        page.history(&chat.id, None).await,
        page.history("none", None).await,
        page.with("x").history(&chat.id, None).await,
        page.anonymous().history(&chat.id, None).await,
        page.call(
            "POST",
            &format!("/conversations/{}/activities", chat.id),
            "{",
        )
        .await,
        page.call("GET", "/none", "").await,
        page.call("DELETE", "/conversations", "").await,
        page.call("GET", "/session/getsessionid", "").await,
    ] {
        is_open_to(&answer, origin);
        let exposed = answer
            .header("access-control-expose-headers")
            .unwrap_or_default();
        assert!(exposed.contains("retry-after"), "{answer:?}");
    }
    let evil = gateway.line("trusting").page("https://evil.example");
    let refused = evil.start(&Value::Null).await;
    refused.refused(403, "Forbidden");
    is_open_to(&refused, "https://evil.example");
}
