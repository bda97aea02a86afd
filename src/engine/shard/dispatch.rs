//! Handing activities to sessions, and taking them back.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, error};

use super::{Attached, Place, Shard};
use crate::engine::conversation::Reader;
use crate::engine::delivery::{Return, State};
use crate::engine::round::Round;
use crate::engine::session::{self, Delivery, Event, Session};
use crate::id::DeliveryId;
use crate::proto::storage;
use crate::store::keys::Key;
use crate::store::record;

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
        let mut held: Vec<_> = attached.held.into_keys().collect();
        held.sort_unstable();
        for id in held {
            if let Some(place) = self.let_loose(number, id) {
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
            .contains_key(&id)
            .then(|| self.held.get(&id).copied())?
    }

    /// Notes that a session does not hold a delivery any more. Returns where it belongs.
    ///
    /// An adapter's credit is for what it has at one time, so that it has room again; a bot grants
    /// anew.
    pub(super) fn let_loose(&mut self, number: session::Number, id: DeliveryId) -> Option<Place> {
        if let Some(attached) = self.attached.get_mut(&number)
            && let Some(bytes) = attached.held.remove(&id)
            && attached.session.is_adapter()
        {
            attached.session.refund(bytes);
        }
        let place = self.held.remove(&id)?;
        self.shared.held.fetch_sub(1, Ordering::Relaxed);
        Some(place)
    }

    /// Returns a delivery that is no longer held to its subscription: to be tried again, or parked
    /// when it was tried often enough.
    pub(super) fn take_back(&mut self, place: Place, why: Return, round: &mut Round) {
        let Place { slot, seat } = place;
        let taken = &mut self.conversations[slot].seats[seat];
        let attempts = taken.subscription.cursor().attempts;
        let most = match &taken.reader {
            Reader::Bot(bot) => self
                .shared
                .settings
                .bots
                .get(bot)
                .map(|bot| bot.delivery_attempts),
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
        self.enqueue(slot, seat, true, round);
        self.arm(slot);
    }

    /// Moves the activity a subscription has come to into the dead letters and goes on.
    pub(super) fn park(&mut self, place: Place, reason: &str, round: &mut Round) {
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
                conversation: &conversation.key,
                bot: taken.reader.id(),
                sequence: entry.sequence,
            };
            round.batch.put(&key, record::encode(&letter));
            self.shared.metrics.dead_letters.inc();
            taken.subscription.skip();
        }
        self.go_on(slot, seat, round);
    }

    /// Puts a seat in its subscriber's queue if it is ready and not there yet. What was handed out
    /// before goes ahead of what was not.
    pub(super) fn enqueue(&mut self, slot: usize, seat: usize, again: bool, round: &mut Round) {
        let conversation = &mut self.conversations[slot];
        let taken = &mut conversation.seats[seat];
        if taken.subscription.state() != State::Ready || std::mem::replace(&mut taken.queued, true)
        {
            return;
        }
        let subscribed = &mut self.subscribers[taken.subscriber];
        let queue = if again {
            &mut subscribed.again
        } else {
            &mut subscribed.ready
        };
        queue.push_back(conversation.key.clone());
        if round.pump.last() != Some(&taken.subscriber) {
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
            self.enqueue(slot, seat, false, round);
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
        let has_room = |shard: &Self| {
            let sessions = &shard.subscribers[subscriber].sessions;
            sessions
                .iter()
                .any(|number| shard.attached[number].session.credit().deliveries > 0)
        };
        while has_room(self) {
            let subscribed = &mut self.subscribers[subscriber];
            let again = !subscribed.again.is_empty();
            let next = subscribed
                .again
                .pop_front()
                .or_else(|| subscribed.ready.pop_front());
            let Some(key) = next else { return };
            let slot = match self.resident(&key, round) {
                Ok(slot) => slot,
                Err(error) => {
                    error!(conversation = %key, %error, "a conversation cannot be read");
                    continue;
                }
            };
            let seats = &mut self.conversations[slot].seats;
            let Some(seat) = seats.iter().position(|seat| seat.subscriber == subscriber) else {
                continue;
            };
            seats[seat].queued = false;
            if seats[seat].subscription.state() != State::Ready {
                continue;
            }
            match self.fill(slot, seat, round) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    error!(conversation = %key, %error, "a log cannot be read");
                    continue;
                }
            }
            let Some(number) = self.choose(slot, seat) else {
                self.conversations[slot].seats[seat].queued = true;
                let subscribed = &mut self.subscribers[subscriber];
                let queue = if again {
                    &mut subscribed.again
                } else {
                    &mut subscribed.ready
                };
                queue.push_front(key);
                return;
            };
            self.hand_over(Place { slot, seat }, number, round);
        }
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
        let sessions = &self.subscribers[taken.subscriber].sessions;
        let mut ranked: Vec<_> = sessions
            .iter()
            .filter_map(|number| {
                let session = &self.attached[number].session;
                let credit = session.credit();
                let has_room = credit.deliveries > 0 && credit.bytes >= bytes as i64;
                // The one that released the conversation comes last, and not never: to wait for the
                // others' room would hold up all that stands behind this conversation.
                let is_willing = taken.avoid != Some(*number);
                has_room.then(|| (is_willing, rank(session, &conversation.key), *number))
            })
            .collect();
        ranked.sort_unstable_by_key(|ranked| Reverse(*ranked));
        // Another shard may take the credit between the look and the taking: then the next will do.
        let chosen = ranked.into_iter().map(|(_, _, number)| number);
        let chosen = { chosen }.find(|number| self.attached[number].session.take(bytes));
        if chosen.is_some() {
            taken.avoid = None;
        }
        chosen
    }

    fn hand_over(&mut self, place: Place, number: session::Number, round: &mut Round) {
        let id = self.ids.next();
        let Some(attached) = self.attached.get_mut(&number) else {
            return;
        };
        let session = Arc::clone(&attached.session);
        self.held.insert(id, place);
        self.shared.held.fetch_add(1, Ordering::Relaxed);
        let conversation = &mut self.conversations[place.slot];
        let taken = &mut conversation.seats[place.seat];
        let deadline = match &taken.reader {
            Reader::Bot(bot) => {
                let settings = &self.shared.settings;
                let deadline = settings.bots.get(bot).map(|bot| bot.delivery_deadline);
                Some(
                    round
                        .now
                        .after(deadline.unwrap_or(settings.limits.delivery_deadline)),
                )
            }
            Reader::Egress => None,
        };
        let (entry, fence) = taken
            .subscription
            .hand_over(number, id, round.now, deadline);
        let entry = Arc::clone(entry);
        attached.held.insert(id, entry.activity.len());
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
                self.let_loose(held.session, held.id);
                self.take_back(Place { slot, seat }, Return::Lost, round);
            }
            State::Resting { until } if until <= round.now => {
                subscription.rested();
                self.enqueue(slot, seat, true, round);
            }
            State::Idle | State::Ready | State::Held(_) | State::Resting { .. } => {}
        }
    }
}

fn rank(session: &Session, key: &crate::id::ConversationKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    session.instance.hash(&mut hasher);
    key.hash(&mut hasher);
    hasher.finish()
}
