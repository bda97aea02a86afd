use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::activity::json::generate::spoilt_activity;

type Check = fn(&Activity, &Limits) -> Result<(), Error>;

fn post() -> Value {
    json!({"type": "message", "from": {"id": "u1"}, "conversation": {"id": "c1"}})
}

/// The post with this member replaced, or removed when it is null.
fn post_with(member: &str, value: Value) -> Activity {
    let mut document = post();
    document[member] = value;
    json::decode_value(&document).expect("a well-formed document")
}

fn refusal(check: Check, activity: &Activity) -> String {
    check(activity, &Limits::default())
        .expect_err("a broken rule")
        .to_string()
}

fn accepts(check: Check, activity: &Activity) {
    assert_eq!(check(activity, &Limits::default()), Ok(()), "{activity:?}");
}

#[test]
fn a_post_says_who_did_what_where() {
    accepts(inbound, &post_with("x", json!(1)));
    for (member, message) in [
        ("type", "`type` is required"),
        ("from", "`from.id` is required"),
        ("conversation", "`conversation.id` is required"),
    ] {
        assert_eq!(refusal(inbound, &post_with(member, Value::Null)), message);
    }
    assert_eq!(
        refusal(inbound, &post_with("from", json!({"name": "u"}))),
        "`from.id` is required"
    );
}

#[test]
fn a_send_may_say_nothing_at_all() {
    accepts(outbound, &Activity::default());
}

#[test]
fn what_the_gateway_overwrites_is_not_looked_at() {
    accepts(inbound, &post_with("recipient", json!({"id": ""})));
    accepts(inbound, &post_with("channelId", json!("")));
    for (member, value) in [
        ("id", json!("")),
        ("timestamp", json!("")),
        ("from", json!({"id": ""})),
        ("conversation", json!({"id": "\u{0}"})),
    ] {
        accepts(outbound, &post_with(member, value));
    }
}

#[test]
fn kinds_that_are_not_known_are_accepted() {
    for check in [inbound as Check, outbound] {
        accepts(check, &post_with("type", json!("vendor/thing")));
        let invalid = refusal(check, &post_with("type", json!("")));
        assert_eq!(invalid, "`type` is empty");
    }
}

#[test]
fn programmatic_kinds_need_a_name() {
    for check in [inbound as Check, outbound] {
        for kind in ["event", "invoke", "command", "commandResult"] {
            let mut activity = post_with("type", json!(kind));
            assert_eq!(refusal(check, &activity), "`name` is required");
            activity.name = Some(String::new());
            assert_eq!(refusal(check, &activity), "`name` is empty");
            activity.name = Some("x".to_owned());
            accepts(check, &activity);
        }
        accepts(check, &post_with("type", json!("trace")));
    }
}

#[test]
fn ids_are_short_and_printable() {
    accepts(inbound, &post_with("id", json!("19:a|0000001;é 👩")));
    accepts(inbound, &post_with("id", json!("x".repeat(ID_BYTES))));
    for (text, problem) in [
        ("", "is empty".to_owned()),
        ("a\u{0}b", "has a control character".to_owned()),
        ("a\n", "has a control character".to_owned()),
        ("\u{7f}", "has a control character".to_owned()),
        (&"é".repeat(257), "has 514 bytes, more than 512".to_owned()),
    ] {
        let id = || json!({"id": text});
        for (path, activity) in [
            ("id", post_with("id", json!(text))),
            ("type", post_with("type", json!(text))),
            ("from.id", post_with("from", id())),
            ("conversation.id", post_with("conversation", id())),
            (
                "membersAdded[1].id",
                post_with("membersAdded", json!([{"id": "a"}, id()])),
            ),
            (
                "membersRemoved[0].id",
                post_with("membersRemoved", json!([id()])),
            ),
        ] {
            assert_eq!(refusal(inbound, &activity), format!("`{path}` {problem}"));
        }
    }
}

