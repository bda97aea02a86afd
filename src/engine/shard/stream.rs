//! Streamed replies: the pieces of a bot are put together, shown as they grow, and ended.
//!
//! A stream belongs to the activity that is answered, and not to a delivery of it. When the delivery
//! comes back, the stream is left for a while: the next attempt goes on with it, or finishes it, or it
//! is shown as broken off. When the activity is finished or parked, what is left of its streams is
//! broken off at the end of the same round, so that whoever finishes it has had all chances.
//!
//! Nothing of it is stored. All that is shown is an effect of a round, between the entries of the log, so
//! that no snapshot comes after the message that is the whole.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::append::Answered;
use super::ephemeral::ephemeral;
use super::{Place, Shard};
use crate::activity::{self, Draft, Kind};
use crate::clock::Timestamp;
use crate::engine::command::Partial;
use crate::engine::conversation::Reader;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::engine::session::{self, Cancelled, Event, Refused, Session};
use crate::engine::stream::{Stream, TextRoom};
use crate::id::{BotId, ConversationKey, DeliveryId, Sequence};
use crate::proto::v1::{self, CancelReason};

/// Stale streams that a session was told of and that are remembered, so that it is told once.
const TOLD: usize = 64;

/// The streams of a shard. Without any it takes no memory.
#[derive(Default)]
pub(super) struct Streams {
    live: HashMap<u64, Live>,
    /// Counts streams. A number is never used again, so that what is left in `timers` is void.
    count: u64,
    /// Those of each conversation, the one begun first in front.
    by_conversation: HashMap<ConversationKey, Vec<u64>>,
    timers: BinaryHeap<Reverse<(Timestamp, u64)>>,
    /// Those whose delivery was let loose in this round.
    left: Vec<u64>,
    told: HashMap<session::Number, VecDeque<(DeliveryId, u32)>>,
}

/// A reply that is being made.
pub(in crate::engine) struct Live {
    number: u64,
    key: ConversationKey,
    bot: BotId,
    /// The activity that is answered.
    entry: Sequence,
    answered: Answered,
    /// The delivery of it that is, or was last, answered.
    delivery: DeliveryId,
    /// The session that has, or had, that delivery. It may have lost its stream and come back.
    session: session::Number,
    /// Which of its streams, as the bot counts.
    index: u32,
    stream: Stream,
    room: TextRoom,
    interval: Duration,
    /// Its delivery is not held any more: it breaks off then, unless another attempt goes on with it.
    left_until: Option<Timestamp>,
    is_superseded: bool,
    /// When it is looked at; one entry among the timers at most.
    timer: Option<Timestamp>,
}

impl Streams {
    /// When something happens without a command.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Notes that a delivery is not held any more.
    pub(super) fn leave(&mut self, key: &ConversationKey, delivery: DeliveryId, until: Timestamp) {
        let Some(numbers) = self.by_conversation.get(key) else {
            return;
        };
        for number in numbers {
            if let Some(live) = self.live.get_mut(number)
                && live.delivery == delivery
            {
                live.left_until = Some(until);
                self.left.push(*number);
            }
        }
    }

    /// Forgets what a session was told that has come back: it may have missed it.
    pub(super) fn came_back(&mut self, session: session::Number) {
        self.told.remove(&session);
    }

    /// Forgets what sessions that are gone were told.
    pub(super) fn forget_told(&mut self, is_there: impl Fn(session::Number) -> bool) {
        self.told.retain(|number, _| is_there(*number));
    }

    /// The number and the bot's index of each stream that answers an activity, the one begun first in
    /// front.
    fn answers_to(&self, key: &ConversationKey, bot: &BotId, entry: Sequence) -> Vec<(u64, u32)> {
        let numbers = self.by_conversation.get(key).into_iter().flatten();
        numbers
            .filter_map(|number| self.live.get(number))
            .filter(|live| live.entry == entry && live.bot == *bot)
            .map(|live| (live.number, live.index))
            .collect()
    }

    fn insert(&mut self, live: Live) {
        self.by_conversation
            .entry(live.key.clone())
            .or_default()
            .push(live.number);
        self.live.insert(live.number, live);
    }

    fn remove(&mut self, number: u64) -> Option<Live> {
        let live = self.live.remove(&number)?;
        if let Some(numbers) = self.by_conversation.get_mut(&live.key) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_conversation.remove(&live.key);
            }
        }
        Some(live)
    }

    /// Sees to it that a stream is looked at then.
    fn arm(&mut self, number: u64, at: Timestamp) {
        if let Some(live) = self.live.get_mut(&number)
            && live.timer.is_none_or(|armed| at < armed)
        {
            live.timer = Some(at);
            self.timers.push(Reverse((at, number)));
        }
    }
}

