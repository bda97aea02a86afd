//! A clock that only the simulation moves, forward and back, and that wakes those who wait always in
//! the same order.
//!
//! `clock::Manual` does not do: it wakes by a `watch` channel, which has its receivers in an order of
//! chance.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use turnwire::clock::{Clock, Sleep, Timestamp};

pub(crate) struct Simulated(Mutex<State>);

struct State {
    now: Timestamp,
    /// By time, and among equals in the order in which they began to wait.
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    slept: u64,
}

impl Simulated {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(State {
            now,
            sleepers: BTreeMap::new(),
            slept: 0,
        }))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.now = state.now.after(by);
        let first_later = (state.now.after(MILLISECOND), 0);
        let later = state.sleepers.split_off(&first_later);
        for (_, sleeper) in std::mem::replace(&mut state.sleepers, later) {
            // One that waits no longer has gone.
            let _ = sleeper.send(());
        }
    }

    /// The machine's clock is set back.
    pub(crate) fn set_back(&self, by: Duration) {
        let mut state = self.lock();
        state.now = Timestamp(state.now.0 - by.as_millis() as u64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep {
        let mut state = self.lock();
        if state.now >= deadline {
            return Box::pin(std::future::ready(()));
        }
        state.slept += 1;
        let place = (deadline, state.slept);
        let (wake, woken) = oneshot::channel();
        state.sleepers.insert(place, wake);
        Box::pin(async move {
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
