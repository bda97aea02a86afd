//! A turn: what a bot is given, and what it may make of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::early::{Early, EarlySend, Streams};
use super::streaming::ReplyStream;
use crate::Error;
use crate::proto::{
    Activity, Appended, BotEphemeral, Cancel, ConversationName, Delivery, Nack, NackMode, Send,
    StateScope, StateWrite,
};

/// Longest wait before another attempt; the gateway refuses a longer one.
const MAX_DELAY: Duration = Duration::from_secs(600);

/// One delivery, to be answered by what the handler returns.
#[derive(Debug)]
pub struct Turn {
    delivery: Delivery,
    /// Shared with the session, which hands the same turn out again when its state was stale.
    activity: Arc<Activity>,
    conversation: ConversationName,
    sends: mpsc::Sender<Early>,
    links: Streams,
    cancels: watch::Receiver<Vec<Cancel>>,
    /// Replies that were begun.
    streams: AtomicU32,
    /// Its handler was called before, and may have begun the same replies.
    is_again: bool,
}

impl Turn {
    pub(super) fn new(
        mut delivery: Delivery,
        sends: mpsc::Sender<Early>,
        links: Streams,
        cancels: watch::Receiver<Vec<Cancel>>,
    ) -> Self {
        Self {
            activity: Arc::from(delivery.activity.take().unwrap_or_default()),
            conversation: delivery.conversation.take().unwrap_or_default(),
            delivery,
            sends,
            links,
            cancels,
            streams: AtomicU32::new(0),
            is_again: false,
        }
    }

    /// The same turn, to be handed out again.
    pub(super) fn again(&self) -> Self {
        Self {
            delivery: self.delivery.clone(),
            activity: Arc::clone(&self.activity),
            conversation: self.conversation.clone(),
            sends: self.sends.clone(),
            links: self.links.clone(),
            cancels: self.cancels.clone(),
            streams: AtomicU32::new(0),
            is_again: true,
        }
    }

    /// What was said or done.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Takes the activity out, for a bot that sends parts of it back.
    #[must_use]
    pub fn into_activity(self) -> Activity {
        Arc::unwrap_or_clone(self.activity)
    }

    /// The text of a message; empty for everything else.
    #[must_use]
    pub fn text(&self) -> &str {
        self.activity.text()
    }

    /// Which conversation this belongs to.
    #[must_use]
    pub fn conversation(&self) -> &ConversationName {
        &self.conversation
    }

    /// The scope of documents about this conversation.
    #[must_use]
    pub fn conversation_scope(&self) -> StateScope {
        StateScope::conversation(self.conversation.clone())
    }

    /// The scope of documents about the user who speaks, in all conversations of the channel. `None` when
    /// the activity does not say who that is.
    #[must_use]
    pub fn user_scope(&self) -> Option<StateScope> {
        let user = self.activity.from.as_ref()?.id.as_ref()?;
        Some(StateScope::user(&self.conversation.channel_id, user))
    }

    /// Position of the activity in the conversation's log.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.delivery.sequence
    }

    /// Which attempt this is, from 1. An earlier attempt may have had effects outside.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    /// Grows whenever the conversation moves to another session, so that systems behind the bot
    /// can refuse the writes of an older holder.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.delivery.fence
    }

    /// Whether an earlier activity of the conversation was parked or removed since the last turn.
    #[must_use]
    pub fn after_gap(&self) -> bool {
        self.delivery.after_gap
    }

    /// Whether this is a dead letter that an operator has handed over again: it is earlier than what the
    /// bot has seen of the conversation.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.delivery.replay
    }

    /// Id of the delivery, new for each attempt.
    #[must_use]
    pub fn delivery_id(&self) -> u64 {
        self.delivery.delivery_id
    }

    /// Says something before the turn is over, and waits until it is durable.
    ///
    /// `client_id` is the bot's own key for it, unique in the conversation: when the same turn is
    /// tried again, the same key with the same activity is not sent twice. When the stream is lost
    /// meanwhile, it is said again once the session has been resumed, and the wait goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] when the delivery was given to someone else or the session was lost for good;
    /// [`Error::Refused`] when the gateway would not take the activity; [`Error::Ended`] when the bot
    /// has ended.
    pub async fn send(
        &self,
        client_id: impl Into<String>,
        activity: impl Into<Box<Activity>>,
    ) -> Result<Appended, Error> {
        let (result, answered) = oneshot::channel();
        let send = Send {
            client_id: client_id.into(),
            conversation: None,
            activity: Some(activity.into()),
            delivery_id: self.delivery.delivery_id,
        };
        let early = EarlySend { send, result };
        let early = Early::Send(early);
        self.sends.send(early).await.map_err(|_| Error::Ended)?;
        answered.await.map_err(|_| Error::Ended)?
    }

    /// Begins a reply that users see while it is made. A turn may have several; its messages finish them
    /// in the order in which their first pieces came.
    #[must_use]
    pub fn stream(&self) -> ReplyStream {
        let index = self.streams.fetch_add(1, Ordering::Relaxed);
        let id = self.delivery.delivery_id;
        let (sends, cancels) = (self.sends.clone(), self.cancels.clone());
        ReplyStream::new(sends, self.links.clone(), cancels, id, index, self.is_again)
    }

    /// Shows that the bot is typing, for a few seconds. Waits for nothing: when there is no room for it,
    /// it is dropped.
    pub fn typing(&self) {
        let typing = BotEphemeral {
            conversation: None,
            delivery_id: self.delivery.delivery_id,
            activity: Some(Activity::of_type("typing").into()),
        };
        let _ = self.sends.try_send(Early::Frame {
            frame: typing.into(),
            stream: self.links.current(),
        });
    }
}

