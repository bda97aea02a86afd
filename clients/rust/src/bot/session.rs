//! One session of a bot: deliveries in, handlers run, answers out.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::builder::{BotBuilder, OnEphemeral, OnReceipt};
use super::credit::Meter;
use super::early::{Early, Unanswered};
use super::ending::{End, Ending, duration, sleep_until};
use super::outbox::Outbox;
use super::stream::{BotReceiver, BotStream};
use super::streaming;
use super::turn::{Reply, Turn, TurnError};
use crate::Error;
use crate::proto::subscribe_response::Frame as GatewayFrame;
use crate::proto::{
    self, AckOutcome, Appended, BotHeartbeat, Cancel, Commit, DeliveryResult, GatewayHeartbeat,
    Nack, NackMode, SendResult, Welcome,
};
use crate::random;

/// Early sends that may wait for the session's task; more make their handlers wait.
const EARLY_SENDS: usize = 64;

/// How long the gateway may take to end a stream that the bot has closed.
const CLOSING: Duration = Duration::from_secs(2);

/// How often a handler is called for one delivery whose commits meet other writes of their documents,
/// before the delivery is given back. Each time somebody else's write has gone ahead.
const STATE_TRIES: u32 = 16;

/// Longest pause before such a call: it begins with a few milliseconds, doubles each time up to this, and is
/// jittered, so that those who met do not meet again.
const STATE_PAUSE: Duration = Duration::from_millis(250);

/// A delivery that the gateway counts as this session's.
struct Held {
    /// What it uses of the credit.
    bytes: usize,
    /// To be handed out again, as long as it may be.
    turn: Option<Turn>,
    /// How often it was handed out.
    tries: u32,
    /// Tells its handler which replies are wanted no more.
    cancels: watch::Sender<Vec<Cancel>>,
}

pub(super) struct Session<H> {
    handler: Arc<H>,
    concurrency: usize,
    grace: Duration,
    welcome: Welcome,
    receiver: BotReceiver,
    credit: Meter,
    /// Every delivery that is not finished, in whichever state. Bounded by the credit.
    held: HashMap<u64, Held>,
    /// Deliveries whose handler has not started. A part of `held`.
    waiting: VecDeque<Turn>,
    /// Deliveries whose handler runs.
    running: JoinSet<Result<Reply, TurnError>>,
    deliveries: HashMap<Id, u64>,
    /// Deliveries whose Commit has not been answered. Counted, so that a stop waits for them.
    committing: usize,
    outbox: Outbox,
    early_sends: mpsc::Receiver<Early>,
    early_sender: mpsc::Sender<Early>,
    on_ephemeral: Option<OnEphemeral>,
    unanswered: Unanswered,
    on_receipt: Option<OnReceipt>,
    last_heard: Instant,
    had_work: bool,
}

