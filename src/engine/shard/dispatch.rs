//! Handing activities to sessions, and taking them back.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::debug;

use super::letters::{NOBODY, TOO_MANY};
use super::queue::Lane;
use super::residency::Filled;
use super::{Place, Shard, Subscribed};
use crate::clock::Timestamp;
use crate::engine::conversation::Reader;
use crate::engine::delivery::Return;
use crate::engine::round::Round;
use crate::engine::session::{self, Delivery, Event};
use crate::engine::terms::Said;
use crate::id::ConversationKey;

/// How long a conversation rests that was released when no other session has room: the one that
/// released it is stopping, or would release it again.
const RELEASE_PAUSE: Duration = Duration::from_secs(1);

/// Who gets a conversation's next activity.
enum Choice {
    /// This session; its credit is taken.
    Session(session::Number),
    /// This session, once it has room.
    WaitFor(session::Number),
    /// Whoever has room first.
    WaitForAny,
    /// Nobody before what is held is finished.
    NotNow,
    /// Nobody: no session of the subscriber's takes such activities.
    Nobody,
}

/// What became of a conversation that was taken from a queue.
enum Served {
    /// It is out of the queue, or behind others.
    Done,
    /// It waits for one session.
    Stalled,
    /// It waits for room, as do all behind it.
    NoRoom,
    /// The round has done enough.
    Enough,
}

