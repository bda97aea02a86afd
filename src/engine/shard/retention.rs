//! Removing what is older than the configuration keeps, a little at a time.
//!
//! Logs are found by bucket: the first append of a conversation in an hour leaves a note under that
//! hour. When the hour is past its time, the conversations noted there, and no others, are looked
//! at. Results of keyed appends lie in generations, and go a generation at a time.

use std::ops::ControlFlow;
use std::time::Duration;

use tracing::error;

use super::{Shard, letters};
use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::engine::log::{self, Entry, Page};
use crate::engine::round::Round;
use crate::engine::shard_of;
use crate::id::Sequence;
use crate::store::Order;
use crate::store::keys::{self, Key, KeyRange};

/// Length of a bucket. Never to be changed: stored buckets are counted in it.
const BUCKET: Duration = Duration::from_secs(3600);
/// Notes of conversations looked at in one round.
const NOTES_PER_ROUND: usize = 16;
/// Entries removed from one conversation in one round, or results.
const REMOVED_PER_ROUND: usize = 1_000;

/// How far the removal has come since the last tick. Each tick begins anew; within one, a round goes
/// on where the last one stopped, so that nothing is looked at twice.
#[derive(Default)]
pub(super) struct Progress {
    notes: Pass,
    results: Pass,
}

/// One walk over a range.
#[derive(Default)]
enum Pass {
    /// Nothing is left to do until the next tick.
    #[default]
    Done,
    /// It goes on after this key; empty before the first.
    After(Vec<u8>),
}

impl Progress {
    /// Notes that time has gone on, and more may be too old.
    pub(super) fn begin(&mut self) {
        for pass in [&mut self.notes, &mut self.results] {
            if matches!(pass, Pass::Done) {
                *pass = Pass::After(Vec::new());
            }
        }
    }
}

impl Shard {
    /// The generation that results of keyed appends are written to at a time. Results are looked up
    /// in it and in the one before, so that each is found for one to two times the retention.
    pub(super) fn generation(&self, now: Timestamp) -> u32 {
        let retention = self.settings.limits.idempotency_retention;
        keys::generation(now, retention.as_millis().max(1) as u64)
    }

    /// Notes that a conversation has an append in this hour.
    pub(super) fn note_bucket(&mut self, slot: usize, round: &mut Round) {
        if self.settings.limits.log_retention.is_zero() {
            return;
        }
        let conversation = &mut self.conversations[slot];
        let bucket = bucket(round.now);
        if conversation.bucket != bucket {
            conversation.bucket = bucket;
            let note = Key::Expiry {
                bucket,
                conversation: &conversation.key,
            };
            round.batch.put(&note, bytes::Bytes::new());
        }
    }

    /// Removes some of what is too old. While there is more, the next round does not wait.
    pub(super) fn retain(&mut self, round: &mut Round) {
        let progress = std::mem::take(&mut self.retention);
        let notes = match progress.notes {
            Pass::Done => Ok(Pass::Done),
            Pass::After(key) => self.retain_log(&key, round),
        };
        let results = match progress.results {
            Pass::Done => Ok(Pass::Done),
            Pass::After(key) => self.retain_results(&key, round),
        };
        let or_done = |pass: Result<Pass, Error>| {
            pass.unwrap_or_else(|error| {
                error!(shard = self.index, %error, "retention cannot read the store");
                Pass::Done
            })
        };
        self.retention = Progress {
            notes: or_done(notes),
            results: or_done(results),
        };
        let is_done = |pass: &Pass| matches!(pass, Pass::Done);
        self.unfinished |= !is_done(&self.retention.notes) || !is_done(&self.retention.results);
    }

