//! The conversations of a level, and where each of them is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use tokio::sync::watch;
use tokio::time::Instant;

use super::latency::Latencies;
use super::schedule::Schedule;
use crate::cli::fresh;

/// How long the answers may take that are awaited when a level ends, before they are called lost.
const STRAGGLERS: Duration = Duration::from_secs(30);

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
    /// Turns that begin in a second, whether earlier ones are answered or not. `None`: a
    /// conversation's next turn begins when its last one is over.
    pub(super) rate: Option<f64>,
}

/// When a level starts, when its measuring begins and ends, and when nobody waits any longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) start: Instant,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) give_up: Instant,
}

/// What a stream, or all of them, have measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Of the turns that count.
    pub(super) latencies: Latencies,
    /// Turns that were over within the measured time.
    pub(super) within: u64,
    /// Turns that were over before its end, those of the warm-up included.
    pub(super) before_end: u64,
}

impl Measured {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latencies: Latencies::new()?,
            within: 0,
            before_end: 0,
        })
    }

    /// Takes in what another stream measured.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.within += other.within;
        self.before_end += other.before_end;
        self.latencies.add(&other.latencies)
    }
}

/// Where a conversation is.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// The newest turn that began, from 1.
    number: u64,
    /// The newest turn that is over.
    answered: u64,
    /// Turns that should have begun by now, when they begin at fixed times.
    due: u64,
    /// When the newest one began; not used when turns begin at fixed times.
    posted: Instant,
}

/// What is shared by the streams of a level: the gateway chooses which adapter an answer comes to,
/// whoever posted the question.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) level: Arc<Level>,
    /// Before the number in every conversation's id; no other level or run has the same.
    pub(super) prefix: Arc<str>,
    /// When turns begin at fixed times.
    schedule: Option<Schedule>,
    /// One lock a conversation, which nobody else holds when the streams are one each.
    turns: Arc<Vec<Mutex<Turn>>>,
    /// Conversations, or turns when they begin at fixed times.
    unfinished: Arc<AtomicUsize>,
    finished: Arc<watch::Sender<bool>>,
}

impl Load {
    pub(super) fn new(level: Level) -> Self {
        let turn = Turn {
            number: 0,
            answered: 0,
            due: 0,
            posted: Instant::now(),
        };
        let schedule = level
            .rate
            .map(|rate| Schedule::new(rate, level.conversations, level.warmup + level.measured));
        let unfinished = match &schedule {
            Some(schedule) => usize::try_from(schedule.turns()).unwrap_or(usize::MAX),
            None => level.conversations,
        };
        Self {
            prefix: format!("bench-{}-", fresh::id()).into(),
            turns: Arc::new((0..level.conversations).map(|_| Mutex::new(turn)).collect()),
            unfinished: Arc::new(AtomicUsize::new(unfinished)),
            finished: Arc::new(watch::Sender::new(unfinished == 0)),
            schedule,
            level: Arc::new(level),
        }
    }

    pub(super) fn start(&self) -> Clock {
        let start = Instant::now();
        let begin = start + self.level.warmup;
        let end = begin + self.level.measured;
        Clock {
            start,
            begin,
            end,
            give_up: end + STRAGGLERS,
        }
    }

    /// `None` when turns follow one another.
    pub(super) fn schedule(&self) -> Option<Schedule> {
        self.schedule
    }

    /// How many turns a conversation has; none when they follow one another.
    pub(super) fn turns_of(&self, conversation: usize) -> u64 {
        self.schedule.map_or(0, |s| s.turns_of(conversation))
    }

    /// The conversations that a stream begins.
    pub(super) fn conversations_of(&self, stream: usize) -> impl Iterator<Item = usize> + use<> {
        (stream..self.level.conversations).step_by(self.level.streams)
    }

    /// Begins a conversation's first turn and returns its number.
    pub(super) fn begin(&self, conversation: usize, now: Instant) -> u64 {
        self.turn(conversation).begin(now)
    }

