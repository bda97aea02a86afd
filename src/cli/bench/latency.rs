//! How long things took.

use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;

/// Longest latency told apart, in nanoseconds: ten minutes. Longer ones count as that.
const LONGEST: u64 = 600_000_000_000;

/// Latencies of whatever is measured, in nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        Ok(Self(histogram.context("cannot make a histogram")?))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// Records the same latency of several.
    pub(super) fn record_many(&mut self, latency: Duration, count: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(nanoseconds, count);
    }

    /// Takes in what another task measured.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.0.add(&other.0).context("cannot add up latencies")
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn per_second(&self, measured: Duration) -> f64 {
        self.count() as f64 / measured.as_secs_f64()
    }

    /// Milliseconds that a share of them took at most: `0.5` is the median. `None` of none.
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| milliseconds(self.0.value_at_quantile(quantile)))
    }

    pub(super) fn max_ms(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| milliseconds(self.0.max()))
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_add_up_and_rates_are_by_the_second() -> anyhow::Result<()> {
        let mut all = Latencies::new()?;
        for milliseconds in [1, 3] {
            let mut one = Latencies::new()?;
            for _ in 0..500 {
                one.record(Duration::from_millis(milliseconds));
            }
            all.add(&one)?;
        }
        assert_eq!(all.count(), 1_000);
        assert!((all.per_second(Duration::from_secs(4)) - 250.0).abs() < f64::EPSILON);
        assert!((all.quantile_ms(0.5).unwrap_or_default() - 1.0).abs() < 0.01);
        assert!((all.quantile_ms(0.99).unwrap_or_default() - 3.0).abs() < 0.01);
        Ok(())
    }

    #[test]
    fn nothing_took_no_time_rather_than_none() -> anyhow::Result<()> {
        let none = Latencies::new()?;
        assert_eq!((none.quantile_ms(0.5), none.max_ms()), (None, None));
        Ok(())
    }
}
