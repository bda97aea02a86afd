//! Who is let in (reference, section 1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::quiet;
use crate::harness::{Answer, Chat, Gateway, Line, says, seconds};

/// Every operation on a conversation, with a token or a secret.
async fn all(line: &Line, id: &str) -> Vec<Answer> {
    vec![
        line.history(id, None).await,
        line.reconnect(id, Some("")).await,
        line.post(id, &says("ann", "stolen")).await,
    ]
}

/// Every operation.
async fn each(line: &Line, id: &str) -> Vec<Answer> {
    let mut answers = all(line, id).await;
    answers.push(line.generate(&Value::Null).await);
    answers.push(line.refresh().await);
    answers.push(line.start(&Value::Null).await);
    answers.push(line.call("GET", "/session/getsessionid", "").await);
    answers
}

#[tokio::test]
async fn without_a_credential_nobody_is_let_in() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    for answer in each(&chat.line.anonymous(), &chat.id).await {
        answer.refused(401, "Unauthorized");
    }
    for malformed in [
        "Bearer",
        "Bearer ",
        "site-one",
        "Basic site-one",
        "Bearer\tx",
        "Bearer \u{e9}",
    ] {
        let line = chat.line.anonymous().header("authorization", malformed);
        line.history(&chat.id, None)
            .await
            .refused(401, "Unauthorized");
    }
    let line = chat
        .line
        .anonymous()
        .header("authorization", "bearer   site-one ");
    line.history(&chat.id, None).await.is(200);
    assert_eq!(chat.texts().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_secret_lets_nobody_in() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    for wrong in [
        "site-on",
        "site-one.",
        "SITE-ONE",
        "site",
        "x",
        &"x".repeat(20_000),
    ] {
        for answer in each(&chat.line.with(wrong), &chat.id).await {
            answer.refused(403, "Forbidden");
        }
    }
    assert_eq!(chat.texts().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_token_is_of_one_conversation_on_one_channel() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let sibling = gateway.chat().await;
    let foreign = Chat::start(&gateway.line("elsewhere"), "ann").await;
    for line in [&sibling.line, &foreign.line] {
        for answer in all(line, &chat.id).await {
            answer.refused(403, "Forbidden");
        }
        // What does not exist is no more theirs.
        for answer in all(line, "none").await {
            answer.refused(403, "Forbidden");
        }
    }
    assert_eq!(chat.texts().await, Vec::<String>::new());
}

#[tokio::test]
async fn two_secrets_are_good_at_one_time_and_a_token_goes_with_the_one_that_made_it() {
    let mut gateway = quiet().await;
    let by_one = gateway.chat().await;
    let by_two = Chat::start(&gateway.line("site-two"), "bob").await;
    let grant = gateway
        .line("site-one")
        .generate(&Value::Null)
        .await
        .is(200);
    let unstarted = grant["token"].as_str().expect("a text").to_owned();
    let refreshed = by_one.line.refresh().await.is(200);
    let refreshed = refreshed["token"].as_str().expect("a text").to_owned();
    let back = gateway
        .line("site-two")
        .reconnect(&by_one.id, Some(""))
        .await
        .is(200);
    by_one.says("hi").await;
    by_two.says("hi").await;

    let one = "    \"c3587bab2324533079bf7be7254df8a5c50a5de28c72ab0fb49ea379d8103036\",\n";
    gateway.rewrite(|config| {
        assert!(config.contains(one), "the first of two");
        config.replace(one, "")
    });
    gateway.restart().await;
    let (by_one, by_two) = (by_one.at(&gateway), by_two.at(&gateway));
    for token in [&by_one.token, &refreshed, &unstarted, "site-one"] {
        for answer in each(&by_one.line.with(token), &by_one.id).await {
            answer.refused(403, "Forbidden");
        }
    }
    by_one
        .line
        .open(&by_one.url)
        .await
        .err()
        .expect("gone")
        .refused_by(403);
    by_two.says("still here").await;
    by_two.stream().await.expect("hi").await;
    // What the other secret let in stays in.
    let back = Chat::of(&by_one.line, &back, "ann");
    assert_eq!(back.texts().await, ["hi"]);
    back.stream().await.expect("hi").await;
}

#[tokio::test]
async fn tokens_outlive_the_gateway_that_made_them() {
    let mut gateway = Gateway::setup().on_disk().start().await;
    let chat = gateway.chat().await;
    chat.says("one").await;
    gateway.restart().await;
    let chat = chat.at(&gateway);
    chat.says("two").await;
    gateway.crash().await;
    let chat = chat.at(&gateway);
    let mut stream = chat.stream().await;
    stream.expect("one").await;
    stream.expect("two").await;
    chat.line.refresh().await.is(200);
}

#[tokio::test]
async fn another_gateways_tokens_are_not_known() {
    let gateway = Gateway::start().await;
    let other = Gateway::start().await;
    let chat = gateway.chat().await;
    for answer in all(&chat.line.at(&other), &chat.id).await {
        answer.refused(403, "Forbidden");
    }
}

#[tokio::test]
async fn how_long_a_token_is_good_is_configured() {
    let mut gateway = quiet().await;
    gateway.rewrite(|config| {
        config.replace(
            "id = \"site\"\n",
            "id = \"site\"\ntoken_lifetime = \"2m\"\n",
        )
    });
    gateway.restart().await;
    let chat = gateway.chat().await;
    assert_eq!(chat.line.refresh().await.is(200)["expires_in"], 120);
    gateway.pass(seconds(120)).await;
    chat.line.refresh().await.refused(403, "TokenExpired");
}

#[tokio::test]
async fn a_forged_token_is_not_known() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let other = gateway.chat().await;
    let parts: Vec<&str> = chat.token.split('.').collect();
    let others: Vec<&str> = other.token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        encode(&claims)
    };
    let none = encode(&json!({"alg": "none", "typ": "JWT"}));
    let other_case = encode(&json!({"alg": "nOnE", "typ": "JWT"}));
    let asymmetric = encode(&json!({"alg": "RS256", "typ": "JWT"}));
    let signed = |key: &[u8], header: &str, claims: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
        mac.update(format!("{header}.{claims}").as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{header}.{claims}.{signature}")
    };
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let forged = [
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{other_case}.{body}."),
        format!("{asymmetric}.{body}.{signature}"),
        format!("{header}.{body}."),
        format!("{header}.{body}.{}", others[2]),
        format!("{header}.{}.{signature}", others[1]),
        format!("{header}.{}.{signature}", changed("conv", json!("none"))),
        format!("{header}.{}.{signature}", changed("user", json!("bob"))),
        format!(
            "{header}.{}.{signature}",
            changed("exp", json!(99_999_999_999_u64))
        ),
        format!(
            "{header}.{}.{signature}",
            changed("site", json!("elsewhere"))
        ),
        format!("{header}.{}.{signature}", changed("use", json!("stream"))),
        signed(b"", header, body),
        signed(b"site-one", header, body),
        signed(b"secret", header, &changed("user", json!("bob"))),
        signed(header.as_bytes(), &none, body),
        format!("{}.{}.{}", body, header, signature),
        format!("{header}.{body}.{}", &signature[..signature.len() - 2]),
        format!("{header}.{body}.{signature}="),
        format!("{header}.{body}.{signature}A"),
        format!("{header}.{body}.{signature}.{signature}"),
        format!("{header}.{body}"),
        "ey..".to_owned(),
        "eyJ.eyJ.eyJ".to_owned(),
        "...".to_owned(),
        format!("ey.{}.x", "A".repeat(60_000)),
    ];
    for token in &forged {
        for answer in all(&chat.line.with(token), &chat.id).await {
            answer.refused(403, "Forbidden");
        }
        let base = chat.url.split_once("&t=").expect("a token").0;
        if token.len() < 60_000 {
            let url = format!("{base}&t={token}");
            chat.line
                .open(&url)
                .await
                .err()
                .expect("refused")
                .refused_by(403);
        }
    }
    assert_eq!(chat.texts().await, Vec::<String>::new());
}
