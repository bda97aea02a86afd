//! Principals and secrets: who was let in before goes on for as long as it would be let in.

use serde_json::json;
use tonic::Code;
use turnwire::auth::secret::Digest;

use crate::harness::{Frame, Gateway, Watcher, message, refused};

fn principal(name: &str, token: &str, roles: &str) -> String {
    let digest = Digest::of(token);
    format!("\n[[principals]]\nname = \"{name}\"\ntoken_sha256 = \"{digest}\"\nroles = [{roles}]\n")
}

/// A bot, a channel, a reader, and one to look after the harness.
fn everyone() -> Vec<String> {
    vec![
        principal("bot", "bot", "\"bot:echo\""),
        principal("channel", "channel", "\"channel:web\", \"channel:queue\""),
        principal("reader", "reader", "\"reader\""),
    ]
}

fn with(principals: &[String]) -> impl FnOnce(&str) -> String {
    let principals = principals.concat();
    move |config| format!("{config}{principals}")
}

async fn guarded() -> Gateway {
    Gateway::setup().and(&everyone().concat()).start().await
}

#[tokio::test]
async fn streams_end_when_their_token_is_taken_away_and_others_go_on() {
    let mut gateway = guarded().await;
    let mut bot = gateway.bot("echo").token("bot").attach().await;
    let mut adapter = gateway.adapter("queue").token("channel").attach().await;
    let channel = gateway.wire_with("channel").await;
    let user = gateway.user("c1").over(&channel);
    user.says("hi").await;
    bot.expect("c1", "hi", 1).await;
    let reader = gateway.wire_with("reader").await;
    let mut watcher = Watcher::start(&reader, "c1", None).await.expect("it may");
    watcher.expect(1, "hi").await;

    // The bot's is replaced, the reader is gone.
    let mut principals = everyone();
    principals[0] = principal("bot", "bot-2", "\"bot:echo\"");
    principals.pop();
    gateway.reload(with(&principals)).await.expect("in force");
    bot.expect_end(Code::Unauthenticated, "TOKEN_UNKNOWN").await;
    refused(watcher.step().await, Code::Unauthenticated, "TOKEN_UNKNOWN");
    let again = gateway.bot("echo").token("bot").try_attach().await;
    refused(again.map(drop), Code::Unauthenticated, "TOKEN_UNKNOWN");

    adapter.barrier().await;
    user.says("more").await;
    // What the stream held goes to the next one.
    let mut bot = gateway.bot("echo").token("bot-2").attach().await;
    bot.expect("c1", "hi", 2).await;
}

#[tokio::test]
async fn streams_end_when_their_role_is_taken_away() {
    let mut gateway = guarded().await;
    let mut bot = gateway.bot("echo").token("bot").attach().await;
    let mut adapter = gateway.adapter("queue").token("channel").attach().await;
    let channel = gateway.wire_with("channel").await;
    gateway.user("c1").over(&channel).says("hi").await;
    let mut own = Watcher::start(&channel, "c1", None).await.expect("it may");
    own.expect(1, "hi").await;
    let reader = gateway.wire_with("reader").await;
    let mut watcher = Watcher::start(&reader, "c1", None).await.expect("it may");
    watcher.expect(1, "hi").await;

    let principals = [
        principal("bot", "bot", "\"bot:other\""),
        principal("channel", "channel", "\"channel:web\""),
        principal("reader", "reader", "\"bot:other\""),
    ];
    gateway.reload(with(&principals)).await.expect("in force");
    bot.expect_end(Code::PermissionDenied, "ROLE_MISSING").await;
    adapter
        .expect_end(Code::PermissionDenied, "ROLE_MISSING")
        .await;
    refused(watcher.step().await, Code::PermissionDenied, "ROLE_MISSING");
    let again = gateway.bot("echo").token("bot").try_attach().await;
    refused(again.map(drop), Code::PermissionDenied, "ROLE_MISSING");

    // One that still sees the conversation goes on.
    gateway.user("c1").over(&channel).says("more").await;
    own.expect(2, "more").await;
}

