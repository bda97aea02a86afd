//! Several bots in a conversation: who joins, who leaves, and what becomes of what they had.
//!
//! Each change is one command, and so one durable write: seats, what is told of them, and whom what is
//! unfinished goes to. What memory says between two commands is what the next is decided on, so that
//! nobody ever holds what another has been handed.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use tracing::{info, warn};

use super::once::Once;
use super::queue::Lane;
use super::{Place, Shard};
use crate::activity::{self, Draft, Kind, Stamp};
use crate::engine::Start;
use crate::engine::bots::{Asker, Change, ChangeBots, only_bot};
use crate::engine::command::Reply;
use crate::engine::conversation::{Conversation, Reader, Seat};
use crate::engine::delivery::{Cursor, Subscription};
use crate::engine::error::Error;
use crate::engine::heard::Heard;
use crate::engine::log::{Author, Entry, HANDOVER, MEMBERSHIP};
use crate::engine::round::Round;
use crate::engine::session::{Appended, Event};
use crate::engine::settings::{Hears, Settings};
use crate::id::{BotId, Sequence};
use crate::proto::v1;
use crate::store::keys::{Key, ListBy};
use crate::store::record;

/// Whose the keys of these changes are: no bot can be called so.
const SCOPE: &str = "|bots";

impl Shard {
    pub(super) fn change_bots(&mut self, asked: ChangeBots, round: &mut Round) {
        let ChangeBots {
            room: _room,
            conversation,
            change,
            asker,
            key,
            reply,
        } = asked;
        let result = self.resident(&conversation, round).and_then(|slot| {
            let number = self.conversations[slot].number;
            let once = Once::scoped(number, SCOPE, key);
            // Looked up before the asker: one who has left by this very call may repeat it.
            if let Some(repeated) = self.seen(&once, slot, round)? {
                return Ok(repeated);
            }
            if let Asker::Bots(bots) = &asker
                && !bots.iter().any(|bot| self.takes_part(slot, bot))
            {
                return Err(Error::ConversationUnknown(conversation));
            }
            self.check_disk(round.now)?;
            let changed = match change {
                Change::Add { bot, start } => self.add(slot, bot, start, round)?,
                Change::Remove { bot } => self.remove(slot, &bot, round)?,
                Change::HandOver { from, to, event } => {
                    let by_bot = asker != Asker::Backend;
                    self.hand_over_to(slot, from, to, *event, by_bot, round)?
                }
            };
            self.keep_result(once, &changed, round);
            Ok(changed)
        });
        if result.is_ok() {
            round.must_be_durable();
        }
        round.reply(Reply::Caller(reply), result);
    }

    /// Seats a bot.
    fn add(
        &mut self,
        slot: usize,
        bot: BotId,
        start: Start,
        round: &mut Round,
    ) -> Result<Appended, Error> {
        let settings = &self.settings;
        let conversation = &self.conversations[slot];
        if self.takes_part(slot, &bot) {
            return Ok(nothing_to_do());
        }
        let account = settings.bots.get(&bot).map(|bot| bot.account.clone());
        let account = account.ok_or_else(|| Error::BotUnknown(bot.clone()))?;
        let limit = settings.limits.conversation_bots;
        if bots(conversation).count() >= limit {
            return Err(Error::TooManyBots { limit });
        }
        let (first, last) = (conversation.first, conversation.last);
        let finished = match start {
            Start::End => last,
            Start::After(Sequence::START) => first.previous(),
            Start::After(sequence) if sequence < first.previous() => {
                return Err(Error::SequenceGone { first });
            }
            Start::After(sequence) => sequence.min(last),
        };
        let update = self.membership(std::slice::from_ref(&account), &[])?;
        info!(conversation.id = %conversation.key, bot.id = %bot, "a bot joins");
        let cursor = Cursor {
            finished,
            ..Cursor::default()
        };
        let seat = self.bot_seat(slot, &bot, cursor, Heard::after(finished));
        let conversation = &mut self.conversations[slot];
        conversation.seats.push(seat);
        conversation.vacant = false;
        let seat = conversation.seats.len() - 1;
        self.list(slot, &bot, round);
        self.name_recipient(slot, round);
        self.enqueue(slot, seat, Lane::Ready, round);
        Ok(self.tell_membership(slot, &update, Some(&account), round))
    }

