//! What one reader of one conversation was told, and whether it may have been.
//!
//! The oracle hears what is put on every stream, whether its client reads it or not, and knows what
//! clients have sent. It keeps no cursor and no queue of its own: each rule stands by itself.

use std::collections::{BTreeMap, BTreeSet};

use turnwire::clock::Timestamp;
use turnwire::engine::session::{Delivery, Number};
use turnwire::id::{DeliveryId, Fence};

/// Things that happened to the gateway as a whole, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Harm {
    /// Writes were told to fail, or it was restarted.
    pub(crate) faults: u64,
    /// Restarts that lost what was not synced.
    pub(crate) losses: u64,
}

/// One reader's place in one conversation.
#[derive(Default)]
pub(crate) struct Seat {
    pub(crate) turns: BTreeMap<u64, Turn>,
    /// Sequences that are for it, as far as anyone was told.
    pub(crate) meant: BTreeSet<u64>,
    /// Sequences that a session with selectors need not take.
    pub(crate) optional: BTreeSet<u64>,
    newest: Option<Newest>,
    /// The one that it cannot take, which is parked, durably, and blocks until someone deals with it.
    pub(crate) blocked: Option<u64>,
    /// What was skipped, durably, since the last delivery.
    pub(crate) gap_due: Option<Harm>,
}

struct Newest {
    id: DeliveryId,
    fence: Fence,
    session: Number,
    epoch: u32,
}

/// What is known of one activity.
#[derive(Default)]
pub(crate) struct Turn {
    /// Its newest delivery.
    pub(crate) id: Option<DeliveryId>,
    session: Option<Number>,
    pub(crate) attempt: u32,
    deadline: Option<Timestamp>,
    harm: Harm,
    /// Someone asked for another attempt of the newest delivery.
    pub(crate) retried: bool,
    /// The newest delivery was given back, and the client was told so.
    pub(crate) given_back: bool,
    /// Its holder has said that it is done.
    pub(crate) maybe_done: bool,
    /// Its holder was told that this is durable; or an operator that it is dropped.
    pub(crate) done: bool,
    /// A client said that it can never be taken.
    pub(crate) poisoned: bool,
    /// It was handed out as often as may be.
    pub(crate) exhausted: bool,
    /// An operator asked for it to be handed over again.
    pub(crate) replay: bool,
    /// It counts from the beginning again.
    pub(crate) anew: bool,
}

impl Turn {
    /// Whether those behind it need not wait for it.
    fn may_be_over(&self) -> bool {
        self.maybe_done || self.done || self.poisoned || self.exhausted
    }
}

/// What a delivery is judged by, besides what is known of its seat.
pub(crate) struct Circumstances {
    pub(crate) session: Number,
    pub(crate) window: usize,
    pub(crate) epoch: u32,
    pub(crate) harm: Harm,
    /// The latest time there has been.
    pub(crate) latest: Timestamp,
    /// The oldest activity that is kept.
    pub(crate) first: u64,
    /// A session with selectors was there.
    pub(crate) choosy: bool,
    /// Attempts have an end.
    pub(crate) most_attempts: Option<u32>,
}

impl Seat {
    pub(crate) fn turn(&mut self, sequence: u64) -> &mut Turn {
        self.turns.entry(sequence).or_default()
    }

    /// Whether a delivery is the newest of its activity.
    pub(crate) fn is_newest(&self, sequence: u64, id: DeliveryId) -> bool {
        self.turns
            .get(&sequence)
            .is_some_and(|turn| turn.id == Some(id))
    }

