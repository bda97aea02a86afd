//! Finishing deliveries and giving them back, by the session that holds them and no other.

use std::time::Duration;

use super::{Place, Shard};
use crate::engine::command::{Acknowledge, Commit, Nack};
use crate::engine::conversation::Reader;
use crate::engine::delivery::Return;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::retry;
use crate::engine::round::Round;
use crate::engine::session::{Acked, Event, Outcome, Refused, Session};
use crate::id::DeliveryId;

/// Shortest wait before an adapter's next attempt: its attempts have no limit, and what is tried
/// again goes first.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A delivery that a session holds.
#[derive(Clone, Copy)]
struct Delivered {
    id: DeliveryId,
    place: Place,
    /// Which of those that it holds of the conversation: 0 must be finished first.
    position: usize,
}

impl Shard {
    pub(super) fn ack(&mut self, acks: Acknowledge, round: &mut Round) {
        if acks.want_result {
            round.must_be_durable();
        }
        self.each(&acks, round, |shard, delivery, round| {
            if delivery.position > 0 {
                return Outcome::OutOfOrder;
            }
            if let Some(said) = &acks.said {
                shard.keep_receipt(delivery.place, said, round);
            }
            shard.finish(&delivery, round);
            Outcome::Ok
        });
    }

    pub(super) fn nack(&mut self, nacks: Acknowledge, how: &Nack, round: &mut Round) {
        if nacks.want_result {
            round.must_be_durable();
        }
        self.each(&nacks, round, |shard, delivery, round| {
            let Delivered {
                place, position, ..
            } = delivery;
            let why = match how {
                Nack::Retry(delay) => {
                    let taken = &shard.conversations[place.slot].seats[place.seat];
                    let attempts = taken.subscription.attempts(position);
                    let delay =
                        delay.unwrap_or_else(|| retry::backoff(attempts, &mut shard.random));
                    let pause = match taken.reader {
                        Reader::Egress => RETRY_PAUSE,
                        Reader::Bot(_) => Duration::ZERO,
                    };
                    let until = round.now.after(delay.max(pause));
                    Return::Retry { until }
                }
                Nack::Release => Return::Release,
                Nack::Poison(_) if position > 0 => return Outcome::OutOfOrder,
                Nack::Poison(reason) => {
                    shard.poison(place, reason, round);
                    return Outcome::Ok;
                }
            };
            shard.take_back(place, position, why, round);
            Outcome::Ok
        });
    }

    /// Does something to each delivery that the session holds, and says what became of each.
    fn each(
        &mut self,
        request: &Acknowledge,
        round: &mut Round,
        mut act: impl FnMut(&mut Self, Delivered, &mut Round) -> Outcome,
    ) {
        let Acknowledge {
            session,
            frame,
            deliveries,
            want_result,
            ..
        } = request;
        let is_egress = session.is_egress();
        let most = self.settings.limits.ack_ids;
        for &id in deliveries {
            let outcome = match self.delivered(session, id) {
                Some(delivery) => act(self, delivery, round),
                None => self.why_not_held(id),
            };
            self.count_ack(outcome);
            match outcome {
                // An adapter learns only of what went wrong.
                Outcome::Stale | Outcome::Unknown if is_egress => {
                    let (frame, error) = (*frame, self.not_held(id));
                    let refused = Refused {
                        frame,
                        error,
                        client_id: String::new(),
                        delivery: Some(id),
                    };
                    round.tell(session, Event::Refused(refused));
                }
                Outcome::Ok | Outcome::Stale | Outcome::Unknown | Outcome::OutOfOrder
                    if *want_result =>
                {
                    let acked = Acked {
                        id,
                        outcome,
                        appended: Vec::new(),
                        etags: Vec::new(),
                    };
                    round.acked(session, *frame, acked, most);
                }
                Outcome::Ok | Outcome::Stale | Outcome::Unknown | Outcome::OutOfOrder => {}
            }
        }
    }

    /// A delivery, if this session holds it.
    fn delivered(&self, session: &Session, id: DeliveryId) -> Option<Delivered> {
        let place = self.held_by(session, id)?;
        let subscription = &self.conversations[place.slot].seats[place.seat].subscription;
        let position = subscription.position(id)?;
        Some(Delivered {
            id,
            place,
            position,
        })
    }

    /// Why a delivery that is cited is not held by the one who cites it.
    pub(super) fn why_not_held(&self, id: DeliveryId) -> Outcome {
        if self.ids.has_made(id) {
            Outcome::Stale
        } else {
            Outcome::Unknown
        }
    }

