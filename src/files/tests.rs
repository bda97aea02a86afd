use tempfile::TempDir;

use super::*;
use crate::clock::Manual;

/// Some day in 2026.
const START: Timestamp = Timestamp(1_767_312_345_678);

struct Place {
    folder: TempDir,
    clock: Arc<Manual>,
    files: Files,
}

impl Place {
    fn new(retention: Duration) -> Self {
        let folder = TempDir::new().expect("a folder");
        let clock = Arc::new(Manual::new(START));
        let root = folder.path().join("data/attachments");
        let files = Files::new(root, retention, Arc::clone(&clock) as Arc<dyn Clock>);
        Self {
            folder,
            clock,
            files,
        }
    }

    async fn keep(&self, bytes: &[u8]) -> FileId {
        let mut incoming = self.files.begin();
        write(&mut incoming, bytes).await;
        let id = incoming.written().next().expect("one").0.clone();
        incoming.publish().await.expect("published").keep();
        id
    }

    /// Every file below the folder.
    fn all(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }

    /// What is dropped is removed on another thread.
    async fn until_none(&self) {
        for _ in 0..1_000 {
            if self.all().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("left behind: {:?}", self.all());
    }
}

async fn write(incoming: &mut Incoming, bytes: &[u8]) {
    let about = About::new(Some("text/plain"), Some("a.txt"));
    incoming.start(about).await.expect("begun");
    incoming.write(bytes).await.expect("written");
    incoming.end().await.expect("ended");
}

#[tokio::test]
async fn what_is_published_is_found_with_its_type_name_and_size() {
    let place = Place::new(DAY);
    let id = place.keep(b"hello").await;
    let found = place.files.find(&id).await.expect("read").expect("there");
    assert_eq!(fs::read(&found.path).expect("read"), b"hello");
    assert_eq!(found.about.size, 5);
    assert_eq!(found.about.name.as_deref(), Some("a.txt"));
    assert_eq!(found.about.content_type, "text/plain");
    let other = FileId::fresh(id.day());
    assert!(place.files.find(&other).await.expect("read").is_none());
}

#[tokio::test]
async fn what_is_dropped_before_it_is_kept_leaves_nothing() {
    let place = Place::new(DAY);
    let mut incoming = place.files.begin();
    write(&mut incoming, b"one").await;
    incoming.start(About::new(None, None)).await.expect("begun");
    incoming.write(b"half").await.expect("written");
    assert_eq!(place.all().len(), 2);
    drop(incoming);
    place.until_none().await;

    let mut incoming = place.files.begin();
    write(&mut incoming, b"one").await;
    let published = incoming.publish().await.expect("published");
    assert_eq!(place.all().len(), 2);
    drop(published);
    place.until_none().await;
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_what_was_published_is_not() {
    let place = Place::new(DAY);
    place.files.remove_leftovers().await.expect("there is none");
    let id = place.keep(b"kept").await;
    let left = place.files.inner.root.join(INCOMING).join("left");
    fs::write(&left, b"half").expect("written");
    place.files.remove_leftovers().await.expect("removed");
    assert!(!left.exists());
    assert!(place.files.find(&id).await.expect("read").is_some());
    place.keep(b"more").await;
}

#[tokio::test]
async fn whole_days_are_removed_when_they_are_over_for_as_long_as_files_are_kept() {
    let place = Place::new(2 * DAY);
    let first = place.keep(b"first").await;
    place.clock.advance(DAY);
    let second = place.keep(b"second").await;
    assert!(!place.files.sweep().await.expect("swept"));
    assert_eq!(place.all().len(), 4);

    // The first day ends two days after its last moment, wherever in it a file came.
    let over = place.files.end_of(first.day()).expect("an end");
    place.clock.advance(over.since(place.clock.now()));
    assert!(place.files.find(&first).await.expect("read").is_none());
    assert!(!place.files.sweep().await.expect("swept"));
    assert_eq!(place.all().len(), 2);
    assert!(place.files.find(&second).await.expect("read").is_some());
}

#[tokio::test]
async fn a_sweep_does_a_bounded_part_and_says_that_there_is_more() {
    let place = Place::new(DAY);
    place.keep(b"one").await;
    let folder = days(&place.files.inner.root).expect("read").remove(0).1;
    for at in 0..SWEEP_FILES {
        fs::write(folder.join(at.to_string()), b"").expect("written");
    }
    place.clock.advance(3 * DAY);
    assert!(place.files.sweep().await.expect("swept"));
    assert_eq!(place.all().len(), 2);
    assert!(!place.files.sweep().await.expect("swept"));
    assert!(place.all().is_empty());
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_retention_of_zero_keeps_for_ever() {
    let place = Place::new(Duration::ZERO);
    let id = place.keep(b"one").await;
    place.clock.advance(10_000 * DAY);
    assert!(!place.files.sweep().await.expect("swept"));
    let found = place.files.find(&id).await.expect("read").expect("there");
    assert_eq!(found.kept, None);
}
