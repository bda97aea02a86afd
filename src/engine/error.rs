//! What the engine can refuse or fail at.

use crate::engine::state;
use crate::id::{BotId, ChannelId, ConversationKey, DeliveryId, ScheduleId, Sequence};
use crate::{activity, store};

/// A refusal or failure. Unless a variant says otherwise, nothing was written.
///
/// `status` gives each its stable reason, its gRPC code and HTTP status, and says whether to retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An activity breaks a rule.
    #[error(transparent)]
    Activity(#[from] activity::Error),
    /// No such channel is configured.
    #[error("no channel `{0}` is configured")]
    ChannelUnknown(ChannelId),
    /// No such bot is registered.
    #[error("no bot `{0}` is registered")]
    BotUnknown(BotId),
    /// The channel has not started such a conversation, or the caller may not see it.
    #[error("no conversation `{0}`; its channel starts it by posting to it")]
    ConversationUnknown(ConversationKey),
    /// The user is in no conversation that could be spoken in.
    #[error(
        "user `{user}` of channel `{channel}` is in no conversation that the bot can speak in; the \
         channel starts one"
    )]
    UserUnreachable {
        /// The user's id on the channel.
        user: String,
        /// The channel.
        channel: ChannelId,
    },
    /// The conversation is over, and its channel takes nothing more from users then.
    #[error("conversation `{0}` has ended; start another one")]
    ConversationEnded(ConversationKey),
    /// The bot does not take part in the conversation.
    #[error("bot `{bot}` does not take part in conversation `{conversation}`")]
    BotAbsent {
        /// The bot.
        bot: BotId,
        /// The conversation.
        conversation: ConversationKey,
    },
    /// What bots say in the conversation waits for no adapter of its channel.
    #[error(
        "conversation `{0}` queues nothing for its channel; configure the channel with \
         `outbound = \"queue\"`, or drop the dead letters"
    )]
    EgressAbsent(ConversationKey),
    /// More than one bot takes part, and the caller named none.
    #[error("conversation `{0}` has more than one bot; name the one that speaks in `bot_id`")]
    BotAmbiguous(ConversationKey),
    /// No bot takes part, and the caller named none.
    #[error("conversation `{0}` has no bot; add one")]
    NoBot(ConversationKey),
    /// A conversation is to be handed over from a bot to itself.
    #[error("bot `{0}` cannot hand over to itself; name another one in `to_bot_id`")]
    SameBot(BotId),
    /// There are as many bots in a conversation as it may have.
    #[error("the conversation has its most bots, `{limit}`; remove one first")]
    TooManyBots {
        /// Limit `conversation_bots`.
        limit: usize,
    },
    /// Bots have handed a conversation over again and again, and nobody said anything meanwhile.
    #[error(
        "bots have handed the conversation over `{limit}` times since its channel last posted; let a \
         backend hand it over, or wait for the user"
    )]
    BotsLoop {
        /// Limit `bot_handovers`.
        limit: u32,
    },
    /// A group conversation on a channel that did not declare groups.
    #[error("channel `{0}` did not declare the capability `groups`")]
    GroupsUnsupported(ChannelId),
    /// An update or a deletion on a channel that did not declare it.
    #[error("channel `{channel}` did not declare the capability `{capability}`")]
    CapabilityMissing {
        /// The channel.
        channel: ChannelId,
        /// The capability.
        capability: &'static str,
    },
    /// What is to be updated or deleted is no activity of this bot's in the conversation.
    #[error("bot `{bot}` has said no `{id}` in this conversation; change what it said, by its id")]
    ActivityUnknown {
        /// The id that was given.
        id: String,
        /// The bot.
        bot: BotId,
    },
    /// A key was used before for something else.
    #[error("key `{key}` was used before in this conversation for another activity")]
    IdempotencyMismatch {
        /// The key.
        key: String,
    },
    /// A send is of no use any more.
    #[error("`expire_at` has passed: nothing is sent")]
    SendExpired,
    /// A send is to wait for longer than it may.
    #[error("`deliver_at` is further ahead than the `{0:?}` of `schedule_horizon`")]
    ScheduleTooFar(std::time::Duration),
    /// There wait as many sends in a conversation as may.
    #[error("`{limit}` sends wait for their time in this conversation, the most that may")]
    TooManyScheduled {
        /// Limit `scheduled_sends`.
        limit: usize,
    },
    /// There is no such scheduled send, or it ended so long ago that it was forgotten.
    #[error("no send `{0}` is or was scheduled in this conversation, as far as is still known")]
    ScheduleUnknown(String),
    /// It is too late to take a scheduled send back.
    #[error("scheduled send `{id}` was sent, as `{activity_id}` at sequence {sequence}")]
    ScheduleSent {
        /// The scheduled send.
        id: ScheduleId,
        /// The activity's id.
        activity_id: String,
        /// Where it was appended.
        sequence: Sequence,
    },
    /// The id of a creation was used before for something else.
    #[error("request id `{key}` was used before for another conversation")]
    CreationMismatch {
        /// The id.
        key: String,
    },
    /// A conversation is wanted of a channel without an adapter.
    #[error("no adapter of channel `{0}` is attached; try again when one is")]
    AdapterAbsent(ChannelId),
    /// The adapter that was asked for a conversation has gone without an answer: the channel may have
    /// begun it.
    #[error("the adapter of channel `{0}` has gone; repeat with the same `request_id`")]
    AdapterLost(ChannelId),
    /// The adapter that was asked for a conversation did not answer: the channel may have begun it.
    #[error(
        "channel `{channel}` has not answered within `{timeout:?}`; repeat with the same `request_id`"
    )]
    CreationTimeout {
        /// The channel.
        channel: ChannelId,
        /// Limit `creation_timeout`.
        timeout: std::time::Duration,
    },
    /// The channel will not begin a conversation.
    #[error("channel `{channel}` refuses: {reason}")]
    CreationRefused {
        /// The channel.
        channel: ChannelId,
        /// Why, in its words.
        reason: String,
    },
    /// The channel cannot begin a conversation now.
    #[error("channel `{channel}` cannot now; repeat with the same `request_id` later")]
    CreationDeferred {
        /// The channel.
        channel: ChannelId,
        /// When, if it has said.
        delay: Option<std::time::Duration>,
    },
    /// An adapter answers what nobody waits for.
    #[error(
        "nobody waits for this answer: it was not asked here, or is answered, or it is too late"
    )]
    CreationUnknown,
    /// As many conversations are being created as the gateway takes.
    #[error("the gateway is creating its most conversations at one time, `{limit}`")]
    TooManyCreations {
        /// Limit `creations`.
        limit: usize,
    },
    /// A grant of credit is negative or too large.
    #[error("credit `{field}`: a grant of `{grant}` takes the balance out of 0..={limit}")]
    CreditOutOfRange {
        /// `deliveries` or `bytes`.
        field: &'static str,
        /// What was to be added.
        grant: i64,
        /// The largest balance.
        limit: i64,
    },
    /// A delivery that is cited is not held by the session that cites it.
    #[error("delivery `{0}` is not held by this session any more")]
    DeliveryStale(DeliveryId),
    /// A delivery that is cited was never made.
    #[error("there never was a delivery `{0}`")]
    DeliveryUnknown(DeliveryId),
    /// A send cites a delivery of another conversation.
    #[error("delivery `{delivery}` is not of conversation `{conversation}`")]
    DeliveryElsewhere {
        /// The delivery.
        delivery: DeliveryId,
        /// The conversation of the send.
        conversation: ConversationKey,
    },
    /// A streamed reply finds no room: there are too many in its delivery, or their texts are too large.
    #[error("streamed replies are at the `{allowed}` of `{limit}`; finish some, or say less")]
    StreamsFull {
        /// The limit's name in the configuration.
        limit: &'static str,
        /// What it allows.
        allowed: usize,
    },
    /// Retention removed what was asked for.
    #[error("activities before `{first}` are gone; continue after `{}`", first.previous())]
    SequenceGone {
        /// The oldest activity that is kept.
        first: Sequence,
    },
    /// A newer session of the same instance has taken over.
    #[error("a newer session of instance `{0}` took over")]
    SessionReplaced(String),
    /// There are as many sessions as the gateway takes.
    #[error("the gateway has its most sessions, `{limit}`")]
    TooManySessions {
        /// Limit `sessions`.
        limit: usize,
    },
    /// The disk has less room than the reserve.
    #[error("the store has less than `{reserve_bytes}` bytes free; free some on its disk")]
    StoreFull {
        /// Limit `disk_reserve_bytes`.
        reserve_bytes: u64,
    },
    /// The store could not read or write. A write may have happened.
    #[error("the store failed; see the gateway's log")]
    StoreFailed(#[source] std::sync::Arc<store::Error>),
    /// A followed conversation has left memory under its followers.
    #[error("following was interrupted; follow again after the last sequence seen")]
    FollowAgain,
    /// A document is not read or written.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A frame of a stream breaks a rule of sessions.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame could not be read; the stream cannot go on.
    #[error("a frame cannot be read: {problem}")]
    FrameUnreadable {
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing was heard from the client for two heartbeats.
    #[error("no heartbeat for `{0:?}`; reconnect, and send one every `Welcome.heartbeat_interval`")]
    HeartbeatMissed(std::time::Duration),
    /// The gateway is going down.
    #[error("the gateway is shutting down; reconnect")]
    ShuttingDown,
}

/// How a frame breaks a rule of sessions. It changed nothing, and the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is empty, or of a kind this gateway does not know.
    #[error("the frame is empty or of an unknown kind")]
    Unknown,
    /// It is a second Hello.
    #[error("the session is open already; send Hello once")]
    HelloRepeated,
    /// One of its fields breaks a rule.
    #[error("`{field}` {problem}")]
    Invalid {
        /// The field's path in the frame.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It has more delivery ids than a frame may have.
    #[error("`{count}` delivery ids are more than the `{limit}` of `ack_ids`; send several frames")]
    TooManyIds {
        /// How many it has.
        count: usize,
        /// Limit `ack_ids`.
        limit: usize,
    },
    /// It has more activities than a Commit may have.
    #[error("`{count}` activities are more than the `{limit}` of `commit_sends`")]
    TooManySends {
        /// How many it has.
        count: usize,
        /// Limit `commit_sends`.
        limit: usize,
    },
    /// It has more writes of documents than a Commit may have.
    #[error("`{count}` state writes are more than the `{limit}` of `commit_state_writes`")]
    TooManyStateWrites {
        /// How many it has.
        count: usize,
        /// Limit `commit_state_writes`.
        limit: usize,
    },
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::StoreFailed(std::sync::Arc::new(error))
    }
}
