use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::activity::json;
use crate::activity::json::generate::Generate;

type Author = fn(&mut Activity, &Limits) -> Result<Draft, Error>;

const TIME: Timestamp = Timestamp(1_769_860_800_000);

fn read<M: json::Json>(document: Value) -> M {
    json::decode_value(&document).expect("a well-formed document")
}

fn drafted(author: Author, document: Value) -> Draft {
    author(&mut read(document), &Limits::default()).expect("a draft")
}

fn account(id: &str) -> ChannelAccount {
    read(json!({"id": id}))
}

/// What the writer adds, with everything set.
struct Facts {
    conversation: ConversationAccount,
    bot: ChannelAccount,
    user: ChannelAccount,
}

impl Facts {
    fn new() -> Self {
        Self {
            conversation: read(json!({"id": "c1", "isGroup": true})),
            bot: account("bot"),
            user: account("user"),
        }
    }

    fn stamp(&self) -> Stamp<'_> {
        Stamp {
            id: "gateway-id",
            timestamp: TIME,
            channel: "web",
            conversation: &self.conversation,
            from: Some(&self.bot),
            recipient: Some(&self.user),
            reply_to_id: Some("asked"),
            locale: Some("de-CH"),
            service_url: Some("https://gateway.example/"),
        }
    }
}

fn finished(draft: &Draft) -> Activity {
    Activity::decode(draft.finish(&Facts::new().stamp())).expect("an activity")
}

/// What [`STAMPED`] entries leave of the unknown members, told the slow way.
fn without_stamped(unknown: Option<Struct>) -> Option<Struct> {
    let mut unknown = unknown?;
    unknown
        .fields
        .retain(|name, _| !STAMPED.iter().any(|known| known.eq_ignore_ascii_case(name)));
    (!unknown.fields.is_empty()).then_some(unknown)
}

fn or_stamp(text: Option<String>, stamp: &str) -> Option<String> {
    let text = text.filter(|text| !text.is_empty());
    Some(text.unwrap_or_else(|| stamp.to_owned()))
}

/// What `finish` should come to, built field by field.
fn expected_outbound(sent: Activity) -> Activity {
    let Facts {
        conversation,
        bot,
        user,
    } = Facts::new();
    Activity {
        r#type: sent.r#type.or(Some("message".to_owned())),
        id: Some("gateway-id".to_owned()),
        timestamp: Some("2026-01-31T12:00:00.000Z".to_owned()),
        caller_id: None,
        service_url: Some("https://gateway.example/".to_owned()),
        channel_id: Some("web".to_owned()),
        from: Some(bot),
        recipient: Some(user),
        conversation: Some(conversation),
        reply_to_id: or_stamp(sent.reply_to_id, "asked"),
        locale: or_stamp(sent.locale, "de-CH"),
        unknown_members: without_stamped(sent.unknown_members),
        ..sent
    }
}

fn expected_inbound(posted: Activity) -> Activity {
    Activity {
        id: posted.id.or(Some("gateway-id".to_owned())),
        timestamp: posted
            .timestamp
            .or(Some("2026-01-31T12:00:00.000Z".to_owned())),
        caller_id: None,
        service_url: or_stamp(posted.service_url, "https://gateway.example/"),
        channel_id: Some("web".to_owned()),
        recipient: Some(Facts::new().user),
        reply_to_id: or_stamp(posted.reply_to_id, "asked"),
        locale: or_stamp(posted.locale, "de-CH"),
        unknown_members: without_stamped(posted.unknown_members),
        ..posted
    }
}

/// An activity with every field that the gateway cares about.
fn full() -> Value {
    json!({
        "type": "message",
        "id": "own-id",
        "timestamp": "2025-12-24T18:00:00.1234567+01:00",
        "callerId": "urn:botframework:azure",
        "serviceUrl": "https://own.example/",
        "channelId": "own",
        "from": {"id": "u1", "name": "U", "vendor": 1},
        "recipient": {"id": "r1", "name": "R", "properties": {"a": 1}},
        "conversation": {"id": "own", "tenantId": "t"},
        "replyToId": "own-target",
        "locale": "fr",
        "text": "bonjour",
        "vendor": {"a": [1]},
    })
}

