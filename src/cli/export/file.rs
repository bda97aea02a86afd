//! Files that are there when all of them is, and nobody's before.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cli::{fresh, output};

/// Where a transcript goes.
pub(super) enum Sink {
    Stdout,
    File(New),
}

impl Sink {
    pub(super) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Stdout => output::write(text),
            Self::File(new) => new.write(text),
        }
    }
}

/// A file that is being written, under another name. Dropped, it is gone.
pub(super) struct New {
    file: BufWriter<File>,
    temporary: PathBuf,
    to: PathBuf,
}

impl New {
    /// Begins one, for its owner alone, where nothing is.
    pub(super) fn create(to: &Path) -> anyhow::Result<Self> {
        let place = to.display();
        if to.symlink_metadata().is_ok() {
            bail!("`{place}` is there already: name a file that is new");
        }
        let temporary = to.with_file_name(format!(".unfinished-{}", fresh::id()));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&temporary);
        let file = file.with_context(|| format!("cannot write `{place}`"))?;
        Ok(Self {
            file: BufWriter::new(file),
            temporary,
            to: to.to_owned(),
        })
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(text.as_bytes());
        written.with_context(|| format!("cannot write `{}`", self.to.display()))
    }

    /// Gives it its name, with all that was written on disk.
    pub(super) fn publish(mut self) -> anyhow::Result<()> {
        let published = self.file.flush().and_then(|()| {
            self.file.get_ref().sync_all()?;
            fs::rename(&self.temporary, &self.to)
        });
        published.with_context(|| format!("cannot write `{}`", self.to.display()))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // What cannot be removed has a name that says what it is.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Makes a folder for its owner alone; one that is there must be empty.
pub(super) fn make_folder(path: &Path) -> anyhow::Result<()> {
    let place = path.display();
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).with_context(|| format!("cannot make the folder `{place}`"))?;
    }
    make_folder_in(path)?;
    let mut entries = fs::read_dir(path).with_context(|| format!("cannot read `{place}`"))?;
    if entries.next().is_some() {
        bail!("`{place}` is not empty: name a folder that is new");
    }
    Ok(())
}

/// Makes a folder where there is none.
pub(super) fn make_folder_in(path: &Path) -> anyhow::Result<()> {
    let mut folder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    let made = match folder.create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    };
    made.with_context(|| format!("cannot make the folder `{}`", path.display()))
}
