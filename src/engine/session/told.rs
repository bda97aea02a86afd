//! What sessions are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::engine::feed::Ephemeral;
use crate::engine::receipt::Receipted;
use crate::id::{ConversationKey, DeliveryId, Etag, Fence, Sequence};
use crate::proto::v1;

/// What the engine tells a session's stream.
#[derive(Debug)]
pub enum Event {
    /// An activity for it.
    Delivery(Delivery),
    /// What became of acknowledgements.
    Acked(Vec<Acked>),
    /// What became of a send.
    Sent(Sent),
    /// What became of a post.
    Posted(Posted),
    /// A conversation went to another session.
    Revoked {
        /// Which.
        conversation: ConversationKey,
        /// The fence of the new lease.
        fence: Fence,
    },
    /// A frame was refused.
    Refused(Refused),
    /// A streamed reply is wanted no more.
    Cancelled(Cancelled),
    /// Something that is seen now or never.
    Ephemeral(ConversationKey, Arc<Ephemeral>),
    /// What became of an activity on its channel.
    Receipt(Box<Receipted>),
    /// A conversation is wanted.
    Create(Box<v1::CreateConversation>),
    /// The gateway is going down.
    Drain {
        /// When to reconnect, from now.
        reconnect_after: Duration,
        /// How long the gateway waits for work in flight.
        grace: Duration,
    },
    /// The session has drained: it holds nothing, and gets nothing more.
    Drained,
    /// The session is over.
    End(Error),
}

/// One activity handed to a session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The delivery.
    pub id: DeliveryId,
    /// The conversation.
    pub conversation: ConversationKey,
    /// The activity's position in its log.
    pub sequence: Sequence,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The lease's fence.
    pub fence: Fence,
    /// When it is taken back; `None` while the session lives.
    pub deadline: Option<Timestamp>,
    /// The activity, encoded.
    pub activity: Bytes,
    /// Something was skipped before it.
    pub after_gap: bool,
    /// It is a dead letter that is handed over again.
    pub replay: bool,
}

/// A streamed reply that is wanted no more, or not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The delivery that is being answered.
    pub delivery: DeliveryId,
    /// Which of its streams, by the bot's number.
    pub stream: u32,
    /// Why.
    pub why: v1::CancelReason,
}

/// What became of one acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The delivery.
    pub id: DeliveryId,
    /// What became of it.
    pub outcome: Outcome,
    /// What a commit appended.
    pub appended: Vec<Appended>,
    /// The new etags of the documents that it wrote, in order; none for one that it removed.
    pub etags: Vec<Option<Etag>>,
}

/// Whether what cites a delivery was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, and durable.
    Ok,
    /// The session does not hold the delivery any more.
    Stale,
    /// There never was such a delivery.
    Unknown,
    /// The session holds an earlier one of the same conversation, which must be finished first.
    OutOfOrder,
}

/// Where an activity was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The activity's id.
    pub activity_id: Arc<str>,
    /// Its position in the log.
    pub sequence: Sequence,
    /// This is the result of an earlier append with the same key.
    pub repeated: bool,
}

/// What became of a send.
#[derive(Debug)]
pub struct Sent {
    /// Which frame of the stream, from 1.
    pub frame: u64,
    /// The client's key.
    pub client_id: String,
    /// Where it was appended, or why it was not taken.
    pub result: Result<Appended, Outcome>,
}

/// What became of a post.
#[derive(Debug)]
pub struct Posted {
    /// The adapter's name for the frame.
    pub post_id: String,
    /// Where it was appended.
    pub appended: Appended,
}

/// A frame that was refused.
#[derive(Debug)]
pub struct Refused {
    /// Which frame of the stream, from 1.
    pub frame: u64,
    /// Why.
    pub error: Error,
    /// The frame's client id or post id, if it had one.
    pub client_id: String,
    /// The delivery the frame cited, if it did.
    pub delivery: Option<DeliveryId>,
}
