//! The delivery state machine: how far one subscriber has got in one conversation.
//!
//! Pure: it is told what happened and when, and holds no store, no session and no clock. The shard
//! that owns the conversation drives it; `tests/model.rs` checks it against a simpler model.
//!
//! A session holds the first few of what waits, as many as its window allows, and finishes them in
//! order. What comes back takes along all that was handed over after it, so that what is handed over
//! next is again the oldest that is open.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::engine::log::Entry;
use crate::engine::session;
use crate::id::{DeliveryId, Fence, Sequence};

mod replay;
mod types;

pub use types::{Cursor, HandedOver, Held, Lease, Return};

pub use crate::limits::WAITING_ENTRIES;

/// Bytes of what waits in memory, as [`WAITING_ENTRIES`] bounds its number; the first that no session has is always kept, whatever its size.
pub const WAITING_BYTES: usize = 256 * 1024;

/// Where a subscriber stands in a conversation.
#[derive(Debug)]
pub struct Subscription {
    finished: Sequence,
    after_gap: bool,
    blocked: bool,
    /// Activities for this subscriber after `finished`, oldest first: every one of them up to
    /// `known_to`. The first `held.len()` are held, unless what is held is a replay.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    known_to: Sequence,
    /// What was counted of activities that are not in memory yet.
    unread: Attempts,
    /// Positions of dead letters that are to be handed over again, oldest first: before all else,
    /// between turns, and one at a time.
    replays: VecDeque<Sequence>,
    /// The first of `replays`, once it was read.
    replay: Option<Waiting>,
    /// What a session has, in order. All of it is of the lease's session.
    held: VecDeque<Held>,
    /// Nothing is handed over before then.
    rests_until: Option<Timestamp>,
    /// The session has released something, and keeps the lease only until it has finished what it
    /// holds.
    releasing: bool,
    idle: bool,
    lease: Option<Lease>,
}

/// An activity that is not finished.
#[derive(Debug)]
struct Waiting {
    entry: Arc<Entry>,
    /// How often it was handed out; the present time is among them.
    attempts: u32,
    /// A session had it and has given it back, whether that counts or not.
    was_out: bool,
}

#[derive(Debug, Default)]
struct Attempts {
    /// Of the first activity after `finished`.
    first: u32,
    later: Vec<(Sequence, u32)>,
}

impl Subscription {
    /// A subscription that stands at `cursor`, in a log whose newest activity is `last`. `replays` are
    /// the dead letters that are to be handed over again, oldest first.
    #[must_use]
    pub fn new(cursor: Cursor, last: Sequence, replays: VecDeque<Sequence>) -> Self {
        Self {
            finished: cursor.finished,
            after_gap: cursor.after_gap,
            blocked: cursor.blocked,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            known_to: cursor.finished,
            unread: Attempts {
                first: cursor.attempts,
                later: cursor.later_attempts,
            },
            idle: cursor.finished >= last && replays.is_empty(),
            replays,
            replay: None,
            held: VecDeque::new(),
            rests_until: None,
            releasing: false,
            lease: None,
        }
    }

