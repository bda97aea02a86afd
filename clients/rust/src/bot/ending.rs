//! How a session ends that is not lost.

use std::time::Duration;

use tokio::time::Instant;

use crate::proto::Drain;

/// How a stream ended that was not lost.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The bot was told to stop.
    Stopped,
    /// The gateway goes down.
    Drained {
        /// When to come back.
        reconnect_at: Instant,
    },
}

/// A session that will end, and is finishing what runs.
pub(super) struct Ending {
    pub(super) end: End,
    pub(super) deadline: Instant,
}

impl Ending {
    /// The bot is to stop.
    pub(super) fn stop(grace: Duration) -> Self {
        Self {
            end: End::Stopped,
            deadline: Instant::now() + grace,
        }
    }

    /// The gateway has said that it goes down.
    pub(super) fn drain(drain: &Drain) -> Self {
        let now = Instant::now();
        Self {
            end: End::Drained {
                reconnect_at: now + duration(drain.reconnect_after, Duration::from_secs(1)),
            },
            deadline: now + duration(drain.grace, Duration::from_secs(10)),
        }
    }

    /// Whether the bot, rather than the gateway, is going.
    pub(super) fn is_stop(&self) -> bool {
        matches!(self.end, End::Stopped)
    }
}

/// A duration from the wire; `absent` when it is not there, zero or negative.
pub(super) fn duration(wire: Option<prost_types::Duration>, absent: Duration) -> Duration {
    wire.and_then(|wire| Duration::try_from(wire).ok())
        .filter(|duration| !duration.is_zero())
        .unwrap_or(absent)
}

/// Waits until then; for ever without a deadline.
pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
