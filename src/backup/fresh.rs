//! A folder that is there when all of it is.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Error;
use crate::random;

/// A new folder under a name of its own beside the one that it is to have. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Fresh {
    temporary: PathBuf,
    to: PathBuf,
}

impl Fresh {
    /// Makes one, for its owner alone.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] when there is something at `to` but an empty folder; [`Error::Folder`].
    pub(super) fn begin(to: &Path) -> Result<Self, Error> {
        refuse_occupied(to)?;
        let at = |source| Error::Folder {
            path: to.to_owned(),
            source,
        };
        let Some(name) = to.file_name() else {
            return Err(at(io::Error::from(ErrorKind::InvalidInput)));
        };
        let above = above(to);
        fs::create_dir_all(above).map_err(at)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        let chance = u64::from_be_bytes(random::bytes());
        hidden.push(format!(".unfinished-{chance:016x}"));
        let temporary = above.join(hidden);
        let mut folder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&temporary).map_err(at)?;
        let to = to.to_owned();
        Ok(Self { temporary, to })
    }

    /// Where it is until it is published.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives it its name, durably. What is in it must be synced.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin); then it is gone.
    pub(super) fn publish(self) -> Result<(), Error> {
        let published = sync(&self.temporary)
            // Replaces an empty folder, and nothing else.
            .and_then(|()| fs::rename(&self.temporary, &self.to))
            .and_then(|()| sync(above(&self.to)));
        published.map_err(|source| match source.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Error::Occupied(self.to.clone())
            }
            _ => Error::Folder {
                path: self.to.clone(),
                source,
            },
        })
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // Published, it is not there. What cannot be removed has a name that says what it is.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Refuses a place where something is.
pub(super) fn refuse_occupied(to: &Path) -> Result<(), Error> {
    match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Occupied(to.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(Error::Occupied(to.to_owned()))
        }
        Err(source) => Err(Error::Folder {
            path: to.to_owned(),
            source,
        }),
    }
}

fn above(path: &Path) -> &Path {
    // A relative path of one part has the empty one above it.
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    above.unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}