    /// What is to be on disk.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let mut counted = self.waiting.iter().enumerate();
        let first = counted.next().map_or(self.unread.first, |(_, first)| {
            // What is handed out counts from then on, so that a crash counts.
            first.attempts
        });
        let is_replay = self.holds_replay();
        let later = counted.filter_map(|(index, waiting)| {
            // Of the others that are held, only what was counted before: what is in front of them is
            // to blame for a crash.
            let is_held = !is_replay && index < self.held.len();
            let attempts = waiting.attempts - u32::from(is_held);
            (attempts > 0).then_some((waiting.entry.sequence, attempts))
        });
        Cursor {
            finished: self.finished,
            attempts: first,
            after_gap: self.after_gap,
            blocked: self.blocked,
            replays: !self.replays.is_empty(),
            later_attempts: later.chain(self.unread.later.iter().copied()).collect(),
        }
    }

    /// Whether everything is finished.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// Whether something goes on that only memory knows of.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.held.is_empty() || self.rests_until.is_some()
    }

    /// Whether there is, or may be, something to hand over now, in a log that ends at `last`, to a
    /// session that takes up to `window` at a time.
    #[must_use]
    pub fn is_ready(&self, window: usize, last: Sequence) -> bool {
        if self.idle || self.rests_until.is_some() {
            return false;
        }
        if self.held.is_empty() {
            return !self.blocked || !self.replays.is_empty();
        }
        let has_room = self.held.len() < window && !self.releasing && !self.holds_replay();
        // A replay waits until the session has finished what it holds.
        has_room
            && self.replays.is_empty()
            && (self.waiting.len() > self.held.len() || self.known_to < last)
    }

    /// Whether nothing is handed over until someone deals with a dead letter.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// What a session has, in order.
    #[must_use]
    pub fn held(&self) -> &VecDeque<Held> {
        &self.held
    }

    /// Who last had the conversation.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// Takes up a lease from an earlier stay in memory.
    pub fn resume_lease(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// When time alone will change something.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        let deadlines = self.held.iter().filter_map(|held| held.deadline);
        deadlines.chain(self.rests_until).min()
    }

    /// The oldest activity that waits or is held, when it is in memory.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<Entry>> {
        self.waiting.front().map(|waiting| &waiting.entry)
    }

    /// The position of the oldest activity that a session has.
    #[must_use]
    pub fn first_held(&self) -> Option<Sequence> {
        let held = self.held.front()?;
        self.entry_of(held.id).map(|entry| entry.sequence)
    }

    /// What is handed over next, when it is in memory.
    #[must_use]
    pub fn next(&self) -> Option<&Arc<Entry>> {
        if self.is_next_a_replay() {
            return self.replay.as_ref().map(|waiting| &waiting.entry);
        }
        if self.blocked {
            return None;
        }
        self.waiting
            .get(self.held.len())
            .map(|waiting| &waiting.entry)
    }

    /// Which of those that are held a delivery is: 0 is the one that must be finished first.
    #[must_use]
    pub fn position(&self, id: DeliveryId) -> Option<usize> {
        self.held.iter().position(|held| held.id == id)
    }

    /// The activity of a delivery that is held.
    #[must_use]
    pub fn entry_of(&self, id: DeliveryId) -> Option<&Arc<Entry>> {
        let position = self.position(id)?;
        self.held_waiting(position).map(|waiting| &waiting.entry)
    }

    /// How often the activity that a session has at `position` was handed out.
    #[must_use]
    pub fn attempts(&self, position: usize) -> u32 {
        self.held_waiting(position)
            .map_or(0, |waiting| waiting.attempts)
    }

    /// How often the oldest activity that waits or is held was handed out.
    #[must_use]
    pub fn first_attempts(&self) -> u32 {
        let first = self.waiting.front();
        first.map_or(0, |waiting| waiting.attempts)
    }

    /// Whether something was skipped since the last ack.
    #[must_use]
    pub fn is_after_gap(&self) -> bool {
        self.after_gap
    }

    /// Activities that may wait for this subscriber, in a log that ends at `last`: those it knows
    /// and all it has not looked at.
    #[must_use]
    pub fn undelivered(&self, last: Sequence) -> u64 {
        (self.waiting.len() + self.replays.len()) as u64 + (last.0 - self.known_to.0)
    }

    /// Where to go on reading the log, when nothing more is known to wait but the log goes on to
    /// `last`.
    #[must_use]
    pub fn must_read_after(&self, last: Sequence) -> Option<Sequence> {
        // Not for a replay's sake; but what blocks can be dropped while replays wait.
        let is_needed = !self.is_next_a_replay() || self.blocked;
        (is_needed && self.has_handed_all() && self.known_to < last).then_some(self.known_to)
    }

    /// Learns of the activity after the last one it knows of: just appended, or read from the log.
    /// Activities further on are ignored; they will be read when their turn comes.
    ///
    /// Returns whether the subscription has work by it that it had not.
    pub fn learn(&mut self, entry: &Arc<Entry>, is_for_it: bool) -> bool {
        let room = self.has_handed_all()
            || (self.waiting.len() < WAITING_ENTRIES
                && self.waiting_bytes + entry.activity.len() <= WAITING_BYTES);
        if entry.sequence == self.known_to.next() && (!is_for_it || room) {
            self.known_to = entry.sequence;
            if is_for_it {
                self.waiting_bytes += entry.activity.len();
                let attempts = self.counted(entry.sequence);
                let entry = Arc::clone(entry);
                self.waiting.push_back(Waiting {
                    entry,
                    attempts,
                    was_out: false,
                });
            }
        }
        if !self.idle {
            // With room in the window what has come can follow what is held.
            return is_for_it && !self.held.is_empty();
        }
        if is_for_it {
            self.idle = false;
            return true;
        }
        // Idle means that everything before was finished, so this one is too.
        self.finished = entry.sequence;
        false
    }

    /// Notes that the log was read to its end, `last`, and that nothing there is for this subscriber.
    pub fn nothing_waits(&mut self, last: Sequence) {
        self.known_to = last;
        self.unread = Attempts::default();
        if self.waiting.is_empty() {
            self.finished = last;
            self.blocked = false;
        }
        self.settle(last);
    }

    /// Hands the next activity to a session.
    ///
    /// # Panics
    ///
    /// When the subscription is not ready, its next activity is not in memory, or another session
    /// holds something.
    pub fn hand_over(
        &mut self,
        session: session::Number,
        id: DeliveryId,
        now: Timestamp,
        deadline: Option<Timestamp>,
    ) -> HandedOver<'_> {
        assert!(
            self.rests_until.is_none() && !self.idle,
            "only what is ready is handed over"
        );
        assert!(
            self.held.front().is_none_or(|held| held.session == session),
            "one session at a time holds a conversation"
        );
        let fence = match self.lease {
            Some(lease) if lease.session == session => lease.fence,
            // Delivery ids only grow, so the first of a lease is a fence above all earlier ones.
            Some(_) | None => Fence(id.0),
        };
        let used = now;
        self.lease = Some(Lease {
            session,
            fence,
            used,
        });
        let replay = self.is_next_a_replay();
        // What is counted, or blocked, is then right after what is finished, wherever it is read again.
        self.finished = self.all_before_the_next();
        let next = match replay {
            true => self.replay.as_mut(),
            false => self.waiting.get_mut(self.held.len()),
        };
        let next = next.expect("a ready subscription was filled before");
        next.attempts = next.attempts.saturating_add(1);
        self.held.push_back(Held {
            id,
            session,
            deadline,
            since: now,
            replay,
        });
        HandedOver {
            entry: &next.entry,
            fence,
            attempt: next.attempts,
        }
    }

    /// Moves the deadline of a held delivery, never beyond `ceiling` after its hand-over.
    pub fn extend(&mut self, id: DeliveryId, deadline: Timestamp, ceiling: Duration) {
        let held = self.held.iter_mut().find(|held| held.id == id);
        if let Some(held) = held.filter(|held| held.deadline.is_some()) {
            held.deadline = Some(deadline.min(held.since.after(ceiling)));
        }
    }

    /// Finishes the delivery that must be finished first, unless it is a replay.
    pub fn finish(&mut self, now: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.used = now;
        }
        self.after_gap = false;
        self.advance();
    }

    /// Gives up on the oldest activity, whether it is held or not: the next delivery says that there is
    /// a gap.
    pub fn skip(&mut self) {
        self.after_gap = true;
        self.advance();
    }

    /// Goes over the next activity, which is not for any session: it is finished with what is before it.
    ///
    /// # Panics
    ///
    /// When what is next is not in memory, or is a replay.
    pub fn pass(&mut self) {
        assert!(!self.is_next_a_replay(), "a dead letter stays one");
        let passed = self.waiting.remove(self.held.len());
        let passed = passed.expect("what is passed was waiting");
        self.waiting_bytes -= passed.entry.activity.len();
        self.finished = self.all_before_the_next();
    }

    /// Holds everything up behind the oldest activity, which no session has any more.
    pub fn block(&mut self) {
        debug_assert!(self.held.is_empty() || self.holds_replay());
        self.blocked = true;
    }

    /// Lets what was blocked be tried again, from its first attempt.
    pub fn unblock(&mut self) {
        self.blocked = false;
        match self.waiting.front_mut() {
            Some(first) => first.attempts = 0,
            None => {
                self.unread.first = 0;
                let first = self.finished.next();
                self.unread.later.retain(|(later, _)| *later != first);
            }
        }
    }

    /// Takes back the delivery at `position`, and all that were handed over after it: those count no
    /// attempt. Returns what the session does not hold any more.
    pub fn give_back(&mut self, position: usize, why: Return) -> VecDeque<Held> {
        let counts = match why {
            Return::Lost | Return::Retry { .. } => position,
            Return::Unseen | Return::Release => usize::MAX,
        };
        for index in position..self.held.len() {
            if let Some(waiting) = self.held_waiting_mut(index) {
                waiting.was_out = true;
                waiting.attempts -= u32::from(index != counts);
            }
        }
        let back = self.held.split_off(position);
        match why {
            Return::Lost | Return::Unseen => {}
            Return::Retry { until } => self.rests_until = Some(until),
            Return::Release => self.releasing = true,
        }
        self.end_release();
        back
    }

    /// Lets what is ready wait until then.
    pub fn rest(&mut self, until: Timestamp) {
        self.rests_until = Some(until);
    }

    /// When a rest ends, if there is one.
    #[must_use]
    pub fn rests_until(&self) -> Option<Timestamp> {
        self.rests_until
    }

    /// Ends a rest.
    pub fn rested(&mut self) {
        self.rests_until = None;
    }

    /// Lets go of what waits and is not held: it has changed, and is read from the log again.
    pub fn reread(&mut self) {
        if self.idle {
            return;
        }
        let held = match self.holds_replay() {
            true => 0,
            false => {
                self.reread_replay();
                self.held.len()
            }
        };
        let loose = self.waiting.split_off(held);
        let counted = loose.iter().filter(|waiting| waiting.attempts > 0);
        let counted = counted.map(|waiting| (waiting.entry.sequence, waiting.attempts));
        self.unread.later.splice(..0, counted);
        let bytes = loose.iter().map(|waiting| waiting.entry.activity.len());
        self.waiting_bytes -= bytes.sum::<usize>();
        let kept = self.waiting.back().map(|waiting| waiting.entry.sequence);
        self.known_to = kept.unwrap_or(self.finished);
    }

    /// Notes that retention has removed everything before `first`.
    pub fn forget_before(&mut self, first: Sequence) {
        self.forget_replays(|letter| letter < first);
        if self.finished.next() >= first {
            return;
        }
        if let Some(next) = self.first()
            && next.sequence >= first
        {
            // Nothing of what was removed was for this subscriber, so nothing else changes.
            self.finished = next.sequence.previous();
            return;
        }
        debug_assert!(
            self.held.is_empty() || self.holds_replay(),
            "what is held is kept"
        );
        while let Some(oldest) = self.waiting.front()
            && oldest.entry.sequence < first
        {
            self.waiting_bytes -= oldest.entry.activity.len();
            self.waiting.pop_front();
        }
        self.unread.first = 0;
        self.unread.later.retain(|(sequence, _)| *sequence >= first);
        self.known_to = self.known_to.max(first.previous());
        self.finished = self.all_before_the_next();
        self.after_gap = true;
        self.blocked = false;
        if !self.holds_replay() {
            self.rests_until = None;
        }
    }

    /// Goes idle when everything up to `last` is known and none of it waits.
    ///
    /// Returns whether there is, or may be, more to do.
    pub fn settle(&mut self, last: Sequence) -> bool {
        if self.waiting.is_empty() && self.replays.is_empty() && self.known_to >= last {
            self.idle = true;
            self.rests_until = None;
            self.finished = self.known_to;
        }
        !self.idle
    }

    fn advance(&mut self) {
        // A replay has an end of its own.
        if !self.holds_replay() {
            self.held.pop_front();
        }
        let done = self.waiting.pop_front();
        let done = done.expect("what is finished or skipped was waiting");
        self.waiting_bytes -= done.entry.activity.len();
        self.unread.first = 0;
        self.blocked = false;
        self.finished = self.all_before_the_next();
        self.end_release();
    }

    /// A session that has released something keeps the conversation while it holds some of it.
    fn end_release(&mut self) {
        if self.releasing && self.held.is_empty() {
            self.releasing = false;
            self.lease = None;
        }
    }

    /// How often an activity was handed out, when it comes into memory.
    fn counted(&mut self, sequence: Sequence) -> u32 {
        if self.waiting.is_empty() && self.unread.first > 0 {
            return std::mem::take(&mut self.unread.first);
        }
        let later = &mut self.unread.later;
        later.retain(|(other, _)| *other >= sequence);
        match later.first() {
            Some(&(first, attempts)) if first == sequence => {
                later.remove(0);
                attempts
            }
            _ => 0,
        }
    }

    /// How far there is nothing left for this subscriber.
    fn all_before_the_next(&self) -> Sequence {
        match self.waiting.front() {
            Some(next) => next.entry.sequence.previous(),
            // Nothing that it knows of waits.
            None => self.known_to,
        }
    }

    /// Whether all that is known to wait is held.
    fn has_handed_all(&self) -> bool {
        let held = if self.holds_replay() {
            0
        } else {
            self.held.len()
        };
        self.waiting.len() == held
    }

    fn held_waiting(&self, position: usize) -> Option<&Waiting> {
        match self.holds_replay() {
            true => self.replay.as_ref().filter(|_| position == 0),
            false => self
                .waiting
                .get(position)
                .filter(|_| position < self.held.len()),
        }
    }

    fn held_waiting_mut(&mut self, position: usize) -> Option<&mut Waiting> {
        match self.holds_replay() {
            true => self.replay.as_mut().filter(|_| position == 0),
            false => self.waiting.get_mut(position),
        }
    }
}
