//! Channel adapters: programs that bring users in and show them what bots say.
//!
//! [`Attachment`] posts and receives with every result brought to whoever waits for it.
//! [`ChannelStream`] is the stream itself, frame by frame. An adapter that only posts can do
//! without either: [`Client::post_activity`].

mod attachment;
mod creation;
mod outbound;
mod stream;

#[cfg(test)]
mod tests;

pub use attachment::{Attachment, AttachmentOptions};
pub use creation::{Creation, Creations};
pub use outbound::{OutboundActivity, Outbounds};
pub use stream::{ChannelReceiver, ChannelSender, ChannelStream};

pub use crate::proto::attach_request::Frame as AdapterFrame;
pub use crate::proto::attach_response::Frame as GatewayFrame;

use crate::proto::{Activity, Appended, PostActivityRequest};
use crate::{Client, Error};

/// Where a posted activity is in its conversation's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// The activity's id and sequence.
    pub appended: Appended,
    /// An earlier post had the same activity id: nothing was appended now.
    pub repeated: bool,
}

impl Client {
    /// Appends one activity that a user of `channel_id` made, and waits until it is durable. The
    /// first activity of a conversation starts it.
    ///
    /// # Errors
    ///
    /// As `ChannelService.PostActivity` lists them. After a retryable one the same activity may be
    /// posted again if it has an id.
    pub async fn post_activity(
        &self,
        channel_id: impl Into<String>,
        activity: impl Into<Box<Activity>>,
    ) -> Result<Posted, Error> {
        let request = PostActivityRequest {
            channel_id: channel_id.into(),
            activity: Some(activity.into()),
        };
        let response = self.channels().post_activity(request).await;
        let response = response.map_err(|status| self.error(status))?.into_inner();
        Ok(Posted {
            appended: response
                .appended
                .ok_or(Error::Protocol("a post without its position"))?,
            repeated: response.repeated_post,
        })
    }
}
