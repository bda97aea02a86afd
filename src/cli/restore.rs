//! `turnwire restore`: makes a data folder of a backup.

use std::path::PathBuf;

use super::backup::{document, sentence};
use super::output;
use crate::backup;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The backup, as `turnwire backup` made it
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// The data folder to make: new, or empty
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: PathBuf,
}

/// Checks the whole backup first. What is interrupted leaves a folder whose name says `unfinished`.
pub(super) async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let Args { from, data_dir } = args;
    let folder = data_dir.display().to_string();
    let restored = tokio::task::spawn_blocking(move || backup::restore(&from, &data_dir));
    let summary = restored.await??;
    if json {
        return output::json(&document(&folder, &summary));
    }
    output::line(&sentence("restored to", &folder, &summary))
}
