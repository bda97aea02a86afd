use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::state::Condition;

const A: &[u8] = b"a";

#[test]
fn a_document_is_one_shards_until_its_write_has_landed() {
    let pending = Pending::default();
    assert_eq!(pending.claim(A, 0), Ok(Now::Stored));
    pending.decide(A, Some(Etag(1)));
    assert_eq!(pending.claim(A, 1), Err(Busy));
    assert_eq!(pending.claim(b"b", 1), Ok(Now::Stored));
    pending.land(&[A.to_vec()]);
    assert_eq!(pending.claim(A, 1), Ok(Now::Stored));
}

#[test]
fn the_same_shard_decides_on_what_it_decided() {
    let pending = Pending::default();
    assert_eq!(pending.claim(A, 0), Ok(Now::Stored));
    pending.decide(A, Some(Etag(1)));
    assert_eq!(pending.claim(A, 0), Ok(Now::Decided(Some(Etag(1)))));
    pending.decide(A, None);
    assert_eq!(pending.claim(A, 0), Ok(Now::Decided(None)));
    // The first has landed, and the second has not.
    pending.land(&[A.to_vec()]);
    assert_eq!(pending.claim(A, 0), Ok(Now::Decided(None)));
    assert_eq!(pending.claim(A, 1), Err(Busy));
    pending.land(&[A.to_vec()]);
    assert!(pending.is_empty());
}

#[test]
fn a_shard_that_writes_in_every_round_lets_another_one_in() {
    let pending = Pending::default();
    assert_eq!(pending.claim(A, 0), Ok(Now::Stored));
    pending.decide(A, Some(Etag(1)));
    assert_eq!(pending.claim(A, 1), Err(Busy));
    // No more on top, or it would never be let go.
    assert_eq!(pending.claim(A, 0), Err(Busy));
    pending.land(&[A.to_vec()]);
    assert_eq!(pending.claim(A, 1), Ok(Now::Stored));
}

#[test]
fn a_claim_that_is_taken_back_leaves_what_was_decided() {
    let pending = Pending::default();
    assert_eq!(pending.claim(A, 0), Ok(Now::Stored));
    pending.release(A);
    assert!(pending.is_empty());
    assert_eq!(pending.claim(A, 1), Ok(Now::Stored));
    pending.decide(A, Some(Etag(1)));
    assert_eq!(pending.claim(A, 1), Ok(Now::Decided(Some(Etag(1)))));
    pending.release(A);
    assert_eq!(pending.claim(A, 0), Err(Busy));
}

#[tokio::test]
async fn who_waits_hears_of_what_landed_and_of_what_was_taken_back() {
    let pending = Pending::default();
    let wait = || {
        let mut landed = Box::pin(pending.landed());
        landed.as_mut().enable();
        landed
    };
    let first = wait();
    let _ = pending.claim(A, 0);
    pending.release(A);
    first.await;
    let second = wait();
    let _ = pending.claim(A, 0);
    pending.decide(A, None);
    pending.land(&[A.to_vec()]);
    second.await;
}