#[tokio::test]
async fn a_gateway_that_is_no_longer_open_ends_the_streams_of_nobody() {
    let mut gateway = Gateway::start().await;
    let mut nobody = gateway.bot("echo").attach().await;
    let mut somebody = gateway
        .bot("echo")
        .instance("two")
        .token("bot")
        .attach()
        .await;
    gateway.reload(with(&everyone())).await.expect("in force");
    nobody
        .expect_end(Code::Unauthenticated, "TOKEN_MISSING")
        .await;
    somebody.barrier().await;
    let refusal = gateway.user("c1").tries(message("hi")).await;
    refused(refusal, Code::Unauthenticated, "TOKEN_MISSING");
    gateway.reload(str::to_owned).await.expect("in force");
    gateway.user("c1").says("hi").await;
    somebody.expect("c1", "hi", 1).await;
}

#[tokio::test]
async fn a_stream_that_has_not_said_hello_is_let_in_by_what_is_in_force_then() {
    let mut gateway = guarded().await;
    let wire = gateway.wire_with("bot").await;
    let mut bot = crate::harness::Bot::open(&wire)
        .await
        .expect("it is let in");
    gateway
        .reload(with(&everyone()[1..]))
        .await
        .expect("in force");
    bot.write(turnwire::proto::v1::subscribe_request::Frame::Hello(
        turnwire::proto::v1::Hello {
            bot_id: "echo".to_owned(),
            instance_id: "one".to_owned(),
            ..Default::default()
        },
    ));
    bot.expect_end(Code::Unauthenticated, "TOKEN_UNKNOWN").await;
}

#[tokio::test]
async fn sockets_end_with_the_secret_of_their_token_and_its_tokens_are_refused() {
    let mut gateway = Gateway::start().await;
    let by_one = gateway.chat().await;
    let by_two = crate::harness::Chat::start(&gateway.line("site-two"), "bob").await;
    let mut first = by_one.stream().await;
    let mut second = by_two.stream().await;
    let one = "    \"c3587bab2324533079bf7be7254df8a5c50a5de28c72ab0fb49ea379d8103036\",\n";
    gateway
        .reload(|config| config.replace(one, ""))
        .await
        .expect("in force");
    assert_eq!(
        first.end().await,
        Frame::Close(1008, "token revoked".to_owned())
    );
    by_one.line.refresh().await.refused(403, "Forbidden");
    gateway
        .line("site-one")
        .generate(&json!({}))
        .await
        .refused(403, "Forbidden");
    by_two.says("still here").await;
    second.expect("still here").await;
}

#[tokio::test]
async fn a_site_that_is_removed_is_served_no_more_and_one_that_is_added_is() {
    let mut gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let mut stream = chat.stream().await;
    let removed = |config: &str| {
        let (before, site) = config
            .split_once("[[channels]]\nid = \"site\"")
            .expect("it");
        let (_, after) = site.split_once("[[channels]]").expect("another");
        format!("{before}[[channels]]{after}")
    };
    gateway.reload(removed).await.expect("in force");
    let end = stream.end().await;
    assert_eq!(end, Frame::Close(1008, "token revoked".to_owned()));
    chat.line.refresh().await.refused(403, "Forbidden");
    gateway.reload(str::to_owned).await.expect("in force");
    chat.line.refresh().await.is(200);
    chat.says("back").await;
}

#[tokio::test]
async fn the_first_site_is_served_and_its_tokens_outlive_the_gateway() {
    let sites = |config: &str| {
        let (before, _) = config.split_once("# The secrets are").expect("sites");
        before.to_owned()
    };
    let mut gateway = Gateway::start().await;
    gateway.rewrite(sites);
    gateway.restart().await;
    gateway
        .line("site-one")
        .generate(&json!({}))
        .await
        .refused(403, "Forbidden");
    gateway.reload(str::to_owned).await.expect("in force");
    let chat = gateway.chat().await;
    chat.says("hi").await;
    gateway.restart().await;
    chat.at(&gateway).says("again").await;
}

#[tokio::test]
async fn origins_are_those_in_force() {
    let mut gateway = Gateway::start().await;
    let line = gateway.line("site-one").page("https://elsewhere.example");
    line.generate(&json!({})).await.is(200);
    gateway
        .reload(|config| {
            let site = "id = \"site\"\n";
            let trusted = "trusted_origins = [\"https://www.example.org\"]\n";
            config.replace(site, &format!("{site}{trusted}"))
        })
        .await
        .expect("in force");
    line.generate(&json!({})).await.refused(403, "Forbidden");
    let line = gateway.line("site-one").page("https://www.example.org");
    line.generate(&json!({})).await.is(200);
}
