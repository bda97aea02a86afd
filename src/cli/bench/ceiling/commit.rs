//! `fjall`'s group commit of what a turn writes: all conversations write their question, with one
//! sync, then all their answer.
//!
//! Nothing is read, checked or encoded, and the writer never waits for anyone. Keys and values are
//! as long as Turnwire's are on the average (its journal grows by 1,560 bytes a turn of 450-byte
//! messages), and the tables are those of its store.

use std::path::Path;

use anyhow::Context;
use fjall::{Database, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use tokio::time::Instant;

use super::{MEASURED, WARMUP};
use crate::cli::bench::latency::Latencies;

/// Bytes of keys and values that a question's write has beside its text.
pub(super) const QUESTION_BYTES: usize = HEAD_BYTES + KEYED_BYTES + ACTIVITY_BYTES;

/// A head: the end of a conversation's log, and two cursors. Key and value.
const HEAD_BYTES: usize = KEY_BYTES + HEAD_VALUE_BYTES;
const HEAD_VALUE_BYTES: usize = 60;
/// The result of a post, so that it is not taken twice.
const KEYED_BYTES: usize = KEY_BYTES + KEYED_VALUE_BYTES;
const KEYED_VALUE_BYTES: usize = 60;
/// An activity without its text.
const ACTIVITY_BYTES: usize = KEY_BYTES + ACTIVITY_VALUE_BYTES;
const ACTIVITY_VALUE_BYTES: usize = 120;
/// A table, a conversation, and a position in it.
const KEY_BYTES: usize = 32;

pub(super) fn measure(
    folder: &Path,
    conversations: usize,
    size: usize,
) -> anyhow::Result<Latencies> {
    let store = Store::open(folder, size).context("cannot open a store")?;
    let mut latencies = Latencies::new()?;
    let begin = Instant::now() + WARMUP;
    let end = begin + MEASURED;
    let mut turn = 0;
    loop {
        let start = Instant::now();
        store.write(conversations, 2 * turn, true)?;
        store.write(conversations, 2 * turn + 1, false)?;
        let now = Instant::now();
        if now >= end {
            return Ok(latencies);
        }
        if now >= begin {
            latencies.record_many(now - start, conversations as u64);
        }
        turn += 1;
    }
}

struct Store {
    database: Database,
    hot: fjall::Keyspace,
    activities: fjall::Keyspace,
    keyed: fjall::Keyspace,
    activity: Vec<u8>,
}

impl Store {
    fn open(folder: &Path, size: usize) -> fjall::Result<Self> {
        let database = Database::builder(folder)
            .manual_journal_persist(true)
            .journal_compression(fjall::CompressionType::None)
            .open()?;
        let options = || KeyspaceCreateOptions::default().manual_journal_persist(true);
        Ok(Self {
            hot: database.keyspace("hot", options)?,
            activities: database.keyspace("activities", options)?,
            keyed: database.keyspace("keyed", options)?,
            activity: vec![b'x'; size + ACTIVITY_VALUE_BYTES],
            database,
        })
    }

    /// Has every conversation write an activity at a position, and syncs once.
    fn write(&self, conversations: usize, sequence: u64, is_question: bool) -> anyhow::Result<()> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), 3 * conversations)
            .durability(Some(PersistMode::SyncData));
        for conversation in 0..conversations {
            let conversation = (conversation as u64).wrapping_mul(SPREAD);
            let at = key(conversation, sequence);
            batch.insert(&self.hot, key(conversation, 0), [b'h'; HEAD_VALUE_BYTES]);
            if is_question {
                batch.insert(&self.keyed, at, [b'k'; KEYED_VALUE_BYTES]);
            }
            batch.insert(&self.activities, at, self.activity.as_slice());
        }
        batch.commit().context("cannot commit")
    }
}

/// Odd, so that conversations stay apart; and large, so that neighbours are not neighbours in order.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

fn key(conversation: u64, sequence: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'c'; KEY_BYTES];
    key[KEY_BYTES - 16..KEY_BYTES - 8].copy_from_slice(&conversation.to_be_bytes());
    key[KEY_BYTES - 8..].copy_from_slice(&sequence.to_be_bytes());
    key
}
