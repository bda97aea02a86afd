//! Activities.

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
