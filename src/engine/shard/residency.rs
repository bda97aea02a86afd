//! Which conversations are in memory: those with something going on, and for a while those that had.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tracing::{error, warn};

use super::queue::Lane;
use super::reseat::{Readers, here_now, list};
use super::{SORTED_PER_ROUND, Shard, Unsorted, letters};
use crate::engine::command::Followed;
use crate::engine::conversation::{Conversation, Reader, Seat, Stored};
use crate::engine::delivery::{self, Subscription};
use crate::engine::error::Error;
use crate::engine::heard::Heard;
use crate::engine::log::{self, Page};
use crate::engine::round::Round;
use crate::engine::settings::{Hears, Settings};
use crate::id::{ConversationKey, Sequence};
use crate::store::keys::Key;
use crate::store::{Durability, Order};

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
            self.reseat(slot, round);
            return Ok(slot);
        }
        let stored = Stored::read(&*self.shared.store, key)?;
        self.admit(key, stored, round)
    }

    /// Takes a conversation into memory: one that was read, or a new one.
    pub(super) fn admit(
        &mut self,
        key: &ConversationKey,
        stored: Stored,
        round: &mut Round,
    ) -> Result<usize, Error> {
        let seats = self.seats(key, &stored, round)?;
        self.residencies += 1;
        let slot = self.conversations.insert(Conversation {
            key: key.clone(),
            number: stored.number,
            start_time: stored.start_time,
            is_group: stored.is_group,
            reference: stored.reference,
            last: stored.last,
            durable: stored.last,
            first: stored.first,
            bucket: stored.bucket,
            last_change: stored.last_change,
            ended: stored.ended,
            bot_run: stored.bot_run,
            bot_handovers: stored.bot_handovers,
            vacant: stored.vacant,
            stamped: stored.newest_time,
            seats,
            feed: Weak::new(),
            known_members: Default::default(),
            scheduled: None,
            // A conversation that was let go with something unfinished has kept its mark.
            marked_live: stored
                .cursors
                .iter()
                .any(|(_, cursor)| cursor.finished < stored.last),
            dirty: false,
            newest: None,
            timer: None,
            touched: round.now,
            reloads: self.reloads,
            residency: self.residencies,
        });
        self.slots.insert(key.clone(), slot);
        self.shared.resident.fetch_add(1, Ordering::Relaxed);
        self.leaving.push_back((slot, self.residencies));
        for seat in 0..self.conversations[slot].seats.len() {
            let subscriber = self.conversations[slot].seats[seat].subscriber;
            self.subscribers[subscriber].queue.came_back(key);
            self.enqueue(slot, seat, Lane::Ready, round);
        }
        Ok(slot)
    }

    /// Those who read the conversation: by its stored cursors, and by what the configuration says
    /// now of its channel. Who joins so has seen everything up to now.
    fn seats(
        &mut self,
        key: &ConversationKey,
        stored: &Stored,
        round: &mut Round,
    ) -> Result<Vec<Seat>, Error> {
        let mut readers = stored.cursors.clone();
        let present = readers.iter().map(|(reader, _)| reader);
        let change = Readers::of(&self.settings, key, present, stored.vacant);
        if let Some(bot) = change.joins {
            list(key, stored.start_time, &bot, round);
            readers.push((Reader::Bot(bot), here_now(stored.last)));
        }
        match change.egress {
            Some(true) => readers.push((Reader::Egress, here_now(stored.last))),
            Some(false) => readers.retain(|(reader, _)| *reader != Reader::Egress),
            None => {}
        }
        // Who joins now has no cursor there yet.
        let heard = |reader: &Reader| {
            let noted = stored.heard.iter().find(|(noted, _)| noted == reader);
            let is_new = stored.cursors.iter().all(|(known, _)| known != reader);
            match noted {
                Some((_, heard)) => heard.clone(),
                None if is_new => Heard::after(stored.last),
                None => Heard::default(),
            }
        };
        let mut seats = Vec::with_capacity(readers.len());
        for (reader, cursor) in readers {
            let replays = match cursor.replays {
                true => letters::to_replay(&*self.shared.store, stored.number, &reader)?,
                false => VecDeque::new(),
            };
            let subscriber = self.subscriber(&reader.subscriber(key));
            let mut subscription = Subscription::new(cursor, stored.last, replays);
            if let Some(lease) = self.leases.take((stored.number, subscriber)) {
                subscription.resume_lease(lease);
            }
            seats.push(Seat {
                subscriber,
                heard: heard(&reader),
                reader,
                subscription,
                avoid: None,
                waits_until: None,
                untaken_since: None,
            });
        }
        Ok(seats)
    }

    /// Looks at some of the conversations that may have work.
    pub(super) fn sort(&mut self, round: &mut Round) {
        for _ in 0..SORTED_PER_ROUND.min(self.unsorted.len()) {
            let Some(unsorted) = self.unsorted.pop_front() else {
                return;
            };
            let (key, is_marked) = match unsorted {
                Unsorted::Marked(key) => (key, true),
                Unsorted::Dropped(key) => (key, false),
            };
            match self.resident(&key, round) {
                Ok(slot) => {
                    // Its mark is to be taken off even if all is finished, as after a crash.
                    self.conversations[slot].marked_live |= is_marked;
                    for seat in 0..self.conversations[slot].seats.len() {
                        self.enqueue(slot, seat, Lane::Ready, round);
                    }
                }
                // Its first write failed.
                Err(Error::ConversationUnknown(_)) => {}
                Err(error) => self.cannot_read(key, &error),
            }
        }
    }

    /// Notes that a conversation cannot be read now.
    pub(super) fn cannot_read(&mut self, key: ConversationKey, error: &Error) {
        error!(conversation.id = %key, %error, "a conversation cannot be read");
        self.unreadable.push(key);
    }

    /// The live end of a conversation, for a follower.
    pub(super) fn follow(
        &mut self,
        key: &ConversationKey,
        round: &mut Round,
    ) -> Result<Followed, Error> {
        let slot = self.resident(key, round)?;
        // What a follower is told to be settled must not turn back.
        if self.outcomes_may_be_lost || round.has_outcomes {
            self.touch(slot, round);
            round.must_be_durable();
        }
        let conversation = &mut self.conversations[slot];
        Ok(Followed {
            conversation: conversation.number,
            feed: conversation.feed(),
            first: conversation.first,
            last: conversation.last,
            settled: conversation.settled(),
        })
    }

    /// Lets conversations go that have had nothing to do for a while, or the ones looked at longest
    /// ago when there are too many. What waits for a subscriber without room goes, too: its place in
    /// the subscriber's queue brings it back.
    pub(super) fn let_go(&mut self, round: &mut Round) {
        let limits = &self.settings.limits;
        let (idle, most) = (limits.conversation_idle, limits.conversations_idle);
        let (lease_idle, most_leases) = (limits.lease_idle, limits.leases);
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
            for seat in &conversation.seats {
                let queue = &mut self.subscribers[seat.subscriber].queue;
                queue.left(&conversation.key, seat.backlog(conversation.last));
                let lease = seat.subscription.lease();
                if let Some(lease) = lease.filter(|held| self.attached.contains_key(&held.session))
                {
                    let until = lease.used.after(lease_idle);
                    let seat = (conversation.number, seat.subscriber);
                    self.leases.keep(seat, lease, until, most_leases);
                }
            }
            self.conversations.remove(slot);
            self.shared.resident.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Drops a conversation whose last write failed; it is read again.
    pub(super) fn forget(&mut self, slot: usize) {
        let grace = self.settings.limits.stream_grace;
        let until = self.shared.clock.now().after(grace);
        let conversation = self.conversations.remove(slot);
        self.shared.resident.fetch_sub(1, Ordering::Relaxed);
        for seat in &conversation.seats {
            for held in seat.subscription.held() {
                self.held.remove(&held.id);
                self.shared.held.fetch_sub(1, Ordering::Relaxed);
                self.streams.leave(&conversation.key, held.id, until);
                let Some(attached) = self.attached.get_mut(&held.session) else {
                    continue;
                };
                attached.held.remove(&held.id);
                // See `let_loose`. What bots were to get in the failed round is refunded with it.
                let entry = seat.subscription.entry_of(held.id);
                if let (Reader::Egress, Some(entry)) = (&seat.reader, entry) {
                    attached.session.refund(entry.activity.len());
                }
                if attached.is_draining && attached.held.is_empty() {
                    self.drained.push(Arc::clone(&attached.session));
                }
            }
        }
        if let Some(feed) = conversation.feed.upgrade() {
            feed.end();
        }
        self.slots.remove(&conversation.key);
        self.unsorted.push_back(Unsorted::Dropped(conversation.key));
    }

    /// Makes the last writes durable and takes the marks off all that is finished, so that the next
    /// open has nothing to look at.
    pub(super) fn leave(&mut self) {
        self.end_streams();
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
        // Even an empty batch makes durable what was only buffered.
        if let Err(failure) = self.shared.store.commit(round.batch, Durability::Synced) {
            warn!(shard = self.index, %failure, "the last write of a shard failed");
        }
    }

    /// Reads until a ready seat knows its next activity, or that there is none in the store.
    pub(super) fn fill(
        &mut self,
        slot: usize,
        seat: usize,
        round: &mut Round,
    ) -> Result<Filled, Error> {
        self.read_replay(slot, seat)?;
        self.read_on(slot, seat)?;
        let conversation = &mut self.conversations[slot];
        let (durable, last) = (conversation.durable, conversation.last);
        let subscription = &mut conversation.seats[seat].subscription;
        if subscription.next().is_some() {
            return Ok(Filled::Known);
        }
        if durable < last {
            return Ok(Filled::InThisRound);
        }
        subscription.nothing_waits(last);
        self.touch(slot, round);
        Ok(Filled::Nothing)
    }

    /// Reads the log until a seat knows something that no session has, or the log ends.
    pub(super) fn read_on(&mut self, slot: usize, seat: usize) -> Result<(), Error> {
        let conversation = &mut self.conversations[slot];
        let durable = conversation.durable;
        let taken = &mut conversation.seats[seat];
        while let Some(after) = taken.subscription.must_read_after(durable) {
            let entries = log::read(
                &*self.shared.store,
                conversation.number,
                after.next().max(conversation.first),
                durable,
                Order::Ascending,
                Page {
                    entries: delivery::WAITING_ENTRIES,
                    bytes: delivery::WAITING_BYTES,
                },
            )?;
            if entries.is_empty() {
                return Err(gap(&conversation.key, after));
            }
            for entry in &entries {
                let is_for_it = is_for(&self.settings, taken, entry);
                taken.subscription.learn(entry, is_for_it);
            }
        }
        Ok(())
    }
}

/// What a ready seat is found to have.
pub(super) enum Filled {
    /// Its next activity is known.
    Known,
    /// Nothing waits: it is idle now.
    Nothing,
    /// What may wait was appended in this round, and can be read after it.
    InThisRound,
}

/// Whether a reader is to be handed an entry.
///
/// Says the same whenever it is asked: it looks at nothing that changes while the entry waits, but for
/// the configuration.
pub(super) fn is_for(settings: &Settings, seat: &Seat, entry: &log::Entry) -> bool {
    let author = entry.author.bot();
    let Reader::Bot(bot) = &seat.reader else {
        return author.is_some();
    };
    if seat.heard.is_done(entry.sequence) {
        return false;
    }
    match author {
        None => true,
        // What a bot says is never told to itself, whichever way it said it.
        Some(author) => {
            author != bot
                && settings.hears(bot) == Hears::Everyone
                && entry.bot_run <= settings.limits.bot_run
        }
    }
}

fn gap(key: &ConversationKey, after: Sequence) -> Error {
    let what = format!("the log of `{key}` after sequence {after}");
    crate::store::Error::Corrupt { what }.into()
}
