//! `turnwire backup`: copies everything that a gateway keeps.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use turnwire_client::proto::BackupSummary;

use super::connection::Connection;
use super::exit::Usage;
use super::{escape, output};
use crate::activity::timestamp;
use crate::backup::{self, Summary, Unfinished};
use crate::clock::{Clock, System, Timestamp};
use crate::files::{self, Files};
use crate::store;
use crate::store::embedded::{Embedded, Options};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to make. It appears when the backup is whole
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Copy this data folder, of a gateway that does not run, instead of asking one that does
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let Args { to, data_dir } = args;
    let folder = to.display().to_string();
    let summary = match data_dir {
        // A copy of the disk blocks.
        Some(data) => tokio::task::spawn_blocking(move || of_folder(&data, &to)).await??,
        None => of_gateway(connection, &to).await?,
    };
    if json {
        return output::json(&document(&folder, &summary));
    }
    output::line(&sentence("backed up to", &folder, &summary))
}

/// Asks a gateway that runs.
async fn of_gateway(connection: &Connection, to: &Path) -> anyhow::Result<Summary> {
    // Before anyone is asked for anything.
    let mut unfinished = Unfinished::begin(to)?;
    let client = connection.open().await?;
    let mut backup = client.admin().backup().await?;
    while let Some(chunk) = backup.next().await? {
        unfinished.add(&chunk).context("cannot write the backup")?;
    }
    let summary = backup.summary().and_then(converted);
    let summary = summary.context("the gateway's summary of the backup makes no sense")?;
    unfinished.finish(&summary)?;
    Ok(summary)
}

/// Reads the data folder of one that does not.
fn of_folder(data: &Path, to: &Path) -> anyhow::Result<Summary> {
    if !Embedded::is_at(data) {
        let data = data.display();
        return Err(Usage(format!("`{data}` is no data folder of a gateway")).into());
    }
    let mut unfinished = Unfinished::begin(to)?;
    let store = match Embedded::open(data, &Options::default()) {
        Err(error @ store::Error::InUse { .. }) => {
            bail!("{error}; leave `--data-dir` out to back up a gateway that runs")
        }
        opened => opened.context("cannot open the store")?,
    };
    let clock = Arc::new(System);
    let now = clock.now();
    let files = Files::new(data.join(files::FOLDER), Duration::ZERO, clock);
    let mut take = |chunk: bytes::Bytes| -> io::Result<()> { unfinished.add(&chunk) };
    let summary = backup::write(&store, &files, now, &mut take)?;
    unfinished.finish(&summary)?;
    Ok(summary)
}

fn converted(summary: &BackupSummary) -> Option<Summary> {
    let time = summary.time.as_ref()?;
    let seconds = u64::try_from(time.seconds).ok()?;
    let millis = u64::try_from(time.nanos / 1_000_000).ok()?;
    Some(Summary {
        time: Timestamp(seconds.checked_mul(1_000)?.checked_add(millis)?),
        records: summary.records,
        files: summary.files,
        bytes: summary.bytes,
        sha256: summary.sha256.as_ref().try_into().ok()?,
    })
}

/// What became of a backup, for people.
pub(super) fn sentence(what: &str, folder: &str, summary: &Summary) -> String {
    let Summary {
        records,
        files,
        bytes,
        ..
    } = summary;
    let folder = escape::line(folder);
    let time = timestamp::format(summary.time);
    format!("{what} {folder}: {records} records, {files} files, {bytes} bytes, as of {time}")
}

/// The same, for programs.
pub(super) fn document(folder: &str, summary: &Summary) -> Value {
    json!({
        "folder": folder,
        "time": timestamp::format(summary.time),
        "records": summary.records,
        "files": summary.files,
        "bytes": summary.bytes,
        "sha256": summary.sha256_text(),
    })
}
