//! The bot: one task for each Subscribe stream.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use prost::Message;
use turnwire_client::Client;
use turnwire_client::bot::{BotReceiver, BotSender, BotStream, GatewayFrame};
use turnwire_client::proto::{
    AckOutcome, AckResult, Activity, BotHeartbeat, Commit, Credit, Delivery, Hello,
};

use super::load::Load;
use super::message;

/// Credit granted at first, within what a gateway grants by default. It is granted again by the
/// quarter, so that few frames are about credit.
const CREDIT_DELIVERIES: i64 = 100_000;
const CREDIT_BYTES: i64 = 256 * 1024 * 1024;

/// Frames that may wait for the stream beyond one commit a conversation.
const SPARE_FRAMES: usize = 64;

pub(super) struct EchoBot {
    sender: BotSender,
    receiver: BotReceiver,
    heartbeat_interval: Duration,
    owed: Credit,
}

/// Opens a session.
pub(super) async fn open(client: &Client, load: &Load, stream: usize) -> anyhow::Result<EchoBot> {
    let hello = Hello {
        min_protocol: 1,
        max_protocol: 1,
        bot_id: load.level.bot.clone(),
        instance_id: format!("{}{stream}", load.prefix),
        credit: Some(Credit {
            deliveries: CREDIT_DELIVERIES,
            bytes: CREDIT_BYTES,
        }),
        ..Hello::default()
    };
    let frames = load.level.conversations + SPARE_FRAMES;
    let session = BotStream::open_with_queue(client, hello, frames)
        .await
        .context("the bot was not let in")?;
    let (welcome, sender, receiver) = session.split();
    Ok(EchoBot {
        sender,
        receiver,
        heartbeat_interval: super::heartbeat(welcome.heartbeat_interval),
        owed: Credit::default(),
    })
}

impl EchoBot {
    /// Answers until something is wrong; the level's end drops it.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut heartbeat = tokio::time::interval(self.heartbeat_interval);
        loop {
            tokio::select! {
                // Reading first could keep a busy session from ever saying that it is alive.
                biased;
                _ = heartbeat.tick() => self.sender.send(BotHeartbeat::default()).await?,
                frame = self.receiver.next() => match frame?.context("the gateway ended the session")? {
                    GatewayFrame::Delivery(delivery) => self.answer(delivery).await?,
                    GatewayFrame::AckResult(result) => check(&result)?,
                    GatewayFrame::Error(error) => {
                        return Err(turnwire_client::Error::from(error)).context("the gateway refused a frame");
                    }
                    GatewayFrame::Drain(_) => bail!("the gateway is going down"),
                    GatewayFrame::Welcome(_)
                    | GatewayFrame::SendResult(_)
                    | GatewayFrame::Receipt(_)
                    | GatewayFrame::Heartbeat(_) => {}
                },
            }
        }
    }

    async fn answer(&mut self, delivery: Delivery) -> anyhow::Result<()> {
        let question = delivery
            .activity
            .context("a delivery without an activity")?;
        self.owed.deliveries += 1;
        self.owed.bytes += question.encoded_len() as i64;
        let answer = message::answer(question.text.unwrap_or_default());
        let commit = Commit {
            delivery_id: delivery.delivery_id,
            activities: answer.map(Activity::message).into_iter().collect(),
        };
        self.sender.send(commit).await?;
        if self.owed.deliveries >= CREDIT_DELIVERIES / 4 || self.owed.bytes >= CREDIT_BYTES / 4 {
            self.sender.send(std::mem::take(&mut self.owed)).await?;
        }
        Ok(())
    }
}

/// Every commit must be taken.
fn check(result: &AckResult) -> anyhow::Result<()> {
    for result in &result.results {
        ensure!(
            result.outcome() == AckOutcome::Ok,
            "delivery {} was not acknowledged: {:?}",
            result.delivery_id,
            result.outcome()
        );
    }
    Ok(())
}
