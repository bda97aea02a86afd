//! What clients see of a log, and how (reference, sections 3, 6 and 9).

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use serde_json::{Map, Value};

use crate::activity::{Kind, Outline, json};
use crate::engine::log::{Author, Entry};
use crate::proto::v1::Activity;

/// When a client reads an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// As it happens: indicators and pieces of streamed replies are shown.
    Live,
    /// Later.
    History,
}

/// Updates and deletions that came after what is read: in history the present content stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(HashMap<Arc<str>, Arc<Entry>>);

impl Changes {
    /// Takes note of an entry, later than those that were noted.
    pub(super) fn note(&mut self, entry: &Arc<Entry>) {
        if matches!(kind_of(entry), Kind::MessageUpdate | Kind::MessageDelete) {
            let id = Arc::clone(&entry.activity_id);
            self.0.insert(id, Arc::clone(entry));
        }
    }

    /// The newest change of an earlier entry.
    fn of(&self, entry: &Entry) -> Option<&Entry> {
        let change = self.0.get(&entry.activity_id)?;
        (change.sequence > entry.sequence).then_some(change)
    }
}

/// An entry as clients see it; `None` when it is not for them.
///
/// What cannot be read any more, which only a damaged store can bring about, is passed over: it must
/// not stand between a client and all that follows.
#[must_use]
pub(super) fn view(entry: &Entry, moment: Moment, changes: &Changes) -> Option<Value> {
    match changes.of(entry) {
        None => shown(entry, moment),
        Some(change) if kind_of(change) == Kind::MessageDelete => None,
        Some(change) => {
            let mut view = shown(change, moment)?;
            // Clients order by time, and the message stays where it was said.
            let first = Activity::decode(&*entry.activity).ok()?;
            let members = view.as_object_mut()?;
            members.insert("timestamp".to_owned(), first.timestamp?.into());
            Some(view)
        }
    }
}

fn shown(entry: &Entry, moment: Moment) -> Option<Value> {
    let activity = Activity::decode(&*entry.activity).ok()?;
    let kind = Kind::from(activity.r#type.as_deref().unwrap_or_default());
    if !is_visible(&kind, moment) {
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
    Some(view)
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
    use crate::id::{BotId, Sequence};

    fn entry(sequence: u64, author: Author, activity: &Value) -> Arc<Entry> {
        let decoded: Activity = json::decode_value(activity).expect("an activity");
        Arc::new(Entry {
            sequence: Sequence(sequence),
            append_time: Timestamp(sequence),
            author,
            activity_id: decoded.id.clone().unwrap_or_default().into(),
            activity: decoded.encode_to_vec().into(),
        })
    }

    fn bot() -> Author {
        Author::Bot(BotId::from("echo"))
    }

    fn seen(activity: &Value, author: Author, moment: Moment) -> Option<Value> {
        view(&entry(1, author, activity), moment, &Changes::default())
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
    fn in_history_the_present_content_stands_and_what_was_deleted_is_gone() {
        let said = |id: &str, sequence| {
            let activity = json!({"type": "message", "id": id, "text": "old",
                "timestamp": "2026-01-01T00:00:00.000Z"});
            entry(sequence, bot(), &activity)
        };
        let update = json!({"type": "messageUpdate", "id": "a", "text": "new",
            "timestamp": "2026-02-02T00:00:00.000Z"});
        let mut changes = Changes::default();
        changes.note(&entry(5, bot(), &update));
        let delete = json!({"type": "messageDelete", "id": "b"});
        changes.note(&entry(6, bot(), &delete));

        let a = view(&said("a", 1), Moment::History, &changes).expect("visible");
        assert_eq!(a["text"], "new");
        assert_eq!(a["timestamp"], "2026-01-01T00:00:00.000Z");
        assert_eq!(view(&said("b", 2), Moment::History, &changes), None);
        let c = view(&said("c", 3), Moment::History, &changes).expect("visible");
        assert_eq!(c["text"], "old");
    }
}