/// What may happen to one of three shards that write two documents.
#[derive(Clone, Copy, Debug)]
enum Step {
    Decide {
        document: u8,
        condition: Wants,
    },
    /// The open round becomes the flight, unless there is one.
    End,
    /// The flight's batch is in the store, and the shard has not heard of it.
    Apply,
    /// The shard hears of it.
    Land {
        failed: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Wants {
    Any,
    Absent,
    /// The etag that the store has.
    Stored,
    /// The etag that was given last, durable or not.
    Newest,
}

fn step() -> impl Strategy<Value = (u8, Step)> {
    let wants = prop_oneof![
        1 => Just(Wants::Any),
        1 => Just(Wants::Absent),
        4 => Just(Wants::Stored),
        1 => Just(Wants::Newest),
    ];
    let step = prop_oneof![
        4 => (0..2_u8, wants).prop_map(|(document, condition)| Step::Decide { document, condition }),
        2 => Just(Step::End),
        1 => Just(Step::Apply),
        2 => prop::bool::weighted(0.2).prop_map(|failed| Step::Land { failed }),
    ];
    (0..3_u8, step)
}

/// A write that was decided, and the etag that it expects to find, if it expects any.
struct Decided {
    document: u8,
    expects: Option<Option<Etag>>,
    etag: Etag,
}

#[derive(Default)]
struct Shard {
    flight: Option<(Vec<Decided>, bool)>,
    open: Vec<Decided>,
}

/// Shards that do with the table what shards do, over a store.
#[derive(Default)]
struct World {
    pending: Pending,
    shards: [Shard; 3],
    store: BTreeMap<u8, Etag>,
    etags: u64,
    stale: usize,
    busy: usize,
}

impl World {
    fn decide(&mut self, shard: u8, document: u8, wants: Wants) {
        let stored = self.store.get(&document).copied();
        let condition = match wants {
            Wants::Any => Condition::Any,
            Wants::Absent => Condition::Absent,
            Wants::Stored => {
                stored.map_or(Condition::Absent, |etag| Condition::Match(etag.to_string()))
            }
            Wants::Newest => Condition::Match(Etag(self.etags).to_string()),
        };
        let present = match self.pending.claim(&[document], shard) {
            Err(Busy) => return self.busy += 1,
            Ok(Now::Stored) => stored,
            Ok(Now::Decided(etag)) => etag,
        };
        if !condition.holds(present) {
            self.pending.release(&[document]);
            return self.stale += 1;
        }
        self.etags += 1;
        let etag = Etag(self.etags);
        self.pending.decide(&[document], Some(etag));
        self.shards[usize::from(shard)].open.push(Decided {
            document,
            expects: (condition != Condition::Any).then_some(present),
            etag,
        });
    }

    fn end(&mut self, shard: u8) {
        let shard = &mut self.shards[usize::from(shard)];
        if shard.flight.is_none() && !shard.open.is_empty() {
            shard.flight = Some((std::mem::take(&mut shard.open), false));
        }
    }

    fn apply(&mut self, shard: u8) {
        let Some((writes, applied)) = &mut self.shards[usize::from(shard)].flight else {
            return;
        };
        if std::mem::replace(applied, true) {
            return;
        }
        for write in writes {
            let found = self.store.insert(write.document, write.etag);
            // The promise: each condition holds when the write happens, and of two writes the one
            // that was decided later stays.
            if let Some(expected) = write.expects {
                assert_eq!(found, expected, "a condition held no more");
            }
            assert!(found < Some(write.etag), "an earlier write came later");
        }
    }

    fn land(&mut self, shard: u8, failed: bool) {
        if !failed {
            self.apply(shard);
        }
        let at = usize::from(shard);
        let Some((writes, _)) = self.shards[at].flight.take() else {
            return;
        };
        self.let_go(&writes);
        if failed {
            let open = std::mem::take(&mut self.shards[at].open);
            self.let_go(&open);
        }
    }

    fn let_go(&self, writes: &[Decided]) {
        let documents: Vec<_> = writes.iter().map(|write| vec![write.document]).collect();
        self.pending.land(&documents);
    }
}

proptest! {
    #[test]
    fn a_condition_that_held_when_it_was_decided_holds_when_it_is_written(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::default();
        for (shard, step) in steps {
            match step {
                Step::Decide { document, condition } => world.decide(shard, document, condition),
                Step::End => world.end(shard),
                Step::Apply => world.apply(shard),
                Step::Land { failed } => world.land(shard, failed),
            }
        }
        for shard in 0..3 {
            for _ in 0..2 {
                world.end(shard);
                world.land(shard, false);
            }
        }
        prop_assert!(world.pending.is_empty(), "what has landed is nobody's");
    }
}
