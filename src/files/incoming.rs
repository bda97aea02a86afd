//! Writing files: unseen until all of them are on disk.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::{About, FileId, Files, INCOMING, beside, blocking, make_folder, sync_folder};

/// Files that are being written. Dropped, they are gone.
#[derive(Debug)]
pub struct Incoming {
    files: Files,
    day: u64,
    written: Vec<Written>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Written {
    id: FileId,
    about: About,
    temporary: Arc<Temporary>,
}

#[derive(Debug)]
struct Open {
    file: tokio::fs::File,
    written: Written,
}

impl Incoming {
    pub(super) fn new(files: Files, day: u64) -> Self {
        Self {
            files,
            day,
            written: Vec::new(),
            open: None,
        }
    }

    /// Begins the next file. One that was begun before must be ended.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub async fn start(&mut self, about: About) -> io::Result<()> {
        let id = FileId::fresh(self.day);
        let folder = self.files.inner.root.join(INCOMING);
        let temporary = Arc::new(Temporary(folder.join(id.random())));
        let made = Arc::clone(&temporary);
        // Its name is held until it is made: who stops waiting leaves nothing behind either.
        let file = blocking(move || {
            make_folder(&folder)?;
            let mut options = fs::File::options();
            options.write(true).create_new(true).open(&made.0)
        });
        let file = tokio::fs::File::from_std(file.await?);
        let written = Written {
            id,
            about,
            temporary,
        };
        self.open = Some(Open { file, written });
        Ok(())
    }

    /// Goes on with the file that was begun.
    ///
    /// # Errors
    ///
    /// It cannot be written, or none was begun.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or(ErrorKind::NotFound)?;
        open.file.write_all(bytes).await?;
        open.written.about.size += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file, which is on disk then.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn end(&mut self) -> io::Result<()> {
        let mut open = self.open.take().ok_or(ErrorKind::NotFound)?;
        open.file.flush().await?;
        open.file.sync_all().await?;
        self.written.push(open.written);
        Ok(())
    }

    /// The files that were ended, in order.
    pub fn written(&self) -> impl ExactSizeIterator<Item = (&FileId, &About)> {
        self.written.iter().map(|file| (&file.id, &file.about))
    }

    /// Puts what was written where it can be found, durably.
    ///
    /// # Errors
    ///
    /// It cannot be written; nothing of it is left.
    pub async fn publish(self) -> io::Result<Published> {
        blocking(move || {
            let mut published = Published(Vec::new());
            let folder = self.files.inner.root.join(self.day.to_string());
            make_folder(&folder)?;
            for file in &self.written {
                let (from, to) = (&file.temporary.0, self.files.path(&file.id));
                let about = Temporary(beside(from));
                let mut beside_it = fs::File::create_new(&about.0)?;
                beside_it.write_all(&file.about.to_bytes())?;
                beside_it.sync_all()?;
                published.0.extend([beside(&to), to.clone()]);
                // The file itself comes last: it is there when all of it is.
                fs::rename(&about.0, beside(&to))?;
                fs::rename(from, to)?;
            }
            sync_folder(&folder)?;
            Ok(published)
        })
        .await
    }
}

/// Files that can be found. Dropped, they are gone again, unless they are kept.
#[derive(Debug)]
#[must_use]
pub struct Published(Vec<PathBuf>);

impl Published {
    /// Leaves them where they are.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        remove(std::mem::take(&mut self.0));
    }
}

/// A file that is gone when nobody has its name any more, unless it was renamed.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(vec![std::mem::take(&mut self.0)]);
    }
}

/// What cannot be removed now is when the gateway starts again, or with its day.
fn remove(paths: Vec<PathBuf>) {
    if paths.is_empty() {
        return;
    }
    let work = move || {
        for path in paths {
            let _ = fs::remove_file(path);
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}
