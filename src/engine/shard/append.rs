//! Appending activities: what every author's append has in common, and what differs.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tracing::{debug, info, warn};

use super::bots::account;
use super::once::Once;
use super::queue::Lane;
use super::residency::is_for;
use super::{Place, Shard};
use crate::activity::{Draft, Kind, Outline, Stamp};
use crate::clock::Timestamp;
use crate::engine::command::{Append, From, Keyed};
use crate::engine::conversation::{Conversation, Reader, Stored};
use crate::engine::delivery::Cursor;
use crate::engine::error::Error;
use crate::engine::log::{self, Author, Entry};
use crate::engine::round::Round;
use crate::engine::session::{Appended, Session, Subscriber};
use crate::engine::settings::Outbound;
use crate::id::{BotId, ConversationKey, ConversationNumber, DeliveryId, Sequence};
use crate::proto::v1;
use crate::store::keys::{Key, ListBy};

/// How long a look at the disk's free space holds.
const DISK_CHECK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// What the shard knows of the disk's free space.
#[derive(Default)]
pub(super) struct Disk {
    checked: Option<Timestamp>,
    full: bool,
}

/// What an outgoing activity answers or comes back to, beyond the conversation's own reference.
#[derive(Default)]
pub(super) struct Answered {
    reply_to_id: Option<String>,
    recipient: Option<v1::ChannelAccount>,
    locale: Option<String>,
}

impl Answered {
    /// What a conversation reference leads back to.
    pub(super) fn of(reference: Option<v1::ConversationReference>) -> Self {
        reference.map_or_else(Self::default, |reference| Self {
            reply_to_id: reference.activity_id,
            recipient: reference.user,
            locale: reference.locale,
        })
    }

    /// What an answer to an activity is an answer to.
    pub(super) fn to(entry: &Entry) -> Self {
        Self {
            reply_to_id: Some(entry.activity_id.as_ref().to_owned()),
            // What a channel says in the bot's name, as that it was added, is for the user.
            recipient: Outline::decode(&*entry.activity)
                .ok()
                .and_then(|outline| outline.from)
                .filter(|from| from.role.as_deref() != Some("bot")),
            locale: None,
        }
    }
}

impl Shard {
    pub(super) fn append(&mut self, append: Append, round: &mut Round) {
        let Append {
            room: _room,
            conversation,
            draft,
            from,
            key,
            reply,
        } = append;
        if draft.kind.is_ephemeral() {
            let shown = self
                .where_to(conversation, &from)
                .and_then(|conversation| self.pass_by(conversation, &draft, from, round));
            return round.reply(reply, shown);
        }
        let is_send = !matches!(from, From::Channel);
        let result = self
            .where_to(conversation, &from)
            .and_then(|conversation| match from {
                From::Channel => self.append_inbound(conversation, draft, key, round),
                From::Bot { session, cites } => {
                    self.append_for_bot(conversation, draft, &session, cites, key, round)
                }
                From::Backend { bot, reference } => {
                    self.append_for_backend(conversation, draft, bot, reference, key, round)
                }
            });
        if is_send {
            self.count_send(&result);
        }
        if result.is_ok() {
            round.must_be_durable();
        }
        round.reply(reply, result);
    }

    /// The conversation that is named, or that of the delivery that is cited.
    fn where_to(
        &self,
        named: Option<ConversationKey>,
        from: &From,
    ) -> Result<ConversationKey, Error> {
        match (named, from) {
            (Some(named), _) => Ok(named),
            (
                None,
                From::Bot {
                    session,
                    cites: Some(id),
                },
            ) => {
                let place = self
                    .held_by(session, *id)
                    .ok_or_else(|| self.not_held(*id))?;
                Ok(self.conversations[place.slot].key.clone())
            }
            (None, From::Bot { .. } | From::Channel | From::Backend { .. }) => {
                unreachable!("an append names its conversation or cites a delivery")
            }
        }
    }

    fn count_send(&self, result: &Result<Appended, Error>) {
        let sends = &self.shared.metrics.sends;
        match result {
            Ok(appended) if appended.repeated => sends.repeated.inc(),
            Ok(_) => sends.appended.inc(),
            Err(Error::DeliveryStale(_) | Error::DeliveryUnknown(_)) => sends.stale.inc(),
            Err(Error::StoreFailed(_)) => sends.failed.inc(),
            Err(_) => sends.refused.inc(),
        };
    }

