//! What users say, by way of their channel.

use tonic::Status;
use turnwire::proto::v1;

use super::{Wire, message, within};

/// A user in a conversation.
#[derive(Clone)]
pub(crate) struct User {
    wire: Wire,
    channel: String,
    conversation: String,
    id: String,
}

impl User {
    pub(super) fn new(wire: Wire, conversation: &str) -> Self {
        Self {
            wire,
            channel: "web".to_owned(),
            conversation: conversation.to_owned(),
            id: "ann".to_owned(),
        }
    }

    /// On another channel.
    pub(crate) fn on(mut self, channel: &str) -> Self {
        channel.clone_into(&mut self.channel);
        self
    }

    /// Another user.
    pub(crate) fn named(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// By way of a channel with another token.
    pub(crate) fn over(mut self, wire: &Wire) -> Self {
        self.wire = wire.clone();
        self
    }

    /// What an activity of this user looks like before it is posted.
    pub(crate) fn activity(&self, activity: v1::Activity) -> v1::Activity {
        v1::Activity {
            from: activity.from.or_else(|| {
                Some(v1::ChannelAccount {
                    id: Some(self.id.clone()),
                    ..Default::default()
                })
            }),
            conversation: activity.conversation.or_else(|| {
                Some(v1::ConversationAccount {
                    id: Some(self.conversation.clone()),
                    ..Default::default()
                })
            }),
            ..activity
        }
    }

    pub(crate) async fn says(&self, text: &str) -> v1::Appended {
        self.posts(message(text)).await
    }

    pub(crate) async fn posts(&self, activity: v1::Activity) -> v1::Appended {
        let posted = self.tries(activity).await.expect("it is taken");
        assert!(!posted.repeated_post, "it is taken for a repeat");
        posted.appended.expect("where it was appended")
    }

    pub(crate) async fn tries(
        &self,
        activity: v1::Activity,
    ) -> Result<v1::PostActivityResponse, Status> {
        let request = v1::PostActivityRequest {
            channel_id: self.channel.clone(),
            activity: Some(self.activity(activity).into()),
        };
        let mut client = self.wire.channels();
        let posted = within("a post", client.post_activity(request)).await?;
        Ok(posted.into_inner())
    }
}
