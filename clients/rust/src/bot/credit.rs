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

    /// All of it.
    pub(super) fn whole(&self) -> Credit {
        Credit {
            deliveries: self.deliveries,
            bytes: self.bytes,
        }
    }

    /// Counts a delivery as finished.
    pub(super) fn finish(&mut self, bytes: usize) {
        self.owed_deliveries += 1;
        self.owed_bytes += bytes as i64;
    }

    /// What to grant now, if it is worth a frame: an eighth of the whole, or all that is owed
    /// when the bot holds nothing, because then nothing else would bring the next delivery.
    pub(super) fn grant(&mut self, holds_nothing: bool) -> Option<Credit> {
        let worth =
            self.owed_deliveries * 8 >= self.deliveries || self.owed_bytes * 8 >= self.bytes;
        if self.owed_deliveries == 0 || !(worth || holds_nothing) {
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
            deliveries: (self.deliveries - balance_deliveries).max(0),
            bytes: (self.bytes - balance_bytes).max(0),
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
        assert_eq!(meter.grant(false), None);
        meter.finish(10);
        assert_eq!(
            meter.grant(false),
            Some(Credit {
                deliveries: 2,
                bytes: 20
            })
        );
        assert_eq!(meter.grant(false), None);
    }

    #[test]
    fn large_deliveries_are_granted_by_their_bytes() {
        let mut meter = Meter::new(1_000, 1_000);
        meter.finish(125);
        assert!(meter.grant(false).is_some());
    }

    #[test]
    fn a_bot_that_holds_nothing_grants_all_it_owes() {
        let mut meter = Meter::new(1_000, 1_000_000);
        assert_eq!(meter.grant(true), None);
        meter.finish(1);
        assert!(meter.grant(true).is_some());
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
