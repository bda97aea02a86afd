//! The border between stored bytes and `turnwire.storage.v1`.

use bytes::Bytes;
use prost::Message;
use prost::encoding::message::encoded_len;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{Batch, Error, Key};
use crate::clock::Timestamp;
use crate::id::Sequence;
use crate::proto::{storage, v1};

/// The layout this gateway reads and writes. 1, of before the first release, had names in all keys.
pub const FORMAT: u32 = 2;

/// Encodes a record.
#[must_use]
pub fn encode(record: &impl Message) -> Vec<u8> {
    record.encode_to_vec()
}

/// Puts a record as the value of its key.
pub fn put(batch: &mut Batch, key: &Key<'_>, record: &impl Message) {
    batch.put_with(key, |to| record.encode(to).expect("a Vec grows"));
}

/// A `storage.Activity` that is not held as one: to write it takes no copy of its parts.
#[derive(Clone, Copy, Debug)]
pub struct ActivityRecord<'a> {
    /// When it was appended.
    pub append_time: Timestamp,
    /// `turnwire.v1.Author`.
    pub author: i32,
    /// The bot that speaks; empty for the channel's.
    pub bot_id: &'a str,
    /// The activity's id.
    pub activity_id: &'a str,
    /// The activity, encoded.
    pub activity: &'a [u8],
    /// The conversation's head after it, as [`encode_head`] gives it; or empty.
    pub head: &'a [u8],
    /// Activities of bots in a row up to it; zero when it is not a bot's.
    pub bot_run: u32,
}

/// A `storage.Head` that is not held as one, without its cursors.
#[derive(Clone, Copy, Debug)]
pub struct HeadRecord {
    /// The newest activity.
    pub last: Sequence,
    /// The oldest activity that is kept.
    pub first: Sequence,
    /// The newest retention bucket in which something was appended.
    pub retention_bucket: u32,
    /// The newest update or deletion of a message.
    pub last_change: Sequence,
    /// The conversation is over.
    pub ended: bool,
    /// Activities of bots in a row since the channel last posted.
    pub bot_run: u32,
    /// Times that bots handed the conversation over since then.
    pub bot_handovers: u32,
    /// Its last bot was removed.
    pub vacant: bool,
}

/// Positions of a log: those after one, up to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The position before the first.
    pub after: Sequence,
    /// The last.
    pub to: Sequence,
}

impl Span {
    /// Whether a position is in it.
    #[must_use]
    pub fn has(&self, position: Sequence) -> bool {
        self.after < position && position <= self.to
    }
}

/// A `storage.Cursor` that is not held as one.
#[derive(Clone, Debug)]
pub struct CursorRecord<'a> {
    /// The bot's id; empty for the channel's egress.
    pub bot_id: &'a str,
    /// Everything up to here is finished.
    pub finished: Sequence,
    /// How often the activity after it was handed out.
    pub attempts: u32,
    /// Something was skipped since the last one that was acked.
    pub after_gap: bool,
    /// The activity after it is a dead letter that holds up those behind it.
    pub blocked: bool,
    /// Dead letters are to be handed over again.
    pub replays: bool,
    /// How often activities further on were handed out.
    pub later_attempts: Vec<(Sequence, u32)>,
    /// Everything after this was, or will be, handed to it.
    pub since: Sequence,
    /// What is finished beyond `finished`; of that, spans that end before it are not written.
    pub done: &'a [Span],
}

/// Puts an activity as the value of its key.
pub fn put_activity(batch: &mut Batch, key: &Key<'_>, record: &ActivityRecord<'_>) {
    // Tags of `storage.Activity`.
    batch.put_with(key, |to| {
        put_number(to, 1, record.append_time.0);
        put_number(to, 2, record.author as u64);
        put_bytes(to, 3, record.bot_id.as_bytes());
        put_bytes(to, 4, record.activity_id.as_bytes());
        put_bytes(to, 5, record.activity);
        put_bytes(to, 6, record.head);
        put_number(to, 7, record.bot_run.into());
    });
}

