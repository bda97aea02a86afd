//! What is not logged, as web chats see it: typing, and replies that grow (reference, sections 3 and 6).

use std::time::Duration;

use serde_json::{Value, json};
use turnwire::proto::v1;
use turnwire::proto::v1::CancelReason;
use turnwire::proto::v1::partial::Content;

use super::quiet;
use crate::harness::{Bot, Chat, Gateway, seconds};

const INTERVAL: Duration = Duration::from_millis(250);

/// A chat whose user has asked something. The bot has the delivery.
async fn asked(gateway: &Gateway) -> (Bot, Chat, v1::Delivery) {
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    bot.acks(&update).await;
    chat.says("why?").await;
    let why = bot.next_delivery().await;
    (bot, chat, why)
}

fn typing() -> Value {
    json!({"type": "typing", "from": {"id": "ann"}})
}

#[tokio::test]
async fn a_bot_is_told_that_a_user_types_and_is_handed_nothing() {
    let gateway = quiet().await;
    let (mut bot, chat, why) = asked(&gateway).await;
    bot.acks(&why).await;
    let id = chat.posts(&typing()).await;
    let shown = bot.ephemeral().await.activity.expect("an activity");
    assert_eq!(shown.id.as_deref(), Some(&*id));
    assert_eq!(shown.from.and_then(|from| from.id).as_deref(), Some("ann"));
    bot.expect_nothing().await;
}

#[tokio::test]
async fn typing_starts_no_conversation_and_lets_nobody_in() {
    let gateway = quiet().await;
    let mut bot = gateway.bot("echo").attach().await;
    let line = gateway.line("site-one");
    let user = json!({"user": {"id": "dl_ann"}});
    let generated = line.generate(&user).await.is(200);
    let token = generated["token"].as_str().expect("a token");
    let id = generated["conversationId"].as_str().expect("an id");
    let posted = line.with(token).post(id, &typing()).await.is(200);
    assert!(posted["id"].is_string(), "{posted}");
    bot.expect_nothing().await;
    bot.expect_quiet().await;
    line.post("nowhere", &typing()).await.refused_by(404);
}

#[tokio::test]
async fn typing_moves_no_watermark() {
    let gateway = quiet().await;
    let (bot, chat, _) = asked(&gateway).await;
    let mut stream = chat.stream().await;
    let before = stream.expect("why?").await;
    bot.types("site", &chat.id);
    let (typing, after) = stream.entry().await;
    assert_eq!(
        (&typing["type"], &typing["from"]["role"]),
        (&json!("typing"), &json!("bot"))
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_reply_grows_in_one_bubble_and_ends_as_a_message() {
    let gateway = quiet().await;
    let (mut bot, chat, why) = asked(&gateway).await;
    let mut stream = chat.stream().await;
    let asked = stream.expect("why?").await;
    bot.streams(&why, "Be").await;
    let (first, mark) = stream.entry().await;
    assert_eq!(mark, asked, "what is not logged moves nothing");
    let id = &first["id"];
    assert_eq!(
        (&first["type"], &first["text"], &first["channelData"]),
        (
            &json!("typing"),
            &json!("Be"),
            &json!({"streamType": "streaming", "streamId": id, "streamSequence": 1})
        )
    );
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "cause").await;
    let second = stream.next().await;
    assert_eq!(
        (&second["text"], &second["channelData"]["streamSequence"]),
        (&json!("Because"), &json!(2))
    );
    assert_ne!(second["id"], *id);
    bot.commits(&why, &["Because."]).await;
    let (whole, mark) = stream.entry().await;
    assert_eq!(
        (&whole["type"], &whole["text"]),
        (&json!("message"), &json!("Because."))
    );
    assert_eq!(
        whole["channelData"],
        json!({"streamType": "final", "streamId": id})
    );
    assert_ne!(mark, asked);
    assert_eq!(
        chat.texts().await,
        ["why?", "Because."],
        "who polls sees the whole alone"
    );
}

#[tokio::test]
async fn who_comes_while_a_reply_grows_is_first_shown_the_id_that_names_it() {
    let gateway = quiet().await;
    let (mut bot, chat, why) = asked(&gateway).await;
    let mut early = chat.stream().await;
    early.expect("why?").await;
    bot.streams(&why, "Be").await;
    let id = early.next().await["id"].clone();
    let mut chat = chat.clone();
    let mut late = chat.back(None).await;
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "cause").await;
    let shown = late.next().await;
    assert_eq!(
        (&shown["id"], &shown["channelData"]["streamSequence"]),
        (&id, &json!(2))
    );
    gateway.pass(INTERVAL).await;
    bot.streams(&why, "!").await;
    assert_ne!(late.next().await["id"], id);
}

#[tokio::test]
async fn a_reply_that_breaks_off_ends_as_a_message_that_is_not_kept() {
    let gateway = quiet().await;
    let (mut bot, chat, why) = asked(&gateway).await;
    let mut stream = chat.stream().await;
    let asked = stream.expect("why?").await;
    bot.streams(&why, "The answer is").await;
    let id = stream.next().await["id"].clone();
    drop(bot);
    gateway.settle().await;
    gateway.pass(seconds(10)).await;
    let (end, mark) = stream.entry().await;
    assert_eq!(
        (&end["type"], &end["text"]),
        (&json!("message"), &json!("The answer is…"))
    );
    assert_eq!(
        end["channelData"],
        json!({"streamType": "final", "streamId": id})
    );
    assert_eq!(end["entities"][0]["streamResult"], "error");
    assert_eq!(mark, asked);
    assert_eq!(chat.texts().await, ["why?"]);
}

#[tokio::test]
async fn a_web_chat_stops_a_reply_by_an_event() {
    let gateway = quiet().await;
    let (mut bot, chat, why) = asked(&gateway).await;
    let mut stream = chat.stream().await;
    stream.expect("why?").await;
    bot.streams(&why, "On and on").await;
    let id = stream.next().await["id"].clone();
    let stop = json!({"type": "event", "name": "turnwire/stopStreaming",
        "value": {"streamId": id}, "from": {"id": "ann"}});
    chat.posts(&stop).await;
    bot.expect_cancel(&why, 0, CancelReason::UserStopped).await;
}

#[tokio::test]
async fn a_channel_that_cannot_show_pieces_shows_the_message_alone() {
    // The secret is `plain-secret`.
    let plain = "[[channels]]\nid = 'plain'\nkind = 'direct_line'\nbot = 'echo'\n\
         capabilities = []\nsecrets_sha256 = \
         'cc0e7608b73ea73b08fd28b582c21ba4ce5a0b1c9202bf7d2dcc85366205b622'\n";
    let gateway = Gateway::setup().and(plain).start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = Chat::start(&gateway.line("plain-secret"), "ann").await;
    let update = bot.next_delivery().await;
    bot.acks(&update).await;
    let mut stream = chat.stream().await;
    chat.says("why?").await;
    stream.expect("why?").await;
    let why = bot.next_delivery().await;
    bot.types("plain", &chat.id);
    bot.streams(&why, "Be").await;
    bot.commits(&why, &["Because"]).await;
    stream.expect("Because").await;
}

#[tokio::test]
async fn a_status_line_is_shown_as_one() {
    let gateway = quiet().await;
    let (bot, chat, why) = asked(&gateway).await;
    let mut stream = chat.stream().await;
    stream.expect("why?").await;
    bot.write_piece(&why, 0, Content::Informative("Searching…".to_owned()));
    let shown = stream.next().await;
    assert_eq!(
        (&shown["text"], &shown["channelData"]["streamType"]),
        (&json!("Searching…"), &json!("informative"))
    );
}
