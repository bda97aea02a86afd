//! The store on the local disk: `fjall`, a log-structured merge tree with a journal.

use std::cell::Cell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError,
    OwnedWriteBatch, PersistMode,
};

use self::journal::Damage;
use self::rounds::Rounds;
use super::record::{self, FORMAT};
use super::{Batch, Durability, Error, Key, KeyRange, Order, Store, Table};
use crate::proto::storage;

mod journal;
mod rounds;
mod scan;

/// Its own file beside the database's: held before anything in the folder is looked at.
const LOCK: &str = "in_use.lock";
/// The database's own, with something in it once the database is whole.
const VERSION: &str = "version";

/// The length of a key is two bytes in the journal.
const KEY_LIMIT_BYTES: usize = u16::MAX as usize;

const MIB: u64 = 1024 * 1024;

/// Activities of so many bytes and more, which is all of them, are kept apart from their keys.
const SEPARATED_BYTES: u32 = 128;

/// How an [`Embedded`] store is opened. Every store can be opened with any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory for blocks read from disk, in bytes. Default 64 MiB.
    pub cache_bytes: u64,
    /// Memory in which activities gather before they become a file, in bytes; twice as much while
    /// one is written. Only taken when a store is created. Default 8 MiB: what is searched at each
    /// append should stay in the processor's cache.
    pub memtable_bytes: u64,
    /// How large full journals may be together before what keeps the oldest is written out, in bytes,
    /// at least 64 MiB. Opening a store replays them and the present one, of up to 64 MiB, too.
    /// Default 64 MiB: small tables that are seldom written would keep more of them than is replayed
    /// in a second.
    pub journal_bytes: u64,
    /// Threads that write out and merge files, at least 1. Default 1: of several the first one takes
    /// no merging, and spins while there is some that waits for the others.
    pub worker_threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * MIB,
            memtable_bytes: 8 * MIB,
            journal_bytes: 64 * MIB,
            worker_threads: 1,
        }
    }
}

/// A store in a folder of the local disk, which one process has open at a time.
pub struct Embedded {
    path: PathBuf,
    place: String,
    epoch: u32,
    rounds: Rounds,
    keyspaces: Keyspaces,
    database: Database,
    /// Released when all else is closed.
    _lock: File,
}

/// The tables, grouped by how they are written and read.
struct Keyspaces {
    hot: Keyspace,
    activities: Keyspace,
    idempotency: Keyspace,
    receipts: Keyspace,
    rest: Keyspace,
}

impl Embedded {
    /// Opens the store in the folder `path`, creating both if need be.
    ///
    /// Takes time in proportion to what was committed last, not to all that is stored. What the
    /// machine was writing when it went down is dropped, batch by whole batch.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] when another process has it open; [`Error::Format`] when a newer or older
    /// gateway wrote it; [`Error::Corrupt`] when it is damaged before its end; [`Error::Failed`] when the
    /// folder or its disk cannot be used.
    pub fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        let _opening = Opening::begin();
        let place = path.display().to_string();
        let failed = |error: io::Error| from_io(&place, error);

        make_folder(path).map_err(failed)?;
        let lock = lock(path, &place)?;
        remove_unfinished(path).map_err(failed)?;

        let last_batch = journal::check(path).map_err(|damage| match damage {
            Damage::Io(error) => failed(error),
            Damage::Corrupt(what) => Error::Corrupt { what },
        })?;
        let database = match open_database(path, options) {
            // Possibly the batch that was being written. The journal is as it was.
            Err(Failure::Fjall(fjall::Error::JournalRecovery(
                fjall::JournalRecoveryError::ChecksumMismatch,
            ))) if last_batch
                .as_ref()
                .map(journal::LastBatch::cut_if_torn)
                .transpose()
                .map_err(failed)?
                .is_some_and(|cut| cut) =>
            {
                open_database(path, options)
            }
            result => result,
        }
        .map_err(|failure| failure.at(path))?;

