//! Files as they lie on disk: what a backup takes, and puts back.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::{FileId, Files, beside, blocking, days, make_folder, sync_folder, unless_gone};

/// A file that is there, opened: it can be read even if it is removed meanwhile.
#[derive(Debug)]
pub struct Stored {
    /// Its id.
    pub id: FileId,
    /// What lies beside it, as it is.
    pub about: Vec<u8>,
    /// How many bytes it has. Files do not change.
    pub bytes: u64,
    /// The file, at its beginning.
    pub file: fs::File,
}

impl Files {
    /// Every file, a day after the other; `None` for one that went as it was looked at. Blocks.
    ///
    /// # Errors
    ///
    /// The folders cannot be read; so for each file.
    pub fn stored(&self) -> io::Result<impl Iterator<Item = io::Result<Option<Stored>>>> {
        let mut folders = days(&self.inner.root)?;
        folders.sort_unstable();
        Ok(folders.into_iter().flat_map(|(day, folder)| {
            // One day's names at a time are in memory, and of files none but the one in work.
            let (entries, failed) = match fs::read_dir(folder) {
                Ok(entries) => (Some(entries), None),
                // A sweep was here.
                Err(error) if error.kind() == ErrorKind::NotFound => (None, None),
                Err(error) => (None, Some(Err(error))),
            };
            let opened = entries.into_iter().flatten().map(move |entry| {
                let entry = entry?;
                let name = entry.file_name();
                let id = name.to_str().map(|name| format!("{day}-{name}"));
                match id.and_then(|id| id.parse().ok()) {
                    Some(id) => open(id, &entry.path()),
                    // What lies beside a file, or is not ours.
                    None => Ok(None),
                }
            });
            failed.into_iter().chain(opened)
        }))
    }

    /// Removes files for good. Returns how many of them there were.
    ///
    /// # Errors
    ///
    /// One cannot be removed; those before it are gone.
    pub async fn remove(&self, ids: Vec<FileId>) -> io::Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let files = self.clone();
        blocking(move || {
            let mut removed = 0;
            for id in ids {
                let path = files.path(&id);
                // Without what lies beside it, nobody is given a file.
                unless_gone(fs::remove_file(beside(&path)))?;
                match fs::remove_file(&path) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                // The log is about to forget it.
                path.parent().map_or(Ok(()), sync_folder)?;
            }
            Ok(removed)
        })
        .await
    }

    /// Puts a file back that [`stored`](Self::stored) gave, durably but for its folder: see
    /// [`sync`](Self::sync). Blocks.
    ///
    /// # Errors
    ///
    /// It cannot be written, or is there.
    pub fn put_back(&self, id: &FileId, about: &[u8]) -> io::Result<fs::File> {
        let path = self.path(id);
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let mut beside_it = fs::File::create_new(beside(&path))?;
        beside_it.write_all(about)?;
        beside_it.sync_all()?;
        fs::File::create_new(path)
    }

    /// Makes what was put back survive a crash. Blocks.
    ///
    /// # Errors
    ///
    /// The folders cannot be synced.
    pub fn sync(&self) -> io::Result<()> {
        for (_, folder) in days(&self.inner.root)? {
            sync_folder(&folder)?;
        }
        unless_gone(sync_folder(&self.inner.root))
    }
}

fn open(id: FileId, path: &Path) -> io::Result<Option<Stored>> {
    let opened = || -> io::Result<Stored> {
        let about = fs::read(beside(path))?;
        let file = fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Stored {
            id,
            about,
            bytes,
            file,
        })
    };
    match opened() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
