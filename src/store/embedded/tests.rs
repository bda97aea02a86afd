use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;
use crate::id::{ConversationNumber, Sequence};
use crate::store::contract;

const CONVERSATION: ConversationNumber = ConversationNumber(1);

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn open(path: &Path) -> Result<Embedded, Error> {
    Embedded::open(path, &Options::default())
}

fn opened(path: &Path) -> Embedded {
    open(path).expect("the store opens")
}

/// Commits batches of three entries each, numbered from `first`.
fn write(store: &Embedded, numbers: std::ops::Range<u64>, bytes: usize) {
    for number in numbers {
        let mut batch = Batch::new();
        for part in 0..3 {
            let key = Key::Activity {
                conversation: CONVERSATION,
                sequence: Sequence(number * 3 + part),
            };
            batch.put(&key, Bytes::from(vec![b'a' + (number % 26) as u8; bytes]));
        }
        store
            .commit(batch, Durability::Synced)
            .expect("the store takes it");
    }
}

/// The sequences that are there.
fn sequences(store: &Embedded) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    store.scan(
        &KeyRange::table(Table::Activity),
        Order::Ascending,
        &mut |key, _| {
            found.push(
                super::super::keys::decode_activity(key)
                    .expect("an activity's key")
                    .0,
            );
            ControlFlow::Continue(())
        },
    )?;
    Ok(found)
}

/// How many batches of [`write`] are there; they must be whole and the first ones.
fn whole_batches(store: &Embedded) -> u64 {
    let found = sequences(store).expect("the store can be read");
    assert_eq!(found.len() % 3, 0, "a part of a batch is there: {found:?}");
    assert!(
        found.iter().copied().eq(0..found.len() as u64),
        "a batch is there without one before it: {found:?}"
    );
    found.len() as u64 / 3
}

fn journal(path: &Path) -> PathBuf {
    path.join("0.jnl")
}

/// A store that was left, not closed: its journal is as a kill leaves it, with `batches` batches.
/// Returns the journal's bytes up to where it was written.
fn left(path: &Path, batches: u64, bytes: usize) -> Vec<u8> {
    let store = opened(path);
    write(&store, 0..batches, bytes);
    let written = std::fs::read(journal(path)).expect("the journal can be read");
    drop(store);
    let end = written
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    written[..end].to_vec()
}

fn restore(path: &Path, journal_bytes: &[u8]) {
    std::fs::write(journal(path), journal_bytes).expect("the journal can be written");
}

#[test]
fn keeps_the_contract() {
    contract::all(|| {
        let folder = folder();
        move || -> Arc<dyn Store> { Arc::new(opened(folder.path())) }
    });
}

#[test]
fn epochs_grow_with_each_opening() {
    let folder = folder();
    for epoch in 1..=3 {
        assert_eq!(opened(folder.path()).epoch(), epoch);
    }
}

#[test]
fn another_format_is_refused_and_left_alone() {
    for format in [FORMAT - 1, FORMAT + 1] {
        let folder = folder();
        let store = opened(folder.path());
        let mut batch = Batch::new();
        record::put(&mut batch, &Key::Meta, &storage::Meta { format, epoch: 7 });
        store
            .commit(batch, Durability::Synced)
            .expect("the store takes it");
        drop(store);
        for _ in 0..2 {
            let error = open(folder.path()).err().expect("the format is another");
            assert!(matches!(error, Error::Format { found, supported }
                if found == format && supported == FORMAT));
        }
    }
}

#[test]
fn a_store_that_is_open_is_in_use() {
    let folder = folder();
    let store = opened(folder.path());
    let error = open(folder.path()).err().expect("it is open");
    assert!(matches!(error, Error::InUse { path } if path == folder.path()));
    drop(store);
    opened(folder.path());
}

#[test]
fn a_file_in_place_of_the_folder_is_an_error_with_its_path() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").expect("a file can be written");
    for path in [file.clone(), file.join("below")] {
        let error = open(&path).err().expect("there is a file");
        assert!(matches!(error, Error::Failed { .. }), "{error:?}");
        assert!(error.to_string().contains("file"), "{error}");
    }
}

