//! What every [`Store`] promises, as tests that all implementations run.
//!
//! Each function is named for its promise, opens the store as often as it needs, and panics when
//! the promise is broken. [`all`] runs every one.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::keys::OnceDigest;
use super::{Batch, Durability, Error, Key, KeyRange, ListBy, Order, Store, Table};
use crate::clock::Timestamp;
use crate::id::{ConversationKey, ConversationNumber, Sequence};

/// Opens a store: empty at first, and then the one it opened before, which is closed by then.
pub type Open<'a> = &'a mut dyn FnMut() -> Arc<dyn Store>;

/// Runs each promise on a store of its own, which `fresh` makes a way to open.
pub fn all<F: FnMut() -> Arc<dyn Store>>(mut fresh: impl FnMut() -> F) {
    let promises: &[fn(Open<'_>)] = &[
        what_is_missing_is_none,
        an_empty_batch_changes_nothing,
        reads_see_commits_at_once,
        a_batch_spans_tables,
        the_later_write_to_a_key_wins,
        deletes_remove,
        values_may_be_empty_and_are_there,
        values_may_have_a_mebibyte,
        scans_go_in_key_order,
        scans_go_against_key_order,
        ranges_include_their_start_and_exclude_their_end,
        an_empty_range_visits_nothing,
        tables_are_apart,
        breaking_stops_the_scan,
        scans_see_one_moment,
        a_scan_of_everything_sees_one_moment_of_all_tables,
        listings_are_newest_first,
        what_a_scan_hands_out_can_be_deleted,
        opening_again_keeps_what_was_synced,
        opening_again_keeps_what_was_buffered,
        opening_again_keeps_deletes_and_the_later_write,
        concurrent_commits_are_each_atomic,
        concurrent_commits_are_all_there,
        a_key_too_long_writes_nothing,
        there_is_room,
    ];
    for promise in promises {
        promise(&mut fresh());
    }
}

fn conversation(number: u64) -> ConversationNumber {
    ConversationNumber(number)
}

fn name(number: u64) -> ConversationKey {
    ConversationKey {
        channel: "web".into(),
        conversation: format!("conversation-{number}").into(),
    }
}

fn head(conversation: ConversationNumber) -> Key<'static> {
    Key::Head { conversation }
}

