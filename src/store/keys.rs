//! The whole key space on one page.
//!
//! A key is a table's tag, one byte, and then its parts: texts end in a zero byte, numbers are big
//! endian, so that the order of the bytes is the order of the parts. The last text of a key may
//! hold zero bytes itself; ids never do.

use std::fmt;
use std::ops::RangeInclusive;

use super::Error;
use crate::clock::Timestamp;
use crate::id::{BotId, ChannelId, ConversationId, ConversationKey, Sequence};

/// The tables, with the tags they have on disk. Never renumber; a tag that is no longer used is
/// not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(
    missing_docs,
    reason = "each has the documentation of the key of its name"
)]
pub enum Table {
    Meta = 1,
    Head = 2,
    Conversation = 3,
    Activity = 4,
    Member = 5,
    Live = 6,
    Listing = 7,
    Idempotency = 8,
    DeadLetter = 9,
    Receipt = 10,
    Expiry = 11,
}

impl Table {
    /// Every table, in the order of tags.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Head,
        Self::Conversation,
        Self::Activity,
        Self::Member,
        Self::Live,
        Self::Listing,
        Self::Idempotency,
        Self::DeadLetter,
        Self::Receipt,
        Self::Expiry,
    ];

    /// The first byte of its keys.
    #[must_use]
    pub fn tag(self) -> u8 {
        self as u8
    }

    /// The table whose keys begin with `tag`.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        let index = usize::from(tag).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }
}

/// A key. Never renumber or reorder the parts of one: what is on disk stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Facts about the store itself.
    ///
    /// Lives as long as the store. Key: tag. Value: `storage.Meta`.
    Meta,

    /// The newest position of a conversation's log, and the cursors on it.
    ///
    /// Lives as long as its conversation; rewritten with every turn.
    /// Key: tag, channel, conversation. Value: `storage.Head`.
    Head {
        /// Whose.
        conversation: &'a ConversationKey,
    },

    /// What seldom changes about a conversation.
    ///
    /// Lives until its conversation is removed.
    /// Key: tag, channel, conversation. Value: `storage.Conversation`.
    Conversation {
        /// Which.
        conversation: &'a ConversationKey,
    },

    /// One activity of a log.
    ///
    /// Lives for the log's retention. Written once, and again when the activity is updated.
    /// Key: tag, channel, conversation, sequence: u64. Value: `storage.Activity`.
    Activity {
        /// Whose log.
        conversation: &'a ConversationKey,
        /// The position in it.
        sequence: Sequence,
    },

    /// Someone who takes part in a conversation.
    ///
    /// Lives until the member leaves, or with its conversation.
    /// Key: tag, channel, conversation, member id. Value: `turnwire.v1.ChannelAccount`.
    Member {
        /// In which conversation.
        conversation: &'a ConversationKey,
        /// The account's id on the channel.
        member: &'a str,
    },

    /// Marks a conversation that may have pending work: all that a gateway scans as it opens.
    ///
    /// Lives from an append until every cursor has finished.
    /// Key: tag, channel, conversation. Value: empty.
    Live {
        /// Which.
        conversation: &'a ConversationKey,
    },

    /// A place in a list of conversations, newest first.
    ///
    /// Lives as long as its conversation is one that the list is of.
    /// Key: tag, list (0 all; 1 channel; 2 bot; 3 channel, user), start: u64 inverted, channel,
    /// conversation. Value: empty.
    Listing {
        /// Which list.
        by: ListBy<'a>,
        /// When the conversation started.
        start: Timestamp,
        /// The conversation.
        conversation: &'a ConversationKey,
    },

    /// The result of an append that had a key.
    ///
    /// Lives for one to two retentions, counted in generations: see [`generation`]. A lookup reads
    /// the present one and the one before; older ones are removed whole.
    /// Key: tag, generation: u32, channel, conversation, scope, key. Value: `storage.Idempotency`.
    Idempotency {
        /// When it was written.
        generation: u32,
        /// Where the append went.
        conversation: &'a ConversationKey,
        /// Whose key it is: keys of different scopes never meet.
        scope: &'a str,
        /// The caller's key.
        key: &'a str,
    },

    /// An activity that a subscriber could not take.
    ///
    /// Lives until it is replayed or dropped, or with its activity.
    /// Key: tag, channel, conversation, bot id (empty: the channel's egress), sequence: u64.
    /// Value: `storage.DeadLetter`.
    DeadLetter {
        /// Whose log.
        conversation: &'a ConversationKey,
        /// The bot that could not take it; empty for the channel's egress.
        bot: &'a str,
        /// The position of the activity.
        sequence: Sequence,
    },

    /// What became of an outbound activity on its channel.
    ///
    /// Lives as long as its activity.
    /// Key: tag, channel, conversation, sequence: u64. Value: `storage.Receipt`.
    Receipt {
        /// Whose log.
        conversation: &'a ConversationKey,
        /// The position of the activity.
        sequence: Sequence,
    },

    /// Notes that a conversation had an append in a span of time, so that retention looks at it
    /// when that span is past its time, and at no others.
    ///
    /// Lives until the span's activities are removed. Key: tag, bucket (u32), conversation. Value:
    /// empty.
    Expiry {
        /// The span: hours since 1970.
        bucket: u32,
        /// The conversation.
        conversation: &'a ConversationKey,
    },
}

