//! Activities and what surrounds them, as JSON. The codec itself is the gateway's.

use anyhow::Context;
use serde_json::{Value, json};
use turnwire_client::proto::{Activity, Author, Conversation, LogEntry};

use super::{address, show};

/// An activity in the protocol's JSON.
pub(super) fn encode(activity: &Activity) -> Value {
    // To be crate::activity::json::encode(activity).
    json!({
        "type": activity.r#type,
        "id": activity.id,
        "from": activity.from.as_ref().map(|from| json!({ "id": from.id, "name": from.name })),
        "replyToId": activity.reply_to_id,
        "text": activity.text,
    })
}

/// An activity from the protocol's JSON.
pub(super) fn decode(text: &[u8]) -> anyhow::Result<Activity> {
    // To be crate::activity::json::decode(text).
    let value: Value = serde_json::from_slice(text).context("this is not JSON")?;
    let member = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Activity {
        r#type: member("type"),
        text: member("text"),
        ..Activity::default()
    })
}

/// A position of a conversation's log.
pub(super) fn entry(conversation: &str, entry: &LogEntry) -> Value {
    let author = match entry.author() {
        Author::Channel => "channel",
        Author::Bot => "bot",
        Author::Backend => "backend",
        Author::Unspecified => "",
    };
    json!({
        "conversation": conversation,
        "sequence": entry.sequence,
        "appendTime": entry.append_time.as_ref().map(show::time),
        "author": author,
        "botId": entry.bot_id,
        "activity": entry.activity.as_ref().map(encode),
    })
}

/// What the gateway knows of a conversation.
pub(super) fn conversation(conversation: &Conversation) -> Value {
    let reference = conversation.reference.clone().unwrap_or_default();
    json!({
        "conversation": conversation.name.as_ref().map(address::text),
        "isGroup": conversation.is_group,
        "user": reference.user.and_then(|user| user.id),
        "botIds": conversation.bot_ids,
        "startTime": conversation.start_time.as_ref().map(show::time),
        "firstSequence": conversation.first_sequence,
        "lastSequence": conversation.last_sequence,
    })
}
