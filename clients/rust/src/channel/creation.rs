//! Conversations that backends and bots want the channel to begin.

use std::time::Duration;

use tokio::sync::mpsc;

use super::stream::ChannelSender;
use crate::Error;
use crate::proto::conversation_created::Result as CreationResult;
use crate::proto::{
    ConversationAccount, ConversationCreated, CreateConversation, Created, Refused, RetryLater,
};

/// Requests that may wait to be taken; the adapter refuses more by itself, to be asked later.
pub(super) const WAITING: usize = 64;

/// The requests to begin a conversation, of a channel that can
/// ([`ChannelCapabilities::create`](crate::proto::ChannelCapabilities::create)).
#[derive(Debug)]
pub struct Creations {
    pub(super) queue: mpsc::Receiver<CreateConversation>,
    pub(super) sender: ChannelSender,
}

impl Creations {
    /// Waits for the next request; `None` when the attachment is over. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Creation> {
        let asked = self.queue.recv().await?;
        Some(Creation {
            asked,
            sender: self.sender.clone(),
        })
    }
}

/// A request to begin a conversation.
#[derive(Debug)]
#[must_use = "whoever asked waits for an answer"]
pub struct Creation {
    asked: CreateConversation,
    sender: ChannelSender,
}

impl Creation {
    /// What is asked for. The same `request_id` may come again, and must then be answered with the
    /// same conversation.
    #[must_use]
    pub fn request(&self) -> &CreateConversation {
        &self.asked
    }

    /// Tells that the conversation has begun, or had before, under this id.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over: the request may come again.
    pub async fn created(self, conversation_id: impl Into<String>) -> Result<(), Error> {
        let conversation = ConversationAccount {
            id: Some(conversation_id.into()),
            ..Default::default()
        };
        self.created_as(Created {
            conversation: Some(conversation),
            ..Default::default()
        })
        .await
    }

    /// The same, with all that the channel knows.
    ///
    /// # Errors
    ///
    /// As [`created`](Self::created).
    pub async fn created_as(self, created: Created) -> Result<(), Error> {
        self.tell(CreationResult::Created(created)).await
    }

    /// Tells that the channel will not begin it.
    ///
    /// # Errors
    ///
    /// As [`created`](Self::created).
    pub async fn refused(self, reason: impl Into<String>) -> Result<(), Error> {
        let reason = reason.into();
        self.tell(CreationResult::Refused(Refused { reason })).await
    }

    /// Tells that the channel cannot begin it now; `None` leaves the wait to whoever asked.
    ///
    /// # Errors
    ///
    /// As [`created`](Self::created).
    pub async fn retry(self, delay: Option<Duration>) -> Result<(), Error> {
        let delay = delay.and_then(|delay| delay.try_into().ok());
        self.tell(CreationResult::Retry(RetryLater { delay })).await
    }

    async fn tell(self, result: CreationResult) -> Result<(), Error> {
        let answer = answer(self.asked.request_id, result);
        self.sender.send(answer).await
    }
}

pub(super) fn answer(request_id: String, result: CreationResult) -> ConversationCreated {
    ConversationCreated {
        request_id,
        result: Some(result),
    }
}
