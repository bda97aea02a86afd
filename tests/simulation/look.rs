//! What everyone was told is looked at, and judged.

use std::sync::Arc;

use futures_util::FutureExt;
use prost::Message;
use turnwire::engine::Error;
use turnwire::engine::session::{Acked, Delivery, Event, Outcome, Refused, Session};
use turnwire::proto::v1;

use crate::client::Role;
use crate::gateway::ATTEMPTS;
use crate::oracle::Circumstances;
use crate::world::{Asked, Fate, Place, World, bot_of, key};

impl World {
    /// Everything that was put on streams is looked at, whether its reader is slow or not.
    pub(crate) async fn look(&mut self) {
        self.gateway.settle().await;
        let mut deliveries = Vec::new();
        let mut others = Vec::new();
        for client in &mut self.clients {
            let Some(stream) = &mut client.stream else {
                continue;
            };
            let is_egress = matches!(client.role, Role::Adapter(_));
            let session = Arc::clone(stream.link.session());
            let choosy = stream.choosy;
            for event in stream.take() {
                if let Event::Delivery(delivery) = &event {
                    deliveries.push((delivery.clone(), Arc::clone(&session), choosy, is_egress));
                    client.inbox.push_back(event);
                } else {
                    others.push(event);
                }
            }
            stream.check_credit(is_egress);
        }
        for (stream, _, is_egress) in &mut self.zombies {
            let session = Arc::clone(stream.link.session());
            let choosy = stream.choosy;
            for event in stream.take() {
                match event {
                    Event::Delivery(delivery) => {
                        deliveries.push((delivery, Arc::clone(&session), choosy, *is_egress));
                    }
                    event => others.push(event),
                }
            }
        }
        // As they were made.
        deliveries.sort_by_key(|(delivery, ..)| delivery.id);
        for (delivery, session, choosy, is_egress) in deliveries {
            self.delivered(&delivery, &session, choosy, is_egress);
        }
        for event in others {
            self.told(event);
        }
        // An ended stream is closed by its server.
        for index in 0..self.clients.len() {
            let ended = self.clients[index]
                .stream
                .as_ref()
                .map(|stream| stream.ended);
            if ended == Some(true) {
                self.clients[index].lose_stream();
            }
        }
        self.look_at_followers();
    }