#[test]
fn what_a_channel_posts_stays_but_for_the_gateways_fields() {
    let draft = drafted(inbound, full());
    assert_eq!(finished(&draft), expected_inbound(read(full())));
    assert_eq!(
        json::encode(&finished(&draft)),
        json!({
            "type": "message",
            "id": "own-id",
            "timestamp": "2025-12-24T18:00:00.1234567+01:00",
            "serviceUrl": "https://own.example/",
            "channelId": "web",
            "from": {"id": "u1", "name": "U", "vendor": 1},
            "recipient": {"id": "user"},
            "conversation": {"id": "own", "tenantId": "t"},
            "replyToId": "own-target",
            "locale": "fr",
            "text": "bonjour",
            "vendor": {"a": [1]},
        })
    );
    assert_eq!(draft.id.as_deref(), Some("own-id"));
    assert_eq!(draft.from, read::<Activity>(full()).from);
    assert_eq!(draft.conversation, read::<Activity>(full()).conversation);
    assert_eq!(draft.service_url.as_deref(), Some("https://own.example/"));
    assert_eq!(draft.locale.as_deref(), Some("fr"));
    assert!(draft.has_reply_to && draft.has_locale && draft.has_timestamp);
}

#[test]
fn what_a_bot_sends_gets_all_of_the_gateways_fields() {
    let draft = drafted(outbound, full());
    assert_eq!(finished(&draft), expected_outbound(read(full())));
    assert_eq!(
        json::encode(&finished(&draft)),
        json!({
            "type": "message",
            "id": "gateway-id",
            "timestamp": "2026-01-31T12:00:00.000Z",
            "serviceUrl": "https://gateway.example/",
            "channelId": "web",
            "from": {"id": "bot"},
            "recipient": {"id": "user"},
            "conversation": {"id": "c1", "isGroup": true},
            "replyToId": "own-target",
            "locale": "fr",
            "text": "bonjour",
            "vendor": {"a": [1]},
        })
    );
    assert_eq!(
        (&draft.id, &draft.from, &draft.conversation),
        (&None, &None, &None)
    );
    assert!(draft.has_reply_to && draft.has_locale && !draft.has_timestamp);
}

#[test]
fn what_is_absent_is_stamped() {
    let posted = json!({"type": "message", "from": {"id": "u1"}, "conversation": {"id": "c1"}});
    let draft = drafted(inbound, posted.clone());
    assert!(!draft.has_reply_to && !draft.has_locale && !draft.has_timestamp);
    assert_eq!(finished(&draft), expected_inbound(read(posted)));
    let draft = drafted(outbound, json!({}));
    assert_eq!(draft.kind, Kind::Message);
    assert_eq!(finished(&draft), expected_outbound(Activity::default()));
}

#[test]
fn what_is_null_or_empty_is_as_good_as_absent() {
    let document = json!({
        "type": "message", "id": null, "timestamp": null, "serviceUrl": "", "recipient": null,
        "from": {"id": "u1"}, "conversation": {"id": "c1"}, "replyToId": "", "locale": null,
    });
    let activity = finished(&drafted(inbound, document));
    assert_eq!(activity.id.as_deref(), Some("gateway-id"));
    assert_eq!(
        activity.service_url.as_deref(),
        Some("https://gateway.example/")
    );
    assert_eq!(activity.reply_to_id.as_deref(), Some("asked"));
    assert_eq!(activity.locale.as_deref(), Some("de-CH"));
    assert_eq!(activity.unknown_members, None);
}

