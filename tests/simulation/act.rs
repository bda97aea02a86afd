//! What clients do with what they hold, or believe to.

use std::time::Duration;

use rand::RngExt;
use turnwire::engine::session::Delivery;
use turnwire::engine::{Link, Nack};

use crate::client::Role;
use crate::world::{Asked, Commit, Fate, World, message};

/// What is done with a delivery.
#[derive(Clone, Debug)]
enum Deed {
    Commit(usize),
    Ack,
    AckUnheard,
    Send,
    Retry(Option<Duration>),
    Release,
    Poison,
    Extend,
}

impl World {
    /// A client reads some of what it was told, and does something with what it holds.
    pub(crate) async fn act(&mut self) {
        let Some(index) =
            self.any_client(|client| !client.inbox.is_empty() || !client.holds.is_empty())
        else {
            return;
        };
        let most = self.random.random_range(0..4);
        let client = &mut self.clients[index];
        client.read(most);
        if client.holds.is_empty() {
            return;
        }
        let which = self.random.random_range(0..client.holds.len());
        // Mostly what is to be finished first.
        let which = match self.random.random_bool(0.85) {
            true => first_of(&client.holds, which),
            false => which,
        };
        let delivery = client.holds[which].clone();
        let is_egress = matches!(client.role, Role::Adapter(_));
        let deed = self.deed(is_egress);
        if !matches!(deed, Deed::Send | Deed::Extend) {
            self.clients[index].holds.swap_remove(which);
        }
        self.trace.note(format_args!(
            "{} does {deed:?} with {}",
            self.clients[index], delivery.id
        ));
        let Some(stream) = self.clients[index].stream.take() else {
            return;
        };
        self.perform(&stream.link, &delivery, is_egress, deed).await;
        self.clients[index].stream = Some(stream);
    }

    /// One whose session was taken over goes on as if it were not; and finds out.
    pub(crate) async fn be_a_zombie(&mut self) {
        if self.zombies.is_empty() {
            return;
        }
        let which = self.random.random_range(0..self.zombies.len());
        let (stream, mut holds, is_egress) = self.zombies.swap_remove(which);
        let Some(delivery) = holds.pop() else {
            return;
        };
        let deed = self.deed(is_egress);
        self.trace
            .note(format_args!("a zombie does {deed:?} with {}", delivery.id));
        self.perform(&stream.link, &delivery, is_egress, deed).await;
        self.zombies.push((stream, holds, is_egress));
    }

    fn deed(&mut self, is_egress: bool) -> Deed {
        let delay = Duration::from_millis(self.random.random_range(0..3_000));
        match self.random.random_range(0..40) {
            0..14 if is_egress => Deed::AckUnheard,
            0..14 => Deed::Commit(self.random.random_range(0..3)),
            14..19 => Deed::Ack,
            19..24 => Deed::AckUnheard,
            24..28 if is_egress => Deed::Ack,
            24..28 => Deed::Send,
            28..31 => Deed::Retry(Some(delay)),
            31..33 => Deed::Retry(None),
            33..36 => Deed::Release,
            36..38 => Deed::Poison,
            _ => Deed::Extend,
        }
    }

    /// Acks a delivery, and asks for the result.
    pub(crate) async fn ack(&mut self, link: &Link, delivery: &Delivery, is_egress: bool) {
        self.perform(link, delivery, is_egress, Deed::Ack).await;
    }

    async fn perform(&mut self, link: &Link, delivery: &Delivery, is_egress: bool, deed: Deed) {
        let frame = self.frame();
        let (id, sequence) = (delivery.id, delivery.sequence);
        let key = delivery.conversation.clone();
        let book = self.books.entry(key.clone()).or_default();
        let seat = book.seat(is_egress);
        // Of what is not the newest, nothing can come but a refusal.
        if seat.is_newest(sequence.0, id) {
            let turn = seat.turn(sequence.0);
            match deed {
                Deed::Commit(_) | Deed::Ack | Deed::AckUnheard => turn.maybe_done = true,
                Deed::Retry(_) => turn.retried = true,
                Deed::Poison => turn.poisoned = true,
                Deed::Release | Deed::Send | Deed::Extend => {}
            }
        }
        let asked = match deed {
            Deed::Commit(_) | Deed::Ack => Some(Asked::Done),
            Deed::Retry(_) | Deed::Release => Some(Asked::GiveBack),
            Deed::Poison => Some(Asked::Poison),
            Deed::AckUnheard | Deed::Send | Deed::Extend => None,
        };
        match asked {
            Some(asked) => self.asked.insert(id, asked),
            None => self.asked.remove(&id),
        };
        let done = match deed {
            Deed::Commit(replies) => {
                let commit = Commit {
                    question: sequence,
                    replies,
                    fate: Fate::Unknown,
                };
                book.commits.entry(id).or_insert(commit);
                let text = |n| message(&format!("reply {id} {n}"));
                link.commit(frame, id, (0..replies).map(text).collect())
                    .await
            }
            Deed::Ack => link.ack(frame, vec![id], true).await,
            Deed::AckUnheard if is_egress => {
                link.delivered(frame, id, Some(format!("theirs {id}")))
                    .await
            }
            Deed::AckUnheard => link.ack(frame, vec![id], false).await,
            Deed::Send => {
                let text = format!("sent {} {} {sequence}", key.channel, key.conversation);
                book.sends.entry(text.clone()).or_default();
                let activity = message(&text).into();
                link.send(frame, text, None, Some(id), activity).await
            }
            Deed::Retry(delay) => link.nack(frame, vec![id], Nack::Retry(delay), true).await,
            Deed::Release => link.nack(frame, vec![id], Nack::Release, true).await,
            Deed::Poison => {
                let why = Nack::Poison("not for me".to_owned());
                link.nack(frame, vec![id], why, true).await
            }
            Deed::Extend => link.extend(vec![id], None).await,
        };
        done.expect("the engine runs");
    }
}

/// The oldest in the same conversation.
pub(crate) fn first_of(holds: &[Delivery], which: usize) -> usize {
    let same = |index: &usize| holds[*index].conversation == holds[which].conversation;
    let first = (0..holds.len()).filter(same);
    first
        .min_by_key(|index| holds[*index].sequence)
        .unwrap_or(which)
}