    /// Removes a bot's seat. What it had not finished goes to nobody.
    fn remove(&mut self, slot: usize, bot: &BotId, round: &mut Round) -> Result<Appended, Error> {
        let Some(seat) = self.seat_of(slot, bot) else {
            return Ok(nothing_to_do());
        };
        let reference = &self.conversations[slot].reference;
        let account = account(&self.settings, reference, bot).into_owned();
        let update = self.membership(&[], std::slice::from_ref(&account))?;
        info!(conversation.id = %self.conversations[slot].key, bot.id = %bot, "a bot leaves");
        self.revoke(Place { slot, seat }, round);
        self.remove_seat(slot, seat);
        self.unlist(slot, bot, round);
        let conversation = &mut self.conversations[slot];
        let registered = &self.settings.bots;
        // Who asked for that did not ask for the channel's bot instead.
        let is_served = bots(conversation).any(|bot| registered.contains_key(bot));
        conversation.vacant = !is_served;
        self.name_recipient(slot, round);
        let recipient = self.conversations[slot].reference.bot.clone();
        Ok(self.tell_membership(slot, &update, recipient.as_ref(), round))
    }

    /// Seats one bot in the place of another.
    ///
    /// Nothing is lost: all that the one had not finished is the other's from now on, or was handed to it
    /// anyway. Nothing is answered twice: what the one holds it loses in the same write, so that its
    /// answers either came before, and then the activity is finished, or are STALE; and what the other has
    /// finished itself it is not handed again (see [`Heard`]).
    fn hand_over_to(
        &mut self,
        slot: usize,
        from: Option<BotId>,
        to: BotId,
        event: Draft,
        by_bot: bool,
        round: &mut Round,
    ) -> Result<Appended, Error> {
        let settings = &self.settings;
        let conversation = &self.conversations[slot];
        let joining = settings.bots.get(&to).map(|bot| bot.account.clone());
        let joining = joining.ok_or_else(|| Error::BotUnknown(to.clone()))?;
        let from = match from {
            Some(from) => from,
            None => self.only_bot(slot)?,
        };
        let Some(seat) = self.seat_of(slot, &from) else {
            let conversation = conversation.key.clone();
            return Err(Error::BotAbsent {
                bot: from,
                conversation,
            });
        };
        if from == to {
            return Err(Error::SameBot(to));
        }
        let limit = settings.limits.bot_handovers;
        if by_bot && conversation.bot_handovers >= limit {
            return Err(Error::BotsLoop { limit });
        }
        let leaving = account(settings, &conversation.reference, &from).into_owned();
        let own = self.seat_of(slot, &to);
        let added = if own.is_none() {
            std::slice::from_ref(&joining)
        } else {
            &[]
        };
        let update = self.membership(added, std::slice::from_ref(&leaving))?;
        let left = &conversation.seats[seat];
        let unfinished = left.subscription.first();
        let event = event.relating_to(&v1::ConversationReference {
            bot: Some(leaving.clone()),
            activity_id: unfinished.map(|entry| entry.activity_id.to_string()),
            ..conversation.reference.clone()
        });
        info!(
            conversation.id = %conversation.key, bot.id = %from, bot.to = %to, "a bot hands over"
        );
        let (cursor, heard) = (left.subscription.cursor(), left.heard.clone());
        self.revoke(Place { slot, seat }, round);
        match own {
            None => {
                let heard = heard.passed_on(cursor.finished);
                // Attempts, and dead letters, are of the one that could not take them.
                let cursor = Cursor {
                    finished: cursor.finished,
                    after_gap: cursor.after_gap,
                    ..Cursor::default()
                };
                // In the place of the one that leaves, so that other places stay what they are.
                let joins = self.bot_seat(slot, &to, cursor, heard);
                self.conversations[slot].seats[seat] = joins;
                self.list(slot, &to, round);
            }
            Some(own) => {
                self.take_on(Place { slot, seat: own }, cursor, &heard, round);
                self.remove_seat(slot, seat);
            }
        }
        self.unlist(slot, &from, round);
        let conversation = &mut self.conversations[slot];
        conversation.vacant = false;
        if by_bot {
            conversation.bot_handovers += 1;
        }
        self.name_recipient(slot, round);
        if let Some(seat) = self.seat_of(slot, &to) {
            self.enqueue(slot, seat, Lane::Ready, round);
        }
        self.tell_membership(slot, &update, Some(&joining), round);
        Ok(self.tell(
            slot,
            &event,
            HANDOVER,
            Some(&leaving),
            Some(&joining),
            round,
        ))
    }

