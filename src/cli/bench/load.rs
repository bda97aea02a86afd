//! The conversations of a level, and where each of them is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::fresh;

/// What is measured.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) conversations: usize,
    pub(super) streams: usize,
    pub(super) size: usize,
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
    pub(super) channel: String,
    pub(super) bot: String,
}

/// When the measuring begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// The turn a conversation is in.
#[derive(Clone, Copy, Debug)]
struct Turn {
    number: u64,
    posted: Instant,
}

/// What is shared by the streams of a level: the gateway chooses which adapter an answer comes to,
/// whoever posted the question.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) level: Arc<Level>,
    /// Before the number in every conversation's id; no other level or run has the same.
    pub(super) prefix: Arc<str>,
    /// One lock a conversation, which nobody else holds when the streams are one each.
    turns: Arc<Vec<Mutex<Turn>>>,
    unfinished: Arc<AtomicUsize>,
    finished: Arc<watch::Sender<bool>>,
}

impl Load {
    pub(super) fn new(level: Level) -> Self {
        let now = Instant::now();
        let turn = || {
            Mutex::new(Turn {
                number: 0,
                posted: now,
            })
        };
        Self {
            prefix: format!("bench-{}-", fresh::id()).into(),
            turns: Arc::new((0..level.conversations).map(|_| turn()).collect()),
            unfinished: Arc::new(AtomicUsize::new(level.conversations)),
            finished: Arc::new(watch::Sender::new(false)),
            level: Arc::new(level),
        }
    }

    pub(super) fn start(&self) -> Clock {
        let begin = Instant::now() + self.level.warmup;
        Clock {
            begin,
            end: begin + self.level.measured,
        }
    }

    /// Begins a conversation's next turn and returns its number.
    pub(super) fn begin_turn(&self, conversation: usize, now: Instant) -> u64 {
        let mut turn = self.turn(conversation);
        turn.number += 1;
        turn.posted = now;
        turn.number
    }

    /// The turn that waits for its answer: its number, and when it was posted.
    pub(super) fn current_turn(&self, conversation: usize) -> (u64, Instant) {
        let turn = self.turn(conversation);
        (turn.number, turn.posted)
    }

    /// Turns that were begun so far.
    pub(super) fn turns(&self) -> u64 {
        let conversations = 0..self.level.conversations;
        conversations
            .map(|conversation| self.current_turn(conversation).0)
            .sum()
    }

    /// Counts a conversation as over; the last one ends the level.
    pub(super) fn finish(&self) {
        if self.unfinished.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.finished.send_replace(true);
        }
    }

    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Turns true when every conversation is over.
    pub(super) fn finished(&self) -> watch::Receiver<bool> {
        self.finished.subscribe()
    }

    /// The number of a conversation of this level; `None` for one of another.
    pub(super) fn conversation(&self, id: &str) -> Option<usize> {
        let number = id.strip_prefix(&*self.prefix)?.parse().ok()?;
        (number < self.turns.len()).then_some(number)
    }

    fn turn(&self, conversation: usize) -> std::sync::MutexGuard<'_, Turn> {
        // Nothing panics while it is held.
        self.turns[conversation]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(conversations: usize) -> Load {
        Load::new(Level {
            conversations,
            streams: 1,
            size: 450,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(1),
            channel: "bench".into(),
            bot: "bench".into(),
        })
    }

    #[test]
    fn conversations_of_another_level_are_told_apart() {
        let load = load(2);
        assert_eq!(load.conversation(&format!("{}1", load.prefix)), Some(1));
        assert_eq!(load.conversation(&format!("{}2", load.prefix)), None);
        assert_eq!(load.conversation("bench-other-1"), None);
    }

    #[test]
    fn a_level_is_over_with_its_last_conversation() {
        let load = load(2);
        let finished = load.finished();
        load.finish();
        assert!(!*finished.borrow());
        load.finish();
        assert!(*finished.borrow());
    }

    #[test]
    fn turns_count_from_one() {
        let load = load(1);
        assert_eq!(load.begin_turn(0, Instant::now()), 1);
        assert_eq!(load.begin_turn(0, Instant::now()), 2);
        assert_eq!(load.current_turn(0).0, 2);
    }
}
