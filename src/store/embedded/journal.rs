//! Looks over the journals before the database replays them.
//!
//! The database takes the first thing in a journal that it cannot read for the end, and cuts the
//! file there. That is right for a tail that was being written when the machine went down, and
//! wrong for damage before commits that were acknowledged: those would be dropped in silence. And
//! some damage it meets with a panic, or with an allocation of the size that a damaged length says.
//! So the frame of every entry is read here first. Checksums are left to the database.
//!
//! The frame, of fjall 3 (`journal/entry.rs`): a batch is Start (tag 1, item count u32, sequence
//! number u64), then items (tag 2, value type u8, compression u8, keyspace u64, key length u16,
//! value length u32, stored length u32, key, value) or clears (tag 4, keyspace u64), then End
//! (tag 3, checksum u64, magic). Numbers are little endian.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";

/// The database panics on numbers near 2^63, and no store lives to see these.
const LAST_SEQUENCE_NUMBER: u64 = 1 << 62;

/// The least that a disk writes whole.
const SECTOR: u64 = 512;

/// Why a journal cannot be replayed.
#[derive(Debug)]
pub(super) enum Damage {
    /// It could not be read.
    Io(io::Error),
    /// It is not what was written.
    Corrupt(String),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The last batch of the newest journal, whose end may be on disk without its middle.
#[derive(Debug)]
pub(super) struct LastBatch {
    path: PathBuf,
    start: u64,
    end: u64,
}

/// Checks every journal in `folder`, and cuts a torn tail off the newest.
///
/// # Errors
///
/// [`Damage::Corrupt`] when what is damaged is followed by batches that may have been acknowledged.
pub(super) fn check(folder: &Path) -> Result<Option<LastBatch>, Damage> {
    let journals = list(folder)?;
    let newest = journals.len().saturating_sub(1);
    let mut sequence_number = None;
    let mut last = None;
    for (index, path) in journals.iter().enumerate() {
        let mut walk = Walk::open(path, sequence_number)?;
        let end = walk.run()?;
        match end {
            End::Clean => {}
            // Journals are synced whole before the next one is begun.
            End::Torn | End::Damaged(_) if index != newest => {
                return Err(walk.corrupt("a batch is not whole, and later journals exist"));
            }
            End::Torn => walk.cut()?,
            End::Damaged(what) => {
                if !walk.is_torn()? {
                    return Err(walk.corrupt(what));
                }
                walk.cut()?;
            }
        }
        sequence_number = walk.sequence_number;
        last = walk.last.map(|start| LastBatch {
            path: path.clone(),
            start,
            end: walk.whole,
        });
    }
    Ok(last)
}

impl LastBatch {
    /// Cuts it off if it has a sector without a single byte, which is how one looks that the
    /// machine went down in the middle of. Returns whether it did.
    ///
    /// For when a checksum does not fit, and this may be the batch: the file was allocated as
    /// zeros, and its pages reach the disk in any order.
    pub(super) fn cut_if_torn(&self) -> io::Result<bool> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let first = self.start.next_multiple_of(SECTOR);
        file.seek(SeekFrom::Start(first))?;
        let mut sectors = self.end.saturating_sub(first) / SECTOR;
        let mut file_reader = BufReader::new(&mut file);
        let mut sector = [0; SECTOR as usize];
        while sectors > 0 {
            file_reader.read_exact(&mut sector)?;
            if sector == [0; SECTOR as usize] {
                cut(&self.path, self.start)?;
                return Ok(true);
            }
            sectors -= 1;
        }
        Ok(false)
    }
}

/// The journals in `folder`, oldest first. Those with odd names are left to the database.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jnl"))
            .and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let before = file.metadata()?.len();
    file.set_len(length)?;
    file.sync_all()?;
    tracing::warn!(
        store.journal = %path.display(),
        store.journal_before_bytes = before,
        store.journal_after_bytes = length,
        "cut off the end of a journal, which was being written when the gateway last stopped"
    );
    Ok(())
}

/// How a journal ends.
enum End {
    /// After a whole batch, with nothing but zeros or the end of the file.
    Clean,
    /// Within a batch, with a sector that was never written.
    Torn,
    /// With something else.
    Damaged(&'static str),
}

/// A reading of one journal.
struct Walk<'p> {
    path: &'p Path,
    reader: BufReader<File>,
    /// The length of the file.
    length: u64,
    /// Where the next byte is read.
    position: u64,
    /// Where the last whole batch ends.
    whole: u64,
    /// Where the last whole batch begins.
    last: Option<u64>,
    /// That of the last whole batch, of this journal or an earlier one.
    sequence_number: Option<u64>,
}

