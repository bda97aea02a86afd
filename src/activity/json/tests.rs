use proptest::prelude::*;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Value as JsonValue, json};

use super::element::open;
use super::generate::{Generate, any_json, spoilt_activity};
use super::*;
use crate::proto::v1::{ChannelAccount, ConversationReference, SuggestedActions};

fn activity(document: JsonValue) -> Activity {
    decode_value(&document).expect("an object")
}

fn number(number: f64) -> Value {
    let kind = Some(Kind::NumberValue(number));
    Value { kind }
}

/// The same document with every number as the double it is in JavaScript.
fn as_doubles(value: JsonValue) -> JsonValue {
    match value {
        JsonValue::Number(number) => (number.as_f64().expect("a finite number") + 0.0).into(),
        JsonValue::Array(items) => items.into_iter().map(as_doubles).collect(),
        JsonValue::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, as_doubles(value)))
            .collect(),
        other => other,
    }
}

/// JSON to protobuf to bytes and all the way back.
fn around<M: Json + Message + Default>(document: JsonValue) -> JsonValue {
    let message: M = decode_value(&document).expect("an object");
    let bytes = message.encode_to_vec();
    encode(&M::decode(&*bytes).expect("what prost wrote"))
}

#[test]
fn known_members_become_fields() {
    let activity = activity(json!({
        "type": "message",
        "from": {"id": "u1", "aadObjectId": "a"},
        "attachments": [{"contentType": "text/plain", "content": "x"}],
        "textHighlights": [{"text": "x", "occurrence": 2.0}],
        "historyDisclosed": false,
    }));
    assert_eq!(activity.r#type.as_deref(), Some("message"));
    let from = activity.from.expect("from");
    assert_eq!(from.aad_object_id.as_deref(), Some("a"));
    assert_eq!(activity.text_highlights[0].occurrence, Some(2));
    assert_eq!(activity.history_disclosed, Some(false));
    assert_eq!(activity.unknown_members, None);
}

#[test]
fn names_are_case_sensitive() {
    let activity = activity(json!({"Type": "message", "reply_to_id": "1"}));
    assert_eq!((activity.r#type, activity.reply_to_id), (None, None));
    let unknown = activity.unknown_members.expect("unknown members");
    assert!(unknown.fields.contains_key("Type"));
    assert!(unknown.fields.contains_key("reply_to_id"));
}

#[test]
fn what_no_field_can_hold_goes_to_unknown_members_and_comes_back() {
    let document = json!({
        "text": null,
        "from": null,
        "attachments": [],
        "listenFor": null,
        "vendor": {"deep": [null, 1.5]},
        "suggestedActions": {"to": [], "actions": [{"type": "imBack", "title": null, "x": 1}]},
        "semanticAction": {"entities": null},
    });
    let activity = activity(document.clone());
    assert_eq!(activity.text, None);
    let unknown = activity.unknown_members.as_ref().expect("unknown members");
    let names: Vec<_> = unknown.fields.keys().collect();
    assert_eq!(
        names,
        ["attachments", "from", "listenFor", "text", "vendor"]
    );
    assert_eq!(encode(&activity), document);
}

#[test]
fn open_positions_hold_null_themselves() {
    let document = json!({
        "channelData": null,
        "value": null,
        "attachments": [{"content": null}],
        "suggestedActions": {"actions": [{"value": null, "channelData": null}]},
    });
    let activity = activity(document.clone());
    let null = Value {
        kind: Some(Kind::NullValue(0)),
    };
    assert_eq!(activity.channel_data.as_ref(), Some(&null));
    assert_eq!(activity.value.as_ref(), Some(&null));
    assert_eq!(activity.attachments[0].content.as_ref(), Some(&null));
    assert_eq!(activity.unknown_members, None);
    assert_eq!(encode(&activity), document);
}

#[test]
fn empty_is_not_absent() {
    let document = json!({"text": "", "from": {}, "value": {}, "historyDisclosed": false});
    assert_eq!(around::<Activity>(document.clone()), document);
    assert_eq!(around::<Activity>(json!({})), json!({}));
}

#[test]
fn a_field_that_is_set_wins_over_an_unknown_member_of_its_name() {
    let mut activity = activity(json!({"id": null, "membersAdded": []}));
    activity.id = Some("1".to_owned());
    activity.members_added.push(ChannelAccount::default());
    assert_eq!(encode(&activity), json!({"id": "1", "membersAdded": [{}]}));
}

#[test]
fn a_wrong_type_is_carried_and_found_with_its_path() {
    for (document, message) in [
        (
            json!({"timestamp": 0}),
            "timestamp: expected a string, found a number",
        ),
        (
            json!({"attachments": [{}, {}, {"contentType": 1}]}),
            "attachments[2].contentType: expected a string, found a number",
        ),
        (
            json!({"listenFor": ["a", null]}),
            "listenFor[1]: expected a string, found null",
        ),
        (
            json!({"entities": {}}),
            "entities: expected an array, found an object",
        ),
        (
            json!({"text": [], "attachments": []}),
            "text: expected a string, found an array",
        ),
        (
            json!({"attachments": [{"contentType": 1}, 2]}),
            "attachments[1]: expected an object, found a number",
        ),
        (
            json!({"entities": ["a"]}),
            "entities[0]: expected an object, found a string",
        ),
        (
            json!({"from": {"properties": "a"}}),
            "from.properties: expected an object, found a string",
        ),
        (
            json!({"relatesTo": {"conversation": {"isGroup": "false"}}}),
            "relatesTo.conversation.isGroup: expected a boolean, found a string",
        ),
        (
            json!({"textHighlights": [{"occurrence": 1.5}]}),
            "textHighlights[0].occurrence: expected a 32-bit integer, found a number",
        ),
        (
            json!({"textHighlights": [{"occurrence": 3_000_000_000_u32}]}),
            "textHighlights[0].occurrence: expected a 32-bit integer, found a number",
        ),
    ] {
        let activity = activity(document.clone());
        assert_eq!(encode(&activity), document);
        assert_eq!(check(&activity).expect_err("a misfit").to_string(), message);
    }
}

#[test]
fn a_list_with_one_misfit_is_carried_whole() {
    let activity = activity(json!({"listenFor": ["a", 1], "entities": [{}]}));
    assert!(activity.listen_for.is_empty());
    assert_eq!(activity.entities.len(), 1);
    let unknown = activity.unknown_members.expect("unknown members");
    let list = open(&json!(["a", 1]));
    assert_eq!(unknown.fields, [("listenFor".to_owned(), list)].into());
}

#[test]
fn a_document_of_a_wrong_type_is_refused() {
    for (text, found) in [
        ("[{}]", "an array"),
        ("\"{}\"", "a string"),
        ("null", "null"),
    ] {
        let error = decode::<Activity>(text).expect_err("no object");
        assert_eq!(
            error.to_string(),
            format!("expected an object, found {found}")
        );
    }
    assert!(decode::<String>("1").is_err());
}

#[test]
fn a_misfit_counts_as_open_content_does() {
    let arrays = |levels| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    let checked = |levels| {
        let misfit = check(&activity(json!({"text": arrays(levels)})));
        misfit.expect_err("a misfit").to_string()
    };
    // The activity, its unknown members, their entry and the outermost value leave 86 levels.
    assert_eq!(checked(43), "text: expected a string, found an array");
    assert_eq!(checked(44), "unknown_members: is nested too deeply");
}

#[test]
fn numbers_print_as_in_javascript() {
    let printed = |value: f64| to_string(&number(value));
    assert_eq!(printed(1.0), "1");
    assert_eq!(printed(-0.0), "0");
    assert_eq!(printed(0.5), "0.5");
    assert_eq!(printed(9_007_199_254_740_992.0), "9007199254740992");
    assert_eq!(printed(-9_007_199_254_740_992.0), "-9007199254740992");
    assert_eq!(printed(1e300), "1e+300");
    assert_eq!(printed(f64::NAN), "null");
    let read: Value = decode("[-0, 1.0, 12345678901234567890, 1E2]").expect("numbers");
    assert_eq!(to_string(&read), "[0,1,1.2345678901234567e+19,100]");
}

#[test]
fn of_members_with_the_same_name_the_last_wins() {
    let activity: Activity =
        decode(r#"{"text": 1, "text": "b", "x": 1, "x": 2}"#).expect("an activity");
    assert_eq!(encode(&activity), json!({"text": "b", "x": 2}));
}

#[test]
fn text_that_is_no_document_is_refused() {
    for text in ["", "{", "{}x", "nul", "\"\\ud800\"", "1e999", "\u{feff}{}"] {
        assert!(
            matches!(decode::<Value>(text), Err(Error::Syntax(_))),
            "{text}"
        );
    }
    assert!(decode::<Activity>(b"{\"text\": \"\xff\"}").is_err());
}

#[test]
fn deep_text_is_refused_and_not_followed() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(decode::<Value>(deep(127)).is_ok());
    assert!(matches!(
        decode::<Value>(deep(100_000)),
        Err(Error::Syntax(_))
    ));
}

#[test]
fn deep_values_are_refused_and_not_followed() {
    let deep = |levels| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    assert!(decode_value::<Value>(&deep(JSON_NESTING)).is_ok());
    let refused = decode_value::<Value>(&deep(JSON_NESTING + 1));
    assert_eq!(refused, Err(Problem::TooDeep));
}

#[test]
fn nesting_is_counted_as_protobuf_counts_it() {
    let arrays = |levels| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    let objects = |levels| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    let checked = |value: JsonValue| check(&activity(json!({"value": value})));
    // The activity and the outermost value leave 88 levels.
    assert_eq!(checked(arrays(44)), Ok(()));
    assert_eq!(
        checked(arrays(45)).expect_err("too deep").to_string(),
        "value: is nested too deeply"
    );
    assert_eq!(checked(objects(30)), Ok(()));
    assert!(checked(objects(31)).is_err());

    // What passes can be read by prost when it is as far down as any envelope puts it.
    let deepest = activity(json!({"value": arrays(44)}));
    let wrapped = crate::proto::v1::ListActivitiesResponse {
        entries: vec![crate::proto::v1::LogEntry {
            activity: Some(deepest.into()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let bytes = wrapped.encode_to_vec();
    let read = crate::proto::v1::ListActivitiesResponse::decode(&*bytes);
    assert_eq!(read, Ok(wrapped));
}

#[test]
fn numbers_that_are_not_finite_are_found_anywhere() {
    for (path, activity) in [
        (
            "value",
            Activity {
                value: Some(number(f64::INFINITY)),
                ..Default::default()
            },
        ),
        (
            "unknown_members",
            Activity {
                unknown_members: Some(Struct {
                    fields: [("x".to_owned(), number(f64::NAN))].into(),
                }),
                ..Default::default()
            },
        ),
    ] {
        let misfit = check(&activity).expect_err("not finite");
        assert_eq!(
            (misfit.path.as_str(), misfit.problem),
            (path, Problem::NotFinite)
        );
    }
}

#[test]
fn unknown_members_must_not_hold_what_has_a_field() {
    let with = |name: &str, value: JsonValue| {
        let unknown_members = Some(Struct {
            fields: [(name.to_owned(), open(&value))].into(),
        });
        let actions = SuggestedActions {
            unknown_members,
            ..Default::default()
        };
        check(&Activity {
            suggested_actions: Some(actions),
            ..Default::default()
        })
    };
    assert_eq!(with("to", json!([])), Ok(()));
    assert_eq!(with("to", json!(null)), Ok(()));
    assert_eq!(with("other", json!([1])), Ok(()));
    let misfit = with("to", json!(["u1"])).expect_err("misplaced");
    assert_eq!(misfit.path, "suggestedActions.to");
    assert_eq!(misfit.problem, Problem::Misplaced);
    let misfit = with("to", json!(["u1", 2])).expect_err("a misfit");
    assert_eq!(
        misfit.to_string(),
        "suggestedActions.to[1]: expected a string, found a number"
    );
}

proptest! {
    #[test]
    fn no_member_of_an_activity_is_lost(document in Activity::documents()) {
        prop_assert_eq!(check(&activity(document.clone())), Ok(()));
        let back = around::<Activity>(document.clone());
        prop_assert_eq!(as_doubles(back), as_doubles(document));
    }

    #[test]
    fn a_misfit_is_carried_wherever_it_is((path, document) in spoilt_activity()) {
        let activity = activity(document.clone());
        let misfit = check(&activity).expect_err("a misfit");
        prop_assert_eq!(misfit.path, path);
        let is_type = matches!(misfit.problem, Problem::Type { .. });
        prop_assert!(is_type, "{}", misfit.problem);
        let back = around::<Activity>(document.clone());
        prop_assert_eq!(as_doubles(back), as_doubles(document));
    }

    #[test]
    fn text_says_the_same_as_the_value(document in Activity::documents()) {
        let activity = activity(document);
        let again: Activity = decode(to_string(&activity))?;
        prop_assert_eq!(again, activity);
    }

    #[test]
    fn no_member_of_a_reference_is_lost(document in ConversationReference::documents()) {
        let back = around::<ConversationReference>(document.clone());
        prop_assert_eq!(as_doubles(back), as_doubles(document));
    }

    #[test]
    fn whatever_is_decoded_is_written_and_decoded_to_the_same(document in any_json()) {
        let activity = decode_value::<Activity>(&document);
        prop_assert_eq!(activity.is_ok(), document.is_object());
        if let Ok(activity) = activity {
            prop_assert_eq!(decode_value(&encode(&activity)), Ok(activity));
        }
    }

    #[test]
    fn no_bytes_break_the_decoder(bytes in any::<Vec<u8>>()) {
        let _ = decode::<Activity>(bytes);
    }

    #[test]
    fn no_damage_to_a_document_breaks_the_decoder(
        document in Activity::documents(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut text = document.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(activity) = decode::<Activity>(text) {
            prop_assert_eq!(decode_value(&encode(&activity)), Ok(activity));
        }
    }
}
