//! What clients see of a log, and how (reference, sections 3, 6 and 9).

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use serde_json::{Map, Value};

use crate::activity::{Kind, Outline, json};
use crate::engine::log::{self, Author, Entry, HANDOVER};
use crate::id::Sequence;
use crate::proto::v1::Activity;

/// When a client reads an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// As it happens: indicators and pieces of streamed replies are shown.
    Live,
    /// Later.
    History,
}

/// Most messages whose changes are known ahead; those of more show as they were, and change then.
const CHANGES: usize = 10_000;

/// Updates and deletions that came after what is read: in history the present content stands.
#[derive(Debug, Default)]
pub(super) struct Changes(HashMap<Arc<str>, Change>);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was updated last there.
    Updated(Sequence),
    /// It was deleted; nothing brings it back.
    Deleted,
}

impl Changes {
    /// Takes note of an entry, later than those that were noted.
    pub(super) fn note(&mut self, entry: &Entry) {
        let change = match kind_of(entry) {
            Kind::MessageUpdate => Change::Updated(entry.sequence),
            Kind::MessageDelete => Change::Deleted,
            _ => return,
        };
        let is_known = self.0.contains_key(&entry.activity_id);
        if is_known || self.0.len() < CHANGES {
            let noted = self.0.entry(Arc::clone(&entry.activity_id));
            let noted = noted.or_insert(change);
            if *noted != Change::Deleted {
                *noted = change;
            }
        }
    }

    /// Lets go of what was noted.
    pub(super) fn forget(&mut self) {
        if !self.0.is_empty() {
            self.0 = HashMap::new();
        }
    }

    /// What became of an entry.
    pub(super) fn of(&self, entry: &Entry) -> Option<Change> {
        self.0.get(&entry.activity_id).copied()
    }
}

/// Whether an entry changes an earlier one.
pub(super) fn is_change(entry: &Entry) -> bool {
    matches!(kind_of(entry), Kind::MessageUpdate | Kind::MessageDelete)
}

/// Whether a change is the one that its message was left with.
pub(super) fn is_last(change: &Entry, last: Change) -> bool {
    match last {
        Change::Updated(sequence) => sequence == change.sequence,
        Change::Deleted => kind_of(change) == Kind::MessageDelete,
    }
}

/// A message as its update left it. Clients order by time, and hold back answers to what they do not
/// know: so it stays where it was said, and answers what it answered.
#[must_use]
pub(super) fn view_updated(original: &Entry, update: &Entry) -> Option<Value> {
    let mut view = view(update, Moment::History)?;
    let original = Activity::decode(&*original.activity).ok()?;
    let members = view.as_object_mut()?;
    for (name, text) in [
        ("timestamp", original.timestamp),
        ("replyToId", original.reply_to_id),
    ] {
        members.remove(name);
        members.extend(text.map(|text| (name.to_owned(), text.into())));
    }
    Some(view)
}