impl Shard {
    /// Adds a piece to a reply, which begins with its first one.
    pub(super) fn partial(&mut self, partial: Partial, round: &mut Round) {
        let Partial {
            room: _room,
            session,
            frame,
            delivery,
            stream: index,
            piece,
        } = partial;
        let shared = Arc::clone(&self.shared);
        let metrics = &shared.metrics.partials;
        let Some(place) = self.held_by(&session, delivery) else {
            metrics.dropped.inc();
            return self.tell_stale(session.number, delivery, index, round);
        };
        let refused = |error| {
            metrics.refused.inc();
            let refused = Refused {
                frame,
                error,
                client_id: String::new(),
                delivery: Some(delivery),
            };
            Event::Refused(refused)
        };
        let number = match self.stream_for(place, &session, delivery, index) {
            Ok(number) => number,
            Err(error) => return round.tell(&session, refused(error)),
        };
        let Some(live) = self.streams.live.get_mut(&number) else {
            return;
        };
        if live.stream.is_stopped() || !live.stream.wants(&piece) {
            metrics.dropped.inc();
            return;
        }
        let settings = Arc::clone(&self.settings);
        let limits = &settings.limits;
        let bytes = live.stream.bytes_with(&piece, limits);
        let bytes = bytes.map_err(Error::from);
        if let Err(error) = bytes.and_then(|bytes| live.room.resize(bytes, limits)) {
            live.stream.lose(&piece);
            return round.tell(&session, refused(error));
        }
        live.stream.take(piece);
        metrics.taken.inc();
        self.show_or_arm(number, round);
    }

    /// The stream that a piece belongs to: the one it was, the one that another attempt has left, or a
    /// new one.
    fn stream_for(
        &mut self,
        place: Place,
        session: &Arc<Session>,
        delivery: DeliveryId,
        index: u32,
    ) -> Result<u64, Error> {
        let (key, bot, entry) = self
            .answering(place, delivery)
            .ok_or(Error::DeliveryStale(delivery))?;
        let open = self.streams.answers_to(&key, &bot, entry);
        if let Some(&(number, _)) = open.iter().find(|(_, other)| *other == index) {
            let live = self.streams.live.get_mut(&number);
            if let Some(live) = live.filter(|live| live.delivery != delivery) {
                live.delivery = delivery;
                live.session = session.number;
                live.room = TextRoom::new(&session.texts);
                live.stream.begin_again();
                live.left_until = None;
                live.is_superseded = false;
            }
            return Ok(number);
        }
        let limits = &self.settings.limits;
        if open.len() >= limits.delivery_streams {
            return Err(Error::StreamsFull {
                limit: "delivery_streams",
                allowed: limits.delivery_streams,
            });
        }
        let channel = self.settings.channels.get(&key.channel);
        let interval = channel.map_or(limits.stream_interval, |channel| channel.stream_interval);
        self.streams.count += 1;
        let number = self.streams.count;
        let id = self.fresh_id(&key);
        self.streams.insert(Live {
            number,
            answered: self.answered(place, delivery),
            key,
            bot,
            entry,
            delivery,
            session: session.number,
            index,
            stream: Stream::new(id),
            room: TextRoom::new(&session.texts),
            interval,
            left_until: None,
            is_superseded: false,
            timer: None,
        });
        self.shared.metrics.streams.inc();
        Ok(number)
    }

    /// What a delivery that is held answers, and for whom.
    fn answering(
        &self,
        place: Place,
        delivery: DeliveryId,
    ) -> Option<(ConversationKey, BotId, Sequence)> {
        let conversation = &self.conversations[place.slot];
        let seat = &conversation.seats[place.seat];
        let Reader::Bot(bot) = &seat.reader else {
            return None;
        };
        let entry = seat.subscription.entry_of(delivery)?;
        Some((conversation.key.clone(), bot.clone(), entry.sequence))
    }

    fn show_or_arm(&mut self, number: u64, round: &mut Round) {
        let Some(live) = self.streams.live.get(&number) else {
            return;
        };
        match live.stream.due(live.interval) {
            Some(due) if due > round.now => self.streams.arm(number, due),
            Some(_) => self.show_stream(number, round),
            None => {}
        }
    }

