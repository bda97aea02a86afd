//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double up to a ceiling, each cut by a random part.
///
/// Without the random part, every client of a gateway that restarts would come back in the same
/// instant, and again after each refusal.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with waits of up to `first`, which double up to `ceiling`.
    #[must_use]
    pub fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            failures: 0,
        }
    }

    /// Counts a failure and says how long to wait now.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay(crate::random::fraction());
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Forgets the failures: what was tried has worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait for a random number from 0 to 1: between a half and all of the doubled time.
    fn delay(&self, random: f64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.ceiling);
        doubled.mul_f64(0.5 + random / 2.0)
    }
}

impl Default for Backoff {
    /// From 100 ms to 10 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(backoff.delay(1.0).as_millis());
            backoff.next_delay();
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn waits_are_never_shorter_than_half_and_never_longer_than_the_ceiling() {
        let mut backoff = Backoff::default();
        for failure in 0..200_u32 {
            assert_eq!(backoff.delay(0.0), backoff.delay(1.0) / 2);
            let delay = backoff.next_delay();
            assert!(delay >= Duration::from_millis(50), "failure {failure}");
            assert!(delay <= Duration::from_secs(10), "failure {failure}");
        }
    }

    #[test]
    fn success_starts_again_from_the_first_wait() {
        let mut backoff = Backoff::default();
        backoff.next_delay();
        backoff.next_delay();
        backoff.reset();
        assert_eq!(backoff.delay(1.0), Duration::from_millis(100));
    }
}