    /// The time of a conversation's next turn has come. Returns its number if it begins now, and
    /// `None` if it has to wait for the answer to the one before.
    pub(super) fn begin_due(&self, conversation: usize, now: Instant) -> Option<u64> {
        let mut turn = self.turn(conversation);
        turn.due += 1;
        (turn.number == turn.answered).then(|| turn.begin(now))
    }

    /// The turn that waits for its answer.
    pub(super) fn current_turn(&self, conversation: usize) -> u64 {
        self.turn(conversation).number
    }

    /// Turns that were begun so far.
    pub(super) fn turns(&self) -> u64 {
        let conversations = 0..self.level.conversations;
        conversations
            .map(|conversation| self.current_turn(conversation))
            .sum()
    }

    /// Ends a conversation's turn, and returns the number of the next if one begins now.
    ///
    /// # Errors
    ///
    /// No turn of it waits for an answer.
    pub(super) fn answered(
        &self,
        conversation: usize,
        clock: &Clock,
        now: Instant,
        measured: &mut Measured,
    ) -> anyhow::Result<Option<u64>> {
        let mut turn = self.turn(conversation);
        ensure!(
            turn.answered < turn.number,
            "turn {} of conversation {conversation} was answered twice",
            turn.number
        );
        turn.answered = turn.number;
        self.note(conversation, turn.number, clock, now, measured);
        if self.schedule.is_none() {
            if (clock.begin..clock.end).contains(&now) {
                measured
                    .latencies
                    .record(now.saturating_duration_since(turn.posted));
            }
            if now < clock.end {
                return Ok(Some(turn.begin(now)));
            }
            drop(turn);
            self.finish_one();
            return Ok(None);
        }
        let next = (turn.due > turn.number).then(|| turn.begin(now));
        drop(turn);
        self.finish_one();
        Ok(next)
    }

    /// Notes that something of a turn has come now: how long after the time that is fixed for its
    /// beginning, if one is.
    pub(super) fn note(
        &self,
        conversation: usize,
        number: u64,
        clock: &Clock,
        now: Instant,
        measured: &mut Measured,
    ) {
        measured.within += u64::from((clock.begin..clock.end).contains(&now));
        measured.before_end += u64::from(now < clock.end);
        if let Some(schedule) = &self.schedule {
            // Counted by when it should have begun, so that those are counted that took past the end.
            let intended = clock.start + schedule.offset(conversation, number);
            if intended >= clock.begin {
                let latency = now.saturating_duration_since(intended);
                measured.latencies.record(latency);
            }
        }
    }