/// An entry as clients see it; `None` when it is not for them.
///
/// What cannot be read any more, which only a damaged store can bring about, is passed over: it must
/// not stand between a client and all that follows.
#[must_use]
pub(super) fn view(entry: &Entry, moment: Moment) -> Option<Value> {
    let activity = Activity::decode(&*entry.activity).ok()?;
    let kind = Kind::from(activity.r#type.as_deref().unwrap_or_default());
    if !is_visible(&kind, moment) || is_handover(entry) {
        return None;
    }
    let mut view = json::encode(&activity);
    let members = view.as_object_mut()?;
    if kind == Kind::MessageUpdate {
        // By its own type the bubble vanishes.
        members.insert("type".to_owned(), Kind::Message.as_str().into());
    }
    let role = match entry.author {
        Author::Channel => "user",
        Author::Bot(_) | Author::Backend(_) => "bot",
    };
    let from = members
        .entry("from")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(from) = from {
        from.insert("role".to_owned(), role.into());
    }
    if role == "bot" {
        copy_stream_info(members);
    }
    // Clients hold back an answer to what they do not know, and they know no `conversationUpdate` and no
    // word from bot to bot.
    let answered = members.get("replyToId").and_then(Value::as_str);
    if answered.is_some_and(log::tells_who_takes_part) {
        members.remove("replyToId");
    }
    Some(view)
}

/// Whether this is what one bot tells another of a conversation that it hands over. Clients cannot say
/// what their activities are called, so that none of theirs is taken for one.
fn is_handover(entry: &Entry) -> bool {
    entry.author == Author::Channel && entry.activity_id.contains(HANDOVER)
}

fn is_visible(kind: &Kind, moment: Moment) -> bool {
    match kind {
        Kind::ConversationUpdate
        | Kind::InstallationUpdate
        | Kind::ContactRelationUpdate
        | Kind::DeleteUserData
        | Kind::InvokeResponse
        | Kind::Trace => false,
        Kind::Other(other) => &**other != "delay",
        Kind::Typing => moment == Moment::Live,
        _ => true,
    }
}

/// Copies what a `streaminfo` entity says to where Web Chat reads it; bots write only the entity.
fn copy_stream_info(members: &mut Map<String, Value>) {
    let Some(Value::Array(entities)) = members.get("entities") else {
        return;
    };
    let is_stream_info = |entity: &&Value| {
        let kind = entity.get("type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("streaminfo"))
    };
    let Some(Value::Object(info)) = entities.iter().find(is_stream_info) else {
        return;
    };
    let info: Vec<_> = ["streamType", "streamId", "streamSequence"]
        .into_iter()
        .filter_map(|name| Some((name, info.get(name)?.clone())))
        .collect();
    let data = members
        .entry("channelData")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(data) = data {
        for (name, value) in info {
            data.entry(name).or_insert(value);
        }
    }
}

fn kind_of(entry: &Entry) -> Kind {
    let outline = Outline::decode(&*entry.activity).unwrap_or_default();
    Kind::from(outline.r#type.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::BotId;

    fn entry(sequence: u64, author: Author, activity: &Value) -> Arc<Entry> {
        let decoded: Activity = json::decode_value(activity).expect("an activity");
        Arc::new(Entry {
            sequence: Sequence(sequence),
            append_time: Timestamp(sequence),
            author,
            activity_id: decoded.id.clone().unwrap_or_default().into(),
            activity: decoded.encode_to_vec().into(),
            bot_run: 0,
        })
    }

    fn bot() -> Author {
        Author::Bot(BotId::from("echo"))
    }

    fn seen(activity: &Value, author: Author, moment: Moment) -> Option<Value> {
        view(&entry(1, author, activity), moment)
    }

    #[test]
    fn what_is_the_channels_or_the_developers_is_not_for_clients() {
        for kind in [
            "conversationUpdate",
            "installationUpdate",
            "trace",
            "invokeResponse",
            "delay",
        ] {
            let activity = json!({"type": kind, "id": "1"});
            assert_eq!(seen(&activity, bot(), Moment::Live), None, "{kind}");
        }
        for kind in ["message", "event", "endOfConversation", "handoff", "my/own"] {
            let activity = json!({"type": kind, "id": "1", "name": "n"});
            assert!(seen(&activity, bot(), Moment::History).is_some(), "{kind}");
        }
    }

    #[test]
    fn what_one_bot_tells_another_is_not_for_clients() {
        let handover =
            json!({"type": "event", "id": "c|handover-0000003", "name": "handoff.initiate"});
        assert_eq!(seen(&handover, Author::Channel, Moment::Live), None);
        assert_eq!(seen(&handover, Author::Channel, Moment::History), None);
        let event = json!({"type": "event", "id": "c|0000003", "name": "handoff.initiate"});
        assert!(seen(&event, Author::Channel, Moment::Live).is_some());
    }

    #[test]
    fn typing_is_seen_as_it_happens_and_not_later() {
        let typing = json!({"type": "typing", "id": "1"});
        assert!(seen(&typing, bot(), Moment::Live).is_some());
        assert_eq!(seen(&typing, bot(), Moment::History), None);
    }

    #[test]
    fn everything_says_who_it_is_from() {
        let said = json!({"type": "message", "id": "1", "from": {"id": "x"}});
        let role = |author| {
            let view = seen(&said, author, Moment::History).expect("visible");
            view["from"]["role"].clone()
        };
        assert_eq!(role(bot()), "bot");
        assert_eq!(role(Author::Backend(BotId::from("echo"))), "bot");
        assert_eq!(role(Author::Channel), "user");
    }

    #[test]
    fn what_a_streamed_reply_says_of_itself_is_where_web_chat_reads_it() {
        let piece = json!({
            "type": "typing", "id": "1", "text": "Hel",
            "entities": [{"type": "streaminfo", "streamType": "streaming", "streamId": "s",
                "streamSequence": 2}],
            "channelData": {"streamType": "informative"},
        });
        let view = seen(&piece, bot(), Moment::Live).expect("visible");
        assert_eq!(
            view["channelData"],
            json!({"streamType": "informative", "streamId": "s", "streamSequence": 2}),
            "what is there already stays"
        );
    }

    #[test]
    fn an_update_is_a_message_with_the_same_id() {
        let update = json!({"type": "messageUpdate", "id": "1", "text": "new"});
        let view = seen(&update, bot(), Moment::Live).expect("visible");
        assert_eq!(
            (&view["type"], &view["id"]),
            (&json!("message"), &json!("1"))
        );
    }

    #[test]
    fn what_was_updated_stays_where_it_was_said() {
        let said = json!({"type": "message", "id": "a", "text": "old", "replyToId": "q",
            "timestamp": "2026-01-01T00:00:00.000Z"});
        let update = json!({"type": "messageUpdate", "id": "a", "text": "new",
            "timestamp": "2026-02-02T00:00:00.000Z"});
        let view = view_updated(&entry(1, bot(), &said), &entry(5, bot(), &update));
        let view = view.expect("visible");
        assert_eq!(
            (&view["type"], &view["text"]),
            (&json!("message"), &json!("new"))
        );
        assert_eq!(view["timestamp"], "2026-01-01T00:00:00.000Z");
        assert_eq!(view["replyToId"], "q");
    }

    #[test]
    fn the_newest_change_counts_and_what_was_deleted_stays_so() {
        let change = |sequence, kind: &str, id: &str| {
            entry(sequence, bot(), &json!({"type": kind, "id": id}))
        };
        let mut changes = Changes::default();
        for entry in [
            change(5, "messageUpdate", "a"),
            change(6, "messageUpdate", "a"),
            change(7, "messageDelete", "b"),
            change(8, "messageUpdate", "b"),
            change(9, "message", "c"),
        ] {
            changes.note(&entry);
        }
        let of = |id: &str| changes.of(&entry(1, bot(), &json!({"type": "message", "id": id})));
        assert_eq!(of("a"), Some(Change::Updated(Sequence(6))));
        assert_eq!(of("b"), Some(Change::Deleted));
        assert_eq!(of("c"), None);
    }

    #[test]
    fn nothing_answers_what_clients_do_not_see() {
        let welcome = json!({"type": "message", "id": "1", "replyToId": "c|members-x"});
        let view = seen(&welcome, bot(), Moment::Live).expect("visible");
        assert_eq!(view.get("replyToId"), None);
        let taken_over = json!({"type": "message", "id": "1", "replyToId": "c|handover-0000003"});
        let view = seen(&taken_over, bot(), Moment::Live).expect("visible");
        assert_eq!(view.get("replyToId"), None);
        let answer = json!({"type": "message", "id": "1", "replyToId": "c|0000002"});
        let view = seen(&answer, bot(), Moment::Live).expect("visible");
        assert_eq!(view["replyToId"], "c|0000002");
    }
}