/// Appends a `storage.Head`: what is written with every turn, and so without making a record first.
pub fn encode_head<'a>(
    to: &mut Vec<u8>,
    head: HeadRecord,
    cursors: impl Iterator<Item = CursorRecord<'a>>,
) {
    // Tags of `storage.Head`, and then of `storage.Cursor`.
    put_number(to, 1, head.last.0);
    put_number(to, 2, head.first.0);
    for cursor in cursors {
        encode_key(3, WireType::LengthDelimited, to);
        let numbers = [
            (2, cursor.finished.0),
            (3, cursor.attempts.into()),
            (4, cursor.after_gap.into()),
            (5, cursor.blocked.into()),
            (6, cursor.replays.into()),
        ];
        // Every tag is one byte.
        let bot_bytes = match cursor.bot_id.len() {
            0 => 0,
            bytes => 1 + encoded_len_varint(bytes as u64) + bytes,
        };
        let later =
            cursor
                .later_attempts
                .iter()
                .map(|(sequence, attempts)| storage::LaterAttempts {
                    sequence: sequence.0,
                    attempts: *attempts,
                });
        let later_bytes: usize = later.clone().map(|later| encoded_len(7, &later)).sum();
        let number_bytes: usize = numbers.iter().map(|(_, number)| number_len(*number)).sum();
        let done = cursor.done.iter().filter(|span| span.to > cursor.finished);
        let span_bytes = |span: &Span| number_len(span.after.0) + number_len(span.to.0);
        // A span is two numbers, so that its length is one byte.
        let done_bytes: usize = done.clone().map(|span| 2 + span_bytes(span)).sum();
        let since_bytes = number_len(cursor.since.0);
        let bytes = bot_bytes + number_bytes + later_bytes + since_bytes + done_bytes;
        encode_varint(bytes as u64, to);
        put_bytes(to, 1, cursor.bot_id.as_bytes());
        for (tag, number) in numbers {
            put_number(to, tag, number);
        }
        for later in later {
            prost::encoding::message::encode(7, &later, to);
        }
        put_number(to, 10, cursor.since.0);
        for span in done {
            encode_key(11, WireType::LengthDelimited, to);
            encode_varint(span_bytes(span) as u64, to);
            put_number(to, 1, span.after.0);
            put_number(to, 2, span.to.0);
        }
    }
    put_number(to, 4, head.retention_bucket.into());
    put_number(to, 5, head.last_change.0);
    put_number(to, 6, head.ended.into());
    put_number(to, 7, head.bot_run.into());
    put_number(to, 8, head.bot_handovers.into());
    put_number(to, 9, head.vacant.into());
}

/// How many bytes [`put_number`] writes of a tag of one byte.
fn number_len(number: u64) -> usize {
    match number {
        0 => 0,
        number => 1 + encoded_len_varint(number),
    }
}

fn put_bytes(to: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        encode_key(tag, WireType::LengthDelimited, to);
        encode_varint(bytes.len() as u64, to);
        to.extend_from_slice(bytes);
    }
}

fn put_number(to: &mut Vec<u8>, tag: u32, number: u64) {
    if number != 0 {
        encode_key(tag, WireType::Varint, to);
        encode_varint(number, to);
    }
}