#[test]
fn a_store_whose_creation_was_cut_short_is_created() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("keyspaces")).expect("a folder can be made");
    std::fs::write(journal(folder.path()), [0; 100]).expect("a file can be written");
    std::fs::write(folder.path().join("version"), b"").expect("a file can be written");
    assert_eq!(opened(folder.path()).epoch(), 1);
}

#[test]
fn what_was_buffered_survives_the_process() {
    let folder = folder();
    let store = opened(folder.path());
    let key = Key::Head {
        conversation: CONVERSATION,
    };
    let mut batch = Batch::new();
    batch.put(&key, Bytes::from_static(b"x"));
    store
        .commit(batch, Durability::Buffered)
        .expect("the store takes it");

    // What the operating system has now is what a killed process would leave.
    let left = self::folder();
    copy(folder.path(), left.path());
    let read = opened(left.path()).get(&key).expect("it can be read");
    assert_eq!(read, Some(Bytes::from_static(b"x")));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let to = to.join(path.file_name().expect("it is in a folder"));
        if path.is_dir() {
            std::fs::create_dir(&to).expect("a folder can be made");
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("it can be copied");
        }
    }
}

#[test]
fn a_journal_cut_anywhere_leaves_whole_batches() {
    let folder = folder();
    let written = left(folder.path(), 6, 40);
    let mut counts = Vec::new();
    // Not before the first batch, which is the epoch's.
    for length in (60..written.len()).step_by(7) {
        restore(folder.path(), &written[..length]);
        counts.push(whole_batches(&opened(folder.path())));
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!((counts.first(), counts.last()), (Some(&0), Some(&5)));
}

#[test]
fn after_a_cut_the_store_goes_on() {
    let folder = folder();
    let written = left(folder.path(), 4, 40);
    restore(folder.path(), &written[..written.len() - 5]);
    let store = opened(folder.path());
    assert_eq!(whole_batches(&store), 3);
    write(&store, 3..5, 40);
    drop(store);
    assert_eq!(whole_batches(&opened(folder.path())), 5);
}

#[test]
fn garbage_after_the_journal_is_dropped() {
    let folder = folder();
    let written = left(folder.path(), 4, 40);
    for seed in 0..40_u64 {
        let garbage = (0..seed * 3 + 1).map(|n| {
            let mixed = (n + 1)
                .wrapping_mul(seed * 2 + 1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed >> 56) as u8
        });
        let mut bytes = written.clone();
        bytes.extend(garbage);
        restore(folder.path(), &bytes);
        assert_eq!(whole_batches(&opened(folder.path())), 4, "seed {seed}");
    }
}

#[test]
fn a_batch_with_a_hole_is_dropped_when_it_is_the_last() {
    let folder = folder();
    // Values larger than a page, so that a page that never reached the disk lies within one.
    let written = left(folder.path(), 4, 20_000);
    let batch = 3 * 20_000 - 4096;
    for back in (4096..batch).step_by(4096) {
        let mut bytes = written.clone();
        let hole = (written.len() - back) / 4096 * 4096;
        bytes[hole..(hole + 4096).min(written.len())].fill(0);
        restore(folder.path(), &bytes);
        assert_eq!(whole_batches(&opened(folder.path())), 3, "hole at {hole}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_leaves_whole_batches() {
    let folder = folder();
    let written = left(folder.path(), 6, 40);
    let (mut refused, mut dropped) = (0, 0);
    for at in (60..written.len()).step_by(3) {
        for bit in [0, 7] {
            let mut bytes = written.clone();
            bytes[at] ^= 1 << bit;
            restore(folder.path(), &bytes);
            match open(folder.path()) {
                Ok(store) => {
                    // Only the last batch may be dropped: no other is one that was being written.
                    assert!(whole_batches(&store) >= 5, "byte {at} bit {bit}");
                    dropped += 1;
                }
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("byte {at} bit {bit}: {error:?}"),
            }
        }
    }
    assert!(refused > dropped, "{refused} refused, {dropped} dropped");
}

#[test]
fn a_flipped_bit_in_a_table_file_is_an_error_or_harmless() {
    let folder = folder();
    let store = opened(folder.path());
    write(&store, 0..200, 400);
    // Opening replays journals to where files end, so that nothing hides the files.
    store
        .keyspaces
        .activities
        .rotate_memtable_and_wait()
        .expect("it is written out");
    drop(store);
    let tables = table_files(&folder.path().join("keyspaces"));
    assert!(!tables.is_empty());
    let mut errors = 0;
    for table in tables {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&table)
            .expect("it opens");
        let length = file.metadata().expect("it is there").len();
        for at in (0..length).step_by((length as usize / 12).max(1)) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("it can be read");
            file.write_all_at(&[byte[0] ^ 0x10], at)
                .expect("it can be written");
            match open(folder.path()).and_then(|store| sequences(&store)) {
                Ok(found) => assert_eq!(found.len(), 600, "{} at {at}", table.display()),
                Err(Error::Corrupt { .. } | Error::Failed { .. }) => errors += 1,
                Err(error) => panic!("{} at {at}: {error:?}", table.display()),
            }
            file.write_all_at(&byte, at).expect("it can be written");
        }
    }
    assert!(errors > 0);
    let store = opened(folder.path());
    assert_eq!(sequences(&store).expect("all is well again").len(), 600);
}

fn table_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(table_files(&path));
        } else if path
            .parent()
            .is_some_and(|parent| parent.ends_with("tables"))
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn several_journals_are_checked_and_replayed() {
    let folder = folder();
    let options = Options {
        memtable_bytes: MIB,
        ..Options::default()
    };
    let store = Embedded::open(folder.path(), &options).expect("the store opens");
    write(&store, 0..120, 300_000);
    assert!(store.database.journal_count() > 1 || table_files(folder.path()).len() > 1);
    drop(store);
    assert_eq!(whole_batches(&opened(folder.path())), 120);
}

