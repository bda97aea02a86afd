//! The delivery state machine: how far one subscriber has got in one conversation.
//!
//! Pure: it is told what happened and when, and holds no store, no session and no clock. The shard
//! that owns the conversation drives it; `tests/model.rs` checks it against a simpler model.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::engine::log::Entry;
use crate::engine::session;
use crate::id::{DeliveryId, Fence, Sequence};

/// Activities of one conversation that wait in memory for one subscriber; the rest stay in the log.
pub const WAITING_ENTRIES: usize = 32;
/// The same in bytes; the first is always kept, whatever its size.
pub const WAITING_BYTES: usize = 256 * 1024;

/// Where a subscriber stands in a conversation.
#[derive(Debug)]
pub struct Subscription {
    cursor: Cursor,
    /// Activities for this subscriber after `cursor.finished`, oldest first: every one of them up
    /// to `known_to`. The first is the one that is held, resting or ready.
    waiting: VecDeque<Arc<Entry>>,
    waiting_bytes: usize,
    known_to: Sequence,
    state: State,
    lease: Option<Lease>,
}

/// The part of a subscription that is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything up to here is finished, or not for this subscriber.
    pub finished: Sequence,
    /// How often the activity after `finished` was handed out.
    pub attempts: u32,
    /// An activity was skipped since the last one that was acked.
    pub after_gap: bool,
}

/// What a subscription is doing, in the usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has seen everything there is.
    Idle,
    /// It has work and waits for a session with room.
    Ready,
    /// A session has its first waiting activity.
    Held(Held),
    /// Its first waiting activity was given back, to be tried again later.
    Resting {
        /// When it is ready again.
        until: Timestamp,
    },
}

/// A delivery that a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The delivery.
    pub id: DeliveryId,
    /// Who has it.
    pub session: session::Number,
    /// When it is taken back; `None` while the session lives.
    pub deadline: Option<Timestamp>,
    /// When it was handed over; extensions are bounded from here.
    pub since: Timestamp,
}

/// A session's hold on a conversation, which outlives single deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has it.
    pub session: session::Number,
    /// Grows with every new lease of the conversation.
    pub fence: Fence,
}

/// Why a delivery came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Its session is gone, or its deadline has passed: ready at once.
    Lost,
    /// The session asked for another attempt then.
    Retry {
        /// When it is ready again.
        until: Timestamp,
    },
    /// The session does not want it: ready at once, the attempt does not count, the lease ends.
    Release,
}

impl Subscription {
    /// A subscription that stands at `cursor`, in a log whose newest activity is `last`.
    #[must_use]
    pub fn new(cursor: Cursor, last: Sequence) -> Self {
        let state = if cursor.finished < last {
            State::Ready
        } else {
            State::Idle
        };
        Self {
            cursor,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            known_to: cursor.finished,
            state,
            lease: None,
        }
    }