#[test]
fn an_empty_reply_to_id_is_as_good_as_none() {
    for check in [inbound as Check, outbound] {
        accepts(check, &post_with("replyToId", json!("")));
        let invalid = refusal(check, &post_with("replyToId", json!("\t")));
        assert_eq!(invalid, "`replyToId` has a control character");
    }
}

#[test]
fn times_parse() {
    for member in ["timestamp", "localTimestamp", "expiration"] {
        accepts(
            inbound,
            &post_with(member, json!("2026-01-31T12:00:00.1234567+01:00")),
        );
        for text in ["", "tomorrow"] {
            let invalid = refusal(inbound, &post_with(member, json!(text)));
            assert!(invalid.starts_with(&format!("`{member}` is not an ISO 8601")));
        }
    }
    assert!(outbound(&post_with("expiration", json!("")), &Limits::default()).is_err());
}

#[test]
fn lists_of_members_are_bounded() {
    let members = |count: usize| json!(vec![json!({"id": "u"}); count]);
    for check in [inbound as Check, outbound] {
        for member in ["membersAdded", "membersRemoved"] {
            accepts(check, &post_with(member, members(MEMBERS)));
            assert_eq!(
                refusal(check, &post_with(member, members(MEMBERS + 1))),
                format!("`{member}` has 1001 accounts, more than 1000")
            );
        }
    }
}

#[test]
fn sizes_are_bounded_and_the_refusal_says_which() {
    let limits = Limits {
        activity_bytes: 1_000,
        channel_data_bytes: 100,
        ..Limits::default()
    };
    for check in [inbound as Check, outbound] {
        let large = post_with("text", json!("x".repeat(1_000)));
        assert_eq!(
            check(&large, &limits),
            Err(Error::TooLarge {
                limit: "activity_bytes",
                allowed: 1_000,
                actual: large.encoded_len(),
            })
        );
        assert_eq!(
            check(&post_with("channelData", json!("x".repeat(99))), &limits),
            Err(Error::TooLarge {
                limit: "channel_data_bytes",
                allowed: 100,
                actual: 101,
            })
        );
        let fits = post_with("channelData", json!("x".repeat(98)));
        assert_eq!(check(&fits, &limits), Ok(()));
    }
}

#[test]
fn what_json_cannot_say_is_refused() {
    let deep = (0..60).fold(json!([]), |inner, _| json!([inner]));
    for check in [inbound as Check, outbound] {
        let deep = post_with("value", deep.clone());
        assert_eq!(refusal(check, &deep), "`value` is nested too deeply");
    }
}

#[test]
fn a_wrong_type_is_refused_even_where_the_gateway_overwrites() {
    for check in [inbound as Check, outbound] {
        for (member, value, message) in [
            (
                "attachments",
                json!([{}, {}, {"contentType": 1}]),
                "`attachments[2].contentType` expected a string, found a number",
            ),
            (
                "listenFor",
                json!(["a", null]),
                "`listenFor[1]` expected a string, found null",
            ),
            (
                "callerId",
                json!({}),
                "`callerId` expected a string, found an object",
            ),
        ] {
            assert_eq!(refusal(check, &post_with(member, value)), message);
        }
        accepts(check, &post_with("listenFor", json!([])));
        accepts(check, &post_with("listenFor", Value::Null));
    }
}

proptest! {
    #[test]
    fn a_wrong_type_is_refused_wherever_it_is((path, document) in spoilt_activity()) {
        let activity = json::decode_value(&document).expect("an object");
        for check in [inbound as Check, outbound] {
            let refused = check(&activity, &Limits::default());
            let Err(Error::Invalid(Invalid { path: found, problem })) = refused else {
                panic!("{refused:?}");
            };
            prop_assert_eq!(&found, &path);
            let is_type = matches!(problem, Problem::Shape(json::Problem::Type { .. }));
            prop_assert!(is_type, "{problem}");
        }
    }
}
