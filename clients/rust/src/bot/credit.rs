//! Credit: how many deliveries the gateway may hand over before the bot has finished some.

use crate::proto::Credit;

/// Keeps the gateway's balance and what the bot holds at a constant sum.
#[derive(Debug)]
pub(super) struct Meter {
    deliveries: i64,
    bytes: i64,
    owed_deliveries: i64,
    owed_bytes: i64,
}

impl Meter {
    /// For a sum of `deliveries` and `bytes`, all of it granted by the Hello.
    pub(super) fn new(deliveries: i64, bytes: i64) -> Self {
        Self {
            deliveries,
            bytes,
            owed_deliveries: 0,
            owed_bytes: 0,
        }
    }

    /// Raises the bytes so that an activity of the largest size fits although an eighth of the
    /// whole is not granted again; returns what that takes.
    pub(super) fn fit(&mut self, max_activity_bytes: u32) -> Option<Credit> {
        let bytes = 2 * i64::from(max_activity_bytes) - self.bytes;
        if bytes <= 0 {
            return None;
        }
        self.bytes += bytes;
        Some(Credit {
            deliveries: 0,
            bytes,
        })
    }

    /// What the Hello of another stream grants to a session that holds so much already: all of the
    /// rest, whatever was owed before.
    pub(super) fn begin(&mut self, held_deliveries: usize, held_bytes: usize) -> Credit {
        self.owed_deliveries = 0;
        self.owed_bytes = 0;
        Credit {
            deliveries: (self.deliveries - held_deliveries as i64).max(0),
            bytes: (self.bytes - held_bytes as i64).max(0),
        }
    }

    /// Counts a delivery as finished.
    pub(super) fn finish(&mut self, bytes: usize) {
        self.owed_deliveries += 1;
        self.owed_bytes += bytes as i64;
    }

    /// What to grant now, if it is worth a frame: an eighth of the whole. The gateway has the
    /// rest, so that what is kept back never stops it.
    pub(super) fn grant(&mut self) -> Option<Credit> {
        if self.owed_deliveries * 8 < self.deliveries && self.owed_bytes * 8 < self.bytes {
            return None;
        }
        Some(Credit {
            deliveries: std::mem::take(&mut self.owed_deliveries),
            bytes: std::mem::take(&mut self.owed_bytes),
        })
    }

    /// What is missing from the balance of a session that has had no work for a whole heartbeat
    /// interval, so that nothing is under way in either direction.
    ///
    /// The gateway counts an activity's bytes as it stores them, and a newer gateway's activity
    /// can have fields that this client does not know and so does not count. Without this the
    /// difference would add up until the session stalls.
    pub(super) fn missing(&self, balance_deliveries: i64, balance_bytes: i64) -> Option<Credit> {
        let credit = Credit {
            deliveries: (self.deliveries - self.owed_deliveries - balance_deliveries).max(0),
            bytes: (self.bytes - self.owed_bytes - balance_bytes).max(0),
        };
        (credit.deliveries > 0 || credit.bytes > 0).then_some(credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_granted_by_the_eighth() {
        let mut meter = Meter::new(16, 1_000);
        meter.finish(10);
        assert_eq!(meter.grant(), None);
        meter.finish(10);
        assert_eq!(
            meter.grant(),
            Some(Credit {
                deliveries: 2,
                bytes: 20
            })
        );
        assert_eq!(meter.grant(), None);
    }

    #[test]
    fn large_deliveries_are_granted_by_their_bytes() {
        let mut meter = Meter::new(1_000, 1_000);
        meter.finish(125);
        assert!(meter.grant().is_some());
    }

    #[test]
    fn the_smallest_credit_is_granted_one_by_one() {
        let mut meter = Meter::new(1, 1_000);
        meter.finish(1);
        assert!(meter.grant().is_some());
    }

    #[test]
    fn the_largest_activity_fits() {
        let mut meter = Meter::new(10, 100);
        assert_eq!(meter.fit(50), None);
        assert_eq!(meter.fit(80).map(|credit| credit.bytes), Some(60));
        assert_eq!(meter.begin(0, 0).bytes, 160);
    }

    #[test]
    fn another_stream_is_granted_what_is_not_held_and_nothing_twice() {
        let mut meter = Meter::new(16, 1_000);
        meter.finish(100);
        let credit = meter.begin(3, 300);
        assert_eq!((credit.deliveries, credit.bytes), (13, 700));
        assert_eq!(meter.grant(), None);
        meter.finish(200);
        assert_eq!(meter.grant().map(|credit| credit.bytes), Some(200));
        assert_eq!(meter.begin(17, 2_000), Credit::default());
    }

    #[test]
    fn what_was_miscounted_is_granted_again() {
        let meter = Meter::new(10, 100);
        assert_eq!(meter.missing(10, 100), None);
        assert_eq!(meter.missing(12, 100), None);
        assert_eq!(
            meter.missing(10, 93),
            Some(Credit {
                deliveries: 0,
                bytes: 7
            })
        );
    }
}
