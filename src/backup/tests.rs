use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::Manual;
use crate::files::{About, Files};
use crate::id::{ConversationNumber, Sequence};
use crate::store::embedded::Options;
use crate::store::{Batch, Durability, Embedded, Key, KeyRange, Memory, Order, Store, record};

const TIME: Timestamp = Timestamp(1_767_312_345_678);

fn files(folder: &Path) -> Files {
    let clock = Arc::new(Manual::new(TIME));
    Files::new(folder.join(crate::files::FOLDER), Duration::ZERO, clock)
}

/// A store with some records, and the record of its own that a backup needs.
fn fill(store: &dyn Store, activities: u64) {
    let mut batch = Batch::new();
    let meta = crate::proto::storage::Meta {
        format: record::FORMAT,
        epoch: 7,
    };
    record::put(&mut batch, &Key::Meta, &meta);
    batch.put(&Key::SigningKey, [1; 32]);
    for sequence in 1..=activities {
        let key = Key::Activity {
            conversation: ConversationNumber(5),
            sequence: Sequence(sequence),
        };
        batch.put(&key, format!("activity {sequence}"));
    }
    store.commit(batch, Durability::Synced).expect("it commits");
}

fn taken(store: &dyn Store, files: &Files) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let mut take = |chunk: Bytes| {
        assert!((1..=CHUNK_BYTES).contains(&chunk.len()));
        bytes.extend_from_slice(&chunk);
        Ok(())
    };
    let summary = write(store, files, TIME, &mut take).expect("it is written");
    (bytes, summary)
}

fn read(bytes: &[u8]) -> Result<Summary, Error> {
    let mut reader = Reader::new(bytes)?;
    while reader.read_next()?.is_some() {}
    Ok(reader.summary().expect("it has said that it is whole"))
}

fn save(to: &Path, bytes: &[u8], summary: &Summary) -> Result<(), Error> {
    let mut unfinished = Unfinished::begin(to)?;
    for chunk in bytes.chunks(1000) {
        unfinished.add(chunk).expect("it is written");
    }
    unfinished.finish(summary)
}

fn everything(store: &dyn Store) -> Vec<(Vec<u8>, Bytes)> {
    let mut entries = Vec::new();
    let visited = store.scan(
        &KeyRange::everything(),
        Order::Ascending,
        &mut |key, value| {
            entries.push((key.to_vec(), value));
            std::ops::ControlFlow::Continue(())
        },
    );
    visited.expect("it can be read");
    entries
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Memory::new();
    // More than one chunk.
    fill(&store, 20_000);
    let (bytes, summary) = taken(&store, &files(folder.path()));
    assert!(bytes.len() > 2 * CHUNK_BYTES);
    assert_eq!((summary.time, summary.records), (TIME, 20_002));
    assert_eq!(read(&bytes).expect("it is whole"), summary);
}

#[test]
fn a_backup_with_any_bit_turned_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Memory::new();
    fill(&store, 3);
    let (bytes, _) = taken(&store, &files(folder.path()));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = read(&bytes);
        assert!(
            matches!(refused, Err(Error::Damaged(_) | Error::Format { .. })),
            "bit {bit}: {refused:?}"
        );
    }
}

#[test]
fn a_backup_of_any_other_length_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Memory::new();
    fill(&store, 3);
    let (mut bytes, _) = taken(&store, &files(folder.path()));
    for length in 0..bytes.len() {
        let refused = read(&bytes[..length]);
        assert!(matches!(refused, Err(Error::Damaged(_))), "{length}");
    }
    bytes.push(0);
    assert!(matches!(read(&bytes), Err(Error::Damaged(_))));
}

#[test]
fn a_backup_of_another_format_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Memory::new();
    fill(&store, 1);
    let (bytes, _) = taken(&store, &files(folder.path()));
    // The header's first field: its tag, and then the format.
    let at = MAGIC.len() + 5 + 1;
    assert_eq!(u32::from(bytes[at]), FORMAT);
    let mut newer = bytes;
    newer[at] += 1;
    let error = read(&newer).expect_err("it is newer").to_string();
    assert!(error.contains("the backup has format 2"), "{error}");
}