    pub(crate) fn delivered(
        &mut self,
        delivery: &Delivery,
        session: &Session,
        choosy: bool,
        is_egress: bool,
    ) {
        self.trace.note(format_args!(
            "{} of {} {} to {}, attempt {}, fence {}, gap {}, replay {}",
            delivery.id,
            delivery.conversation,
            delivery.sequence,
            session.number.0,
            delivery.attempt,
            delivery.fence.0,
            delivery.after_gap,
            delivery.replay
        ));
        let key = delivery.conversation.clone();
        let sequence = delivery.sequence.0;
        let place = Place {
            key: key.clone(),
            sequence,
            is_egress,
        };
        let before = self.places.insert(delivery.id, place);
        assert!(before.is_none(), "delivery ids are never used again");
        let circumstances = Circumstances {
            session: session.number,
            window: session.window,
            epoch: self.epoch,
            harm: self.harm,
            latest: self.latest,
            first: self.gateway.first(&key).0,
            choosy: self.choosy,
            most_attempts: (!is_egress).then_some(ATTEMPTS),
        };
        let book = self.books.entry(key).or_default();
        let seat = book.seat(is_egress);
        // Its post may not have been answered.
        let activity = v1::Activity::decode(&*delivery.activity).expect("an activity");
        if activity.r#type.as_deref() != Some("message") {
            seat.optional.insert(sequence);
        }
        seat.delivered(delivery, &circumstances);
        assert!(
            !choosy || !seat.optional.contains(&sequence),
            "{sequence} is nothing that its session takes"
        );
    }

    pub(crate) fn told(&mut self, event: Event) {
        match event {
            Event::Acked(acked) => acked.into_iter().for_each(|acked| self.acked(acked)),
            Event::Sent(sent) => {
                let name = format!("{} {:?}", sent.client_id, sent.result);
                self.trace.note(format_args!("sent {name}"));
                let mut words = sent.client_id.split(' ').skip(1);
                let (Some(channel), Some(id)) = (words.next(), words.next()) else {
                    panic!("as it was sent: {}", sent.client_id);
                };
                if let Ok(appended) = sent.result {
                    let key = key(channel, id);
                    self.sent(&key, sent.client_id, &appended);
                }
            }
            Event::Posted(posted) => {
                self.trace.note(format_args!("{posted:?}"));
                let mut words = posted.post_id.split(' ');
                let (Some(channel), Some(id), Some(post)) =
                    (words.next(), words.next(), words.next())
                else {
                    panic!("as it was posted: {}", posted.post_id);
                };
                self.posted(&key(channel, id), post, &posted.appended);
            }
            Event::Refused(Refused { error, .. }) => {
                self.trace.note(format_args!("refused: {error}"));
                assert!(
                    matches!(error, Error::StoreFailed(_) | Error::DeliveryStale(_)),
                    "{error}"
                );
            }
            Event::Revoked { .. } | Event::Drained | Event::End(_) => {}
            event => panic!("{event:?}"),
        }
    }

    pub(crate) fn acked(&mut self, acked: Acked) {
        self.trace.note(format_args!("{acked:?}"));
        let id = acked.id;
        let Place {
            key,
            sequence,
            is_egress,
        } = self.places[&id].clone();
        let asked = self.asked.remove(&id);
        let book = self.books.entry(key.clone()).or_default();
        if let Some(commit) = book.commits.get_mut(&id) {
            match acked.outcome {
                Outcome::Ok if asked == Some(Asked::Done) => {
                    assert_eq!(commit.replies, acked.appended.len());
                    commit.fate = Fate::Taken;
                }
                Outcome::Stale | Outcome::OutOfOrder if commit.fate != Fate::Taken => {
                    commit.fate = Fate::Refused;
                }
                _ => {}
            }
        }
        for appended in &acked.appended {
            book.egress.meant.insert(appended.sequence.0);
        }
        let harm = self.harm;
        let seat = book.seat(is_egress);
        match (acked.outcome, asked) {
            (Outcome::Ok, Some(Asked::Done)) => seat.done(sequence, id),
            (Outcome::Ok, Some(Asked::GiveBack)) if seat.is_newest(sequence, id) => {
                seat.turn(sequence).given_back = true;
            }
            (Outcome::Ok, Some(Asked::Poison)) if seat.is_newest(sequence, id) => {
                let was_replay = seat.turn(sequence).replay;
                // What follows may have been told in the same breath.
                if seat.is_last(id) && !was_replay {
                    match bot_of(&key) {
                        "blocks" if !is_egress => seat.blocked = Some(sequence),
                        _ => seat.gap_due = Some(harm),
                    }
                }
            }
            (Outcome::Unknown, _) => panic!("{id} was made"),
            _ => {}
        }
    }

    pub(crate) fn look_at_followers(&mut self) {
        let mut ended = Vec::new();
        for (key, follower) in &mut self.followers {
            let book = self.books.entry(key.clone()).or_default();
            loop {
                match tokio::task::unconstrained(follower.next()).now_or_never() {
                    None => break,
                    Some(Ok(entries)) => {
                        for entry in entries {
                            assert_eq!(
                                entry.sequence,
                                book.position.next(),
                                "no gap and no double"
                            );
                            book.position = entry.sequence;
                            let id = Arc::clone(&entry.activity_id);
                            book.followed.insert(entry.sequence, id);
                        }
                    }
                    Some(Err(Error::FollowAgain | Error::SequenceGone { .. })) => {
                        ended.push(key.clone());
                        break;
                    }
                    Some(Err(error)) => panic!("{error}"),
                }
            }
        }
        for key in ended {
            self.followers.remove(&key);
        }
    }
}