/// What a turn answers: any number of activities, and writes to the bot's documents. All of it becomes
/// durable together with the acknowledgement, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The activities, in order.
    pub activities: Vec<Activity>,
    /// The writes, each to a document of its own.
    pub state: Vec<StateWrite>,
}

impl Reply {
    /// Writes a document with it.
    ///
    /// When a condition does not hold any more, or another write of the document is under way, nothing is
    /// written and nothing is said: the handler is called again for the same delivery, and reads
    /// what is there then.
    #[must_use]
    pub fn with_state(mut self, write: StateWrite) -> Self {
        self.state.push(write);
        self
    }
}

impl From<()> for Reply {
    /// Nothing to say; the turn is over.
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Activity> for Reply {
    fn from(activity: Activity) -> Self {
        vec![activity].into()
    }
}

impl From<Vec<Activity>> for Reply {
    fn from(activities: Vec<Activity>) -> Self {
        Self {
            activities,
            state: Vec::new(),
        }
    }
}

impl<T: Into<Reply>> From<Option<T>> for Reply {
    fn from(reply: Option<T>) -> Self {
        reply.map_or_else(Self::default, Into::into)
    }
}

impl From<&str> for Reply {
    /// A message that says this.
    fn from(text: &str) -> Self {
        Activity::message(text).into()
    }
}

impl From<String> for Reply {
    /// A message that says this.
    fn from(text: String) -> Self {
        Activity::message(text).into()
    }
}

/// Why a turn was not answered. Any error becomes one that is tried again, so `?` does what is
/// usually wanted.
///
/// The reason is logged by the bot; the gateway is told it for a poisoned turn only.
#[derive(Debug)]
pub struct TurnError {
    pub(super) mode: NackMode,
    pub(super) delay: Option<Duration>,
    pub(super) reason: String,
}

impl TurnError {
    /// Gives the delivery back to be tried again after the gateway's backoff.
    #[must_use]
    pub fn retry(reason: impl Into<String>) -> Self {
        Self {
            mode: NackMode::Retry,
            delay: None,
            reason: reason.into(),
        }
    }

    /// Gives the delivery back to be tried again after `delay`, at most 10 min.
    #[must_use]
    pub fn retry_after(delay: Duration, reason: impl Into<String>) -> Self {
        Self {
            delay: Some(delay),
            ..Self::retry(reason)
        }
    }

    /// Parks the delivery in the dead letters, because trying again is useless.
    #[must_use]
    pub fn poison(reason: impl Into<String>) -> Self {
        Self {
            mode: NackMode::Poison,
            ..Self::retry(reason)
        }
    }

    /// Hands the delivery to another session of the bot, without counting an attempt.
    #[must_use]
    pub fn release(reason: impl Into<String>) -> Self {
        Self {
            mode: NackMode::Release,
            ..Self::retry(reason)
        }
    }
}

impl TurnError {
    /// Gives a delivery back, and asks what became of that: what is not heard of is said again on the next
    /// stream, so that a delay and a reason are not lost with this one.
    pub(super) fn nack(self, delivery_id: u64) -> Nack {
        let Self {
            mode,
            delay,
            reason,
        } = self;
        tracing::warn!(delivery.id = delivery_id, ?mode, %reason, "turn given back");
        let delay = delay.map(|delay| delay.min(MAX_DELAY));
        Nack {
            delivery_ids: vec![delivery_id],
            mode: mode.into(),
            delay: delay.and_then(|delay| delay.try_into().ok()),
            reason: if mode == NackMode::Poison {
                reason
            } else {
                String::new()
            },
            want_result: true,
        }
    }
}

impl<E: std::error::Error> From<E> for TurnError {
    fn from(error: E) -> Self {
        Self::retry(error.to_string())
    }
}
