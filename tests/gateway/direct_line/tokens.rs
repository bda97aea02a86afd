//! Making tokens and making them good for longer (reference, sections 2.1, 2.2 and 2.8).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::quiet;
use crate::harness::{Chat, Gateway, says, seconds};

/// What a page reads in a token.
fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).expect("three parts");
    let middle = URL_SAFE_NO_PAD.decode(middle).expect("base64url");
    serde_json::from_slice(&middle).expect("JSON")
}

#[tokio::test]
async fn generating_makes_a_conversation_and_tells_nobody() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let line = gateway.line("site-one");
    let first = line.generate(&Value::Null).await.is(200);
    let second = line.generate(&json!({})).await.is(200);
    for grant in [&first, &second] {
        assert_eq!(grant["expires_in"], 1_800);
        assert!(grant.get("streamUrl").is_none(), "{grant}");
        let id = grant["conversationId"].as_str().expect("a text");
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        assert!(id.len() <= 100 && id.bytes().all(is_plain), "{id}");
        assert_eq!(
            claims(grant["token"].as_str().expect("a text"))["conv"],
            *id
        );
    }
    assert_ne!(first["conversationId"], second["conversationId"]);
    bot.expect_nothing().await;
}

#[tokio::test]
async fn a_token_says_whose_it_is_where_a_page_reads_it() {
    let gateway = Gateway::start().await;
    let line = gateway.line("site-one");
    for parameters in [
        json!({"user": {"id": "dl_ann", "name": "Ann"}}),
        json!({"User": {"Id": "dl_ann", "Name": "Ann"}, "eTag": "x", "else": [1]}),
    ] {
        let grant = line.generate(&parameters).await.is(200);
        let token = grant["token"].as_str().expect("a text");
        assert_eq!(claims(token)["user"], "dl_ann");
        let longer = line.with(token).refresh().await.is(200);
        assert_eq!(
            claims(longer["token"].as_str().expect("a text"))["user"],
            "dl_ann"
        );
    }
    let grant = line.generate(&json!({"user": {}})).await.is(200);
    let claims = claims(grant["token"].as_str().expect("a text"));
    assert!(claims.get("user").is_none(), "{claims}");
}

#[tokio::test]
async fn what_is_wrong_with_parameters_is_said() {
    let gateway = Gateway::start().await;
    let line = gateway.line("site-one");
    for path in ["/tokens/generate", "/conversations"] {
        for body in ["{", "{'user':{}}", "x"] {
            line.call("POST", path, body)
                .await
                .refused(400, "BadSyntax");
        }
        for body in [
            "[]",
            "7",
            r#"{"user":"ann"}"#,
            r#"{"user":{"id":7}}"#,
            r#"{"user":{"id":"a\u0000b"}}"#,
            r#"{"trustedOrigins":"https://a.example"}"#,
            r#"{"trustedOrigins":["a.example"]}"#,
        ] {
            line.call("POST", path, body)
                .await
                .refused(400, "BadArgument");
        }
    }
}

#[tokio::test]
async fn a_token_generates_no_other() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    chat.line
        .generate(&json!({}))
        .await
        .refused(403, "Forbidden");
}

#[tokio::test]
async fn refreshing_takes_a_token() {
    let gateway = Gateway::start().await;
    gateway
        .line("site-one")
        .refresh()
        .await
        .refused(403, "Forbidden");
}

#[tokio::test]
async fn a_refreshed_token_is_good_for_longer_and_the_old_one_until_it_ends() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    gateway.pass(seconds(1_000)).await;
    let longer = chat.line.refresh().await.is(200);
    assert_eq!(longer["conversationId"], chat.id);
    assert_eq!(longer["expires_in"], 1_800);
    let newer = chat.line.with(longer["token"].as_str().expect("a text"));
    gateway.pass(seconds(799)).await;
    chat.line.history(&chat.id, None).await.is(200);
    gateway.pass(seconds(1)).await;
    for answer in [
        chat.line.refresh().await,
        chat.line.history(&chat.id, None).await,
        chat.line.reconnect(&chat.id, None).await,
        chat.line.start(&Value::Null).await,
        chat.line.post(&chat.id, &says("ann", "hi")).await,
        chat.line.call("GET", "/session/getsessionid", "").await,
    ] {
        answer.refused(403, "TokenExpired");
    }
    newer.history(&chat.id, None).await.is(200);
    newer.refresh().await.is(200);
    gateway.pass(seconds(1_000)).await;
    newer.refresh().await.refused(403, "TokenExpired");
}

#[tokio::test]
async fn a_session_has_one_id_as_long_as_its_cookie_is_shown() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let path = "/session/getsessionid";
    let first = chat.line.call("GET", path, "").await;
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    let id = first.is(200)["sessionId"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(!id.is_empty());
    let (pair, scope) = cookie.split_once(';').expect("more than the value");
    assert!(pair.ends_with(&id), "{cookie}");
    assert!(scope.contains("HttpOnly"), "{cookie}");
    let known = chat.line.header("cookie", &format!("a=b; {pair}; c=d"));
    assert_eq!(known.call("GET", path, "").await.is(200)["sessionId"], *id);
    let other = chat.line.call("GET", path, "").await.is(200);
    assert_ne!(other["sessionId"], *id);
    for forged in [
        "turnwire_session=x",
        "turnwire_session=a%0d%0ab",
        "turnwire_session=",
    ] {
        let answer = chat
            .line
            .header("cookie", forged)
            .call("GET", path, "")
            .await;
        let id = answer.is(200)["sessionId"]
            .as_str()
            .expect("an id")
            .to_owned();
        assert!(id.len() > 20, "made anew: {id}");
    }
    chat.line
        .anonymous()
        .call("GET", path, "")
        .await
        .refused(401, "Unauthorized");
}

#[tokio::test]
async fn under_enhanced_authentication_a_token_needs_a_user_and_a_page() {
    let gateway = Gateway::start().await;
    let line = gateway.line("enhanced");
    line.generate(&json!({}))
        .await
        .refused(400, "MissingProperty");
    let ann = json!({"user": {"id": "ann"}, "trustedOrigins": ["https://a.example"]});
    line.generate(&ann).await.refused(400, "BadArgument");

    let unlisted = line
        .generate(&json!({"user": {"id": "dl_ann"}}))
        .await
        .is(200);
    let unlisted = line.with(unlisted["token"].as_str().expect("a text"));
    let page = unlisted.page("https://a.example");
    page.start(&Value::Null)
        .await
        .refused(400, "MissingProperty");

    let listed = json!({"user": {"id": "dl_ann"}, "trustedOrigins": ["https://a.example"]});
    let listed = line.generate(&listed).await.is(200);
    let listed = line.with(listed["token"].as_str().expect("a text"));
    listed.start(&Value::Null).await.refused(403, "Forbidden");
    let other = listed.page("https://b.example");
    other.start(&Value::Null).await.refused(403, "Forbidden");
    let page = listed.page("https://a.example");
    let started = page.start(&Value::Null).await.is(201);
    let chat = Chat::of(&page, &started, "mallory");
    chat.says("hi").await;
    assert_eq!(chat.everything().await[0]["from"]["id"], "dl_ann");
    listed
        .open(&chat.url)
        .await
        .err()
        .expect("no page")
        .refused_by(403);
    chat.stream().await.expect("hi").await;
}
