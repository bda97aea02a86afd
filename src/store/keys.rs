//! The whole key space on one page.
//!
//! A key is a table's tag, one byte, and then its parts: texts end in a zero byte, numbers are big
//! endian, so that the order of the bytes is the order of the parts. The last text of a key may
//! hold zero bytes itself; ids never do.
//!
//! What is written with every turn has a key of at most 20 bytes: so much the embedded store keeps
//! beside the links of its tables in memory, where comparing two keys does not follow a pointer.
//! That is why conversations have a number.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::id::{BotId, ChannelId, ConversationKey, ConversationNumber, ScheduleId, Sequence};

mod decode;
mod range;

pub use decode::{
    decode_activity, decode_dead_letter, decode_expiry, decode_generation, decode_listing,
    decode_live, decode_member, decode_receipt, decode_scheduled, decode_scheduled_due,
    decode_state, decode_state_bot,
};
pub use range::KeyRange;

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
    SigningKey = 12,
    State = 13,
    Scheduled = 14,
    ScheduledDue = 15,
}

impl Table {
    /// Every table, in the order of tags.
    pub const ALL: [Self; 15] = [
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
        Self::SigningKey,
        Self::State,
        Self::Scheduled,
        Self::ScheduledDue,
    ];

    /// The first byte of its keys.
    #[must_use]
    pub fn tag(self) -> u8 {
        self as u8
    }

    /// The table whose keys begin with `tag`.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.tag() == tag)
    }
}