        let hot = keyspace(&database, "hot", || hot_options(options)).map_err(|f| f.at(path))?;
        let found = found(&hot).map_err(|failure| failure.at(path))?;
        let is_new = found.is_none();
        let meta = next_meta(found)?;
        let open = |name, create: fn(&Options) -> KeyspaceCreateOptions| {
            keyspace(&database, name, || create(options)).map_err(|failure| failure.at(path))
        };
        let keyspaces = Keyspaces {
            hot,
            activities: open("activities", activity_options)?,
            idempotency: open("idempotency", idempotency_options)?,
            receipts: open("receipts", receipt_options)?,
            rest: open("rest", rest_options)?,
        };
        let others = [
            &keyspaces.activities,
            &keyspaces.idempotency,
            &keyspaces.receipts,
            &keyspaces.rest,
        ];
        if is_new
            && others
                .iter()
                .any(|keyspace| keyspace.first_key_value().is_some())
        {
            // Ids made of an epoch that begins again would be made a second time.
            let what = "there are records, but not the store's own".to_owned();
            return Err(Error::Corrupt { what });
        }

        let store = Self {
            path: path.to_owned(),
            epoch: meta.epoch,
            rounds: Rounds::new(),
            keyspaces,
            database,
            place,
            _lock: lock,
        };
        let mut batch = Batch::new();
        record::put(&mut batch, &Key::Meta, &meta);
        store.commit(batch, Durability::Synced)?;
        Ok(store)
    }

    /// Whether there is a store in the folder `path`, open or not. [`open`](Self::open) would make one.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        let version = path.join(VERSION).metadata();
        version.is_ok_and(|metadata| metadata.len() > 0)
    }

    /// How often the store was opened, this time included: from 1, and durable, so that what is
    /// made of it is never made again.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), Failure> {
        let mode = match durability {
            // Out of the process, into the operating system.
            Durability::Buffered => PersistMode::Buffer,
            // Not `SyncAll`: what that adds is times and permissions. A new journal is synced, as
            // is its folder, before anything is written to it, and a file that grew has its length
            // synced by fdatasync too, as that is needed to read it.
            Durability::Synced => PersistMode::SyncData,
        };
        let mut writes = OwnedWriteBatch::with_capacity(self.database.clone(), batch.len())
            .durability(Some(mode));
        for write in batch.writes() {
            let Some(keyspace) = self.keyspaces.of_key(write.key) else {
                return Err(Failure::Panicked("a key of no table".to_owned()));
            };
            match write.value {
                Some(value) => writes.insert(keyspace, write.key, value),
                None => writes.remove(keyspace, write.key),
            }
        }
        guarded(|| writes.commit())
    }

    fn fail(&self, failure: Failure) -> Error {
        failure.at(&self.path)
    }
}

