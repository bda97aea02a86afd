//! What a session holds, and in which order it may be answered.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::streaming;
use super::turn::Turn;
use crate::proto::subscribe_request::Frame;
use crate::proto::{Cancel, ConversationName};
use crate::random;

/// Longest pause before a handler is called again for the same delivery: it begins with a few milliseconds, doubles each time up to this, and is
/// jittered, so that those who met do not meet again.
const STATE_PAUSE: Duration = Duration::from_millis(250);

/// How far a delivery has come.
#[derive(Debug)]
enum Stage {
    /// Its handler has not started.
    Waiting,
    /// Its handler runs.
    Running(AbortHandle),
    /// Its answer waits for earlier deliveries of the conversation, or for a stream to be said on.
    Ready(Frame),
    /// Its answer was said, and what became of it was not heard. Kept to be said again on another stream.
    Said {
        /// Position among all that was said.
        number: u64,
        answer: Frame,
    },
}

/// A delivery that the gateway counts as this session's.
#[derive(Debug)]
struct Held {
    conversation: ConversationName,
    sequence: u64,
    /// What it uses of the credit.
    bytes: usize,
    /// To be handed to its handler, again as long as that may be.
    turn: Option<Turn>,
    /// How often it was.
    tries: u32,
    /// Tells its handler which replies are wanted no more.
    cancels: watch::Sender<Vec<Cancel>>,
    stage: Stage,
}

impl Held {
    fn is_said(&self) -> bool {
        matches!(self.stage, Stage::Said { .. })
    }
}

/// A handler that is to be started.
pub(super) struct Start {
    pub(super) delivery_id: u64,
    pub(super) turn: Turn,
    /// How often it was called for this delivery before.
    pub(super) tries: u32,
}

/// Every delivery that is not finished. Bounded by the credit.
///
/// A conversation is answered one delivery at a time, in the order of its log: an answer is said once
/// those of earlier deliveries were taken. Saying it as soon as they were said would save a round trip,
/// but when one of them meets another write of its state and is begun anew, what was said after it
/// would be refused.
#[derive(Default)]
pub(super) struct Work {
    held: HashMap<u64, Held>,
    /// The deliveries of each conversation, in the order in which they came.
    lines: HashMap<ConversationName, VecDeque<u64>>,
    /// Those whose handler has not started, in the order in which it is to.
    waiting: VecDeque<u64>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn holds(&self, delivery_id: u64) -> bool {
        self.held.contains_key(&delivery_id)
    }

    /// All deliveries, by their ids.
    pub(super) fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.held.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Those to be kept alive, by their ids: all but what was given back, whose deadline may pass.
    pub(super) fn in_work(&self) -> Vec<u64> {
        let is_back = |held: &Held| {
            matches!(
                held.stage,
                Stage::Said {
                    answer: Frame::Nack(_),
                    ..
                }
            )
        };
        let mut ids = self.ids();
        ids.retain(|id| self.held.get(id).is_some_and(|held| !is_back(held)));
        ids
    }

    /// How many deliveries there are, and what they use of the credit.
    pub(super) fn size(&self) -> (usize, usize) {
        let bytes = self.held.values().map(|held| held.bytes).sum();
        (self.held.len(), bytes)
    }

    /// Takes a delivery in. Returns the bytes of those that it says were taken back.
    ///
    /// The gateway hands an activity over again only when it has taken back what it had handed over of
    /// it and of what comes after it; an answer to that which is still under way is stale.
    pub(super) fn take(
        &mut self,
        turn: Turn,
        bytes: usize,
        cancels: watch::Sender<Vec<Cancel>>,
    ) -> Vec<usize> {
        let (delivery_id, sequence) = (turn.delivery_id(), turn.sequence());
        let conversation = turn.conversation().clone();
        let withdrawn = self.withdraw(&conversation, |held| held.sequence >= sequence);
        let line = self.lines.entry(conversation.clone()).or_default();
        line.push_back(delivery_id);
        self.waiting.push_back(delivery_id);
        let held = Held {
            conversation,
            sequence,
            bytes,
            turn: Some(turn),
            tries: 0,
            cancels,
            stage: Stage::Waiting,
        };
        self.held.insert(delivery_id, held);
        withdrawn
    }

    /// The handler to start next.
    pub(super) fn next(&mut self) -> Option<Start> {
        while let Some(delivery_id) = self.waiting.pop_front() {
            let held = self.held.get_mut(&delivery_id);
            let Some(held) = held.filter(|held| matches!(held.stage, Stage::Waiting)) else {
                continue;
            };
            let again = held.turn.as_ref().map(Turn::again);
            if let Some(turn) = std::mem::replace(&mut held.turn, again) {
                let tries = held.tries;
                held.tries += 1;
                return Some(Start {
                    delivery_id,
                    turn,
                    tries,
                });
            }
        }
        None
    }

