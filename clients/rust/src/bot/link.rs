//! The stream that a session speaks on at present.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::ending::duration;
use super::outbox::Outbox;
use super::stream::{BotReceiver, BotStream};
use crate::Error;
use crate::proto::{BotHeartbeat, Welcome};

/// How long the gateway may take to end a stream on which nothing is left to do.
pub(super) const CLOSING: Duration = Duration::from_secs(2);

/// How often a gateway is to be heard unless it says so.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// One stream of a session.
pub(super) struct Link {
    pub(super) welcome: Welcome,
    pub(super) outbox: Outbox,
    pub(super) receiver: BotReceiver,
    pub(super) opened: Instant,
    pub(super) last_heard: Instant,
}

impl Link {
    pub(super) fn new(stream: BotStream) -> Self {
        let (welcome, sender, receiver) = stream.split();
        let now = Instant::now();
        Self {
            welcome,
            outbox: Outbox::new(sender),
            receiver,
            opened: now,
            last_heard: now,
        }
    }

    pub(super) fn heartbeat_interval(&self) -> Interval {
        // Twice as often as asked for, so that one that is late is not missed; and more often
        // than deliveries expire, because it is what extends them.
        let period = duration(self.welcome.heartbeat_interval, HEARTBEAT)
            .min(duration(self.welcome.delivery_deadline, Duration::MAX))
            .max(Duration::from_millis(20))
            / 2;
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    /// Says that the bot is alive and what it still works on.
    pub(super) fn beat(&mut self, delivery_ids: &[u64]) -> Result<(), Error> {
        let interval = duration(self.welcome.heartbeat_interval, HEARTBEAT);
        let silence = self.last_heard.elapsed();
        if silence > interval * 3 {
            return Err(Error::Silent(silence));
        }
        let most = (self.welcome.max_ack_ids as usize).clamp(1, 1_000);
        let mut frames = delivery_ids.chunks(most);
        let first = frames.next().unwrap_or_default();
        for ids in std::iter::once(first).chain(frames) {
            self.outbox.send(BotHeartbeat {
                delivery_ids: ids.to_vec(),
            });
        }
        Ok(())
    }

    /// Ends the bot's side, and waits for the gateway's.
    pub(super) async fn close(self) {
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
