//! Conversation references: taken from a received activity, put onto another (reference, section 5).

use super::Kind;
use crate::proto::v1::{Activity, ConversationReference};

/// Channels on which a `conversationUpdate` cannot be answered: its id leads nowhere there.
const UPDATES_WITHOUT_REPLY: [&str; 2] = ["directline", "webchat"];

/// Takes the reference from an activity that a bot received.
#[must_use]
pub fn derive(received: &Activity) -> ConversationReference {
    let kind = received.r#type.as_deref().map(Kind::from);
    let channel = received.channel_id.as_deref().unwrap_or_default();
    let no_reply =
        kind == Some(Kind::ConversationUpdate) && UPDATES_WITHOUT_REPLY.contains(&channel);
    ConversationReference {
        activity_id: received.id.clone().filter(|_| !no_reply),
        user: received.from.clone(),
        bot: received.recipient.clone(),
        conversation: received.conversation.clone(),
        channel_id: received.channel_id.clone(),
        service_url: received.service_url.clone(),
        locale: received.locale.clone(),
        delivery_mode: None,
        unknown_members: None,
    }
}

/// Puts the reference onto an activity from the bot to the user: where it goes, and what it answers.
///
/// `locale` only if the activity has none; `replyToId` only if the reference has an activity.
pub fn apply_outgoing(reference: &ConversationReference, activity: &mut Activity) {
    apply_common(reference, activity);
    activity.from.clone_from(&reference.bot);
    activity.recipient.clone_from(&reference.user);
    if reference.activity_id.is_some() {
        activity.reply_to_id.clone_from(&reference.activity_id);
    }
}

/// Puts the reference onto an activity from the user to the bot, as if it had been received.
///
/// `locale` only if the activity has none; `id` only if the reference has an activity.
pub fn apply_incoming(reference: &ConversationReference, activity: &mut Activity) {
    apply_common(reference, activity);
    activity.from.clone_from(&reference.user);
    activity.recipient.clone_from(&reference.bot);
    if reference.activity_id.is_some() {
        activity.id.clone_from(&reference.activity_id);
    }
}

fn apply_common(reference: &ConversationReference, activity: &mut Activity) {
    activity.channel_id.clone_from(&reference.channel_id);
    activity.service_url.clone_from(&reference.service_url);
    activity.conversation.clone_from(&reference.conversation);
    if activity.locale.as_deref().is_none_or(str::is_empty) && reference.locale.is_some() {
        activity.locale.clone_from(&reference.locale);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::activity::json;

    fn read<M: json::Json>(document: Value) -> M {
        json::decode_value(&document).expect("a well-formed document")
    }

    fn received(kind: &str, channel: &str) -> Activity {
        read(json!({
            "type": kind,
            "id": "a1",
            "channelId": channel,
            "serviceUrl": "https://example.org/",
            "from": {"id": "u1", "name": "User"},
            "recipient": {"id": "b1"},
            "conversation": {"id": "c1", "isGroup": true},
            "locale": "de-CH",
            "text": "hi",
        }))
    }

    fn reference() -> ConversationReference {
        derive(&received("message", "msteams"))
    }

    #[test]
    fn a_reference_has_the_parties_and_the_place() {
        assert_eq!(
            json::encode(&reference()),
            json!({
                "activityId": "a1",
                "user": {"id": "u1", "name": "User"},
                "bot": {"id": "b1"},
                "conversation": {"id": "c1", "isGroup": true},
                "channelId": "msteams",
                "serviceUrl": "https://example.org/",
                "locale": "de-CH",
            })
        );
    }

    #[test]
    fn only_updates_of_direct_line_and_web_chat_cannot_be_answered() {
        for (kind, channel, id) in [
            ("conversationUpdate", "directline", None),
            ("conversationUpdate", "webchat", None),
            ("conversationUpdate", "msteams", Some("a1")),
            ("message", "directline", Some("a1")),
        ] {
            let reference = derive(&received(kind, channel));
            assert_eq!(reference.activity_id.as_deref(), id, "{kind} on {channel}");
        }
    }

    #[test]
    fn an_outgoing_activity_goes_from_the_bot_to_the_user() {
        let mut activity = read(json!({"text": "hello", "channelId": "x", "replyToId": "y"}));
        apply_outgoing(&reference(), &mut activity);
        assert_eq!(
            json::encode(&activity),
            json!({
                "text": "hello",
                "channelId": "msteams",
                "serviceUrl": "https://example.org/",
                "conversation": {"id": "c1", "isGroup": true},
                "from": {"id": "b1"},
                "recipient": {"id": "u1", "name": "User"},
                "replyToId": "a1",
                "locale": "de-CH",
            })
        );
    }

    #[test]
    fn an_incoming_activity_goes_from_the_user_to_the_bot() {
        let mut activity = read(json!({"id": "x", "replyToId": "y"}));
        apply_incoming(&reference(), &mut activity);
        assert_eq!(activity.id.as_deref(), Some("a1"));
        assert_eq!(activity.reply_to_id.as_deref(), Some("y"));
        assert_eq!(activity.from, reference().user);
        assert_eq!(activity.recipient, reference().bot);
    }

    #[test]
    fn the_activitys_own_locale_stays() {
        let mut activity = read(json!({"locale": "fr"}));
        apply_outgoing(&reference(), &mut activity);
        assert_eq!(activity.locale.as_deref(), Some("fr"));
    }

    #[test]
    fn without_an_activity_nothing_is_answered() {
        let mut reference = reference();
        reference.activity_id = None;
        let mut activity = read(json!({"id": "x", "replyToId": "y"}));
        apply_outgoing(&reference, &mut activity);
        assert_eq!(activity.reply_to_id.as_deref(), Some("y"));
        apply_incoming(&reference, &mut activity);
        assert_eq!(activity.id.as_deref(), Some("x"));
    }
}
