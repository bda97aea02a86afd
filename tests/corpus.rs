//! Documents and frames from outside: what can be read loses nothing, and nothing breaks the reader.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use prost::Message;
use serde_json::Value;
use turnwire::activity::{self, json};
use turnwire::limits::Limits;
use turnwire::proto::v1::{
    Activity, AttachRequest, Commit, Post, Send, SubscribeRequest, attach_request,
    subscribe_request,
};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate's root there, a module here")]
mod fuzz;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/activities");

/// Real documents, kept beside the source tree because they are not the project's to publish.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus");

/// Real documents that give a known member a wrong type. The codec carries it; it is not coerced
/// when it is posted, but refused (A2003).
const REFUSED: [(&str, &str); 2] = [
    (
        "agjs-005.json",
        "`from.role` expected a string, found a boolean",
    ),
    (
        "webchat-061.json",
        "`suggestedActions.to` expected an array, found a string",
    ),
];

#[test]
fn no_member_of_the_fixtures_is_lost() {
    assert!(round_trip(Path::new(FIXTURES)) >= 15);
}

/// `TURNWIRE_CORPUS` names another folder.
#[test]
fn no_member_of_the_corpus_is_lost() {
    let folder = std::env::var_os("TURNWIRE_CORPUS").map_or_else(|| CORPUS.into(), PathBuf::from);
    if folder.is_dir() {
        let documents = round_trip(&folder);
        println!("{documents} documents");
        assert!(documents > 0);
    } else {
        println!("skipped: there is no folder `{}`", folder.display());
    }
}

/// Takes every document of a folder through protobuf and back, and checks the shape of each;
/// returns how many there were.
fn round_trip(folder: &Path) -> usize {
    let documents = documents(folder);
    for (path, text) in &documents {
        let activity = json::decode::<Activity>(text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bytes = activity.encode_to_vec();
        let activity =
            Activity::decode(&*bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));

        let original = serde_json::from_slice(text).expect("JSON, since it was decoded");
        let back = serde_json::from_str(&json::to_string(&activity)).expect("JSON");
        assert_eq!(as_doubles(back), as_doubles(original), "{}", path.display());

        let shape = json::check(&activity);
        if let Some((_, refusal)) = REFUSED.iter().find(|(name, _)| path.ends_with(name)) {
            let error = activity::inbound(&mut activity.clone(), &Limits::default())
                .expect_err("a wrong type");
            assert_eq!(error.to_string(), *refusal);
        } else {
            shape.unwrap_or_else(|misfit| panic!("{}: {misfit}", path.display()));
        }
    }
    documents.len()
}

fn documents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder that can be read");
    entries
        .map(|entry| entry.expect("an entry that can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let text = fs::read(&path).expect("a file that can be read");
            (path, text)
        })
        .collect()
}

/// The same document with every number as the double it is in JavaScript.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => (number.as_f64().expect("a finite number") + 0.0).into(),
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, as_doubles(value)))
            .collect(),
        other => other,
    }
}

/// A fixture, as text.
fn fixture() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<_> = documents(Path::new(FIXTURES))
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    prop::sample::select(texts)
}

/// A frame of a bot or an adapter that has a fixture in it, encoded.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (fixture(), 0..3).prop_map(|(text, frame)| {
        let activity: Activity = json::decode(text).expect("a fixture");
        let activities = vec![activity.clone(), activity.clone()];
        let activity = Some(Box::new(activity));
        let from_bot = |frame| SubscribeRequest { frame: Some(frame) }.encode_to_vec();
        match frame {
            0 => from_bot(subscribe_request::Frame::Send(Send {
                activity,
                ..Default::default()
            })),
            1 => from_bot(subscribe_request::Frame::Commit(Commit {
                activities,
                ..Default::default()
            })),
            _ => {
                let post = Post {
                    activity,
                    ..Default::default()
                };
                let frame = Some(attach_request::Frame::Post(post));
                AttachRequest { frame }.encode_to_vec()
            }
        }
    })
}

/// The same bytes with some of them changed, and perhaps cut short.
fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let end = prop::option::weighted(0.2, any::<prop::sample::Index>());
    (bytes, changes, end).prop_map(|(mut bytes, changes, end)| {
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        // A bug that is found becomes a fixture.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_bytes_break_the_readers(bytes in any::<Vec<u8>>()) {
        fuzz::activity_json(&bytes);
        fuzz::stream_frame(&bytes);
    }

    #[test]
    fn no_damage_to_a_document_breaks_the_reader(bytes in damaged(fixture())) {
        fuzz::activity_json(&bytes);
    }

    #[test]
    fn no_damage_to_a_frame_breaks_the_reader(bytes in damaged(frame())) {
        fuzz::stream_frame(&bytes);
    }
}