/// A key. Never renumber or reorder the parts of one: what is on disk stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Facts about the store itself.
    ///
    /// Lives as long as the store. Key: tag. Value: `storage.Meta`.
    Meta,

    /// The newest position of a conversation's log, and the cursors on it, as of the last write that
    /// appended nothing. What a later write appended has a later head with it.
    ///
    /// Lives as long as its conversation.
    /// Key: tag, number. Value: `storage.Head`.
    Head {
        /// Whose.
        conversation: ConversationNumber,
    },

    /// What seldom changes about a conversation: its number, first of all, which leads to the rest.
    ///
    /// Lives until its conversation is removed.
    /// Key: tag, channel, conversation. Value: `storage.Conversation`.
    Conversation {
        /// Which.
        conversation: &'a ConversationKey,
    },

    /// One activity of a log.
    ///
    /// Lives for the log's retention. Written once, and again when someone is erased from it.
    /// Key: tag, number, sequence: u64. Value: `storage.Activity`.
    Activity {
        /// Whose log.
        conversation: ConversationNumber,
        /// The position in it.
        sequence: Sequence,
    },

    /// Someone who takes part in a conversation.
    ///
    /// Lives until the member leaves, or with its conversation.
    /// Key: tag, number, member id. Value: `turnwire.v1.ChannelAccount`.
    Member {
        /// In which conversation.
        conversation: ConversationNumber,
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
    /// Key: tag, generation: u32, digest: 15 bytes. Value: `storage.Idempotency`; of a scheduled send that
    /// is over, under its id, `storage.ScheduleEnd`.
    Idempotency {
        /// When it was written.
        generation: u32,
        /// Where the append went, and under which key of whose.
        digest: OnceDigest,
    },

    /// An activity that a subscriber could not take.
    ///
    /// Lives until it is replayed or dropped, or with its activity.
    /// Key: tag, number, bot id (empty: the channel's egress), sequence: u64.
    /// Value: `storage.DeadLetter`.
    DeadLetter {
        /// Whose log.
        conversation: ConversationNumber,
        /// The bot that could not take it; empty for the channel's egress.
        bot: &'a str,
        /// The position of the activity.
        sequence: Sequence,
    },

    /// What became of an outbound activity on its channel.
    ///
    /// Lives as long as its activity.
    /// Key: tag, number, sequence: u64. Value: `storage.Receipt`.
    Receipt {
        /// Whose log.
        conversation: ConversationNumber,
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

    /// What the tokens of users are signed with. It lies here, so that tokens outlive a restart.
    ///
    /// Lives as long as the store. Key: tag. Value: 32 random bytes.
    SigningKey,

    /// A document that a bot keeps.
    ///
    /// Lives until it is deleted. It has names in its key, and no numbers: it may be there before its
    /// conversation is.
    /// Key: tag, bot id, scope (0 bot; 1 channel, user; 2 channel, conversation; 3 channel,
    /// conversation, user), name. Value: `storage.StateDocument`.
    State {
        /// Whose.
        bot: &'a BotId,
        /// What it is about.
        about: About<'a>,
        /// Its name in there.
        name: &'a str,
    },

    /// A send that waits for its time.
    ///
    /// Lives until it is sent, taken back or dropped.
    /// Key: tag, number, due: u64, schedule's number: u64. Value: `storage.Scheduled`.
    Scheduled {
        /// Where it is to go.
        conversation: ConversationNumber,
        /// When, and which of those.
        id: ScheduleId,
    },

    /// Notes when a send is due, so that what is due is found without looking at what is not.
    ///
    /// Lives as long as what it notes.
    /// Key: tag, due: u64, schedule's number: u64, channel, conversation. Value: empty.
    ScheduledDue {
        /// When, and which of those.
        id: ScheduleId,
        /// Where it is to go.
        conversation: &'a ConversationKey,
    },
}

/// What a document of a bot is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// The bot itself.
    Bot,
    /// A user, by channel and user id, in all conversations.
    User(&'a ChannelId, &'a str),
    /// A conversation.
    Conversation(&'a ConversationKey),
    /// A user, by id, in one conversation.
    ConversationUser(&'a ConversationKey, &'a str),
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

/// Stands for the key of an append in [`Key::Idempotency`]: 15 bytes of a SHA-256, so that nobody can
/// find two keys with the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OnceDigest(pub [u8; 15]);

impl OnceDigest {
    /// The digest of an append to `conversation` under a caller's `key`. `scope` says whose key it is:
    /// keys of different scopes never meet.
    #[must_use]
    pub fn new(conversation: ConversationNumber, scope: &str, key: &str) -> Self {
        let hash = Sha256::new()
            .chain_update(conversation.0.to_be_bytes())
            // The length keeps apart what would run together.
            .chain_update((scope.len() as u64).to_be_bytes())
            .chain_update(scope)
            .chain_update(key)
            .finalize();
        let mut digest = [0; 15];
        digest.copy_from_slice(&hash[..15]);
        Self(digest)
    }
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
            Self::SigningKey => Table::SigningKey,
            Self::State { .. } => Table::State,
            Self::Scheduled { .. } => Table::Scheduled,
            Self::ScheduledDue { .. } => Table::ScheduledDue,
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
            Self::Meta | Self::SigningKey => {}
            Self::Head { conversation } => put_number(to, conversation),
            Self::Conversation { conversation } | Self::Live { conversation } => {
                put_conversation(to, conversation);
            }
            Self::Activity {
                conversation,
                sequence,
            }
            | Self::Receipt {
                conversation,
                sequence,
            } => {
                put_number(to, conversation);
                to.extend_from_slice(&sequence.0.to_be_bytes());
            }
            Self::Member {
                conversation,
                member,
            } => {
                put_number(to, conversation);
                put_last_text(to, member);
            }
            Self::Expiry {
                bucket,
                conversation,
            } => {
                to.extend_from_slice(&bucket.to_be_bytes());
                put_conversation(to, conversation);
            }
            Self::Scheduled { conversation, id } => {
                put_number(to, conversation);
                put_schedule(to, id);
            }
            Self::ScheduledDue { id, conversation } => {
                put_schedule(to, id);
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
            Self::Idempotency { generation, digest } => {
                to.extend_from_slice(&generation.to_be_bytes());
                to.extend_from_slice(&digest.0);
            }
            Self::DeadLetter {
                conversation,
                bot,
                sequence,
            } => {
                put_number(to, conversation);
                put_text(to, bot);
                to.extend_from_slice(&sequence.0.to_be_bytes());
            }
            Self::State { bot, about, name } => {
                put_about(to, bot, about);
                put_last_text(to, name);
            }
        }
    }

    /// How many bytes [`encode`](Self::encode) gives.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        const TAG: usize = 1;
        const END: usize = 1;
        const NUMBER: usize = size_of::<u64>();
        let conversation_len = |c: &ConversationKey| {
            c.channel.as_str().len() + END + c.conversation.as_str().len() + END
        };
        TAG + match *self {
            Self::Meta | Self::SigningKey => 0,
            Self::Head { .. } => NUMBER,
            Self::Conversation { conversation } | Self::Live { conversation } => {
                conversation_len(conversation)
            }
            Self::Activity { .. } | Self::Receipt { .. } => NUMBER + size_of::<u64>(),
            Self::Member { member, .. } => NUMBER + member.len() + END,
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
            Self::Idempotency { digest, .. } => size_of::<u32>() + digest.0.len(),
            Self::DeadLetter { bot, .. } => NUMBER + bot.len() + END + size_of::<u64>(),
            Self::Expiry { conversation, .. } => size_of::<u32>() + conversation_len(conversation),
            Self::State { bot, about, name } => {
                let about = match about {
                    About::Bot => 0,
                    About::User(channel, user) => channel.as_str().len() + END + user.len() + END,
                    About::Conversation(conversation) => conversation_len(conversation),
                    About::ConversationUser(conversation, user) => {
                        conversation_len(conversation) + user.len() + END
                    }
                };
                bot.as_str().len() + END + TAG + about + name.len() + END
            }
            Self::Scheduled { .. } => NUMBER + 2 * size_of::<u64>(),
            Self::ScheduledDue { conversation, .. } => {
                2 * size_of::<u64>() + conversation_len(conversation)
            }
        }
    }
}

