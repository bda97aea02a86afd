//! What a client posts, on its way to the log (reference, section 2.6).

use serde_json::Value;

use super::Error;
use crate::activity::{Kind, json, validate};
use crate::proto::v1::{Activity, ChannelAccount, ConversationAccount};

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// The id that every activity is from.
    pub id: String,
    /// The name, if the token has one.
    pub name: Option<String>,
}

/// What a client posted, made ready to be appended.
#[derive(Debug)]
pub(super) struct Posted {
    /// The activity, without what the gateway sets.
    pub activity: Box<Activity>,
    /// `channelData.clientActivityID`: what is posted again with it is the same activity.
    pub client_activity_id: Option<String>,
}

/// Reads the activity of a post.
///
/// # Errors
///
/// It is not one activity, lacks its type or, without a user that the token speaks for, who it is
/// from, or is of a type that clients cannot post.
pub(super) fn read(
    body: &Value,
    bound: Option<&User>,
    conversation: &str,
    service_url: &str,
) -> Result<Posted, Error> {
    let Value::Object(members) = body else {
        return Err(Error::bad("activity", "must be one object"));
    };
    let kind = match members.get("type") {
        None | Some(Value::Null) => return Err(Error::PropertyMissing("type")),
        Some(Value::String(kind)) if kind.is_empty() => {
            return Err(Error::PropertyMissing("type"));
        }
        Some(Value::String(kind)) => Kind::from(kind.as_str()),
        Some(_) => return Err(Error::bad("type", "must be a text")),
    };
    if !may_be_posted(&kind) {
        return Err(Error::KindRefused(kind.to_string()));
    }
    let mut activity: Activity =
        json::decode_value(body).map_err(|problem| Error::bad("activity", problem))?;
    activity.from = Some(from(activity.from.take(), bound)?);
    activity.conversation = Some(ConversationAccount {
        id: Some(conversation.to_owned()),
        ..Default::default()
    });
    activity.service_url = Some(service_url.to_owned());
    // The gateway says what it is called, and when it was.
    activity.id = None;
    activity.timestamp = None;
    let client_activity_id = members
        .get("channelData")
        .and_then(|data| data.get("clientActivityID"))
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    Ok(Posted {
        activity: Box::new(activity),
        client_activity_id,
    })
}

/// Membership is the channel's to tell, responses are the bot's, and what was said stays said.
fn may_be_posted(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::ConversationUpdate
            | Kind::InstallationUpdate
            | Kind::ContactRelationUpdate
            | Kind::DeleteUserData
            | Kind::InvokeResponse
            | Kind::MessageUpdate
            | Kind::MessageDelete
            | Kind::Trace
    )
}

/// Whatever a client says, it speaks for the user of its token, and is no bot. Nothing else is taken
/// from it: bots take what stands there, as an `aadObjectId`, for proven.
fn from(said: Option<ChannelAccount>, bound: Option<&User>) -> Result<ChannelAccount, Error> {
    let said = said.unwrap_or_default();
    let said_name = said.name.filter(|name| !name.is_empty());
    let (id, name) = match bound {
        Some(user) => (Some(user.id.clone()), user.name.clone().or(said_name)),
        None => (said.id, said_name),
    };
    let id = id.filter(|id| !id.is_empty());
    let id = id.ok_or(Error::PropertyMissing("from.id"))?;
    validate::id("from.id", &id).map_err(|invalid| Error::bad("from.id", invalid.problem))?;
    Ok(ChannelAccount {
        id: Some(id),
        name,
        role: Some("user".to_owned()),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_for(body: &Value, bound: Option<&User>) -> Result<Posted, Error> {
        read(body, bound, "c1", "http://gateway/")
    }

    #[test]
    fn the_gateway_says_id_time_place_and_role() {
        let body = json!({
            "type": "message", "text": "hi", "id": "mine", "timestamp": "2020-01-01T00:00:00Z",
            "from": {"id": "u1", "name": "U", "role": "bot"}, "conversation": {"id": "other"},
            "serviceUrl": "http://elsewhere/", "channelData": {"clientActivityID": "x1", "a": 1},
            "localTimestamp": "2020-01-01T00:00:00+01:00", "entities": [{"type": "e"}],
        });
        let posted = read_for(&body, None).expect("good");
        assert_eq!(posted.client_activity_id.as_deref(), Some("x1"));
        let written = json::encode(&*posted.activity);
        assert_eq!(
            written,
            json!({
                "type": "message", "text": "hi",
                "from": {"id": "u1", "name": "U", "role": "user"},
                "conversation": {"id": "c1"}, "serviceUrl": "http://gateway/",
                "channelData": {"clientActivityID": "x1", "a": 1},
                "localTimestamp": "2020-01-01T00:00:00+01:00", "entities": [{"type": "e"}],
            })
        );
    }

    #[test]
    fn an_activity_is_from_the_user_of_the_token_whoever_it_says() {
        let user = User {
            id: "dl_a".to_owned(),
            name: Some("A".to_owned()),
        };
        for (from, name) in [
            (json!({"id": "dl_b", "aadObjectId": "x"}), "A"),
            (json!({"name": "B"}), "A"),
            (json!(null), "A"),
        ] {
            let body = json!({"type": "message", "from": from});
            let posted = read_for(&body, Some(&user)).expect("good");
            let from = posted.activity.from.expect("set");
            assert_eq!(from.id.as_deref(), Some("dl_a"));
            assert_eq!(from.name.as_deref(), Some(name));
            assert_eq!(from.aad_object_id, None);
        }
    }

    #[test]
    fn what_must_be_there_is_asked_for() {
        for (body, missing) in [
            (json!({"from": {"id": "u"}}), "type"),
            (json!({"type": "", "from": {"id": "u"}}), "type"),
            (json!({"type": "message"}), "from.id"),
            (json!({"type": "message", "from": {}}), "from.id"),
            (json!({"type": "message", "from": {"id": ""}}), "from.id"),
        ] {
            let refused = read_for(&body, None);
            assert!(
                matches!(&refused, Err(Error::PropertyMissing(name)) if *name == missing),
                "{body} {refused:?}"
            );
        }
    }

    #[test]
    fn what_is_no_activity_is_refused() {
        for body in [
            json!([]),
            json!([{"type": "message"}]),
            json!("message"),
            json!(null),
            json!({"type": 7, "from": {"id": "u"}}),
            json!({"type": "message", "from": {"id": "a\u{0}"}}),
        ] {
            let refused = read_for(&body, None);
            assert!(matches!(refused, Err(Error::ArgumentBad { .. })), "{body}");
        }
    }

    #[test]
    fn clients_post_what_users_do_and_nothing_that_is_the_channels() {
        for kind in [
            "conversationUpdate",
            "installationUpdate",
            "messageUpdate",
            "trace",
        ] {
            let body = json!({"type": kind, "from": {"id": "u"}});
            assert!(matches!(read_for(&body, None), Err(Error::KindRefused(_))));
        }
        for kind in [
            "message",
            "typing",
            "event",
            "invoke",
            "endOfConversation",
            "my/own",
        ] {
            let body = json!({"type": kind, "from": {"id": "u"}});
            assert!(read_for(&body, None).is_ok(), "{kind}");
        }
    }
}