    /// Gives a bot that takes part already what another one had not finished.
    fn take_on(&mut self, place: Place, theirs: Cursor, heard: &Heard, round: &mut Round) {
        let conversation = &mut self.conversations[place.slot];
        let last = conversation.last;
        let seat = &mut conversation.seats[place.seat];
        let (own, replays) = (seat.subscription.cursor(), seat.subscription.replays());
        let Some(finished) = seat.heard.take_on(own.finished, heard, theirs.finished) else {
            return;
        };
        // What it holds comes after what it is to get first, and so comes again.
        self.revoke(place, round);
        let cursor = Cursor {
            finished,
            after_gap: own.after_gap || theirs.after_gap,
            replays: own.replays,
            ..Cursor::default()
        };
        let seat = &mut self.conversations[place.slot].seats[place.seat];
        seat.subscription = Subscription::new(cursor, last, replays);
    }

    /// Takes from a session what it holds at a place: whatever it still says to that is STALE. What is
    /// left of the seat is to be replaced.
    pub(super) fn revoke(&mut self, place: Place, round: &mut Round) {
        let conversation = &self.conversations[place.slot];
        let subscription = &conversation.seats[place.seat].subscription;
        let held = subscription.held().clone();
        if let Some(lease) = subscription.lease()
            && let Some(loser) = self.attached.get(&lease.session)
        {
            let revoked = Event::Revoked {
                conversation: conversation.key.clone(),
                fence: lease.fence,
            };
            round.tell(&loser.session, revoked);
        }
        for held in held {
            self.let_loose(held.session, held.id, round);
        }
    }

    /// Removes a seat of which nothing is held. Its name may stay in the queue of its subscriber: who finds
    /// no seat by it goes on to the next.
    fn remove_seat(&mut self, slot: usize, seat: usize) {
        self.conversations[slot].seats.remove(seat);
        // Bots seldom leave, and what is held is bounded by credit.
        for place in self.held.values_mut() {
            if place.slot == slot && place.seat > seat {
                place.seat -= 1;
            }
        }
    }

    fn bot_seat(&mut self, slot: usize, bot: &BotId, cursor: Cursor, heard: Heard) -> Seat {
        let reader = Reader::Bot(bot.clone());
        let subscriber = reader.subscriber(&self.conversations[slot].key);
        Seat {
            subscriber: self.subscriber(&subscriber),
            reader,
            subscription: Subscription::new(cursor, self.conversations[slot].last, VecDeque::new()),
            avoid: None,
            waits_until: None,
            untaken_since: None,
            heard,
        }
    }

    fn list(&self, slot: usize, bot: &BotId, round: &mut Round) {
        round
            .batch
            .put(&listing(&self.conversations[slot], bot), Bytes::new());
    }