/// A list that conversations are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListBy<'a> {
    /// Every conversation.
    All,
    /// The conversations of a channel.
    Channel(&'a ChannelId),
    /// The conversations a bot takes part in.
    Bot(&'a BotId),
    /// The conversations a user, by channel and user id, takes part in.
    User(&'a ChannelId, &'a str),
}

/// The generation of [`Key::Idempotency`] that is written at `now`.
///
/// # Panics
///
/// When `retention_ms` is zero.
#[must_use]
pub fn generation(now: Timestamp, retention_ms: u64) -> u32 {
    // Later than any clock will say at any retention of a second or more.
    u32::try_from(now.0 / retention_ms).unwrap_or(u32::MAX)
}

impl Key<'_> {
    /// The table it is in.
    #[must_use]
    pub fn table(&self) -> Table {
        match self {
            Self::Meta => Table::Meta,
            Self::Head { .. } => Table::Head,
            Self::Conversation { .. } => Table::Conversation,
            Self::Activity { .. } => Table::Activity,
            Self::Member { .. } => Table::Member,
            Self::Live { .. } => Table::Live,
            Self::Listing { .. } => Table::Listing,
            Self::Idempotency { .. } => Table::Idempotency,
            Self::DeadLetter { .. } => Table::DeadLetter,
            Self::Receipt { .. } => Table::Receipt,
            Self::Expiry { .. } => Table::Expiry,
        }
    }

    /// The key as bytes, in one allocation.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut to);
        to
    }

    /// Appends the key as bytes.
    pub fn encode_into(&self, to: &mut Vec<u8>) {
        to.push(self.table().tag());
        match *self {
            Self::Meta => {}
            Self::Head { conversation }
            | Self::Conversation { conversation }
            | Self::Live { conversation } => put_conversation(to, conversation),
            Self::Activity {
                conversation,
                sequence,
            }
            | Self::Receipt {
                conversation,
                sequence,
            } => {
                put_conversation(to, conversation);
                to.extend_from_slice(&sequence.0.to_be_bytes());
            }
            Self::Member {
                conversation,
                member,
            } => {
                put_conversation(to, conversation);
                put_last_text(to, member);
            }
            Self::Expiry {
                bucket,
                conversation,
            } => {
                to.extend_from_slice(&bucket.to_be_bytes());
                put_conversation(to, conversation);
            }
            Self::Listing {
                by,
                start,
                conversation,
            } => {
                put_list(to, by);
                // Inverted, so that the newest comes first in key order.
                to.extend_from_slice(&(!start.0).to_be_bytes());
                put_conversation(to, conversation);
            }
            Self::Idempotency {
                generation,
                conversation,
                scope,
                key,
            } => {
                to.extend_from_slice(&generation.to_be_bytes());
                put_conversation(to, conversation);
                put_text(to, scope);
                put_last_text(to, key);
            }
            Self::DeadLetter {
                conversation,
                bot,
                sequence,
            } => {
                put_conversation(to, conversation);
                put_text(to, bot);
                to.extend_from_slice(&sequence.0.to_be_bytes());
            }
        }
    }

    /// How many bytes [`encode`](Self::encode) gives.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        const TAG: usize = 1;
        const END: usize = 1;
        let conversation_len = |c: &ConversationKey| {
            c.channel.as_str().len() + END + c.conversation.as_str().len() + END
        };
        TAG + match *self {
            Self::Meta => 0,
            Self::Head { conversation }
            | Self::Conversation { conversation }
            | Self::Live { conversation } => conversation_len(conversation),
            Self::Activity { conversation, .. } | Self::Receipt { conversation, .. } => {
                conversation_len(conversation) + size_of::<u64>()
            }
            Self::Member {
                conversation,
                member,
            } => conversation_len(conversation) + member.len() + END,
            Self::Listing {
                by, conversation, ..
            } => {
                let list = match by {
                    ListBy::All => 0,
                    ListBy::Channel(channel) => channel.as_str().len() + END,
                    ListBy::Bot(bot) => bot.as_str().len() + END,
                    ListBy::User(channel, user) => channel.as_str().len() + END + user.len() + END,
                };
                TAG + list + size_of::<u64>() + conversation_len(conversation)
            }
            Self::Idempotency {
                conversation,
                scope,
                key,
                ..
            } => {
                size_of::<u32>()
                    + conversation_len(conversation)
                    + scope.len()
                    + END
                    + key.len()
                    + END
            }
            Self::DeadLetter {
                conversation, bot, ..
            } => conversation_len(conversation) + bot.len() + END + size_of::<u64>(),
            Self::Expiry { conversation, .. } => size_of::<u32>() + conversation_len(conversation),
        }
    }
}