impl<'p> Walk<'p> {
    fn open(path: &'p Path, sequence_number: Option<u64>) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            path,
            length: file.metadata()?.len(),
            reader: BufReader::with_capacity(64 * 1024, file),
            position: 0,
            whole: 0,
            last: None,
            sequence_number,
        })
    }

    fn run(&mut self) -> Result<End, Damage> {
        loop {
            let end = match self.batch() {
                Ok(None) => continue,
                Ok(Some(end)) => end,
                Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error.into()),
                Err(_) if self.whole == self.length => End::Clean,
                Err(_) => End::Damaged("a batch is longer than the file"),
            };
            return Ok(end);
        }
    }

    /// Reads a batch. `None` when it is whole.
    fn batch(&mut self) -> io::Result<Option<End>> {
        let start = self.position;
        let [tag] = self.array()?;
        match tag {
            START => {}
            0 if self.sector_is_empty(start)? => return Ok(Some(End::Clean)),
            _ => return Ok(Some(End::Damaged("a batch does not begin as one"))),
        }
        let items = u32::from_le_bytes(self.array()?);
        let sequence_number = u64::from_le_bytes(self.array()?);
        let after = self
            .sequence_number
            .is_none_or(|last| sequence_number > last);
        if !after || sequence_number >= LAST_SEQUENCE_NUMBER {
            return Ok(Some(End::Damaged("batches are not in order")));
        }

        let mut seen = 0;
        loop {
            let at = self.position;
            let [tag] = self.array()?;
            match tag {
                ITEM => {
                    let [value_type, compression] = self.array()?;
                    let _keyspace: [u8; 8] = self.array()?;
                    let key = u16::from_le_bytes(self.array()?);
                    let value = u32::from_le_bytes(self.array()?);
                    let stored = u32::from_le_bytes(self.array()?);
                    // This gateway writes values (0) and deletes (1), and never compresses journals.
                    if value_type > 1 {
                        return Ok(Some(End::Damaged("an entry of a batch is not one")));
                    }
                    if compression != 0 || value != stored {
                        return Ok(Some(End::Damaged("the lengths of a value differ")));
                    }
                    self.skip(u64::from(key) + u64::from(stored))?;
                    seen += 1;
                }
                CLEAR => {
                    self.skip(size_of::<u64>() as u64)?;
                    seen += 1;
                }
                END => break,
                0 if self.sector_is_empty(at)? => return Ok(Some(End::Torn)),
                _ => return Ok(Some(End::Damaged("an entry of a batch is not one"))),
            }
        }
        let _checksum: [u8; 8] = self.array()?;
        let magic: [u8; 4] = self.array()?;
        if magic != MAGIC {
            return Ok(Some(End::Damaged("a batch does not end as one")));
        }
        if seen != items {
            return Ok(Some(End::Damaged("a batch has lost entries")));
        }
        self.sequence_number = Some(sequence_number);
        self.last = Some(start);
        self.whole = self.position;
        Ok(None)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.length.saturating_sub(self.position) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // Lossless: it is within the length of a file.
        self.reader.seek_relative(bytes as i64)?;
        self.position += bytes;
        Ok(())
    }

    /// Whether the sector that `at` is in was never written, but for whole batches.
    fn sector_is_empty(&self, at: u64) -> io::Result<bool> {
        let from = (at - at % SECTOR).max(self.whole);
        let to = (at + 1).next_multiple_of(SECTOR).min(self.length);
        let mut file = File::open(self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut rest = Vec::new();
        file.take(to - from).read_to_end(&mut rest)?;
        Ok(rest.iter().all(|byte| *byte == 0))
    }

    /// Whether what could not be read was being written when the machine went down: no batch ends
    /// after it, or what is missing before that end was never written.
    fn is_torn(&self) -> io::Result<bool> {
        let Some(end) = self.last_end()? else {
            return Ok(true);
        };
        // An entry that a hole cuts short is noticed within its first sector.
        let first = self.position - self.position % SECTOR;
        for sector in [first, first + SECTOR] {
            if self.whole <= sector && sector + SECTOR <= end && self.sector_is_empty(sector)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the last thing that looks like the end of a batch is, after the last whole one.
    fn last_end(&self) -> io::Result<Option<u64>> {
        let mut file = File::open(self.path)?;
        file.seek(SeekFrom::Start(self.whole))?;
        let mut position = self.whole;
        let mut last = None;
        let mut matched = 0;
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(last);
            }
            for byte in &chunk[..read] {
                position += 1;
                // The magic's first byte is nowhere else in it, so that no match is missed.
                matched = if *byte == MAGIC[matched] {
                    matched + 1
                } else {
                    usize::from(*byte == MAGIC[0])
                };
                if matched == MAGIC.len() {
                    last = Some(position);
                    matched = 0;
                }
            }
        }
    }

    fn cut(&self) -> io::Result<()> {
        cut(self.path, self.whole)
    }

    fn corrupt(&self, what: &str) -> Damage {
        Damage::Corrupt(format!(
            "journal `{}` after byte {}: {what}",
            self.path.display(),
            self.whole
        ))
    }
}
