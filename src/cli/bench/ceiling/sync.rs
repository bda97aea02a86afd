//! `fdatasync` after each small append to a file whose length is set beforehand, as that of a journal
//! is.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use tokio::time::Instant;

use super::{MEASURED, WARMUP};
use crate::cli::bench::latency::Latencies;

/// As long as the journal of `fjall` is made. Longer ones grow.
const LENGTH_BYTES: u64 = 64 << 20;

pub(super) fn measure(folder: &Path, bytes: usize) -> anyhow::Result<Latencies> {
    let mut file = File::create(folder.join("sync")).context("cannot make a file")?;
    file.set_len(LENGTH_BYTES)?;
    let write = vec![b'x'; bytes];
    let mut latencies = Latencies::new()?;
    let begin = Instant::now() + WARMUP;
    let end = begin + MEASURED;
    loop {
        let start = Instant::now();
        file.write_all(&write)?;
        file.sync_data()?;
        let now = Instant::now();
        if now >= end {
            return Ok(latencies);
        }
        if now >= begin {
            latencies.record(now - start);
        }
    }
}
