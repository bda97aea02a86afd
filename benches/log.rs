//! The log on a disk: turns appended to the embedded store, and pages of a conversation read from it.
//!
//! What is written is what a turn writes in a conversation that has begun: a user's activity with
//! the head and the result of its key, and the answer with the head. A gateway writes the two in
//! different rounds; here a batch has both, so that an item is a turn. The folder is in `target/tmp`,
//! since a temporary folder may be in memory, where a sync costs nothing.

use std::ops::Range;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use tempfile::TempDir;
use turnwire::clock::Timestamp;
use turnwire::engine::log::{self, Author, Entry, Page};
use turnwire::id::{BotId, ConversationNumber, Sequence};
use turnwire::proto::storage;
use turnwire::store::embedded::Options;
use turnwire::store::keys::OnceDigest;
use turnwire::store::record::{self, CursorRecord, HeadRecord};
use turnwire::store::{Batch, Durability, Embedded, Key, Order, Store};

/// Turns in a batch, each of a conversation of its own.
const TURNS: [u64; 3] = [1, 16, 256];

/// Entries of a page.
const PAGES: [usize; 3] = [1, 32, 256];

/// Bytes of an encoded activity with a text of 450 bytes, as `turnwire bench` sends it.
const ACTIVITY_BYTES: usize = 600;

/// The log that pages are read from: about 80 MB, more than the store keeps in memory.
const CONVERSATIONS: u64 = 256;
const TURNS_OF_EACH: u64 = 256;

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const BOT: &str = "bench";
/// Of results and of notes for retention; any will do.
const GENERATION: u32 = 20_000;
const BUCKET: u32 = 497_222;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// Appends and waits for the disk, as a round that says success does.
#[divan::bench(args = TURNS)]
fn append_synced(bencher: Bencher<'_, '_>, turns: u64) {
    append(bencher, turns, Durability::Synced);
}

/// The same without waiting: what is left is the store's own work.
#[divan::bench(args = TURNS)]
fn append_buffered(bencher: Bencher<'_, '_>, turns: u64) {
    append(bencher, turns, Durability::Buffered);
}

fn append(bencher: Bencher<'_, '_>, turns: u64, durability: Durability) {
    let folder = folder();
    let store = open(&folder);
    let writer = Writer::new();
    let mut turn = 0;
    bencher
        .counter(ItemsCount::new(turns))
        .with_inputs(|| {
            turn += 1;
            writer.batch(0..turns, turn)
        })
        .bench_local_values(|batch| {
            store.commit(batch, durability).expect("the disk has room");
        });
}

/// What the writes of turns cost before they are committed.
#[divan::bench(args = TURNS)]
fn batch(bencher: Bencher<'_, '_>, turns: u64) {
    let writer = Writer::new();
    let mut turn = 0;
    bencher
        .counter(ItemsCount::new(turns))
        .bench_local(move || {
            turn += 1;
            writer.batch(0..turns, turn)
        });
}

/// A page from the beginning of a conversation, which is in files, in the system's cache.
#[divan::bench(args = PAGES)]
fn read_oldest(bencher: Bencher<'_, '_>, entries: usize) {
    read(bencher, entries, Order::Ascending);
}

/// A page from the end of a conversation, as much as there is of it still in memory.
#[divan::bench(args = PAGES)]
fn read_newest(bencher: Bencher<'_, '_>, entries: usize) {
    read(bencher, entries, Order::Descending);
}

fn read(bencher: Bencher<'_, '_>, entries: usize, order: Order) {
    let folder = folder();
    let store = open(&folder);
    let writer = Writer::new();
    for turn in 1..=TURNS_OF_EACH {
        let batch = writer.batch(0..CONVERSATIONS, turn);
        let written = store.commit(batch, Durability::Buffered);
        written.expect("the disk has room");
    }
    let page = Page {
        entries,
        bytes: usize::MAX,
    };
    let last = Sequence(2 * TURNS_OF_EACH);
    let mut turn = 0;
    bencher
        .counter(ItemsCount::new(entries))
        .with_inputs(|| {
            turn += 1;
            number(turn % CONVERSATIONS)
        })
        .bench_local_values(|conversation| {
            let read = log::read(&store, conversation, Sequence(1), last, order, page);
            let read = read.expect("what was written can be read");
            assert_eq!(read.len(), entries, "the log is longer than a page");
            read
        });
}

/// Makes the writes of turns.
struct Writer {
    activity: Bytes,
}

impl Writer {
    fn new() -> Self {
        Self {
            activity: Bytes::from(vec![b'x'; ACTIVITY_BYTES]),
        }
    }

    /// The same turn, counted from 1, of several conversations.
    fn batch(&self, conversations: Range<u64>, turn: u64) -> Batch {
        let mut batch = Batch::new();
        for conversation in conversations {
            let conversation = number(conversation);
            let (question, answer) = (Sequence(2 * turn - 1), Sequence(2 * turn));
            let id = self.put(&mut batch, conversation, question, Author::Channel);
            put_result(&mut batch, conversation, question, id);
            let bot = Author::Bot(BotId::from(BOT));
            self.put(&mut batch, conversation, answer, bot);
        }
        batch
    }

    /// Puts an activity with the head, as the newest of a round is. Returns its id.
    fn put(
        &self,
        batch: &mut Batch,
        conversation: ConversationNumber,
        sequence: Sequence,
        author: Author,
    ) -> String {
        let id = format!("conversation-{}|{:07}", conversation.0, sequence.0);
        let entry = Entry {
            sequence,
            append_time: NOW,
            author,
            activity_id: id.as_str().into(),
            activity: self.activity.clone(),
            bot_run: 0,
        };
        let cursor = |bot_id| CursorRecord {
            bot_id,
            finished: sequence.previous(),
            attempts: 1,
            after_gap: false,
            blocked: false,
            replays: false,
            later_attempts: Vec::new(),
            since: Sequence::START,
            done: &[],
        };
        // The bot's, and that of the channel's egress.
        let cursors = [cursor(BOT), cursor("")].into_iter();
        let mut head = Vec::new();
        let parts = HeadRecord {
            last: sequence,
            first: Sequence(1),
            retention_bucket: BUCKET,
            last_change: Sequence::START,
            ended: false,
            bot_run: 0,
            bot_handovers: 0,
            vacant: false,
        };
        record::encode_head(&mut head, parts, cursors);
        let key = Key::Activity {
            conversation,
            sequence,
        };
        record::put_activity(batch, &key, &entry.record(&head));
        id
    }
}

/// Puts the result of a post, so that it is not taken twice.
fn put_result(
    batch: &mut Batch,
    conversation: ConversationNumber,
    sequence: Sequence,
    activity_id: String,
) {
    let key = Key::Idempotency {
        generation: GENERATION,
        digest: OnceDigest::new(conversation, "channel", &activity_id),
    };
    let result = storage::Idempotency {
        payload_hash: Bytes::from_static(&[7; 32]),
        sequence: sequence.0,
        activity_id,
        ..Default::default()
    };
    record::put(batch, &key, &result);
}

/// A conversation's number, as far from those of others as in a store that was opened once.
fn number(conversation: u64) -> ConversationNumber {
    ConversationNumber(1 << 40 | conversation)
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made in `target`")
}

fn open(folder: &TempDir) -> Embedded {
    Embedded::open(folder.path(), &Options::default()).expect("a fresh folder can be opened")
}
