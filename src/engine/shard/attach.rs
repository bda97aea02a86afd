//! Sessions as a shard sees them: they attach, lose their stream, resume, drain and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::HashMap;

use super::{Attached, Place, Shard};
use crate::engine::command::{Description, Resume};
use crate::engine::conversation::Reader;
use crate::engine::delivery::Return;
use crate::engine::round::Round;
use crate::engine::session::{self, Session};
use crate::id::DeliveryId;

impl Shard {
    /// Lets a session take part, unless it has ended: its end may have come here before it.
    pub(super) fn attach(&mut self, session: Arc<Session>, round: &mut Round) {
        if session.is_ended() {
            return;
        }
        let subscriber = self.subscriber(&session.subscriber);
        let number = session.number;
        // Those that wait for a session that gets nothing more may be for this one.
        for other in self.subscribers[subscriber].sessions.clone() {
            if !self.attached[&other].is_open() {
                self.subscribers[subscriber].queue.unstall_all(other);
            }
        }
        self.subscribers[subscriber].sessions.push(number);
        let attached = Attached {
            session,
            subscriber,
            held: Default::default(),
            is_away: false,
            is_draining: false,
        };
        self.attached.insert(number, attached);
        round.pump.push(subscriber);
    }

    /// Notes that a session has lost its stream: it keeps what it holds, and gets nothing.
    ///
    /// It may have been resumed since, on another stream; then this is old news.
    pub(super) fn lose(&mut self, number: session::Number, stream: u32, round: &mut Round) {
        let Some(attached) = self.attached.get_mut(&number) else {
            return;
        };
        if attached.session.stream != stream {
            return;
        }
        if self.draining {
            // It cannot come back: its stream would be refused.
            return self.detach(number, round);
        }
        attached.is_away = true;
        // Between turns its conversations go to others.
        let subscriber = attached.subscriber;
        self.subscribers[subscriber].queue.unstall_all(number);
        round.pump.push(subscriber);
    }

    /// Goes on with a session on another stream. What the session holds and its client has not got is
    /// handed over again, and does not count as an attempt.
    pub(super) fn resume(&mut self, resume: Resume, round: &mut Round) {
        let Resume {
            session,
            held: kept,
            lost,
        } = resume;
        let number = session.number;
        let Some(attached) = self.attached.get_mut(&number) else {
            return round.resumed(lost, kept);
        };
        // Two streams may come to resume it, and the older one here after the newer one.
        if session.stream < attached.session.stream {
            return round.resumed(lost, kept);
        }
        attached.session = session;
        attached.is_away = false;
        attached.is_draining = false;
        let subscriber = attached.subscriber;
        let mut held: Vec<_> = attached.held.iter().copied().collect();
        held.sort_unstable();
        self.streams.came_back(number);
        for id in held {
            // One that was given back before takes along those that came after it.
            let Some(&place) = self.held.get(&id) else {
                continue;
            };
            let subscription = &self.conversations[place.slot].seats[place.seat].subscription;
            if kept.contains(&id) {
                self.go_on_handing(place, round);
                self.tell_again(place, id, round);
            } else if let Some(position) = subscription.position(id) {
                self.take_back(place, position, Return::Unseen, round);
            }
        }
        let attached = &self.attached[&number];
        let gone = kept.into_iter().filter(|id| !attached.held.contains(id));
        let gone = gone.collect();
        round.resumed(lost, gone);
        round.pump.push(subscriber);
    }

