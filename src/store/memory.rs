//! A store in memory, for tests and simulation: it fails and crashes when told to.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Durability, Error, Key, KeyRange, Order, Store};

/// A store in memory. Clones are handles on the same one.
///
/// Deterministic: the same calls give the same results.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

/// What a hook says about a commit. See [`Memory::on_commit`].
#[derive(Debug)]
pub enum Verdict {
    /// It goes on as usual.
    Apply,
    /// It fails with this error, and nothing is written.
    Refuse(Error),
    /// It is written, and fails with this error all the same.
    ApplyAndFail(Error),
}

type Hook = Box<dyn FnMut(&Batch, Durability) -> Verdict + Send>;

#[derive(Default)]
struct State {
    entries: BTreeMap<Bytes, Bytes>,
    /// For each buffered batch since the last synced one, what its writes replaced, in order.
    unsynced: Vec<Vec<(Bytes, Option<Bytes>)>>,
    fail_next: usize,
    hook: Option<Hook>,
    free_bytes: Option<u64>,
}

impl Memory {
    /// Creates an empty store with room without end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `commits` fail with [`Error::Failed`] and write nothing.
    pub fn fail_next_commits(&self, commits: usize) {
        self.lock().fail_next = commits;
    }

    /// Asks `hook` before every commit from now on. It must not use this store.
    pub fn on_commit(&self, hook: impl FnMut(&Batch, Durability) -> Verdict + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// Undoes [`on_commit`](Self::on_commit) and [`fail_next_commits`](Self::fail_next_commits).
    pub fn heal(&self) {
        let mut state = self.lock();
        state.hook = None;
        state.fail_next = 0;
    }

    /// Loses what a machine may lose that goes down now: the batches buffered since the last
    /// synced one, but for the first `keep` of them. Returns how many were lost.
    pub fn crash(&self, keep: usize) -> usize {
        let mut state = self.lock();
        let keep = keep.min(state.unsynced.len());
        let lost = state.unsynced.split_off(keep);
        for (key, before) in lost.iter().rev().flat_map(|undo| undo.iter().rev()) {
            match before {
                Some(value) => state.entries.insert(key.clone(), value.clone()),
                None => state.entries.remove(key),
            };
        }
        // What came back from a disk is on it.
        state.unsynced.clear();
        lost.len()
    }

    /// Sets what [`Store::free_bytes`] says.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = Some(bytes);
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock held was a test's hook, and changed nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn verdict(&mut self, batch: &Batch, durability: Durability) -> Verdict {
        if self.fail_next > 0 {
            self.fail_next -= 1;
            return Verdict::Refuse(injected());
        }
        match &mut self.hook {
            Some(hook) => hook(batch, durability),
            None => Verdict::Apply,
        }
    }

    fn apply(&mut self, batch: &Batch, durability: Durability) {
        let mut undo = Vec::with_capacity(batch.len());
        for write in batch.writes() {
            let key = Bytes::copy_from_slice(write.key);
            let before = match write.value {
                Some(value) => {
                    let value = Bytes::copy_from_slice(value);
                    self.entries.insert(key.clone(), value)
                }
                None => self.entries.remove(&key),
            };
            undo.push((key, before));
        }
        match durability {
            Durability::Buffered => self.unsynced.push(undo),
            Durability::Synced => self.unsynced.clear(),
        }
    }
}

/// The error of a commit that was told to fail.
fn injected() -> Error {
    Error::Failed {
        place: "memory".to_owned(),
        source: Arc::new(std::io::Error::other("told to fail")),
    }
}

impl Store for Memory {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        if batch.is_empty() && durability == Durability::Buffered {
            return Ok(());
        }
        let mut state = self.lock();
        match state.verdict(&batch, durability) {
            Verdict::Apply => {
                state.apply(&batch, durability);
                Ok(())
            }
            Verdict::Refuse(error) => Err(error),
            Verdict::ApplyAndFail(error) => {
                state.apply(&batch, durability);
                Err(error)
            }
        }
    }

    /// It does not, and so what a shard does with it has one order.
    fn blocks(&self) -> bool {
        false
    }

    fn get(&self, key: &Key<'_>) -> Result<Option<Bytes>, Error> {
        Ok(self.lock().entries.get(key.encode().as_slice()).cloned())
    }

    fn scan(
        &self,
        range: &KeyRange,
        order: Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let state = self.lock();
        let bounds = (Bound::Included(range.start()), Bound::Excluded(range.end()));
        if range.within().is_none() {
            // Whoever reads everything takes its time: commits do not wait for it.
            let entries = state.entries.range::<[u8], _>(bounds);
            let mut entries: Vec<_> = entries.map(|(k, v)| (k.clone(), v.clone())).collect();
            drop(state);
            if order == Order::Descending {
                entries.reverse();
            }
            // Whether it was broken off is of no interest.
            let _ = entries.into_iter().try_for_each(|(k, v)| visit(&k, v));
            return Ok(());
        }
        let mut entries = state.entries.range::<[u8], _>(bounds);
        loop {
            let entry = match order {
                Order::Ascending => entries.next(),
                Order::Descending => entries.next_back(),
            };
            let Some((key, value)) = entry else {
                return Ok(());
            };
            if visit(key, value.clone()).is_break() {
                return Ok(());
            }
        }
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        Ok(self.lock().free_bytes.unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
