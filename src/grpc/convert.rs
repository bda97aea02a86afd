//! Between the engine's types and the API's.

use std::time::Duration;

use crate::activity::validate;
use crate::clock::Timestamp;
use crate::engine::log::Entry;
use crate::engine::receipt::{Receipt, Receipted};
use crate::engine::session::{self, Outcome};
use crate::engine::{Backlog, Conversation, Ephemeral};
use crate::id::{ChannelId, ConversationId, ConversationKey};
use crate::proto::{server, v1};
use crate::status::Failure;

/// A conversation named in a request.
pub(super) fn key(
    name: Option<v1::ConversationName>,
    field: &'static str,
) -> Result<ConversationKey, Failure> {
    let invalid = |problem: &str| Failure::RequestInvalid {
        field,
        problem: problem.to_owned(),
    };
    let name = name.ok_or_else(|| invalid("is required"))?;
    for (part, id) in [
        ("channel_id", &name.channel_id),
        ("conversation_id", &name.conversation_id),
    ] {
        validate::id(part, id).map_err(|problem| invalid(&format!("is invalid: {problem}")))?;
    }
    Ok(ConversationKey {
        channel: ChannelId::from(name.channel_id),
        conversation: ConversationId::from(name.conversation_id),
    })
}

pub(super) fn name(key: &ConversationKey) -> v1::ConversationName {
    v1::ConversationName {
        channel_id: key.channel.as_str().to_owned(),
        conversation_id: key.conversation.as_str().to_owned(),
    }
}

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (time.0 / 1_000) as i64,
        nanos: (time.0 % 1_000) as i32 * 1_000_000,
    }
}

/// A point in time in a request, to the millisecond; one before 1970 is 1970.
pub(super) fn time(
    time: Option<prost_types::Timestamp>,
    field: &'static str,
) -> Result<Option<Timestamp>, Failure> {
    /// The end of the year 9999, which `google.protobuf.Timestamp` ends with.
    const LAST_SECOND: i64 = 253_402_300_799;
    let Some(time) = time else { return Ok(None) };
    if !(0..1_000_000_000).contains(&time.nanos) || time.seconds > LAST_SECOND {
        return Err(Failure::RequestInvalid {
            field,
            problem: "is no point in time".to_owned(),
        });
    }
    let seconds = u64::try_from(time.seconds).ok();
    let millis = seconds.map_or(0, |seconds| {
        seconds * 1_000 + u64::from(time.nanos.unsigned_abs()) / 1_000_000
    });
    Ok(Some(Timestamp(millis)))
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

pub(super) fn outcome(outcome: Outcome) -> v1::AckOutcome {
    match outcome {
        Outcome::Ok => v1::AckOutcome::Ok,
        Outcome::Stale => v1::AckOutcome::Stale,
        Outcome::Unknown => v1::AckOutcome::Unknown,
        Outcome::OutOfOrder => v1::AckOutcome::OutOfOrder,
    }
}

pub(super) fn appended(appended: &session::Appended) -> v1::Appended {
    v1::Appended {
        activity_id: appended.activity_id.as_ref().to_owned(),
        sequence: appended.sequence.0,
    }
}

pub(super) fn entry(entry: &Entry) -> server::LogEntry {
    server::LogEntry {
        sequence: entry.sequence.0,
        append_time: Some(timestamp(entry.append_time)),
        author: entry.author.kind() as i32,
        bot_id: entry
            .author
            .bot()
            .map(ToString::to_string)
            .unwrap_or_default(),
        activity: entry.activity.clone(),
        receipt: None,
    }
}

pub(super) fn receipt(receipt: Receipt) -> v1::Receipt {
    v1::Receipt {
        conversation: None,
        activity_id: receipt.activity_id,
        sequence: receipt.sequence.0,
        state: receipt.state.kind() as i32,
        channel_activity_id: receipt.channel_activity_id,
        reason: receipt.reason,
        time: receipt.time.map(timestamp),
    }
}

/// A receipt for those who hear of several conversations.
pub(super) fn receipted(receipted: Receipted) -> v1::Receipt {
    v1::Receipt {
        conversation: Some(name(&receipted.conversation)),
        ..receipt(receipted.receipt)
    }
}

pub(super) fn conversation(key: &ConversationKey, stored: Conversation) -> v1::Conversation {
    v1::Conversation {
        name: Some(name(key)),
        is_group: stored.is_group,
        bot_ids: stored.bots().map(ToString::to_string).collect(),
        start_time: Some(timestamp(stored.start_time)),
        last_sequence: stored.last.0,
        first_sequence: stored.first.0,
        ended: stored.ended,
        reference: Some(stored.reference),
    }
}

pub(super) fn ephemeral(key: &ConversationKey, ephemeral: &Ephemeral) -> server::Ephemeral {
    let Ephemeral { entry, .. } = ephemeral;
    server::Ephemeral {
        conversation: Some(name(key)),
        author: entry.author.kind() as i32,
        bot_id: entry
            .author
            .bot()
            .map(ToString::to_string)
            .unwrap_or_default(),
        activity: entry.activity.clone(),
    }
}

/// What a session is told with each heartbeat.
pub(super) fn heartbeat(backlog: Backlog, credit: session::Credit) -> v1::GatewayHeartbeat {
    v1::GatewayHeartbeat {
        undelivered: backlog.undelivered,
        oldest_time: backlog.oldest.map(timestamp),
        credit_deliveries: credit.deliveries,
        credit_bytes: credit.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_come_back_to_the_millisecond_and_others_are_refused() {
        let read = |seconds, nanos| time(Some(prost_types::Timestamp { seconds, nanos }), "at");
        for millis in [0, 1, 999, 1_000, 1_767_312_345_678] {
            let there = timestamp(Timestamp(millis));
            let back = read(there.seconds, there.nanos).expect("a time");
            assert_eq!(back, Some(Timestamp(millis)));
        }
        assert_eq!(read(1, 1_999_999).expect("a time"), Some(Timestamp(1_001)));
        assert_eq!(read(-1, 5).expect("a time"), Some(Timestamp(0)));
        assert_eq!(time(None, "at").expect("no time"), None);
        for (seconds, nanos) in [
            (0, -1),
            (0, 1_000_000_000),
            (253_402_300_800, 0),
            (i64::MAX, 0),
        ] {
            assert!(read(seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }
}
