//! What a shard is asked to do.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::activity::Draft;
use crate::clock::Timestamp;
use crate::engine::bots::ChangeBots;
use crate::engine::create::Create;
use crate::engine::erase::ErasedPage;
use crate::engine::error::Error;
use crate::engine::feed::Feed;
use crate::engine::receipt::Said;
use crate::engine::schedule::{Cancel, Cancelled, Schedule, Sent};
use crate::engine::session::{self, Appended, Session};
use crate::engine::state::Write;
use crate::engine::stream::Piece;
use crate::id::{BotId, ConversationKey, ConversationNumber, DeliveryId, Etag, Sequence};
use crate::proto::v1;
use crate::store::record::{self, Span};

/// One thing to decide. Each is decided whole before the next; those of one round become durable
/// together.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Box<Append>),
    Create(Box<Create>),
    Commit(Box<Commit>),
    WriteState(Box<WriteState>),
    Schedule(Box<Schedule>, oneshot::Sender<Result<Sent, Error>>),
    Cancel(Cancel, oneshot::Sender<Result<Cancelled, Error>>),
    Ack(Acknowledge),
    Nack(Acknowledge, Nack),
    Extend {
        session: Arc<Session>,
        deliveries: Vec<DeliveryId>,
        by: Option<Duration>,
    },
    /// A piece of a reply that is being made.
    Partial(Box<Partial>),
    /// A channel has stopped a streamed reply, or, without an id, all of a conversation.
    StopStream(ConversationKey, String),
    Attach(Arc<Session>),
    /// A session has lost its stream, this one, and may come back.
    Lose(session::Number, u32),
    Resume(Box<Resume>),
    Detach(session::Number),
    /// A session gets nothing more, and finishes what it has.
    DrainSession(session::Number),
    /// Something is to become of dead letters.
    Deal(Box<DeadLetters>),
    /// Say what sessions have.
    Describe(oneshot::Sender<Vec<Description>>),
    /// Credit was granted to a session.
    Granted(Arc<Session>),
    /// A bot joins, leaves or hands over.
    Bots(Box<ChangeBots>),
    Follow {
        conversation: ConversationKey,
        reply: oneshot::Sender<Result<Followed, Error>>,
    },
    /// Other settings are in force from now on.
    Reload,
    /// Erase a user from a page of a log. Answers when that is durable.
    Erase(Box<Erase>),
    /// No more deliveries are handed over.
    Drain,
    /// Make durable what is not yet, and end. Answers when done.
    Stop(oneshot::Sender<()>),
}

/// Room among what waits for the shards, held until the command is decided.
pub(crate) type Room = crate::capacity::Share;

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
    /// Only of a refusal.
    Refusal {
        session: Arc<Session>,
        frame: u64,
        cites: Option<DeliveryId>,
    },
}

/// A piece of a reply that a bot is making.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) room: Room,
    pub(crate) session: Arc<Session>,
    pub(crate) frame: u64,
    pub(crate) delivery: DeliveryId,
    /// Which of the delivery's streams.
    pub(crate) stream: u32,
    pub(crate) piece: Piece,
}

/// A session that has a new stream.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) session: Arc<Session>,
    /// Deliveries of this shard that the client has in work.
    pub(crate) held: Vec<DeliveryId>,
    /// Those of them that the session does not hold.
    pub(crate) lost: oneshot::Sender<Vec<DeliveryId>>,
}

/// Dead letters of one reader of a conversation that an operator deals with.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    pub(crate) conversation: ConversationKey,
    /// The bot's id; empty for the channel's egress.
    pub(crate) reader: String,
    /// Which; empty: all of them, up to a page.
    pub(crate) sequences: Vec<Sequence>,
    pub(crate) deal: Deal,
    pub(crate) reply: oneshot::Sender<Result<Dealt, Error>>,
}

/// What a session has of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    pub(crate) session: session::Number,
    pub(crate) is_draining: bool,
    /// Conversations.
    pub(crate) leases: u64,
    /// Deliveries.
    pub(crate) held: u64,
    /// When the oldest of them was handed over.
    pub(crate) held_since: Option<Timestamp>,
}

/// What becomes of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deal {
    /// They are handed over again, in order.
    Replay,
    /// They are removed.
    Drop,
}

/// What became of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealt {
    /// How many it concerned.
    pub count: usize,
    /// There are more, beyond a page.
    pub more: bool,
}

/// Activities to append as the answer to a delivery, which they finish, and documents to write.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) room: Room,
    pub(crate) session: Arc<Session>,
    pub(crate) frame: u64,
    pub(crate) delivery: DeliveryId,
    pub(crate) drafts: Vec<Draft>,
    /// Documents of the bot to write with it.
    pub(crate) writes: Vec<Write>,
}

/// A document to write or to remove, without a commit.
#[derive(Debug)]
pub(crate) struct WriteState {
    pub(crate) room: Room,
    pub(crate) bot: BotId,
    pub(crate) write: Write,
    pub(crate) reply: oneshot::Sender<Result<Option<Etag>, Error>>,
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

/// A page of a log to erase a user from.
#[derive(Debug)]
pub(crate) struct Erase {
    pub(crate) conversation: ConversationKey,
    pub(crate) user: String,
    /// The page begins after this...
    pub(crate) after: Sequence,
    /// ...and ends with this.
    pub(crate) through: Sequence,
    /// Whoever asks has seen nothing later: if there is nothing, the account goes as well.
    pub(crate) at_end: bool,
    pub(crate) reply: oneshot::Sender<Result<ErasedPage, Error>>,
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
    /// What is settled by the channel.
    pub(crate) settled: Span,
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
