//! A turn: what a bot is given, and what it may make of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::early::{Early, EarlySend};
use super::streaming::ReplyStream;
use crate::Error;
use crate::proto::{
    Activity, Appended, BotEphemeral, Cancel, ConversationName, Delivery, NackMode, Send,
};

/// One delivery, to be answered by what the handler returns.
#[derive(Debug)]
pub struct Turn {
    delivery: Delivery,
    activity: Box<Activity>,
    conversation: ConversationName,
    sends: mpsc::Sender<Early>,
    cancels: watch::Receiver<Vec<Cancel>>,
    /// Replies that were begun.
    streams: AtomicU32,
}

impl Turn {
    pub(super) fn new(
        mut delivery: Delivery,
        sends: mpsc::Sender<Early>,
        cancels: watch::Receiver<Vec<Cancel>>,
    ) -> Self {
        Self {
            activity: delivery.activity.take().unwrap_or_default(),
            conversation: delivery.conversation.take().unwrap_or_default(),
            delivery,
            sends,
            cancels,
            streams: AtomicU32::new(0),
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
        *self.activity
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

    /// Id of the delivery, new for each attempt.
    #[must_use]
    pub fn delivery_id(&self) -> u64 {
        self.delivery.delivery_id
    }

    /// Says something before the turn is over, and waits until it is durable.
    ///
    /// `client_id` is the bot's own key for it, unique in the conversation: when the same turn is
    /// tried again, the same key with the same activity is not sent twice.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] when the delivery was given to someone else; [`Error::Refused`] when the
    /// gateway would not take the activity; [`Error::Ended`] when the session was lost.
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
        ReplyStream::new(self.sends.clone(), self.cancels.clone(), id, index)
    }

    /// Shows that the bot is typing, for a few seconds. Waits for nothing: when there is no room for it,
    /// it is dropped.
    pub fn typing(&self) {
        let typing = BotEphemeral {
            conversation: None,
            delivery_id: self.delivery.delivery_id,
            activity: Some(Activity::of_type("typing").into()),
        };
        let _ = self.sends.try_send(Early::Frame(typing.into()));
    }
}

/// What a turn answers: any number of activities, appended together with the acknowledgement, or
/// not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The activities, in order.
    pub activities: Vec<Activity>,
}

impl From<()> for Reply {
    /// Nothing to say; the turn is over.
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Activity> for Reply {
    fn from(activity: Activity) -> Self {
        Self {
            activities: vec![activity],
        }
    }
}

impl From<Vec<Activity>> for Reply {
    fn from(activities: Vec<Activity>) -> Self {
        Self { activities }
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

impl<E: std::error::Error> From<E> for TurnError {
    fn from(error: E) -> Self {
        Self::retry(error.to_string())
    }
}
