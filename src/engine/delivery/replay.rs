//! Dead letters that are handed over again: before all else, between turns, and one at a time.

use std::sync::Arc;

use super::{Subscription, Waiting};
use crate::engine::log::Entry;
use crate::id::Sequence;

impl Subscription {
    /// Whether what is held is a dead letter that is handed over again.
    #[must_use]
    pub fn holds_replay(&self) -> bool {
        self.held.front().is_some_and(|held| held.replay)
    }

    /// Whether what is handed over next is a dead letter once more.
    #[must_use]
    pub fn is_next_a_replay(&self) -> bool {
        self.held.is_empty() && !self.replays.is_empty()
    }

    /// Whether what is handed over next was with a session before.
    #[must_use]
    pub fn was_next_out(&self) -> bool {
        let next = self.waiting.get(self.held.len());
        next.is_some_and(|next| next.was_out || next.attempts > 0)
    }

    /// The position of a dead letter that is to be read, to be handed over next.
    #[must_use]
    pub fn must_read_replay(&self) -> Option<Sequence> {
        let is_next = self.held.is_empty() && self.replay.is_none();
        self.replays.front().copied().filter(|_| is_next)
    }

    /// Learns of the dead letter that [`must_read_replay`](Self::must_read_replay) asked for, and how
    /// often it was handed out since it was asked for; `None` when it is gone.
    pub fn learn_replay(&mut self, letter: Option<(Arc<Entry>, u32)>) {
        match letter {
            Some((entry, attempts)) => {
                self.replay = Some(Waiting {
                    entry,
                    attempts,
                    was_out: false,
                });
            }
            None => drop(self.replays.pop_front()),
        }
    }

    /// Whether an activity is still to be handed over, or held: neither finished nor parked.
    #[must_use]
    pub fn is_open(&self, entry: Sequence) -> bool {
        let is_ahead = entry > self.finished && !self.is_blocked_by(entry);
        is_ahead || self.is_to_replay(entry)
    }

    /// Whether an activity is the dead letter that holds up those behind it.
    #[must_use]
    pub fn is_blocked_by(&self, letter: Sequence) -> bool {
        self.blocked && letter == self.finished.next()
    }

    /// The dead letters that are to be handed over again, oldest first; the first may be held.
    #[must_use]
    pub fn replays(&self) -> std::collections::VecDeque<Sequence> {
        self.replays.clone()
    }

    /// The position of the dead letter that is handed over again, or is the next to be.
    #[must_use]
    pub fn replaying(&self) -> Option<Sequence> {
        self.replays.front().copied()
    }

    /// Whether a dead letter is to be handed over again already.
    #[must_use]
    pub fn is_to_replay(&self, letter: Sequence) -> bool {
        // The first may have been asked for before those that are earlier. The others are in order.
        let (front, back) = self.replays.as_slices();
        let later = front.get(1..).unwrap_or_default();
        let has = |letters: &[Sequence]| letters.binary_search(&letter).is_ok();
        self.replaying() == Some(letter) || has(later) || has(back)
    }

    /// Ends the replay of the first of the dead letters that were asked for, held or not.
    pub fn end_replay(&mut self) {
        if self.holds_replay() {
            self.held.pop_front();
        }
        self.replays.pop_front();
        self.replay = None;
        self.end_release();
    }

    /// Asks for dead letters to be handed over again, oldest first. Those that are asked for already
    /// stay where they are.
    pub fn replay(&mut self, letters: impl IntoIterator<Item = Sequence>) {
        for letter in letters {
            if !self.is_to_replay(letter) {
                // The first may be read already, or held.
                let fixed = usize::from(self.replay.is_some());
                let later = self.replays.iter().skip(fixed);
                let at = later.take_while(|other| **other < letter).count();
                self.replays.insert(fixed + at, letter);
            }
        }
        self.idle &= self.replays.is_empty();
    }

    /// Lets go of the next one, which no session has: it is read again.
    pub(super) fn reread_replay(&mut self) {
        self.replay = None;
        self.replays.make_contiguous().sort_unstable();
    }

    /// Takes back dead letters that were to be handed over again, but none that is held.
    pub fn forget_replays(&mut self, is_gone: impl Fn(Sequence) -> bool) {
        let held = self
            .replays
            .front()
            .copied()
            .filter(|_| self.holds_replay());
        self.replays
            .retain(|letter| held == Some(*letter) || !is_gone(*letter));
        let first = self.replays.front();
        self.replay
            .take_if(|replay| Some(&replay.entry.sequence) != first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::delivery::Cursor;

    fn at(blocked: bool, replays: &[u64]) -> Subscription {
        let cursor = Cursor {
            finished: Sequence(5),
            blocked,
            ..Cursor::default()
        };
        let replays = replays.iter().copied().map(Sequence).collect();
        Subscription::new(cursor, Sequence(7), replays)
    }

    #[test]
    fn what_is_ahead_or_replayed_is_open_and_what_blocks_is_not() {
        let open = |subscription: &Subscription| -> Vec<u64> {
            let all = (1..=7).filter(|number| subscription.is_open(Sequence(*number)));
            all.collect()
        };
        assert_eq!(open(&at(false, &[])), [6, 7]);
        assert_eq!(open(&at(false, &[3])), [3, 6, 7]);
        assert_eq!(open(&at(true, &[])), [7]);
        assert_eq!(open(&at(true, &[6])), [6, 7]);
    }
}
