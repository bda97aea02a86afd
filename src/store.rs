//! The store: atomic durable batches and ordered range reads, and nothing else.
//!
//! [`Store`] is the seam. [`contract`] is what every implementation promises, as tests.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub mod keys;
pub mod record;

pub mod embedded;
pub mod memory;

#[doc(hidden)]
pub mod contract;

pub use embedded::Embedded;
pub use keys::{About, Key, KeyRange, ListBy, Table};
pub use memory::Memory;

/// A place that keeps records by key.
///
/// All methods block, on a lock if not on a disk; call them from a thread that may.
///
/// Commits take effect in one order, the same for every reader and for a crash: what is found
/// after one is everything up to some commit of that order, and nothing of any later one. Every
/// [`Durability::Synced`] commit that succeeded is within it.
pub trait Store: Send + Sync + 'static {
    /// Applies all writes of `batch`, or none of them.
    ///
    /// Writes apply in the order in which they were added, so of several to one key the last one
    /// stays. When this returns, reads by any thread see all of the batch; before that they see
    /// all of it or nothing. An empty batch writes nothing; synced, it makes earlier buffered ones
    /// durable, as any other does.
    ///
    /// Commits of several threads may share one sync. Two commits where neither caller waited for
    /// the other may take effect in either order.
    ///
    /// # Errors
    ///
    /// [`Error::may_have_been_written`] says whether the batch may be there all the same, now or
    /// after the store was opened again. If it is, it is whole. Nothing else is ever left behind.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), Error>;

    /// Whether a synced commit may take so long that its caller should do something else meanwhile:
    /// then it is called on another thread when there is something else to do.
    fn blocks(&self) -> bool {
        true
    }

    /// Returns the value of `key`, or `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] or [`Error::Corrupt`] when it cannot be read.
    fn get(&self, key: &Key<'_>) -> Result<Option<Bytes>, Error>;

    /// Visits the entries of `range` in key order, or against it, until the visitor breaks.
    ///
    /// The visitor sees the range as it was at one moment of the call: commits made meanwhile,
    /// if any, are not seen. It is handed the encoded key, for which [`keys`] has decoders,
    /// and the value. It must not call the store it is visiting.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] or [`Error::Corrupt`] when an entry cannot be read; those before it were
    /// visited.
    fn scan(
        &self,
        range: &KeyRange,
        order: Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// Returns how many bytes may still be stored, for deciding whether to take new appends.
    ///
    /// An estimate: others may use the same disk. Cheap enough for once a second.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] when it cannot be found out.
    fn free_bytes(&self) -> Result<u64, Error>;
}

/// When a commit has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// When it was handed to the operating system: it survives the end of the process, however it
    /// ends, but not that of the machine. Durable with the next [`Synced`](Self::Synced) commit.
    Buffered,
    /// When it is on disk, or stored by a quorum.
    Synced,
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// From the lowest key to the highest.
    Ascending,
    /// From the highest key to the lowest.
    Descending,
}

/// Writes that take effect together.
#[derive(Clone, Default)]
pub struct Batch {
    writes: Vec<Span>,
    /// Keys and values, one behind the other: a write costs no allocation of its own.
    bytes: Vec<u8>,
}

/// Where a write ends in the bytes of its batch. It begins where the one before it ends.
#[derive(Clone, Copy)]
struct Span {
    key_end: usize,
    value_end: usize,
    is_put: bool,
}

/// One write of a batch, as implementations of [`Store`] get it.
#[derive(Clone, Copy)]
pub struct Write<'b> {
    /// The encoded key; its first byte says the table.
    pub key: &'b [u8],
    /// The value to put; `None` deletes the key.
    pub value: Option<&'b [u8]>,
}

impl Batch {
    /// Creates an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`, whether or not it was set.
    pub fn put(&mut self, key: &Key<'_>, value: impl AsRef<[u8]>) {
        self.put_with(key, |to| to.extend_from_slice(value.as_ref()));
    }

