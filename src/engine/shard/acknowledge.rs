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

impl Shard {
    pub(super) fn ack(&mut self, acks: Acknowledge, round: &mut Round) {
        if acks.want_result {
            round.must_be_durable();
        }
        self.each(&acks, round, |shard, place, round| {
            if let Some(said) = &acks.said {
                shard.keep_receipt(place, said, round);
            }
            shard.finish(place, round);
        });
    }

    pub(super) fn nack(&mut self, nacks: Acknowledge, how: &Nack, round: &mut Round) {
        if nacks.want_result {
            round.must_be_durable();
        }
        self.each(&nacks, round, |shard, place, round| {
            let taken = &mut shard.conversations[place.slot].seats[place.seat];
            match how {
                Nack::Retry(delay) => {
                    let attempts = taken.subscription.cursor().attempts;
                    let delay =
                        delay.unwrap_or_else(|| retry::backoff(attempts, &mut shard.random));
                    let pause = match taken.reader {
                        Reader::Egress => RETRY_PAUSE,
                        Reader::Bot(_) => Duration::ZERO,
                    };
                    let until = round.now.after(delay.max(pause));
                    shard.take_back(place, Return::Retry { until }, round);
                }
                Nack::Release => {
                    taken.avoid = taken.subscription.held().map(|held| held.session);
                    shard.take_back(place, Return::Release, round);
                }
                Nack::Poison(reason) => shard.park(place, reason, round),
            }
        });
    }

    /// Does something to each delivery that the session holds, and says what became of each.
    fn each(
        &mut self,
        request: &Acknowledge,
        round: &mut Round,
        mut act: impl FnMut(&mut Self, Place, &mut Round),
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
            let outcome = match self.held_by(session, id) {
                Some(place) => {
                    self.let_loose(session.number, id, round);
                    act(self, place, round);
                    Outcome::Ok
                }
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
                Outcome::Ok | Outcome::Stale | Outcome::Unknown if *want_result => {
                    let acked = Acked {
                        id,
                        outcome,
                        appended: Vec::new(),
                    };
                    round.acked(session, *frame, acked, most);
                }
                Outcome::Ok | Outcome::Stale | Outcome::Unknown => {}
            }
        }
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
            Outcome::Stale | Outcome::Ok => Error::DeliveryStale(id),
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
            taken.subscription.extend(round.now.after(by), ceiling);
            self.arm(slot);
        }
    }

    /// Appends answers and finishes their delivery. A round is written whole or not at all, and so is
    /// what one command put into it: nothing more is needed for all or nothing.
    pub(super) fn commit(&mut self, commit: Commit, round: &mut Round) {
        let Commit {
            room: _room,
            session,
            frame,
            delivery,
            drafts,
        } = commit;
        let most = self.settings.limits.ack_ids;
        let refused = |error| Refused {
            frame,
            error,
            client_id: String::new(),
            delivery: Some(delivery),
        };
        let Some(place) = self.held_by(&session, delivery) else {
            let outcome = self.why_not_held(delivery);
            self.count_ack(outcome);
            let acked = Acked {
                id: delivery,
                outcome,
                appended: Vec::new(),
            };
            return round.acked(&session, frame, acked, most);
        };
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
        round.must_be_durable();
        let answered = self.answered(place);
        // Collected, they would stay in the much larger allocation of the drafts.
        let mut appended = Vec::with_capacity(drafts.len());
        for draft in &drafts {
            let author = Author::Bot(bot.clone());
            appended.push(self.write_outbound(place.slot, draft, author, &answered, round));
        }
        self.let_loose(session.number, delivery, round);
        self.finish(place, round);
        self.count_ack(Outcome::Ok);
        let acked = Acked {
            id: delivery,
            outcome: Outcome::Ok,
            appended,
        };
        round.acked(&session, frame, acked, most);
    }

    fn finish(&mut self, place: Place, round: &mut Round) {
        self.conversations[place.slot].seats[place.seat]
            .subscription
            .finish();
        self.go_on(place.slot, place.seat, round);
    }

    fn count_ack(&self, outcome: Outcome) {
        let acks = &self.shared.metrics.acks;
        match outcome {
            Outcome::Ok => acks.ok.inc(),
            Outcome::Stale => acks.stale.inc(),
            Outcome::Unknown => acks.unknown.inc(),
        };
    }
}