    /// Gives a session nothing more. Its conversations go to others as their turns end.
    pub(super) fn drain_session(&mut self, number: session::Number, round: &mut Round) {
        let Some(attached) = self.attached.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut attached.is_draining, true) {
            return;
        }
        if attached.held.is_empty() {
            round.drained.push(Arc::clone(&attached.session));
        }
        let subscriber = attached.subscriber;
        self.subscribers[subscriber].queue.unstall_all(number);
        round.pump.push(subscriber);
    }

    /// Hands nothing more over. Sessions that are away cannot come back.
    pub(super) fn begin_drain(&mut self, round: &mut Round) {
        self.draining = true;
        let away = self
            .attached
            .iter()
            .filter(|(_, attached)| attached.is_away);
        let mut away: Vec<_> = away.map(|(number, _)| *number).collect();
        away.sort_unstable();
        for number in away {
            self.detach(number, round);
        }
    }

    /// Takes back at once whatever a session held that will not come back.
    pub(super) fn detach(&mut self, number: session::Number, round: &mut Round) {
        let Some(attached) = self.attached.get(&number) else {
            return;
        };
        let subscriber = attached.subscriber;
        let mut held: Vec<_> = attached.held.iter().copied().collect();
        held.sort_unstable();
        self.subscribers[subscriber]
            .sessions
            .retain(|other| *other != number);
        for id in held {
            // The first of a conversation takes along the others.
            if let Some(&place) = self.held.get(&id) {
                self.take_back(place, 0, Return::Lost, round);
            }
        }
        self.attached.remove(&number);
        self.subscribers[subscriber].queue.unstall_all(number);
        round.pump.push(subscriber);
    }

    /// The place of a delivery, if this session holds it.
    pub(super) fn held_by(&self, session: &Session, id: DeliveryId) -> Option<Place> {
        let place = *self.held.get(&id)?;
        let subscription = &self.conversations[place.slot].seats[place.seat].subscription;
        let mut held = subscription.held().iter();
        held.any(|held| held.id == id && held.session == session.number)
            .then_some(place)
    }

    /// Notes that a session does not hold a delivery any more. To be called before its conversation
    /// knows.
    ///
    /// An adapter's credit is what it may have at one time, so it gets back what the delivery used; a
    /// bot grants its own.
    pub(super) fn let_loose(&mut self, number: session::Number, id: DeliveryId, round: &mut Round) {
        let Some(place) = self.held.remove(&id) else {
            return;
        };
        self.shared.held.fetch_sub(1, Ordering::Relaxed);
        let until = round.now.after(self.settings.limits.stream_grace);
        let key = &self.conversations[place.slot].key;
        self.streams.leave(key, id, until);
        let Some(attached) = self.attached.get_mut(&number) else {
            return;
        };
        attached.held.remove(&id);
        let seat = &self.conversations[place.slot].seats[place.seat];
        if seat.reader == Reader::Egress
            && let Some(entry) = seat.subscription.entry_of(id)
        {
            attached.session.refund(entry.activity.len());
            round.pump.push(attached.subscriber);
        }
        if attached.is_draining && attached.held.is_empty() {
            round.drained.push(Arc::clone(&attached.session));
        }
    }
}

impl Shard {
    /// What each session has of this shard. Takes time in proportion to what is in memory.
    pub(super) fn describe(&self) -> Vec<Description> {
        let describe = |(number, attached): (&session::Number, &Attached)| Description {
            session: *number,
            is_draining: attached.is_draining,
            leases: 0,
            held: attached.held.len() as u64,
            held_since: None,
        };
        let mut sessions: HashMap<_, _> = self
            .attached
            .iter()
            .map(|attached| (*attached.0, describe(attached)))
            .collect();
        let seats = self.conversations.iter();
        for seat in seats.flat_map(|(_, conversation)| &conversation.seats) {
            if let Some(lease) = seat.subscription.lease()
                && let Some(session) = sessions.get_mut(&lease.session)
            {
                session.leases += 1;
            }
            for held in seat.subscription.held() {
                if let Some(session) = sessions.get_mut(&held.session) {
                    let since = session
                        .held_since
                        .map_or(held.since, |at| at.min(held.since));
                    session.held_since = Some(since);
                }
            }
        }
        for lease in self.leases.all() {
            if let Some(session) = sessions.get_mut(&lease.session) {
                session.leases += 1;
            }
        }
        sessions.into_values().collect()
    }
}