fn activity(conversation: ConversationNumber, sequence: u64) -> Key<'static> {
    Key::Activity {
        conversation,
        sequence: Sequence(sequence),
    }
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn commit(store: &dyn Store, durability: Durability, puts: &[(Key<'_>, &str)]) {
    let mut batch = Batch::new();
    for (key, text) in puts {
        batch.put(key, value(text));
    }
    store.commit(batch, durability).expect("the store takes it");
}

fn read(store: &dyn Store, key: &Key<'_>) -> Option<Bytes> {
    store.get(key).expect("the store can be read")
}

fn collect(store: &dyn Store, range: &KeyRange, order: Order) -> Vec<(Vec<u8>, Bytes)> {
    let mut found = Vec::new();
    store
        .scan(range, order, &mut |key, value| {
            found.push((key.to_vec(), value));
            ControlFlow::Continue(())
        })
        .expect("the store can be read");
    found
}

fn sequences(store: &dyn Store, range: &KeyRange, order: Order) -> Vec<u64> {
    collect(store, range, order)
        .iter()
        .map(|(key, _)| {
            super::keys::decode_activity(key)
                .expect("an activity's key")
                .0
        })
        .collect()
}

/// Writes activities 1 to 9 of conversations 1, 2 and 3, out of order.
fn fill(store: &dyn Store) {
    for number in [2, 1, 3] {
        let conversation = conversation(number);
        for sequence in [5, 3, 9, 1, 7, 2, 8, 4, 6] {
            let text = format!("{number}/{sequence}");
            commit(
                store,
                Durability::Buffered,
                &[(activity(conversation, sequence), &text)],
            );
        }
    }
}

/// A key that was never written has no value, and a scan of nothing visits nothing.
pub fn what_is_missing_is_none(open: Open<'_>) {
    let store = open();
    assert_eq!(read(&*store, &head(conversation(1))), None);
    for table in [
        Table::Head,
        Table::Activity,
        Table::Idempotency,
        Table::Live,
    ] {
        let found = collect(&*store, &KeyRange::table(table), Order::Ascending);
        assert_eq!(found, [], "{table:?}");
    }
}

/// An empty batch is taken, at any durability.
pub fn an_empty_batch_changes_nothing(open: Open<'_>) {
    let store = open();
    commit(&*store, Durability::Synced, &[]);
    commit(&*store, Durability::Buffered, &[]);
    assert_eq!(
        collect(&*store, &KeyRange::table(Table::Head), Order::Ascending),
        []
    );
}

/// A commit is seen by the next read, however durable it is.
pub fn reads_see_commits_at_once(open: Open<'_>) {
    let store = open();
    let conversation = conversation(1);
    for durability in [Durability::Buffered, Durability::Synced] {
        let text = format!("{durability:?}");
        commit(&*store, durability, &[(head(conversation), &text)]);
        assert_eq!(read(&*store, &head(conversation)), Some(value(&text)));
    }
}

/// Writes to several tables in one batch are all there.
pub fn a_batch_spans_tables(open: Open<'_>) {
    let store = open();
    let (conversation, name) = (conversation(1), name(1));
    let keys = [
        head(conversation),
        activity(conversation, 1),
        Key::Live {
            conversation: &name,
        },
        Key::Conversation {
            conversation: &name,
        },
        Key::Idempotency {
            generation: 1,
            digest: OnceDigest([7; 15]),
        },
        Key::Member {
            conversation,
            member: "user",
        },
    ];
    commit(&*store, Durability::Synced, &keys.map(|key| (key, "there")));
    for key in keys {
        assert_eq!(read(&*store, &key), Some(value("there")), "{key}");
    }
}

/// Of several writes to a key in one batch, the last one stays.
pub fn the_later_write_to_a_key_wins(open: Open<'_>) {
    let store = open();
    let (put, deleted, back) = (conversation(1), conversation(2), conversation(3));
    let mut batch = Batch::new();
    batch.put(&head(put), value("first"));
    batch.put(&head(put), value("second"));
    batch.put(&head(deleted), value("first"));
    batch.delete(&head(deleted));
    batch.delete(&head(back));
    batch.put(&head(back), value("second"));
    store
        .commit(batch, Durability::Synced)
        .expect("the store takes it");
    assert_eq!(read(&*store, &head(put)), Some(value("second")));
    assert_eq!(read(&*store, &head(deleted)), None);
    assert_eq!(read(&*store, &head(back)), Some(value("second")));
    let heads = collect(&*store, &KeyRange::table(Table::Head), Order::Ascending);
    assert_eq!(heads.len(), 2);
}

/// A deleted key is gone from reads and scans, and deleting one that is not there is no error.
pub fn deletes_remove(open: Open<'_>) {
    let store = open();
    let conversation = conversation(1);
    fill(&*store);
    let mut batch = Batch::new();
    batch.delete(&activity(conversation, 5));
    batch.delete(&activity(conversation, 100));
    store
        .commit(batch, Durability::Synced)
        .expect("the store takes it");
    assert_eq!(read(&*store, &activity(conversation, 5)), None);
    let range = KeyRange::activities(conversation, Sequence(4)..=Sequence(6));
    assert_eq!(sequences(&*store, &range, Order::Ascending), [4, 6]);
}

/// An empty value is not the same as none.
pub fn values_may_be_empty_and_are_there(open: Open<'_>) {
    let store = open();
    let conversation = name(1);
    let live = Key::Live {
        conversation: &conversation,
    };
    commit(&*store, Durability::Synced, &[(live, "")]);
    assert_eq!(read(&*store, &live), Some(Bytes::new()));
    let found = collect(&*store, &KeyRange::live(), Order::Ascending);
    assert_eq!(found, [(live.encode(), Bytes::new())]);
}

/// A value of 1 MiB is there whole, also after opening again.
pub fn values_may_have_a_mebibyte(open: Open<'_>) {
    let large: Bytes = (0..1024 * 1024_u32)
        .map(|byte| (byte % 251) as u8)
        .collect();
    let conversation = conversation(1);
    let store = open();
    let mut batch = Batch::new();
    batch.put(&activity(conversation, 1), large.clone());
    store
        .commit(batch, Durability::Synced)
        .expect("the store takes it");
    assert!(read(&*store, &activity(conversation, 1)) == Some(large.clone()));
    drop(store);
    assert!(read(&*open(), &activity(conversation, 1)) == Some(large));
}

/// Entries come in the order of their encoded keys.
pub fn scans_go_in_key_order(open: Open<'_>) {
    let store = open();
    fill(&*store);
    let found = collect(&*store, &KeyRange::table(Table::Activity), Order::Ascending);
    assert_eq!(found.len(), 27);
    assert!(found.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(
        found.first().map(|(_, value)| value.clone()),
        Some(value("1/1"))
    );
}

/// The other way round, the same entries come.
pub fn scans_go_against_key_order(open: Open<'_>) {
    let store = open();
    fill(&*store);
    let range = KeyRange::activities(conversation(2), Sequence(2)..=Sequence(8));
    let mut up = collect(&*store, &range, Order::Ascending);
    let down = collect(&*store, &range, Order::Descending);
    up.reverse();
    assert_eq!(up, down);
    assert_eq!(down.len(), 7);
}

/// A range has its first key and not its last, nor anything of its neighbours.
pub fn ranges_include_their_start_and_exclude_their_end(open: Open<'_>) {
    let store = open();
    fill(&*store);
    let of = conversation(2);
    for (from, to, expected) in [
        (3, 5, vec![3, 4, 5]),
        (1, 1, vec![1]),
        (0, 2, vec![1, 2]),
        (8, u64::MAX, vec![8, 9]),
        (10, 20, vec![]),
    ] {
        let range = KeyRange::activities(of, Sequence(from)..=Sequence(to));
        assert_eq!(sequences(&*store, &range, Order::Ascending), expected);
        let reversed: Vec<u64> = expected.into_iter().rev().collect();
        assert_eq!(sequences(&*store, &range, Order::Descending), reversed);
    }
    commit(
        &*store,
        Durability::Buffered,
        &["a", "b", "c"].map(|member| {
            let key = Key::Member {
                conversation: of,
                member,
            };
            (key, member)
        }),
    );
    let range = KeyRange::members(of, Some("a"));
    let members = collect(&*store, &range, Order::Ascending);
    let members: Vec<_> = members.into_iter().map(|(_, value)| value).collect();
    assert_eq!(members, ["b", "c"]);
}

/// A range that ends before it starts is empty, not an error.
pub fn an_empty_range_visits_nothing(open: Open<'_>) {
    let store = open();
    fill(&*store);
    let range = KeyRange::activities(conversation(2), Sequence(5)..=Sequence(4));
    for order in [Order::Ascending, Order::Descending] {
        assert_eq!(collect(&*store, &range, order), []);
    }
    let range = KeyRange::activities(conversation(2), Sequence(9)..=Sequence(1));
    assert_eq!(collect(&*store, &range, Order::Ascending), []);
}

/// Keys of one table are in no range of another, though they name the same thing.
pub fn tables_are_apart(open: Open<'_>) {
    let store = open();
    let (conversation, name) = (conversation(1), &name(1));
    let keys = [
        Key::Meta,
        Key::SigningKey,
        Key::Head { conversation },
        Key::Conversation { conversation: name },
        activity(conversation, 1),
        Key::Member {
            conversation,
            member: "m",
        },
        Key::Live { conversation: name },
        Key::Listing {
            by: ListBy::All,
            start: Timestamp(1),
            conversation: name,
        },
        Key::Idempotency {
            generation: 1,
            digest: OnceDigest([1; 15]),
        },
        Key::DeadLetter {
            conversation,
            bot: "",
            sequence: Sequence(1),
        },
        Key::Receipt {
            conversation,
            sequence: Sequence(1),
        },
    ];
    // Not the first, which an implementation may have written already.
    let puts = keys[1..].iter().map(|key| (*key, "x")).collect::<Vec<_>>();
    commit(&*store, Durability::Buffered, &puts);
    for key in &keys[1..] {
        let found = collect(&*store, &KeyRange::table(key.table()), Order::Ascending);
        assert_eq!(found, [(key.encode(), value("x"))], "{key}");
    }
}

/// Nothing is visited after the visitor has broken off.
pub fn breaking_stops_the_scan(open: Open<'_>) {
    let store = open();
    fill(&*store);
    for order in [Order::Ascending, Order::Descending] {
        let mut visits = 0;
        let range = KeyRange::table(Table::Activity);
        let result = store.scan(&range, order, &mut |_, _| {
            visits += 1;
            if visits == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(result.is_ok(), "breaking off is no error");
        assert_eq!(visits, 3);
    }
}

/// A scan sees all of a batch or nothing, also while it is committed.
pub fn scans_see_one_moment(open: Open<'_>) {
    const ROUNDS: u64 = 200;
    let store = open();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..=ROUNDS {
                let mut batch = Batch::new();
                for number in 0..20 {
                    batch.put(&head(conversation(number)), value(&round.to_string()));
                }
                store
                    .commit(batch, Durability::Buffered)
                    .expect("the store takes it");
            }
        });
        while !writer.is_finished() {
            let heads = collect(&*store, &KeyRange::table(Table::Head), Order::Ascending);
            assert!(heads.is_empty() || heads.len() == 20);
            assert!(heads.iter().all(|(_, value)| *value == heads[0].1));
        }
    });
}

/// A list of conversations starts with the newest, and goes on after any place in it.
pub fn listings_are_newest_first(open: Open<'_>) {
    let store = open();
    let bot = "echo".into();
    let by = ListBy::Bot(&bot);
    let conversations: Vec<_> = (0..5).map(name).collect();
    let mut batch = Batch::new();
    for (start, conversation) in (1_000..).zip(&conversations) {
        let key = Key::Listing {
            by,
            start: Timestamp(start),
            conversation,
        };
        batch.put(&key, Bytes::new());
    }
    store
        .commit(batch, Durability::Synced)
        .expect("the store takes it");
    let starts = |range| {
        collect(&*store, &range, Order::Ascending)
            .iter()
            .map(|(key, _)| {
                super::keys::decode_listing(key)
                    .expect("a listing's key")
                    .0
                    .0
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        starts(KeyRange::listing(by, None)),
        [1004, 1003, 1002, 1001, 1000]
    );
    let after = Some((Timestamp(1003), &conversations[3]));
    assert_eq!(starts(KeyRange::listing(by, after)), [1002, 1001, 1000]);
    assert_eq!(starts(KeyRange::listing(ListBy::All, None)), [] as [u64; 0]);
}

/// A scan of everything visits all tables in key order, and sees none of what is committed while it
/// goes on, whichever table that is in.
pub fn a_scan_of_everything_sees_one_moment_of_all_tables(open: Open<'_>) {
    let store = open();
    let tables = [
        head(conversation(1)),
        activity(conversation(1), 1),
        Key::Receipt {
            conversation: conversation(1),
            sequence: Sequence(1),
        },
    ];
    let write = |text: &str| {
        commit(
            &*store,
            Durability::Buffered,
            &tables.map(|key| (key, text)),
        )
    };
    for order in [Order::Ascending, Order::Descending] {
        write("before");
        let mut seen = Vec::new();
        let visited = store.scan(&KeyRange::everything(), order, &mut |key, value| {
            if Table::from_tag(key[0]) == Some(Table::Meta) {
                return ControlFlow::Continue(());
            }
            // The visitor may not use the store: others do.
            std::thread::scope(|scope| drop(scope.spawn(|| write("after"))));
            assert_eq!(value, "before");
            seen.push(key.to_vec());
            ControlFlow::Continue(())
        });
        visited.expect("it can be read");
        let mut expected = tables.map(|key| key.encode()).to_vec();
        if order == Order::Descending {
            expected.reverse();
        }
        assert_eq!(seen, expected);
    }
}

/// Keys can be deleted in the form a scan hands them out in, as whole generations are.
pub fn what_a_scan_hands_out_can_be_deleted(open: Open<'_>) {
    let store = open();
    let key = |generation| Key::Idempotency {
        generation,
        digest: OnceDigest([7; 15]),
    };
    commit(
        &*store,
        Durability::Buffered,
        &[7, 8, 9].map(|generation| (key(generation), "x")),
    );
    let mut batch = Batch::new();
    for (key, _) in collect(&*store, &KeyRange::idempotency_before(9), Order::Ascending) {
        batch.delete_encoded(&key);
    }
    assert_eq!(batch.len(), 2);
    store
        .commit(batch, Durability::Buffered)
        .expect("the store takes it");
    assert_eq!(
        [7, 8, 9].map(|g| read(&*store, &key(g)).is_some()),
        [false, false, true]
    );
}

/// What was synced is there when the store is opened again.
pub fn opening_again_keeps_what_was_synced(open: Open<'_>) {
    let conversation = conversation(1);
    for sequence in 1..=3 {
        let store = open();
        commit(
            &*store,
            Durability::Synced,
            &[(activity(conversation, sequence), "x")],
        );
        drop(store);
        let range = KeyRange::activities(conversation, Sequence::START..=Sequence(9));
        let expected: Vec<u64> = (1..=sequence).collect();
        assert_eq!(sequences(&*open(), &range, Order::Ascending), expected);
    }
}

/// What was buffered is there too, when only the store was closed and the machine went on.
pub fn opening_again_keeps_what_was_buffered(open: Open<'_>) {
    let store = open();
    fill(&*store);
    let before = collect(&*store, &KeyRange::table(Table::Activity), Order::Ascending);
    drop(store);
    let after = collect(
        &*open(),
        &KeyRange::table(Table::Activity),
        Order::Ascending,
    );
    assert_eq!(before, after);
}

/// Opening again brings back neither what was deleted nor what was overwritten.
pub fn opening_again_keeps_deletes_and_the_later_write(open: Open<'_>) {
    let (a, b) = (conversation(1), conversation(2));
    let store = open();
    commit(
        &*store,
        Durability::Synced,
        &[(head(a), "old"), (head(b), "old")],
    );
    let mut batch = Batch::new();
    batch.put(&head(a), value("newer"));
    batch.put(&head(a), value("newest"));
    batch.put(&head(b), value("newer"));
    batch.delete(&head(b));
    store
        .commit(batch, Durability::Synced)
        .expect("the store takes it");
    drop(store);
    let store = open();
    assert_eq!(read(&*store, &head(a)), Some(value("newest")));
    assert_eq!(read(&*store, &head(b)), None);
}

/// Of two batches that write the same keys at the same time, one is there whole.
pub fn concurrent_commits_are_each_atomic(open: Open<'_>) {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 20;
    let store = open();
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let store = &store;
                scope.spawn(move || {
                    let mut batch = Batch::new();
                    for number in 0..10 {
                        batch.put(&head(conversation(number)), value(&thread.to_string()));
                    }
                    let durability = match thread % 2 {
                        0 => Durability::Synced,
                        _ => Durability::Buffered,
                    };
                    store.commit(batch, durability).expect("the store takes it");
                });
            }
        });
        let heads = collect(&*store, &KeyRange::table(Table::Head), Order::Ascending);
        assert_eq!(heads.len(), 10);
        assert!(heads.iter().all(|(_, value)| *value == heads[0].1));
    }
}

