//! Reading a backup, and noticing that it is none.

use std::io::{self, ErrorKind, Read};

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};

use super::{BODY_BYTES, Error, FORMAT, Kind, MAGIC, Summary};
use crate::clock::Timestamp;
use crate::files::FileId;
use crate::proto::storage::{BackupEnd, BackupFile, BackupHeader};
use crate::store::{Table, record};

/// A part of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A record of the store.
    Entry {
        /// Its encoded key, of a table that this gateway knows.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// An uploaded file. Its bytes come next, in pieces.
    File {
        /// Its id.
        id: FileId,
        /// What lies beside it.
        about: Bytes,
    },
    /// The next bytes of the file before it.
    Piece(Bytes),
}

/// Reads a backup's parts in order, and at its end whether it was whole: only then is any of it true.
pub struct Reader<R> {
    from: R,
    digest: Sha256,
    bytes: u64,
    time: Timestamp,
    records: u64,
    files: u64,
    /// The key before, to see that they grow.
    last_key: Bytes,
    has_meta: bool,
    /// Of the file that is being read.
    missing_bytes: u64,
    summary: Option<Summary>,
}

impl<R: Read> Reader<R> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when it is no backup; [`Error::Format`] when it is one that this gateway
    /// cannot read.
    pub fn new(from: R) -> Result<Self, Error> {
        let mut reader = Self {
            from,
            digest: Sha256::new(),
            bytes: 0,
            time: Timestamp::default(),
            records: 0,
            files: 0,
            last_key: Bytes::new(),
            has_meta: false,
            missing_bytes: 0,
            summary: None,
        };
        let magic: [u8; MAGIC.len()] = reader.array()?;
        if magic != *MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        let (kind, body) = reader.record()?;
        if kind != Kind::Header {
            return Err(damaged("it has no header"));
        }
        let header: BackupHeader = record::decode_part("header", body).map_err(damaged)?;
        let agree = |what, found, supported| {
            let format = Error::Format {
                what,
                found,
                supported,
            };
            (found == supported).then_some(()).ok_or(format)
        };
        agree("the backup", header.format, FORMAT)?;
        agree(
            "the store in the backup",
            header.store_format,
            record::FORMAT,
        )?;
        reader.time = Timestamp(header.time_ms);
        Ok(reader)
    }

    /// The next part; `None` once all were read and the whole was found to be what was written.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when it is not, or not all of it.
    pub fn read_next(&mut self) -> Result<Option<Record>, Error> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let (kind, body) = self.record()?;
        if self.missing_bytes > 0 && kind != Kind::Piece {
            return Err(damaged("a file is shorter than it says"));
        }
        match kind {
            Kind::Header => Err(damaged("it has two headers")),
            Kind::Entry => self.entry(body).map(Some),
            Kind::File => self.file(body).map(Some),
            Kind::Piece => {
                let missing = self.missing_bytes.checked_sub(body.len() as u64);
                self.missing_bytes = missing
                    .filter(|_| !body.is_empty())
                    .ok_or_else(|| damaged("a file is longer than it says"))?;
                Ok(Some(Record::Piece(body)))
            }
            Kind::End => self.end(body).map(|()| None),
        }
    }

    /// What was in it, once [`read_next`](Self::read_next) has said that there is no more.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    fn entry(&mut self, mut body: Bytes) -> Result<Record, Error> {
        let bytes = usize::from(body.try_get_u16().map_err(|_| damaged("an empty record"))?);
        if bytes > body.len() {
            return Err(damaged("a key is longer than its record"));
        }
        let key = body.split_to(bytes);
        let table = key.first().copied().and_then(Table::from_tag);
        if table.is_none() || self.files > 0 {
            return Err(damaged("a record of no table"));
        }
        if key <= self.last_key {
            return Err(damaged("its records are not in order"));
        }
        self.has_meta |= table == Some(Table::Meta);
        self.last_key = key.clone();
        self.records += 1;
        Ok(Record::Entry { key, value: body })
    }

    fn file(&mut self, body: Bytes) -> Result<Record, Error> {
        let file: BackupFile = record::decode_part("file", body).map_err(damaged)?;
        let id = format!("{}-{}", file.day, file.name);
        let id = id.parse().map_err(|_| damaged("a file has no name"))?;
        self.missing_bytes = file.bytes;
        self.files += 1;
        let about = file.about;
        Ok(Record::File { id, about })
    }

    fn end(&mut self, body: Bytes) -> Result<(), Error> {
        let end: BackupEnd = record::decode_part("end", body).map_err(damaged)?;
        if (end.records, end.files) != (self.records, self.files) || !self.has_meta {
            return Err(damaged("there is less in it than it says"));
        }
        let expected: [u8; 32] = self.digest.clone().finalize().into();
        if self.array::<32>()? != expected {
            return Err(damaged("its checksum is wrong"));
        }
        match self.from.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(damaged("there is something after its end")),
            Err(error) => return Err(from_io(error)),
        }
        self.summary = Some(Summary {
            time: self.time,
            records: self.records,
            files: self.files,
            bytes: self.bytes,
            sha256: self.digest.clone().finalize().into(),
        });
        Ok(())
    }

    fn record(&mut self) -> Result<(Kind, Bytes), Error> {
        let [tag, length @ ..] = self.array::<5>()?;
        let kind = Kind::from_tag(tag).ok_or_else(|| damaged("a record of no kind"))?;
        let length = u32::from_be_bytes(length) as usize;
        if length > BODY_BYTES {
            return Err(damaged("a record is too long"));
        }
        let mut body = Vec::new();
        // It grows with what is there, whatever the length says.
        let read = (&mut self.from).take(length as u64).read_to_end(&mut body);
        if read.map_err(from_io)? != length {
            return Err(cut_short());
        }
        self.took(&body);
        Ok((kind, body.into()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(from_io)?;
        self.took(&bytes);
        Ok(bytes)
    }

    fn took(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

fn damaged(what: impl Into<String>) -> Error {
    Error::Damaged(what.into())
}

fn cut_short() -> Error {
    damaged("it ends too early")
}

fn from_io(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => cut_short(),
        _ => Error::Read(error),
    }
}
