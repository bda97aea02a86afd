//! Visiting a range, table by table, as of one moment.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use fjall::{Readable, Snapshot};

use super::{Failure, Keyspaces, guarded};
use crate::store::{KeyRange, Order, Table};

type Visit<'v> = &'v mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>;

/// Visits `range` in `snapshot`, which is of all tables: a batch is seen whole or not at all.
pub(super) fn scan(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    range: &KeyRange,
    order: Order,
    visit: Visit<'_>,
) -> Result<(), Failure> {
    let mut part =
        |table, part: &KeyRange| scan_table(keyspaces, snapshot, table, part, order, visit);
    // As nearly all are.
    if let Some(table) = range.within() {
        return part(table, range).map(drop);
    }
    let mut parts: Vec<_> = range.by_table().collect();
    if order == Order::Descending {
        parts.reverse();
    }
    for (table, range) in parts {
        if part(table, &range)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn scan_table(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    table: Table,
    range: &KeyRange,
    order: Order,
    visit: Visit<'_>,
) -> Result<ControlFlow<()>, Failure> {
    let keyspace = keyspaces.of(table);
    let bounds = (Bound::Included(range.start()), Bound::Excluded(range.end()));
    let mut entries = guarded(|| Ok(snapshot.range::<&[u8], _>(keyspace, bounds)))?;
    loop {
        let entry = guarded(|| {
            let entry = match order {
                Order::Ascending => entries.next(),
                Order::Descending => entries.next_back(),
            };
            entry.map(fjall::Guard::into_inner).transpose()
        })?;
        let Some((key, value)) = entry else {
            return Ok(ControlFlow::Continue(()));
        };
        if visit(&key, Bytes::from_owner(value)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}
