//! `WatchConversation`: a watcher's steps.

use std::collections::VecDeque;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::convert;
use crate::clock::{Sleep, Timestamp};
use crate::engine::{Engine, Error, Follower, News};
use crate::proto::server::WatchConversationResponse;
use crate::proto::server::watch_conversation_response::Step;
use crate::proto::v1;
use crate::status::Failure;

/// One watcher.
pub(super) struct Watch {
    follower: Follower,
    engine: Engine,
    /// Read and not sent yet.
    ready: VecDeque<Step>,
    /// When the watcher was last told something.
    told: Timestamp,
    /// Armed again only when it rings, so that an activity costs no timer.
    alarm: Sleep,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    pub(super) fn new(follower: Follower, engine: Engine, place: OwnedSemaphorePermit) -> Self {
        engine.metrics().watchers.inc();
        let told = engine.clock().now();
        let alarm = engine.clock().sleep_until(Self::report_at(&engine, told));
        Self {
            follower,
            engine,
            ready: VecDeque::new(),
            told,
            alarm,
            ended: false,
            _place: place,
        }
    }

    /// When a watcher that hears nothing more is told where it stands.
    fn report_at(engine: &Engine, told: Timestamp) -> Timestamp {
        told.after(engine.limits().watch_report_interval)
    }

    /// The next step; `None` after an error.
    pub(super) async fn step(&mut self) -> Option<Result<WatchConversationResponse, Status>> {
        while !self.ended {
            if let Some(next) = self.ready.pop_front() {
                return Some(Ok(step(next)));
            }
            tokio::select! {
                biased;
                news = self.follower.news() => match news {
                    Ok(news) => {
                        match news {
                            News::Entries(entries) => {
                                let steps = entries.iter().map(|entry| convert::entry(entry));
                                self.ready.extend(steps.map(Step::Entry));
                            }
                            News::Receipts(receipts) => {
                                let steps = receipts.into_iter().map(convert::receipt);
                                self.ready.extend(steps.map(Step::Receipt));
                            }
                        }
                        self.told = self.engine.clock().now();
                    }
                    Err(error) => {
                        self.ended = true;
                        let going = self.engine.is_draining();
                        let error = if going { Error::ShuttingDown } else { error };
                        let failure = Failure::from(error);
                        self.engine.metrics().rpc_error(failure.row().reason);
                        return Some(Err(failure.into()));
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
