//! The little that is read from a stored activity without decoding the rest.

use crate::proto::v1::ChannelAccount;

/// `type`, `id` and `from` of an activity; everything else is skipped, not decoded.
///
/// ```
/// use prost::Message;
/// use turnwire::activity::Outline;
/// use turnwire::proto::v1::Activity;
///
/// let stored = Activity { id: Some("1".to_owned()), ..Default::default() }.encode_to_vec();
/// let outline = Outline::decode(&*stored)?;
/// assert_eq!(outline.id.as_deref(), Some("1"));
/// # Ok::<(), prost::DecodeError>(())
/// ```
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outline {
    /// `Activity.type`.
    #[prost(string, optional, tag = "1")]
    pub r#type: Option<String>,
    /// `Activity.id`.
    #[prost(string, optional, tag = "2")]
    pub id: Option<String>,
    /// `Activity.from`.
    #[prost(message, optional, tag = "9")]
    pub from: Option<ChannelAccount>,
}

impl Outline {
    /// The outline of a stored activity; of what is none, an empty one.
    #[must_use]
    pub fn of(stored: &[u8]) -> Self {
        prost::Message::decode(stored).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1::Activity;

    #[test]
    fn the_outline_has_the_tags_of_the_activity() {
        let outline = Outline {
            r#type: Some("message".to_owned()),
            id: Some("a1".to_owned()),
            from: Some(ChannelAccount {
                id: Some("u1".to_owned()),
                ..Default::default()
            }),
        };
        let activity = Activity::decode(&*outline.encode_to_vec()).expect("an activity");
        let expected = Activity {
            r#type: outline.r#type.clone(),
            id: outline.id.clone(),
            from: outline.from.clone(),
            ..Default::default()
        };
        assert_eq!(activity, expected);
    }

    #[test]
    fn the_rest_is_skipped() {
        let activity = Activity {
            id: Some("a1".to_owned()),
            text: Some("x".to_owned()),
            recipient: Some(ChannelAccount::default()),
            ..Default::default()
        };
        let outline = Outline::decode(&*activity.encode_to_vec()).expect("an outline");
        assert_eq!(outline.id, activity.id);
        assert_eq!((outline.r#type, outline.from), (None, None));
    }
}
