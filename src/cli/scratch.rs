//! A folder of its own for a gateway that is not to be kept.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::fresh;

/// A fresh folder, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in `parent`, or where the system keeps such folders. Nobody else may read it.
    pub(super) fn new(parent: Option<&Path>, purpose: &str) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("turnwire-{purpose}-{}", fresh::id()));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .with_context(|| format!("cannot make the folder `{}`", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is in the system's temporary folder, and there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() -> anyhow::Result<()> {
        let scratch = Scratch::new(None, "test")?;
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "content")?;
        drop(scratch);
        assert!(!path.exists());
        Ok(())
    }
}
