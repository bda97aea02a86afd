//! Writing a round, and telling what became of it.
//!
//! A round that nobody waits behind is written where it was decided. When commands wait, it is
//! written on another thread, as a *flight*, and the next round is decided meanwhile. That one builds
//! on what the flight has in memory, so it ends only when the flight has landed: rounds are written
//! and told one after the other, and one that fails takes along the one that was decided on top of it.
//!
//! While a flight is in the air, the store lacks what it writes. Nothing that the deciding of commands
//! reads may depend on that: conversations that it changed are in memory, and stay there, since they
//! are let go only as a round ends; results, receipts and removed members are looked up in the flight as well;
//! and logs are read when a round ends, or up to what is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::error;

use super::Shard;
use crate::engine::error::Error;
use crate::engine::round::Round;
use crate::id::Sequence;
use crate::store::keys::Key;
use crate::store::{self, Batch, Durability};

/// How long a shard hands nothing over after the store has failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// A round whose batch is being written.
pub(super) struct Flight {
    pub(super) round: Round,
    /// The conversations it changed, and the newest activity of each in it.
    changed: Vec<(usize, Sequence)>,
    started: Instant,
}

type Written = Result<(), store::Error>;

/// A commit on another thread.
pub(super) type Writing = JoinHandle<Written>;

impl Shard {
    /// Writes the round, and tells everyone what became of it: now and here, or when the task that is
    /// returned has ended and [`land`](Self::land) was called with what it says.
    pub(super) fn write(&mut self, mut round: Round, here: bool) -> Option<Writing> {
        let changed = self.put_heads(&mut round);
        if round.batch.is_empty() {
            debug_assert!(round.documents.is_empty(), "a write of one is in the batch");
            round.conclude(&self.settings.limits, &self.shared.metrics);
            return None;
        }
        let batch = std::mem::take(&mut round.batch);
        let durability = round.durability;
        self.flight = Some(Flight {
            round,
            changed,
            started: Instant::now(),
        });
        let store = Arc::clone(&self.shared.store);
        let commit = move |batch: Batch| store.commit(batch, durability);
        if here || durability == Durability::Buffered {
            let written = commit(batch);
            let open = self.land(written, None);
            debug_assert!(open.is_none());
            return None;
        }
        Some(tokio::task::spawn_blocking(move || commit(batch)))
    }

    /// Tells what became of the flight. Returns the round that was decided on top of it, unless both
    /// have failed.
    pub(super) fn land(&mut self, written: Written, open: Option<Round>) -> Option<Round> {
        let Flight {
            round,
            changed,
            started,
        } = self.flight.take()?;
        let metrics = &self.shared.metrics;
        if round.durability == Durability::Synced {
            metrics.store_commits.inc();
            let took = started.elapsed();
            metrics.store_commit_duration.observe(took.as_secs_f64());
        }
        self.shared
            .healthy
            .store(written.is_ok(), Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.outcomes_may_be_lost = match round.durability {
                    // With it, all before it is on disk.
                    Durability::Synced => false,
                    Durability::Buffered => self.outcomes_may_be_lost || round.has_outcomes,
                };
                for (slot, last) in changed {
                    self.conversations[slot].durable = last;
                }
                self.shared.pending.land(&round.documents);
                round.conclude(&self.settings.limits, &self.shared.metrics);
                open
            }
            Err(failure) => {
                error!(shard = self.index, %failure, "the store did not take a write");
                metrics.store_failures.inc();
                self.paused_until = round.now.after(FAILURE_PAUSE);
                let mut slots: Vec<_> = changed.into_iter().map(|(slot, _)| slot).collect();
                slots.extend(open.iter().flat_map(|open| &open.dirty));
                slots.sort_unstable();
                slots.dedup();
                for slot in slots {
                    self.forget(slot);
                }
                let failure = Arc::new(failure);
                for mut round in std::iter::once(round).chain(open) {
                    self.shared.pending.land(&round.documents);
                    self.reopen_streams(std::mem::take(&mut round.ended));
                    round.fail(|| Error::StoreFailed(Arc::clone(&failure)));
                }
                None
            }
        }
    }

    /// Puts the heads of conversations that have changed into the round's batch.
    fn put_heads(&mut self, round: &mut Round) -> Vec<(usize, Sequence)> {
        let mut head = Vec::new();
        let mut changed = Vec::with_capacity(round.dirty.len());
        for slot in std::mem::take(&mut round.dirty) {
            let conversation = &mut self.conversations[slot];
            changed.push((slot, conversation.last));
            head.clear();
            conversation.encode_head(&mut head);
            match conversation.newest.take() {
                Some(newest) => round.put(conversation.number, &newest, &head),
                None => {
                    let key = Key::Head {
                        conversation: conversation.number,
                    };
                    round.batch.put(&key, &head);
                }
            }
            if !std::mem::replace(&mut conversation.marked_live, true) {
                let key = Key::Live {
                    conversation: &conversation.key,
                };
                round.batch.put(&key, Bytes::new());
            }
            conversation.dirty = false;
            conversation.touched = round.now;
        }
        changed
    }
}
