//! A bot that answers nothing: takes what waits for it and acknowledges it.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::FutureExt;
use prost::Message;
use tokio::time::{Instant, Interval};
use turnwire_client::Client;
use turnwire_client::bot::{BotReceiver, BotSender, BotStream, GatewayFrame};
use turnwire_client::proto::{Ack, AckOutcome, AckResult, BotHeartbeat, Credit, Delivery, Hello};

use super::names::Names;
use crate::cli::fresh;

/// Credit granted at first, within what a gateway grants by default; what was used is granted again
/// with each acknowledgement.
const CREDIT: Credit = Credit {
    deliveries: 20_000,
    bytes: 64 * 1024 * 1024,
};

/// Deliveries acknowledged by one frame at most, within what a gateway takes by default.
const ACK_IDS: usize = 500;

/// Frames that may wait for the stream.
const QUEUE_FRAMES: usize = 4_096;

/// How long the gateway may be silent while something is awaited.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Taker {
    sender: BotSender,
    receiver: BotReceiver,
    heartbeat: Interval,
    names: Names,
    /// The newest sequence taken of each conversation.
    taken: Vec<u64>,
    unacknowledged: Vec<u64>,
    owed: Credit,
    /// So far.
    progress: Progress,
}

/// How far a bot has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Activities that were delivered, each counted once.
    pub(super) delivered: u64,
    /// Deliveries of an activity that had been delivered before.
    pub(super) again: u64,
    /// Deliveries whose acknowledgement is durable.
    pub(super) acknowledged: u64,
}

impl Taker {
    /// Opens a session that takes what is in the conversations of `names`. Of each it has `taken`
    /// everything up to a sequence.
    pub(super) async fn open(
        client: &Client,
        bot: &str,
        names: &Names,
        taken: Vec<u64>,
    ) -> anyhow::Result<Self> {
        let hello = Hello {
            min_protocol: 1,
            max_protocol: 1,
            bot_id: bot.to_owned(),
            instance_id: format!("bench-{}", fresh::id()),
            credit: Some(CREDIT),
            ..Hello::default()
        };
        let session = BotStream::open_with_queue(client, hello, QUEUE_FRAMES)
            .await
            .context("the bot was not let in")?;
        let (welcome, sender, receiver) = session.split();
        Ok(Self {
            sender,
            receiver,
            heartbeat: tokio::time::interval(super::heartbeat(welcome.heartbeat_interval)),
            names: names.clone(),
            taken,
            unacknowledged: Vec::new(),
            owed: Credit::default(),
            progress: Progress::default(),
        })
    }

    /// Takes until `count` activities in all were delivered and acknowledged.
    pub(super) async fn take(&mut self, count: u64) -> anyhow::Result<Progress> {
        let mut heard = Instant::now();
        while self.progress.delivered < count || self.progress.acknowledged < count {
            tokio::select! {
                // Reading first could keep a busy session from ever saying that it is alive.
                biased;
                _ = self.heartbeat.tick() => self.sender.send(BotHeartbeat::default()).await?,
                frame = self.receiver.next() => {
                    if self.read(frame?.context("the gateway ended the session")?)? {
                        heard = Instant::now();
                    }
                    self.read_what_has_come()?;
                    self.acknowledge().await?;
                }
                () = tokio::time::sleep_until(heard + PATIENCE) => bail!(
                    "{} of {count} activities were delivered, and no more in {} s",
                    self.progress.delivered,
                    PATIENCE.as_secs()
                ),
            }
        }
        Ok(self.progress)
    }

    /// Reads as much as one acknowledgement can be about, without waiting.
    fn read_what_has_come(&mut self) -> anyhow::Result<()> {
        while self.unacknowledged.len() < ACK_IDS {
            let Some(frame) = self.receiver.next().now_or_never() else {
                break;
            };
            self.read(frame?.context("the gateway ended the session")?)?;
        }
        Ok(())
    }

    /// Returns whether the frame was about work.
    fn read(&mut self, frame: GatewayFrame) -> anyhow::Result<bool> {
        match frame {
            GatewayFrame::Delivery(delivery) => self.deliver(delivery)?,
            GatewayFrame::AckResult(result) => self.settle(&result)?,
            GatewayFrame::Error(error) => {
                return Err(turnwire_client::Error::from(error))
                    .context("the gateway refused a frame");
            }
            GatewayFrame::Drain(_) => bail!("the gateway is going down"),
            GatewayFrame::Welcome(_)
            | GatewayFrame::SendResult(_)
            | GatewayFrame::Receipt(_)
            | GatewayFrame::Heartbeat(_) => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deliveries of a conversation come in order, and nothing is left out.
    fn deliver(&mut self, delivery: Delivery) -> anyhow::Result<()> {
        self.unacknowledged.push(delivery.delivery_id);
        self.owed.deliveries += 1;
        let bytes = delivery.activity.as_ref().map_or(0, Message::encoded_len);
        self.owed.bytes += i64::try_from(bytes).unwrap_or(i64::MAX);
        let name = delivery
            .conversation
            .context("a delivery without a conversation")?;
        let conversation = self.names.number(&name.conversation_id);
        let Some(taken) = conversation.and_then(|number| self.taken.get_mut(number)) else {
            // Left over from an earlier run.
            return Ok(());
        };
        if delivery.sequence <= *taken {
            self.progress.again += 1;
            return Ok(());
        }
        ensure!(
            delivery.sequence == *taken + 1,
            "conversation `{}` went on with sequence {} after {taken}",
            name.conversation_id,
            delivery.sequence
        );
        *taken = delivery.sequence;
        self.progress.delivered += 1;
        Ok(())
    }

    fn settle(&mut self, result: &AckResult) -> anyhow::Result<()> {
        for result in &result.results {
            ensure!(
                result.outcome() == AckOutcome::Ok,
                "delivery {} was not acknowledged: {:?}",
                result.delivery_id,
                result.outcome()
            );
            self.progress.acknowledged += 1;
        }
        Ok(())
    }

    async fn acknowledge(&mut self) -> anyhow::Result<()> {
        if self.unacknowledged.is_empty() {
            return Ok(());
        }
        let ack = Ack {
            delivery_ids: std::mem::take(&mut self.unacknowledged),
            want_result: true,
        };
        self.sender.send(ack).await?;
        Ok(self.sender.send(std::mem::take(&mut self.owed)).await?)
    }
}