    /// Shows how far a reply is. When nobody is there it is kept for who comes before the next piece.
    fn show_stream(&mut self, number: u64, round: &mut Round) {
        let Some(live) = self.streams.live.get_mut(&number) else {
            return;
        };
        let Some(&slot) = self.slots.get(&live.key) else {
            return;
        };
        if !self.is_watched(slot, |all| all.streaming) {
            self.shared.metrics.ephemerals.unseen.inc();
            return;
        }
        let Some(live) = self.streams.live.get_mut(&number) else {
            return;
        };
        let is_first = !live.stream.was_shown();
        let activity = live.stream.snapshot(round.now);
        let id = Arc::clone(live.stream.id());
        let key = live.key.clone();
        let id = if is_first { id } else { self.fresh_id(&key) };
        self.show_part(number, slot, activity, id, round);
    }

    /// Shows a part of a stream that is still known.
    fn show_part(
        &mut self,
        number: u64,
        slot: usize,
        mut activity: v1::Activity,
        id: Arc<str>,
        round: &mut Round,
    ) {
        let Ok(draft) = activity::outbound(&mut activity, &self.settings.limits) else {
            // A text at its limit has no room for what says that it is a part.
            self.shared.metrics.ephemerals.dropped.inc();
            return;
        };
        let Some(live) = self.streams.live.remove(&number) else {
            return;
        };
        let author = Author::Bot(live.bot.clone());
        let bytes = self.finish_outbound(slot, &draft, &author, &live.answered, &id, round);
        let stream = Some(Arc::clone(live.stream.id()));
        let shown = ephemeral(author, id, bytes, stream, round);
        self.show(slot, shown, |all| all.streaming, round);
        self.streams.live.insert(number, live);
    }

    /// Makes a message the whole of the reply that was begun first, if it is one: an answer to the same
    /// activity. One that nobody has seen grow needs no word about it.
    pub(super) fn finish_stream(
        &mut self,
        place: Place,
        delivery: DeliveryId,
        draft: Draft,
        round: &mut Round,
    ) -> Draft {
        if self.streams.live.is_empty() || draft.kind != Kind::Message || draft.has_stream_info {
            return draft;
        }
        let Some((key, bot, entry)) = self.answering(place, delivery) else {
            return draft;
        };
        let open = self.streams.answers_to(&key, &bot, entry);
        let oldest = open.first();
        let Some(live) = oldest.and_then(|(number, _)| self.streams.remove(*number)) else {
            return draft;
        };
        self.shared.metrics.streams.dec();
        let whole = live.stream.was_shown().then(|| live.stream.whole());
        round.ended.push(live);
        whole.map_or_else(|| draft.clone(), |entity| draft.with_entity(&entity))
    }

    /// Ends a reply that broke off: what was there stays to be seen, and says so.
    fn break_off(&mut self, number: u64, round: &mut Round) {
        let Some(live) = self.streams.live.get(&number) else {
            return;
        };
        let slot = self.slots.get(&live.key).copied();
        if let Some(slot) = slot.filter(|_| live.stream.was_shown()) {
            let activity = live.stream.broken_off();
            let key = live.key.clone();
            let id = self.fresh_id(&key);
            self.show_part(number, slot, activity, id, round);
        }
        if let Some(live) = self.streams.remove(number) {
            self.shared.metrics.streams.dec();
            round.ended.push(live);
        }
    }

    /// Looks at the streams whose delivery was let loose in this round: at its end it is known why.
    pub(super) fn settle_streams(&mut self, round: &mut Round) {
        for number in std::mem::take(&mut self.streams.left) {
            let Some(live) = self.streams.live.get(&number) else {
                continue;
            };
            // Another attempt may have begun already.
            let Some(until) = live.left_until else {
                continue;
            };
            let over = self.is_over(live);
            if !over {
                let (session, delivery, index) = (live.session, live.delivery, live.index);
                let is_stopped = live.stream.is_stopped();
                self.tell_stale(session, delivery, index, round);
                if !is_stopped && until > round.now {
                    self.streams.arm(number, until);
                    continue;
                }
            }
            self.break_off(number, round);
        }
    }

    /// Whether what a stream answers is finished or parked. Of a conversation that is not in memory
    /// nobody knows, and nobody follows it either.
    fn is_over(&self, live: &Live) -> bool {
        let conversation = self
            .slots
            .get(&live.key)
            .map(|slot| &self.conversations[*slot]);
        let Some(conversation) = conversation else {
            return false;
        };
        let is_bots = |reader: &Reader| matches!(reader, Reader::Bot(bot) if *bot == live.bot);
        let mut seats = conversation.seats.iter();
        seats
            .find(|seat| is_bots(&seat.reader))
            .is_none_or(|seat| !seat.subscription.is_open(live.entry))
    }