#[test]
fn values_are_handed_out_without_being_copied() {
    let folder = folder();
    let store = opened(folder.path());
    let key = Key::Activity {
        conversation: CONVERSATION,
        sequence: Sequence(1),
    };
    let mut batch = Batch::new();
    batch.put(&key, vec![7; 1000]);
    store
        .commit(batch, Durability::Synced)
        .expect("the store takes it");
    let read = || {
        let value = store.get(&key).expect("it can be read");
        value.expect("it is there")
    };
    let (first, second) = (read(), read());
    assert_eq!(first, vec![7; 1000]);
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn once_a_commit_failed_the_store_asks_for_a_restart() {
    let folder = folder();
    let store = opened(folder.path());
    let batch = || {
        let mut batch = Batch::new();
        batch.put(&Key::Meta, Bytes::new());
        batch
    };
    let result = store
        .rounds
        .commit(batch(), Durability::Synced, &store.place, |_, _| {
            Err(from_io(&store.place, ErrorKind::StorageFull.into()))
        });
    let error = result.expect_err("the disk is full");
    assert!(matches!(error, Error::Full { .. }) && error.may_have_been_written());
    let error = store
        .commit(batch(), Durability::Synced)
        .expect_err("it stopped");
    assert!(matches!(error, Error::Stopped { .. }) && !error.may_have_been_written());
    assert!(store.get(&Key::Meta).is_ok(), "it can still be read");
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_made_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let above = tempfile::tempdir().expect("a folder");
    let path = above.path().join("a").join("store");
    drop(Embedded::open(&path, &Options::default()).expect("it opens"));
    let mode = |path: &Path| {
        let about = std::fs::metadata(path).expect("it is there");
        about.permissions().mode() & 0o777
    };
    assert_eq!(mode(&path), 0o700);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).expect("set");
    drop(Embedded::open(&path, &Options::default()).expect("it opens"));
    assert_eq!(mode(&path), 0o750, "one that is there stays as it is");
}
