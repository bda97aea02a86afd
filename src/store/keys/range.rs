//! Ranges of keys, as they are scanned.

use std::ops::RangeInclusive;

use super::{About, Key, ListBy, Table, put_about, put_list, put_number, put_text, successor};
use crate::clock::Timestamp;
use crate::id::{BotId, ConversationKey, ConversationNumber, ScheduleId, Sequence};

/// Keys next to each other: from the first, included, to the end, not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// `None`: all of them.
    table: Option<Table>,
    start: Vec<u8>,
    end: Vec<u8>,
}

impl KeyRange {
    /// Every key of every table: what a backup reads.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            table: None,
            start: Vec::new(),
            // After every tag.
            end: vec![u8::MAX],
        }
    }

    /// The whole of a table.
    #[must_use]
    pub fn table(table: Table) -> Self {
        Self::prefix(table, vec![table.tag()])
    }

    /// Activities of a conversation, by sequence. Empty when the end is before the start.
    #[must_use]
    pub fn activities(
        conversation: ConversationNumber,
        sequences: RangeInclusive<Sequence>,
    ) -> Self {
        let key = |sequence| Key::Activity {
            conversation,
            sequence,
        };
        Self::between(key(*sequences.start()), key(*sequences.end()))
    }

    /// Receipts of a conversation, by sequence. Empty when the end is before the start.
    #[must_use]
    pub fn receipts(conversation: ConversationNumber, sequences: RangeInclusive<Sequence>) -> Self {
        let key = |sequence| Key::Receipt {
            conversation,
            sequence,
        };
        Self::between(key(*sequences.start()), key(*sequences.end()))
    }

    /// Dead letters of a conversation, by bot and sequence.
    #[must_use]
    pub fn dead_letters(conversation: ConversationNumber) -> Self {
        Self::of(Table::DeadLetter, conversation)
    }

    /// Dead letters of a conversation for one bot, by sequence; for the channel's egress when it is
    /// empty.
    #[must_use]
    pub fn dead_letters_of(conversation: ConversationNumber, bot: &str) -> Self {
        let key = |sequence| Key::DeadLetter {
            conversation,
            bot,
            sequence,
        };
        Self::between(key(Sequence::START), key(Sequence(u64::MAX)))
    }

    /// Members of a conversation, by id; those after `after` when it is given, whether or not it
    /// is itself a member.
    #[must_use]
    pub fn members(conversation: ConversationNumber, after: Option<&str>) -> Self {
        let mut range = Self::of(Table::Member, conversation);
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

    /// The documents of a bot about one thing, by name; those after `after` when it is given, whether
    /// or not there is one of that name.
    #[must_use]
    pub fn state(bot: &BotId, about: About<'_>, after: Option<&str>) -> Self {
        let mut start = vec![Table::State.tag()];
        put_about(&mut start, bot, about);
        // What follows is a text, which has no byte of this value.
        let mut end = start.clone();
        end.push(u8::MAX);
        if let Some(name) = after {
            start = successor(Key::State { bot, about, name });
        }
        Self {
            table: Some(Table::State),
            start,
            end,
        }
    }

    /// The documents of all bots that come after one, by the bots' ids; of all bots when there is none.
    #[must_use]
    pub fn state_of_bots(after: Option<&BotId>) -> Self {
        let mut range = Self::table(Table::State);
        if let Some(bot) = after {
            put_text(&mut range.start, bot.as_str());
            // What follows a bot's id says what its documents are about, and is never this.
            range.start.push(u8::MAX);
        }
        range
    }

    /// Sends of a conversation that wait for their time, in order of time; those after `after` when it is
    /// given, whether or not it still waits.
    #[must_use]
    pub fn scheduled(conversation: ConversationNumber, after: Option<ScheduleId>) -> Self {
        let mut range = Self::of(Table::Scheduled, conversation);
        if let Some(id) = after {
            range.start = successor(Key::Scheduled { conversation, id });
        }
        range
    }

    /// Notes of sends that are due up to a time, the earliest first.
    #[must_use]
    pub fn scheduled_due(until: Timestamp) -> Self {
        let mut end = vec![Table::ScheduledDue.tag()];
        match until.0.checked_add(1) {
            Some(after) => end.extend_from_slice(&after.to_be_bytes()),
            None => end[0] += 1,
        }
        Self {
            table: Some(Table::ScheduledDue),
            start: vec![Table::ScheduledDue.tag()],
            end,
        }
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
            table: Some(table),
            start: vec![table.tag()],
            end,
        }
    }

    /// The table that all of the range is in; `None` when it is [`everything`](Self::everything).
    #[must_use]
    pub fn within(&self) -> Option<Table> {
        self.table
    }

    /// The range, table by table, in key order: for stores that keep tables apart.
    pub fn by_table(&self) -> impl DoubleEndedIterator<Item = (Table, Self)> {
        let tables = match &self.table {
            Some(table) => std::slice::from_ref(table),
            None => &Table::ALL,
        };
        tables.iter().map(|table| {
            let part = match self.table {
                Some(_) => self.clone(),
                None => Self::table(*table),
            };
            (*table, part)
        })
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
            table: Some(first.table()),
            start: first.encode(),
            end: successor(last),
        }
    }

    /// All keys of a table that begin with the number of `conversation`.
    fn of(table: Table, conversation: ConversationNumber) -> Self {
        let prefix = |number: u64| {
            let mut prefix = vec![table.tag()];
            put_number(&mut prefix, ConversationNumber(number));
            prefix
        };
        Self {
            table: Some(table),
            start: prefix(conversation.0),
            end: match conversation.0.checked_add(1) {
                Some(next) => prefix(next),
                None => vec![table.tag() + 1],
            },
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
            table: Some(table),
            start: prefix,
            end,
        }
    }
}
