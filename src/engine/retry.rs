//! How long to wait before another attempt.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Waits after the first, second, third and every later attempt.
const BACKOFF: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// Share of the wait by which it is made longer or shorter, so that what failed together does not
/// come back together.
const JITTER: f64 = 0.2;

/// The wait after attempt number `attempt`, counted from 1.
pub(super) fn backoff(attempt: u32, random: &mut impl Rng) -> Duration {
    let step = (attempt.max(1) as usize - 1).min(BACKOFF.len() - 1);
    BACKOFF[step].mul_f64(1.0 + random.random_range(-JITTER..JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waits_grow_with_the_attempt_and_stay_within_the_jitter() {
        let mut random = rand::rngs::SmallRng::seed_from_u64(7);
        for (attempt, seconds) in [
            (0, 1.0),
            (1, 1.0),
            (2, 5.0),
            (3, 30.0),
            (4, 120.0),
            (99, 120.0),
        ] {
            let wait = backoff(attempt, &mut random).as_secs_f64();
            assert!(
                (seconds * 0.8..seconds * 1.2).contains(&wait),
                "attempt {attempt}: {wait}"
            );
        }
    }
}
