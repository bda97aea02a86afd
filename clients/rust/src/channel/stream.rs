//! The adapter's link, frame by frame.

use crate::frames::{self, DEFAULT_QUEUE_FRAMES, Envelope, Opened};
use crate::proto::attach_request::Frame as AdapterFrame;
use crate::proto::attach_response::Frame as GatewayFrame;
use crate::proto::{
    AdapterHeartbeat, AttachHello, AttachRequest, AttachResponse, AttachWelcome,
    ConversationCreated, Outcome, Post, StreamStopped,
};
use crate::{Client, Error};

/// The half that sends the adapter's frames.
pub type ChannelSender = frames::Sender<AttachRequest>;

/// The half that receives the gateway's frames.
pub type ChannelReceiver = frames::Receiver<AttachResponse>;

/// An open attachment, frame by frame: the caller answers every outbound activity and sends
/// heartbeats.
pub type ChannelStream = frames::Stream<AttachRequest, AttachResponse>;

impl ChannelStream {
    /// Attaches and waits for the gateway's welcome.
    ///
    /// # Errors
    ///
    /// Why the gateway did not let the adapter in, as `ChannelService.Attach` lists it.
    pub async fn open(client: &Client, hello: AttachHello) -> Result<Self, Error> {
        Self::open_with_queue(client, hello, DEFAULT_QUEUE_FRAMES).await
    }

    /// Attaches with a sending half that queues up to `frames` frames.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with_queue(
        client: &Client,
        hello: AttachHello,
        frames: usize,
    ) -> Result<Self, Error> {
        let (sender, requests) = ChannelSender::queue(frames);
        // Before the call: a gateway may keep the response's headers back until it has the hello.
        sender.send(hello).await?;
        let response = client.channels().attach(requests).await;
        Self::begin(client, sender, response).await
    }
}

impl Envelope for AttachRequest {
    type Frame = AdapterFrame;

    fn wrap(frame: AdapterFrame) -> Self {
        Self { frame: Some(frame) }
    }
}

impl Opened for AttachResponse {
    type Frame = GatewayFrame;
    type Welcome = AttachWelcome;

    fn unwrap(self) -> Option<GatewayFrame> {
        self.frame
    }

    fn welcome(first: GatewayFrame) -> Result<AttachWelcome, Error> {
        match first {
            GatewayFrame::Welcome(welcome) => Ok(welcome),
            GatewayFrame::Error(refused) => Err(refused.into()),
            _ => Err(Error::Protocol("the first frame was not a welcome")),
        }
    }
}

impl From<AttachHello> for AdapterFrame {
    fn from(hello: AttachHello) -> Self {
        Self::Hello(hello)
    }
}

impl From<Post> for AdapterFrame {
    fn from(post: Post) -> Self {
        Self::Post(post)
    }
}

impl From<Outcome> for AdapterFrame {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl From<StreamStopped> for AdapterFrame {
    fn from(stopped: StreamStopped) -> Self {
        Self::StreamStopped(stopped)
    }
}
impl From<ConversationCreated> for AdapterFrame {
    fn from(created: ConversationCreated) -> Self {
        Self::ConversationCreated(created)
    }
}

impl From<AdapterHeartbeat> for AdapterFrame {
    fn from(heartbeat: AdapterHeartbeat) -> Self {
        Self::Heartbeat(heartbeat)
    }
}
