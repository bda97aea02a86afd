//! Activities and what surrounds them, as JSON. The codec itself is the gateway's.

use serde_json::{Value, json};
use turnwire_client::proto::{Activity, Author, Conversation, LogEntry, Receipt};

use super::{address, show};
use crate::activity::json;

/// An activity in the protocol's JSON.
pub(super) fn encode(activity: &Activity) -> Value {
    json::encode(activity)
}

/// An activity from the protocol's JSON.
pub(super) fn decode(text: &[u8]) -> anyhow::Result<Activity> {
    Ok(json::decode(text)?)
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
        "activity": entry.activity.as_deref().map(encode),
    })
}

/// What became of an activity on its channel.
pub(super) fn receipt(receipt: &Receipt) -> Value {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "state": show::state(receipt),
        "channelActivityId": said(&receipt.channel_activity_id),
        "reason": said(&receipt.reason),
        "time": receipt.time.as_ref().map(show::time),
    })
}

/// The same in a stream of what happens in a conversation.
pub(super) fn receipt_step(conversation: &str, told: &Receipt) -> Value {
    json!({
        "conversation": conversation,
        "sequence": told.sequence,
        "activityId": told.activity_id,
        "receipt": receipt(told),
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
        "ended": conversation.ended,
    })
}
