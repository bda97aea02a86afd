//! A channel whose users only talk: posts as fast as they are taken, with many unanswered.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Interval;
use turnwire_client::Client;
use turnwire_client::channel::{ChannelReceiver, ChannelSender, ChannelStream, GatewayFrame};
use turnwire_client::frames::TrySendError;
use turnwire_client::proto::attach_request::Frame as AdapterFrame;
use turnwire_client::proto::outcome::Result as OutcomeResult;
use turnwire_client::proto::{
    Activity, AdapterHeartbeat, AttachHello, ChannelAccount, Delivered, Outcome, Post,
};

use super::names::Names;
use crate::cli::fresh;

/// Posts without a result at one time: enough that every round of a shard is full.
const UNANSWERED: usize = 4_096;

/// Frames that may wait for the stream beyond the posts: heartbeats and outcomes.
const SPARE_FRAMES: usize = 1_024;

/// How long the gateway may take to say what became of a post.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Poster {
    sender: ChannelSender,
    receiver: ChannelReceiver,
    heartbeat: Interval,
    user: ChannelAccount,
    text: String,
    unanswered: usize,
}

impl Poster {
    /// Attaches; every activity it posts has `size` bytes of text.
    pub(super) async fn open(client: &Client, channel: &str, size: usize) -> anyhow::Result<Self> {
        let hello = AttachHello {
            channel_id: channel.to_owned(),
            instance_id: format!("bench-{}", fresh::id()),
            capabilities: None,
            max_outstanding: 0,
        };
        let frames = UNANSWERED + SPARE_FRAMES;
        let attached = ChannelStream::open_with_queue(client, hello, frames)
            .await
            .context("the adapter was not let in")?;
        let (welcome, sender, receiver) = attached.split();
        Ok(Self {
            sender,
            receiver,
            heartbeat: tokio::time::interval(super::heartbeat(welcome.heartbeat_interval)),
            user: ChannelAccount::with_id("user"),
            text: "x".repeat(size),
            unanswered: 0,
        })
    }

    /// Posts the `turn`th activity of a conversation, once there is room for one more without a
    /// result.
    pub(super) async fn post(
        &mut self,
        names: &Names,
        conversation: usize,
        turn: u64,
    ) -> anyhow::Result<()> {
        while self.unanswered >= UNANSWERED {
            self.read().await?;
        }
        let id = format!("{conversation}-{turn}");
        let activity = Activity::message(self.text.clone())
            .with_id(&id)
            .from_account(self.user.clone())
            .in_conversation(names.id(conversation));
        let post = Post {
            post_id: id,
            activity: Some(Box::new(activity)),
        };
        self.sender.send(post).await?;
        self.unanswered += 1;
        Ok(())
    }

    /// Waits until every post is durable.
    pub(super) async fn finish(&mut self) -> anyhow::Result<()> {
        while self.unanswered > 0 {
            self.read().await?;
        }
        Ok(())
    }

    /// Reads results for ever, so that the stream stays alive while nothing is posted.
    pub(super) async fn stay(&mut self) -> anyhow::Result<()> {
        loop {
            self.step().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.step())
            .await
            .with_context(|| format!("no post was answered in {} s", PATIENCE.as_secs()))?
    }

    /// Reads a frame, or sends a heartbeat. Safe to cancel: once a frame was read, nothing waits.
    async fn step(&mut self) -> anyhow::Result<()> {
        let frame = tokio::select! {
            // Reading first could keep a busy stream from ever saying that it is alive.
            biased;
            _ = self.heartbeat.tick() => return self.send(AdapterHeartbeat {}),
            frame = self.receiver.next() => frame?.context("the gateway ended the stream")?,
        };
        match frame {
            GatewayFrame::PostResult(result) => {
                let name = &result.post_id;
                ensure!(
                    !result.repeated_post,
                    "post `{name}` was taken for a repeat"
                );
                self.unanswered -= 1;
            }
            // Left over from an earlier run.
            GatewayFrame::Outbound(outbound) => {
                let outcome = Outcome {
                    delivery_id: outbound.delivery_id,
                    result: Some(OutcomeResult::Delivered(Delivered::default())),
                };
                self.send(outcome)?;
            }
            GatewayFrame::Error(error) => {
                return Err(turnwire_client::Error::from(error))
                    .context("the gateway refused a frame");
            }
            GatewayFrame::Drain(_) => bail!("the gateway is going down"),
            // The others ask for nothing.
            _ => {}
        }
        Ok(())
    }

    /// Sends without waiting: the queue has room beyond the posts.
    fn send(&self, frame: impl Into<AdapterFrame>) -> anyhow::Result<()> {
        match self.sender.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => bail!("the gateway does not read what it is sent"),
            Err(TrySendError::Ended) => bail!("the gateway ended the stream"),
        }
    }
}
