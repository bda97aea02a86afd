//! Writing a backup, piece by piece.

use std::io::{self, Read};
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::{BODY_BYTES, CHUNK_BYTES, Error, FORMAT, Kind, MAGIC, PIECE_BYTES, Summary};
use crate::clock::Timestamp;
use crate::files::{Files, Stored};
use crate::proto::storage::{BackupEnd, BackupFile, BackupHeader};
use crate::store::{KeyRange, Order, Store, record};

/// Hands the backup of a store and its files to `take`, in chunks of at most [`CHUNK_BYTES`].
///
/// Blocks, on the disk and on `take`. The store keeps what was there at its beginning until it has been
/// read, so `take` should not be slow for ever.
///
/// # Errors
///
/// [`Error::Store`], [`Error::Files`], and [`Error::Written`] with what `take` failed with. What was handed
/// on until then is of no use.
pub fn write(
    store: &dyn Store,
    files: &Files,
    time: Timestamp,
    take: &mut dyn FnMut(Bytes) -> io::Result<()>,
) -> Result<Summary, Error> {
    let mut to = Writer::new(take);
    to.put(MAGIC)?;
    let header = BackupHeader {
        format: FORMAT,
        store_format: record::FORMAT,
        time_ms: time.0,
        gateway: env!("CARGO_PKG_VERSION").to_owned(),
    };
    to.record(Kind::Header, &[&record::encode(&header)])?;
    let records = entries(store, &mut to)?;
    // After the records: a file is there before an activity names it.
    let mut stored = 0;
    for file in files.stored().map_err(Error::Files)? {
        let Some(file) = file.map_err(Error::Files)? else {
            continue;
        };
        one_file(file, &mut to)?;
        stored += 1;
    }
    let end = BackupEnd {
        records,
        files: stored,
    };
    to.record(Kind::End, &[&record::encode(&end)])?;
    let (bytes, sha256) = to.finish()?;
    Ok(Summary {
        time,
        records,
        files: stored,
        bytes,
        sha256,
    })
}

fn entries(store: &dyn Store, to: &mut Writer<'_>) -> Result<u64, Error> {
    let mut records = 0;
    let mut failed = None;
    store.scan(
        &KeyRange::everything(),
        Order::Ascending,
        &mut |key, value| {
            // A store's keys are no longer than that can say.
            let key_bytes = u16::try_from(key.len()).unwrap_or(u16::MAX);
            match to.record(Kind::Entry, &[&key_bytes.to_be_bytes(), key, &value]) {
                Ok(()) => {
                    records += 1;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        },
    )?;
    failed.map_or(Ok(records), Err)
}

fn one_file(mut file: Stored, to: &mut Writer<'_>) -> Result<(), Error> {
    let about = BackupFile {
        day: file.id.day(),
        name: file.id.random().to_owned(),
        about: Bytes::from(std::mem::take(&mut file.about)),
        bytes: file.bytes,
    };
    to.record(Kind::File, &[&record::encode(&about)])?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = file.bytes;
    while left > 0 {
        let most = usize::try_from(left)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        // What was published does not change: less than its length is damage.
        let piece = &mut piece[..most];
        file.file.read_exact(piece).map_err(Error::Files)?;
        to.record(Kind::Piece, &[piece])?;
        left -= most as u64;
    }
    Ok(())
}

/// Cuts what is written into chunks, and counts and digests it.
struct Writer<'t> {
    take: &'t mut dyn FnMut(Bytes) -> io::Result<()>,
    chunk: BytesMut,
    digest: Sha256,
    bytes: u64,
}

impl<'t> Writer<'t> {
    fn new(take: &'t mut dyn FnMut(Bytes) -> io::Result<()>) -> Self {
        Self {
            take,
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    fn record(&mut self, kind: Kind, body: &[&[u8]]) -> Result<(), Error> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        // Nobody could read it again.
        if length > BODY_BYTES {
            let too_large = format!("a record of {length} bytes is over {BODY_BYTES}");
            return Err(Error::Damaged(too_large));
        }
        let mut head = [kind as u8; 5];
        head[1..].copy_from_slice(&(length as u32).to_be_bytes());
        self.put(&head)?;
        body.iter().try_for_each(|part| self.put(part))
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let chunk = self.chunk.split().freeze();
        self.chunk.reserve(CHUNK_BYTES);
        (self.take)(chunk).map_err(Error::Written)
    }

    /// Ends with the checksum. Returns the size and digest of all, checksum included.
    fn finish(mut self) -> Result<(u64, [u8; 32]), Error> {
        let checksum = self.digest.clone().finalize();
        self.put(&checksum)?;
        self.flush()?;
        Ok((self.bytes, self.digest.finalize().into()))
    }
}
