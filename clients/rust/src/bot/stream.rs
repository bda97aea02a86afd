//! The bot's link, frame by frame.

use crate::frames::{self, DEFAULT_QUEUE_FRAMES, Envelope, Opened};
use crate::proto::subscribe_request::Frame as BotFrame;
use crate::proto::subscribe_response::Frame as GatewayFrame;
use crate::proto::{
    Ack, BotDrain, BotEphemeral, BotHeartbeat, Commit, Credit, Extend, Hello, Nack, Partial, Send,
    SubscribeRequest, SubscribeResponse, Welcome,
};
use crate::{Client, Error};

/// The half that sends the bot's frames.
pub type BotSender = frames::Sender<SubscribeRequest>;

/// The half that receives the gateway's frames.
pub type BotReceiver = frames::Receiver<SubscribeResponse>;

/// An open session, frame by frame: the caller grants credit, answers deliveries and sends
/// heartbeats.
pub type BotStream = frames::Stream<SubscribeRequest, SubscribeResponse>;

impl BotStream {
    /// Opens a session and waits for its Welcome.
    ///
    /// # Errors
    ///
    /// Why the gateway did not let the bot in, as `BotService.Subscribe` lists it.
    pub async fn open(client: &Client, hello: Hello) -> Result<Self, Error> {
        Self::open_with_queue(client, hello, DEFAULT_QUEUE_FRAMES).await
    }

    /// Opens a session whose sending half queues up to `frames` frames.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with_queue(
        client: &Client,
        hello: Hello,
        frames: usize,
    ) -> Result<Self, Error> {
        let (sender, requests) = BotSender::queue(frames);
        // Before the call: a gateway may keep the response's headers back until it has the Hello.
        sender.send(hello).await?;
        let response = client.bots().subscribe(requests).await;
        Self::begin(client, sender, response).await
    }
}

impl Envelope for SubscribeRequest {
    type Frame = BotFrame;

    fn wrap(frame: BotFrame) -> Self {
        Self { frame: Some(frame) }
    }
}

impl Opened for SubscribeResponse {
    type Frame = GatewayFrame;
    type Welcome = Welcome;

    fn unwrap(self) -> Option<GatewayFrame> {
        self.frame
    }

    fn welcome(first: GatewayFrame) -> Result<Welcome, Error> {
        match first {
            GatewayFrame::Welcome(welcome) => Ok(welcome),
            GatewayFrame::Error(refused) => Err(refused.into()),
            _ => Err(Error::Protocol("the first frame was not a welcome")),
        }
    }
}

/// Lets a frame's content be sent as it is.
macro_rules! frame {
    ($($variant:ident($content:ident)),* $(,)?) => {$(
        impl From<$content> for BotFrame {
            fn from(content: $content) -> Self {
                Self::$variant(content)
            }
        }
    )*};
}

frame! {
    Hello(Hello),
    Credit(Credit),
    Ack(Ack),
    Nack(Nack),
    Extend(Extend),
    Send(Send),
    Commit(Commit),
    Heartbeat(BotHeartbeat),
    Partial(Partial),
    Ephemeral(BotEphemeral),
    Drain(BotDrain),
}