/// Names the record for logs and errors: ids, but no user's key.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => write!(f, "the store's own record"),
            Self::SigningKey => write!(f, "the signing key"),
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
            Self::Scheduled { conversation, id } => {
                write!(f, "scheduled send {id} of {conversation}")
            }
            Self::ScheduledDue { id, conversation } => {
                write!(f, "note of scheduled send {id} of {conversation}")
            }
            Self::Idempotency { .. } => write!(f, "result of a keyed append"),
            Self::DeadLetter {
                conversation,
                bot,
                sequence,
            } => write!(f, "dead letter {sequence} of {conversation} for `{bot}`"),
            Self::Receipt {
                conversation,
                sequence,
            } => write!(f, "receipt {sequence} of {conversation}"),
            Self::State { bot, .. } => write!(f, "state document of `{bot}`"),
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

fn put_number(to: &mut Vec<u8>, conversation: ConversationNumber) {
    to.extend_from_slice(&conversation.0.to_be_bytes());
}

fn put_schedule(to: &mut Vec<u8>, id: ScheduleId) {
    to.extend_from_slice(&id.due_ms.to_be_bytes());
    to.extend_from_slice(&id.number.to_be_bytes());
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

fn put_about(to: &mut Vec<u8>, bot: &BotId, about: About<'_>) {
    put_text(to, bot.as_str());
    match about {
        About::Bot => to.push(ABOUT_BOT),
        About::User(channel, user) => {
            to.push(ABOUT_USER);
            put_text(to, channel.as_str());
            put_text(to, user);
        }
        About::Conversation(conversation) => {
            to.push(ABOUT_CONVERSATION);
            put_conversation(to, conversation);
        }
        About::ConversationUser(conversation, user) => {
            to.push(ABOUT_CONVERSATION_USER);
            put_conversation(to, conversation);
            put_text(to, user);
        }
    }
}

const ABOUT_BOT: u8 = 0;
const ABOUT_USER: u8 = 1;
const ABOUT_CONVERSATION: u8 = 2;
const ABOUT_CONVERSATION_USER: u8 = 3;

const LIST_ALL: u8 = 0;
const LIST_CHANNEL: u8 = 1;
const LIST_BOT: u8 = 2;
const LIST_USER: u8 = 3;

#[cfg(test)]
mod tests;
