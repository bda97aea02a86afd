//! When turns begin that begin at fixed times, and waiting for that.

use std::time::Duration;

use tokio::time::Instant;

use super::load::{Clock, Load};
use super::timer::Timer;

/// How far apart a stream's wakings for turns are at least. At 15,000 turns a second a waking for each
/// costs the load generator more than all the rest it does for the turn, and it shares the machine
/// with what it measures. Latency counts from when a turn was due, so what this adds is in it.
const WAKINGS_APART: Duration = Duration::from_micros(500);

/// Turns one after another at a fixed rate, dealt out to the conversations in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Schedule {
    rate: f64,
    conversations: u64,
    turns: u64,
}

impl Schedule {
    /// All turns that begin before `length` is over.
    pub(super) fn new(rate: f64, conversations: usize, length: Duration) -> Self {
        Self {
            rate,
            conversations: conversations as u64,
            turns: (rate * length.as_secs_f64()).ceil() as u64,
        }
    }

    /// How many turns there are.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// How many turns a conversation has.
    pub(super) fn turns_of(&self, conversation: usize) -> u64 {
        let later = self.turns.saturating_sub(conversation as u64);
        later.div_ceil(self.conversations)
    }

    /// When a turn of a conversation begins, after the start. Turns count from 1.
    pub(super) fn offset(&self, conversation: usize, number: u64) -> Duration {
        self.offset_of((number - 1) * self.conversations + conversation as u64)
    }

    /// The same for a turn of any, counted from 0.
    fn offset_of(&self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 / self.rate)
    }
}

/// Says to a stream when to begin turns.
pub(super) struct Pacer {
    schedule: Option<Schedule>,
    start: Instant,
    stream: u64,
    streams: u64,
    /// The next turn of the schedule that is this stream's.
    next: u64,
    /// The earliest time to be woken again.
    not_before: Instant,
    timer: Timer,
}

impl Pacer {
    /// Never says anything when turns follow one another.
    pub(super) fn new(load: &Load, stream: usize, clock: Clock) -> anyhow::Result<Self> {
        let mut pacer = Self {
            schedule: load.schedule(),
            start: clock.start,
            stream: stream as u64,
            streams: load.level.streams as u64,
            next: 0,
            not_before: clock.start,
            timer: Timer::new()?,
        };
        pacer.seek_own();
        Ok(pacer)
    }

    /// Waits until a turn is due, and returns its conversation. Dropping the future loses nothing.
    pub(super) async fn due(&mut self) -> anyhow::Result<usize> {
        let Some(schedule) = self.schedule.filter(|s| self.next < s.turns) else {
            return std::future::pending().await;
        };
        let at = self.start + schedule.offset_of(self.next);
        if at > Instant::now() {
            let at = at.max(self.not_before);
            self.timer.wait_until(at).await?;
            self.not_before = at + WAKINGS_APART;
        }
        let conversation = self.next % schedule.conversations;
        self.next += 1;
        self.seek_own();
        Ok(conversation as usize)
    }

    fn seek_own(&mut self) {
        let Some(schedule) = self.schedule else {
            return;
        };
        while self.next < schedule.turns
            && (self.next % schedule.conversations) % self.streams != self.stream
        {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_evenly_apart_and_dealt_out_in_order() {
        let schedule = Schedule::new(10.0, 3, Duration::from_secs(1));
        assert_eq!(schedule.turns(), 10);
        let ms = |conversation, number| schedule.offset(conversation, number).as_millis();
        assert_eq!([ms(0, 1), ms(1, 1), ms(2, 1)], [0, 100, 200]);
        assert_eq!([ms(0, 2), ms(0, 4)], [300, 900]);
    }

    #[test]
    fn the_turns_of_all_conversations_are_all_turns() {
        for (rate, conversations) in [(10.0, 3), (2.0, 5), (7.3, 1), (0.5, 4)] {
            let schedule = Schedule::new(rate, conversations, Duration::from_secs(3));
            let all: u64 = (0..conversations).map(|c| schedule.turns_of(c)).sum();
            assert_eq!(all, schedule.turns(), "{rate} {conversations}");
        }
        assert_eq!(
            Schedule::new(10.0, 3, Duration::from_secs(1)).turns_of(0),
            4
        );
        assert_eq!(
            Schedule::new(10.0, 3, Duration::from_secs(1)).turns_of(1),
            3
        );
    }

    #[test]
    fn no_turn_begins_after_the_end() {
        let schedule = Schedule::new(3.0, 1, Duration::from_secs(2));
        assert_eq!(schedule.turns(), 6);
        assert!(schedule.offset(0, 6) < Duration::from_secs(2));
    }
}
