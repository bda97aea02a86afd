//! Keeping what became of activities on their channel, and telling those who want to know.

use std::sync::Arc;

use super::{Place, Shard, dispatch};
use crate::engine::conversation::{Conversation, Reader};
use crate::engine::log;
use crate::engine::receipt::{Receipt, Receipted, Said};
use crate::engine::round::Round;
use crate::engine::session::{self, Session, Subscriber};
use crate::id::{BotId, Sequence};
use crate::proto::storage;
use crate::store::keys::Key;
use crate::store::{self, record};

impl Shard {
    /// Keeps what the channel says of the activity that its egress has come to. A bot's seat has no
    /// channel that would say anything.
    ///
    /// The round is synced for it: a receipt that a reader has seen must not turn back. But if the channel
    /// says only that it has the activity, and there is nobody to be told, the cursor says as much, and
    /// nothing is kept: a machine that is lost before the next sync is handed the activity again.
    pub(super) fn keep_receipt(&mut self, place: Place, said: &Said, round: &mut Round) {
        let conversation = &self.conversations[place.slot];
        let seat = &conversation.seats[place.seat];
        let subscription = &seat.subscription;
        let held = subscription.held().front();
        let entry = held.map_or(subscription.first(), |held| subscription.entry_of(held.id));
        let (Reader::Egress, Some(entry)) = (&seat.reader, entry) else {
            return;
        };
        round.has_outcomes = true;
        let receipts = &self.shared.metrics.receipts;
        match said {
            Said::Delivered(_) => receipts.delivered.inc(),
            Said::Failed(_) => receipts.failed.inc(),
            Said::Undetermined(_) => receipts.unknown.inc(),
        };
        let feed = conversation.feed.upgrade();
        let bot = entry.author.bot();
        let session = bot.and_then(|bot| self.to_be_told(conversation, bot));
        let is_told = feed.is_some() || session.is_some();
        // Of a dead letter that is handed over again there is a receipt, which says that it failed.
        let is_plain = matches!(said, Said::Delivered(theirs) if theirs.is_empty());
        if is_plain && !is_told && !subscription.holds_replay() {
            return;
        }
        round.must_be_durable();
        // Only where something was changed can it be deleted already. An unreadable store shows when
        // the round is written.
        let may_be_deleted = conversation.last_change > entry.sequence;
        let deleted = may_be_deleted
            && self
                .receipt(conversation, entry.sequence, round)
                .is_ok_and(|receipt| receipt.deleted);
        let id = &conversation.key.conversation;
        let receipt = Receipt::record(id, entry, said, deleted, round.now);
        if let Some(feed) = feed {
            round.settled(feed, entry.sequence);
        }
        if let Some(session) = session
            && let Some(receipt) = Receipt::stored(id, entry.sequence, receipt.clone())
        {
            let conversation = conversation.key.clone();
            let receipted = Receipted {
                conversation,
                receipt,
            };
            round.receipted(&session, receipted);
        }
        put(conversation, entry.sequence, receipt, round);
    }

    /// Notes that a message is deleted, so that nothing brings it back.
    pub(super) fn note_deletion(
        &self,
        conversation: &Conversation,
        id: &str,
        round: &mut Round,
    ) -> Result<(), store::Error> {
        let Some(sequence) = log::position_of(&conversation.key.conversation, id) else {
            return Ok(());
        };
        let receipt = storage::Receipt {
            deleted: true,
            ..self.receipt(conversation, sequence, round)?
        };
        put(conversation, sequence, receipt, round);
        Ok(())
    }

    /// What is kept of an activity, with what this round and the one in flight make of it: a deletion
    /// and an outcome that come together must not overwrite each other.
    fn receipt(
        &self,
        conversation: &Conversation,
        sequence: Sequence,
        round: &Round,
    ) -> Result<storage::Receipt, store::Error> {
        let position = (conversation.number, sequence);
        let in_flight = self.flight.iter().map(|flight| &flight.round);
        let rounds = std::iter::once(round).chain(in_flight);
        let mut newest_first = rounds.flat_map(|round| round.receipts.iter().rev());
        match newest_first.find(|(of, _)| *of == position) {
            Some((_, receipt)) => Ok(receipt.clone()),
            None => self.stored_receipt(conversation, sequence),
        }
    }

    /// What is stored of an activity; nothing yet is a receipt as well.
    pub(super) fn stored_receipt(
        &self,
        conversation: &Conversation,
        sequence: Sequence,
    ) -> Result<storage::Receipt, store::Error> {
        let key = Key::Receipt {
            conversation: conversation.number,
            sequence,
        };
        let stored = self.shared.store.get(&key)?;
        let receipt = stored.map(|stored| record::decode_receipt(&key, stored));
        Ok(receipt.transpose()?.unwrap_or_default())
    }

    /// The session of a bot that is told what became of an activity: the one that has the conversation,
    /// or else, of those that want to know, the one that ranks highest for it.
    fn to_be_told(&self, conversation: &Conversation, bot: &BotId) -> Option<Arc<Session>> {
        let mut seats = conversation.seats.iter();
        let seat = seats.find(|seat| matches!(&seat.reader, Reader::Bot(seated) if seated == bot));
        let subscriber = match seat {
            Some(seat) => seat.subscriber,
            // It has left since.
            None => {
                let name = Subscriber::Bot(bot.clone());
                *self.subscriber_numbers.get(&name)?
            }
        };
        let holder = seat
            .and_then(|seat| seat.subscription.lease())
            .map(|lease| lease.session);
        let wanting = |number: &session::Number| {
            let session = &self.attached.get(number)?.session;
            session.wants_receipts().then_some(session)
        };
        let mut sessions = self.subscribers[subscriber].sessions.iter();
        let others = || {
            let sessions = self.subscribers[subscriber].sessions.iter();
            let wanting = sessions.filter_map(wanting);
            wanting.max_by_key(|session| dispatch::rank(&session.instance, &conversation.key))
        };
        let holder = sessions.find(|number| Some(**number) == holder);
        holder.and_then(wanting).or_else(others).map(Arc::clone)
    }
}

fn put(
    conversation: &Conversation,
    sequence: Sequence,
    receipt: storage::Receipt,
    round: &mut Round,
) {
    let key = Key::Receipt {
        conversation: conversation.number,
        sequence,
    };
    record::put(&mut round.batch, &key, &receipt);
    let position = (conversation.number, sequence);
    round.receipts.push((position, receipt));
}
