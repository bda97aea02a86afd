//! A data folder from a backup.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fresh::{Fresh, refuse_occupied};
use super::{Error, Record, Summary, folder};
use crate::clock::System;
use crate::files::{self, Files};
use crate::random;
use crate::store::embedded::{Embedded, Options};
use crate::store::{Batch, Durability, Key, Store, record};

/// How much is written to the new store at a time.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const BATCH_RECORDS: usize = 10_000;

/// How far the epoch of a restored store is ahead of the backup's, at least; up to so much more is chance.
const EPOCH_JUMP: u32 = 1 << 13;
/// Delivery ids have so many bits for the epoch, see `engine/shard`.
const EPOCH_LIMIT: u32 = 1 << 24;

/// Makes the data folder `to` of the backup in `from`, and returns what was in that.
///
/// The whole backup is checked before anything is written, and the folder is there when all of it is.
/// Blocks.
///
/// # Errors
///
/// [`Error::Damaged`], [`Error::Format`], [`Error::Read`]; [`Error::Occupied`] when something is at `to`;
/// [`Error::Store`], [`Error::Files`], [`Error::Folder`] when it cannot be written. Nothing is left
/// behind.
pub fn restore(from: &Path, to: &Path) -> Result<Summary, Error> {
    refuse_occupied(to)?;
    let summary = folder::check(from)?;
    let fresh = Fresh::begin(to)?;
    let store = Embedded::open(fresh.path(), &Options::default())?;
    let attachments = fresh.path().join(files::FOLDER);
    let files = Files::new(attachments, Duration::ZERO, Arc::new(System));

    let mut backup = folder::open(from)?;
    let (meta_key, mut meta) = (Key::Meta.encode(), None);
    let mut batch = Batch::new();
    let mut file: Option<File> = None;
    while let Some(record) = backup.read_next()? {
        match record {
            Record::Entry { key, value } => {
                if key == meta_key {
                    meta = Some(value);
                    continue;
                }
                batch.put_encoded(&key, &value);
                if batch.bytes() >= BATCH_BYTES || batch.len() >= BATCH_RECORDS {
                    store.commit(std::mem::take(&mut batch), Durability::Buffered)?;
                }
            }
            Record::File { id, about } => {
                synced(file.take())?;
                file = Some(files.put_back(&id, &about).map_err(Error::Files)?);
            }
            Record::Piece(piece) => {
                // The reader gives none without a file.
                if let Some(file) = &mut file {
                    file.write_all(&piece).map_err(Error::Files)?;
                }
            }
        }
    }
    synced(file)?;
    // It may have changed since it was checked: then nothing of it is kept.
    if backup.summary() != Some(summary) {
        return Err(Error::Damaged("it changed while it was read".to_owned()));
    }
    files.sync().map_err(Error::Files)?;
    put_meta(&mut batch, meta)?;
    store.commit(batch, Durability::Synced)?;
    // Closed before it moves.
    drop(store);
    fresh.publish()?;
    Ok(summary)
}

/// The store's own record, with an epoch that is nobody's.
///
/// Delivery ids, fences and numbers of conversations are made of the epoch. The gateway that the backup
/// is of may have run on, with epochs after the backup's, and bots still hold deliveries of those; the
/// restored one must make none of them again. So it begins well ahead, and ids from in between are to it
/// those of an earlier epoch: they are STALE. A gateway's epoch grows by one at each start, which takes
/// thousands of starts to get there. The part that is chance keeps two restores of one backup apart. There
/// is room for a thousand restores of restores.
fn put_meta(batch: &mut Batch, meta: Option<Bytes>) -> Result<(), Error> {
    let missing = || Error::Damaged("the store's own record is missing".to_owned());
    let mut meta = record::decode_meta(&Key::Meta, meta.ok_or_else(missing)?)?;
    let chance = u32::from_be_bytes(random::bytes()) % EPOCH_JUMP;
    let epoch = meta.epoch.checked_add(EPOCH_JUMP + chance);
    // Well before the end, so that it can be opened.
    meta.epoch = epoch
        .filter(|epoch| *epoch < EPOCH_LIMIT - EPOCH_JUMP)
        .ok_or_else(|| Error::Damaged("it was restored more often than can be counted".into()))?;
    record::put(batch, &Key::Meta, &meta);
    Ok(())
}

fn synced(file: Option<File>) -> Result<(), Error> {
    file.map_or(Ok(()), |file| file.sync_all().map_err(Error::Files))
}
