use super::*;
use crate::id::{ConversationNumber, Sequence};
use crate::store::contract;

fn put(store: &Memory, sequence: u64, durability: Durability) -> Result<(), Error> {
    let mut batch = Batch::new();
    let key = Key::Activity {
        conversation: CONVERSATION,
        sequence: Sequence(sequence),
    };
    batch.put(&key, Bytes::from_static(b"x"));
    let head = Key::Head {
        conversation: CONVERSATION,
    };
    batch.put(&head, Bytes::from(sequence.to_string()));
    store.commit(batch, durability)
}

const CONVERSATION: ConversationNumber = ConversationNumber(1);

fn head(store: &Memory) -> Option<Bytes> {
    let key = Key::Head {
        conversation: CONVERSATION,
    };
    store.get(&key).expect("memory can be read")
}

#[test]
fn keeps_the_contract() {
    contract::all(|| {
        let store = Memory::new();
        move || -> Arc<dyn Store> { Arc::new(store.clone()) }
    });
}

#[test]
fn a_crash_loses_what_was_only_buffered() {
    let store = Memory::new();
    put(&store, 1, Durability::Synced).expect("it is healthy");
    put(&store, 2, Durability::Buffered).expect("it is healthy");
    put(&store, 3, Durability::Buffered).expect("it is healthy");
    assert_eq!(store.crash(0), 2);
    assert_eq!(head(&store), Some(Bytes::from_static(b"1")));
    assert_eq!(store.len(), 2);
}

#[test]
fn a_crash_may_keep_the_first_of_them() {
    let store = Memory::new();
    for sequence in 1..=3 {
        put(&store, sequence, Durability::Buffered).expect("it is healthy");
    }
    assert_eq!(store.crash(2), 1);
    assert_eq!(head(&store), Some(Bytes::from_static(b"2")));
    assert_eq!(store.crash(0), 0, "what a crash left is on disk");
}

#[test]
fn a_synced_commit_makes_buffered_ones_durable() {
    let store = Memory::new();
    put(&store, 1, Durability::Buffered).expect("it is healthy");
    put(&store, 2, Durability::Synced).expect("it is healthy");
    assert_eq!(store.crash(0), 0);
    assert_eq!(head(&store), Some(Bytes::from_static(b"2")));
}

#[test]
fn commits_fail_as_often_as_told_and_write_nothing() {
    let store = Memory::new();
    store.fail_next_commits(2);
    assert!(put(&store, 1, Durability::Synced).is_err());
    assert!(put(&store, 1, Durability::Synced).is_err());
    assert!(store.is_empty());
    assert!(put(&store, 1, Durability::Synced).is_ok());
}

#[test]
fn a_hook_can_write_and_still_fail() {
    let store = Memory::new();
    store.on_commit(|batch, _| {
        assert_eq!(batch.len(), 2);
        Verdict::ApplyAndFail(Error::Full {
            place: "memory".to_owned(),
        })
    });
    let error = put(&store, 1, Durability::Synced).expect_err("the hook says so");
    assert!(error.may_have_been_written());
    assert_eq!(head(&store), Some(Bytes::from_static(b"1")));
    store.heal();
    assert!(put(&store, 2, Durability::Synced).is_ok());
}

#[test]
fn room_is_what_the_test_says() {
    let store = Memory::new();
    store.set_free_bytes(5);
    assert!(matches!(store.free_bytes(), Ok(5)));
}