    /// What a channel posts. The first activity of a conversation starts it.
    fn append_inbound(
        &mut self,
        key: ConversationKey,
        draft: Draft,
        keyed: Option<Keyed>,
        round: &mut Round,
    ) -> Result<Appended, Error> {
        // The caller has looked, and it may have gone since.
        if !self.settings.channels.contains_key(&key.channel) {
            return Err(Error::ChannelUnknown(key.channel));
        }
        let is_group = draft.conversation.as_ref().and_then(|c| c.is_group) == Some(true);
        let slot = match self.resident(&key, round) {
            Ok(slot) => Some(slot),
            Err(Error::ConversationUnknown(_)) => None,
            Err(error) => return Err(error),
        };
        let number = match slot {
            Some(slot) => self.conversations[slot].number,
            None => self.ids.next_number(),
        };
        let once = Once::new(number, &Author::Channel, keyed);
        // Nothing is a repeat in a conversation that has not started.
        if let Some(slot) = slot
            && let Some(repeated) = self.seen(&once, slot, round)?
        {
            return Ok(repeated);
        }
        if let Some(slot) = slot {
            self.check_open(&key, slot)?;
        }
        let becomes_group = is_group && slot.is_none_or(|slot| !self.conversations[slot].is_group);
        if becomes_group && !self.can(&key.channel, |all| all.groups) {
            return Err(Error::GroupsUnsupported(key.channel));
        }
        self.check_disk(round.now)?;
        let slot = match slot {
            Some(slot) => slot,
            None => {
                let channel = self.settings.channels.get(&key.channel);
                let unknown = || Error::ChannelUnknown(key.channel.clone());
                let bot = channel.ok_or_else(unknown)?.bot.clone();
                self.start(&key, number, &draft, is_group, &bot, round)?
            }
        };
        self.conversations[slot].is_group |= is_group;
        let appended = self.write_inbound(slot, &draft, round);
        self.keep_result(once, &appended, round);
        if let Some(stream) = &draft.stops_stream {
            self.stop_streams(&key, stream, round);
        } else if draft.kind == Kind::Message {
            self.supersede_streams(&key, round);
        }
        Ok(appended)
    }

    /// Refuses what users say after the end, on a channel that ends with it.
    pub(super) fn check_open(&self, key: &ConversationKey, slot: usize) -> Result<(), Error> {
        let channel = self.settings.channels.get(&key.channel);
        let closes = channel.is_some_and(|channel| channel.end_closes);
        if closes && self.conversations[slot].ended {
            return Err(Error::ConversationEnded(key.clone()));
        }
        Ok(())
    }

    fn append_for_bot(
        &mut self,
        key: ConversationKey,
        draft: Draft,
        session: &Session,
        cites: Option<DeliveryId>,
        keyed: Option<Keyed>,
        round: &mut Round,
    ) -> Result<Appended, Error> {
        let slot = self.resident(&key, round)?;
        let Subscriber::Bot(bot) = session.subscriber.clone() else {
            return Err(Error::ConversationUnknown(key));
        };
        let author = Author::Bot(bot.clone());
        // Looked up before the fence: what was stored while the sender held the delivery, or took part,
        // stays its result, and nothing is written now.
        let once = Once::new(self.conversations[slot].number, &author, keyed);
        if let Some(repeated) = self.seen(&once, slot, round)? {
            return Ok(repeated);
        }
        if !self.takes_part(slot, &bot) {
            return Err(match cites {
                // It was removed, or has handed the conversation over, since.
                Some(id) if self.held_by(session, id).is_none() => self.not_held(id),
                // A bot may not learn of conversations that are not its own.
                Some(_) | None => Error::ConversationUnknown(key),
            });
        }
        let (answered, place) = self.cited(session, cites, slot)?;
        self.check_change(slot, &draft, &bot)?;
        self.check_disk(round.now)?;
        let draft = match place.zip(cites) {
            Some((place, cited)) => self.finish_stream(place, cited, draft, round),
            None => draft,
        };
        let appended = self.write_outbound(slot, &draft, author, &answered, round);
        self.keep_result(once, &appended, round);
        Ok(appended)
    }

    pub(super) fn append_for_backend(
        &mut self,
        key: ConversationKey,
        draft: Draft,
        bot: Option<BotId>,
        reference: Option<Box<v1::ConversationReference>>,
        keyed: Option<Keyed>,
        round: &mut Round,
    ) -> Result<Appended, Error> {
        let slot = self.resident(&key, round)?;
        let bot = self.speaker(slot, bot, reference.as_deref())?;
        let author = Author::Backend(bot.clone());
        let once = Once::new(self.conversations[slot].number, &author, keyed);
        if let Some(repeated) = self.seen(&once, slot, round)? {
            return Ok(repeated);
        }
        self.check_takes_part(slot, &bot)?;
        self.check_change(slot, &draft, &bot)?;
        self.check_disk(round.now)?;
        let answered = Answered::of(reference.map(|reference| *reference));
        let appended = self.write_outbound(slot, &draft, author, &answered, round);
        self.keep_result(once, &appended, round);
        Ok(appended)
    }

