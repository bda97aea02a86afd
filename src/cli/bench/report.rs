//! What was measured, added up and printed.

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::facts::Facts;
use super::load::Level;
use crate::cli::escape;
use crate::cli::output::{self, Palette};

/// Longest latency told apart, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// How the measurement was set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) seconds: u64,
    pub(super) warmup: u64,
    pub(super) size: u32,
    pub(super) streams: u16,
    pub(super) threads: u16,
}

/// Latencies in nanoseconds, to three digits.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST, 3).context("cannot make a histogram")
}

/// The turns of all streams of a level.
#[derive(Debug)]
pub(super) struct Turns(Histogram<u64>);

impl Turns {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(histogram()?))
    }

    pub(super) fn add(&mut self, stream: &Histogram<u64>) -> anyhow::Result<()> {
        self.0.add(stream).context("cannot add up the turns")
    }

    pub(super) fn row(&self, level: &Level) -> Row {
        let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        Row {
            conversations: level.conversations,
            turns: self.0.len(),
            turns_per_second: self.0.len() as f64 / level.measured.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(self.0.max()),
        }
    }
}

/// One level. Latencies are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    conversations: usize,
    turns: u64,
    turns_per_second: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Row {
    fn line(&self) -> String {
        format!(
            "{:>13}  {:>10}  {:>9.0}  {:>9.3}  {:>9.3}  {:>9.3}  {:>9.3}",
            self.conversations,
            self.turns,
            self.turns_per_second,
            self.p50,
            self.p99,
            self.p999,
            self.max
        )
    }

    fn json(&self) -> Value {
        json!({
            "conversations": self.conversations,
            "turns": self.turns,
            "turnsPerSecond": self.turns_per_second,
            "p50Ms": self.p50,
            "p99Ms": self.p99,
            "p999Ms": self.p999,
            "maxMs": self.max,
        })
    }
}

/// Prints the facts and the headings.
pub(super) fn head(facts: &Facts) -> anyhow::Result<()> {
    let palette = Palette::of_stdout();
    output::line(&palette.dim(&escape::line(&facts.line())))?;
    if facts.is_debug() {
        eprintln!("warning: this is a debug build, many times slower than a release build");
    }
    if facts.in_memory {
        eprintln!(
            "warning: the data is in memory, where a sync costs nothing; give a disk with `--data`"
        );
    }
    output::line(&palette.bold(&format!(
        "{:>13}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
        "conversations", "turns", "turns/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
    )))
}

/// Prints a level.
pub(super) fn row(row: &Row) -> anyhow::Result<()> {
    output::line(&row.line())
}

/// Prints everything as one document.
pub(super) fn json(facts: &Facts, rows: &[Row]) -> anyhow::Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    output::json(&json!({ "benchmark": "turns", "facts": facts.json(), "levels": rows }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn streams_add_up_and_rates_are_by_the_second() -> anyhow::Result<()> {
        let mut turns = Turns::new()?;
        for latency in [1_000_000, 3_000_000] {
            let mut stream = histogram()?;
            stream.record_n(latency, 500)?;
            turns.add(&stream)?;
        }
        let row = turns.row(&Level {
            conversations: 2,
            streams: 2,
            size: 450,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(4),
            channel: String::new(),
            bot: String::new(),
        });
        assert_eq!(row.turns, 1_000);
        assert!((row.turns_per_second - 250.0).abs() < f64::EPSILON);
        assert!((row.p50 - 1.0).abs() < 0.01, "{row:?}");
        assert!((row.p99 - 3.0).abs() < 0.01, "{row:?}");
        Ok(())
    }

    #[test]
    fn a_level_without_turns_has_a_row() -> anyhow::Result<()> {
        let row = Turns::new()?.row(&Level {
            conversations: 1,
            streams: 1,
            size: 450,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(1),
            channel: String::new(),
            bot: String::new(),
        });
        assert_eq!((row.turns, row.p50), (0, 0.0));
        Ok(())
    }
}
