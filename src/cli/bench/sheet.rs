//! The table of benchmarks that measure turns: ceilings, Turnwire, its peers, and how they compare.

use super::ceiling::Ceilings;
use super::facts::Facts;
use super::latency::Latencies;
use super::load::{Level, Measured};
use super::report::{Cell, Column, Table};
use super::run::Outcome;

/// Turns that are over in the measured time, of those that should have begun in it, when a rate was
/// kept up. Fewer may be by chance of a moment, as long as no conversation has a turn that waits for
/// another one.
const KEPT_UP: f64 = 0.99;

const SYSTEM: Column = Column::text("system", "system", 20);
const CONVERSATIONS: Column = Column::count("conversations", "conversations");
const TURNS: Column = Column::count("turns", "turns");
const TURNS_PER_SECOND: Column = Column::number("turns/s", "turnsPerSecond", 0);
const P50: Column = Column::number("p50 ms", "p50Ms", 3);
const P90: Column = Column::number("p90 ms", "p90Ms", 3);
const P99: Column = Column::number("p99 ms", "p99Ms", 3);
const P999: Column = Column::number("p99.9 ms", "p999Ms", 3);
const MAX: Column = Column::number("max ms", "maxMs", 3);
const OF_ECHO: Column = Column::share("of echo", "shareOfEcho");
const OF_COMMIT: Column = Column::share("of commit", "shareOfCommit");
/// How many times as many turns a second Turnwire made as this one.
const RATIO: Column = Column::number("turnwire/it", "turnwireOverIt", 2);

/// How many times as long as Turnwire's this one's 99th percentile is.
const P99_RATIO: Column = Column::number("p99/turnwire", "p99OverTurnwire", 2);

const CLOSED: &[Column] = &[
    SYSTEM,
    CONVERSATIONS,
    TURNS,
    TURNS_PER_SECOND,
    P50,
    P90,
    P99,
    P999,
    MAX,
    OF_ECHO,
    OF_COMMIT,
    RATIO,
];

const OPEN: &[Column] = &[
    SYSTEM,
    CONVERSATIONS,
    Column::number("offered/s", "offeredPerSecond", 0),
    TURNS_PER_SECOND,
    P50,
    P90,
    P99,
    P999,
    MAX,
    Column::count("backlog", "backlog"),
    Column::count("unanswered", "unanswered"),
    OF_ECHO,
    OF_COMMIT,
    P99_RATIO,
];

pub(super) struct Sheet {
    table: Table,
    is_open: bool,
    /// What the present level's ceilings allow, in turns a second.
    echo: Option<f64>,
    commit: Option<f64>,
    /// What Turnwire made of the present level: turns a second, and the 99th percentile of their
    /// latency.
    turnwire: Option<(f64, f64)>,
}

/// What a row is about.
struct Row<'a> {
    system: &'a str,
    level: &'a Level,
    turns: u64,
    per_second: f64,
    latencies: &'a Latencies,
    /// Turns that were not over at the end, and those that never were.
    left: Option<(u64, u64)>,
}

impl Sheet {
    /// For turns that follow one another, or for turns that begin at fixed times (`is_open`).
    pub(super) fn begin(
        benchmark: &'static str,
        facts: &Facts,
        is_open: bool,
        json: bool,
    ) -> anyhow::Result<Self> {
        let columns = if is_open { OPEN } else { CLOSED };
        Ok(Self {
            table: Table::begin(benchmark, facts, columns, json)?,
            is_open,
            echo: None,
            commit: None,
            turnwire: None,
        })
    }

    /// Says what the machine allows, and measures the rows that follow by it.
    pub(super) fn ceilings(&mut self, level: &Level, ceilings: &Ceilings) -> anyhow::Result<()> {
        self.turnwire = None;
        self.echo = Some(ceilings.echo.per_second());
        self.commit = Some(ceilings.commit.per_second());
        let rows = [
            ("ceiling: echo", &ceilings.echo),
            ("ceiling: commit", &ceilings.commit),
        ];
        for (system, ceiling) in rows {
            self.row(&Row {
                system,
                level,
                turns: ceiling.turns.count(),
                per_second: ceiling.per_second(),
                latencies: &ceiling.turns,
                left: None,
            })?;
        }
        Ok(())
    }

    /// Adds what a system made of a level. Turnwire comes first.
    pub(super) fn outcome(
        &mut self,
        system: &str,
        is_turnwire: bool,
        level: &Level,
        outcome: &Outcome,
    ) -> anyhow::Result<()> {
        let Measured {
            latencies, within, ..
        } = &outcome.measured;
        let per_second = *within as f64 / level.measured.as_secs_f64();
        let p99 = latencies.quantile_ms(0.99).unwrap_or_default();
        if is_turnwire {
            self.turnwire = None;
        }
        self.row(&Row {
            system,
            level,
            turns: *within,
            per_second,
            latencies,
            left: Some((outcome.backlog, outcome.unanswered)),
        })?;
        if is_turnwire {
            self.turnwire = Some((per_second, p99));
        }
        let Some(rate) = level.rate else {
            return Ok(());
        };
        if per_second < KEPT_UP * rate && outcome.backlog > level.conversations as u64 {
            self.table.note(&format!(
                "{system} did not keep up with {rate:.0} turns a second; its latencies grow with \
                 the time that is measured"
            ))?;
        }
        Ok(())
    }

    pub(super) fn end(self) -> anyhow::Result<()> {
        self.table.end()
    }

    fn row(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let is_ceiling = row.left.is_none();
        let share = |ceiling: Option<f64>| -> Cell {
            let ceiling = ceiling.filter(|ceiling| !is_ceiling && *ceiling > 0.0);
            ceiling.map(|ceiling| row.per_second / ceiling).into()
        };
        let ratio = self.turnwire.map(|(per_second, p99)| {
            if self.is_open {
                row.latencies.quantile_ms(0.99).unwrap_or_default() / p99
            } else {
                per_second / row.per_second
            }
        });
        let mut cells: Vec<Cell> = vec![row.system.into(), row.level.conversations.into()];
        if self.is_open {
            cells.push(row.level.rate.filter(|_| !is_ceiling).into());
        } else {
            cells.push(row.turns.into());
        }
        cells.push(row.per_second.into());
        for quantile in [0.5, 0.9, 0.99, 0.999] {
            cells.push(row.latencies.quantile_ms(quantile).into());
        }
        cells.push(row.latencies.max_ms().into());
        if self.is_open {
            cells.push(row.left.map(|(backlog, _)| backlog).into());
            cells.push(row.left.map(|(_, unanswered)| unanswered).into());
        }
        cells.push(share(self.echo));
        cells.push(share(self.commit));
        cells.push(ratio.into());
        self.table.row(&cells)
    }
}
