//! The entity that says which part of a streamed reply an activity is (reference, section 8).

use prost_types::value::Kind as Json;
use prost_types::{Struct, Value};

use super::Kind;
use crate::proto::v1::Activity;

/// The entity's `type`. Clients compare it in any case.
const TYPE: &str = "streaminfo";

/// What an activity is in a streamed reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A status line, in place of a text that is not there yet.
    Informative,
    /// All of the text so far.
    Streaming,
    /// The whole.
    Final,
    /// The end of one that broke off, with what there was.
    BrokenOff,
}

/// What a `streaminfo` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo<'a> {
    /// Which reply: the id of its first activity.
    pub id: &'a str,
    /// Which part of it.
    pub part: Part,
    /// The position among its snapshots, from 1; a final one has none.
    pub sequence: u32,
}

impl StreamInfo<'_> {
    /// The entity.
    #[must_use]
    pub fn entity(&self) -> Struct {
        let text = |text: &str| Json::StringValue(text.to_owned());
        let mut members = vec![
            ("type", text(TYPE)),
            ("streamId", text(self.id)),
            ("streamType", text(self.kind())),
        ];
        match self.part {
            Part::Informative | Part::Streaming => {
                let sequence = f64::from(self.sequence);
                members.push(("streamSequence", Json::NumberValue(sequence)));
            }
            Part::Final => {}
            Part::BrokenOff => members.push(("streamResult", text("error"))),
        }
        let member = |(name, json): (&str, Json)| (name.to_owned(), Value { kind: Some(json) });
        Struct {
            fields: members.into_iter().map(member).collect(),
        }
    }

    /// The activity that shows a part which is not logged. One that broke off is a `message`, since
    /// Web Chat ends a streamed reply with nothing else, but for one without a text, which is to vanish.
    #[must_use]
    pub fn activity(&self, text: String) -> Activity {
        let kind = match self.part {
            Part::BrokenOff if !text.is_empty() => Kind::Message,
            Part::Informative | Part::Streaming | Part::Final | Part::BrokenOff => Kind::Typing,
        };
        Activity {
            r#type: Some(kind.as_str().to_owned()),
            // Also when it is empty: Web Chat takes a snapshot for one by its text.
            text: Some(text),
            entities: vec![self.entity()],
            ..Default::default()
        }
    }

    fn kind(&self) -> &'static str {
        match self.part {
            Part::Informative => "informative",
            Part::Streaming => "streaming",
            Part::Final | Part::BrokenOff => "final",
        }
    }
}

/// Whether an entity is a `streaminfo`.
#[must_use]
pub fn is_stream_info(entity: &Struct) -> bool {
    text_of(entity, "type").is_some_and(|kind| kind.eq_ignore_ascii_case(TYPE))
}

/// The `streamId` of an open object, if it has one that says something.
#[must_use]
pub fn stream_id(members: &Struct) -> Option<&str> {
    text_of(members, "streamId").filter(|id| !id.is_empty())
}

fn text_of<'a>(members: &'a Struct, name: &str) -> Option<&'a str> {
    match members.fields.get(name)?.kind.as_ref()? {
        Json::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::activity::json;

    fn shown(part: Part, text: &str) -> serde_json::Value {
        let info = StreamInfo {
            id: "s1",
            part,
            sequence: 2,
        };
        json::encode(&info.activity(text.to_owned()))
    }

    #[test]
    fn a_snapshot_has_what_web_chat_needs() {
        let expected = json!({"type": "typing", "text": "The answer is", "entities": [
            {"type": "streaminfo", "streamId": "s1", "streamSequence": 2, "streamType": "streaming"}]});
        assert_eq!(shown(Part::Streaming, "The answer is"), expected);
        let status = shown(Part::Informative, "Searching…");
        assert_eq!(status["entities"][0]["streamType"], "informative");
    }

    #[test]
    fn what_broke_off_ends_as_a_message_unless_there_was_nothing() {
        let entity = json!({"type": "streaminfo", "streamId": "s1", "streamType": "final",
            "streamResult": "error"});
        let some = shown(Part::BrokenOff, "The…");
        assert_eq!(
            (&some["type"], &some["entities"][0]),
            (&json!("message"), &entity)
        );
        let none = shown(Part::BrokenOff, "");
        assert_eq!(
            (&none["type"], &none["entities"][0]),
            (&json!("typing"), &entity)
        );
    }

    #[test]
    fn a_final_part_has_no_position() {
        let info = StreamInfo {
            id: "s1",
            part: Part::Final,
            sequence: 9,
        };
        let entity = info.entity();
        assert!(is_stream_info(&entity) && stream_id(&entity) == Some("s1"));
        assert!(!entity.fields.contains_key("streamSequence"));
    }

    #[test]
    fn other_entities_are_none() {
        assert!(!is_stream_info(&Struct::default()));
        assert_eq!(stream_id(&Struct::default()), None);
    }
}
