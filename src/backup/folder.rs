//! A backup as people keep it: a folder with the backup and a manifest that says what is in it.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fresh::Fresh;
use super::{CHUNK_BYTES, Error, FORMAT, Reader, Summary};
use crate::activity::timestamp;

/// The backup itself.
const BACKUP: &str = "backup.turnwire";
/// What is in it, for people; and a sign that it is whole.
const MANIFEST: &str = "manifest.json";

/// A backup that is being written. Dropped, it is gone; nobody sees it before it is whole.
#[derive(Debug)]
pub struct Unfinished {
    folder: Fresh,
    file: File,
}

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    file: String,
    format: u32,
    time: String,
    records: u64,
    files: u64,
    bytes: u64,
    sha256: String,
}

impl Unfinished {
    /// Begins a backup that is to be the folder `to`.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] when something is there; [`Error::Folder`] when it cannot be made.
    pub fn begin(to: &Path) -> Result<Self, Error> {
        let folder = Fresh::begin(to)?;
        let file = File::create_new(folder.path().join(BACKUP)).map_err(Error::Written)?;
        Ok(Self { folder, file })
    }

    /// Adds what comes next.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)
    }

    /// Reads it all once more, and publishes it if it is what `expected` says.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when it is not; [`Error::Written`], [`Error::Folder`]. Nothing is left of it.
    pub fn finish(self, expected: &Summary) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::Written)?;
        let path = self.folder.path();
        let found = verify(&path.join(BACKUP))?;
        if found != *expected {
            let what = "what arrived is not what was sent".to_owned();
            return Err(Error::Damaged(what));
        }
        let manifest = serde_json::to_vec_pretty(&Manifest::new(&found)).map_err(io::Error::from);
        let written = manifest.and_then(|mut manifest| {
            manifest.push(b'\n');
            let mut file = File::create_new(path.join(MANIFEST))?;
            file.write_all(&manifest)?;
            file.sync_all()
        });
        written.map_err(Error::Written)?;
        self.folder.publish()
    }
}

impl Manifest {
    fn new(summary: &Summary) -> Self {
        Self {
            file: BACKUP.to_owned(),
            format: FORMAT,
            time: timestamp::format(summary.time),
            records: summary.records,
            files: summary.files,
            bytes: summary.bytes,
            sha256: summary.sha256_text(),
        }
    }
}

/// Reads the backup in `folder` from end to end, and compares it with its manifest.
///
/// # Errors
///
/// [`Error::Damaged`], [`Error::Format`], [`Error::Read`].
pub fn check(folder: &Path) -> Result<Summary, Error> {
    let said = match fs::read(folder.join(MANIFEST)) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("`{}` has no {MANIFEST}", folder.display());
            return Err(Error::Damaged(what));
        }
        Err(error) => return Err(Error::Read(error)),
    };
    let said: Manifest = serde_json::from_slice(&said)
        .map_err(|error| Error::Damaged(format!("its {MANIFEST} cannot be read: {error}")))?;
    let found = verify(&folder.join(BACKUP))?;
    if said != Manifest::new(&found) {
        let what = format!("its {MANIFEST} is of another one");
        return Err(Error::Damaged(what));
    }
    Ok(found)
}

/// Opens the backup in `folder`.
pub(super) fn open(folder: &Path) -> Result<Reader<BufReader<File>>, Error> {
    read(&folder.join(BACKUP))
}

fn verify(file: &Path) -> Result<Summary, Error> {
    let mut reader = read(file)?;
    loop {
        if let Some(summary) = reader.summary() {
            return Ok(summary);
        }
        reader.read_next()?;
    }
}

fn read(file: &Path) -> Result<Reader<BufReader<File>>, Error> {
    let file = File::open(file).map_err(Error::Read)?;
    Reader::new(BufReader::with_capacity(CHUNK_BYTES, file))
}
