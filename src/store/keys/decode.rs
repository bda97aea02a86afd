//! Reading back the parts of keys that a scan hands out.

use super::{ABOUT_BOT, ABOUT_CONVERSATION, ABOUT_CONVERSATION_USER, ABOUT_USER};
use super::{LIST_ALL, LIST_BOT, LIST_CHANNEL, LIST_USER, Table};
use crate::clock::Timestamp;
use crate::id::{
    BotId, ChannelId, ConversationId, ConversationKey, ConversationNumber, ScheduleId, Sequence,
};
use crate::store::Error;

/// Reads the sequence of an encoded [`Key::Activity`](super::Key::Activity).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key; so for all decoders here.
pub fn decode_activity(key: &[u8]) -> Result<Sequence, Error> {
    Parts::of(key, Table::Activity)?.finish(|parts| {
        parts.number()?;
        parts.sequence()
    })
}

/// Reads the sequence of an encoded [`Key::Receipt`](super::Key::Receipt).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_receipt(key: &[u8]) -> Result<Sequence, Error> {
    Parts::of(key, Table::Receipt)?.finish(|parts| {
        parts.number()?;
        parts.sequence()
    })
}

/// Reads the member id of an encoded [`Key::Member`](super::Key::Member).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_member(key: &[u8]) -> Result<&str, Error> {
    Parts::of(key, Table::Member)?.finish(|parts| {
        parts.number()?;
        parts.last_text()
    })
}

/// Reads the conversation of an encoded [`Key::Live`](super::Key::Live).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_live(key: &[u8]) -> Result<ConversationKey, Error> {
    Parts::of(key, Table::Live)?.finish(|parts| Some(owned(parts.conversation()?)))
}

/// Reads the start time and conversation of an encoded [`Key::Listing`](super::Key::Listing).
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

/// Reads the key of an [`Expiry`](super::Key::Expiry) entry.
///
/// # Errors
///
/// [`Error::Corrupt`] when it is not one.
pub fn decode_expiry(key: &[u8]) -> Result<(u32, ConversationKey), Error> {
    Parts::of(key, Table::Expiry)?
        .finish(|parts| Some((parts.u32()?, owned(parts.conversation()?))))
}

/// Reads the generation of an encoded [`Key::Idempotency`](super::Key::Idempotency).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_generation(key: &[u8]) -> Result<u32, Error> {
    Parts::of(key, Table::Idempotency)?.finish(|parts| {
        let generation = parts.u32()?;
        parts.array::<15>()?;
        Some(generation)
    })
}

/// Reads the conversation's number, bot id (empty: the channel's egress) and sequence of an encoded
/// [`Key::DeadLetter`](super::Key::DeadLetter).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_dead_letter(key: &[u8]) -> Result<(ConversationNumber, &str, Sequence), Error> {
    Parts::of(key, Table::DeadLetter)?.finish(|parts| {
        let conversation = parts.number()?;
        let bot = parts.text()?;
        Some((conversation, bot, parts.sequence()?))
    })
}

/// Reads the name of the document of an encoded [`Key::State`](super::Key::State).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_state(key: &[u8]) -> Result<&str, Error> {
    Parts::of(key, Table::State)?.finish(|parts| {
        parts.text()?;
        let texts = match parts.u8()? {
            ABOUT_BOT => 0,
            ABOUT_USER | ABOUT_CONVERSATION => 2,
            ABOUT_CONVERSATION_USER => 3,
            _ => return None,
        };
        for _ in 0..texts {
            parts.text()?;
        }
        parts.last_text()
    })
}

/// Reads whose an encoded [`Key::State`](super::Key::State) is.
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_state_bot(key: &[u8]) -> Result<BotId, Error> {
    let bot = Parts::of(key, Table::State)?.text();
    let bot = bot.ok_or_else(|| Parts::corrupt(Table::State))?;
    Ok(BotId::from(bot))
}

/// Reads the id of an encoded [`Key::Scheduled`](super::Key::Scheduled).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_scheduled(key: &[u8]) -> Result<ScheduleId, Error> {
    Parts::of(key, Table::Scheduled)?.finish(|parts| {
        parts.number()?;
        parts.schedule()
    })
}

/// Reads the id and conversation of an encoded [`Key::ScheduledDue`](super::Key::ScheduledDue).
///
/// # Errors
///
/// [`Error::Corrupt`] when it is no such key.
pub fn decode_scheduled_due(key: &[u8]) -> Result<(ScheduleId, ConversationKey), Error> {
    Parts::of(key, Table::ScheduledDue)?
        .finish(|parts| Some((parts.schedule()?, owned(parts.conversation()?))))
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

    fn number(&mut self) -> Option<ConversationNumber> {
        self.u64().map(ConversationNumber)
    }

    fn sequence(&mut self) -> Option<Sequence> {
        self.u64().map(Sequence)
    }

    fn schedule(&mut self) -> Option<ScheduleId> {
        Some(ScheduleId {
            due_ms: self.u64()?,
            number: self.u64()?,
        })
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