impl<H, F, R> Session<H>
where
    H: Fn(Turn) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R, TurnError>> + Send + 'static,
    R: Into<Reply> + 'static,
{
    pub(super) fn new(stream: BotStream, settings: &BotBuilder, handler: Arc<H>) -> Self {
        let (welcome, sender, receiver) = stream.split();
        let (early_sender, early_sends) = mpsc::channel(EARLY_SENDS);
        Self {
            handler,
            concurrency: settings.concurrency,
            grace: settings.grace,
            welcome,
            receiver,
            credit: settings.meter(),
            held: HashMap::new(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            deliveries: HashMap::new(),
            committing: 0,
            outbox: Outbox::new(sender),
            early_sends,
            early_sender,
            on_ephemeral: settings.on_ephemeral.clone(),
            unanswered: Unanswered::default(),
            on_receipt: settings.on_receipt.clone(),
            last_heard: Instant::now(),
            had_work: true,
        }
    }

    /// Runs until the session is lost, drained, or stopped by `shutdown`.
    pub(super) async fn run<S>(mut self, mut shutdown: Pin<&mut S>) -> Result<End, Error>
    where
        S: Future<Output = ()>,
    {
        let mut heartbeat = self.heartbeat_interval();
        let mut ending: Option<Ending> = None;
        if let Some(credit) = self.credit.fit(self.welcome.max_activity_bytes) {
            self.outbox.send(credit);
        }
        loop {
            if let Some(state) = &ending
                && self.has_finished(state)
            {
                break;
            }
            let deadline = ending.as_ref().map(|ending| ending.deadline);
            tokio::select! {
                frame = self.receiver.next() => match frame? {
                    Some(GatewayFrame::Drain(drain)) if ending.is_none() => {
                        ending = Some(Ending::drain(&drain));
                    }
                    Some(frame) => {
                        self.last_heard = Instant::now();
                        self.receive(frame, ending.as_ref());
                    }
                    None if ending.is_some() => break,
                    None => return Err(Error::Ended),
                },
                Some(joined) = self.running.join_next_with_id() => {
                    self.finish(joined);
                    self.start_waiting(ending.as_ref());
                }
                // What handlers say waits for room on the stream, and so do they.
                Some(early) = self.early_sends.recv(), if self.outbox.is_empty() => self.say(early),
                flushed = self.outbox.flush(), if !self.outbox.is_empty() => flushed?,
                _ = heartbeat.tick() => self.beat()?,
                () = shutdown.as_mut(), if !ending.as_ref().is_some_and(Ending::is_stop) => {
                    ending = Some(Ending::stop(self.grace));
                }
                () = sleep_until(deadline) => break,
            }
            if ending.is_none()
                && let Some(credit) = self.credit.grant()
            {
                self.outbox.send(credit);
            }
        }
        self.close().await;
        Ok(ending.map_or(End::Stopped, |ending| ending.end))
    }

    fn heartbeat_interval(&self) -> Interval {
        // Twice as often as asked for, so that one that is late is not missed; and more often
        // than deliveries expire, because it is what extends them.
        let period = duration(self.welcome.heartbeat_interval, Duration::from_secs(20))
            .min(duration(self.welcome.delivery_deadline, Duration::MAX))
            .max(Duration::from_millis(20))
            / 2;
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    fn has_finished(&self, ending: &Ending) -> bool {
        match ending.end {
            End::Stopped => {
                self.running.is_empty() && self.committing == 0 && self.outbox.is_empty()
            }
            End::Drained { .. } => self.held.is_empty() && self.outbox.is_empty(),
        }
    }

    fn receive(&mut self, frame: GatewayFrame, ending: Option<&Ending>) {
        match frame {
            GatewayFrame::Delivery(delivery) => {
                let bytes = delivery.activity.as_ref().map_or(0, Message::encoded_len);
                self.had_work = true;
                let (cancels, told) = watch::channel(Vec::new());
                let held = Held {
                    bytes,
                    turn: None,
                    tries: 0,
                    cancels,
                };
                self.held.insert(delivery.delivery_id, held);
                let turn = Turn::new(delivery, self.early_sender.clone(), told);
                self.waiting.push_back(turn);
                self.start_waiting(ending);
            }
            GatewayFrame::AckResult(acks) => {
                for result in acks.results {
                    self.committed(&result);
                }
            }
            GatewayFrame::SendResult(result) => {
                let client_id = result.client_id.clone();
                self.answer_send(&client_id, sent(result));
            }
            GatewayFrame::Heartbeat(heartbeat) => self.heard(&heartbeat, ending),
            GatewayFrame::Error(error) => self.refused(error, ending),
            GatewayFrame::Cancel(cancel) => {
                if let Some(held) = self.held.get(&cancel.delivery_id) {
                    streaming::note(&held.cancels, cancel);
                }
            }
            GatewayFrame::Ephemeral(ephemeral) => {
                if let Some(OnEphemeral(told)) = &self.on_ephemeral {
                    told(ephemeral);
                }
            }
            GatewayFrame::Receipt(receipt) => {
                if let Some(told) = &self.on_receipt {
                    told.call(receipt);
                }
            }
            // A second Drain says nothing new, and a Welcome comes once. What went elsewhere is held
            // no more: nothing of it is to be stopped.
            GatewayFrame::Drain(_) | GatewayFrame::Welcome(_) | GatewayFrame::Revoked(_) => {}
        }
    }

    /// Starts handlers up to the concurrency; none when the bot stops.
    fn start_waiting(&mut self, ending: Option<&Ending>) {
        if ending.is_some_and(Ending::is_stop) {
            return;
        }
        while self.running.len() < self.concurrency
            && let Some(turn) = self.waiting.pop_front()
        {
            let delivery_id = turn.delivery_id();
            let mut pause = Duration::ZERO;
            if let Some(held) = self.held.get_mut(&delivery_id) {
                pause = state_pause(held.tries);
                held.turn = Some(turn.again());
                held.tries += 1;
            }
            let handler = self.handler.clone();
            let task = self.running.spawn(async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                handler(turn).await.map(Into::into)
            });
            self.deliveries.insert(task.id(), delivery_id);
        }
    }

    /// Answers a delivery whose handler has ended.
    fn finish(&mut self, joined: Result<(Id, Result<Reply, TurnError>), JoinError>) {
        let (id, answer) = match joined {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(TurnError::retry("the handler panicked"))),
        };
        let Some(delivery_id) = self.deliveries.remove(&id) else {
            return;
        };
        // What the handler said before it ended goes before its answer. The queue holds no more.
        for _ in 0..EARLY_SENDS {
            let Ok(early) = self.early_sends.try_recv() else {
                break;
            };
            self.say(early);
        }
        match answer {
            Ok(reply) => {
                self.committing += 1;
                if reply.state.is_empty()
                    && let Some(held) = self.held.get_mut(&delivery_id)
                {
                    // It will not be needed again.
                    held.turn = None;
                }
                self.outbox.send(Commit {
                    delivery_id,
                    activities: reply.activities,
                    state_writes: reply.state,
                });
            }
            Err(error) => self.give_back(delivery_id, error),
        }
    }

    fn say(&mut self, early: Early) {
        match early {
            Early::Send(send) => {
                if let Some(send) = self.unanswered.begin(send) {
                    self.outbox.send(send);
                }
            }
            Early::Frame(frame) => self.outbox.send(frame),
        }
    }

    fn give_back(&mut self, delivery_id: u64, error: TurnError) {
        let TurnError {
            mode,
            delay,
            reason,
        } = error;
        tracing::warn!(delivery.id = delivery_id, ?mode, %reason, "turn given back");
        self.outbox.send(Nack {
            delivery_ids: vec![delivery_id],
            mode: mode.into(),
            delay: delay.and_then(|delay| delay.try_into().ok()),
            reason: if mode == NackMode::Poison {
                reason
            } else {
                String::new()
            },
            want_result: false,
        });
        self.let_go(delivery_id);
    }

    fn let_go(&mut self, delivery_id: u64) {
        if let Some(held) = self.held.remove(&delivery_id) {
            self.credit.finish(held.bytes);
        }
    }

    /// Every ack this session asks a result for is a Commit's.
    fn committed(&mut self, result: &DeliveryResult) {
        if !self.held.contains_key(&result.delivery_id) {
            return;
        }
        self.committing = self.committing.saturating_sub(1);
        match result.outcome() {
            AckOutcome::OutOfOrder => {
                let error = TurnError::retry("an earlier delivery is not finished");
                self.give_back(result.delivery_id, error);
                return;
            }
            AckOutcome::Ok => {}
            AckOutcome::Stale | AckOutcome::Unknown | AckOutcome::Unspecified => {
                tracing::warn!(
                    delivery.id = result.delivery_id,
                    outcome = ?result.outcome(),
                    "answer not taken: the delivery was given to someone else"
                );
            }
        }
        self.let_go(result.delivery_id);
    }

    fn answer_send(&mut self, client_id: &str, result: Result<Appended, Error>) {
        if let Some(next) = self.unanswered.answer(client_id, result) {
            self.outbox.send(next);
        }
    }

    fn refused(&mut self, error: proto::Error, ending: Option<&Ending>) {
        if !error.client_id.is_empty() {
            let client_id = error.client_id.clone();
            self.answer_send(&client_id, Err(error.into()));
            return;
        }
        let error = match self.begin_anew(error, ending) {
            Some(error) => error,
            None => return,
        };
        tracing::warn!(reason = %error.reason, frame = error.frame, message = %error.message, "frame refused");
        let delivery_id = error.delivery_id;
        if delivery_id != 0 && self.held.contains_key(&delivery_id) {
            self.committing = self.committing.saturating_sub(1);
            let reason = format!("the answer was refused: {}", error.reason);
            let error = Error::from(error);
            // What met another write may well succeed in another attempt.
            let answer = if error.is_retryable() || error.is_state_conflict() {
                TurnError::retry(reason)
            } else {
                TurnError::poison(reason)
            };
            self.give_back(delivery_id, answer);
        }
    }

    /// Hands a turn out again whose commit met another write of a document: the delivery is still this
    /// session's, and what its handler had read was out of date. Returns the error if it cannot.
    fn begin_anew(&mut self, error: proto::Error, ending: Option<&Ending>) -> Option<proto::Error> {
        let is_conflict = matches!(error.reason.as_str(), "STATE_STALE" | "STATE_BUSY");
        if !is_conflict || ending.is_some_and(Ending::is_stop) {
            return Some(error);
        }
        let held = self.held.get_mut(&error.delivery_id);
        let held = held.filter(|held| held.tries < STATE_TRIES);
        let Some(turn) = held.and_then(|held| held.turn.take()) else {
            return Some(error);
        };
        tracing::debug!(delivery.id = error.delivery_id, reason = %error.reason, "begun anew");
        self.committing = self.committing.saturating_sub(1);
        self.waiting.push_front(turn);
        self.start_waiting(ending);
        None
    }

    fn heard(&mut self, heartbeat: &GatewayHeartbeat, ending: Option<&Ending>) {
        let idle = !self.had_work && self.held.is_empty();
        self.had_work = !self.held.is_empty();
        if idle
            && ending.is_none()
            && let Some(missing) = self
                .credit
                .missing(heartbeat.credit_deliveries, heartbeat.credit_bytes)
        {
            self.outbox.send(missing);
        }
    }

    /// Says that the bot is alive and what it still works on.
    fn beat(&mut self) -> Result<(), Error> {
        let interval = duration(self.welcome.heartbeat_interval, Duration::from_secs(20));
        let silence = self.last_heard.elapsed();
        if silence > interval * 3 {
            return Err(Error::Silent(silence));
        }
        let mut ids: Vec<u64> = self.held.keys().copied().collect();
        ids.sort_unstable();
        let most = (self.welcome.max_ack_ids as usize).clamp(1, 1_000);
        let mut frames = ids.chunks(most);
        let first = frames.next().unwrap_or_default().to_vec();
        self.outbox.send(BotHeartbeat {
            delivery_ids: first,
        });
        for ids in frames {
            self.outbox.send(BotHeartbeat {
                delivery_ids: ids.to_vec(),
            });
        }
        Ok(())
    }

    /// Gives back what was not started, ends the bot's side, and waits for the gateway's.
    async fn close(mut self) {
        let most = (self.welcome.max_ack_ids as usize).clamp(1, 1_000);
        let left: Vec<u64> = self.waiting.iter().map(Turn::delivery_id).collect();
        for ids in left.chunks(most) {
            self.outbox.send(Nack {
                delivery_ids: ids.to_vec(),
                mode: NackMode::Release.into(),
                ..Nack::default()
            });
        }
        let Self {
            mut outbox,
            mut receiver,
            ..
        } = self;
        let ended = async {
            if outbox.flush().await.is_ok() {
                drop(outbox);
                // Dropping the receiver at once would reset the stream with the last frames unsent.
                while let Ok(Some(_)) = receiver.next().await {}
            }
        };
        // A gateway that does not close in time is left to notice by itself.
        let _ = tokio::time::timeout(CLOSING, ended).await;
    }
}

/// How long a handler waits that is called again after so many calls; the first does not.
fn state_pause(tries: u32) -> Duration {
    if tries == 0 {
        return Duration::ZERO;
    }
    let longest = Duration::from_millis(1 << tries.min(10)).min(STATE_PAUSE);
    longest.mul_f64(random::fraction())
}

fn sent(result: SendResult) -> Result<Appended, Error> {
    match (result.outcome(), result.appended) {
        (AckOutcome::Ok, Some(appended)) => Ok(appended),
        (AckOutcome::Ok, None) => Err(Error::Protocol("a send without its position")),
        _ => Err(Error::Stale),
    }
}
