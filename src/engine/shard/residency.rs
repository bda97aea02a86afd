//! Which conversations are in memory: those with something going on, and for a while those that had.

use std::collections::HashSet;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use tracing::{error, warn};

use super::{SORTED_PER_ROUND, Shard};
use crate::engine::command::Followed;
use crate::engine::conversation::{Conversation, Reader, Seat, Stored};
use crate::engine::delivery::{Cursor, State, Subscription};
use crate::engine::error::Error;
use crate::engine::round::Round;
use crate::engine::settings::{Channel, Outbound};
use crate::id::{ConversationKey, Sequence};
use crate::store::Durability;
use crate::store::keys::Key;

/// Resident conversations looked at in one tick, unless there are too many: so that no tick grows
/// with their number.
const LOOKED_AT: usize = 4_096;

impl Shard {
    /// The slot of a conversation, read from the store if need be.
    pub(super) fn resident(
        &mut self,
        key: &ConversationKey,
        round: &mut Round,
    ) -> Result<usize, Error> {
        if let Some(&slot) = self.slots.get(key) {
            return Ok(slot);
        }
        let stored = Stored::read(&*self.shared.store, key)?;
        Ok(self.admit(key, stored, round))
    }

    /// Takes a conversation into memory: one that was read, or a new one.
    pub(super) fn admit(
        &mut self,
        key: &ConversationKey,
        stored: Stored,
        round: &mut Round,
    ) -> usize {
        self.residencies += 1;
        let seats = self.seats(key, &stored);
        let slot = self.conversations.insert(Conversation {
            key: key.clone(),
            start_time: stored.start_time,
            is_group: stored.is_group,
            reference: stored.reference,
            last: stored.last,
            unwritten: Vec::new(),
            first: stored.first,
            bucket: stored.bucket,
            seats,
            feed: Weak::new(),
            known_members: HashSet::new(),
            // A conversation that was let go with something unfinished has kept its mark.
            marked_live: stored
                .cursors
                .iter()
                .any(|(_, cursor)| cursor.finished < stored.last),
            dirty: false,
            timer: None,
            touched: round.now,
            residency: self.residencies,
        });
        self.slots.insert(key.clone(), slot);
        self.shared.resident.fetch_add(1, Ordering::Relaxed);
        self.leaving.push_back((slot, self.residencies));
        for seat in 0..self.conversations[slot].seats.len() {
            self.enqueue(slot, seat, false, round);
        }
        slot
    }

    /// Those who read the conversation: by its stored cursors, and by what the configuration says
    /// now of its channel. Who joins so has seen everything up to now.
    fn seats(&mut self, key: &ConversationKey, stored: &Stored) -> Vec<Seat> {
        let mut readers = stored.cursors.clone();
        let channel = self.shared.settings.channels.get(&key.channel).cloned();
        if let Some(Channel { bot, outbound, .. }) = channel {
            let here_now = Cursor {
                finished: stored.last,
                ..Cursor::default()
            };
            let mut join = |reader: Reader| {
                if !readers.iter().any(|(present, _)| *present == reader) {
                    readers.push((reader, here_now));
                }
            };
            join(Reader::Bot(bot));
            match outbound {
                Outbound::Queue => join(Reader::Egress),
                Outbound::Watch => readers.retain(|(reader, _)| *reader != Reader::Egress),
            }
        }
        let seat = |(reader, cursor): (Reader, Cursor)| Seat {
            subscriber: self.subscriber(&reader.subscriber(key)),
            reader,
            subscription: Subscription::new(cursor, stored.last),
            queued: false,
            avoid: None,
        };
        readers.into_iter().map(seat).collect()
    }

    /// Looks at some of the conversations that were live at open.
    pub(super) fn sort(&mut self, round: &mut Round) {
        for _ in 0..SORTED_PER_ROUND.min(self.unsorted.len()) {
            let Some(key) = self.unsorted.pop_front() else {
                return;
            };
            match self.resident(&key, round) {
                // It has its mark, even if all is finished, as after a crash: to be taken off.
                Ok(slot) => self.conversations[slot].marked_live = true,
                // Its first write failed.
                Err(Error::ConversationUnknown(_)) => {}
                // It is read again when something is next appended to it.
                Err(error) => error!(conversation = %key, %error, "a conversation cannot be read"),
            }
        }
    }

    /// The live end of a conversation, for a follower.
    pub(super) fn follow(
        &mut self,
        key: &ConversationKey,
        round: &mut Round,
    ) -> Result<Followed, Error> {
        let slot = self.resident(key, round)?;
        let conversation = &mut self.conversations[slot];
        Ok(Followed {
            feed: conversation.feed(),
            first: conversation.first,
            last: conversation.last,
        })
    }