    /// What is to be on disk.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The delivery a session has, if one has.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        match self.state {
            State::Held(held) => Some(held),
            State::Idle | State::Ready | State::Resting { .. } => None,
        }
    }

    /// Who last had the conversation.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// When time alone will change the state.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Held(held) => held.deadline,
            State::Resting { until } => Some(until),
            State::Idle | State::Ready => None,
        }
    }

    /// The oldest activity that waits, when it is in memory.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<Entry>> {
        self.waiting.front()
    }

    /// Activities that may wait for this subscriber, in a log that ends at `last`: those it knows
    /// and all it has not looked at.
    #[must_use]
    pub fn undelivered(&self, last: Sequence) -> u64 {
        self.waiting.len() as u64 + (last.0 - self.known_to.0)
    }

    /// Where to go on reading the log, when nothing is known to wait but the log goes on to `last`.
    #[must_use]
    pub fn must_read_after(&self, last: Sequence) -> Option<Sequence> {
        (self.waiting.is_empty() && self.known_to < last).then_some(self.known_to)
    }

    /// Learns of the activity after the last one it knows of: just appended, or read from the log.
    /// Activities further on are ignored; they will be read when their turn comes.
    ///
    /// Returns whether the subscription has become ready by it.
    pub fn learn(&mut self, entry: &Arc<Entry>, is_for_it: bool) -> bool {
        let room = self.waiting.is_empty()
            || (self.waiting.len() < WAITING_ENTRIES
                && self.waiting_bytes + entry.activity.len() <= WAITING_BYTES);
        if entry.sequence == self.known_to.next() && (!is_for_it || room) {
            self.known_to = entry.sequence;
            if is_for_it {
                self.waiting_bytes += entry.activity.len();
                self.waiting.push_back(Arc::clone(entry));
            }
        }
        if self.state != State::Idle {
            return false;
        }
        if is_for_it {
            self.state = State::Ready;
            return true;
        }
        // Idle means that everything before was finished, so this one is too.
        self.cursor.finished = entry.sequence;
        false
    }

    /// Notes that the log was read to its end, `last`, and that nothing there is for this subscriber.
    pub fn nothing_waits(&mut self, last: Sequence) {
        assert!(self.waiting.is_empty() && self.held().is_none());
        self.known_to = last;
        self.cursor.finished = last;
        self.state = State::Idle;
    }

    /// Hands the oldest waiting activity to a session.
    ///
    /// # Panics
    ///
    /// When the subscription is not ready, or its first activity is not in memory.
    pub fn hand_over(
        &mut self,
        session: session::Number,
        id: DeliveryId,
        now: Timestamp,
        deadline: Option<Timestamp>,
    ) -> (&Arc<Entry>, Fence) {
        assert_eq!(
            self.state,
            State::Ready,
            "only what is ready is handed over"
        );
        let fence = match self.lease {
            Some(lease) if lease.session == session => lease.fence,
            // Delivery ids only grow, so the first of a lease is a fence above all earlier ones.
            Some(_) | None => Fence(id.0),
        };
        self.lease = Some(Lease { session, fence });
        self.cursor.attempts = self.cursor.attempts.saturating_add(1);
        self.state = State::Held(Held {
            id,
            session,
            deadline,
            since: now,
        });
        let entry = self.waiting.front();
        (
            entry.expect("a ready subscription was filled before"),
            fence,
        )
    }

    /// Moves the deadline of the held delivery, never beyond `ceiling` after its hand-over.
    pub fn extend(&mut self, deadline: Timestamp, ceiling: std::time::Duration) {
        if let State::Held(held) = &mut self.state
            && held.deadline.is_some()
        {
            held.deadline = Some(deadline.min(held.since.after(ceiling)));
        }
    }

    /// Finishes the held delivery.
    pub fn finish(&mut self) {
        self.cursor.after_gap = false;
        self.advance();
    }

    /// Gives up on the oldest waiting activity: the next delivery says that there is a gap.
    pub fn skip(&mut self) {
        self.cursor.after_gap = true;
        self.advance();
    }

    /// Takes the held delivery back.
    pub fn give_back(&mut self, why: Return) {
        debug_assert!(self.held().is_some());
        match why {
            Return::Lost => self.state = State::Ready,
            Return::Retry { until } => self.state = State::Resting { until },
            Return::Release => {
                self.cursor.attempts = self.cursor.attempts.saturating_sub(1);
                self.lease = None;
                self.state = State::Ready;
            }
        }
    }

    /// Lets what is ready wait until then.
    pub fn rest(&mut self, until: Timestamp) {
        debug_assert_eq!(self.state, State::Ready);
        self.state = State::Resting { until };
    }

    /// Ends a rest.
    pub fn rested(&mut self) {
        debug_assert!(matches!(self.state, State::Resting { .. }));
        self.state = State::Ready;
    }

    /// Lets go of what waits and is not held: it has changed, and is read from the log again.
    pub fn reread(&mut self) {
        if self.state == State::Idle {
            return;
        }
        self.waiting.truncate(usize::from(self.held().is_some()));
        self.waiting_bytes = self.waiting.iter().map(|entry| entry.activity.len()).sum();
        let kept = self.waiting.back().map(|entry| entry.sequence);
        self.known_to = kept.unwrap_or(self.cursor.finished);
    }

    /// Notes that retention has removed everything before `first`.
    pub fn forget_before(&mut self, first: Sequence) {
        if self.cursor.finished.next() >= first {
            return;
        }
        if let Some(next) = self.waiting.front()
            && next.sequence >= first
        {
            // Nothing of what was removed was for this subscriber, so nothing else changes.
            self.cursor.finished = next.sequence.previous();
            return;
        }
        debug_assert!(self.held().is_none(), "what is held is kept");
        while let Some(entry) = self.waiting.front()
            && entry.sequence < first
        {
            self.waiting_bytes -= entry.activity.len();
            self.waiting.pop_front();
        }
        self.known_to = self.known_to.max(first.previous());
        self.cursor = Cursor {
            finished: self.all_before_the_next(),
            attempts: 0,
            after_gap: true,
        };
        self.state = State::Ready;
    }

    fn advance(&mut self) {
        let done = self.waiting.pop_front();
        let done = done.expect("what is finished or skipped was waiting");
        self.waiting_bytes -= done.activity.len();
        self.cursor.attempts = 0;
        self.cursor.finished = self.all_before_the_next();
        self.state = State::Ready;
    }

    /// How far there is nothing left for this subscriber.
    fn all_before_the_next(&self) -> Sequence {
        match self.waiting.front() {
            Some(next) => next.sequence.previous(),
            // Nothing that it knows of waits.
            None => self.known_to,
        }
    }

    /// Goes idle when everything up to `last` is known and none of it waits.
    ///
    /// Returns whether there is, or may be, more to do.
    pub fn settle(&mut self, last: Sequence) -> bool {
        if self.state == State::Ready && self.waiting.is_empty() && self.known_to >= last {
            self.state = State::Idle;
        }
        self.state != State::Idle
    }
}
