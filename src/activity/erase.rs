//! What is left of an activity when someone who said it, or is named in it, is erased.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::{Struct, Value, value};

use crate::proto::v1::{Activity, Attachment, ChannelAccount, ConversationReference};

/// Says, in `unknown_members`, that something is what is left: the JSON member `"erased": true`.
const MARK: &str = "erased";

/// What erasing someone makes of an activity.
#[derive(Clone, Debug, PartialEq)]
pub enum Erased {
    /// They have nothing to do with it, or it is erased already.
    Untouched,
    /// Someone else's that names them: without more of their account than its id.
    Named(Bytes),
    /// They said it: a tombstone.
    Said(Bytes),
}

/// Erases `user` from an encoded activity. `by_channel`: it was appended for a user, and not by a bot, whose
/// account may have any id.
///
/// A tombstone keeps where and when it was, whom it was for and what kind it was: its type, id, time,
/// channel, conversation and recipient, and of members that joined or left those that are others. What
/// others wrote stays, also where it speaks of the user.
///
/// # Errors
///
/// It is no activity.
pub fn erase(encoded: &[u8], user: &str, by_channel: bool) -> Result<Erased, prost::DecodeError> {
    let mut activity = Activity::decode(encoded)?;
    if by_channel && is(activity.from.as_ref(), user) {
        let mut left = Activity {
            r#type: activity.r#type,
            id: activity.id,
            timestamp: activity.timestamp,
            service_url: activity.service_url,
            channel_id: activity.channel_id,
            recipient: activity.recipient,
            conversation: activity.conversation,
            reply_to_id: activity.reply_to_id,
            members_added: activity.members_added,
            members_removed: activity.members_removed,
            unknown_members: Some(mark()),
            ..Default::default()
        };
        reduce_accounts(&mut left, user);
        return Ok(Erased::Said(left.encode_to_vec().into()));
    }
    if reduce_accounts(&mut activity, user) {
        return Ok(Erased::Named(activity.encode_to_vec().into()));
    }
    Ok(Erased::Untouched)
}

/// What is left of an encoded reference whose user is erased; `None` when it is another's, or has no more
/// than an id already.
///
/// # Errors
///
/// When it is no reference.
pub fn reduce_reference(encoded: &[u8], user: &str) -> Result<Option<Vec<u8>>, prost::DecodeError> {
    let mut reference = ConversationReference::decode(encoded)?;
    let account = reference.user.as_mut();
    let theirs = account.filter(|account| account.id.as_deref() == Some(user));
    Ok(theirs
        .is_some_and(reduce)
        .then(|| reference.encode_to_vec()))
}

/// Reduces an account to its id and its role. Returns whether there was more.
pub fn reduce(account: &mut ChannelAccount) -> bool {
    let left = ChannelAccount {
        id: account.id.clone(),
        role: account.role.clone(),
        ..Default::default()
    };
    let had_more = *account != left;
    *account = left;
    had_more
}

/// The account of a member who was erased: an id, and a mark, so that who speaks again is new.
#[must_use]
pub fn erased_member(user: &str) -> ChannelAccount {
    ChannelAccount {
        id: Some(user.to_owned()),
        unknown_members: Some(mark()),
        ..Default::default()
    }
}

/// Whether a stored account is one of [`erased_member`].
#[must_use]
pub fn is_erased_member(encoded: &[u8]) -> bool {
    ChannelAccount::decode(encoded).is_ok_and(|account| account.unknown_members == Some(mark()))
}

/// Where the files are that `user` has sent with an encoded activity.
///
/// # Errors
///
/// It is no activity.
pub fn files_of(encoded: &[u8], user: &str) -> Result<Vec<String>, prost::DecodeError> {
    let activity = Activity::decode(encoded)?;
    if !is(activity.from.as_ref(), user) {
        return Ok(Vec::new());
    }
    let urls = |attachment: Attachment| [attachment.content_url, attachment.thumbnail_url];
    let urls = activity.attachments.into_iter().flat_map(urls);
    Ok(urls.flatten().collect())
}

fn is(account: Option<&ChannelAccount>, user: &str) -> bool {
    account.is_some_and(|account| account.id.as_deref() == Some(user))
}

fn reduce_accounts(activity: &mut Activity, user: &str) -> bool {
    let related = activity.relates_to.as_mut();
    let related = related.and_then(|reference| reference.user.as_mut());
    let named = activity.recipient.iter_mut().chain(related);
    let members = activity.members_added.iter_mut();
    let members = members.chain(&mut activity.members_removed);
    let theirs = named
        .chain(members)
        .filter(|account| account.id.as_deref() == Some(user));
    let mut had_more = false;
    for account in theirs {
        had_more |= reduce(account);
    }
    had_more
}

