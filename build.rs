//! Generates what the gateway adds to `turnwire-client`'s messages: the server stubs, the stored
//! records, and the descriptors that reflection serves. And says which compiler it was, for
//! `turnwire bench`.
//!
//! Messages that carry activities out of the log are generated a second time with the activity as
//! `bytes`. On the wire a message field and a bytes field are the same, so a stored activity is
//! handed on in the encoded form it has in the log, without being decoded and encoded again.

use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Every file, one by one, so that each is a rerun trigger.
const API: [&str; 9] = [
    "turnwire/v1/activity.proto",
    "turnwire/v1/conversation.proto",
    "turnwire/v1/ephemeral.proto",
    "turnwire/v1/state.proto",
    "turnwire/v1/bot_service.proto",
    "turnwire/v1/channel_service.proto",
    "turnwire/v1/conversation_service.proto",
    "turnwire/v1/state_service.proto",
    "turnwire/v1/admin_service.proto",
];
const STORAGE: [&str; 2] = [
    "turnwire/storage/v1/record.proto",
    "turnwire/storage/v1/backup.proto",
];

/// Messages that hold an activity as the writer encoded it...
const CARRIERS: [&str; 5] = [
    "DeadLetter",
    "Delivery",
    "Ephemeral",
    "LogEntry",
    "Outbound",
];
/// ...and the responses that hold those.
const ENVELOPES: [&str; 5] = [
    "ListDeadLettersResponse",
    "SubscribeResponse",
    "AttachResponse",
    "ListActivitiesResponse",
    "WatchConversationResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rustc-env=TURNWIRE_RUSTC={}", compiler());

    let root = Path::new("proto");
    for proto in API.iter().chain(&STORAGE) {
        println!("cargo::rerun-if-changed={}", root.join(proto).display());
    }

    let api = protox::compile(API, [root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("turnwire_v1.fds"), api.encode_to_vec())?;

    let mut config = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::proto::codec::Codec")
        .bytes(".turnwire.v1");
    for message in messages(&api) {
        if !CARRIERS.contains(&message.as_str()) && !ENVELOPES.contains(&message.as_str()) {
            config = config.extern_path(
                format!(".turnwire.v1.{message}"),
                format!("::turnwire_client::proto::{message}"),
            );
        }
    }
    let leaves = [
        "Author",
        "AckOutcome",
        "CancelReason",
        "NackMode",
        "ReadOrder",
        "ReceiptState",
        "Retry",
        "ScheduleEnd",
        "SessionState",
    ];
    for leaf in leaves {
        config = config.extern_path(
            format!(".turnwire.v1.{leaf}"),
            format!("::turnwire_client::proto::{leaf}"),
        );
    }
    config.compile_fds(with_encoded_activities(api))?;

    tonic_prost_build::configure()
        .bytes(".turnwire.storage.v1")
        .compile_fds(protox::compile(STORAGE, [root])?)?;
    Ok(())
}

/// The compiler's version, as it says it.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    version.unwrap_or_default()
}

/// The names of the API's top-level messages.
fn messages(files: &FileDescriptorSet) -> Vec<String> {
    files
        .file
        .iter()
        .filter(|file| file.package() == "turnwire.v1")
        .flat_map(|file| file.message_type.iter().map(|m| m.name().to_owned()))
        .collect()
}

/// The same API, with the activity of every carrier as `bytes`.
fn with_encoded_activities(mut files: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut files.file {
        for message in &mut file.message_type {
            if CARRIERS.contains(&message.name()) {
                encode_activity(message);
            }
        }
    }
    files
}

fn encode_activity(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.type_name() == ".turnwire.v1.Activity" {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}