    /// Tells a handler that a reply is wanted no more.
    pub(super) fn cancel(&self, cancel: Cancel) {
        if let Some(held) = self.held.get(&cancel.delivery_id) {
            streaming::note(&held.cancels, cancel);
        }
    }

    /// Notes that a handler runs.
    pub(super) fn started(&mut self, delivery_id: u64, handler: AbortHandle) {
        if let Some(held) = self.held.get_mut(&delivery_id) {
            held.stage = Stage::Running(handler);
        }
    }

    /// Notes the answer to a delivery. The turn is kept if it may be handed out again.
    pub(super) fn answer(&mut self, delivery_id: u64, answer: Frame, keep_turn: bool) {
        if let Some(held) = self.held.get_mut(&delivery_id) {
            held.stage = Stage::Ready(answer);
            if !keep_turn {
                held.turn = None;
            }
        }
    }

    /// Takes all out of `waiting`, to be answered without a handler.
    pub(super) fn unstarted(&mut self) -> Vec<u64> {
        let held = &self.held;
        let is_waiting = |id: &u64| {
            held.get(id)
                .is_some_and(|held| matches!(held.stage, Stage::Waiting))
        };
        std::mem::take(&mut self.waiting)
            .into_iter()
            .filter(is_waiting)
            .collect()
    }

    /// Puts a delivery first in the line of handlers again, unless it was handed out `most` times.
    pub(super) fn begin_anew(&mut self, delivery_id: u64, most: u32) -> bool {
        let held = self.held.get_mut(&delivery_id);
        let Some(held) = held.filter(|held| held.turn.is_some() && held.tries < most) else {
            return false;
        };
        held.stage = Stage::Waiting;
        self.waiting.push_front(delivery_id);
        true
    }

    /// Whether its answer was said and nothing was heard of it.
    pub(super) fn is_said(&self, delivery_id: u64) -> bool {
        let held = self.held.get(&delivery_id);
        held.is_some_and(Held::is_said)
    }

    /// What may be said now in the conversation of a delivery, as the `number`th thing said, and the
    /// bytes of the deliveries that it gives back as well.
    pub(super) fn speak(
        &mut self,
        conversation: &ConversationName,
        number: u64,
    ) -> Option<(Frame, Vec<usize>)> {
        let first = self.lines.get(conversation)?.front()?;
        let held = self.held.get_mut(first)?;
        let Stage::Ready(answer) = &held.stage else {
            return None;
        };
        let answer = answer.clone();
        held.stage = Stage::Said {
            number,
            answer: answer.clone(),
        };
        let mut withdrawn = Vec::new();
        if matches!(answer, Frame::Nack(_)) {
            // A Nack takes back what came after it.
            withdrawn = self.withdraw(conversation, |held| !held.is_said());
        }
        Some((answer, withdrawn))
    }

    pub(super) fn conversation(&self, delivery_id: u64) -> Option<ConversationName> {
        Some(self.held.get(&delivery_id)?.conversation.clone())
    }

    /// Conversations of which something is held.
    pub(super) fn conversations(&self) -> Vec<ConversationName> {
        self.lines.keys().cloned().collect()
    }

    /// What was said and not heard of, with its number.
    pub(super) fn unheard(&self) -> Vec<(u64, Frame)> {
        let said = self.held.values().filter_map(|held| match &held.stage {
            Stage::Said { number, answer } => Some((*number, answer.clone())),
            Stage::Waiting | Stage::Running(_) | Stage::Ready(_) => None,
        });
        said.collect()
    }

    /// Lets go of a delivery, with its handler if it still runs. Returns its bytes.
    pub(super) fn let_go(&mut self, delivery_id: u64) -> Option<usize> {
        let held = self.held.remove(&delivery_id)?;
        if let Stage::Running(handler) = held.stage {
            handler.abort();
        }
        if let Some(line) = self.lines.get_mut(&held.conversation) {
            line.retain(|id| *id != delivery_id);
            if line.is_empty() {
                self.lines.remove(&held.conversation);
            }
        }
        Some(held.bytes)
    }

    /// Lets go of those in a conversation that the gateway has taken back.
    fn withdraw(
        &mut self,
        conversation: &ConversationName,
        is_back: impl Fn(&Held) -> bool,
    ) -> Vec<usize> {
        let line = self.lines.get(conversation).into_iter().flatten();
        let is_back = |id: &u64| self.held.get(id).is_some_and(&is_back);
        let back: Vec<u64> = line.copied().filter(is_back).collect();
        back.into_iter().filter_map(|id| self.let_go(id)).collect()
    }
}

