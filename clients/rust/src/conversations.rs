//! Conversations, for backends and bots: speak first, read, and follow.

mod pages;
mod watch;

use std::time::Duration;

pub use watch::{Start, WatchStep};

use crate::proto::{
    Activity, Appended, Conversation, ConversationName, ConversationReference,
    CreateConversationRequest, DeleteActivityRequest, GetConversationRequest,
    ListActivitiesRequest, ListActivitiesResponse, ListConversationsRequest,
    ListConversationsResponse, ListMembersRequest, ListMembersResponse, Receipt,
    SendActivityRequest, UpdateActivityRequest, send_activity_request::Target,
};
use crate::{Client, Error};

/// The calls of `ConversationService`. Each fails as the service lists it.
#[derive(Clone, Debug)]
pub struct Conversations {
    client: Client,
}

impl Client {
    /// Reads and follows conversations, and sends to them.
    #[must_use]
    pub fn conversations(&self) -> Conversations {
        Conversations {
            client: self.clone(),
        }
    }
}

/// A sent activity.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// The activity's id and sequence.
    pub appended: Appended,
    /// An earlier call had the same request id: nothing was appended now.
    pub repeated: bool,
    /// What has become of it on its channel. Only of sends that wait for it.
    pub receipt: Option<Receipt>,
}

/// A conversation that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatedConversation {
    /// The conversation.
    pub conversation: Conversation,
    /// Where its first activity was appended, if one was given.
    pub appended: Option<Appended>,
    /// An earlier call had the same request id: nothing was begun now.
    pub repeated: bool,
    /// The channel named a conversation that the gateway knew before.
    pub existed: bool,
}

impl ConversationName {
    /// Names a conversation of a channel.
    #[must_use]
    pub fn new(channel_id: impl Into<String>, conversation_id: impl Into<String>) -> Self {
        Self {
            channel_id: channel_id.into(),
            conversation_id: conversation_id.into(),
        }
    }
}

impl From<ConversationName> for Target {
    fn from(name: ConversationName) -> Self {
        Self::Conversation(name)
    }
}

impl From<ConversationReference> for Target {
    fn from(reference: ConversationReference) -> Self {
        Self::Reference(reference)
    }
}

/// Calls a method and takes the response out, or makes the status an error.
macro_rules! call {
    ($self:ident.$method:ident($request:expr)) => {
        $self
            .client
            .conversation_service()
            .$method($request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| $self.client.error(status))
    };
}

impl Conversations {
    /// Replaces a message that the conversation's only bot said earlier; [`Sent`] has the message's id
    /// and the update's own sequence.
    ///
    /// # Errors
    ///
    /// As `UpdateActivity` lists them. Trying again updates once more, to the same.
    pub async fn update(
        &self,
        conversation: ConversationName,
        activity_id: impl Into<String>,
        activity: impl Into<Box<Activity>>,
    ) -> Result<Sent, Error> {
        let request = UpdateActivityRequest {
            conversation: Some(conversation),
            activity_id: activity_id.into(),
            activity: Some(activity.into()),
            ..Default::default()
        };
        let updated = call!(self.update_activity(request))?;
        Ok(Sent {
            appended: updated
                .appended
                .ok_or(Error::Protocol("an update without its position"))?,
            repeated: updated.repeated_send,
            receipt: None,
        })
    }

    /// Removes a message that the conversation's only bot said earlier from what users see.
    ///
    /// # Errors
    ///
    /// As `DeleteActivity` lists them. Trying again deletes once more, which changes nothing.
    pub async fn delete(
        &self,
        conversation: ConversationName,
        activity_id: impl Into<String>,
    ) -> Result<Sent, Error> {
        let request = DeleteActivityRequest {
            conversation: Some(conversation),
            activity_id: activity_id.into(),
            ..Default::default()
        };
        let deleted = call!(self.delete_activity(request))?;
        Ok(Sent {
            appended: deleted
                .appended
                .ok_or(Error::Protocol("a deletion without its position"))?,
            repeated: deleted.repeated_send,
            receipt: None,
        })
    }