fn mark() -> Struct {
    let erased = Value {
        kind: Some(value::Kind::BoolValue(true)),
    };
    Struct {
        fields: BTreeMap::from([(MARK.to_owned(), erased)]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::activity::json;

    fn erased(activity: &Json, user: &str, by_channel: bool) -> Erased {
        let activity: Activity = json::decode_value(activity).expect("an activity");
        erase(&activity.encode_to_vec(), user, by_channel).expect("it is one")
    }

    fn shown(encoded: &[u8]) -> Json {
        json::encode(&Activity::decode(encoded).expect("an activity"))
    }

    fn said() -> Json {
        json!({
            "type": "message", "id": "1", "timestamp": "2026-01-02T03:04:05.678Z",
            "localTimestamp": "2026-01-02T04:04:05.678+01:00", "localTimezone": "Europe/Zurich",
            "channelId": "web", "conversation": {"id": "c1"}, "recipient": {"id": "echo", "name": "Echo"},
            "from": {"id": "ann", "name": "Ann"}, "text": "my secret", "speak": "my secret",
            "summary": "my secret", "locale": "de-CH", "value": {"secret": true}, "name": "secret",
            "attachments": [{"contentType": "text/plain", "content": "my secret", "name": "secret.txt"}],
            "entities": [{"type": "secret"}], "channelData": {"secret": "mine"}, "replyToId": "0",
            "mySecret": "of no known name",
        })
    }

    #[test]
    fn a_tombstone_has_nothing_of_who_said_it() {
        let Erased::Said(left) = erased(&said(), "ann", true) else {
            panic!("it was said by her")
        };
        let expected = json!({
            "type": "message", "id": "1", "timestamp": "2026-01-02T03:04:05.678Z",
            "channelId": "web", "conversation": {"id": "c1"}, "recipient": {"id": "echo", "name": "Echo"},
            "replyToId": "0", "erased": true,
        });
        assert_eq!(shown(&left), expected);
        assert_eq!(erase(&left, "ann", true), Ok(Erased::Untouched));
    }

    #[test]
    fn what_others_say_stays_as_it_is() {
        assert_eq!(erased(&said(), "bob", true), Erased::Untouched);
        // A bot whose account has the user's id is no user.
        assert_eq!(erased(&said(), "ann", false), Erased::Untouched);
    }

    #[test]
    fn who_is_named_by_others_keeps_an_id() {
        let activity = json!({
            "type": "message", "from": {"id": "echo"}, "text": "hello Ann",
            "recipient": {"id": "ann", "name": "Ann", "role": "user", "email": "ann@example.org"},
        });
        let Erased::Named(left) = erased(&activity, "ann", false) else {
            panic!("it names her")
        };
        let expected = json!({
            "type": "message", "from": {"id": "echo"}, "text": "hello Ann",
            "recipient": {"id": "ann", "role": "user"},
        });
        assert_eq!(shown(&left), expected);
        assert_eq!(erase(&left, "ann", false), Ok(Erased::Untouched));
    }

    #[test]
    fn of_members_only_the_others_keep_their_names() {
        let activity = json!({
            "type": "conversationUpdate", "from": {"id": "ann", "name": "Ann"},
            "membersAdded": [{"id": "ann", "name": "Ann"}, {"id": "bob", "name": "Bob"}],
        });
        let Erased::Said(left) = erased(&activity, "ann", true) else {
            panic!("it was said by her")
        };
        let members = json!([{"id": "ann"}, {"id": "bob", "name": "Bob"}]);
        assert_eq!(shown(&left)["membersAdded"], members);
        let Erased::Named(left) = erased(&activity, "bob", true) else {
            panic!("it names him")
        };
        let members = json!([{"id": "ann", "name": "Ann"}, {"id": "bob"}]);
        assert_eq!(shown(&left)["membersAdded"], members);
        assert_eq!(shown(&left)["from"], json!({"id": "ann", "name": "Ann"}));
    }

    #[test]
    fn files_are_those_of_who_sent_them() {
        let activity = json!({
            "type": "message", "from": {"id": "ann"},
            "attachments": [{"contentUrl": "http://h/a", "thumbnailUrl": "http://h/b"}, {"name": "c"}],
        });
        let activity: Activity = json::decode_value(&activity).expect("an activity");
        let encoded = activity.encode_to_vec();
        assert_eq!(
            files_of(&encoded, "ann"),
            Ok(vec!["http://h/a".into(), "http://h/b".into()])
        );
        assert_eq!(files_of(&encoded, "bob"), Ok(Vec::new()));
    }

    #[test]
    fn an_erased_member_is_known_as_one() {
        assert!(is_erased_member(&erased_member("ann").encode_to_vec()));
        let ann = ChannelAccount {
            id: Some("ann".to_owned()),
            ..Default::default()
        };
        assert!(!is_erased_member(&ann.encode_to_vec()));
    }
}
