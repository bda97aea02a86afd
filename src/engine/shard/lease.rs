//! Leases of conversations that have left memory: for a while they stay with their sessions.

use std::collections::VecDeque;

use foldhash::HashMap;

use crate::clock::Timestamp;
use crate::engine::delivery::Lease;
use crate::id::ConversationNumber;

/// A seat of a conversation: its subscriber by the shard's number for it.
type Seat = (ConversationNumber, usize);

/// Leases by seat, each until its time is over. Of too many the oldest are forgotten: then the next
/// session of their conversation is chosen as that of a new one.
#[derive(Debug, Default)]
pub(super) struct Leases {
    kept: HashMap<Seat, (Lease, Timestamp)>,
    /// In the order in which they were kept. What was taken or kept again since is void.
    order: VecDeque<(Seat, Timestamp)>,
}

impl Leases {
    /// Keeps a lease until then, among at most so many.
    pub(super) fn keep(&mut self, seat: Seat, lease: Lease, until: Timestamp, most: usize) {
        self.kept.insert(seat, (lease, until));
        self.order.push_back((seat, until));
        while self.order.len() > most {
            self.drop_oldest();
        }
    }

    /// Takes the lease of a conversation that is in memory again.
    pub(super) fn take(&mut self, seat: Seat) -> Option<Lease> {
        self.kept.remove(&seat).map(|(lease, _)| lease)
    }

    /// All that are kept.
    pub(super) fn all(&self) -> impl Iterator<Item = &Lease> {
        self.kept.values().map(|(lease, _)| lease)
    }

    /// Forgets leases whose time is over.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((seat, until)) = self.order.pop_front()
            && self.kept.get(&seat).is_some_and(|(_, kept)| *kept == until)
        {
            self.kept.remove(&seat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::session;
    use crate::id::Fence;

    fn lease(session: u64) -> Lease {
        Lease {
            session: session::Number(session),
            fence: Fence(session),
            used: Timestamp(0),
        }
    }

    fn seat(number: u64) -> Seat {
        (ConversationNumber(number), 0)
    }

    #[test]
    fn a_lease_is_kept_for_its_time_and_taken_once() {
        let mut leases = Leases::default();
        leases.keep(seat(1), lease(1), Timestamp(10), 9);
        leases.keep(seat(2), lease(2), Timestamp(20), 9);
        leases.expire(Timestamp(10));
        assert_eq!(leases.take(seat(1)), None);
        assert_eq!(leases.take(seat(2)), Some(lease(2)));
        assert_eq!(leases.take(seat(2)), None);
    }

    #[test]
    fn one_that_is_kept_again_outlives_its_first_time() {
        let mut leases = Leases::default();
        leases.keep(seat(1), lease(1), Timestamp(10), 9);
        leases.take(seat(1));
        leases.keep(seat(1), lease(2), Timestamp(20), 9);
        leases.expire(Timestamp(15));
        assert_eq!(leases.take(seat(1)), Some(lease(2)));
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let mut leases = Leases::default();
        for number in 1..=3 {
            leases.keep(seat(number), lease(number), Timestamp(9), 2);
        }
        assert_eq!(leases.take(seat(1)), None);
        assert_eq!(leases.take(seat(3)), Some(lease(3)));
    }
}