impl Store for Embedded {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        if batch.is_empty() {
            return match durability {
                Durability::Buffered => Ok(()),
                Durability::Synced => {
                    let synced = guarded(|| self.database.persist(PersistMode::SyncData));
                    synced.map_err(|failure| self.fail(failure))
                }
            };
        }
        // The database would cut the length short, and so write another key.
        if let Some(long) = batch
            .writes()
            .find(|write| write.key.len() > KEY_LIMIT_BYTES)
        {
            return Err(Error::KeyTooLong {
                bytes: long.key.len(),
                limit: KEY_LIMIT_BYTES,
            });
        }
        self.rounds
            .commit(batch, durability, &self.place, |batch, durability| {
                self.write(&batch, durability).map_err(|f| self.fail(f))
            })
    }

    fn get(&self, key: &Key<'_>) -> Result<Option<Bytes>, Error> {
        let keyspace = self.keyspaces.of(key.table());
        // A single value is old or new, never in between; and only what is in the journal is in memory.
        guarded(|| keyspace.get(key.encode()))
            .map(|value| value.map(Bytes::from_owner))
            .map_err(|failure| self.fail(failure))
    }

    fn scan(
        &self,
        range: &KeyRange,
        order: Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        scan::scan(
            &self.keyspaces,
            &self.database.snapshot(),
            range,
            order,
            visit,
        )
        .map_err(|failure| self.fail(failure))
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        let disk = rustix::fs::statvfs(&self.path)
            .map_err(|errno| from_io(&self.place, io::Error::from(errno)))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl Keyspaces {
    fn of(&self, table: Table) -> &Keyspace {
        match table {
            // Small, rewritten again and again or come and gone in a moment, and read by keys that
            // are mostly there.
            Table::Meta | Table::Head | Table::Live => &self.hot,
            // Most of the bytes: written once, read in order.
            Table::Activity => &self.activities,
            // Written once, read by keys that are mostly not there, removed in bulk.
            Table::Idempotency => &self.idempotency,
            // As many as activities that bots say, mostly written once, small, and seldom read.
            Table::Receipt => &self.receipts,
            // Seldom written.
            Table::SigningKey
            | Table::Conversation
            | Table::Member
            | Table::Listing
            | Table::DeadLetter
            | Table::Expiry
            | Table::State => &self.rest,
            Table::Scheduled | Table::ScheduledDue => &self.rest,
        }
    }

    fn of_key(&self, key: &[u8]) -> Option<&Keyspace> {
        let table = key.first().copied().and_then(Table::from_tag)?;
        Some(self.of(table))
    }
}

// The database keeps the options with which a keyspace was created: a change to these is for new
// stores only.

fn hot_options(_: &Options) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        // The same keys over and over: a larger one would hold more versions that nobody reads.
        .max_memtable_size(4 * MIB)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .expect_point_read_hits(true)
}

fn activity_options(options: &Options) -> KeyspaceCreateOptions {
    // Values go into files of their own, in the order in which they came, and only their places into
    // the tables that are sorted and merged. With the values in the tables, merging them took more of
    // the disk and of the processor than all else together. Reading a log is a read for each of its
    // activities in return, and what is live is read from memory anyway. Retention empties the
    // oldest files first, which are then removed whole.
    let separate = KvSeparationOptions::default()
        .separation_threshold(SEPARATED_BYTES)
        .compression(CompressionType::None);
    KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable_bytes)
        .with_kv_separation(Some(separate))
        .data_block_compression_policy(CompressionPolicy::disabled())
        // Nobody asks for a sequence that is not there.
        .expect_point_read_hits(true)
}

fn idempotency_options(_: &Options) -> KeyspaceCreateOptions {
    let bloom = |policy| FilterPolicyEntry::Bloom(policy);
    KeyspaceCreateOptions::default()
        .max_memtable_size(4 * MIB)
        // Keys are as good as random, so each merge rewrites all of the next level: seldom, then. Well
        // below the 20 files at which the database slows writers down.
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(12)))
        // Hashes.
        .data_block_compression_policy(CompressionPolicy::disabled())
        // What is asked for is mostly not there: with filters at every level, to the last, no block
        // is read for it.
        .expect_point_read_hits(false)
        .filter_policy(FilterPolicy::new([
            bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
            bloom(BloomConstructionPolicy::FalsePositiveRate(0.001)),
        ]))
}

fn receipt_options(_: &Options) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(4 * MIB)
        // Those of all conversations that are going on come together, so each merge rewrites much of the
        // next level: seldom, then.
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(12)))
        .data_block_compression_policy(CompressionPolicy::disabled())
}

fn rest_options(_: &Options) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(4 * MIB)
}

fn open_database(path: &Path, options: &Options) -> Result<Database, Failure> {
    guarded(|| {
        Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 * MIB))
            .worker_threads(options.worker_threads.max(1))
            // A replay compresses again what it read, to check it, so a library that compresses
            // better would make good journals look bad. And activities over 4 KiB are rare.
            .journal_compression(CompressionType::None)
            // Every write says itself how far it has to get.
            .manual_journal_persist(true)
            .open()
    })
}

fn keyspace(
    database: &Database,
    name: &str,
    options: impl FnOnce() -> KeyspaceCreateOptions,
) -> Result<Keyspace, Failure> {
    guarded(|| database.keyspace(name, || options().manual_journal_persist(true)))
}