    fn finish_one(&self) {
        if self.unfinished.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.finished.send_replace(true);
        }
    }

    /// Conversations whose last turn is not over, or turns when they begin at fixed times.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Waits until all is over, or nobody should wait any longer.
    pub(super) async fn over(&self, clock: Clock) {
        let mut finished = self.finished.subscribe();
        // Neither an error, which says that nobody can finish any more, nor the time needs a word:
        // what is unfinished says it.
        let _ = tokio::time::timeout_at(clock.give_up, finished.wait_for(|f| *f)).await;
    }

    /// Counts the turns that were never over with the time that they have waited so far, and
    /// returns how many they are. To be left out would make them look well.
    pub(super) fn count_unanswered(
        &self,
        clock: &Clock,
        now: Instant,
        measured: &mut Measured,
    ) -> u64 {
        let mut unanswered = 0;
        for conversation in 0..self.level.conversations {
            let first = self.turn(conversation).answered + 1;
            for number in first..=self.turns_of(conversation) {
                self.note(conversation, number, clock, now, measured);
                unanswered += 1;
            }
        }
        unanswered
    }

    /// The number of a conversation of this level; `None` for one of another.
    pub(super) fn conversation(&self, id: &str) -> Option<usize> {
        let number = id.strip_prefix(&*self.prefix)?.parse().ok()?;
        (number < self.turns.len()).then_some(number)
    }

    fn turn(&self, conversation: usize) -> std::sync::MutexGuard<'_, Turn> {
        // Nothing panics while one is held.
        self.turns[conversation]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn begin(&mut self, now: Instant) -> u64 {
        self.number += 1;
        self.posted = now;
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(conversations: usize, rate: Option<f64>) -> Load {
        Load::new(Level {
            conversations,
            streams: 1,
            size: 450,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(1),
            channel: "bench".into(),
            bot: "bench".into(),
            rate,
        })
    }

    fn is_finished(load: &Load) -> bool {
        *load.finished.borrow()
    }

    #[test]
    fn conversations_of_another_level_are_told_apart() {
        let load = load(2, None);
        assert_eq!(load.conversation(&format!("{}1", load.prefix)), Some(1));
        assert_eq!(load.conversation(&format!("{}2", load.prefix)), None);
        assert_eq!(load.conversation("bench-other-1"), None);
    }

    #[test]
    fn a_level_is_over_with_its_last_conversation() -> anyhow::Result<()> {
        let load = load(2, None);
        let clock = load.start();
        let mut measured = Measured::new()?;
        for conversation in 0..2 {
            assert!(!is_finished(&load));
            assert_eq!(load.begin(conversation, clock.start), 1);
            let next = load.answered(conversation, &clock, clock.end, &mut measured)?;
            assert_eq!(next, None);
        }
        assert!(is_finished(&load));
        assert_eq!(measured.within, 0);
        Ok(())
    }

    #[test]
    fn turns_follow_one_another_and_count_from_one() -> anyhow::Result<()> {
        let load = load(1, None);
        let clock = load.start();
        let mut measured = Measured::new()?;
        assert_eq!(load.begin(0, clock.start), 1);
        let next = load.answered(0, &clock, clock.begin, &mut measured)?;
        assert_eq!((next, load.current_turn(0)), (Some(2), 2));
        assert_eq!((measured.within, measured.latencies.count()), (1, 1));
        Ok(())
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_an_error() -> anyhow::Result<()> {
        let load = load(1, Some(1.0));
        let clock = load.start();
        let mut measured = Measured::new()?;
        assert!(
            load.answered(0, &clock, clock.begin, &mut measured)
                .is_err()
        );
        Ok(())
    }

    #[test]
    fn a_turn_that_waited_for_the_one_before_counts_from_when_it_was_due() -> anyhow::Result<()> {
        // Turns at 0, 250, 500 and 750 ms, all in one conversation.
        let load = load(1, Some(4.0));
        let clock = load.start();
        let at = |ms| clock.start + Duration::from_millis(ms);
        let mut measured = Measured::new()?;
        assert_eq!(load.begin_due(0, at(0)), Some(1));
        assert_eq!(load.begin_due(0, at(250)), None);
        assert_eq!(load.begin_due(0, at(500)), None);
        // The first takes 600 ms; the second begins with its answer and takes 10 ms.
        assert_eq!(load.answered(0, &clock, at(600), &mut measured)?, Some(2));
        assert_eq!(load.answered(0, &clock, at(610), &mut measured)?, Some(3));
        let max = measured.latencies.max_ms().unwrap_or_default();
        let median = measured.latencies.quantile_ms(0.5).unwrap_or_default();
        assert!((max - 600.0).abs() < 1.0, "{max}");
        assert!((median - 360.0).abs() < 1.0, "{median}");
        // Two are never answered: the third, and the fourth, which has not even begun.
        let unanswered = load.count_unanswered(&clock, at(2_000), &mut measured);
        assert_eq!((unanswered, measured.latencies.count()), (2, 4));
        assert_eq!(load.unfinished(), 2);
        let max = measured.latencies.max_ms().unwrap_or_default();
        assert!((max - 1_500.0).abs() < 2.0, "{max}");
        Ok(())
    }
}