/// Names the record for logs and errors: ids, but no user's key.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => write!(f, "the store's own record"),
            Self::Head { conversation } => write!(f, "head of {conversation}"),
            Self::Conversation { conversation } => write!(f, "conversation {conversation}"),
            Self::Activity {
                conversation,
                sequence,
            } => write!(f, "activity {sequence} of {conversation}"),
            Self::Member { conversation, .. } => write!(f, "member of {conversation}"),
            Self::Live { conversation } => write!(f, "live mark of {conversation}"),
            Self::Listing { conversation, .. } => write!(f, "listing of {conversation}"),
            Self::Expiry { conversation, .. } => write!(f, "expiry note of {conversation}"),
            Self::Idempotency { conversation, .. } => {
                write!(f, "result of a keyed append to {conversation}")
            }
            Self::DeadLetter {
                conversation,
                bot,
                sequence,
            } => write!(f, "dead letter {sequence} of {conversation} for `{bot}`"),
            Self::Receipt {
                conversation,
                sequence,
            } => write!(f, "receipt {sequence} of {conversation}"),
        }
    }
}

/// Keys next to each other: from the first, included, to the end, not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    table: Table,
    start: Vec<u8>,
    end: Vec<u8>,
}

impl KeyRange {
    /// The whole of a table.
    #[must_use]
    pub fn table(table: Table) -> Self {
        Self::prefix(table, vec![table.tag()])
    }

    /// Activities of a conversation, by sequence. Empty when the end is before the start.
    #[must_use]
    pub fn activities(conversation: &ConversationKey, sequences: RangeInclusive<Sequence>) -> Self {
        let key = |sequence| Key::Activity {
            conversation,
            sequence,
        };
        Self::between(key(*sequences.start()), key(*sequences.end()))
    }

    /// Receipts of a conversation, by sequence. Empty when the end is before the start.
    #[must_use]
    pub fn receipts(conversation: &ConversationKey, sequences: RangeInclusive<Sequence>) -> Self {
        let key = |sequence| Key::Receipt {
            conversation,
            sequence,
        };
        Self::between(key(*sequences.start()), key(*sequences.end()))
    }

    /// Dead letters of a conversation, by bot and sequence.
    #[must_use]
    pub fn dead_letters(conversation: &ConversationKey) -> Self {
        let mut prefix = vec![Table::DeadLetter.tag()];
        put_conversation(&mut prefix, conversation);
        Self::prefix(Table::DeadLetter, prefix)
    }