/// Conversations that wait for one session, and that look for another one in one tick.
const LOOKED_AGAIN: usize = 64;
/// How often it is looked for a session that takes what another one had.
const UNTAKEN_PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes back the delivery at a position of those held, with all that were handed over after it: to
    /// be tried again, or parked when it was tried often enough.
    pub(super) fn take_back(
        &mut self,
        place: Place,
        position: usize,
        why: Return,
        round: &mut Round,
    ) {
        let Place { slot, seat } = place;
        let subscription = &self.conversations[slot].seats[seat].subscription;
        let attempts = subscription.attempts(position);
        let counts = matches!(why, Return::Lost | Return::Retry { .. });
        if counts && position == 0 && self.is_exhausted(place, attempts) {
            return self.poison(place, TOO_MANY, round);
        }
        self.withdraw(place, position, why, round);
        if why == Return::Release && !self.others_have_room(place) {
            let until = round.now.after(RELEASE_PAUSE);
            let taken = &mut self.conversations[slot].seats[seat];
            taken.subscription.rest(until);
        }
        self.enqueue(slot, seat, Lane::Again, round);
        self.arm(slot);
    }

    /// Takes deliveries from the session that holds them, without doing anything with them. Returns
    /// whether it was a replay.
    pub(super) fn withdraw(
        &mut self,
        place: Place,
        position: usize,
        why: Return,
        round: &mut Round,
    ) -> bool {
        let Place { slot, seat } = place;
        let subscription = &self.conversations[slot].seats[seat].subscription;
        let is_replay = subscription.holds_replay();
        let loose: Vec<_> = subscription.held().iter().skip(position).copied().collect();
        for held in loose {
            self.let_loose(held.session, held.id, round);
        }
        let taken = &mut self.conversations[slot].seats[seat];
        if why == Return::Release {
            taken.avoid = taken.subscription.held().front().map(|held| held.session);
        }
        taken.subscription.give_back(position, why);
        self.touch(slot, round);
        is_replay
    }

    /// Whether an activity that was handed out so often is not to be handed out again.
    fn is_exhausted(&self, place: Place, attempts: u32) -> bool {
        let most = match &self.conversations[place.slot].seats[place.seat].reader {
            Reader::Bot(bot) => self.settings.bots.get(bot),
            // A channel that is out for hours loses nothing: retention alone bounds its attempts.
            Reader::Egress => None,
        };
        most.is_some_and(|bot| attempts >= bot.delivery_attempts)
    }

    /// Puts a conversation in its subscriber's queue, if the seat is ready.
    pub(super) fn enqueue(&mut self, slot: usize, seat: usize, lane: Lane, round: &mut Round) {
        let conversation = &self.conversations[slot];
        let taken = &conversation.seats[seat];
        let window = match taken.subscription.held().front() {
            Some(held) => self
                .attached
                .get(&held.session)
                .map_or(1, |attached| attached.session.window),
            None => 1,
        };
        if !taken.subscription.is_ready(window, conversation.last) {
            return;
        }
        let queue = &mut self.subscribers[taken.subscriber].queue;
        // Between turns it need not wait for the session that had its last turn: that is decided anew.
        let is_new = queue.push(&conversation.key, lane)
            || taken.subscription.held().is_empty()
                && taken.waits_until.is_none()
                && queue.unstall(&conversation.key);
        if is_new && round.pump.last() != Some(&taken.subscriber) {
            round.pump.push(taken.subscriber);
        }
    }

    /// Goes on with a conversation whose session has come back.
    pub(super) fn go_on_handing(&mut self, place: Place, round: &mut Round) {
        self.enqueue(place.slot, place.seat, Lane::Again, round);
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
    /// Those that wait for a session of their own go first, since they have stood in the queue before.
    /// Of the others the first that finds no room stops the rest: a large activity is not overtaken by
    /// small ones for ever.
    fn pump(&mut self, subscriber: usize, round: &mut Round) {
        for index in 0..self.subscribers[subscriber].sessions.len() {
            let number = self.subscribers[subscriber].sessions[index];
            while self.attached[&number].has_room()
                && let Some(key) = self.subscribers[subscriber].queue.pop_stalled(number)
            {
                match self.serve(subscriber, key, Lane::Again, round) {
                    Served::Done => {}
                    Served::Stalled | Served::NoRoom => break,
                    Served::Enough => return,
                }
            }
        }
        while !self.subscribers[subscriber].queue.is_empty() && self.has_room(subscriber) {
            let Some((key, lane)) = self.subscribers[subscriber].queue.pop() else {
                return;
            };
            match self.serve(subscriber, key, lane, round) {
                Served::Done | Served::Stalled => {}
                Served::NoRoom | Served::Enough => return,
            }
        }
    }

    /// Lets some of those that wait for a session without room look for another one, when there is one that
    /// has: they stand in the line of the one that seemed best when they came, which may never have any.
    pub(super) fn look_again(&mut self, subscriber: usize) {
        if !self.has_room(subscriber) {
            return;
        }
        let Subscribed {
            sessions, queue, ..
        } = &mut self.subscribers[subscriber];
        for number in sessions.iter() {
            if !self.attached[number].has_room() {
                queue.unstall_some(*number, LOOKED_AGAIN);
            }
        }
    }

    /// Hands over the next activity of a conversation that was taken from its subscriber's queue.
    fn serve(
        &mut self,
        subscriber: usize,
        key: ConversationKey,
        lane: Lane,
        round: &mut Round,
    ) -> Served {
        if round.handed_over >= self.settings.limits.shard_round {
            self.subscribers[subscriber].queue.put_back(key, lane);
            self.pump_next.push(subscriber);
            self.unfinished = true;
            return Served::Enough;
        }
        let slot = match self.resident(&key, round) {
            Ok(slot) => slot,
            Err(error) => {
                self.cannot_read(key, &error);
                return Served::Done;
            }
        };
        let seats = &self.conversations[slot].seats;
        let Some(seat) = seats.iter().position(|seat| seat.subscriber == subscriber) else {
            return Served::Done;
        };
        let place = Place { slot, seat };
        loop {
            // Coming into memory may have queued it once more.
            if !self.is_ready(place) {
                return Served::Done;
            }
            match self.fill(slot, seat, round) {
                Ok(Filled::Known) => {}
                Ok(Filled::Nothing) => return Served::Done,
                Ok(Filled::InThisRound) => {
                    self.subscribers[subscriber].queue.push(&key, lane);
                    self.pump_next.push(subscriber);
                    self.unfinished = true;
                    return Served::Enough;
                }
                Err(error) => {
                    self.cannot_read(key, &error);
                    return Served::Done;
                }
            }
            match self.choose(place, round.now) {
                Choice::Session(number) => {
                    self.hand_over(place, number, round);
                    round.handed_over += 1;
                    self.enqueue(slot, seat, Lane::Ready, round);
                    return Served::Done;
                }
                Choice::WaitFor(number) => {
                    self.subscribers[subscriber].queue.stall(key, number);
                    self.arm(slot);
                    return Served::Stalled;
                }
                Choice::WaitForAny => {
                    self.subscribers[subscriber].queue.put_back(key, lane);
                    return Served::NoRoom;
                }
                Choice::NotNow => return Served::Done,
                Choice::Nobody if self.keep_untaken(place, round) => return Served::Done,
                Choice::Nobody => self.pass(place, round),
            }
        }
    }

    /// Goes over the next activity, which no session takes. One that an operator wants handed over again
    /// stays a dead letter, since nothing else would be left of it.
    fn pass(&mut self, place: Place, round: &mut Round) {
        let subscription = &mut self.conversations[place.slot].seats[place.seat].subscription;
        if subscription.is_next_a_replay() {
            return self.end_replay(place, Some(NOBODY), round);
        }
        subscription.pass();
        self.touch(place.slot, round);
    }

    /// Keeps the next activity, which no session takes, for one that does: another one had it, and is gone
    /// or has given it back. When none has come in the time that a session may be away, it is parked.
    fn keep_untaken(&mut self, place: Place, round: &mut Round) -> bool {
        let patience = self.settings.limits.resume_grace;
        let taken = &mut self.conversations[place.slot].seats[place.seat];
        let subscription = &mut taken.subscription;
        if subscription.is_next_a_replay() || !subscription.was_next_out() {
            return false;
        }
        let since = *taken.untaken_since.get_or_insert(round.now);
        if round.now.since(since) < patience {
            subscription.rest(round.now.after(UNTAKEN_PAUSE));
            self.arm(place.slot);
        } else {
            taken.untaken_since = None;
            self.park(place, NOBODY, round);
        }
        true
    }

    fn is_ready(&self, place: Place) -> bool {
        let conversation = &self.conversations[place.slot];
        let subscription = &conversation.seats[place.seat].subscription;
        let holder = subscription.held().front();
        let holder = holder.and_then(|held| self.attached.get(&held.session));
        let window = holder.map_or(1, |attached| attached.session.window);
        subscription.is_ready(window, conversation.last)
    }

    /// Whether a session other than the one that released a conversation has room.
    fn others_have_room(&self, place: Place) -> bool {
        let taken = &self.conversations[place.slot].seats[place.seat];
        let sessions = &self.subscribers[taken.subscriber].sessions;
        let mut others = sessions
            .iter()
            .filter(|number| taken.avoid != Some(**number));
        others.any(|number| self.attached[number].has_room())
    }

    fn has_room(&self, subscriber: usize) -> bool {
        let sessions = &self.subscribers[subscriber].sessions;
        sessions
            .iter()
            .any(|number| self.attached[number].has_room())
    }

    /// Chooses a session for a seat's next activity, and takes its credit.
    ///
    /// While a session holds something of the conversation it alone gets more, since another one might
    /// be done sooner. Between turns the one that has the lease does, and the conversation waits for it
    /// a while if it has no room. Otherwise it is the one with room that ranks highest: the rank is a
    /// rendezvous hash, so that a session that comes or goes moves few conversations.
    fn choose(&mut self, place: Place, now: Timestamp) -> Choice {
        let limits = &self.settings.limits;
        let conversation = &mut self.conversations[place.slot];
        let taken = &mut conversation.seats[place.seat];
        let Some(entry) = taken.subscription.next() else {
            return Choice::NotNow;
        };
        let bytes = entry.activity.len();
        let said = Said::new(&conversation.key.channel, entry);
        let lease = taken.subscription.lease();
        let holder = lease.and_then(|lease| self.attached.get(&lease.session));
        let takes_it = holder.filter(|holder| holder.is_open() && holder.session.selects(&said));
        if !taken.subscription.held().is_empty() {
            return match takes_it {
                Some(holder) if holder.session.take(bytes) => {
                    Choice::Session(holder.session.number)
                }
                // When it has finished what it holds, others may have room.
                Some(holder) => Choice::WaitFor(holder.session.number),
                None => Choice::NotNow,
            };
        }
        let is_fresh = lease.is_some_and(|lease| now.since(lease.used) < limits.lease_idle);
        if let Some(holder) = takes_it.filter(|_| is_fresh) {
            let number = holder.session.number;
            if holder.session.take(bytes) {
                taken.waits_until = None;
                return Choice::Session(number);
            }
            let has_waited = taken.avoid == Some(number);
            if !has_waited && self.subscribers[taken.subscriber].sessions.len() > 1 {
                let until = || now.after(limits.lease_patience);
                taken.waits_until.get_or_insert_with(until);
                return Choice::WaitFor(number);
            }
        }
        loop {
            let sessions = &self.subscribers[taken.subscriber].sessions;
            let mut is_any_choosy = false;
            let ranked = sessions.iter().filter_map(|number| {
                let attached = &self.attached[number];
                let session = &attached.session;
                is_any_choosy |= !session.selects_all();
                if !session.selects(&said) {
                    return None;
                }
                let credit = session.credit();
                let has_room =
                    attached.is_open() && credit.deliveries > 0 && credit.bytes >= bytes as i64;
                // The one that released the conversation comes last, and not never: to wait for the
                // others' room would hold up all that stands behind this conversation.
                let is_willing = attached.is_open() && taken.avoid != Some(*number);
                let rank = rank(&session.instance, &conversation.key);
                Some((has_room, is_willing, rank, *number))
            });
            return match ranked.max() {
                Some((true, _, _, best)) => {
                    // Another shard may take the credit between the look and the taking: then look
                    // again.
                    if !self.attached[&best].session.take(bytes) {
                        continue;
                    }
                    taken.avoid = None;
                    taken.waits_until = None;
                    Choice::Session(best)
                }
                // Those behind it may be for sessions that do have room.
                Some((false, _, _, best)) if is_any_choosy => Choice::WaitFor(best),
                Some(_) => Choice::WaitForAny,
                None if sessions.is_empty() => Choice::WaitForAny,
                None => Choice::Nobody,
            };
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
        taken.untaken_since = None;
        let before = taken.subscription.lease();
        let after_gap = taken.subscription.is_after_gap();
        let handed = taken
            .subscription
            .hand_over(number, id, round.now, deadline);
        let (entry, attempt, fence) = (Arc::clone(handed.entry), handed.attempt, handed.fence);
        let replay = taken.subscription.holds_replay();
        debug!(
            conversation.id = %conversation.key, delivery.id = %id, delivery.attempt = attempt,
            session.id = %session.id, "handed over"
        );
        let key = conversation.key.clone();
        if let Some(lease) = before.filter(|lease| lease.session != number)
            && let Some(loser) = self.attached.get(&lease.session)
        {
            let conversation = key.clone();
            round.tell(
                &loser.session,
                Event::Revoked {
                    conversation,
                    fence,
                },
            );
        }
        self.shared.metrics.deliveries.inc();
        if attempt > 1 {
            self.shared.metrics.redeliveries.inc();
        }
        round.tell(
            &session,
            Event::Delivery(Delivery {
                id,
                conversation: key,
                sequence: entry.sequence,
                attempt,
                fence,
                deadline,
                activity: entry.activity.clone(),
                after_gap: after_gap && !replay,
                replay,
            }),
        );
        if replay {
            self.note_replay(place, attempt, round);
        }
        self.touch(place.slot, round);
        self.arm(place.slot);
    }

    /// Sees to it that the shard looks at a conversation when time changes something there.
    pub(super) fn arm(&mut self, slot: usize) {
        let conversation = &mut self.conversations[slot];
        let wakes = conversation.seats.iter().flat_map(|seat| {
            seat.subscription
                .wakes_at()
                .into_iter()
                .chain(seat.waits_until)
        });
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
        let taken = &mut self.conversations[slot].seats[seat];
        if taken.waits_until.is_some_and(|until| until <= round.now) {
            // It waited for its session long enough.
            taken.waits_until = None;
            taken.avoid = taken.subscription.lease().map(|lease| lease.session);
            let queue = &mut self.subscribers[taken.subscriber].queue;
            round.pump.push(taken.subscriber);
            queue.unstall(&self.conversations[slot].key);
        }
        let now = round.now;
        let subscription = &mut self.conversations[slot].seats[seat].subscription;
        let is_overdue = |deadline: Option<Timestamp>| deadline.is_some_and(|at| at <= now);
        let overdue = subscription
            .held()
            .iter()
            .position(|held| is_overdue(held.deadline));
        if let Some(position) = overdue {
            self.take_back(Place { slot, seat }, position, Return::Lost, round);
        }
        let subscription = &mut self.conversations[slot].seats[seat].subscription;
        if is_overdue(subscription.rests_until()) {
            subscription.rested();
            self.enqueue(slot, seat, Lane::Again, round);
        }
    }
}

/// How highly a session ranks for a conversation.
pub(super) fn rank(instance: &str, key: &ConversationKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    instance.hash(&mut hasher);
    key.hash(&mut hasher);
    hasher.finish()
}