#[test]
fn a_stamp_adds_only_what_it_has() {
    let facts = Facts::new();
    let stamp = Stamp {
        from: None,
        recipient: None,
        reply_to_id: None,
        locale: None,
        service_url: None,
        ..facts.stamp()
    };
    let activity = Activity::decode(drafted(outbound, json!({})).finish(&stamp));
    assert_eq!(
        json::encode(&activity.expect("an activity")),
        json!({
            "type": "message",
            "id": "gateway-id",
            "timestamp": "2026-01-31T12:00:00.000Z",
            "channelId": "web",
            "conversation": {"id": "c1", "isGroup": true},
        })
    );
}

#[test]
fn the_gateways_names_do_not_slip_through_in_another_case() {
    let document = json!({
        "ServiceUrl": "https://evil.example/", "callerid": "urn:x", "FROM": {"id": "admin"}, "Vendor": 1,
    });
    let unknown = finished(&drafted(outbound, document)).unknown_members;
    let names: Vec<_> = unknown
        .into_iter()
        .flat_map(|unknown| unknown.fields)
        .collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].0, "Vendor");
}

#[test]
fn members_count_on_conversation_updates_of_channels_alone() {
    let document = |kind: &str| {
        json!({
            "type": kind, "from": {"id": "u1"}, "conversation": {"id": "c1"},
            "membersAdded": [{"id": "u2"}], "membersRemoved": [{"id": "u3"}],
        })
    };
    let update = drafted(inbound, document("conversationUpdate"));
    assert_eq!(update.members_added, [account("u2")]);
    assert_eq!(update.members_removed, [account("u3")]);
    assert_eq!(finished(&update).members_added, [account("u2")]);
    for draft in [
        drafted(inbound, document("message")),
        drafted(outbound, document("conversationUpdate")),
    ] {
        assert!(draft.members_added.is_empty() && draft.members_removed.is_empty());
        assert_eq!(finished(&draft).members_added, [account("u2")]);
    }
}

#[test]
fn the_same_request_has_the_same_hash_and_no_other_has() {
    let hash = |author, document| drafted(author, document).payload_hash();
    let reordered: Value = serde_json::from_str(
        r#"{"vendor": {"a": [1.0]}, "text": "bonjour", "locale": "fr", "replyToId": "own-target",
            "conversation": {"tenantId": "t", "id": "own"}, "channelId": "own", "id": "own-id",
            "recipient": {"properties": {"a": 1}, "name": "R", "id": "r1"},
            "from": {"vendor": 1, "name": "U", "id": "u1"}, "serviceUrl": "https://own.example/",
            "callerId": "urn:botframework:azure", "type": "message",
            "timestamp": "2025-12-24T18:00:00.1234567+01:00"}"#,
    )
    .expect("JSON");
    for author in [inbound as Author, outbound] {
        assert_eq!(hash(author, full()), hash(author, reordered.clone()));
        for (member, value) in [
            ("text", json!("bonsoir")),
            ("channelId", json!("other")),
            ("callerId", Value::Null),
            ("vendor", json!({"a": [2]})),
        ] {
            let mut other = full();
            other[member] = value;
            assert_ne!(hash(author, full()), hash(author, other), "{member}");
        }
    }
}

#[test]
fn a_broken_rule_makes_no_draft() {
    assert!(inbound(&mut Activity::default(), &Limits::default()).is_err());
    assert!(outbound(&mut read(json!({"type": "event"})), &Limits::default()).is_err());
}

