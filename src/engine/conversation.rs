//! A conversation in memory: the head of its log, and those who read it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Weak};

use foldhash::HashSet;
use prost::Message;

use crate::clock::Timestamp;
use crate::engine::command::Backlog;
use crate::engine::delivery::{Cursor, Subscription};
use crate::engine::error::Error;
use crate::engine::feed::Feed;
use crate::engine::heard::Heard;
use crate::engine::log::{self, Entry};
use crate::engine::session::{self, Subscriber};
use crate::id::{BotId, ConversationKey, ConversationNumber, ScheduleId, Sequence};
use crate::proto::{storage, v1};
use crate::store::keys::Key;
use crate::store::record::{CursorRecord, HeadRecord, Span};
use crate::store::{self, Store, record};

/// Members whose presence is remembered, so that a known speaker costs no read of the store.
const KNOWN_MEMBERS: usize = 64;

/// A conversation as it lies in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What its records have in their keys.
    pub number: ConversationNumber,
    /// When the channel started it.
    pub start_time: Timestamp,
    /// Whether more than one user can take part.
    pub is_group: bool,
    /// How to come back to it.
    pub reference: v1::ConversationReference,
    /// The newest activity.
    pub last: Sequence,
    /// The oldest activity that is kept.
    pub first: Sequence,
    /// The newest retention bucket in which something was appended.
    pub bucket: u32,
    /// The newest update or deletion of a message; [`Sequence::START`] while there is none.
    pub last_change: Sequence,
    /// Whether it is over: an `endOfConversation` is in the log.
    pub ended: bool,
    /// When the newest activity that is kept was appended; zero when none is.
    pub newest_time: Timestamp,
    /// Those who must not miss anything.
    pub cursors: Vec<(Reader, Cursor)>,
    /// From where on those hear it who have not taken part from its start.
    pub heard: Vec<(Reader, Heard)>,
    /// Activities of bots in a row since the channel last posted.
    pub bot_run: u32,
    /// Times that bots handed it over by themselves since then.
    pub bot_handovers: u32,
    /// Its last bot was removed: none joins by itself.
    pub vacant: bool,
}

/// Who reads a conversation, as the store names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A bot that takes part.
    Bot(BotId),
    /// The channel itself.
    Egress,
}

impl Reader {
    /// The same reader, among those of all conversations.
    #[must_use]
    pub fn subscriber(&self, conversation: &ConversationKey) -> Subscriber {
        match self {
            Self::Bot(bot) => Subscriber::Bot(bot.clone()),
            Self::Egress => Subscriber::Egress(conversation.channel.clone()),
        }
    }

    /// The reader with an [`id`](Self::id).
    #[must_use]
    pub fn of_id(id: &str) -> Self {
        match id {
            "" => Self::Egress,
            bot => Self::Bot(bot.into()),
        }
    }

    /// The reader's id in keys and records: the bot's, or empty for the channel's.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Bot(bot) => bot.as_str(),
            Self::Egress => "",
        }
    }
}

impl Stored {
    /// Reads a conversation.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], and [`Error::StoreFailed`] when the store cannot be read.
    pub fn read(store: &dyn Store, key: &ConversationKey) -> Result<Self, Error> {
        let unknown = || Error::ConversationUnknown(key.clone());
        let rest_key = Key::Conversation { conversation: key };
        let rest = store.get(&rest_key)?.ok_or_else(unknown)?;
        let rest = record::decode_conversation(&rest_key, rest)?;
        let number = ConversationNumber(rest.number);
        let (head, newest_time) = read_head(store, number)?;
        let head = head.ok_or_else(|| store::Error::Corrupt {
            what: format!("`{key}` has no head"),
        })?;
        let corrupt = |_| store::Error::Corrupt {
            what: format!("the reference of `{key}`"),
        };
        let reference = v1::ConversationReference::decode(rest.reference).map_err(corrupt)?;
        let heard = head.cursors.iter().filter_map(heard).collect();
        let cursors = head.cursors.into_iter().map(|cursor| {
            let reader = Reader::of_id(&cursor.bot_id);
            let cursor = Cursor {
                finished: Sequence(cursor.finished),
                attempts: cursor.attempts,
                after_gap: cursor.after_gap,
                blocked: cursor.blocked,
                replays: cursor.replays,
                later_attempts: cursor
                    .later_attempts
                    .into_iter()
                    .map(|later| (Sequence(later.sequence), later.attempts))
                    .collect(),
            };
            (reader, cursor)
        });
        Ok(Self {
            number,
            start_time: Timestamp(rest.start_time_ms),
            is_group: rest.is_group,
            reference,
            last: Sequence(head.last_sequence),
            first: Sequence(head.first_sequence),
            bucket: head.retention_bucket,
            last_change: Sequence(head.last_change_sequence),
            ended: head.ended,
            newest_time,
            cursors: cursors.collect(),
            heard,
            bot_run: head.bot_run,
            bot_handovers: head.bot_handovers,
            vacant: head.vacant,
        })
    }