#[tokio::test]
async fn a_restored_folder_has_everything_and_an_epoch_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data, kept, new] = ["data", "kept", "new"].map(|name| folder.path().join(name));
    let store = Embedded::open(&data, &Options::default()).expect("it opens");
    fill(&store, 100);
    let files_there = files(&data);
    let mut incoming = files_there.begin();
    incoming
        .start(About::new(Some("text/plain"), Some("a.txt")))
        .await
        .expect("it begins");
    incoming.write(&[9; 200_000]).await.expect("it is written");
    incoming.end().await.expect("it ends");
    let id = incoming.written().next().expect("a file").0.clone();
    incoming.publish().await.expect("it is published").keep();

    let (bytes, summary) = taken(&store, &files_there);
    assert_eq!(summary.files, 1);
    save(&kept, &bytes, &summary).expect("it is saved");
    assert_eq!(restore(&kept, &new).expect("it is restored"), summary);

    let restored = Embedded::open(&new, &Options::default()).expect("it opens");
    assert!(restored.epoch() > 7 + (1 << 13), "{}", restored.epoch());
    let but_meta = |store: &dyn Store| {
        let mut entries = everything(store);
        assert_eq!(entries.remove(0).0, Key::Meta.encode());
        entries
    };
    assert_eq!(but_meta(&restored), but_meta(&store));
    let found = files(&new)
        .find(&id)
        .await
        .expect("it is read")
        .expect("it is there");
    assert_eq!(found.about.name.as_deref(), Some("a.txt"));
    assert_eq!(fs::read(found.path).expect("it is read"), [9; 200_000]);
}

#[test]
fn two_restores_of_one_backup_have_epochs_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept");
    let store = Memory::new();
    fill(&store, 1);
    let (bytes, summary) = taken(&store, &files(folder.path()));
    save(&kept, &bytes, &summary).expect("it is saved");
    // Chance keeps them apart: that all of four are the same is nobody's luck.
    let epochs = ["a", "b", "c", "d"].map(|name| {
        let to = folder.path().join(name);
        restore(&kept, &to).expect("it is restored");
        Embedded::open(&to, &Options::default())
            .expect("it opens")
            .epoch()
    });
    assert!(epochs.iter().any(|epoch| *epoch != epochs[0]), "{epochs:?}");
}

#[test]
fn a_folder_that_is_not_empty_is_neither_written_nor_restored_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let [kept, occupied, empty] =
        ["kept", "occupied", "empty"].map(|name| folder.path().join(name));
    fs::create_dir(&occupied).expect("a folder");
    fs::write(occupied.join("mine"), "mine").expect("a file");
    fs::create_dir(&empty).expect("a folder");
    let store = Memory::new();
    fill(&store, 1);
    let (bytes, summary) = taken(&store, &files(folder.path()));

    let refused = save(&occupied, &bytes, &summary);
    assert!(matches!(refused, Err(Error::Occupied(_))), "{refused:?}");
    save(&kept, &bytes, &summary).expect("it is saved");
    let refused = restore(&kept, &occupied);
    assert!(matches!(refused, Err(Error::Occupied(_))), "{refused:?}");
    let names: Vec<_> = fs::read_dir(&occupied).expect("it is read").collect();
    assert_eq!(names.len(), 1);
    // An empty one is as good as none.
    restore(&kept, &empty).expect("it is restored");
    assert!(Embedded::is_at(&empty));
}

#[test]
fn a_backup_that_is_not_whole_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let [kept, broken, new] = ["kept", "broken", "new"].map(|name| folder.path().join(name));
    let store = Memory::new();
    fill(&store, 10);
    let (bytes, summary) = taken(&store, &files(&folder.path().join("data")));

    // The connection was lost, or something arrived that was not sent.
    drop(Unfinished::begin(&kept).expect("it begins"));
    let refused = save(&kept, &bytes[..bytes.len() - 1], &summary);
    assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
    let mut other = summary;
    other.records += 1;
    let refused = save(&kept, &bytes, &other);
    assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("it is read").count(), 0);

    // Nor is one restored that was damaged later, or has lost its manifest.
    save(&broken, &bytes, &summary).expect("it is saved");
    let file = broken.join("backup.turnwire");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&file, damaged).expect("it is damaged");
    let refused = restore(&broken, &new);
    assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
    fs::write(&file, &bytes).expect("it is mended");
    fs::remove_file(broken.join("manifest.json")).expect("it is there");
    let refused = restore(&broken, &new);
    assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("it is read").count(), 1);
}
