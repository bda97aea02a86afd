//! Which activities every watcher has, and when each was posted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by the one who posts and all who watch. Sequences below are those of the conversation.
#[derive(Debug)]
pub(super) struct Race {
    watchers: usize,
    start: Instant,
    /// One for each activity that may be under way; a sequence's is its remainder.
    slots: Vec<Slot>,
    complete: AtomicU64,
    more: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    /// Nanoseconds after the start.
    posted: AtomicU64,
    /// Watchers that have it.
    received: AtomicUsize,
}

impl Race {
    /// A race in which everybody has everything up to `complete`, and at most `in_flight`
    /// activities are under way.
    pub(super) fn new(watchers: usize, in_flight: usize, complete: u64) -> Self {
        Self {
            watchers,
            start: Instant::now(),
            slots: (0..in_flight).map(|_| Slot::default()).collect(),
            complete: AtomicU64::new(complete),
            more: Notify::new(),
        }
    }

    /// Whether one more may be under way.
    pub(super) fn has_room(&self, sequence: u64) -> bool {
        sequence - self.complete() <= self.slots.len() as u64
    }

    /// Every watcher has everything up to here.
    pub(super) fn complete(&self) -> u64 {
        self.complete.load(Ordering::Acquire)
    }

    /// Waits until more is complete than when it was last asked. One task may wait.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// Notes when an activity is posted. There must be room for it.
    pub(super) fn post(&self, sequence: u64, at: Instant) {
        let at = nanoseconds(at.duration_since(self.start));
        self.slot(sequence).posted.store(at, Ordering::Release);
    }

    /// Notes that one more watcher has an activity, and returns how long after its posting.
    pub(super) fn receive(&self, sequence: u64, at: Instant) -> Duration {
        let slot = self.slot(sequence);
        let posted = slot.posted.load(Ordering::Acquire);
        if slot.received.fetch_add(1, Ordering::AcqRel) + 1 == self.watchers {
            // Before the place is known to be free.
            slot.received.store(0, Ordering::Release);
            // Watchers get them in order, so they are complete in order.
            self.complete.store(sequence, Ordering::Release);
            self.more.notify_one();
        }
        at.duration_since(self.start)
            .saturating_sub(Duration::from_nanos(posted))
    }

    fn slot(&self, sequence: u64) -> &Slot {
        &self.slots[(sequence % self.slots.len() as u64) as usize]
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activity_is_complete_with_its_last_watcher() {
        let race = Race::new(2, 1, 1);
        let now = Instant::now();
        race.post(2, now);
        race.receive(2, now);
        assert_eq!(race.complete(), 1);
        race.receive(2, now);
        assert_eq!(race.complete(), 2);
    }

    #[test]
    fn there_is_room_for_as_many_as_may_be_in_flight() {
        let race = Race::new(1, 2, 1);
        assert!(race.has_room(2) && race.has_room(3) && !race.has_room(4));
        race.receive(2, Instant::now());
        assert!(race.has_room(4) && !race.has_room(5));
    }

    #[test]
    fn latency_is_from_the_posting() {
        let race = Race::new(1, 2, 0);
        let posted = Instant::now();
        race.post(1, posted);
        let received = posted + Duration::from_millis(3);
        assert_eq!(race.receive(1, received), Duration::from_millis(3));
    }
}
