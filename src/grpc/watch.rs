//! `WatchConversation`: a watcher's steps.

use std::collections::VecDeque;
use std::sync::Arc;

use tonic::Status;

use super::access::Admitted;
use super::convert;
use crate::auth::{Needs, Standing};
use crate::capacity::Share;
use crate::clock::{Sleep, Timestamp};
use crate::engine::log::{self, Entry};
use crate::engine::{Engine, Error, Follower, Step as Followed};
use crate::id::ConversationKey;
use crate::proto::server::WatchConversationResponse;
use crate::proto::server::watch_conversation_response::Step;
use crate::proto::v1;
use crate::status::Failure;

/// One watcher.
pub(super) struct Watch {
    key: ConversationKey,
    follower: Follower,
    engine: Engine,
    /// Read and not sent yet.
    ready: VecDeque<Step>,
    /// When the watcher was last told something.
    told: Timestamp,
    /// Armed again only when it rings, so that an activity costs no timer.
    alarm: Sleep,
    /// Why it ends when what is ready was sent.
    failed: Option<Failure>,
    ended: bool,
    admitted: Admitted,
    standing: Standing,
    _place: Share,
}

impl Watch {
    pub(super) fn new(
        key: ConversationKey,
        follower: Follower,
        engine: Engine,
        (admitted, standing): (Admitted, Standing),
        place: Share,
    ) -> Self {
        engine.metrics().watchers.inc();
        let told = engine.clock().now();
        let alarm = engine.clock().sleep_until(Self::report_at(&engine, told));
        Self {
            key,
            follower,
            engine,
            ready: VecDeque::new(),
            told,
            alarm,
            failed: None,
            ended: false,
            admitted,
            standing,
            _place: place,
        }
    }

    /// When a watcher that hears nothing more is told where it stands.
    fn report_at(engine: &Engine, told: Timestamp) -> Timestamp {
        told.after(engine.limits().watch_report_interval)
    }

    fn end(&mut self, failure: Failure) -> Status {
        self.ended = true;
        self.engine.metrics().rpc_error(failure.row().reason);
        failure.into()
    }

    /// Lets the watcher go on by the bots that take part now, if entries say that others do: who sees the
    /// conversation as one of them sees no more of it than the bot has left.
    ///
    /// What it sees until then is kept. The entries are in the log, so the bots are what they left, or newer.
    fn look_again(&mut self, entries: &mut Vec<Arc<Entry>>) -> Result<(), Failure> {
        let tells = |entry: &Arc<Entry>| log::tells_who_takes_part(&entry.activity_id);
        let Some(at) = entries.iter().position(tells) else {
            return Ok(());
        };
        let conversation = self.engine.conversation(&self.key)?;
        let bots = conversation.bots().cloned().collect();
        let needs = Needs::to_see(self.key.channel.clone(), bots);
        match self.admitted.stand_for(needs) {
            Ok(standing) => self.standing = standing,
            Err(Failure::RoleMissing { .. }) => {
                entries.truncate(at + 1);
                return Err(Error::ConversationUnknown(self.key.clone()).into());
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// The next step; `None` after an error.
    pub(super) async fn step(&mut self) -> Option<Result<WatchConversationResponse, Status>> {
        while !self.ended {
            // Before what is ready, so that nobody is too far behind for it.
            if let Some(lost) = self.standing.try_lost() {
                return Some(Err(self.end(lost.into())));
            }
            if let Some(next) = self.ready.pop_front() {
                return Some(Ok(step(next)));
            }
            if let Some(failure) = self.failed.take() {
                return Some(Err(self.end(failure)));
            }
            tokio::select! {
                biased;
                lost = self.standing.lost() => return Some(Err(self.end(lost.into()))),
                next = self.follower.step() => match next {
                    Ok(Followed::Entries(mut entries)) => {
                        if let Err(failure) = self.look_again(&mut entries) {
                            self.failed = Some(failure);
                        }
                        let steps = entries.iter().map(|entry| convert::entry(entry));
                        self.ready.extend(steps.map(Step::Entry));
                        self.told = self.engine.clock().now();
                    }
                    Ok(Followed::Receipts(receipts)) => {
                        let steps = receipts.into_iter().map(convert::receipt);
                        self.ready.extend(steps.map(Step::Receipt));
                        self.told = self.engine.clock().now();
                    }
                    // What may be missed says nothing about where the watcher stands.
                    Ok(Followed::Ephemeral(shown)) => {
                        let shown = convert::ephemeral(&self.key, &shown);
                        return Some(Ok(step(Step::Ephemeral(shown))));
                    }
                    Err(error) => {
                        let going = self.engine.is_draining();
                        let error = if going { Error::ShuttingDown } else { error };
                        return Some(Err(self.end(error.into())));
                    }
                },
                () = &mut self.alarm => {
                    let now = self.engine.clock().now();
                    let is_idle = now >= Self::report_at(&self.engine, self.told);
                    if is_idle {
                        self.told = now;
                    }
                    let next = Self::report_at(&self.engine, self.told);
                    self.alarm = self.engine.clock().sleep_until(next);
                    if is_idle {
                        return Some(Ok(step(Step::Position(v1::Position {
                            sequence: self.follower.position().0,
                            time: Some(convert::timestamp(now)),
                        }))));
                    }
                }
            }
        }
        None
    }
}

fn step(step: Step) -> WatchConversationResponse {
    WatchConversationResponse { step: Some(step) }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.engine.metrics().watchers.dec();
    }
}