    /// Appends an activity on behalf of the conversation's only bot: a proactive message. Waits
    /// until it is durable, not until the channel has it.
    ///
    /// # Errors
    ///
    /// As `SendActivity` lists them. It has no request id, so that trying again may send twice;
    /// [`send_request`](Self::send_request) takes one.
    pub async fn send(
        &self,
        target: impl Into<Target>,
        activity: impl Into<Box<Activity>>,
    ) -> Result<Sent, Error> {
        self.send_request(SendActivityRequest {
            target: Some(target.into()),
            activity: Some(activity.into()),
            ..SendActivityRequest::default()
        })
        .await
    }

    /// As [`send`](Self::send), and then waits until the channel says what became of the activity, but no
    /// longer than `patience` (a gateway cuts that to 30 s by default). [`Sent::receipt`] has what is known
    /// then; that the time was over is no error.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_and_wait(
        &self,
        target: impl Into<Target>,
        activity: impl Into<Box<Activity>>,
        patience: Duration,
    ) -> Result<Sent, Error> {
        self.send_request(SendActivityRequest {
            target: Some(target.into()),
            activity: Some(activity.into()),
            wait_for_delivery: patience.try_into().ok(),
            ..SendActivityRequest::default()
        })
        .await
    }

    /// Asks a channel to begin a conversation with users who have not spoken. With a `request_id` in the
    /// request, trying again is safe, and the way to go after any error that may pass.
    ///
    /// # Errors
    ///
    /// As `CreateConversation` lists them.
    pub async fn create(
        &self,
        request: CreateConversationRequest,
    ) -> Result<CreatedConversation, Error> {
        let response = call!(self.create_conversation(request))?;
        Ok(CreatedConversation {
            conversation: response
                .conversation
                .ok_or(Error::Protocol("an answer without the conversation"))?,
            appended: response.appended,
            repeated: response.repeated_creation,
            existed: response.existed,
        })
    }

    /// Appends an activity, with everything the call offers.
    ///
    /// # Errors
    ///
    /// As `SendActivity` lists them.
    pub async fn send_request(&self, request: SendActivityRequest) -> Result<Sent, Error> {
        let response = call!(self.send_activity(request))?;
        Ok(Sent {
            appended: response
                .appended
                .ok_or(Error::Protocol("a send without its position"))?,
            repeated: response.repeated_send,
            receipt: response.receipt,
        })
    }

    /// Returns what the gateway knows of a conversation.
    ///
    /// # Errors
    ///
    /// `CONVERSATION_UNKNOWN` and those of every call.
    pub async fn get(&self, conversation: ConversationName) -> Result<Conversation, Error> {
        let request = GetConversationRequest {
            conversation: Some(conversation),
        };
        call!(self.get_conversation(request))?
            .conversation
            .ok_or(Error::Protocol("an answer without the conversation"))
    }

    /// Returns a page of conversations, the one started last first.
    ///
    /// # Errors
    ///
    /// Those of every call.
    pub async fn list_page(
        &self,
        request: ListConversationsRequest,
    ) -> Result<ListConversationsResponse, Error> {
        call!(self.list_conversations(request))
    }

    /// Returns a page of a conversation's members.
    ///
    /// # Errors
    ///
    /// `CONVERSATION_UNKNOWN` and those of every call.
    pub async fn members_page(
        &self,
        request: ListMembersRequest,
    ) -> Result<ListMembersResponse, Error> {
        call!(self.list_members(request))
    }

    /// Returns a page of a conversation's transcript.
    ///
    /// # Errors
    ///
    /// `CONVERSATION_UNKNOWN` and those of every call.
    pub async fn activities_page(
        &self,
        request: ListActivitiesRequest,
    ) -> Result<ListActivitiesResponse, Error> {
        call!(self.list_activities(request))
    }
}