/// How long a handler waits that is called again after so many calls; the first does not.
pub(super) fn pause(tries: u32) -> Duration {
    if tries == 0 {
        return Duration::ZERO;
    }
    let longest = Duration::from_millis(1 << tries.min(10)).min(STATE_PAUSE);
    longest.mul_f64(random::fraction())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::bot::early::Streams;
    use crate::proto::{Commit, Delivery, Nack};

    fn turn(delivery_id: u64, sequence: u64) -> Turn {
        let delivery = Delivery {
            delivery_id,
            sequence,
            conversation: Some(one()),
            ..Delivery::default()
        };
        let told = watch::channel(Vec::new()).1;
        Turn::new(delivery, mpsc::channel(1).0, Streams::default(), told)
    }

    fn take(work: &mut Work, turn: Turn, bytes: usize) -> Vec<usize> {
        work.take(turn, bytes, watch::channel(Vec::new()).0)
    }

    fn one() -> ConversationName {
        ConversationName::new("dev", "c1")
    }

    fn with_three() -> Work {
        let mut work = Work::default();
        for id in 1..=3 {
            assert!(take(&mut work, turn(id, id), 10).is_empty());
        }
        work
    }

    fn commit(delivery_id: u64) -> Frame {
        let commit = Commit {
            delivery_id,
            ..Commit::default()
        };
        commit.into()
    }

    fn spoken(work: &mut Work) -> Option<Frame> {
        work.speak(&one(), 1).map(|(frame, _)| frame)
    }

    #[test]
    fn an_answer_waits_until_those_before_it_were_taken() {
        let mut work = with_three();
        work.answer(2, commit(2), false);
        assert_eq!(spoken(&mut work), None);
        work.answer(1, commit(1), false);
        assert_eq!(spoken(&mut work), Some(commit(1)));
        assert_eq!(spoken(&mut work), None, "it is not said twice");
        assert_eq!(work.let_go(1), Some(10));
        assert_eq!(spoken(&mut work), Some(commit(2)));
    }

    #[test]
    fn what_is_given_back_takes_what_came_after_with_it() {
        let mut work = with_three();
        work.answer(1, commit(1), false);
        assert!(spoken(&mut work).is_some());
        work.let_go(1);
        work.answer(3, commit(3), false);
        work.answer(2, Nack::default().into(), false);
        let (said, withdrawn) = work.speak(&one(), 2).expect("the nack");
        assert!(matches!(said, Frame::Nack(_)));
        assert_eq!(withdrawn, [10]);
        assert_eq!(work.ids(), [2]);
    }

    #[test]
    fn what_comes_again_says_that_the_rest_was_taken_back() {
        let mut work = with_three();
        work.answer(1, commit(1), false);
        assert!(spoken(&mut work).is_some());
        assert_eq!(take(&mut work, turn(4, 2), 7), [10, 10]);
        assert_eq!(work.ids(), [1, 4]);
        assert_eq!(work.size(), (2, 17));
        assert_eq!(work.next().map(|start| start.delivery_id), Some(4));
        assert!(work.next().is_none(), "what was taken back is not started");
    }

    #[test]
    fn what_was_said_and_not_heard_of_is_kept_to_be_said_again() {
        let mut work = with_three();
        work.answer(1, commit(1), false);
        assert!(work.unheard().is_empty());
        assert!(spoken(&mut work).is_some());
        assert_eq!(work.unheard(), [(1, commit(1))]);
        work.let_go(1);
        assert!(work.unheard().is_empty());
    }

    #[test]
    fn what_was_given_back_is_not_kept_alive() {
        let mut work = with_three();
        work.answer(1, Nack::default().into(), false);
        assert_eq!(work.in_work(), [1, 2, 3]);
        assert!(spoken(&mut work).is_some());
        assert_eq!((work.ids(), work.in_work()), (vec![1], vec![]));
        // Were it refused unheard, what comes in its place would not wait for it.
        assert_eq!(take(&mut work, turn(4, 1), 7), [10]);
        work.answer(4, commit(4), false);
        assert_eq!(spoken(&mut work), Some(commit(4)));
    }

    #[test]
    fn a_turn_is_begun_anew_so_many_times_and_before_what_waits() {
        let mut work = with_three();
        assert_eq!(work.next().map(|start| start.tries), Some(0));
        work.answer(1, commit(1), true);
        assert!(work.begin_anew(1, 2));
        let start = work.next().expect("the first again");
        assert_eq!((start.delivery_id, start.tries), (1, 1));
        assert!(!work.begin_anew(1, 2));
    }
}
