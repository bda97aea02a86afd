//! What a bot was handed of a log that its cursor alone does not say.
//!
//! A cursor says one thing: all before it is finished. That is enough for a bot that took part from one
//! place on. One that takes part already, and is handed over what another bot had not finished of the
//! time before, goes back to there; what it has finished itself is noted here, and does not come again. What
//! one has finished whose place it took counts as its own.
//!
//! Pure, as the delivery state machine is.

use crate::id::Sequence;
use crate::store::record::Span;

/// Most spans that are noted for a bot. Each takes a hand-over to a bot that has not yet come past what it
/// got by the one before. What is beyond comes again, which at least once allows.
const SPANS: usize = 64;

/// From where on a bot hears a conversation, and what it has finished beyond its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Everything after this was, or will be, handed to it, or was to one whose place it took.
    pub since: Sequence,
    /// What is finished beyond the cursor, in order.
    pub done: Vec<Span>,
}

impl Heard {
    /// Of a bot that hears what comes after `since`.
    #[must_use]
    pub fn after(since: Sequence) -> Self {
        Self {
            since,
            done: Vec::new(),
        }
    }

    /// Whether the activity at a position is finished, although the cursor may not have come there.
    #[must_use]
    pub fn is_done(&self, sequence: Sequence) -> bool {
        self.done.iter().any(|span| span.has(sequence))
    }

    /// The same for the bot that takes the place of this one, at the cursor `finished`.
    #[must_use]
    pub fn passed_on(&self, finished: Sequence) -> Self {
        Self {
            since: finished,
            done: self.beyond(finished).collect(),
        }
    }

    /// Takes on what `other`, whose cursor is at `unfinished`, had not finished. `finished` is the bot's own
    /// cursor. Returns where that has to stand instead, if it has to.
    ///
    /// What both were handed stays as it is: the bot has finished it, or will. What only the other was
    /// handed, because this one joined later, is new to it.
    #[must_use]
    pub fn take_on(
        &mut self,
        finished: Sequence,
        other: &Self,
        unfinished: Sequence,
    ) -> Option<Sequence> {
        if unfinished >= self.since {
            return None;
        }
        let joined = self.since;
        let theirs = other.beyond(unfinished);
        let theirs = theirs.filter(|span| span.after < joined).map(|span| Span {
            to: span.to.min(joined),
            ..span
        });
        let own = Span {
            after: joined,
            to: finished,
        };
        let own = (finished > joined).then_some(own);
        let done = theirs.chain(own).chain(self.beyond(finished));
        let done = done.take(SPANS).collect();
        *self = Self {
            since: unfinished,
            done,
        };
        Some(unfinished)
    }

    /// What is noted beyond a cursor.
    pub fn beyond(&self, finished: Sequence) -> impl Iterator<Item = Span> {
        let beyond = move |span: &&Span| span.to > finished;
        self.done.iter().filter(beyond).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LAST: u64 = 40;

    fn span(after: u64, to: u64) -> Span {
        Span {
            after: Sequence(after),
            to: Sequence(to),
        }
    }

    #[test]
    fn what_both_were_handed_stays_as_it_is() {
        let mut heard = Heard::after(Sequence(3));
        let place = heard.take_on(Sequence(9), &Heard::default(), Sequence(3));
        assert_eq!((place, heard), (None, Heard::after(Sequence(3))));
    }

    #[test]
    fn what_was_said_before_a_bot_joined_is_new_to_it_and_the_rest_is_not() {
        let mut heard = Heard::after(Sequence(5));
        let place = heard.take_on(Sequence(9), &Heard::default(), Sequence(2));
        assert_eq!(place, Some(Sequence(2)));
        let new: Vec<u64> = (3..=12).filter(|n| !heard.is_done(Sequence(*n))).collect();
        assert_eq!(new, [3, 4, 5, 10, 11, 12]);
    }

    #[test]
    fn who_takes_a_place_is_not_handed_what_was_finished_there() {
        let heard = Heard {
            since: Sequence(1),
            done: vec![span(2, 3), span(5, 7)],
        };
        assert_eq!(
            heard.passed_on(Sequence(4)),
            Heard {
                since: Sequence(4),
                done: vec![span(5, 7)]
            }
        );
    }

    #[test]
    fn what_one_has_finished_whose_place_it_took_counts_as_its_own() {
        let before = Heard {
            since: Sequence(0),
            done: vec![span(14, 15)],
        };
        let mut heard = Heard::after(Sequence(38));
        assert_eq!(
            heard.take_on(Sequence(38), &before, Sequence(0)),
            Some(Sequence(0))
        );
        let third = Heard::default();
        assert_eq!(heard.take_on(Sequence(0), &third, Sequence(0)), None);
        assert!(heard.is_done(Sequence(15)) && !heard.is_done(Sequence(16)));
    }

    /// A bot as sets: what it was or will be handed, what of that it has finished, and what those had
    /// finished whose place it took.
    #[derive(Clone, Debug)]
    struct Model {
        heard: Heard,
        finished: u64,
        handed: BTreeSet<u64>,
        done: BTreeSet<u64>,
        done_before: BTreeSet<u64>,
    }

    impl Model {
        fn joining(at: u64) -> Self {
            Self {
                heard: Heard::after(Sequence(at)),
                finished: at,
                handed: (at + 1..=LAST).collect(),
                done: BTreeSet::new(),
                done_before: BTreeSet::new(),
            }
        }

        /// Finishes the next that is to be handed to it.
        fn finishes(&mut self) {
            let is_new = |n: &u64| !self.heard.is_done(Sequence(*n));
            let Some(next) = (self.finished + 1..=LAST).find(is_new) else {
                return;
            };
            assert!(self.done.insert(next), "{next} comes again: {self:?}");
            assert!(self.handed.contains(&next), "{next} is not its: {self:?}");
            self.finished = next;
        }

        fn takes_over_from(&mut self, other: &Self) {
            let (own, theirs) = (Sequence(self.finished), Sequence(other.finished));
            if let Some(place) = self.heard.take_on(own, &other.heard, theirs) {
                self.finished = place.0;
            }
            let unfinished = other.handed.difference(&other.done);
            self.handed.extend(unfinished);
            self.done_before
                .extend(other.done.union(&other.done_before));
        }
    }

    proptest! {
        #[test]
        fn everything_is_finished_by_someone_and_by_nobody_twice(
            joins in proptest::collection::vec(0..LAST, 2..6),
            steps in proptest::collection::vec((0..6usize, 0..6usize, 0..6u8), 0..80),
        ) {
            let mut bots: Vec<_> = joins.iter().map(|at| Model::joining(*at)).collect();
            for (one, other, what) in steps {
                let (one, other) = (one % bots.len(), other % bots.len());
                if what > 0 || one == other || bots.len() == 1 {
                    bots[one].finishes();
                    continue;
                }
                let leaving = bots[other].clone();
                bots[one].takes_over_from(&leaving);
                bots.remove(other);
            }
            for bot in &mut bots {
                for _ in 0..LAST {
                    bot.finishes();
                }
                let mut left = bot.handed.difference(&bot.done);
                prop_assert!(left.all(|n| bot.done_before.contains(n)), "{:?}", bot);
            }
        }
    }
}