    /// Lets conversations go that have had nothing to do for a while, or the ones looked at longest
    /// ago when there are too many. What waits for a subscriber without room goes, too: its place in
    /// the subscriber's queue brings it back.
    pub(super) fn let_go(&mut self, round: &mut Round) {
        let limits = &self.shared.settings.limits;
        let (idle, most) = (limits.conversation_idle, limits.conversations_idle);
        let excess = self.leaving.len().saturating_sub(most);
        for _ in 0..LOOKED_AT.max(excess).min(self.leaving.len()) {
            let Some(&(slot, residency)) = self.leaving.front() else {
                return;
            };
            let known = self
                .conversations
                .get(slot)
                .filter(|c| c.residency == residency);
            let Some(conversation) = known else {
                self.leaving.pop_front();
                continue;
            };
            let idle_until = conversation.touched.after(idle);
            let too_many = self.leaving.len() > most;
            if idle_until > round.now && !too_many {
                // The queue is in order of the last look, not of the last use: look further.
                self.leaving.rotate_left(1);
                continue;
            }
            self.leaving.pop_front();
            if conversation.is_busy() || conversation.dirty {
                self.leaving.push_back((slot, residency));
                continue;
            }
            if conversation.is_finished() && conversation.marked_live {
                round.batch.delete(&Key::Live {
                    conversation: &conversation.key,
                });
            }
            self.slots.remove(&conversation.key);
            self.conversations.remove(slot);
            self.shared.resident.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Drops a conversation whose last write failed; it is read again.
    pub(super) fn forget(&mut self, slot: usize) {
        let conversation = self.conversations.remove(slot);
        self.shared.resident.fetch_sub(1, Ordering::Relaxed);
        for seat in &conversation.seats {
            if let Some(held) = seat.subscription.held() {
                self.let_loose(held.session, held.id);
            }
        }
        if let Some(feed) = conversation.feed.upgrade() {
            feed.end();
        }
        self.slots.remove(&conversation.key);
        self.unsorted.push_back(conversation.key);
    }

    /// Makes the last writes durable and takes the marks off all that is finished, so that the next
    /// open has nothing to look at.
    pub(super) fn leave(&mut self) {
        let mut round = Round::new(self.shared.clock.now());
        for (_, conversation) in &self.conversations {
            if let Some(feed) = conversation.feed.upgrade() {
                feed.end();
            }
            if conversation.is_finished() && conversation.marked_live {
                round.batch.delete(&Key::Live {
                    conversation: &conversation.key,
                });
            }
        }
        if let Err(failure) = self.shared.store.commit(round.batch, Durability::Synced) {
            warn!(shard = self.index, %failure, "the last write of a shard failed");
        }
    }

    /// Reads the log until a ready seat knows its next activity.
    ///
    /// Returns whether it has one.
    pub(super) fn fill(
        &mut self,
        slot: usize,
        seat: usize,
        round: &mut Round,
    ) -> Result<bool, Error> {
        let conversation = &mut self.conversations[slot];
        let last = conversation.last;
        let taken = &mut conversation.seats[seat];
        while let Some(after) = taken.subscription.must_read_after(last) {
            let written = Sequence(last.0 - conversation.unwritten.len() as u64);
            let entries = if after < written {
                crate::engine::log::read(
                    &*self.shared.store,
                    &conversation.key,
                    after.next().max(conversation.first),
                    written,
                    crate::store::Order::Ascending,
                    crate::engine::log::Page {
                        entries: crate::engine::delivery::WAITING_ENTRIES,
                        bytes: crate::engine::delivery::WAITING_BYTES,
                    },
                )?
            } else {
                conversation.unwritten[(after.0 - written.0) as usize..].to_vec()
            };
            if entries.is_empty() {
                return Err(gap(&conversation.key, after));
            }
            for entry in &entries {
                let is_for_it = is_for(&taken.reader, entry);
                taken.subscription.learn(entry, is_for_it);
            }
            let newest = entries.last().map_or(after, |entry| entry.sequence);
            if newest == last && taken.subscription.first().is_none() {
                taken.subscription.nothing_waits(last);
            }
        }
        let has_work = taken.subscription.first().is_some();
        if !has_work && taken.subscription.state() == State::Idle {
            self.touch(slot, round);
        }
        Ok(has_work)
    }
}

/// Whether a reader is to be handed an entry.
pub(super) fn is_for(reader: &Reader, entry: &crate::engine::log::Entry) -> bool {
    match (reader, entry.author.bot()) {
        // A bot is not told what bots say, itself included.
        (Reader::Bot(_), author) => author.is_none(),
        (Reader::Egress, author) => author.is_some(),
    }
}

fn gap(key: &ConversationKey, after: Sequence) -> Error {
    let what = format!("the log of `{key}` after sequence {after}");
    crate::store::Error::Corrupt { what }.into()
}
