//! The users: each says something, waits for the answer, waits a little, and goes on.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, Interval};
use turnwire_client::Client;
use turnwire_client::channel::{ChannelReceiver, ChannelSender, ChannelStream, GatewayFrame};
use turnwire_client::frames::TrySendError;
use turnwire_client::proto::attach_request::Frame as AdapterFrame;
use turnwire_client::proto::outcome::Result as OutcomeResult;
use turnwire_client::proto::{
    Activity, AdapterHeartbeat, AttachHello, ChannelAccount, Delivered, Outbound, Outcome, Post,
};

use super::process::NUMBER_SEPARATOR;
use super::silence::Conversation;
use crate::cli::bench::latency::Latencies;
use crate::cli::bench::names::Names;
use crate::cli::fresh;

/// Between the conversation and the turn in an activity's id.
const ID_SEPARATOR: char = '-';

/// Frames that may wait for the stream beyond one post and one outcome a conversation.
const SPARE_FRAMES: usize = 64;

pub(super) struct Users {
    sender: ChannelSender,
    receiver: ChannelReceiver,
    heartbeat: Interval,
    names: Names,
    user: ChannelAccount,
    text: String,
    pause: Duration,
    pub(super) conversations: Vec<Conversation>,
    /// Who speaks when, the next one first.
    pausing: VecDeque<(Instant, usize)>,
    /// Of the answers since the last [`begin_round`](Self::begin_round).
    pub(super) latencies: Latencies,
    /// Answers to a turn that was answered before.
    pub(super) duplicates: u64,
}

impl Users {
    /// Attaches; nobody speaks yet.
    pub(super) async fn open(
        client: &Client,
        channel: &str,
        conversations: usize,
        size: usize,
        pause: Duration,
    ) -> anyhow::Result<Self> {
        let hello = AttachHello {
            channel_id: channel.to_owned(),
            instance_id: format!("bench-{}", fresh::id()),
            capabilities: None,
            max_outstanding: 100_000,
        };
        let frames = 2 * conversations + SPARE_FRAMES;
        let attached = ChannelStream::open_with_queue(client, hello, frames)
            .await
            .context("the adapter was not let in")?;
        let (welcome, sender, receiver) = attached.split();
        let now = Instant::now();
        // Not all at once.
        let first = |index| {
            (
                now + pause.mul_f64(index as f64 / conversations as f64),
                index,
            )
        };
        Ok(Self {
            sender,
            receiver,
            heartbeat: tokio::time::interval(super::super::heartbeat(welcome.heartbeat_interval)),
            names: Names::new(),
            user: ChannelAccount::with_id("user"),
            text: "x".repeat(size),
            pause,
            conversations: vec![Conversation::new(now); conversations],
            pausing: (0..conversations).map(first).collect(),
            latencies: Latencies::new()?,
            duplicates: 0,
        })
    }

    /// Forgets what was measured, and keeps who waits for what.
    pub(super) fn begin_round(&mut self) -> anyhow::Result<()> {
        self.latencies = Latencies::new()?;
        for conversation in &mut self.conversations {
            conversation.begin_round();
        }
        Ok(())
    }

    /// Talks for a while.
    pub(super) async fn talk(&mut self, how_long: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + how_long;
        loop {
            let due = self.pausing.front().map_or(end, |(due, _)| *due).min(end);
            tokio::select! {
                step = self.step() => step?,
                () = tokio::time::sleep_until(due) => {}
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            while let Some((due, conversation)) = self.pausing.front().copied()
                && due <= now
            {
                self.pausing.pop_front();
                self.post(conversation).await?;
            }
        }
    }

    /// Says nothing more, and waits for the answers that are still to come. Returns how many never
    /// came.
    pub(super) async fn listen(&mut self, patience: Duration) -> anyhow::Result<usize> {
        let until = Instant::now() + patience;
        while self.waiting() > 0 {
            tokio::select! {
                step = self.step() => step?,
                () = tokio::time::sleep_until(until) => break,
            }
        }
        Ok(self.waiting())
    }

    fn waiting(&self) -> usize {
        let waiting = |conversation: &&Conversation| conversation.is_waiting();
        self.conversations.iter().filter(waiting).count()
    }

    async fn post(&mut self, conversation: usize) -> anyhow::Result<()> {
        let turn = self.conversations[conversation].ask(Instant::now());
        let id = format!("{conversation}{ID_SEPARATOR}{turn}");
        let activity = Activity::message(self.text.clone())
            .with_id(&id)
            .from_account(self.user.clone())
            .in_conversation(self.names.id(conversation));
        let post = Post {
            post_id: id,
            activity: Some(Box::new(activity)),
        };
        Ok(self.sender.send(post).await?)
    }

    /// Reads a frame, or sends a heartbeat. Safe to cancel: once a frame was read, nothing waits.
    async fn step(&mut self) -> anyhow::Result<()> {
        let frame = tokio::select! {
            biased;
            _ = self.heartbeat.tick() => return send(&self.sender, AdapterHeartbeat {}),
            frame = self.receiver.next() => frame?.context("the gateway ended the stream")?,
        };
        match frame {
            GatewayFrame::Outbound(outbound) => self.receive(outbound),
            GatewayFrame::Error(error) => {
                Err(turnwire_client::Error::from(error)).context("the gateway refused a frame")
            }
            GatewayFrame::Drain(_) => bail!("the gateway is going down"),
            GatewayFrame::PostResult(_)
            | GatewayFrame::Welcome(_)
            | GatewayFrame::Ephemeral(_)
            | GatewayFrame::CreateConversation(_)
            | GatewayFrame::Heartbeat(_) => Ok(()),
        }
    }

    fn receive(&mut self, outbound: Outbound) -> anyhow::Result<()> {
        let now = Instant::now();
        let outcome = Outcome {
            delivery_id: outbound.delivery_id,
            result: Some(OutcomeResult::Delivered(Delivered::default())),
        };
        send(&self.sender, outcome)?;
        let name = outbound
            .conversation
            .context("an outbound without a conversation")?;
        let Some(number) = self.names.number(&name.conversation_id) else {
            // Left over from an earlier run.
            return Ok(());
        };
        let activity = outbound
            .activity
            .context("an outbound without an activity")?;
        let process = activity.text().split_once(NUMBER_SEPARATOR);
        let process = process.and_then(|(process, _)| process.parse().ok());
        let turn = activity.reply_to_id().split_once(ID_SEPARATOR);
        let turn = turn.and_then(|(_, turn)| turn.parse().ok());
        let (Some(process), Some(turn)) = (process, turn) else {
            bail!("conversation {number} got an answer that no bot of this measurement gives");
        };
        let conversation = self
            .conversations
            .get_mut(number)
            .context("an answer in a conversation that there is not")?;
        match conversation.answer(turn, process, now) {
            Some(latency) => {
                self.latencies.record(latency);
                self.pausing.push_back((now + self.pause, number));
            }
            None => self.duplicates += 1,
        }
        Ok(())
    }
}

/// Sends without waiting: the queue has room for everything that may be on its way.
fn send(sender: &ChannelSender, frame: impl Into<AdapterFrame>) -> anyhow::Result<()> {
    match sender.try_send(frame) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_)) => bail!("the gateway does not read what it is sent"),
        Err(TrySendError::Ended) => bail!("the gateway ended the stream"),
    }
}
