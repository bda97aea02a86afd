//! Reading by polling (reference, section 2.5).

use serde_json::json;

use super::activity;
use crate::harness::{Gateway, message};

#[tokio::test]
async fn history_goes_on_page_by_page_until_one_is_empty() {
    let setup = Gateway::setup().config(|config| config.limits.page = 3);
    let gateway = setup.start().await;
    let chat = gateway.chat().await;
    let said: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    for text in &said {
        chat.says(text).await;
    }
    assert_eq!(chat.texts().await, said);
}

#[tokio::test]
async fn what_is_not_for_clients_fills_no_page() {
    let setup = Gateway::setup().config(|config| config.limits.page = 2);
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    chat.says("first").await;
    for _ in 0..7 {
        chat.posts(&json!({"type": "typing", "from": {"id": "ann"}}))
            .await;
    }
    let update = bot.next_delivery().await;
    let hidden = json!({"type": "trace", "name": "t"});
    bot.commit_all(update.delivery_id, vec![activity(&hidden); 5]);
    bot.barrier().await;
    chat.says("last").await;
    assert_eq!(chat.texts().await, ["first", "last"]);
    let first = chat.line.history(&chat.id, None).await.is(200);
    let watermark = first["watermark"].as_str().expect("a text");
    let second = chat.line.history(&chat.id, Some(watermark)).await.is(200);
    assert_eq!(second["activities"][0]["text"], "last");
}

#[tokio::test]
async fn history_has_no_typing_and_no_membership() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    let typing = activity(&json!({"type": "typing"}));
    bot.commit_all(update.delivery_id, vec![typing, message("hello")]);
    bot.barrier().await;
    chat.posts(&json!({"type": "typing", "from": {"id": "ann"}}))
        .await;
    chat.posts(&json!({"type": "event", "name": "e", "from": {"id": "ann"}}))
        .await;
    let all = chat.everything().await;
    let kinds: Vec<&str> = all
        .iter()
        .filter_map(|seen| seen["type"].as_str())
        .collect();
    assert_eq!(kinds, ["message", "event"]);
}

#[tokio::test]
async fn an_empty_page_says_where_to_go_on() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let empty = chat.line.history(&chat.id, None).await.is(200);
    assert_eq!(empty["activities"], json!([]));
    chat.says("hi").await;
    let watermark = empty["watermark"].as_str().expect("a text");
    let page = chat.line.history(&chat.id, Some(watermark)).await.is(200);
    assert_eq!(page["activities"][0]["text"], "hi");
    let watermark = page["watermark"].as_str().expect("a text");
    let end = chat.line.history(&chat.id, Some(watermark)).await.is(200);
    assert_eq!(end, json!({"activities": [], "watermark": watermark}));
}

#[tokio::test]
async fn what_clients_are_given_is_whole_and_never_null() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    chat.says("hi").await;
    let update = bot.next_delivery().await;
    bot.acks(&update).await;
    let hi = bot.next_delivery().await;
    bot.commits(&hi, &["hello"]).await;
    let all = chat.everything().await;
    for seen in &all {
        let members = seen.as_object().expect("an object");
        for name in [
            "id",
            "timestamp",
            "from",
            "recipient",
            "channelId",
            "conversation",
            "serviceUrl",
        ] {
            assert!(members.contains_key(name), "`{name}` is missing in {seen}");
        }
        for (name, value) in members {
            assert!(
                !value.is_null() && *value != "",
                "`{name}` says nothing in {seen}"
            );
        }
    }
    assert_eq!(
        (&all[0]["from"]["role"], &all[1]["from"]["role"]),
        (&json!("user"), &json!("bot"))
    );
    assert_eq!(all[1]["recipient"]["id"], "ann");
    assert_eq!(all[1]["replyToId"], all[0]["id"]);
    assert!(all[0]["timestamp"].as_str() <= all[1]["timestamp"].as_str());
}