    /// Where the channel has come to with what bots say, and from where on it had it queued; `None` when
    /// it has none of it queued.
    #[must_use]
    pub fn egress(&self) -> Option<Span> {
        let mut cursors = self.cursors.iter();
        let (_, cursor) = cursors.find(|(reader, _)| *reader == Reader::Egress)?;
        let mut heard = self.heard.iter();
        let heard = heard.find(|(reader, _)| *reader == Reader::Egress);
        Some(Span {
            after: heard.map_or(Sequence::START, |(_, heard)| heard.since),
            to: cursor.finished,
        })
    }

    /// The bots that take part, in order of joining.
    pub fn bots(&self) -> impl Iterator<Item = &BotId> {
        self.cursors.iter().filter_map(|(reader, _)| match reader {
            Reader::Bot(bot) => Some(bot),
            Reader::Egress => None,
        })
    }
}

/// What a reader's cursor alone does not say of it, if there is anything.
fn heard(cursor: &storage::Cursor) -> Option<(Reader, Heard)> {
    let done = cursor.done.iter().map(|span| Span {
        after: Sequence(span.after),
        to: Sequence(span.to),
    });
    let heard = Heard {
        since: Sequence(cursor.since),
        done: done.collect(),
    };
    (heard != Heard::default()).then(|| (Reader::of_id(&cursor.bot_id), heard))
}

/// The newest head of a conversation: that of its newest activity, unless something changed later
/// without an append. Then there is a record of its own, which knows that activity or, when retention
/// has removed it, a later position. And when the newest activity was appended.
fn read_head(
    store: &dyn Store,
    conversation: ConversationNumber,
) -> Result<(Option<storage::Head>, Timestamp), store::Error> {
    let key = Key::Head { conversation };
    let own = store.get(&key)?;
    let own = own.map(|value| record::decode_head(&key, value));
    let own = own.transpose()?;
    let Some(newest) = log::newest(store, conversation)? else {
        return Ok((own, Timestamp::default()));
    };
    let is_older = |own: &storage::Head| own.last_sequence < newest.sequence.0;
    let head = match own.filter(|own| !is_older(own)) {
        Some(own) => own,
        None => record::decode_head(&key, newest.head)?,
    };
    Ok((Some(head), newest.append_time))
}

/// One reader of a resident conversation.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Who.
    pub(crate) reader: Reader,
    /// The same, by the shard's number for it.
    pub(crate) subscriber: usize,
    /// How far it has got.
    pub(crate) subscription: Subscription,
    /// The session that released the conversation, or kept it waiting too long: another one is
    /// preferred.
    pub(crate) avoid: Option<session::Number>,
    /// Until when the conversation waits for room of the session that has it.
    pub(crate) waits_until: Option<Timestamp>,
    /// Since when no session is there that takes the next activity, which one had before.
    pub(crate) untaken_since: Option<Timestamp>,
    /// From where on it hears the conversation.
    pub(crate) heard: Heard,
}

impl Seat {
    /// Whether it waits for its session, or for one that takes what another one had.
    fn is_waiting(&self) -> bool {
        self.waits_until.is_some() || self.untaken_since.is_some()
    }

    /// What waits for the reader, in a log that ends at `last`.
    pub(crate) fn backlog(&self, last: Sequence) -> Backlog {
        Backlog {
            undelivered: self.subscription.undelivered(last),
            oldest: self.subscription.first().map(|entry| entry.append_time),
        }
    }
}