    /// Shows what is due, and breaks off what nobody went on with.
    pub(super) fn fire_streams(&mut self, round: &mut Round) {
        while let Some(&Reverse((at, number))) = self.streams.timers.peek()
            && at <= round.now
        {
            self.streams.timers.pop();
            let Some(live) = self.streams.live.get_mut(&number) else {
                continue;
            };
            if live.timer != Some(at) {
                continue;
            }
            live.timer = None;
            match live.left_until {
                Some(until) if until <= round.now => self.break_off(number, round),
                Some(until) => self.streams.arm(number, until),
                None => self.show_or_arm(number, round),
            }
        }
    }

    /// Breaks off everything: the shard is leaving.
    pub(super) fn end_streams(&mut self) {
        let mut round = Round::new(self.shared.clock.now());
        let mut numbers: Vec<_> = self.streams.live.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.break_off(number, &mut round);
        }
        round.conclude(&self.settings.limits, &self.shared.metrics);
    }

    /// Takes back streams that ended in a round which was not written: what ended them did not happen,
    /// and their activity comes again.
    pub(super) fn reopen_streams(&mut self, ended: Vec<Live>) {
        let grace = self.settings.limits.stream_grace;
        let until = self.shared.clock.now().after(grace);
        for mut live in ended {
            let number = live.number;
            live.left_until = Some(until);
            live.timer = None;
            self.streams.insert(live);
            self.streams.arm(number, until);
            self.shared.metrics.streams.inc();
        }
    }

    /// Tells the bots that a user said something new.
    pub(super) fn supersede_streams(&mut self, key: &ConversationKey, round: &mut Round) {
        for number in self.numbers_of(key) {
            if let Some(live) = self.streams.live.get_mut(&number)
                && live.left_until.is_none()
                && !std::mem::replace(&mut live.is_superseded, true)
            {
                self.tell_cancelled(number, CancelReason::Superseded, round);
            }
        }
    }

    /// Stops a reply, or without an id all replies of a conversation.
    pub(super) fn stop_streams(&mut self, key: &ConversationKey, id: &str, round: &mut Round) {
        for number in self.numbers_of(key) {
            let Some(live) = self.streams.live.get_mut(&number) else {
                continue;
            };
            if !(id.is_empty() || **live.stream.id() == *id) || live.stream.is_stopped() {
                continue;
            }
            live.stream.stop();
            if live.left_until.is_some() {
                self.break_off(number, round);
            } else {
                self.tell_cancelled(number, CancelReason::UserStopped, round);
            }
        }
    }

    /// Tells a session that has come back how the replies to a delivery that it holds are wanted, since
    /// it may have missed that.
    pub(super) fn tell_again(&self, place: Place, delivery: DeliveryId, round: &mut Round) {
        for number in self.numbers_of(&self.conversations[place.slot].key) {
            let Some(live) = self.streams.live.get(&number) else {
                continue;
            };
            if live.delivery != delivery {
                continue;
            }
            if live.is_superseded {
                self.tell_cancelled(number, CancelReason::Superseded, round);
            }
            if live.stream.is_stopped() {
                self.tell_cancelled(number, CancelReason::UserStopped, round);
            }
        }
    }

    /// Tells the session that is making a reply how it is wanted.
    fn tell_cancelled(&self, number: u64, why: CancelReason, round: &mut Round) {
        let Some(live) = self.streams.live.get(&number) else {
            return;
        };
        if let Some(attached) = self.attached.get(&live.session) {
            let cancelled = Cancelled {
                delivery: live.delivery,
                stream: live.index,
                why,
            };
            round.tell(&attached.session, Event::Cancelled(cancelled));
        }
    }

    fn numbers_of(&self, key: &ConversationKey) -> Vec<u64> {
        let numbers = self.streams.by_conversation.get(key);
        numbers.cloned().unwrap_or_default()
    }

    /// Tells a session once that it streams an answer to what it does not hold.
    fn tell_stale(
        &mut self,
        session: session::Number,
        delivery: DeliveryId,
        stream: u32,
        round: &mut Round,
    ) {
        let Some(attached) = self.attached.get(&session) else {
            return;
        };
        let told = self.streams.told.entry(session).or_default();
        if told.contains(&(delivery, stream)) {
            return;
        }
        if told.len() >= TOLD {
            told.pop_front();
        }
        told.push_back((delivery, stream));
        let cancelled = Cancelled {
            delivery,
            stream,
            why: CancelReason::Stale,
        };
        round.tell(&attached.session, Event::Cancelled(cancelled));
    }
}
