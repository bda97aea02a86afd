//! A backup: everything that a gateway keeps, as one file.
//!
//! ```text
//! "turnwire backup\n"              16 bytes
//! kind: u8, length: u32, body      again and again: the header; the store's records in key order;
//!                                  the uploaded files, each with its bytes in pieces; the end
//! SHA-256                          of all that is before it, 32 bytes
//! ```
//!
//! Numbers are big endian. The store's records are of one moment, and the files were looked for after it:
//! those that the records name are there, unless they were removed meanwhile. The end has counts, and
//! nothing comes after the checksum, so that a part of a backup is never taken for a whole one.

mod folder;
mod fresh;
mod read;
mod restore;
mod write;

use std::io;
use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::store;

pub use folder::{Unfinished, check};
pub use read::{Reader, Record};
pub use restore::restore;
pub use write::write;

/// The layout that is written and read.
pub const FORMAT: u32 = 1;

/// What a backup begins with.
const MAGIC: &[u8; 16] = b"turnwire backup\n";
/// How much is handed on at a time, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// The largest body, in bytes: more than the store takes as one value. What says more is damaged.
const BODY_BYTES: usize = 256 * 1024 * 1024;
/// How many bytes of an uploaded file stand in one record.
const PIECE_BYTES: usize = 64 * 1024;

/// What a record is. Never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// `storage.BackupHeader`.
    Header = 1,
    /// Of the store: the key's length as u16, the key, the value.
    Entry = 2,
    /// `storage.BackupFile`.
    File = 3,
    /// The next bytes of the file before it.
    Piece = 4,
    /// `storage.BackupEnd`.
    End = 5,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Header,
        Self::Entry,
        Self::File,
        Self::Piece,
        Self::End,
    ];

    fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == tag)
    }
}

/// What is in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// When it began: nothing later is in it.
    pub time: Timestamp,
    /// Records of the store.
    pub records: u64,
    /// Uploaded files.
    pub files: u64,
    /// All its bytes.
    pub bytes: u64,
    /// SHA-256 of all of them.
    pub sha256: [u8; 32],
}

impl Summary {
    /// The digest as `sha256sum` prints it.
    #[must_use]
    pub fn sha256_text(&self) -> String {
        self.sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Why there is no backup, or none of use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read, or the new one cannot be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Uploaded files cannot be read, or not be written again.
    #[error("the uploaded files cannot be read or written")]
    Files(#[source] io::Error),
    /// It cannot be written, or handed on.
    #[error("the backup cannot be written")]
    Written(#[source] io::Error),
    /// It cannot be read.
    #[error("the backup cannot be read")]
    Read(#[source] io::Error),
    /// It is not what was written, or not all of it.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// It was written by a gateway of another time.
    #[error(
        "{what} has format {found}, and this gateway reads format {supported}; use a gateway \
         of the backup's time"
    )]
    Format {
        /// The backup, or the store in it.
        what: &'static str,
        /// What it has.
        found: u32,
        /// What this gateway reads.
        supported: u32,
    },
    /// There is something where the new folder is to be.
    #[error("`{}` is not empty: name a folder that is new", .0.display())]
    Occupied(PathBuf),
    /// The new folder cannot be made.
    #[error("the folder `{}` cannot be written", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
