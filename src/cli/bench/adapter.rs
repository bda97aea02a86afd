//! The users: one task for each Attach stream.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;
use turnwire_client::Client;
use turnwire_client::channel::{ChannelReceiver, ChannelSender, ChannelStream, GatewayFrame};
use turnwire_client::proto::outcome::Result as OutcomeResult;
use turnwire_client::proto::{
    Activity, AdapterHeartbeat, AttachHello, ChannelAccount, Delivered, Outbound, Outcome, Post,
};

use super::load::{Clock, Load, Measured};
use super::message::Writer;
use super::schedule::Pacer;

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
    measured: Measured,
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
        measured: Measured::new()?,
    })
}

impl Adapter {
    /// Begins this stream's turns, and goes on until those of all streams are over.
    pub(super) async fn run(mut self, clock: Clock) -> anyhow::Result<Measured> {
        let load = self.load.clone();
        if load.schedule().is_none() {
            for conversation in load.conversations_of(self.stream) {
                let turn = load.begin(conversation, Instant::now());
                self.post(conversation, turn).await?;
            }
        }
        let mut pacer = Pacer::new(&load, self.stream, clock)?;
        let mut over = pin!(load.over(clock));
        let mut heartbeat = tokio::time::interval(self.heartbeat_interval);
        loop {
            tokio::select! {
                // Reading first could keep a busy stream from ever saying that it is alive, or from
                // beginning a turn in time.
                biased;
                _ = heartbeat.tick() => self.sender.send(AdapterHeartbeat {}).await?,
                conversation = pacer.due() => {
                    let conversation = conversation?;
                    if let Some(turn) = load.begin_due(conversation, Instant::now()) {
                        self.post(conversation, turn).await?;
                    }
                }
                frame = self.receiver.next() => match frame?.context("the gateway ended the stream")? {
                    GatewayFrame::Outbound(outbound) => self.receive(outbound, &clock).await?,
                    GatewayFrame::PostResult(result) => {
                        ensure!(!result.repeated_post, "post `{}` was taken for a repeat", result.post_id);
                    }
                    GatewayFrame::Error(error) => {
                        return Err(turnwire_client::Error::from(error)).context("the gateway refused a frame");
                    }
                    GatewayFrame::Drain(_) => bail!("the gateway is going down"),
                    // The others ask for nothing.
                    _ => {}
                },
                () = &mut over => return Ok(self.measured),
            }
        }
    }

    async fn post(&mut self, conversation: usize, turn: u64) -> anyhow::Result<()> {
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

    async fn receive(&mut self, outbound: Outbound, clock: &Clock) -> anyhow::Result<()> {
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
        let turn = self.load.current_turn(conversation);
        self.check(&activity, conversation, turn)?;
        let next = self
            .load
            .answered(conversation, clock, now, &mut self.measured)?;
        match next {
            Some(next) => self.post(conversation, next).await,
            None => Ok(()),
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
