//! Ephemeral activities: shown to whoever is there, never logged, and never waited for.
//!
//! They are effects of a round like all that is told, so that each comes in its place; but a round that
//! has nothing else writes nothing, and whoever is behind is passed over. What is not shown is counted,
//! and is no error: the next one says the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use rand::RngExt;

use super::append::Answered;
use super::dispatch::rank;
use super::{Attached, Shard};
use crate::activity::Draft;
use crate::engine::command::From;
use crate::engine::conversation::Reader;
use crate::engine::error::Error;
use crate::engine::feed::Ephemeral;
use crate::engine::log::{Author, Entry};
use crate::engine::round::Round;
use crate::engine::session::{Appended, Event, Session};
use crate::engine::terms::Said;
use crate::id::{ConversationKey, Sequence};
use crate::proto::v1;

/// Senders that are counted in a second; what others send in it is dropped.
const SENDERS: usize = 1 << 16;

/// How often each sender has sent in this second, by a hash of its conversation and name: that two share
/// one costs them half.
#[derive(Default)]
pub(super) struct Pace(HashMap<u64, usize>);

impl Pace {
    /// Counts one, unless it is too much.
    fn take(&mut self, sender: u64, most: usize) -> bool {
        if self.0.len() >= SENDERS && !self.0.contains_key(&sender) {
            return false;
        }
        let count = self.0.entry(sender).or_default();
        *count += 1;
        *count <= most
    }

    /// Another second begins.
    pub(super) fn begin(&mut self) {
        self.0.clear();
    }
}

impl Shard {
    /// Shows an ephemeral activity. It says where it was not appended: its sequence is zero.
    ///
    /// One of a conversation that has not started, or of a sender who is too fast, is dropped without a
    /// word, since its channel could do nothing about it.
    pub(super) fn pass_by(
        &mut self,
        key: ConversationKey,
        draft: &Draft,
        from: From,
        round: &mut Round,
    ) -> Result<Appended, Error> {
        let id = match &draft.id {
            Some(id) => id.as_str().into(),
            None => self.fresh_id(&key),
        };
        let slot = match (self.resident(&key, round), &from) {
            (Ok(slot), _) => slot,
            (Err(Error::ConversationUnknown(_)), From::Channel) => {
                self.shared.metrics.ephemerals.unseen.inc();
                return Ok(unlogged(id));
            }
            (Err(error), _) => return Err(error),
        };
        match from {
            From::Channel => {
                self.check_open(&key, slot)?;
                if self.is_slow_enough(slot, &Author::Channel, draft) {
                    let activity = self.finish_inbound(slot, draft, &id, round);
                    let shown = ephemeral(Author::Channel, Arc::clone(&id), activity, None, round);
                    self.show(slot, shown, |_| true, round);
                }
                Ok(unlogged(id))
            }
            From::Bot { session, cites } => {
                let bot = self.bot_of(&session, slot)?;
                let (answered, _) = self.cited(&session, cites, slot)?;
                Ok(self.show_reply(slot, draft, Author::Bot(bot), &answered, round))
            }
            From::Backend { bot, reference } => {
                let bot = self.speaker(slot, bot, reference.as_deref())?;
                self.check_takes_part(slot, &bot)?;
                let author = Author::Backend(bot);
                let answered = Answered::of(reference.map(|reference| *reference));
                Ok(self.show_reply(slot, draft, author, &answered, round))
            }
        }
    }

    /// Shows what a bot does.
    pub(super) fn show_reply(
        &mut self,
        slot: usize,
        draft: &Draft,
        author: Author,
        answered: &Answered,
        round: &mut Round,
    ) -> Appended {
        let key = self.conversations[slot].key.clone();
        let id = self.fresh_id(&key);
        if self.is_slow_enough(slot, &author, draft) {
            let activity = self.finish_outbound(slot, draft, &author, answered, &id, round);
            let shown = ephemeral(author, Arc::clone(&id), activity, None, round);
            let capability = |all: &v1::ChannelCapabilities| match draft.has_stream_info {
                true => all.streaming,
                false => all.typing,
            };
            self.show(slot, shown, capability, round);
        }
        unlogged(id)
    }

    /// Counts one more of a sender. Whether it is to be shown.
    fn is_slow_enough(&mut self, slot: usize, author: &Author, draft: &Draft) -> bool {
        let most = self.settings.limits.ephemerals_per_second;
        let sender = sender(&self.conversations[slot].key, author, draft);
        let is_slow_enough = self.pace.take(sender, most);
        if !is_slow_enough {
            self.shared.metrics.ephemerals.dropped.inc();
        }
        is_slow_enough
    }

    /// An id that no entry of a log has.
    pub(super) fn fresh_id(&mut self, key: &ConversationKey) -> Arc<str> {
        let number: u64 = self.random.random();
        format!("{}|e{number:016x}", key.conversation).into()
    }

