//! What is never logged, as frames: pieces of streamed replies, typing, and that a reply was stopped.

use super::bots::conversation;
use super::stream::{About, Rejected};
use crate::activity::Kind;
use crate::engine::session::Cancelled;
use crate::engine::{FrameError, Link, Piece};
use crate::id::DeliveryId;
use crate::proto::v1;
use crate::proto::v1::partial::Content;

/// Adds a piece to a reply.
pub(super) async fn partial(link: &Link, frame: u64, partial: v1::Partial) -> Result<(), Rejected> {
    let id = DeliveryId(partial.delivery_id);
    let piece = match partial.content {
        Some(Content::Append(text)) => Piece::Append(text),
        Some(Content::Text(text)) => Piece::Replace(text),
        Some(Content::Informative(status)) => Piece::Informative(status),
        None => {
            let error = FrameError::Invalid {
                field: "content",
                problem: "is required".to_owned(),
            };
            return Err(error).about("", Some(id));
        }
    };
    link.partial(frame, id, partial.stream, piece)
        .await
        .about("", Some(id))
}

/// Shows that a bot is typing.
pub(super) async fn ephemeral(
    link: &Link,
    frame: u64,
    shown: v1::BotEphemeral,
) -> Result<(), Rejected> {
    let cites = (shown.delivery_id != 0).then_some(DeliveryId(shown.delivery_id));
    let checked = || {
        let invalid = |field, problem: &str| FrameError::Invalid {
            field,
            problem: problem.to_owned(),
        };
        let activity = shown.activity;
        let activity = activity.ok_or_else(|| invalid("activity", "is required"))?;
        let kind = Kind::from(activity.r#type.as_deref().unwrap_or_default());
        if !kind.is_ephemeral() {
            return Err(invalid("activity.type", "must be `typing`"));
        }
        Ok((activity, conversation(shown.conversation, cites)?))
    };
    let (activity, conversation) = checked().about("", cites)?;
    link.ephemeral(frame, conversation, cites, activity)
        .await
        .about("", cites)
}

/// Stops a reply, as an adapter asks.
pub(super) async fn stopped(link: &Link, stopped: v1::StreamStopped) -> Result<(), Rejected> {
    let name = stopped.conversation.ok_or_else(|| FrameError::Invalid {
        field: "conversation",
        problem: "is required".to_owned(),
    })?;
    let id = name.conversation_id.into();
    Ok(link.stop_stream(id, stopped.stream_id).await?)
}

/// That a reply is wanted no more.
pub(super) fn cancel(cancelled: Cancelled) -> v1::Cancel {
    v1::Cancel {
        delivery_id: cancelled.delivery.0,
        stream: cancelled.stream,
        reason: cancelled.why as i32,
    }
}