#[test]
fn the_tags_are_those_of_the_activity() {
    let text = || Some("x".to_owned());
    for (tag, activity) in [
        (
            tag::ID,
            Activity {
                id: text(),
                ..Activity::default()
            },
        ),
        (
            tag::TIMESTAMP,
            Activity {
                timestamp: text(),
                ..Activity::default()
            },
        ),
        (
            tag::SERVICE_URL,
            Activity {
                service_url: text(),
                ..Activity::default()
            },
        ),
        (
            tag::CHANNEL_ID,
            Activity {
                channel_id: text(),
                ..Activity::default()
            },
        ),
        (
            tag::REPLY_TO_ID,
            Activity {
                reply_to_id: text(),
                ..Activity::default()
            },
        ),
        (
            tag::LOCALE,
            Activity {
                locale: text(),
                ..Activity::default()
            },
        ),
    ] {
        let mut fields = Fields(BytesMut::new());
        fields.text(tag, "x");
        assert_eq!(Activity::decode(fields.0), Ok(activity));
    }
    for (tag, activity) in [
        (
            tag::FROM,
            Activity {
                from: Some(account("x")),
                ..Activity::default()
            },
        ),
        (
            tag::RECIPIENT,
            Activity {
                recipient: Some(account("x")),
                ..Activity::default()
            },
        ),
    ] {
        let mut fields = Fields(BytesMut::new());
        fields.message(tag, &account("x"));
        assert_eq!(Activity::decode(fields.0), Ok(activity));
    }
    let conversation: ConversationAccount = read(json!({"id": "x"}));
    let mut fields = Fields(BytesMut::new());
    fields.message(tag::CONVERSATION, &conversation);
    let activity = Activity {
        conversation: Some(conversation),
        ..Activity::default()
    };
    assert_eq!(Activity::decode(fields.0), Ok(activity));
}

#[test]
fn a_draft_does_not_show_what_was_said() {
    let shown = format!("{:?}", drafted(inbound, full()));
    assert!(
        !shown.contains("bonjour") && shown.contains("own-id"),
        "{shown}"
    );
}

/// Makes a generated document one that passes.
fn presentable(mut activity: Activity) -> Activity {
    activity.from.get_or_insert_default().id = Some("u1".to_owned());
    activity.conversation.get_or_insert_default().id = Some("c1".to_owned());
    activity.r#type = activity
        .r#type
        .filter(|kind| validate::id("type", kind).is_ok());
    activity.r#type.get_or_insert_with(|| "message".to_owned());
    activity.id = activity.id.filter(|id| validate::id("id", id).is_ok());
    let reply_to = activity.reply_to_id;
    activity.reply_to_id = reply_to.filter(|id| id.is_empty() || validate::id("", id).is_ok());
    activity.timestamp = activity
        .timestamp
        .map(|_| "2026-01-31T12:00:00Z".to_owned());
    activity.local_timestamp = None;
    activity.expiration = None;
    for member in activity
        .members_added
        .iter_mut()
        .chain(&mut activity.members_removed)
    {
        member.id = Some("u2".to_owned());
    }
    activity
}

proptest! {
    #[test]
    fn a_finished_draft_is_the_activity_with_the_gateways_fields(
        document in Activity::documents(),
    ) {
        let activity = presentable(read(document));
        let limits = Limits::default();
        let draft = inbound(&mut activity.clone(), &limits)?;
        prop_assert_eq!(finished(&draft), expected_inbound(activity.clone()));
        let draft = outbound(&mut activity.clone(), &limits)?;
        prop_assert_eq!(finished(&draft), expected_outbound(activity));
        let again = Draft::again(draft.body().clone()).expect("it was just encoded");
        prop_assert_eq!(finished(&again), finished(&draft));
        prop_assert_eq!((&again.kind, &again.id), (&draft.kind, &draft.id));
    }

    #[test]
    fn no_activity_breaks_the_rules_checker(document in Activity::documents()) {
        for author in [inbound as Author, outbound] {
            if let Ok(draft) = author(&mut read(document.clone()), &Limits::default()) {
                finished(&draft);
            }
        }
    }
}

#[test]
fn what_an_activity_is_about_is_added_to_what_it_says() {
    let draft = drafted(outbound, json!({"type": "event", "name": "n", "text": "t"}));
    let reference = read(json!({"activityId": "a1", "bot": {"id": "b"}}));
    let facts = Facts::new();
    let finished = draft.relating_to(&reference).finish(&facts.stamp());
    let activity = Activity::decode(finished).expect("an activity");
    assert_eq!(activity.relates_to, Some(reference));
    assert_eq!(
        (activity.name.as_deref(), activity.text.as_deref()),
        (Some("n"), Some("t"))
    );
}