    /// Shows something to those who are there: a bot's to followers, and to an adapter whose channel can
    /// show it; a user's to followers, and to a session of each bot.
    pub(super) fn show(
        &mut self,
        slot: usize,
        ephemeral: Ephemeral,
        capability: impl Fn(&v1::ChannelCapabilities) -> bool,
        round: &mut Round,
    ) {
        let ephemeral = Arc::new(ephemeral);
        let conversation = &self.conversations[slot];
        let limits = &self.settings.limits;
        let metrics = &self.shared.metrics.ephemerals;
        let is_users = ephemeral.entry.author.bot().is_none();
        let mut seen = false;
        if let Some(feed) = conversation.feed.upgrade() {
            round.show(feed, &ephemeral);
            seen = true;
        }
        let can = is_users || self.can(&conversation.key.channel, capability);
        for (index, seat) in conversation.seats.iter().enumerate() {
            let is_for_it = match seat.reader {
                Reader::Bot(_) => is_users,
                Reader::Egress => !is_users && can,
            };
            if !is_for_it {
                continue;
            }
            let Some(session) = self.listener(slot, index, Some(&ephemeral)) else {
                continue;
            };
            if session.is_behind(limits) {
                metrics.dropped.inc();
                continue;
            }
            let event = Event::Ephemeral(conversation.key.clone(), Arc::clone(&ephemeral));
            round.whisper(session, event);
            seen = true;
        }
        if seen {
            metrics.shown.inc();
        } else {
            metrics.unseen.inc();
        }
    }

    /// Whether anyone is there to see what a bot does.
    pub(super) fn is_watched(
        &self,
        slot: usize,
        capability: impl Fn(&v1::ChannelCapabilities) -> bool,
    ) -> bool {
        let conversation = &self.conversations[slot];
        let mut seats = conversation.seats.iter();
        conversation.feed.strong_count() > 0
            || seats
                .position(|seat| seat.reader == Reader::Egress)
                .is_some_and(|seat| self.listener(slot, seat, None).is_some())
                && self.can(&conversation.key.channel, capability)
    }

    /// The session that has the conversation, or else the one that would get its next delivery. One that
    /// has lost its stream hears nothing before it comes back, by when it is too late.
    fn listener(
        &self,
        slot: usize,
        seat: usize,
        shown: Option<&Ephemeral>,
    ) -> Option<&Arc<Session>> {
        let conversation = &self.conversations[slot];
        let taken = &conversation.seats[seat];
        let said = shown.map(|shown| Said::new(&conversation.key.channel, &shown.entry));
        let takes_it = |session: &Session| said.as_ref().is_none_or(|said| session.selects(said));
        let lease = taken.subscription.lease();
        let holder = lease.and_then(|lease| self.attached.get(&lease.session));
        let holds = !taken.subscription.held().is_empty();
        let hears = |holder: &&Attached| !holder.is_away && (holds || !holder.is_draining);
        if let Some(holder) = holder.filter(hears)
            && takes_it(&holder.session)
        {
            return Some(&holder.session);
        }
        let sessions = self.subscribers[taken.subscriber].sessions.iter();
        sessions
            .filter_map(|number| self.attached.get(number))
            .filter(|attached| attached.is_open() && takes_it(&attached.session))
            .map(|attached| &attached.session)
            .max_by_key(|session| rank(&session.instance, &conversation.key))
    }
}

/// Something ephemeral, happening now.
pub(super) fn ephemeral(
    author: Author,
    activity_id: Arc<str>,
    activity: Bytes,
    stream: Option<Arc<str>>,
    round: &Round,
) -> Ephemeral {
    Ephemeral {
        entry: Entry {
            sequence: Sequence::START,
            append_time: round.now,
            author,
            activity_id,
            activity,
            bot_run: 0,
        },
        stream,
    }
}

fn unlogged(activity_id: Arc<str>) -> Appended {
    Appended {
        activity_id,
        sequence: Sequence::START,
        repeated: false,
    }
}

fn sender(key: &ConversationKey, author: &Author, draft: &Draft) -> u64 {
    let user = draft.from.as_ref().and_then(|from| from.id.as_deref());
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (author.bot(), user).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_has_so_many_in_a_second() {
        let mut pace = Pace::default();
        assert!(pace.take(1, 2) && pace.take(1, 2) && !pace.take(1, 2));
        assert!(pace.take(2, 2), "another one has its own");
        pace.begin();
        assert!(pace.take(1, 2));
    }

    #[test]
    fn so_many_senders_are_counted_and_those_who_are_go_on() {
        let mut pace = Pace::default();
        for sender in 0..SENDERS as u64 {
            assert!(pace.take(sender, 2));
        }
        assert!(!pace.take(u64::MAX, 2));
        assert!(pace.take(0, 2));
    }
}
