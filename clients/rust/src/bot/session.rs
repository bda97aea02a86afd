//! A session of a bot: deliveries in, handlers run, answers out, over as many streams as it takes.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::builder::{Bot, BotBuilder, OnEphemeral};
use super::comeback::{self, Past, Waits};
use super::credit::Meter;
use super::early::{Early, EarlySend, Streams, Unanswered, sent};
use super::ending::{End, Ending, sleep_until};
use super::link::{CLOSING, Link};
use super::stream::BotStream;
use super::turn::{Reply, Turn, TurnError};
use super::work::{self, Start, Work};
use crate::proto::subscribe_response::Frame as GatewayFrame;
use crate::proto::{
    self, AckOutcome, Appended, BotDrain, Commit, ConversationName, DeliveryResult,
    GatewayHeartbeat, Hello, Resumed,
};
use crate::{Client, Error};

/// Early sends that may wait for the session's task; more make their handlers wait.
const EARLY_SENDS: usize = 64;

/// How often a handler is called for one delivery whose commits meet other writes of their documents,
/// before the delivery is given back. Each time somebody else's write has gone ahead.
const STATE_TRIES: u32 = 16;

pub(super) struct Session<H> {
    client: Client,
    settings: BotBuilder,
    handler: Arc<H>,
    /// The session that the last stream has left.
    past: Option<Past>,
    credit: Meter,
    work: Work,
    /// Deliveries whose handler runs.
    running: JoinSet<Result<Reply, TurnError>>,
    deliveries: HashMap<Id, u64>,
    early_sends: mpsc::Receiver<Early>,
    early_sender: mpsc::Sender<Early>,
    /// Which stream it is: what was said without a result on an earlier one is not said on this.
    streams: Streams,
    unanswered: Unanswered,
    /// How many answers and early sends were said. Numbers them, so that they are said again in order.
    said: u64,
    had_work: bool,
    ending: Option<Ending>,
}

