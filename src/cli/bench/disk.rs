//! Whether what a measurement writes has room.

use std::path::Path;

use anyhow::{Context, ensure};

use super::target;

/// What an activity takes beyond its text, in bytes: its other fields, keys, and what the store has
/// twice while it rewrites its files. Ten million activities of 450 bytes took 780 bytes each; the
/// rest is for journals and for what is being rewritten.
const OVERHEAD_BYTES: u64 = 550;

/// What stays free, so that the gateway does not refuse appends in the end.
const RESERVE_BYTES: u64 = 1 << 30;

/// Refuses to begin when `activities` of `size` bytes of text have no room where the gateway of its
/// own would keep them.
pub(super) fn check(flags: &target::Flags, activities: u64, size: u32) -> anyhow::Result<()> {
    let folder = flags.data.clone().unwrap_or_else(std::env::temp_dir);
    let free = free_bytes(&folder)
        .with_context(|| format!("cannot see how much is free in `{}`", folder.display()))?;
    let needed = needed_bytes(activities, size);
    ensure!(
        free >= needed,
        "{activities} activities of {size} bytes need about {:.1} GB, and `{}` has {:.1} GB: name \
         another folder with `--data`, or ask for fewer",
        gigabytes(needed),
        folder.display(),
        gigabytes(free)
    );
    Ok(())
}

fn needed_bytes(activities: u64, size: u32) -> u64 {
    activities
        .saturating_mul(u64::from(size) + OVERHEAD_BYTES)
        .saturating_add(RESERVE_BYTES)
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> anyhow::Result<u64> {
    Ok(u64::MAX)
}

/// The size of all files of a folder and of those in it.
pub(super) fn used_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    // What is removed meanwhile takes no room any more.
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => used_bytes(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_million_activities_need_ten_gigabytes_and_a_reserve() {
        let needed = needed_bytes(10_000_000, 450);
        assert_eq!(needed, 10_000_000_000 + RESERVE_BYTES);
    }

    #[test]
    fn a_folder_is_as_large_as_what_is_in_it() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("a"))?;
        std::fs::write(folder.path().join("a/b"), [0; 100])?;
        std::fs::write(folder.path().join("c"), [0; 7])?;
        assert_eq!(used_bytes(folder.path()), 107);
        Ok(())
    }
}
