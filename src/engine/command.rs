//! What a shard is asked to do.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::activity::Draft;
use crate::clock::Timestamp;
use crate::engine::bots::ChangeBots;
use crate::engine::create::Create;
use crate::engine::error::Error;
use crate::engine::feed::Feed;
use crate::engine::receipt::Said;
use crate::engine::schedule::{Cancel, Cancelled, Schedule, Sent};
use crate::engine::session::{self, Appended, Session, Subscriber};
use crate::id::{BotId, ConversationKey, ConversationNumber, DeliveryId, Sequence};
use crate::proto::v1;
use crate::store::record;

/// One thing to decide. Each is decided whole before the next; those of one round become durable
/// together.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Box<Append>),
    Create(Box<Create>),
    Commit(Box<Commit>),
    Schedule(Box<Schedule>, oneshot::Sender<Result<Sent, Error>>),
    Cancel(Cancel, oneshot::Sender<Result<Cancelled, Error>>),
    Ack(Acknowledge),
    Nack(Acknowledge, Nack),
    Extend {
        session: Arc<Session>,
        deliveries: Vec<DeliveryId>,
        by: Option<Duration>,
    },
    Attach(Arc<Session>),
    Detach(session::Number),
    /// Credit was granted to a session of this subscriber.
    Granted(Subscriber),
    /// A bot joins, leaves or hands over.
    Bots(Box<ChangeBots>),
    Follow {
        conversation: ConversationKey,
        reply: oneshot::Sender<Result<Followed, Error>>,
    },
    /// Other settings are in force from now on.
    Reload,
    /// No more deliveries are handed over.
    Drain,
    /// Make durable what is not yet, and end. Answers when done.
    Stop(oneshot::Sender<()>),
}

/// Room among what waits for the shards, held until the command is decided.
pub(crate) type Room = tokio::sync::OwnedSemaphorePermit;

/// An activity to append.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) room: Room,
    /// Where. `None`: where the delivery belongs that it cites.
    pub(crate) conversation: Option<ConversationKey>,
    pub(crate) draft: Draft,
    pub(crate) from: From,
    /// Makes repeating safe.
    pub(crate) key: Option<Keyed>,
    pub(crate) reply: Reply,
}

/// The key of an append that is to happen once.
#[derive(Debug)]
pub(crate) struct Keyed {
    pub(crate) key: String,
    /// What was asked for. Made before the shard is asked, on the caller's task.
    pub(crate) payload_hash: [u8; 32],
}

impl Keyed {
    pub(crate) fn new(key: String, draft: &Draft) -> Self {
        let payload_hash = draft.payload_hash();
        Self { key, payload_hash }
    }

    /// A key that stands for whatever is posted with it first.
    pub(crate) fn whatever(key: String) -> Self {
        Self {
            key,
            payload_hash: [0; 32],
        }
    }

    /// With a conversation reference that is applied as well.
    pub(crate) fn with(mut self, reference: Option<&v1::ConversationReference>) -> Self {
        if let Some(reference) = reference {
            self.payload_hash = Sha256::new()
                .chain_update(self.payload_hash)
                .chain_update(record::encode(reference))
                .finalize()
                .into();
        }
        self
    }
}

/// Who wants to append.
#[derive(Debug)]
pub(crate) enum From {
    /// The channel. Starts the conversation if there is none.
    Channel,
    /// A bot over its stream, citing the delivery it answers, if it answers one.
    Bot {
        session: Arc<Session>,
        cites: Option<DeliveryId>,
    },
    /// A backend for a bot (or the only one), with a conversation reference to apply.
    Backend {
        bot: Option<BotId>,
        reference: Option<Box<v1::ConversationReference>>,
    },
}

/// Whom to tell what became of an append.
#[derive(Debug)]
pub(crate) enum Reply {
    Caller(oneshot::Sender<Result<Appended, Error>>),
    Send {
        session: Arc<Session>,
        frame: u64,
        client_id: String,
        cites: Option<DeliveryId>,
    },
    Post {
        session: Arc<Session>,
        frame: u64,
        post_id: String,
    },
}

/// Activities to append as the answer to a delivery, which they finish.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) room: Room,
    pub(crate) session: Arc<Session>,
    pub(crate) frame: u64,
    pub(crate) delivery: DeliveryId,
    pub(crate) drafts: Vec<Draft>,
}

/// Deliveries to finish or to give back.
#[derive(Debug)]
pub(crate) struct Acknowledge {
    pub(crate) session: Arc<Session>,
    pub(crate) frame: u64,
    pub(crate) deliveries: Vec<DeliveryId>,
    pub(crate) want_result: bool,
    /// What the channel says of what it was handed; egress only.
    pub(crate) said: Option<Said>,
}

/// How deliveries are given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nack {
    /// Try again, after this long or by the backoff.
    Retry(Option<Duration>),
    /// Hand it to another session; the attempt does not count.
    Release,
    /// Park it in the dead letters.
    Poison(String),
}

/// The live end of a conversation.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) conversation: ConversationNumber,
    pub(crate) feed: Arc<Feed>,
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    /// Everything up to here is settled by the channel.
    pub(crate) settled: Sequence,
}

/// What waits for a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Activities not yet finished.
    pub undelivered: u64,
    /// When the oldest of them was appended.
    pub oldest: Option<Timestamp>,
}

impl Backlog {
    /// Both together.
    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            undelivered: self.undelivered + other.undelivered,
            oldest: match (self.oldest, other.oldest) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
}
