//! A conversation's log: what an entry is, and reading entries from the store.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::id::{BotId, ConversationId, ConversationNumber, Sequence};
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::record::ActivityRecord;
use crate::store::{self, Order, Store, record};

/// One activity of a log, as it lies there.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub sequence: Sequence,
    /// When it was appended.
    pub append_time: Timestamp,
    /// Who appended it.
    pub author: Author,
    /// The activity's id.
    pub activity_id: Arc<str>,
    /// The `turnwire.v1.Activity`, encoded.
    pub activity: Bytes,
    /// Activities of bots in a row up to this one; zero when it is not a bot's. So that bots which hear
    /// one another come to an end: see limit `bot_run`.
    pub bot_run: u32,
}

/// Who appends an activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The channel, for a user or for itself.
    Channel,
    /// A bot, over its stream.
    Bot(BotId),
    /// A backend, on behalf of a bot.
    Backend(BotId),
}

impl Author {
    /// The bot that speaks, if one does.
    #[must_use]
    pub fn bot(&self) -> Option<&BotId> {
        match self {
            Self::Channel => None,
            Self::Bot(bot) | Self::Backend(bot) => Some(bot),
        }
    }

    /// The author's name in the API.
    #[must_use]
    pub fn kind(&self) -> v1::Author {
        match self {
            Self::Channel => v1::Author::Channel,
            Self::Bot(_) => v1::Author::Bot,
            Self::Backend(_) => v1::Author::Backend,
        }
    }
}

impl Entry {
    /// The entry as it is stored, with the conversation's head if it has that.
    #[must_use]
    pub fn record<'a>(&'a self, head: &'a [u8]) -> ActivityRecord<'a> {
        ActivityRecord {
            append_time: self.append_time,
            author: self.author.kind() as i32,
            bot_id: self.author.bot().map_or("", BotId::as_str),
            activity_id: &self.activity_id,
            activity: &self.activity,
            head,
            bot_run: self.bot_run,
        }
    }

    fn from_record(sequence: Sequence, record: storage::Activity) -> Self {
        let bot = || BotId::from(record.bot_id.as_str());
        let author = match v1::Author::try_from(record.author) {
            Ok(v1::Author::Bot) => Author::Bot(bot()),
            Ok(v1::Author::Backend) => Author::Backend(bot()),
            Ok(v1::Author::Channel | v1::Author::Unspecified) | Err(_) => Author::Channel,
        };
        Self {
            sequence,
            append_time: Timestamp(record.append_time_ms),
            author,
            activity_id: record.activity_id.into(),
            activity: record.activity,
            bot_run: record.bot_run,
        }
    }
}

/// What the id of an activity has in it that says who joined and who left.
pub const MEMBERSHIP: &str = "|members-";

/// What the id of an activity has in it that tells a bot of a conversation that was handed over to it.
pub const HANDOVER: &str = "|handover-";

/// Whether an id is that of an activity by which the gateway says who takes part: that members, or bots,
/// came or went, or that a conversation was handed over.
#[must_use]
pub fn tells_who_takes_part(id: &str) -> bool {
    id.contains(MEMBERSHIP) || id.contains(HANDOVER)
}

/// The id of the activity at a position, unless its channel called it otherwise: the shape of the
/// public service's ids (seven digits, counting users' and bots' activities).
#[must_use]
pub fn id_at(conversation: &ConversationId, position: Sequence) -> String {
    format!("{conversation}|{:07}", position.0)
}

/// The position that an id of [`id_at`] says.
#[must_use]
pub fn position_of(conversation: &ConversationId, id: &str) -> Option<Sequence> {
    let rest = id.strip_prefix(conversation.as_str())?;
    let position = rest.strip_prefix('|')?.parse().ok()?;
    Some(Sequence(position))
}

/// The end of a log, as it lies there.
pub(crate) struct Newest {
    pub(crate) sequence: Sequence,
    pub(crate) append_time: Timestamp,
    /// The head that was written with it.
    pub(crate) head: Bytes,
}

/// Reads the newest entry of a log, if there is one.
///
/// # Errors
///
/// [`store::Error`] when the store cannot be read.
pub(crate) fn newest(
    store: &dyn Store,
    conversation: ConversationNumber,
) -> Result<Option<Newest>, store::Error> {
    let mut newest = Ok(None);
    let range = KeyRange::activities(conversation, Sequence::START..=Sequence(u64::MAX));
    store.scan(&range, Order::Descending, &mut |key, value| {
        newest = keys::decode_activity(key).and_then(|sequence| {
            let key = Key::Activity {
                conversation,
                sequence,
            };
            let record = record::decode_activity(&key, value)?;
            Ok(Some(Newest {
                sequence,
                append_time: Timestamp(record.append_time_ms),
                head: record.head,
            }))
        });
        ControlFlow::Break(())
    })?;
    newest
}

/// How much to read at most.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Entries. At least 1.
    pub entries: usize,
    /// Bytes of activities; one entry is returned whatever its size.
    pub bytes: usize,
}

/// Reads entries of `conversation` from `from` to `to`, both included, in the given order.
///
/// # Errors
///
/// [`Error::StoreFailed`] when the store cannot be read.
pub fn read(
    store: &dyn Store,
    conversation: ConversationNumber,
    from: Sequence,
    to: Sequence,
    order: Order,
    page: Page,
) -> Result<Vec<Arc<Entry>>, Error> {
    let mut entries = Vec::new();
    if from > to {
        return Ok(entries);
    }
    let mut bytes = 0;
    let mut corrupt: Option<store::Error> = None;
    let range = KeyRange::activities(conversation, from..=to);
    store.scan(&range, order, &mut |key, value| {
        let size = value.len();
        if !entries.is_empty() && bytes + size > page.bytes {
            return ControlFlow::Break(());
        }
        let entry = keys::decode_activity(key).and_then(|sequence| {
            let key = Key::Activity {
                conversation,
                sequence,
            };
            Ok(Entry::from_record(
                sequence,
                record::decode_activity(&key, value)?,
            ))
        });
        match entry {
            Ok(entry) => entries.push(Arc::new(entry)),
            Err(error) => {
                corrupt = Some(error);
                return ControlFlow::Break(());
            }
        }
        bytes += size;
        if entries.len() >= page.entries {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    match corrupt {
        Some(error) => Err(error.into()),
        None => Ok(entries),
    }
}