    /// The same, as an error.
    pub(super) fn not_held(&self, id: DeliveryId) -> Error {
        match self.why_not_held(id) {
            Outcome::Unknown => Error::DeliveryUnknown(id),
            Outcome::Stale | Outcome::Ok | Outcome::OutOfOrder => Error::DeliveryStale(id),
        }
    }

    pub(super) fn extend(
        &mut self,
        session: &Session,
        deliveries: &[DeliveryId],
        by: Option<Duration>,
        round: &mut Round,
    ) {
        for &id in deliveries {
            let Some(Place { slot, seat }) = self.held_by(session, id) else {
                continue;
            };
            let settings = &self.settings;
            let taken = &mut self.conversations[slot].seats[seat];
            let by = match (by, &taken.reader) {
                (Some(by), _) => by,
                (None, Reader::Bot(bot)) => settings.delivery_deadline(bot),
                // An adapter's deliveries have no deadline to move.
                (None, Reader::Egress) => continue,
            };
            let ceiling = settings.limits.delivery_ceiling;
            taken.subscription.extend(id, round.now.after(by), ceiling);
            self.arm(slot);
        }
    }

    /// Appends answers, writes documents and finishes the delivery. A round is written whole or not at
    /// all, and so is what one command put into it: nothing more is needed for all or nothing.
    pub(super) fn commit(&mut self, commit: Commit, round: &mut Round) {
        let Commit {
            room: _room,
            session,
            frame,
            delivery,
            drafts,
            writes,
        } = commit;
        let most = self.settings.limits.ack_ids;
        let refused = |error| Refused {
            frame,
            error,
            client_id: String::new(),
            delivery: Some(delivery),
        };
        let held = self.delivered(&session, delivery);
        let Some(held) = held.filter(|held| held.position == 0) else {
            let outcome = match held {
                Some(_) => Outcome::OutOfOrder,
                None => self.why_not_held(delivery),
            };
            self.count_ack(outcome);
            let acked = Acked {
                id: delivery,
                outcome,
                appended: Vec::new(),
                etags: Vec::new(),
            };
            return round.acked(&session, frame, acked, most);
        };
        let place = held.place;
        if let Err(error) = self.check_disk(round.now) {
            return round.tell(&session, Event::Refused(refused(error)));
        }
        let Reader::Bot(bot) = self.conversations[place.slot].seats[place.seat]
            .reader
            .clone()
        else {
            let error = Error::DeliveryUnknown(delivery);
            return round.tell(&session, Event::Refused(refused(error)));
        };
        let mut drafted = drafts.iter();
        let checked = drafted.try_for_each(|draft| self.check_change(place.slot, draft, &bot));
        if let Err(error) = checked {
            return round.tell(&session, Event::Refused(refused(error)));
        }
        // The last that can refuse: what is claimed is written.
        let claims = match self.claim(&bot, &writes) {
            Ok(claims) => claims,
            Err(error) => return round.tell(&session, Event::Refused(refused(error))),
        };
        round.must_be_durable();
        let answered = self.answered(place, delivery);
        let etags = self.write_documents(&bot, &writes, claims, round);
        // Collected, they would stay in the much larger allocation of the drafts.
        let mut appended = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let author = Author::Bot(bot.clone());
            if draft.kind.is_ephemeral() {
                appended.push(self.show_reply(place.slot, &draft, author, &answered, round));
                continue;
            }
            let draft = self.finish_stream(place, delivery, draft, round);
            appended.push(self.write_outbound(place.slot, &draft, author, &answered, round));
        }
        self.finish(&held, round);
        self.count_ack(Outcome::Ok);
        let acked = Acked {
            id: delivery,
            outcome: Outcome::Ok,
            appended,
            etags,
        };
        round.acked(&session, frame, acked, most);
    }

    /// Finishes the first of what a session holds of a conversation.
    fn finish(&mut self, delivery: &Delivered, round: &mut Round) {
        let Delivered { id, place, .. } = *delivery;
        let subscription = &self.conversations[place.slot].seats[place.seat].subscription;
        if let Some(held) = subscription.held().front() {
            self.let_loose(held.session, id, round);
        }
        let subscription = &mut self.conversations[place.slot].seats[place.seat].subscription;
        if subscription.holds_replay() {
            return self.end_replay(place, None, round);
        }
        subscription.finish(round.now);
        self.go_on(place.slot, place.seat, round);
    }

    fn count_ack(&self, outcome: Outcome) {
        let acks = &self.shared.metrics.acks;
        match outcome {
            Outcome::Ok => acks.ok.inc(),
            Outcome::Stale => acks.stale.inc(),
            Outcome::Unknown => acks.unknown.inc(),
            Outcome::OutOfOrder => acks.out_of_order.inc(),
        };
    }
}