    fn retain_log(&mut self, after: &[u8], round: &mut Round) -> Result<Pass, Error> {
        let retention = self.settings.limits.log_retention;
        if retention.is_zero() {
            return Ok(Pass::Done);
        }
        let cutoff = Timestamp(round.now.0.saturating_sub(retention.as_millis() as u64));
        let shards = self.settings.shards;
        let mut notes = Vec::new();
        let mut looked_at = None;
        let due = KeyRange::expiry_before(bucket(cutoff)).after(after);
        self.shared
            .store
            .scan(&due, Order::Ascending, &mut |key, _| {
                if let Ok((_, conversation)) = keys::decode_expiry(key)
                    && shard_of(&conversation, shards) == usize::from(self.index)
                {
                    notes.push((key.to_vec(), conversation));
                }
                if notes.len() < NOTES_PER_ROUND {
                    return ControlFlow::Continue(());
                }
                looked_at = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
        for (note, key) in notes {
            let trimmed = match self.resident(&key, round) {
                Ok(slot) => self.trim(slot, cutoff, round),
                Err(Error::ConversationUnknown(_)) => Ok(Trimmed::All),
                Err(error) => Err(error),
            };
            match trimmed {
                Ok(Trimmed::All) => round.batch.delete_encoded(&note),
                // Looked at again in the next tick.
                Ok(Trimmed::HeldUp) => {}
                Ok(Trimmed::Some) => {
                    // The same conversation next, then.
                    let before = note.len() - 1;
                    looked_at = Some(note[..before].to_vec());
                    break;
                }
                // One that cannot be read does not keep the others.
                Err(error) => error!(conversation.id = %key, %error, "a log cannot be trimmed"),
            }
        }
        Ok(looked_at.map_or(Pass::Done, Pass::After))
    }

    /// Removes activities older than `cutoff` from the start of a log, but none from the first on
    /// that a session holds.
    fn trim(
        &mut self,
        slot: usize,
        cutoff: Timestamp,
        round: &mut Round,
    ) -> Result<Trimmed, Error> {
        let conversation = &self.conversations[slot];
        // A dead letter that is not in the store yet would not be found with the others, and be left
        // behind without its activity.
        let number = conversation.number;
        let in_flight = self.flight.as_ref();
        if round.parked.contains(&number)
            || in_flight.is_some_and(|flight| flight.round.parked.contains(&number))
        {
            return Ok(Trimmed::HeldUp);
        }
        let held = conversation
            .seats
            .iter()
            .filter_map(|seat| seat.subscription.first_held());
        let first_held = held.min();
        let page = Page {
            entries: REMOVED_PER_ROUND,
            bytes: self.settings.limits.page_bytes,
        };
        let old = log::read(
            &*self.shared.store,
            conversation.number,
            conversation.first,
            conversation.durable,
            Order::Ascending,
            page,
        )?;
        let is_held = |entry: &Entry| first_held.is_some_and(|held| entry.sequence >= held);
        let stop = old
            .iter()
            .position(|entry| entry.append_time >= cutoff || is_held(entry));
        let trimmed = match stop.map(|stop| &old[stop]) {
            Some(entry) if entry.append_time < cutoff => Trimmed::HeldUp,
            Some(_) => Trimmed::All,
            None if old
                .last()
                .is_none_or(|last| last.sequence == conversation.durable) =>
            {
                Trimmed::All
            }
            None => Trimmed::Some,
        };
        let removed = &old[..stop.unwrap_or(old.len())];
        let Some(last) = removed.last() else {
            return Ok(trimmed);
        };
        let first = last.sequence.next();
        self.forget_letters(slot, first, round)?;
        for entry in removed {
            let (conversation, sequence) = (conversation.number, entry.sequence);
            round.batch.delete(&Key::Activity {
                conversation,
                sequence,
            });
            round.batch.delete(&Key::Receipt {
                conversation,
                sequence,
            });
        }
        self.conversations[slot].first = first;
        self.touch(slot, round);
        for seat in 0..self.conversations[slot].seats.len() {
            let subscription = &mut self.conversations[slot].seats[seat].subscription;
            subscription.forget_before(first);
            self.go_on(slot, seat, round);
        }
        Ok(trimmed)
    }

    /// Removes the dead letters before `first`, of those who take part no more as well.
    fn forget_letters(&self, slot: usize, first: Sequence, round: &mut Round) -> Result<(), Error> {
        let number = self.conversations[slot].number;
        let store = &self.shared.store;
        for reader in letters::readers(&**store, number)? {
            let range = KeyRange::dead_letters_of(number, &reader);
            let mut corrupt = None;
            store.scan(&range, Order::Ascending, &mut |key, _| {
                match keys::decode_dead_letter(key) {
                    Ok((_, _, sequence)) if sequence < first => {
                        round.batch.delete_encoded(key);
                        round.removed_letters.insert(key.to_vec());
                        return ControlFlow::Continue(());
                    }
                    Ok(_) => {}
                    Err(error) => corrupt = Some(error),
                }
                ControlFlow::Break(())
            })?;
            if let Some(error) = corrupt {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Removes results that are never looked up again. One shard does it for all.
    fn retain_results(&mut self, after: &[u8], round: &mut Round) -> Result<Pass, Error> {
        if self.index != 0 {
            return Ok(Pass::Done);
        }
        let oldest = self.generation(round.now).saturating_sub(1);
        let range = KeyRange::idempotency_before(oldest).after(after);
        let mut removed = 0;
        let mut looked_at = None;
        let batch = &mut round.batch;
        self.shared
            .store
            .scan(&range, Order::Ascending, &mut |key, _| {
                batch.delete_encoded(key);
                removed += 1;
                if removed < REMOVED_PER_ROUND {
                    return ControlFlow::Continue(());
                }
                looked_at = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
        Ok(looked_at.map_or(Pass::Done, Pass::After))
    }
}

/// What became of the old part of a log.
enum Trimmed {
    /// It is gone.
    All,
    /// Some of it is gone, and the rest can go next.
    Some,
    /// A session holds the next of it, or it has dead letters that are not written yet.
    HeldUp,
}

fn bucket(time: Timestamp) -> u32 {
    u32::try_from(u128::from(time.0) / BUCKET.as_millis()).unwrap_or(u32::MAX)
}