/// Reads the value of [`Key::Meta`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key` when it is none; so for all decoders here.
pub fn decode_meta(key: &Key<'_>, value: Bytes) -> Result<storage::Meta, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Head`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_head(key: &Key<'_>, value: Bytes) -> Result<storage::Head, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Conversation`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_conversation(key: &Key<'_>, value: Bytes) -> Result<storage::Conversation, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Activity`]; what it holds encoded shares the memory of `value`.
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_activity(key: &Key<'_>, value: Bytes) -> Result<storage::Activity, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Member`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_member(key: &Key<'_>, value: Bytes) -> Result<v1::ChannelAccount, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Idempotency`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_idempotency(key: &Key<'_>, value: Bytes) -> Result<storage::Idempotency, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Scheduled`]; what it holds encoded shares the memory of `value`.
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_scheduled(key: &Key<'_>, value: Bytes) -> Result<storage::Scheduled, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Idempotency`] that was kept for the end of a scheduled send.
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_schedule_end(key: &Key<'_>, value: Bytes) -> Result<storage::ScheduleEnd, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::DeadLetter`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_dead_letter(key: &Key<'_>, value: Bytes) -> Result<storage::DeadLetter, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::Receipt`].
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_receipt(key: &Key<'_>, value: Bytes) -> Result<storage::Receipt, Error> {
    decode(key, value)
}

/// Reads the value of a [`Key::State`]; its content stays encoded, and [`decode_content`] is for that.
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_state(key: &Key<'_>, value: Bytes) -> Result<storage::StateDocument, Error> {
    decode(key, value)
}

/// Reads the content of a `storage.StateDocument`, which has this key.
///
/// # Errors
///
/// [`Error::Corrupt`] naming `key`.
pub fn decode_content(key: &Key<'_>, content: Bytes) -> Result<prost_types::Struct, Error> {
    decode(key, content)
}

/// Decodes what is no record of a store: a part of a backup.
///
/// # Errors
///
/// In words, naming `what`.
pub fn decode_part<M: Message + Default>(what: &str, value: Bytes) -> Result<M, String> {
    M::decode(value).map_err(|error| format!("its {what} cannot be decoded: {error}"))
}

fn decode<M: Message + Default>(key: &Key<'_>, value: Bytes) -> Result<M, Error> {
    M::decode(value).map_err(|error| Error::Corrupt {
        what: format!("the record `{key}` cannot be decoded: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConversationNumber;

    const CONVERSATION: ConversationNumber = ConversationNumber(42);

    fn activity() -> storage::Activity {
        storage::Activity {
            append_time_ms: 1,
            author: 2,
            bot_id: "echo".into(),
            activity_id: "a1".into(),
            activity: Bytes::from(vec![5; 512]),
            head: Bytes::from_static(b"head"),
            bot_run: 300,
        }
    }

    fn value(batch: &Batch) -> Bytes {
        let write = batch.writes().next().expect("one write");
        Bytes::copy_from_slice(write.value.expect("it puts"))
    }

    #[test]
    fn an_activity_comes_back_without_being_copied() {
        let key = Key::Activity {
            conversation: CONVERSATION,
            sequence: Sequence(7),
        };
        let record = activity();
        let mut batch = Batch::new();
        put(&mut batch, &key, &record);
        let value = value(&batch);
        let decoded = decode_activity(&key, value.clone()).expect("it was just encoded");
        assert_eq!(decoded, record);
        assert!(value.as_ptr_range().contains(&decoded.activity.as_ptr()));
    }

    #[test]
    fn an_activity_written_in_parts_is_the_same() {
        let key = Key::Activity {
            conversation: CONVERSATION,
            sequence: Sequence(7),
        };
        for record in [activity(), storage::Activity::default()] {
            let (mut whole, mut parts) = (Batch::new(), Batch::new());
            put(&mut whole, &key, &record);
            let record = ActivityRecord {
                append_time: Timestamp(record.append_time_ms),
                author: record.author,
                bot_id: &record.bot_id,
                activity_id: &record.activity_id,
                activity: &record.activity,
                head: &record.head,
                bot_run: record.bot_run,
            };
            put_activity(&mut parts, &key, &record);
            assert_eq!(value(&parts), value(&whole));
        }
    }

    #[test]
    fn a_head_written_in_parts_is_the_same() {
        let span = |after, to| storage::Span { after, to };
        let cursor = |bot_id: &str, finished, attempts, after_gap| storage::Cursor {
            bot_id: bot_id.to_owned(),
            finished,
            attempts,
            after_gap,
            blocked: finished == 6,
            replays: after_gap,
            later_attempts: (0..attempts % 3)
                .map(|later| storage::LaterAttempts {
                    sequence: finished.saturating_add(later.into()),
                    attempts: later,
                })
                .collect(),
            since: finished / 2,
            done: match attempts {
                0 => Vec::new(),
                _ => vec![span(finished, finished + 1), span(300, u64::MAX)],
            },
        };
        let long = "b".repeat(300);
        let head = |last_sequence, first_sequence, retention_bucket, cursors| storage::Head {
            last_sequence,
            first_sequence,
            cursors,
            retention_bucket,
            last_change_sequence: first_sequence / 3,
            ended: retention_bucket == u32::MAX,
            bot_run: retention_bucket / 2,
            bot_handovers: retention_bucket / 3,
            vacant: retention_bucket == 9,
        };
        for head in [
            storage::Head::default(),
            head(7, 1, 9, vec![cursor("", 0, 0, false)]),
            head(
                u64::MAX,
                300,
                u32::MAX,
                vec![
                    cursor("echo", 6, 1, true),
                    cursor(&long, 5, u32::MAX, false),
                ],
            ),
        ] {
            let mut parts = Vec::new();
            let done = |cursor: &storage::Cursor| -> Vec<Span> {
                let done = cursor.done.iter().map(|span| Span {
                    after: Sequence(span.after),
                    to: Sequence(span.to),
                });
                done.collect()
            };
            let done: Vec<_> = head.cursors.iter().map(done).collect();
            let cursors = head
                .cursors
                .iter()
                .zip(&done)
                .map(|(cursor, done)| CursorRecord {
                    bot_id: &cursor.bot_id,
                    finished: Sequence(cursor.finished),
                    attempts: cursor.attempts,
                    after_gap: cursor.after_gap,
                    blocked: cursor.blocked,
                    replays: cursor.replays,
                    later_attempts: cursor
                        .later_attempts
                        .iter()
                        .map(|later| (Sequence(later.sequence), later.attempts))
                        .collect(),
                    since: Sequence(cursor.since),
                    done,
                });
            encode_head(
                &mut parts,
                HeadRecord {
                    last: Sequence(head.last_sequence),
                    first: Sequence(head.first_sequence),
                    retention_bucket: head.retention_bucket,
                    last_change: Sequence(head.last_change_sequence),
                    ended: head.ended,
                    bot_run: head.bot_run,
                    bot_handovers: head.bot_handovers,
                    vacant: head.vacant,
                },
                cursors,
            );
            assert_eq!(parts, encode(&head));
        }
    }

    #[test]
    fn damage_is_an_error_that_names_the_key() {
        let key = Key::Head {
            conversation: CONVERSATION,
        };
        let error = decode_head(&key, Bytes::from_static(b"\xff")).expect_err("no protobuf");
        assert!(matches!(error, Error::Corrupt { .. }));
        assert!(error.to_string().contains("`head of #2a`"), "{error}");
    }
}
