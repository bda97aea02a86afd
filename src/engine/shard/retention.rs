//! Removing what is older than the configuration keeps, a little at a time.
//!
//! Logs are found by bucket: the first append of a conversation in an hour leaves a note under that
//! hour. When the hour is past its time, the conversations noted there, and no others, are looked
//! at. Results of keyed appends lie in generations, and go a generation at a time.

use std::ops::ControlFlow;
use std::time::Duration;

use tracing::error;

use super::Shard;
use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::engine::log::{self, Page};
use crate::engine::round::Round;
use crate::engine::shard_of;
use crate::store::Order;
use crate::store::keys::{self, Key, KeyRange};

/// Length of a bucket. Never to be changed: stored buckets are counted in it.
const BUCKET: Duration = Duration::from_secs(3600);
/// Notes of conversations looked at in one tick.
const NOTES_PER_TICK: usize = 64;
/// Entries removed from one conversation, or results removed, in one tick.
const REMOVED_PER_TICK: usize = 1_000;

/// How far the removal of results has come.
#[derive(Default)]
pub(super) struct Progress {
    /// All generations before this one are gone.
    purged: Option<u32>,
}

impl Shard {
    /// The generation that results of keyed appends are written to at a time. Results are looked up
    /// in it and in the one before, so that each is found for one to two times the retention.
    pub(super) fn generation(&self, now: Timestamp) -> u32 {
        let retention = self.shared.settings.limits.idempotency_retention;
        keys::generation(now, retention.as_millis().max(1) as u64)
    }

    /// Notes that a conversation has an append in this hour.
    pub(super) fn note_bucket(&mut self, slot: usize, round: &mut Round) {
        if self.shared.settings.limits.log_retention.is_zero() {
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

    /// Removes some of what is too old.
    pub(super) fn retain(&mut self, round: &mut Round) {
        if let Err(error) = self
            .retain_log(round)
            .and_then(|()| self.retain_results(round))
        {
            error!(shard = self.index, %error, "retention cannot read the store");
        }
    }

    fn retain_log(&mut self, round: &mut Round) -> Result<(), Error> {
        let retention = self.shared.settings.limits.log_retention;
        if retention.is_zero() {
            return Ok(());
        }
        let cutoff = Timestamp(round.now.0.saturating_sub(retention.as_millis() as u64));
        let shards = self.shared.settings.shards;
        let mut notes = Vec::new();
        let due = KeyRange::expiry_before(bucket(cutoff));
        self.shared
            .store
            .scan(&due, Order::Ascending, &mut |key, _| {
                if let Ok((bucket, conversation)) = keys::decode_expiry(key)
                    && shard_of(&conversation, shards) == usize::from(self.index)
                {
                    notes.push((bucket, conversation));
                }
                if notes.len() < NOTES_PER_TICK {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        for (bucket, key) in notes {
            let is_done = match self.resident(&key, round) {
                Ok(slot) => self.trim(slot, cutoff, round)?,
                Err(Error::ConversationUnknown(_)) => true,
                Err(error) => return Err(error),
            };
            if is_done {
                round.batch.delete(&Key::Expiry {
                    bucket,
                    conversation: &key,
                });
            }
        }
        Ok(())
    }

    /// Removes activities older than `cutoff` from the start of a log, but none that a session holds.
    ///
    /// Returns whether nothing old is left.
    fn trim(&mut self, slot: usize, cutoff: Timestamp, round: &mut Round) -> Result<bool, Error> {
        let conversation = &self.conversations[slot];
        let held = conversation
            .seats
            .iter()
            .filter(|seat| seat.subscription.held().is_some());
        let first_held = held
            .filter_map(|seat| Some(seat.subscription.first()?.sequence))
            .min();
        let page = Page {
            entries: REMOVED_PER_TICK,
            bytes: usize::MAX,
        };
        // What was appended in this round is not in the store yet, and not old.
        let old = log::read(
            &*self.shared.store,
            &conversation.key,
            conversation.first,
            conversation.last,
            Order::Ascending,
            page,
        )?;
        let is_whole_log = old.len() < REMOVED_PER_TICK;
        let kept = old.iter().position(|entry| {
            entry.append_time >= cutoff || first_held.is_some_and(|held| entry.sequence >= held)
        });
        let removed = &old[..kept.unwrap_or(old.len())];
        let first = match removed.last() {
            Some(last) => last.sequence.next(),
            None => return Ok(first_held.is_none()),
        };
        for entry in removed {
            let (conversation, sequence) = (&conversation.key, entry.sequence);
            round.batch.delete(&Key::Activity {
                conversation,
                sequence,
            });
            round.batch.delete(&Key::Receipt {
                conversation,
                sequence,
            });
        }
        for seat in &conversation.seats {
            let bot = seat.reader.id();
            for sequence in removed.iter().map(|entry| entry.sequence) {
                round.batch.delete(&Key::DeadLetter {
                    conversation: &conversation.key,
                    bot,
                    sequence,
                });
            }
        }
        self.conversations[slot].first = first;
        self.touch(slot, round);
        for seat in 0..self.conversations[slot].seats.len() {
            let subscription = &mut self.conversations[slot].seats[seat].subscription;
            subscription.forget_before(first);
            self.go_on(slot, seat, round);
        }
        Ok(kept.is_some() || is_whole_log)
    }

    /// Removes results that are never looked up again. One shard does it for all.
    fn retain_results(&mut self, round: &mut Round) -> Result<(), Error> {
        let oldest = self.generation(round.now).saturating_sub(1);
        if self.index != 0 || self.retention.purged == Some(oldest) {
            return Ok(());
        }
        let mut removed = 0;
        let batch = &mut round.batch;
        let range = KeyRange::idempotency_before(oldest);
        self.shared
            .store
            .scan(&range, Order::Ascending, &mut |key, _| {
                batch.delete_encoded(key);
                removed += 1;
                if removed < REMOVED_PER_TICK {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        if removed < REMOVED_PER_TICK {
            self.retention.purged = Some(oldest);
        }
        Ok(())
    }
}

fn bucket(time: Timestamp) -> u32 {
    u32::try_from(u128::from(time.0) / BUCKET.as_millis()).unwrap_or(u32::MAX)
}