/// No batch is lost among others, and each is seen as soon as its commit returns.
pub fn concurrent_commits_are_all_there(open: Open<'_>) {
    const THREADS: u64 = 8;
    const EACH: u64 = 50;
    let store = open();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let conversation = conversation(thread);
                for sequence in 1..=EACH {
                    let key = activity(conversation, sequence);
                    commit(&**store, Durability::Synced, &[(key, "x")]);
                    assert_eq!(read(&**store, &key), Some(value("x")));
                }
            });
        }
    });
    drop(store);
    let found = collect(
        &*open(),
        &KeyRange::table(Table::Activity),
        Order::Ascending,
    );
    assert_eq!(found.len() as u64, THREADS * EACH);
}

/// A key that the store cannot take is refused before any of its batch is written, or stored.
pub fn a_key_too_long_writes_nothing(open: Open<'_>) {
    let store = open();
    let conversation = conversation(1);
    let long = "x".repeat(70_000);
    let member = Key::Member {
        conversation,
        member: &long,
    };
    let mut batch = Batch::new();
    batch.put(&head(conversation), value("x"));
    batch.put(&member, value("x"));
    match store.commit(batch, Durability::Synced) {
        Ok(()) => assert_eq!(read(&*store, &member), Some(value("x"))),
        Err(error) => {
            assert!(matches!(error, Error::KeyTooLong { .. }), "{error}");
            assert!(!error.may_have_been_written());
            assert_eq!(read(&*store, &head(conversation)), None);
        }
    }
    commit(
        &*store,
        Durability::Synced,
        &[(head(conversation), "after")],
    );
    assert_eq!(read(&*store, &head(conversation)), Some(value("after")));
}

/// A store that takes commits says that it has room.
pub fn there_is_room(open: Open<'_>) {
    assert!(open().free_bytes().expect("the store knows") > 0);
}