/// A conversation in memory.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) key: ConversationKey,
    pub(crate) number: ConversationNumber,
    pub(crate) start_time: Timestamp,
    pub(crate) is_group: bool,
    pub(crate) reference: v1::ConversationReference,
    pub(crate) last: Sequence,
    /// The newest activity that is in the store: those after it were appended in this round.
    pub(crate) durable: Sequence,
    pub(crate) first: Sequence,
    pub(crate) bucket: u32,
    pub(crate) last_change: Sequence,
    pub(crate) ended: bool,
    pub(crate) bot_run: u32,
    pub(crate) bot_handovers: u32,
    pub(crate) vacant: bool,
    /// The newest time that an activity was stamped with.
    pub(crate) stamped: Timestamp,
    pub(crate) seats: Vec<Seat>,
    /// Followers hold the feed; without any it goes.
    pub(crate) feed: Weak<Feed>,
    pub(crate) known_members: HashSet<String>,
    /// The sends that wait for their time, once someone has asked: as the store has them, with what rounds
    /// have changed that are not in it yet.
    pub(crate) scheduled: Option<BTreeSet<ScheduleId>>,
    /// The store says that the conversation may have work.
    pub(crate) marked_live: bool,
    /// The head has changed in this round.
    pub(crate) dirty: bool,
    /// The newest activity of this round, until it is put into the batch with the head.
    pub(crate) newest: Option<Arc<Entry>>,
    /// When the shard's timer will look at it; one entry at most, so that timers cost per
    /// conversation and not per delivery.
    pub(crate) timer: Option<Timestamp>,
    /// When it last had something to do.
    pub(crate) touched: Timestamp,
    /// How many reloads of the settings it has been brought up to.
    pub(crate) reloads: u64,
    /// Tells this stay in memory from others in the same slot.
    pub(crate) residency: u64,
}

impl Conversation {
    /// Whether something is going on that memory must hold: a delivery, a rest, or a follower.
    pub(crate) fn is_busy(&self) -> bool {
        self.feed.strong_count() > 0
            || self
                .seats
                .iter()
                .any(|seat| seat.subscription.is_busy() || seat.is_waiting())
    }

    /// Whether every reader has seen everything.
    pub(crate) fn is_finished(&self) -> bool {
        self.seats.iter().all(|seat| seat.subscription.is_idle())
    }

    /// The conversation as its channel describes it.
    pub(crate) fn account(&self) -> &v1::ConversationAccount {
        static UNKNOWN: LazyLock<v1::ConversationAccount> = LazyLock::new(Default::default);
        self.reference.conversation.as_ref().unwrap_or(&UNKNOWN)
    }

    /// The time that an activity is stamped with: times of a conversation never go backwards, whatever
    /// the machine's clock does.
    pub(crate) fn stamp(&mut self, now: Timestamp) -> Timestamp {
        self.stamped = self.stamped.max(now);
        self.stamped
    }

    /// Counts what bots say in a row, up to what the channel posts next.
    pub(crate) fn note_author(&mut self, author: &log::Author) {
        if author.bot().is_some() {
            self.bot_run = self.bot_run.saturating_add(1);
        } else {
            self.bot_run = 0;
            self.bot_handovers = 0;
        }
    }

    /// The feed, made when there is none.
    pub(crate) fn feed(&mut self) -> Arc<Feed> {
        self.feed.upgrade().unwrap_or_else(|| {
            let feed = Feed::new(self.last, self.settled().to);
            self.feed = Arc::downgrade(&feed);
            feed
        })
    }

    /// What was settled by the channel, or is not for it.
    pub(crate) fn settled(&self) -> Span {
        let mut seats = self.seats.iter();
        let egress = seats.find(|seat| seat.reader == Reader::Egress);
        egress.map_or_else(Span::default, |seat| Span {
            after: seat.heard.since,
            to: seat.subscription.cursor().finished,
        })
    }

    pub(crate) fn knows_member(&self, id: &str) -> bool {
        self.known_members.contains(id)
    }

    pub(crate) fn remember_member(&mut self, id: &str) {
        if self.known_members.len() >= KNOWN_MEMBERS {
            self.known_members.clear();
        }
        self.known_members.insert(id.to_owned());
    }

    /// Appends the head as it is stored.
    pub(crate) fn encode_head(&self, to: &mut Vec<u8>) {
        let cursors = self.seats.iter().map(|seat| {
            let cursor = seat.subscription.cursor();
            CursorRecord {
                bot_id: seat.reader.id(),
                finished: cursor.finished,
                attempts: cursor.attempts,
                after_gap: cursor.after_gap,
                blocked: cursor.blocked,
                replays: cursor.replays,
                later_attempts: cursor.later_attempts,
                since: seat.heard.since,
                done: &seat.heard.done,
            }
        });
        let head = HeadRecord {
            last: self.last,
            first: self.first,
            retention_bucket: self.bucket,
            last_change: self.last_change,
            ended: self.ended,
            bot_run: self.bot_run,
            bot_handovers: self.bot_handovers,
            vacant: self.vacant,
        };
        record::encode_head(to, head, cursors);
    }

    /// What seldom changes, as it is stored.
    pub(crate) fn conversation_record(&self) -> storage::Conversation {
        storage::Conversation {
            start_time_ms: self.start_time.0,
            is_group: self.is_group,
            reference: self.reference.encode_to_vec().into(),
            number: self.number.0,
        }
    }
}