    fn unlist(&self, slot: usize, bot: &BotId, round: &mut Round) {
        round.batch.delete(&listing(&self.conversations[slot], bot));
    }

    /// Sees to it that what the channel posts names a bot that takes part as its recipient: the first.
    fn name_recipient(&mut self, slot: usize, round: &mut Round) {
        let conversation = &self.conversations[slot];
        let named = conversation.reference.bot.as_ref();
        let named = named.and_then(|account| account.id.as_ref());
        let settings = &self.settings;
        let account_of = |bot| account(settings, &conversation.reference, bot);
        let is_named = |bot| named.is_some() && account_of(bot).id.as_ref() == named;
        if bots(conversation).any(is_named) {
            return;
        }
        let first = bots(conversation).next();
        let first = first.map(|bot| account_of(bot).into_owned());
        let conversation = &mut self.conversations[slot];
        conversation.reference.bot = first;
        let key = Key::Conversation {
            conversation: &conversation.key,
        };
        record::put(&mut round.batch, &key, &conversation.conversation_record());
    }

    /// What says who joined and who left.
    fn membership(
        &self,
        added: &[v1::ChannelAccount],
        removed: &[v1::ChannelAccount],
    ) -> Result<Draft, Error> {
        let mut update = v1::Activity {
            r#type: Some(Kind::ConversationUpdate.as_str().to_owned()),
            members_added: added.to_vec(),
            members_removed: removed.to_vec(),
            ..Default::default()
        };
        let mut draft = activity::outbound(&mut update, &self.settings.limits)?;
        draft.members_added = update.members_added;
        draft.members_removed = update.members_removed;
        Ok(draft)
    }

    /// Appends who joined and who left, as Direct Line says it at the start of a conversation: by the user, if
    /// one is known, so that who joins knows whom it talks to.
    fn tell_membership(
        &mut self,
        slot: usize,
        update: &Draft,
        recipient: Option<&v1::ChannelAccount>,
        round: &mut Round,
    ) -> Appended {
        self.learn_members(slot, update, round);
        let reference = &self.conversations[slot].reference;
        let joined = update.members_added.iter().chain(&update.members_removed);
        let from = reference.user.as_ref().or(joined.into_iter().next());
        let from = from.cloned();
        self.tell(slot, update, MEMBERSHIP, from.as_ref(), recipient, round)
    }

    /// Appends what the gateway says itself, on the channel's side.
    fn tell(
        &mut self,
        slot: usize,
        draft: &Draft,
        mark: &str,
        from: Option<&v1::ChannelAccount>,
        recipient: Option<&v1::ChannelAccount>,
        round: &mut Round,
    ) -> Appended {
        let timestamp = self.conversations[slot].stamp(round.now);
        let conversation = &self.conversations[slot];
        let position = conversation.last.next();
        let id = format!("{}{mark}{:07}", conversation.key.conversation, position.0);
        let activity = draft.finish(&Stamp {
            id: &id,
            timestamp,
            channel: conversation.key.channel.as_str(),
            conversation: conversation.account(),
            from,
            recipient,
            reply_to_id: None,
            locale: conversation.reference.locale.as_deref(),
            service_url: conversation.reference.service_url.as_deref(),
        });
        // It is no user's word: what bots do by themselves stays counted.
        let counted = (conversation.bot_run, conversation.bot_handovers);
        let author = Author::Channel;
        let appended = self.log(slot, author, id.into(), &draft.kind, activity, round);
        let conversation = &mut self.conversations[slot];
        (conversation.bot_run, conversation.bot_handovers) = counted;
        appended
    }

