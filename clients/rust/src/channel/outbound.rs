//! What bots say, on its way to users.

use std::time::Duration;

use tokio::sync::mpsc;

use super::creation::Creations;
use super::stream::ChannelSender;
use crate::Error;
use crate::proto::outcome::Result as OutcomeResult;
use crate::proto::{
    Activity, ConversationName, Delivered, Failed, Outbound, Outcome, RetryLater, Undetermined,
};

/// The activities for the channel's users, in order within each conversation.
#[derive(Debug)]
pub struct Outbounds {
    pub(super) queue: mpsc::Receiver<Result<Outbound, Error>>,
    pub(super) sender: ChannelSender,
    pub(super) creations: Option<Creations>,
}

impl Outbounds {
    /// Takes the requests to begin a conversation. `None` the second time, and when the adapter did not
    /// declare that its channel can ([`ChannelCapabilities::create`](crate::proto::ChannelCapabilities)):
    /// then they are refused. Who did must take them and answer; the gateway does not wait for ever.
    pub fn creations(&mut self) -> Option<Creations> {
        self.creations.take()
    }

    /// Waits for the next activity; `None` when the attachment was closed. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    ///
    /// Why the attachment has ended, once. After a retryable one, open another.
    pub async fn next(&mut self) -> Option<Result<OutboundActivity, Error>> {
        let outbound = self.queue.recv().await?;
        Some(outbound.map(|outbound| OutboundActivity {
            outbound,
            sender: self.sender.clone(),
        }))
    }
}

/// One activity for the channel's users. The next one of its conversation comes after its outcome.
#[derive(Debug)]
#[must_use = "the conversation stands still until the outcome is told"]
pub struct OutboundActivity {
    outbound: Outbound,
    sender: ChannelSender,
}

impl OutboundActivity {
    /// What the bot says.
    pub fn activity(&self) -> Option<&Activity> {
        self.outbound.activity.as_deref()
    }

    /// Where to.
    pub fn conversation(&self) -> Option<&ConversationName> {
        self.outbound.conversation.as_ref()
    }

    /// Position of the activity in the conversation's log.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.outbound.sequence
    }

    /// Which attempt this is, from 1. A later one may have been shown already.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.outbound.attempt
    }

    /// Tells that the channel has it, and under which id; empty if it gave none.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over: the activity will come again.
    pub async fn delivered(self, channel_activity_id: impl Into<String>) -> Result<(), Error> {
        self.tell(OutcomeResult::Delivered(Delivered {
            channel_activity_id: channel_activity_id.into(),
        }))
        .await
    }

    /// Tells that the channel will never take it.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over: the activity will come again.
    pub async fn failed(self, reason: impl Into<String>) -> Result<(), Error> {
        self.tell(OutcomeResult::Failed(Failed {
            reason: reason.into(),
        }))
        .await
    }

    /// Tells that nobody can say whether the channel has it, so that it must not be tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over: the activity will come again.
    pub async fn undetermined(self, reason: impl Into<String>) -> Result<(), Error> {
        self.tell(OutcomeResult::Undetermined(Undetermined {
            reason: reason.into(),
        }))
        .await
    }

    /// Tells that the channel cannot take it now; `None` leaves the wait to the gateway.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over: the activity will come again.
    pub async fn retry(self, delay: Option<Duration>) -> Result<(), Error> {
        self.tell(OutcomeResult::Retry(RetryLater {
            delay: delay.and_then(|delay| delay.try_into().ok()),
        }))
        .await
    }

    async fn tell(self, result: OutcomeResult) -> Result<(), Error> {
        let outcome = Outcome {
            delivery_id: self.outbound.delivery_id,
            result: Some(result),
        };
        self.sender.send(outcome).await
    }
}
