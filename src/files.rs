//! Files that users send: kept on disk beside the store, whole days of them removed together.
//!
//! ```text
//! <root>/incoming/<id>          what is being written; nobody is told of it
//! <root>/<day>/<random>         what was sent
//! <root>/<day>/<random>.json    its type, name and size
//! ```
//!
//! They are not in the store, because its log would copy them again and again as it is compacted, and a
//! file can be sent piece by piece. All work on the disk is done on threads that may block.

mod about;
mod id;
mod incoming;
mod stored;

use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, fs};

use crate::clock::{Clock, Timestamp};

pub use about::{About, clean_name};
pub use id::FileId;
pub use incoming::{Incoming, Published};
pub use stored::Stored;

/// The folder of files, in the data folder.
pub const FOLDER: &str = "attachments";

/// Where files are while they are written.
const INCOMING: &str = "incoming";
/// Most files that one sweep removes.
const SWEEP_FILES: usize = 1_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Every file that is kept. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// In milliseconds.
    retention: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was said of it.
    pub about: About,
    /// Its bytes.
    pub path: PathBuf,
    /// For how long it will be kept, at least. `None`: for ever.
    pub kept: Option<Duration>,
}

impl Files {
    /// Keeps files below `root` for `retention`, and for ever if that is zero. Nothing is made before
    /// the first is written.
    #[must_use]
    pub fn new(root: PathBuf, retention: Duration, clock: Arc<dyn Clock>) -> Self {
        let inner = Inner {
            root,
            retention: AtomicU64::new(millis(retention)),
            clock,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Keeps them for longer, or less long, from now on: also those that are there.
    pub fn keep_for(&self, retention: Duration) {
        let retention = millis(retention);
        self.inner.retention.store(retention, Ordering::Relaxed);
    }

    /// Begins to write files that are to be published together.
    #[must_use]
    pub fn begin(&self) -> Incoming {
        Incoming::new(self.clone(), day_of(self.inner.clock.now()))
    }

    /// Looks for a file. `None` when there is none, or none that is still to be had.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn find(&self, id: &FileId) -> io::Result<Option<Found>> {
        let now = self.inner.clock.now();
        if self.is_over(id.day(), now) {
            return Ok(None);
        }
        let kept = self.end_of(id.day()).map(|end| end.since(now));
        let path = self.path(id);
        blocking(move || {
            let about = match fs::read(beside(&path)) {
                Ok(about) => About::from_bytes(&about)?,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            // What is beside it is there first.
            if !path.try_exists()? {
                return Ok(None);
            }
            Ok(Some(Found { about, path, kept }))
        })
        .await
    }

    /// Removes what was not finished when the gateway ended. To be called before the first
    /// [`begin`](Self::begin).
    ///
    /// # Errors
    ///
    /// The folder cannot be read or written.
    pub async fn remove_leftovers(&self) -> io::Result<()> {
        let folder = self.inner.root.join(INCOMING);
        blocking(move || unless_gone(fs::remove_dir_all(folder))).await
    }

    /// Removes files of days that are over for as long as files are kept: a bounded number. Returns
    /// whether there are more.
    ///
    /// # Errors
    ///
    /// The folders cannot be read or written; what was removed until then is gone.
    pub async fn sweep(&self) -> io::Result<bool> {
        let files = self.clone();
        let now = self.inner.clock.now();
        blocking(move || {
            let mut left = SWEEP_FILES;
            for (day, folder) in days(&files.inner.root)? {
                if files.is_over(day, now) && !remove_day(&folder, &mut left)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// When files of a day are no longer kept.
    fn end_of(&self, day: u64) -> Option<Timestamp> {
        let retention = Duration::from_millis(self.inner.retention.load(Ordering::Relaxed));
        if retention.is_zero() {
            return None;
        }
        let begins = Timestamp(day.saturating_mul(DAY.as_millis() as u64));
        Some(begins.after(DAY).after(retention))
    }

    fn is_over(&self, day: u64, now: Timestamp) -> bool {
        self.end_of(day).is_some_and(|end| end <= now)
    }

    fn path(&self, id: &FileId) -> PathBuf {
        let folder = self.inner.root.join(id.day().to_string());
        folder.join(id.random())
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Files");
        f.field("root", &self.inner.root).finish_non_exhaustive()
    }
}

/// A whole number of them: more than a century fits.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Which day since 1970 it is.
fn day_of(time: Timestamp) -> u64 {
    time.0 / DAY.as_millis() as u64
}

/// Where a file's type, name and size are.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("json")
}

/// Every day that has a folder.
fn days(root: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut days = Vec::new();
    for entry in entries {
        let entry = entry?;
        // What is not ours is left alone.
        let name = entry.file_name();
        if let Some(day) = name.to_str().and_then(|name| name.parse().ok()) {
            days.push((day, entry.path()));
        }
    }
    Ok(days)
}

/// Returns whether it is gone, which it is not while there are more files than were left.
fn remove_day(folder: &Path, left: &mut usize) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let Some(fewer) = left.checked_sub(1) else {
            return Ok(false);
        };
        *left = fewer;
        unless_gone(fs::remove_file(entry?.path()))?;
    }
    unless_gone(fs::remove_dir(folder))?;
    Ok(true)
}

fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder that survives a crash, and those above it.
fn make_folder(path: &Path) -> io::Result<()> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match path.parent() {
            Some(above) => make_folder(above).and_then(|()| fs::create_dir(path)),
            None => Err(error),
        },
        other => other,
    };
    match made {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// What was put into the folder, or renamed in it, survives a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    // A relative path of one part has the empty one above it.
    let is_here = path.as_os_str().is_empty();
    fs::File::open(if is_here { Path::new(".") } else { path })?.sync_all()
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> impl Future<Output = io::Result<T>> + Send {
    let work = tokio::task::spawn_blocking(work);
    async {
        work.await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests;
