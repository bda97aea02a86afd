//! The users: one task for each Attach stream.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::sync::watch;
use tokio::time::Instant;
use turnwire_client::Client;
use turnwire_client::channel::{ChannelReceiver, ChannelSender, ChannelStream, GatewayFrame};
use turnwire_client::proto::outcome::Result as OutcomeResult;
use turnwire_client::proto::{
    Activity, AdapterHeartbeat, AttachHello, ChannelAccount, Delivered, Outbound, Outcome, Post,
};

use super::latency::Latencies;
use super::load::{Clock, Load};
use super::message::Writer;

/// Frames that may wait for the stream beyond one post and one outcome a conversation.
const SPARE_FRAMES: usize = 64;

/// Where the numbers of a conversation and a turn meet in an activity's id.
const ID_SEPARATOR: char = '-';

pub(super) struct Adapter {
    load: Load,
    stream: usize,
    sender: ChannelSender,
    receiver: ChannelReceiver,
    heartbeat_interval: Duration,
    writer: Writer,
    user: ChannelAccount,
    latencies: Latencies,
}

/// Attaches.
pub(super) async fn open(client: &Client, load: &Load, stream: usize) -> anyhow::Result<Adapter> {
    let hello = AttachHello {
        channel_id: load.level.channel.clone(),
        instance_id: format!("{}{stream}", load.prefix),
        capabilities: None,
        max_outstanding: 100_000,
    };
    // Never full: this task is the only one that reads, and must not wait to write.
    let frames = 2 * load.level.conversations + SPARE_FRAMES;
    let attached = ChannelStream::open_with_queue(client, hello, frames)
        .await
        .context("the adapter was not let in")?;
    let (welcome, sender, receiver) = attached.split();
    Ok(Adapter {
        load: load.clone(),
        stream,
        sender,
        receiver,
        heartbeat_interval: super::heartbeat(welcome.heartbeat_interval),
        writer: Writer::new(load.level.size),
        user: ChannelAccount::with_id("user"),
        latencies: Latencies::new()?,
    })
}

impl Adapter {
    /// Begins every conversation that is this stream's, and goes on until all of them are over.
    /// Returns how long the measured turns took.
    pub(super) async fn run(mut self, clock: Clock) -> anyhow::Result<Latencies> {
        let level = self.load.level.clone();
        for conversation in (self.stream..level.conversations).step_by(level.streams) {
            self.post(conversation).await?;
        }
        let mut finished = self.load.finished();
        let mut heartbeat = tokio::time::interval(self.heartbeat_interval);
        loop {
            tokio::select! {
                // Reading first could keep a busy stream from ever saying that it is alive.
                biased;
                _ = heartbeat.tick() => self.sender.send(AdapterHeartbeat {}).await?,
                frame = self.receiver.next() => match frame?.context("the gateway ended the stream")? {
                    GatewayFrame::Outbound(outbound) => self.receive(outbound, clock).await?,
                    GatewayFrame::PostResult(result) => {
                        ensure!(!result.repeated_post, "post `{}` was taken for a repeat", result.post_id);
                    }
                    GatewayFrame::Error(error) => {
                        return Err(turnwire_client::Error::from(error)).context("the gateway refused a frame");
                    }
                    GatewayFrame::Drain(_) => bail!("the gateway is going down"),
                    GatewayFrame::Welcome(_) | GatewayFrame::Heartbeat(_) => {}
                },
                () = over(&mut finished) => return Ok(self.latencies),
            }
        }
    }

    async fn post(&mut self, conversation: usize) -> anyhow::Result<()> {
        let turn = self.load.begin_turn(conversation, Instant::now());
        let id = format!("{conversation}{ID_SEPARATOR}{turn}");
        let activity = Activity::message(self.writer.question(conversation, turn))
            .with_id(&id)
            .from_account(self.user.clone())
            .in_conversation(format!("{}{conversation}", self.load.prefix));
        let post = Post {
            post_id: id,
            activity: Some(activity.into()),
        };
        Ok(self.sender.send(post).await?)
    }

    async fn receive(&mut self, outbound: Outbound, clock: Clock) -> anyhow::Result<()> {
        let now = Instant::now();
        let outcome = Outcome {
            delivery_id: outbound.delivery_id,
            result: Some(OutcomeResult::Delivered(Delivered::default())),
        };
        self.sender.send(outcome).await?;
        let name = outbound
            .conversation
            .context("an outbound without a conversation")?;
        let Some(conversation) = self.load.conversation(&name.conversation_id) else {
            // Left over from an earlier run.
            return Ok(());
        };
        let activity = outbound
            .activity
            .context("an outbound without an activity")?;
        let (turn, posted) = self.load.current_turn(conversation);
        self.check(&activity, conversation, turn)?;
        if (clock.begin..clock.end).contains(&now) {
            self.latencies.record(now.duration_since(posted));
        }
        if now < clock.end {
            self.post(conversation).await
        } else {
            self.load.finish();
            Ok(())
        }
    }

    /// The answer must be to this very turn: its text says so, and so does what it replies to.
    fn check(&self, activity: &Activity, conversation: usize, turn: u64) -> anyhow::Result<()> {
        ensure!(
            self.writer.is_answer(activity.text(), conversation, turn),
            "turn {turn} of conversation {conversation} got the wrong answer"
        );
        let cited = activity.reply_to_id().split_once(ID_SEPARATOR);
        let cited = cited.map(|(c, t)| (c.parse() == Ok(conversation), t.parse() == Ok(turn)));
        ensure!(
            cited == Some((true, true)),
            "the answer to turn {turn} of conversation {conversation} replies to another activity"
        );
        Ok(())
    }
}

async fn over(finished: &mut watch::Receiver<bool>) {
    // An error says that nobody can finish any more.
    let _ = finished.wait_for(|finished| *finished).await;
}
