//! Time, handed in: nothing else in the gateway asks the operating system what time it is.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `duration` later, at a resolution of one millisecond.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// How long `self` is after `earlier`; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What [`Clock::sleep_until`] returns.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of time and a way to wait for it.
pub trait Clock: Send + Sync + 'static {
    /// The time now. May jump back when the machine's clock is set.
    fn now(&self) -> Timestamp;

    /// Completes when [`now`](Self::now) has reached `deadline`. Needs a tokio runtime.
    fn sleep_until(&self, deadline: Timestamp) -> Sleep;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that is handed in"
        )]
        let now = std::time::SystemTime::now();
        let since_epoch = now
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(since_epoch.as_millis() as u64)
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep {
        Box::pin(tokio::time::sleep(deadline.since(self.now())))
    }
}

/// A clock that stands still until it is told to go on, for tests.
#[derive(Debug)]
pub struct Manual {
    now: tokio::sync::watch::Sender<Timestamp>,
}

impl Manual {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            now: tokio::sync::watch::Sender::new(now),
        }
    }

    /// Moves time on, waking whoever waits for a time up to then.
    pub fn advance(&self, duration: Duration) {
        self.now.send_modify(|now| *now = now.after(duration));
    }

    /// Sets time back, as who sets a machine's clock.
    pub fn set_back(&self, duration: Duration) {
        let back = duration.as_millis() as u64;
        self.now
            .send_modify(|now| *now = Timestamp(now.0.saturating_sub(back)));
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // An error means that the clock is gone: time will never come, so wait for ever.
            if now.wait_for(|now| *now >= deadline).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_their_time_has_come() {
        let clock = Manual::new(Timestamp(1_000));
        let mut sleep = clock.sleep_until(Timestamp(1_500));
        clock.advance(Duration::from_millis(499));
        assert!(futures_util::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_millis(1));
        sleep.await;
        assert_eq!(clock.now(), Timestamp(1_500));
    }
}
