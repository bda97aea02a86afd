//! The wish to read the configuration again, from an operator or a supervisor.

use std::path::PathBuf;

use crate::config::Overrides;
use crate::server::Reloader;

/// Reads the configuration again on each SIGHUP, for as long as the process runs; signals that come
/// while it is being read are one. The log says what came of it.
#[cfg(unix)]
pub(super) fn reload_on(
    reloader: Reloader,
    config: PathBuf,
    overrides: Overrides,
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    // Before anyone is told that the gateway is there: without it, the signal would end the process.
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // Logged where it was decided.
            let _ = reloader.reload_file(&config, &overrides).await;
        }
    });
    Ok(())
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(super) fn reload_on(_: Reloader, _: PathBuf, _: Overrides) -> anyhow::Result<()> {
    Ok(())
}