    /// Sets `key` to what `write` appends, whether or not it was set.
    pub fn put_with(&mut self, key: &Key<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        key.encode_into(&mut self.bytes);
        let key_end = self.bytes.len();
        write(&mut self.bytes);
        self.push(key_end, true);
    }

    /// Sets a key in the encoded form in which a scan handed it out.
    pub fn put_encoded(&mut self, key: &[u8], value: &[u8]) {
        debug_assert!(
            key.first().copied().and_then(Table::from_tag).is_some(),
            "the key must be one that a scan handed out"
        );
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.push(key_end, true);
    }

    /// Removes `key`, whether or not it was set.
    pub fn delete(&mut self, key: &Key<'_>) {
        key.encode_into(&mut self.bytes);
        self.push(self.bytes.len(), false);
    }

    /// Removes a key in the encoded form in which a scan handed it out.
    pub fn delete_encoded(&mut self, key: &[u8]) {
        debug_assert!(
            key.first().copied().and_then(Table::from_tag).is_some(),
            "the key must be one that a scan handed out"
        );
        self.bytes.extend_from_slice(key);
        self.push(self.bytes.len(), false);
    }

    /// Adds the writes of `other` after those of this batch.
    pub fn append(&mut self, other: &Self) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.writes.extend(other.writes.iter().map(|span| Span {
            key_end: before + span.key_end,
            value_end: before + span.value_end,
            ..*span
        }));
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many writes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// How many bytes the keys and values have together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The writes, in the order in which they apply.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        let mut start = 0;
        self.writes.iter().map(move |span| {
            let (key, value) = (start..span.key_end, span.key_end..span.value_end);
            start = span.value_end;
            Write {
                key: &self.bytes[key],
                value: span.is_put.then(|| &self.bytes[value]),
            }
        })
    }

    fn push(&mut self, key_end: usize, is_put: bool) {
        self.writes.push(Span {
            key_end,
            value_end: self.bytes.len(),
            is_put,
        });
    }
}

/// Prints sizes only: keys and values are what users said.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// What underlies an [`Error::Failed`]; shared, because commits that shared a sync share its fate.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or whatever is below, failed. A commit may have been written.
    #[error("the store at `{place}` failed")]
    Failed {
        /// The path or address of the store.
        place: String,
        /// What failed.
        source: Source,
    },

    /// There is no room left. A commit may have been written. The store takes no more of them
    /// until it is opened again with room.
    #[error("the store at `{place}` is full; free some space and restart the gateway")]
    Full {
        /// The path or address of the store.
        place: String,
    },

    /// An earlier commit failed, so that the store cannot know what is on disk; it takes no more
    /// until it is opened again. Nothing was written.
    #[error("the store at `{place}` takes no more writes since one failed; restart the gateway")]
    Stopped {
        /// The path or address of the store.
        place: String,
    },

    /// The batch can never be stored, because a key is too long. Nothing was written.
    #[error("a key of {bytes} bytes is over the store's limit of {limit}")]
    KeyTooLong {
        /// The length of the encoded key.
        bytes: usize,
        /// The greatest length.
        limit: usize,
    },

    /// Another process has the store open. Nothing was written.
    #[error("the store at `{}` is in use by another process", path.display())]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },

    /// What was read is not what was written. Nothing was written.
    #[error("the store is damaged: {what}; restore it from a backup")]
    Corrupt {
        /// What is damaged, and how it was noticed.
        what: String,
    },

    /// The store was written by a gateway of another time. Nothing was written.
    #[error(
        "the store has format {found}, and this gateway reads format {supported}; use a gateway of \
         the store's time, or another data folder"
    )]
    Format {
        /// The store's format.
        found: u32,
        /// The format this gateway reads.
        supported: u32,
    },
}

impl Error {
    /// Whether the batch of the failed commit may be in the store, now or when it is next opened.
    #[must_use]
    pub fn may_have_been_written(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Full { .. } => true,
            Self::Stopped { .. }
            | Self::KeyTooLong { .. }
            | Self::InUse { .. }
            | Self::Corrupt { .. }
            | Self::Format { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