    /// Members of a conversation, by id; those after `after` when it is given, whether or not it
    /// is itself a member.
    #[must_use]
    pub fn members(conversation: &ConversationKey, after: Option<&str>) -> Self {
        let mut prefix = vec![Table::Member.tag()];
        put_conversation(&mut prefix, conversation);
        let mut range = Self::prefix(Table::Member, prefix);
        if let Some(member) = after {
            range.start = successor(Key::Member {
                conversation,
                member,
            });
        }
        range
    }

    /// Conversations that may have pending work.
    #[must_use]
    pub fn live() -> Self {
        Self::table(Table::Live)
    }

    /// A list of conversations, newest first; those after `after` when it is given, whether or not
    /// it is itself in the list.
    #[must_use]
    pub fn listing(by: ListBy<'_>, after: Option<(Timestamp, &ConversationKey)>) -> Self {
        let mut prefix = vec![Table::Listing.tag()];
        put_list(&mut prefix, by);
        let mut range = Self::prefix(Table::Listing, prefix);
        if let Some((start, conversation)) = after {
            range.start = successor(Key::Listing {
                by,
                start,
                conversation,
            });
        }
        range
    }

    /// Results of keyed appends of all generations before `generation`.
    #[must_use]
    pub fn idempotency_before(generation: u32) -> Self {
        Self::before(Table::Idempotency, generation)
    }

    /// Notes of spans before `bucket`, the earliest first.
    #[must_use]
    pub fn expiry_before(bucket: u32) -> Self {
        Self::before(Table::Expiry, bucket)
    }

    /// The part of the range that comes after `key`, an encoded key of its table.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        if key >= self.start.as_slice() {
            self.start = key.to_vec();
            self.start.push(0);
        }
        self
    }

    /// The keys of a table whose first part is a number below `number`.
    fn before(table: Table, number: u32) -> Self {
        let mut end = vec![table.tag()];
        end.extend_from_slice(&number.to_be_bytes());
        Self {
            table,
            start: vec![table.tag()],
            end,
        }
    }

    /// The table that all of the range is in.
    #[must_use]
    pub fn within(&self) -> Table {
        self.table
    }

    /// The first key that may be in the range.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first key after the range.
    #[must_use]
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    fn between(first: Key<'_>, last: Key<'_>) -> Self {
        Self {
            table: first.table(),
            start: first.encode(),
            end: successor(last),
        }
    }

    /// All keys that begin with `prefix`, which ends in a tag or in a text's zero byte.
    fn prefix(table: Table, prefix: Vec<u8>) -> Self {
        let mut end = prefix.clone();
        if let Some(last) = end.last_mut() {
            debug_assert!(*last < u8::MAX);
            *last += 1;
        }
        Self {
            table,
            start: prefix,
            end,
        }
    }
}

/// The first possible key after `key`.
fn successor(key: Key<'_>) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(key.encoded_len() + 1);
    key.encode_into(&mut encoded);
    encoded.push(0);
    encoded
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    debug_assert!(
        !text.as_bytes().contains(&0),
        "ids hold no zero byte: they are checked where they come in"
    );
    put_last_text(to, text);
}

/// Nothing follows it that it could be confused with, so it may hold anything.
fn put_last_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(text.as_bytes());
    to.push(0);
}

fn put_conversation(to: &mut Vec<u8>, key: &ConversationKey) {
    put_text(to, key.channel.as_str());
    put_text(to, key.conversation.as_str());
}

fn put_list(to: &mut Vec<u8>, by: ListBy<'_>) {
    match by {
        ListBy::All => to.push(LIST_ALL),
        ListBy::Channel(channel) => {
            to.push(LIST_CHANNEL);
            put_text(to, channel.as_str());
        }
        ListBy::Bot(bot) => {
            to.push(LIST_BOT);
            put_text(to, bot.as_str());
        }
        ListBy::User(channel, user) => {
            to.push(LIST_USER);
            put_text(to, channel.as_str());
            put_text(to, user);
        }
    }
}

const LIST_ALL: u8 = 0;
const LIST_CHANNEL: u8 = 1;
const LIST_BOT: u8 = 2;
const LIST_USER: u8 = 3;

/// Reads the sequence of an encoded [`Key::Activity`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key; so for all decoders here.
pub fn decode_activity(key: &[u8]) -> Result<Sequence, Error> {
    Parts::of(key, Table::Activity)?.finish(|parts| {
        parts.conversation()?;
        parts.sequence()
    })
}

