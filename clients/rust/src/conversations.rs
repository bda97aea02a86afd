//! Conversations, for backends and bots: speak first, read, and follow.

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

mod membership;
mod pages;
mod watch;

pub(crate) use pages::pages;
use std::time::Duration;

pub use membership::Changed;
pub use watch::{Start, WatchStep};

use crate::proto::{
    Activity, Appended, CancelScheduledActivityRequest, CancelScheduledActivityResponse,
    Conversation, ConversationName, ConversationReference, CreateConversationRequest,
    DeleteActivityRequest, GetConversationReferenceRequest, GetConversationRequest,
    ListActivitiesRequest, ListActivitiesResponse, ListConversationsRequest,
    ListConversationsResponse, ListMembersRequest, ListMembersResponse,
    ListScheduledActivitiesRequest, ListScheduledActivitiesResponse, Receipt, SendActivityRequest,
    UpdateActivityRequest, UserTarget,
    get_conversation_reference_request::Target as ReferenceTarget, send_activity_request::Target,
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
    /// The conversation it is in.
    pub conversation: ConversationName,
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

/// What became of a send that may wait for its time.
#[derive(Clone, Debug, PartialEq)]
pub enum Sending {
    /// It is in the log.
    Now(Sent),
    /// It is kept, durably, and will be sent when its time has come.
    Later(Scheduled),
}

/// A send that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Names it in its conversation: with this it can be taken back.
    pub schedule_id: String,
    /// The conversation it will go to.
    pub conversation: ConversationName,
    /// An earlier call had the same request id: it is that one's.
    pub repeated: bool,
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

impl UserTarget {
    /// Names a user of a channel.
    #[must_use]
    pub fn new(channel_id: impl Into<String>, user_id: impl Into<String>) -> Self {
        Self {
            channel_id: channel_id.into(),
            user_id: user_id.into(),
        }
    }
}

impl From<UserTarget> for Target {
    fn from(user: UserTarget) -> Self {
        Self::User(user)
    }
}

impl From<ConversationName> for ReferenceTarget {
    fn from(name: ConversationName) -> Self {
        Self::Conversation(name)
    }
}

impl From<UserTarget> for ReferenceTarget {
    fn from(user: UserTarget) -> Self {
        Self::User(user)
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
            conversation: Some(conversation.clone()),
            activity_id: activity_id.into(),
            activity: Some(activity.into()),
            ..Default::default()
        };
        let updated = call!(self.update_activity(request))?;
        Ok(Sent {
            appended: updated
                .appended
                .ok_or(Error::Protocol("an update without its position"))?,
            conversation,
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
            conversation: Some(conversation.clone()),
            activity_id: activity_id.into(),
            ..Default::default()
        };
        let deleted = call!(self.delete_activity(request))?;
        Ok(Sent {
            appended: deleted
                .appended
                .ok_or(Error::Protocol("a deletion without its position"))?,
            conversation,
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
        self.send_now(SendActivityRequest {
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
        self.send_now(SendActivityRequest {
            target: Some(target.into()),
            activity: Some(activity.into()),
            wait_for_delivery: patience.try_into().ok(),
            ..SendActivityRequest::default()
        })
        .await
    }

    /// Appends an activity that has no times.
    async fn send_now(&self, request: SendActivityRequest) -> Result<Sent, Error> {
        match self.send_request(request).await? {
            Sending::Now(sent) => Ok(sent),
            Sending::Later(_) => Err(Error::Protocol("a send without times that waits for one")),
        }
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

    /// Appends an activity, with everything the call offers: with `deliver_at` in the future, when that
    /// has come.
    ///
    /// # Errors
    ///
    /// As `SendActivity` lists them.
    pub async fn send_request(&self, request: SendActivityRequest) -> Result<Sending, Error> {
        let response = call!(self.send_activity(request))?;
        let conversation = response.conversation.unwrap_or_default();
        let repeated = response.repeated_send;
        match (response.appended, response.schedule_id) {
            (Some(appended), _) => Ok(Sending::Now(Sent {
                appended,
                conversation,
                repeated,
                receipt: response.receipt,
            })),
            (None, schedule_id) if !schedule_id.is_empty() => Ok(Sending::Later(Scheduled {
                schedule_id,
                conversation,
                repeated,
            })),
            (None, _) => Err(Error::Protocol("a send without its position")),
        }
    }

    /// Takes back a send that waits for its time: when this succeeds, it is not sent any more. Says why it
    /// is not.
    ///
    /// # Errors
    ///
    /// `SCHEDULE_SENT` when it was too late, and as `CancelScheduledActivity` lists them. Trying again is
    /// safe.
    pub async fn cancel_scheduled(
        &self,
        conversation: ConversationName,
        schedule_id: impl Into<String>,
    ) -> Result<CancelScheduledActivityResponse, Error> {
        let request = CancelScheduledActivityRequest {
            conversation: Some(conversation),
            schedule_id: schedule_id.into(),
            ..Default::default()
        };
        call!(self.cancel_scheduled_activity(request))
    }

    /// Returns a page of the sends of a conversation that wait for their time.
    ///
    /// # Errors
    ///
    /// As `ListScheduledActivities` lists them.
    pub async fn scheduled_page(
        &self,
        request: ListScheduledActivitiesRequest,
    ) -> Result<ListScheduledActivitiesResponse, Error> {
        call!(self.list_scheduled_activities(request))
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

    /// Returns what leads the only bot of a conversation back to it, to be kept and sent to later. The
    /// conversation is named, or is the one to speak to a user in.
    ///
    /// # Errors
    ///
    /// As `GetConversationReference` lists them.
    pub async fn reference(
        &self,
        of: impl Into<ReferenceTarget>,
    ) -> Result<ConversationReference, Error> {
        let request = GetConversationReferenceRequest {
            target: Some(of.into()),
            ..Default::default()
        };
        call!(self.get_conversation_reference(request))?
            .reference
            .ok_or(Error::Protocol("an answer without the reference"))
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
