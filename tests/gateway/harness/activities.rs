//! Activities.

use prost_types::Struct;
use prost_types::value::Kind;
use turnwire::proto::v1;

/// A message.
pub(crate) fn message(text: &str) -> v1::Activity {
    v1::Activity {
        r#type: Some("message".to_owned()),
        text: Some(text.to_owned()),
        ..Default::default()
    }
}

/// A message of about so many bytes that begins with a text.
pub(crate) fn padded(text: &str, bytes: usize) -> v1::Activity {
    v1::Activity {
        summary: Some("x".repeat(bytes)),
        ..message(text)
    }
}

/// What an activity says.
pub(crate) fn text(activity: &Option<Box<v1::Activity>>) -> String {
    let text = activity.as_ref().and_then(|activity| activity.text.clone());
    text.expect("an activity with a text")
}

/// That someone is typing.
pub(crate) fn typing() -> v1::Activity {
    v1::Activity {
        r#type: Some("typing".to_owned()),
        ..Default::default()
    }
}

/// What an activity says of the streamed reply that it is a part of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Info {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) sequence: Option<u32>,
    pub(crate) result: Option<String>,
}

/// The same, read off its only `streaminfo`.
pub(crate) fn info(activity: &v1::Activity) -> Option<Info> {
    let entities = activity.entities.iter();
    let mut infos = entities.filter(|entity| word(entity, "type").as_deref() == Some("streaminfo"));
    let info = infos.next()?;
    assert_eq!(infos.next(), None, "more than one says nothing");
    let sequence = info.fields.get("streamSequence");
    let sequence = sequence.and_then(|value| match value.kind {
        Some(Kind::NumberValue(number)) => Some(number as u32),
        _ => None,
    });
    Some(Info {
        id: word(info, "streamId")?,
        kind: word(info, "streamType")?,
        sequence,
        result: word(info, "streamResult"),
    })
}

fn word(members: &Struct, name: &str) -> Option<String> {
    match members.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}