/// Reads the sequence of an encoded [`Key::Receipt`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_receipt(key: &[u8]) -> Result<Sequence, Error> {
    Parts::of(key, Table::Receipt)?.finish(|parts| {
        parts.conversation()?;
        parts.sequence()
    })
}

/// Reads the member id of an encoded [`Key::Member`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_member(key: &[u8]) -> Result<&str, Error> {
    Parts::of(key, Table::Member)?.finish(|parts| {
        parts.conversation()?;
        parts.last_text()
    })
}

/// Reads the conversation of an encoded [`Key::Live`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_live(key: &[u8]) -> Result<ConversationKey, Error> {
    Parts::of(key, Table::Live)?.finish(|parts| Some(owned(parts.conversation()?)))
}

/// Reads the start time and conversation of an encoded [`Key::Listing`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_listing(key: &[u8]) -> Result<(Timestamp, ConversationKey), Error> {
    Parts::of(key, Table::Listing)?.finish(|parts| {
        let texts = match parts.u8()? {
            LIST_ALL => 0,
            LIST_CHANNEL | LIST_BOT => 1,
            LIST_USER => 2,
            _ => return None,
        };
        for _ in 0..texts {
            parts.text()?;
        }
        let start = Timestamp(!parts.u64()?);
        Some((start, owned(parts.conversation()?)))
    })
}

/// Reads the key of an [`Expiry`](Key::Expiry) entry.
///
/// # Errors
///
/// [`Error::Corrupt`] when it is not one.
pub fn decode_expiry(key: &[u8]) -> Result<(u32, ConversationKey), Error> {
    Parts::of(key, Table::Expiry)?
        .finish(|parts| Some((parts.u32()?, owned(parts.conversation()?))))
}

/// Reads the generation of an encoded [`Key::Idempotency`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_generation(key: &[u8]) -> Result<u32, Error> {
    Parts::of(key, Table::Idempotency)?.finish(|parts| {
        let generation = parts.u32()?;
        parts.conversation()?;
        parts.text()?;
        parts.last_text()?;
        Some(generation)
    })
}

/// Reads the conversation, bot id (empty: the channel's egress) and sequence of an encoded
/// [`Key::DeadLetter`].
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_dead_letter(key: &[u8]) -> Result<(ConversationKey, &str, Sequence), Error> {
    Parts::of(key, Table::DeadLetter)?.finish(|parts| {
        let conversation = owned(parts.conversation()?);
        let bot = parts.text()?;
        Some((conversation, bot, parts.sequence()?))
    })
}

/// The parts of a key that are still to be read.
struct Parts<'k> {
    table: Table,
    rest: &'k [u8],
}

impl<'k> Parts<'k> {
    fn of(key: &'k [u8], table: Table) -> Result<Self, Error> {
        match key.split_first() {
            Some((tag, rest)) if *tag == table.tag() => Ok(Self { table, rest }),
            _ => Err(Self::corrupt(table)),
        }
    }

    /// Reads with `read`, which must leave nothing over.
    fn finish<T>(mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Error> {
        match read(&mut self) {
            Some(value) if self.rest.is_empty() => Ok(value),
            _ => Err(Self::corrupt(self.table)),
        }
    }

    fn corrupt(table: Table) -> Error {
        Error::Corrupt {
            what: format!("a key in the table of `{table:?}` keys is not one"),
        }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn sequence(&mut self) -> Option<Sequence> {
        self.u64().map(Sequence)
    }

    fn text(&mut self) -> Option<&'k str> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..)?;
        std::str::from_utf8(text).ok()
    }

    fn last_text(&mut self) -> Option<&'k str> {
        let text = self.rest.strip_suffix(&[0])?;
        self.rest = &[];
        std::str::from_utf8(text).ok()
    }

    fn conversation(&mut self) -> Option<(&'k str, &'k str)> {
        Some((self.text()?, self.text()?))
    }
}

fn owned((channel, conversation): (&str, &str)) -> ConversationKey {
    ConversationKey {
        channel: ChannelId::from(channel),
        conversation: ConversationId::from(conversation),
    }
}

#[cfg(test)]
mod tests;
