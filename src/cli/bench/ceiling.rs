//! What the machine could do at most, measured in the same run: a figure of one machine means
//! something on another only beside these.
//!
//! Each is a turn with all but one part left out. `echo` sends the messages of a turn through two
//! processes and stores nothing; `commit` stores what a turn stores and sends nothing; `sync` is
//! what a store waits for. Turnwire, which does both, is below each.

mod commit;
pub(super) mod echo;
mod sync;

use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::facts::Facts;
use super::flags::Flags;
use super::latency::Latencies;
use super::load::Level;
use crate::cli::scratch::Scratch;

/// How long each is measured, and how long it runs before that.
const MEASURED: Duration = Duration::from_millis(1_500);
const WARMUP: Duration = Duration::from_millis(500);

/// What a ceiling allows.
#[derive(Debug)]
pub(super) struct Ceiling {
    pub(super) turns: Latencies,
}

/// Those of a level: with as many conversations at a time, and messages of its size.
#[derive(Debug)]
pub(super) struct Ceilings {
    pub(super) echo: Ceiling,
    pub(super) commit: Ceiling,
}

impl Ceiling {
    pub(super) fn per_second(&self) -> f64 {
        self.turns.per_second(MEASURED)
    }
}

impl Ceilings {
    pub(super) async fn measure(level: &Level, flags: &Flags) -> anyhow::Result<Self> {
        let echo = echo::measure(level).await.context("the ceiling `echo`")?;
        let scratch = Scratch::new(flags.target.data.as_deref(), "ceiling")?;
        let (conversations, size) = (level.conversations, level.size);
        // It blocks, and nothing else is to be done meanwhile.
        let commit = tokio::task::spawn_blocking(move || {
            commit::measure(scratch.path(), conversations, size)
        });
        let commit = commit.await?.context("the ceiling `commit`")?;
        Ok(Self {
            echo: Ceiling { turns: echo },
            commit: Ceiling { turns: commit },
        })
    }
}

/// Measures the disk, and adds that to the facts.
pub(super) async fn with_sync(facts: Facts, flags: &Flags) -> anyhow::Result<Facts> {
    let scratch = Scratch::new(flags.target.data.as_deref(), "ceiling")?;
    let bytes = commit::QUESTION_BYTES + flags.size as usize;
    let syncs = tokio::task::spawn_blocking(move || sync::measure(scratch.path(), bytes));
    let syncs = syncs.await?.context("the ceiling `sync`")?;
    let per_second = syncs.per_second(MEASURED);
    let [p50, p99] = [0.5, 0.99].map(|quantile| syncs.quantile_ms(quantile));
    let line = format!(
        "fdatasync of {bytes} appended bytes: {per_second:.0}/s, p50 {:.3} ms, p99 {:.3} ms; a \
         lone turn waits for two",
        p50.unwrap_or_default(),
        p99.unwrap_or_default(),
    );
    let value = json!({ "bytes": bytes, "perSecond": per_second, "p50Ms": p50, "p99Ms": p99 });
    Ok(facts.measured("fdatasync", line, value))
}