fn found(hot: &Keyspace) -> Result<Option<Bytes>, Failure> {
    guarded(|| hot.get(Key::Meta.encode())).map(|value| value.map(Bytes::from_owner))
}

/// Makes the store's folder, for its owner alone: what people said is in it. One that is there stays as
/// it is.
fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    let mut folder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    match folder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// What [`Key::Meta`] becomes when a store is opened that had `found` there.
fn next_meta(found: Option<Bytes>) -> Result<storage::Meta, Error> {
    let Some(value) = found else {
        return Ok(storage::Meta {
            format: FORMAT,
            epoch: 1,
        });
    };
    let meta = record::decode_meta(&Key::Meta, value)?;
    if meta.format != FORMAT {
        return Err(Error::Format {
            found: meta.format,
            supported: FORMAT,
        });
    }
    let epoch = meta.epoch.checked_add(1).ok_or_else(|| Error::Corrupt {
        what: "it was opened more often than can be counted".to_owned(),
    })?;
    Ok(storage::Meta {
        format: FORMAT,
        epoch,
    })
}

fn lock(path: &Path, place: &str) -> Result<File, Error> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK))
        .map_err(|error| from_io(place, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(from_io(place, error)),
    }
}

/// Removes what a process left behind that ended while it created the store, which the database
/// would take for somebody else's files.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    let version = path.join(VERSION);
    let is_finished = match version.metadata() {
        Ok(metadata) => metadata.len() > 0,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_finished {
        return Ok(());
    }
    // With a keyspace in it, it was finished once: then something is wrong, and nothing is removed.
    match std::fs::read_dir(path.join("keyspaces")) {
        Ok(mut keyspaces) => {
            if keyspaces.next().is_some() {
                return Ok(());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    for file in [path.join("0.jnl"), version] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What can go wrong in the database.
enum Failure {
    Fjall(fjall::Error),
    Panicked(String),
}

thread_local! {
    static OPENING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is opening a store.
///
/// The database meets some damage with a panic while it opens, and some of those panic again as they
/// unwind, which ends the process before [`Embedded::open`] can return an error. A program asks this
/// in its panic hook, to say in words what happened.
#[must_use]
pub fn is_opening() -> bool {
    OPENING.get()
}

/// Marks the thread while it lives.
struct Opening;

impl Opening {
    fn begin() -> Self {
        OPENING.set(true);
        Self
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        OPENING.set(false);
    }
}

/// Runs what calls the database, which meets some damage with a panic.
fn guarded<T>(call: impl FnOnce() -> fjall::Result<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Fjall),
        Err(panic) => Err(Failure::Panicked(
            match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(message), _) => message.clone(),
                (None, Some(message)) => (*message).to_owned(),
                (None, None) => "no message".to_owned(),
            },
        )),
    }
}

impl Failure {
    fn at(self, path: &Path) -> Error {
        let place = path.display().to_string();
        let error = match self {
            Self::Panicked(message) => {
                return Error::Failed {
                    place,
                    source: Arc::new(io::Error::other(message)),
                };
            }
            Self::Fjall(error) => error,
        };
        match error {
            fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
                from_io(&place, error)
            }
            fjall::Error::Poisoned => Error::Stopped { place },
            fjall::Error::Locked => Error::InUse {
                path: path.to_owned(),
            },
            fjall::Error::Storage(_)
            | fjall::Error::JournalRecovery(_)
            | fjall::Error::InvalidVersion(_)
            | fjall::Error::Decompress(_)
            | fjall::Error::InvalidTrailer
            | fjall::Error::InvalidTag(_)
            | fjall::Error::Unrecoverable => Error::Corrupt {
                what: format!("`{place}`: {error}"),
            },
            error => Error::Failed {
                place,
                source: Arc::new(error),
            },
        }
    }
}

fn from_io(place: &str, error: io::Error) -> Error {
    let place = place.to_owned();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full { place },
        // Files are shorter than they say, or say what cannot be.
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Error::Corrupt {
            what: format!("`{place}`: {error}"),
        },
        _ => Error::Failed {
            place,
            source: Arc::new(error),
        },
    }
}

#[cfg(test)]
mod tests;