impl<H, F, R> Session<H>
where
    H: Fn(Turn) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R, TurnError>> + Send + 'static,
    R: Into<Reply> + 'static,
{
    pub(super) fn new(bot: Bot, handler: Arc<H>) -> Self {
        let Bot { client, settings } = bot;
        let (early_sender, early_sends) = mpsc::channel(EARLY_SENDS);
        Self {
            client,
            handler,
            past: None,
            credit: settings.meter(),
            settings,
            work: Work::default(),
            running: JoinSet::new(),
            deliveries: HashMap::new(),
            early_sends,
            early_sender,
            streams: Streams::default(),
            unanswered: Unanswered::default(),
            said: 0,
            had_work: true,
            ending: None,
        }
    }

    /// Runs until it is stopped by `shutdown`, or the gateway will not have the bot.
    pub(super) async fn run<S>(mut self, mut shutdown: Pin<&mut S>) -> Result<(), Error>
    where
        S: Future<Output = ()>,
    {
        let mut waits = Waits::new(Instant::now());
        let mut wait = Duration::ZERO;
        // A stream that was lost is let go only when there is another: were its frames to end while the
        // gateway still reads them, it would take that for the end of the session.
        let mut lost: Option<Link> = None;
        while let Some(stream) = self.connect(wait, &mut waits, shutdown.as_mut()).await? {
            let mut link = self.attach(stream);
            drop(lost.take());
            let end = self.serve(&mut link, shutdown.as_mut()).await;
            let now = Instant::now();
            waits.ended(link.opened, now);
            match end {
                Ok(End::Stopped) => {
                    self.drop_all();
                    link.close().await;
                    return Ok(());
                }
                Ok(End::Drained { reconnect_at }) => {
                    self.ending = None;
                    self.drop_all();
                    link.close().await;
                    wait = reconnect_at.saturating_duration_since(Instant::now());
                }
                // A session that drains does not outlive its stream.
                Err(error) if self.is_stopping() => {
                    tracing::warn!(bot.id = %self.settings.bot_id, %error, "session lost while stopping");
                    return Ok(());
                }
                Err(error) if error.is_retryable() => {
                    self.ending = None;
                    self.streams.next();
                    self.past = Past::of(&link.welcome, self.settings.resume_within, now);
                    if self.past.is_none() {
                        self.drop_all();
                    }
                    wait = self.wait_after(&error, &mut waits);
                    lost = Some(link);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the next stream, while handlers run on. `None` when the bot is to stop and has nothing left
    /// that it could answer.
    async fn connect<S>(
        &mut self,
        mut wait: Duration,
        waits: &mut Waits,
        mut shutdown: Pin<&mut S>,
    ) -> Result<Option<BotStream>, Error>
    where
        S: Future<Output = ()>,
    {
        loop {
            let attempt = comeback::open(self.client.clone(), self.hello(), wait);
            let mut attempt = std::pin::pin!(attempt);
            let opened = loop {
                if self.is_stopping() && self.work.is_empty() {
                    return Ok(None);
                }
                let until = self.past.as_ref().map(|past| past.until);
                let stop = self.ending.as_ref().map(|ending| ending.deadline);
                tokio::select! {
                    opened = &mut attempt => break Some(opened),
                    Some(joined) = self.running.join_next_with_id() => {
                        self.finish(joined);
                    }
                    () = shutdown.as_mut(), if !self.is_stopping() => {
                        self.ending = Some(Ending::stop(self.settings.grace));
                    }
                    () = sleep_until(stop) => return Ok(None),
                    // The Hello under way would resume what is given up here; it is begun anew.
                    () = sleep_until(until) => break None,
                }
            };
            match opened {
                Some(Ok(stream)) => return Ok(Some(stream)),
                Some(Err(error)) if error.is_retryable() => wait = self.wait_after(&error, waits),
                Some(Err(error)) => return Err(error),
                None => {
                    self.past = None;
                    self.drop_all();
                    wait = Duration::ZERO;
                }
            }
        }
    }

    fn wait_after(&self, error: &Error, waits: &mut Waits) -> Duration {
        let asked = error.refusal().and_then(|refusal| refusal.retry_delay);
        let wait = waits.next(Instant::now(), asked);
        tracing::warn!(bot.id = %self.settings.bot_id, %error, ?wait, "stream lost");
        wait
    }

    fn hello(&mut self) -> Hello {
        let (deliveries, bytes) = self.work.size();
        let within = self.settings.resume_within;
        Hello {
            credit: Some(self.credit.begin(deliveries, bytes)),
            resume: comeback::resume(self.past.as_ref(), self.work.ids(), within),
            ..self.settings.hello()
        }
    }

    /// Begins to speak on a stream: lets go of what was lost, and says again what was not heard of.
    fn attach(&mut self, stream: BotStream) -> Link {
        let mut link = Link::new(stream);
        self.had_work = true;
        let is_resumed = matches!(link.welcome.resumed(), Resumed::Full | Resumed::Partial);
        if self.past.take().is_some() && is_resumed {
            for delivery_id in std::mem::take(&mut link.welcome.lost_delivery_ids) {
                self.let_go(delivery_id);
            }
            let work = &self.work;
            self.unanswered
                .retain(|delivery_id| work.holds(delivery_id));
            tracing::info!(bot.id = %self.settings.bot_id, held = work.size().0, "session resumed");
        } else {
            self.drop_all();
        }
        if let Some(credit) = self.credit.fit(link.welcome.max_activity_bytes) {
            link.outbox.send(credit);
        }
        let mut unheard = self.work.unheard();
        let sends = self.unanswered.unheard();
        unheard.extend(
            sends
                .into_iter()
                .map(|(number, send)| (number, send.into())),
        );
        unheard.sort_unstable_by_key(|(number, _)| *number);
        for (_, frame) in unheard {
            link.outbox.send(frame);
        }
        self.hear_out(&mut link);
        for conversation in self.work.conversations() {
            self.speak(&conversation, &mut link);
        }
        if self.is_stopping() {
            self.leave(&mut link);
        }
        self.start_waiting();
        link
    }

    /// Serves a stream until it is lost, or the session is drained or stopped.
    async fn serve<S>(&mut self, link: &mut Link, mut shutdown: Pin<&mut S>) -> Result<End, Error>
    where
        S: Future<Output = ()>,
    {
        let mut heartbeat = link.heartbeat_interval();
        loop {
            let is_done = self.work.is_empty() && link.outbox.is_empty();
            if let Some(ending) = &mut self.ending
                && is_done
            {
                match ending.end {
                    // The gateway ends the stream now. Were the bot to end it, what is still on its
                    // way to it would count as an attempt.
                    End::Stopped => {
                        ending.deadline = ending.deadline.min(Instant::now() + CLOSING);
                    }
                    drained @ End::Drained { .. } => return Ok(drained),
                }
            }
            let deadline = self.ending.as_ref().map(|ending| ending.deadline);
            tokio::select! {
                frame = link.receiver.next() => match frame? {
                    Some(frame) => {
                        link.last_heard = Instant::now();
                        self.receive(frame, link);
                    }
                    None => return self.ended(),
                },
                Some(joined) = self.running.join_next_with_id() => {
                    self.hear_out(link);
                    if let Some(conversation) = self.finish(joined) {
                        self.speak(&conversation, link);
                    }
                    self.start_waiting();
                }
                // What handlers say waits for room on the stream, and so do they.
                Some(early) = self.early_sends.recv(), if link.outbox.is_empty() => {
                    self.say(early, link);
                }
                flushed = link.outbox.flush(), if !link.outbox.is_empty() => flushed?,
                _ = heartbeat.tick() => link.beat(&self.work.in_work())?,
                () = shutdown.as_mut(), if !self.is_stopping() => {
                    self.ending = Some(Ending::stop(self.settings.grace));
                    self.leave(link);
                }
                () = sleep_until(deadline) => return self.ended(),
            }
            if self.ending.is_none()
                && let Some(credit) = self.credit.grant()
            {
                link.outbox.send(credit);
            }
        }
    }

    /// How a stream has ended that was not refused.
    fn ended(&self) -> Result<End, Error> {
        self.ending
            .as_ref()
            .map(|ending| ending.end)
            .ok_or(Error::Ended)
    }

    fn is_stopping(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::is_stop)
    }

    /// Says that the bot goes, and gives back what was not started.
    fn leave(&mut self, link: &mut Link) {
        link.outbox.send(BotDrain {});
        for delivery_id in self.work.unstarted() {
            self.release(delivery_id, link);
        }
    }

    fn release(&mut self, delivery_id: u64, link: &mut Link) {
        self.give_back(delivery_id, TurnError::release("the bot stops"), link);
    }

    fn receive(&mut self, frame: GatewayFrame, link: &mut Link) {
        match frame {
            GatewayFrame::Delivery(delivery) => {
                let bytes = delivery.activity.as_ref().map_or(0, Message::encoded_len);
                self.had_work = true;
                let delivery_id = delivery.delivery_id;
                let (cancels, told) = watch::channel(Vec::new());
                let sends = self.early_sender.clone();
                let turn = Turn::new(delivery, sends, self.streams.clone(), told);
                let withdrawn = self.work.take(turn, bytes, cancels);
                self.count(withdrawn);
                if self.is_stopping() {
                    // It was on its way when the bot said that it goes.
                    self.release(delivery_id, link);
                } else {
                    self.start_waiting();
                }
            }
            GatewayFrame::AckResult(acks) => {
                for result in acks.results {
                    self.heard_of(&result, link);
                }
            }
            GatewayFrame::SendResult(result) => {
                let client_id = result.client_id.clone();
                self.answer_send(&client_id, sent(result), link);
            }
            GatewayFrame::Heartbeat(heartbeat) => self.heard(&heartbeat, link),
            GatewayFrame::Drain(drain) if self.ending.is_none() => {
                self.ending = Some(Ending::drain(&drain));
            }
            // A second Drain says nothing new, and a Welcome comes once.
            GatewayFrame::Drain(_) | GatewayFrame::Welcome(_) => {}
            GatewayFrame::Revoked(revoked) => {
                // What went elsewhere is held no more: nothing of it is to be stopped.
                let conversation = revoked.conversation.unwrap_or_default();
                tracing::debug!(
                    channel.id = %conversation.channel_id,
                    conversation.id = %conversation.conversation_id,
                    fence = revoked.fence,
                    "conversation went to another session"
                );
            }
            GatewayFrame::Error(error) => self.refused(error, link),
            GatewayFrame::Cancel(cancel) => self.work.cancel(cancel),
            GatewayFrame::Ephemeral(ephemeral) => {
                if let Some(OnEphemeral(told)) = &self.settings.on_ephemeral {
                    told(ephemeral);
                }
            }
            GatewayFrame::Receipt(receipt) => {
                if let Some(told) = &self.settings.on_receipt {
                    told.call(receipt);
                }
            }
        }
    }

    /// Starts handlers up to the concurrency; none when the bot stops.
    fn start_waiting(&mut self) {
        if self.is_stopping() {
            return;
        }
        while self.running.len() < self.settings.concurrency
            && let Some(start) = self.work.next()
        {
            let Start {
                delivery_id,
                turn,
                tries,
            } = start;
            let pause = work::pause(tries);
            let handler = self.handler.clone();
            let task = self.running.spawn(async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                handler(turn).await.map(Into::into)
            });
            self.deliveries.insert(task.id(), delivery_id);
            self.work.started(delivery_id, task);
        }
    }

    /// Notes the answer to a delivery whose handler has ended. Returns its conversation.
    fn finish(
        &mut self,
        joined: Result<(Id, Result<Reply, TurnError>), JoinError>,
    ) -> Option<ConversationName> {
        let (id, answer) = match joined {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(TurnError::retry("the handler panicked"))),
        };
        let delivery_id = self.deliveries.remove(&id)?;
        // `None`: it was dropped, because its delivery is held no more.
        let conversation = self.work.conversation(delivery_id)?;
        match answer {
            Ok(reply) => {
                let has_state = !reply.state.is_empty();
                let commit = Commit {
                    delivery_id,
                    activities: reply.activities,
                    state_writes: reply.state,
                };
                self.work.answer(delivery_id, commit.into(), has_state);
            }
            Err(error) => self
                .work
                .answer(delivery_id, error.nack(delivery_id).into(), false),
        }
        Some(conversation)
    }

    fn give_back(&mut self, delivery_id: u64, error: TurnError, link: &mut Link) {
        let answer = error.nack(delivery_id);
        self.work.answer(delivery_id, answer.into(), false);
        if let Some(conversation) = self.work.conversation(delivery_id) {
            self.speak(&conversation, link);
        }
    }

    /// Says the conversation's next answer, if it is its turn.
    fn speak(&mut self, conversation: &ConversationName, link: &mut Link) {
        let number = self.said + 1;
        if let Some((frame, withdrawn)) = self.work.speak(conversation, number) {
            self.said = number;
            link.outbox.send(frame);
            self.count(withdrawn);
        }
    }

    /// Says what handlers said before one of them ended, so that it goes before the answer. The queue holds
    /// no more.
    fn hear_out(&mut self, link: &mut Link) {
        for _ in 0..EARLY_SENDS {
            let Ok(early) = self.early_sends.try_recv() else {
                break;
            };
            self.say(early, link);
        }
    }

    fn say(&mut self, early: Early, link: &mut Link) {
        match early {
            Early::Send(send) => self.say_early(send, link),
            Early::Frame { frame, stream } if stream == self.streams.current() => {
                link.outbox.send(frame);
            }
            // It goes on from what may have been lost; the whole follows.
            Early::Frame { .. } => {}
        }
    }

    fn say_early(&mut self, early: EarlySend, link: &mut Link) {
        if !self.work.holds(early.send.delivery_id) {
            // An error says that its handler was dropped.
            let _ = early.result.send(Err(Error::Stale));
            return;
        }
        self.said += 1;
        if let Some(send) = self.unanswered.begin(early, self.said) {
            link.outbox.send(send);
        }
    }

    /// Counts what was let go.
    fn count(&mut self, bytes: impl IntoIterator<Item = usize>) {
        for bytes in bytes {
            self.credit.finish(bytes);
        }
    }

    fn let_go(&mut self, delivery_id: u64) {
        let bytes = self.work.let_go(delivery_id);
        self.count(bytes);
    }

    /// Lets go of everything, with the handlers that run.
    fn drop_all(&mut self) {
        for delivery_id in self.work.ids() {
            self.let_go(delivery_id);
        }
        self.unanswered.retain(|_| false);
    }

    /// What became of an answer.
    fn heard_of(&mut self, result: &DeliveryResult, link: &mut Link) {
        let delivery_id = result.delivery_id;
        if !self.work.is_said(delivery_id) {
            return;
        }
        match result.outcome() {
            AckOutcome::OutOfOrder => {
                let error = TurnError::retry("an earlier delivery is not finished");
                self.give_back(delivery_id, error, link);
                return;
            }
            AckOutcome::Ok => {}
            AckOutcome::Stale | AckOutcome::Unknown | AckOutcome::Unspecified => {
                tracing::warn!(
                    delivery.id = delivery_id,
                    outcome = ?result.outcome(),
                    "answer not taken: the delivery was given to someone else"
                );
            }
        }
        let conversation = self.work.conversation(delivery_id);
        self.let_go(delivery_id);
        if let Some(conversation) = conversation {
            self.speak(&conversation, link);
        }
    }

    fn answer_send(&mut self, client_id: &str, result: Result<Appended, Error>, link: &mut Link) {
        self.said += 1;
        if let Some(next) = self.unanswered.answer(client_id, result, self.said) {
            link.outbox.send(next);
        }
    }

    fn refused(&mut self, error: proto::Error, link: &mut Link) {
        if !error.client_id.is_empty() {
            let client_id = error.client_id.clone();
            self.answer_send(&client_id, Err(error.into()), link);
            return;
        }
        let delivery_id = error.delivery_id;
        let is_answer = self.work.is_said(delivery_id);
        if is_answer && self.begin_anew(&error) {
            return;
        }
        tracing::warn!(reason = %error.reason, frame = error.frame, message = %error.message, "frame refused");
        if is_answer {
            let reason = format!("the answer was refused: {}", error.reason);
            let error = Error::from(error);
            // What met another write may well succeed in another attempt.
            let answer = if error.is_retryable() || error.is_state_conflict() {
                TurnError::retry(reason)
            } else {
                TurnError::poison(reason)
            };
            self.give_back(delivery_id, answer, link);
        }
    }

    /// Hands a turn out again whose commit met another write of a document: the delivery is still this
    /// session's, and what its handler had read was out of date. False if it cannot.
    fn begin_anew(&mut self, error: &proto::Error) -> bool {
        let is_conflict = matches!(error.reason.as_str(), "STATE_STALE" | "STATE_BUSY");
        if !is_conflict
            || self.is_stopping()
            || !self.work.begin_anew(error.delivery_id, STATE_TRIES)
        {
            return false;
        }
        tracing::debug!(delivery.id = error.delivery_id, reason = %error.reason, "begun anew");
        self.start_waiting();
        true
    }

    fn heard(&mut self, heartbeat: &GatewayHeartbeat, link: &mut Link) {
        let is_idle = !self.had_work && self.work.is_empty();
        self.had_work = !self.work.is_empty();
        if is_idle
            && self.ending.is_none()
            && let Some(missing) = self
                .credit
                .missing(heartbeat.credit_deliveries, heartbeat.credit_bytes)
        {
            link.outbox.send(missing);
        }
    }
}