    /// Whether nothing was delivered after it.
    pub(crate) fn is_last(&self, id: DeliveryId) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.id == id)
    }

    /// Judges a delivery. They come here in the order in which they were made.
    pub(crate) fn delivered(&mut self, delivery: &Delivery, now: &Circumstances) {
        let (id, sequence) = (delivery.id, delivery.sequence.0);
        if let Some(newest) = &self.newest {
            assert!(id > newest.id, "delivery ids grow");
            assert!(delivery.fence >= newest.fence, "fences grow");
            let moved = (now.session, now.epoch) != (newest.session, newest.epoch);
            assert!(
                !moved || delivery.fence > newest.fence,
                "a new holder has a new fence"
            );
        }
        self.newest = Some(Newest {
            id,
            fence: delivery.fence,
            session: now.session,
            epoch: now.epoch,
        });
        let turn = self.turn(sequence);
        assert!(!turn.done, "{sequence} is done, and comes again");
        if delivery.replay {
            assert!(turn.replay, "{sequence} is replayed, and nobody asked");
        } else {
            // What is removed blocks no more.
            let blocks = self.blocked.is_some_and(|parked| parked >= now.first);
            assert!(!blocks, "{sequence} comes while its bot blocks");
            if let Some(since) = self.gap_due.take() {
                assert!(
                    delivery.after_gap || since != now.harm,
                    "the gap before {sequence} is not told"
                );
            }
            self.check_order(sequence, now);
            self.check_window(sequence, now);
            self.check_attempt(delivery, now);
        }
        let turn = self.turn(sequence);
        turn.id = Some(id);
        turn.session = Some(now.session);
        turn.attempt = delivery.attempt;
        turn.deadline = delivery.deadline;
        turn.harm = now.harm;
        turn.retried = false;
        turn.given_back = false;
        turn.anew = false;
        turn.exhausted |= now
            .most_attempts
            .is_some_and(|most| delivery.attempt >= most);
        self.meant.insert(sequence);
    }

    /// Everything before it is done, or in the hands of the same session.
    fn check_order(&self, sequence: u64, now: &Circumstances) {
        for &earlier in self.meant.range(now.first..sequence) {
            let turn = self.turns.get(&earlier);
            let is_over = turn.is_some_and(Turn::may_be_over);
            let passed = self.may_pass(earlier, now);
            let is_held =
                turn.is_some_and(|turn| turn.session == Some(now.session) && !turn.given_back);
            assert!(
                is_over || passed || is_held,
                "{sequence} comes before {earlier}, which is open"
            );
        }
    }

    /// No session has more of a conversation than its window. What comes after this one was taken back.
    fn check_window(&self, sequence: u64, now: &Circumstances) {
        let is_surely_held = |turn: &Turn| {
            turn.session == Some(now.session)
                && turn.harm == now.harm
                && turn.deadline.is_none_or(|at| at > now.latest)
                && !(turn.may_be_over() || turn.retried || turn.given_back)
        };
        let earlier = self.turns.range(now.first..sequence);
        let held = earlier
            .filter(|(earlier, turn)| is_surely_held(turn) && !self.may_pass(**earlier, now));
        let held = held.count();
        assert!(
            held < now.window,
            "{sequence} comes beyond a window of {}, after {held}",
            now.window
        );
    }

    /// Whether an activity may have been one that no session takes.
    fn may_pass(&self, sequence: u64, now: &Circumstances) -> bool {
        now.choosy && self.optional.contains(&sequence)
    }

    /// What counts an attempt does, and nothing else does.
    fn check_attempt(&self, delivery: &Delivery, now: &Circumstances) {
        let sequence = delivery.sequence.0;
        let turn = &self.turns[&sequence];
        let (before, attempt) = (turn.attempt, delivery.attempt);
        assert!(attempt > 0, "attempts are counted from 1");
        if turn.anew || turn.replay {
            return;
        }
        if turn.harm.losses == now.harm.losses {
            let least = before + u32::from(turn.retried && turn.given_back);
            assert!(
                attempt >= least,
                "attempt {attempt} of {sequence} after {before}"
            );
        }
        if turn.harm == now.harm {
            let mut earlier = self.turns.range(now.first..sequence);
            let was_first =
                earlier.all(|(earlier, turn)| turn.may_be_over() || self.may_pass(*earlier, now));
            let overdue = turn.deadline.is_some_and(|at| at <= now.latest);
            let may_count = before == 0 || was_first || turn.retried || overdue;
            let most = before + u32::from(may_count);
            assert!(
                attempt <= most,
                "attempt {attempt} of {sequence} after {before}, which nothing has counted"
            );
        }
    }

    /// Its holder is told that what it did with a delivery is durable.
    pub(crate) fn done(&mut self, sequence: u64, id: DeliveryId) {
        assert!(
            self.is_newest(sequence, id),
            "{id} of {sequence} is not its newest delivery, and was taken"
        );
        self.turn(sequence).done = true;
    }
}