    /// The bot of a session, if it takes part in a conversation.
    pub(super) fn bot_of(&self, session: &Session, slot: usize) -> Result<BotId, Error> {
        match &session.subscriber {
            Subscriber::Bot(bot) if self.takes_part(slot, bot) => Ok(bot.clone()),
            // A bot may not learn of conversations that are not its own.
            Subscriber::Bot(_) | Subscriber::Egress(_) => {
                let key = self.conversations[slot].key.clone();
                Err(Error::ConversationUnknown(key))
            }
        }
    }

    /// What a send answers, and the delivery it cites, which its session must hold.
    pub(super) fn cited(
        &self,
        session: &Session,
        cites: Option<DeliveryId>,
        slot: usize,
    ) -> Result<(Answered, Option<Place>), Error> {
        let Some(id) = cites else {
            return Ok((Answered::default(), None));
        };
        match self.held_by(session, id) {
            Some(place) if place.slot == slot => Ok((self.answered(place, id), Some(place))),
            Some(_) => Err(Error::DeliveryElsewhere {
                delivery: id,
                conversation: self.conversations[slot].key.clone(),
            }),
            None => Err(self.not_held(id)),
        }
    }

    /// Refuses appends while the disk has less room than the reserve. Acks are taken: they are small,
    /// and finishing work frees what waits.
    pub(super) fn check_disk(&mut self, now: Timestamp) -> Result<(), Error> {
        let reserve_bytes = self.settings.limits.disk_reserve_bytes;
        let fresh = |checked: Timestamp| now >= checked && now.since(checked) < DISK_CHECK_INTERVAL;
        if !self.disk.checked.is_some_and(fresh) {
            let full = self.shared.store.free_bytes()? < reserve_bytes;
            if full && !self.disk.full {
                warn!(
                    reserve_bytes,
                    "appends are refused: the disk has less room than the reserve"
                );
            } else if self.disk.full && !full {
                info!(reserve_bytes, "appends are taken again: the disk has room");
            }
            self.shared.metrics.store_full.set(i64::from(full));
            self.disk.full = full;
            self.disk.checked = Some(now);
        }
        if self.disk.full {
            return Err(Error::StoreFull { reserve_bytes });
        }
        Ok(())
    }

    /// Starts a conversation with a bot, which comes first, and those that belong to it: nothing is appended
    /// yet.
    pub(super) fn start(
        &mut self,
        key: &ConversationKey,
        number: ConversationNumber,
        draft: &Draft,
        is_group: bool,
        bot: &BotId,
        round: &mut Round,
    ) -> Result<usize, Error> {
        let channels = &self.settings.channels;
        let unknown = || Error::ChannelUnknown(key.channel.clone());
        let channel = channels.get(&key.channel).ok_or_else(unknown)?;
        // One of the channel's own does not come without the others.
        let is_own = channel.bots().any(|own| own == bot);
        let others = channel.bots().filter(|own| is_own && *own != bot);
        let bots: Vec<_> = std::iter::once(bot).chain(others).cloned().collect();
        let seats = bots.iter().map(|bot| Reader::Bot(bot.clone()));
        let mut cursors: Vec<_> = seats.map(|bot| (bot, Cursor::default())).collect();
        if channel.outbound == Outbound::Queue {
            cursors.push((Reader::Egress, Cursor::default()));
        }
        let account = self.settings.bots.get(bot).map(|bot| bot.account.clone());
        let stored = Stored {
            number,
            start_time: round.now,
            is_group,
            reference: v1::ConversationReference {
                bot: account,
                channel_id: Some(key.channel.as_str().to_owned()),
                conversation: draft.conversation.clone(),
                service_url: channel.service_url.clone(),
                ..Default::default()
            },
            last: Sequence::START,
            first: Sequence::START.next(),
            bucket: 0,
            last_change: Sequence::START,
            ended: false,
            newest_time: Timestamp::default(),
            cursors,
            heard: Vec::new(),
            bot_run: 0,
            bot_handovers: 0,
            vacant: false,
        };
        let listings = [ListBy::All, ListBy::Channel(&key.channel)];
        for by in listings.into_iter().chain(bots.iter().map(ListBy::Bot)) {
            let listing = Key::Listing {
                by,
                start: round.now,
                conversation: key,
            };
            round.batch.put(&listing, Bytes::new());
        }
        debug!(conversation.id = %key, "started");
        self.admit(key, stored, round)
    }

    /// What a delivery's answer is an answer to.
    pub(super) fn answered(&self, place: Place, delivery: DeliveryId) -> Answered {
        let seat = &self.conversations[place.slot].seats[place.seat];
        let entry = seat.subscription.entry_of(delivery);
        entry.map_or_else(Answered::default, |entry| Answered::to(entry))
    }

