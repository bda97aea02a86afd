//! Generates the messages and the stubs from `proto/`.

use std::path::Path;

/// Every file of the public API. Listed one by one so that each is a rerun trigger: a changed
/// directory does not reliably trigger one.
const PROTOS: [&str; 9] = [
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

/// Activities in frames and requests. An activity has some sixty fields and is moved with whatever
/// holds it: through queues, futures and results. A box is moved by its address.
const BOXED: [&str; 13] = [
    "DeadLetter.activity",
    "Send.activity",
    "Delivery.activity",
    "Post.activity",
    "PostActivityRequest.activity",
    "Outbound.activity",
    "SendActivityRequest.activity",
    "CreateConversationRequest.activity",
    "UpdateActivityRequest.activity",
    "ScheduledActivity.activity",
    "LogEntry.activity",
    "Ephemeral.activity",
    "BotEphemeral.activity",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={}", root.join(proto).display());
    }
    let files = protox::compile(PROTOS, [root])?;
    let mut config = tonic_prost_build::configure();
    for field in BOXED {
        config = config.boxed(format!(".turnwire.v1.{field}"));
    }
    config
        // The tests play the gateway; users get the client's half only.
        .server_mod_attribute(".", "#[cfg(test)]")
        .bytes(".turnwire.v1")
        .compile_fds(files)?;
    Ok(())
}
