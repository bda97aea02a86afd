//! Group commit: callers that come while a sync is under way share the next one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::store::{Batch, Durability, Error};

/// Gathers the batches of concurrent callers into rounds, one written at a time.
///
/// The underlying database syncs inside its write lock, one caller after another, so that callers
/// would each pay a whole sync. Here the first caller leads: it writes its batch at once, waiting
/// for nobody. Those who come meanwhile make up the next round, which one of them leads when the
/// lock is free. A round is written as one batch, so that it needs one checksum and one sync, and
/// readers see none of it before it is durable.
///
/// A round is as large as the batches of the threads that are in [`commit`](Self::commit).
#[derive(Debug)]
pub(super) struct Rounds {
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Debug)]
struct State {
    /// What the next round will write.
    batch: Batch,
    /// The strongest durability that anyone in the next round asked for.
    durability: Durability,
    /// The number of the next round.
    next: u64,
    /// Whether somebody is writing round `next - 1`.
    leading: bool,
    /// The first round that failed; none is written after it.
    failed: Option<(u64, Error)>,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                batch: Batch::new(),
                durability: Durability::Buffered,
                next: 1,
                leading: false,
                failed: None,
            }),
            finished: Condvar::new(),
        }
    }

    /// Has `batch` written by `write`, together with those of others.
    ///
    /// `write` must not panic, or all callers would wait for ever.
    ///
    /// # Errors
    ///
    /// What `write` said of the round that the batch was in; [`Error::Stopped`] at `place` when an
    /// earlier round had failed.
    pub(super) fn commit(
        &self,
        batch: Batch,
        durability: Durability,
        place: &str,
        write: impl FnOnce(Batch, Durability) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        let round = state.next;
        state.durability = state.durability.max(durability);
        if state.batch.is_empty() {
            state.batch = batch;
        } else {
            state.batch.append(&batch);
        }

        // Someone else leads: either this round is finished when they are, or it is to be led.
        while state.leading && state.next <= round + 1 {
            state = self
                .finished
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.next == round && !state.leading {
            state = self.lead(state, place, write);
        }
        state.outcome(round, place)
    }

    /// Writes what has gathered as the next round.
    fn lead<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        place: &str,
        write: impl FnOnce(Batch, Durability) -> Result<(), Error>,
    ) -> MutexGuard<'s, State> {
        let round = state.next;
        let batch = std::mem::take(&mut state.batch);
        let durability = std::mem::replace(&mut state.durability, Durability::Buffered);
        state.next += 1;
        if state.outcome(round, place).is_err() {
            return state;
        }
        state.leading = true;
        drop(state);

        let result = write(batch, durability);

        let mut state = self.lock();
        state.leading = false;
        if let Err(error) = result {
            state.failed = Some((round, error));
        }
        self.finished.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What became of a round that was written, or was not to be.
    fn outcome(&self, round: u64, place: &str) -> Result<(), Error> {
        match &self.failed {
            Some((failed, error)) if *failed == round => Err(error.clone()),
            Some((failed, _)) if *failed < round => Err(Error::Stopped {
                place: place.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
