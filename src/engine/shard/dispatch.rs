//! Handing activities to sessions, and taking them back.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, warn};

use super::queue::Lane;
use super::residency::Filled;
use super::{Attached, Place, Shard};
use crate::engine::conversation::Reader;
use crate::engine::delivery::{Return, State};
use crate::engine::receipt::Said;
use crate::engine::round::Round;
use crate::engine::session::{self, Delivery, Event, Session};
use crate::id::DeliveryId;
use crate::proto::storage;
use crate::store::keys::Key;
use crate::store::record;

/// How long a conversation rests that was released when no other session has room: the one that
/// released it is stopping, or would release it again.
const RELEASE_PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    pub(super) fn attach(&mut self, session: Arc<Session>, round: &mut Round) {
        let subscriber = self.subscriber(&session.subscriber);
        let number = session.number;
        self.subscribers[subscriber].sessions.push(number);
        let held = Default::default();
        self.attached.insert(
            number,
            Attached {
                session,
                subscriber,
                held,
            },
        );
        round.pump.push(subscriber);
    }

    /// Takes back at once whatever a lost session held.
    pub(super) fn detach(&mut self, number: session::Number, round: &mut Round) {
        let Some(attached) = self.attached.remove(&number) else {
            return;
        };
        self.subscribers[attached.subscriber]
            .sessions
            .retain(|other| *other != number);
        let mut held: Vec<_> = attached.held.into_iter().collect();
        held.sort_unstable();
        for id in held {
            if let Some(place) = self.let_loose(number, id, round) {
                self.take_back(place, Return::Lost, round);
            }
        }
        round.pump.push(attached.subscriber);
    }

    /// The place of a delivery, if this session holds it.
    pub(super) fn held_by(&self, session: &Session, id: DeliveryId) -> Option<Place> {
        let attached = self.attached.get(&session.number)?;
        attached
            .held
            .contains(&id)
            .then(|| self.held.get(&id).copied())?
    }

    /// Notes that a session does not hold a delivery any more. Returns where it belongs.
    ///
    /// An adapter's credit is what it may have at one time, so it gets back what the delivery used; a
    /// bot grants its own.
    pub(super) fn let_loose(
        &mut self,
        number: session::Number,
        id: DeliveryId,
        round: &mut Round,
    ) -> Option<Place> {
        let place = self.held.remove(&id)?;
        self.shared.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(attached) = self.attached.get_mut(&number) {
            attached.held.remove(&id);
            let seat = &self.conversations[place.slot].seats[place.seat];
            if seat.reader == Reader::Egress
                && let Some(entry) = seat.subscription.first()
            {
                attached.session.refund(entry.activity.len());
                round.pump.push(attached.subscriber);
            }
        }
        Some(place)
    }

    /// Returns a delivery that is no longer held to its subscription: to be tried again, or parked
    /// when it was tried often enough.
    pub(super) fn take_back(&mut self, place: Place, why: Return, round: &mut Round) {
        let Place { slot, seat } = place;
        let taken = &mut self.conversations[slot].seats[seat];
        let attempts = taken.subscription.cursor().attempts;
        let most = match &taken.reader {
            Reader::Bot(bot) => self.settings.bots.get(bot).map(|bot| bot.delivery_attempts),
            // A channel that is out for hours loses nothing: retention alone bounds its attempts.
            Reader::Egress => None,
        };
        self.touch(slot, round);
        if why != Return::Release && most.is_some_and(|most| attempts >= most) {
            return self.park(place, "too many attempts", round);
        }
        self.conversations[slot].seats[seat]
            .subscription
            .give_back(why);
        if why == Return::Release && !self.others_have_room(place) {
            let until = round.now.after(RELEASE_PAUSE);
            let taken = &mut self.conversations[slot].seats[seat];
            taken.subscription.rest(until);
        }
        self.enqueue(slot, seat, Lane::Again, round);
        self.arm(slot);
    }

    /// Moves the activity a subscription has come to into the dead letters and goes on.
    pub(super) fn park(&mut self, place: Place, reason: &str, round: &mut Round) {
        self.keep_receipt(place, &Said::Failed(reason.to_owned()), round);
        let Place { slot, seat } = place;
        let conversation = &mut self.conversations[slot];
        let taken = &mut conversation.seats[seat];
        if let Some(entry) = taken.subscription.first() {
            let letter = storage::DeadLetter {
                parked_time_ms: round.now.0,
                attempts: taken.subscription.cursor().attempts,
                reason: reason.to_owned(),
            };
            let key = Key::DeadLetter {
                conversation: conversation.number,
                bot: taken.reader.id(),
                sequence: entry.sequence,
            };
            record::put(&mut round.batch, &key, &letter);
            self.shared.metrics.dead_letters.inc();
            // Without the reason: it is the bot's or the channel's words, and may hold the user's.
            warn!(
                conversation.id = %conversation.key, activity.sequence = %entry.sequence,
                bot.id = taken.reader.id(), delivery.attempt = letter.attempts,
                "parked in the dead letters"
            );
            taken.subscription.skip();
        }
        self.go_on(slot, seat, round);
    }

    /// Puts a conversation in its subscriber's queue, if the seat is ready.
    pub(super) fn enqueue(&mut self, slot: usize, seat: usize, lane: Lane, round: &mut Round) {
        let conversation = &self.conversations[slot];
        let taken = &conversation.seats[seat];
        if taken.subscription.state() != State::Ready {
            return;
        }
        let is_new = self.subscribers[taken.subscriber]
            .queue
            .push(&conversation.key, lane);
        if is_new && round.pump.last() != Some(&taken.subscriber) {
            round.pump.push(taken.subscriber);
        }
    }

    /// After an activity is finished or parked: idle, or ready for the next.
    pub(super) fn go_on(&mut self, slot: usize, seat: usize, round: &mut Round) {
        self.touch(slot, round);
        let conversation = &mut self.conversations[slot];
        if conversation.seats[seat]
            .subscription
            .settle(conversation.last)
        {
            self.enqueue(slot, seat, Lane::Ready, round);
        }
    }

    /// Hands over what can be handed over, for every subscriber that may have something.
    pub(super) fn pump_all(&mut self, round: &mut Round) {
        if self.draining || round.now < self.paused_until {
            return;
        }
        let mut subscribers = std::mem::take(&mut round.pump);
        subscribers.sort_unstable();
        subscribers.dedup();
        for subscriber in subscribers {
            self.pump(subscriber, round);
        }
    }

    /// Hands a subscriber's conversations to its sessions, in turn, while there is room.
    ///
    /// The first that finds no room stops the rest: a large activity is not overtaken by small ones
    /// for ever.
    fn pump(&mut self, subscriber: usize, round: &mut Round) {
        let most = self.settings.limits.shard_round;
        while !self.subscribers[subscriber].queue.is_empty() && self.has_room(subscriber) {
            if round.handed_over >= most {
                self.pump_next.push(subscriber);
                self.unfinished = true;
                return;
            }
            let Some((key, lane)) = self.subscribers[subscriber].queue.pop() else {
                return;
            };
            let slot = match self.resident(&key, round) {
                Ok(slot) => slot,
                Err(error) => {
                    self.cannot_read(key, &error);
                    continue;
                }
            };
            let seats = &self.conversations[slot].seats;
            let Some(seat) = seats.iter().position(|seat| seat.subscriber == subscriber) else {
                continue;
            };
            // Coming into memory may have queued it once more.
            if seats[seat].subscription.state() != State::Ready {
                continue;
            }
            match self.fill(slot, seat, round) {
                Ok(Filled::Known) => {}
                Ok(Filled::Nothing) => continue,
                Ok(Filled::InThisRound) => {
                    self.subscribers[subscriber].queue.push(&key, lane);
                    self.pump_next.push(subscriber);
                    self.unfinished = true;
                    return;
                }
                Err(error) => {
                    self.cannot_read(key, &error);
                    continue;
                }
            }
            let Some(number) = self.choose(slot, seat) else {
                return self.subscribers[subscriber].queue.put_back(key, lane);
            };
            self.hand_over(Place { slot, seat }, number, round);
            round.handed_over += 1;
        }
    }

    /// Whether a session other than the one that released a conversation has room.
    fn others_have_room(&self, place: Place) -> bool {
        let taken = &self.conversations[place.slot].seats[place.seat];
        let sessions = &self.subscribers[taken.subscriber].sessions;
        let mut others = sessions
            .iter()
            .filter(|number| taken.avoid != Some(**number));
        others.any(|number| self.attached[number].session.credit().deliveries > 0)
    }

    fn has_room(&self, subscriber: usize) -> bool {
        let sessions = &self.subscribers[subscriber].sessions;
        let has_room = |number| {
            let attached: &Attached = &self.attached[number];
            attached.session.credit().deliveries > 0
        };
        sessions.iter().any(has_room)
    }

    /// Chooses a session for a seat's next activity and takes its credit: the one that has the
    /// conversation, or else, between turns, the one with room that ranks highest for it. The rank
    /// is a rendezvous hash, so that a session that comes or goes moves few conversations.
    fn choose(&mut self, slot: usize, seat: usize) -> Option<session::Number> {
        let conversation = &mut self.conversations[slot];
        let taken = &mut conversation.seats[seat];
        let bytes = taken.subscription.first()?.activity.len();
        let sticky = taken
            .subscription
            .lease()
            .and_then(|lease| self.attached.get(&lease.session));
        if let Some(holder) = sticky
            && holder.session.take(bytes)
        {
            return Some(holder.session.number);
        }
        loop {
            let sessions = &self.subscribers[taken.subscriber].sessions;
            let with_room = sessions.iter().filter_map(|number| {
                let session = &self.attached[number].session;
                let credit = session.credit();
                let has_room = credit.deliveries > 0 && credit.bytes >= bytes as i64;
                // The one that released the conversation comes last, and not never: to wait for the
                // others' room would hold up all that stands behind this conversation.
                let is_willing = taken.avoid != Some(*number);
                has_room.then(|| (is_willing, rank(session, &conversation.key), *number))
            });
            let (_, _, best) = with_room.max()?;
            // Another shard may take the credit between the look and the taking: then look again.
            if self.attached[&best].session.take(bytes) {
                taken.avoid = None;
                return Some(best);
            }
        }
    }

    fn hand_over(&mut self, place: Place, number: session::Number, round: &mut Round) {
        let id = self.ids.next();
        let Some(attached) = self.attached.get_mut(&number) else {
            return;
        };
        attached.held.insert(id);
        let session = Arc::clone(&attached.session);
        self.held.insert(id, place);
        self.shared.held.fetch_add(1, Ordering::Relaxed);
        let conversation = &mut self.conversations[place.slot];
        let taken = &mut conversation.seats[place.seat];
        let deadline = match &taken.reader {
            Reader::Bot(bot) => {
                let deadline = self.settings.delivery_deadline(bot);
                Some(round.now.after(deadline))
            }
            Reader::Egress => None,
        };
        let (entry, fence) = taken
            .subscription
            .hand_over(number, id, round.now, deadline);
        let entry = Arc::clone(entry);
        let cursor = taken.subscription.cursor();
        debug!(
            conversation.id = %conversation.key, delivery.id = %id, delivery.attempt = cursor.attempts,
            session.id = %session.id, "handed over"
        );
        self.shared.metrics.deliveries.inc();
        if cursor.attempts > 1 {
            self.shared.metrics.redeliveries.inc();
        }
        round.tell(
            &session,
            Event::Delivery(Delivery {
                id,
                conversation: conversation.key.clone(),
                sequence: entry.sequence,
                attempt: cursor.attempts,
                fence,
                deadline,
                activity: entry.activity.clone(),
                after_gap: cursor.after_gap,
            }),
        );
        self.touch(place.slot, round);
        self.arm(place.slot);
    }

    /// Sees to it that the shard looks at a conversation when time changes something there.
    pub(super) fn arm(&mut self, slot: usize) {
        let conversation = &mut self.conversations[slot];
        let wakes = conversation
            .seats
            .iter()
            .filter_map(|seat| seat.subscription.wakes_at());
        let Some(at) = wakes.min() else { return };
        if conversation.timer.is_none_or(|armed| at < armed) {
            conversation.timer = Some(at);
            self.timers.push(Reverse((at, slot)));
        }
    }

    /// Takes back what is overdue and ends rests that are over.
    pub(super) fn fire_timers(&mut self, round: &mut Round) {
        while let Some(&Reverse((at, slot))) = self.timers.peek()
            && at <= round.now
        {
            self.timers.pop();
            // An entry may be of an earlier, earlier-armed or departed conversation: then it is void.
            let Some(conversation) = self.conversations.get_mut(slot) else {
                continue;
            };
            if conversation.timer != Some(at) {
                continue;
            }
            conversation.timer = None;
            for seat in 0..self.conversations[slot].seats.len() {
                self.wake(slot, seat, round);
            }
            self.arm(slot);
        }
    }

    fn wake(&mut self, slot: usize, seat: usize, round: &mut Round) {
        let subscription = &mut self.conversations[slot].seats[seat].subscription;
        match subscription.state() {
            State::Held(held) if held.deadline.is_some_and(|deadline| deadline <= round.now) => {
                self.let_loose(held.session, held.id, round);
                self.take_back(Place { slot, seat }, Return::Lost, round);
            }
            State::Resting { until } if until <= round.now => {
                subscription.rested();
                self.enqueue(slot, seat, Lane::Again, round);
            }
            State::Idle | State::Ready | State::Held(_) | State::Resting { .. } => {}
        }
    }
}

pub(super) fn rank(session: &Session, key: &crate::id::ConversationKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    session.instance.hash(&mut hasher);
    key.hash(&mut hasher);
    hasher.finish()
}