    pub(super) fn write_inbound(
        &mut self,
        slot: usize,
        draft: &Draft,
        round: &mut Round,
    ) -> Appended {
        self.learn_members(slot, draft, round);
        self.freshen_reference(slot, draft, round);
        let id = match &draft.id {
            Some(id) => id.as_str().into(),
            None => next_activity_id(&self.conversations[slot]),
        };
        let activity = self.finish_inbound(slot, draft, &id, round);
        self.log(slot, Author::Channel, id, &draft.kind, activity, round)
    }

    /// What a user says, with what only the writer knows.
    pub(super) fn finish_inbound(
        &mut self,
        slot: usize,
        draft: &Draft,
        id: &str,
        round: &Round,
    ) -> Bytes {
        let timestamp = self.conversations[slot].stamp(round.now);
        let conversation = &self.conversations[slot];
        draft.finish(&Stamp {
            id,
            timestamp,
            channel: conversation.key.channel.as_str(),
            conversation: conversation.account(),
            from: None,
            recipient: conversation.reference.bot.as_ref(),
            reply_to_id: None,
            locale: None,
            service_url: conversation.reference.service_url.as_deref(),
        })
    }

    /// Appends what a bot says, with the conversation's reference applied.
    pub(super) fn write_outbound(
        &mut self,
        slot: usize,
        draft: &Draft,
        author: Author,
        answered: &Answered,
        round: &mut Round,
    ) -> Appended {
        // An update or a deletion has the id of the message that it changes.
        let id = match &draft.id {
            Some(id) => id.as_str().into(),
            None => next_activity_id(&self.conversations[slot]),
        };
        let activity = self.finish_outbound(slot, draft, &author, answered, &id, round);
        self.log(slot, author, id, &draft.kind, activity, round)
    }

    /// What a bot says, with the conversation's reference applied.
    pub(super) fn finish_outbound(
        &mut self,
        slot: usize,
        draft: &Draft,
        author: &Author,
        answered: &Answered,
        id: &str,
        round: &Round,
    ) -> Bytes {
        let timestamp = self.conversations[slot].stamp(round.now);
        let conversation = &self.conversations[slot];
        let reference = &conversation.reference;
        let account = author
            .bot()
            .map(|bot| account(&self.settings, reference, bot));
        draft.finish(&Stamp {
            id,
            timestamp,
            channel: conversation.key.channel.as_str(),
            conversation: conversation.account(),
            from: account.as_deref(),
            recipient: answered.recipient.as_ref().or(reference.user.as_ref()),
            reply_to_id: answered.reply_to_id.as_deref(),
            locale: answered.locale.as_deref().or(reference.locale.as_deref()),
            service_url: reference.service_url.as_deref(),
        })
    }

    /// Appends an activity to the log and shows it to all who read it.
    pub(super) fn log(
        &mut self,
        slot: usize,
        author: Author,
        activity_id: Arc<str>,
        kind: &Kind,
        activity: Bytes,
        round: &mut Round,
    ) -> Appended {
        self.touch(slot, round);
        self.note_bucket(slot, round);
        if *kind == Kind::MessageDelete {
            // An unreadable store shows when the round is written.
            let conversation = &self.conversations[slot];
            let _ = self.note_deletion(conversation, &activity_id, round);
        }
        let conversation = &mut self.conversations[slot];
        let sequence = conversation.last.next();
        conversation.last = sequence;
        match kind {
            Kind::MessageUpdate | Kind::MessageDelete => conversation.last_change = sequence,
            Kind::EndOfConversation => conversation.ended = true,
            _ => {}
        }
        conversation.note_author(&author);
        let entry = Arc::new(Entry {
            sequence,
            append_time: round.now,
            bot_run: author.bot().map_or(0, |_| conversation.bot_run),
            author,
            activity_id: Arc::clone(&activity_id),
            activity,
        });
        // The newest one waits for the end of the round, to be written with the head.
        if let Some(before) = conversation.newest.replace(Arc::clone(&entry)) {
            round.put(conversation.number, &before, &[]);
        }
        let appended = &self.shared.metrics.activities_appended;
        match entry.author {
            Author::Channel => appended.channel.inc(),
            Author::Bot(_) => appended.bot.inc(),
            Author::Backend(_) => appended.backend.inc(),
        };
        if let Some(feed) = conversation.feed.upgrade() {
            round.publish(feed, &entry);
        }
        self.note_bot_run(slot, &entry);
        for seat in 0..self.conversations[slot].seats.len() {
            let taken = &mut self.conversations[slot].seats[seat];
            let is_for_it = is_for(&self.settings, taken, &entry);
            if taken.subscription.learn(&entry, is_for_it) {
                self.enqueue(slot, seat, Lane::Ready, round);
            }
        }
        Appended {
            activity_id,
            sequence,
            repeated: false,
        }
    }
}

/// The id of the next activity.
fn next_activity_id(conversation: &Conversation) -> Arc<str> {
    log::id_at(&conversation.key.conversation, conversation.last.next()).into()
}
