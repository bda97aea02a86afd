//! One conversation: who answers in it, and how long nobody did.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Conversation {
    turn: u64,
    asked: Instant,
    is_waiting: bool,
    /// The process that answered last.
    holder: Option<usize>,
    /// When it last got an answer.
    heard: Instant,
    /// Longest time between two answers in this round.
    silence: Duration,
}

impl Conversation {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            turn: 0,
            asked: now,
            is_waiting: false,
            holder: None,
            heard: now,
            silence: Duration::ZERO,
        }
    }

    /// Forgets the silences of earlier rounds. One that goes on goes on.
    pub(super) fn begin_round(&mut self) {
        self.silence = Duration::ZERO;
    }

    /// Begins the next turn and returns its number.
    pub(super) fn ask(&mut self, now: Instant) -> u64 {
        self.turn += 1;
        self.asked = now;
        self.is_waiting = true;
        self.turn
    }

    /// Takes an answer, and returns how long it took; `None` when the turn was answered before.
    pub(super) fn answer(&mut self, turn: u64, process: usize, now: Instant) -> Option<Duration> {
        if turn != self.turn || !self.is_waiting {
            return None;
        }
        self.silence = self.silence(now);
        self.heard = now;
        self.holder = Some(process);
        self.is_waiting = false;
        Some(now.duration_since(self.asked))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    pub(super) fn is_held_by(&self, process: usize) -> bool {
        self.holder == Some(process)
    }

    /// Longest time without an answer in this round, the present one included.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.silence.max(now.duration_since(self.heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_from_answer_to_answer() {
        let start = Instant::now();
        let mut conversation = Conversation::new(start);
        let turn = conversation.ask(start);
        assert_eq!(conversation.answer(turn, 2, start + SECOND), Some(SECOND));
        conversation.begin_round();
        let turn = conversation.ask(start + 2 * SECOND);
        conversation.answer(turn, 1, start + 4 * SECOND);
        assert_eq!(conversation.silence(start + 5 * SECOND), 3 * SECOND);
        // Nobody answers any more.
        assert_eq!(conversation.silence(start + 9 * SECOND), 5 * SECOND);
    }

    #[test]
    fn whoever_answered_last_holds_it() {
        let start = Instant::now();
        let mut conversation = Conversation::new(start);
        assert!(!conversation.is_held_by(2));
        let turn = conversation.ask(start);
        conversation.answer(turn, 2, start);
        assert!(conversation.is_held_by(2));
    }

    #[test]
    fn a_turn_is_answered_once() {
        let start = Instant::now();
        let mut conversation = Conversation::new(start);
        let turn = conversation.ask(start);
        assert!(conversation.answer(turn, 0, start).is_some());
        assert!(conversation.answer(turn, 0, start).is_none());
        let next = conversation.ask(start);
        assert!(conversation.answer(turn, 0, start).is_none());
        assert!(conversation.answer(next, 0, start).is_some());
    }
}