    /// Says when bots that would hear an activity of another bot do not, because nobody but bots has said
    /// anything for too long.
    pub(super) fn note_bot_run(&self, slot: usize, entry: &Entry) {
        let settings = &self.settings;
        let limit = settings.limits.bot_run;
        if entry.bot_run <= limit {
            return;
        }
        let conversation = &self.conversations[slot];
        let misses =
            |bot: &BotId| entry.author.bot() != Some(bot) && settings.hears(bot) == Hears::Everyone;
        if !bots(conversation).any(misses) {
            return;
        }
        self.shared.metrics.bot_runs_cut.inc();
        if entry.bot_run == limit.saturating_add(1) {
            warn!(
                conversation.id = %conversation.key, activity.sequence = %entry.sequence, limit,
                "bots talk to one another: they are not handed more until the channel posts"
            );
        }
    }

    pub(super) fn takes_part(&self, slot: usize, bot: &BotId) -> bool {
        self.seat_of(slot, bot).is_some()
    }

    fn seat_of(&self, slot: usize, bot: &BotId) -> Option<usize> {
        let mut seats = self.conversations[slot].seats.iter();
        seats.position(|seat| matches!(&seat.reader, Reader::Bot(present) if present == bot))
    }

    /// Refuses a bot that does not take part.
    pub(super) fn check_takes_part(&self, slot: usize, bot: &BotId) -> Result<(), Error> {
        if self.takes_part(slot, bot) {
            return Ok(());
        }
        Err(Error::BotAbsent {
            bot: bot.clone(),
            conversation: self.conversations[slot].key.clone(),
        })
    }

    /// The bot that a backend speaks for: the one it names, or the only one there, or of several the one
    /// that the reference was taken from. One that is named need not take part: what it has said under a key
    /// while it did is looked for first.
    pub(super) fn speaker(
        &self,
        slot: usize,
        named: Option<BotId>,
        reference: Option<&v1::ConversationReference>,
    ) -> Result<BotId, Error> {
        if let Some(named) = named {
            return Ok(named);
        }
        let only = self.only_bot(slot);
        if !matches!(only, Err(Error::BotAmbiguous(_))) {
            return only;
        }
        let account = reference.and_then(|reference| reference.bot.as_ref());
        let bot = account.and_then(|account| account.id.as_deref());
        let bot = bot.map(BotId::from);
        bot.filter(|bot| self.takes_part(slot, bot))
            .map_or(only, Ok)
    }

    /// The bot that is meant when none is named.
    fn only_bot(&self, slot: usize) -> Result<BotId, Error> {
        let conversation = &self.conversations[slot];
        let only = only_bot(bots(conversation), &self.settings, &conversation.key);
        only.cloned()
    }
}

/// The bots that take part.
pub(super) fn bots(conversation: &Conversation) -> impl Iterator<Item = &BotId> {
    let seats = conversation.seats.iter();
    seats.filter_map(|seat| match &seat.reader {
        Reader::Bot(bot) => Some(bot),
        Reader::Egress => None,
    })
}

/// A bot as channels and users see it; of one that is not registered any more, as much as is still known.
pub(super) fn account<'a>(
    settings: &'a Settings,
    reference: &'a v1::ConversationReference,
    bot: &BotId,
) -> Cow<'a, v1::ChannelAccount> {
    if let Some(bot) = settings.bots.get(bot) {
        return Cow::Borrowed(&bot.account);
    }
    match &reference.bot {
        Some(account) if account.id.as_deref() == Some(bot.as_str()) => Cow::Borrowed(account),
        _ => Cow::Owned(v1::ChannelAccount {
            id: Some(bot.to_string()),
            role: Some("bot".to_owned()),
            ..Default::default()
        }),
    }
}

fn listing<'a>(conversation: &'a Conversation, bot: &'a BotId) -> Key<'a> {
    Key::Listing {
        by: ListBy::Bot(bot),
        start: conversation.start_time,
        conversation: &conversation.key,
    }
}

/// The result of a change that is so already.
fn nothing_to_do() -> Appended {
    Appended {
        activity_id: "".into(),
        sequence: Sequence::START,
        repeated: true,
    }
}
