//! Receipts: what became of what bots said, on its channel.
//!
//! A channel's egress is a cursor, one activity at a time, so the activities of a conversation get their
//! receipts in the order of its log. Whoever follows receipts is therefore a cursor as well: everything
//! up to a sequence is settled, and what it is lies in the store.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::clock::Timestamp;
use crate::engine::conversation::Stored;
use crate::engine::error::Error;
use crate::engine::log::{self, Entry};
use crate::engine::session::Appended;
use crate::engine::settings::Outbound;
use crate::engine::{Engine, Start};
use crate::id::{ChannelId, ConversationId, ConversationKey, ConversationNumber, Sequence};
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::record::Span;
use crate::store::{self, Order, Store, record};

/// What became of an activity on its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The activity's position.
    pub sequence: Sequence,
    /// Its id.
    pub activity_id: String,
    /// What became of it.
    pub state: State,
    /// The channel's own id for it; empty when it gave none.
    pub channel_activity_id: String,
    /// Why, in the channel's words; empty when it gave none.
    pub reason: String,
    /// When the channel said so; `None` when it has not, and when it had no more to say than that it has
    /// the activity while there was nobody to be told.
    pub time: Option<Timestamp>,
}

/// How far an activity has come, in the usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In the log; it waits for the channel, or is with its adapter.
    Accepted,
    /// The channel has it.
    Delivered,
    /// The channel will never take it.
    Failed,
    /// Nobody can say.
    Unknown,
}

impl State {
    /// The state's name in the API.
    #[must_use]
    pub fn kind(self) -> v1::ReceiptState {
        match self {
            Self::Accepted => v1::ReceiptState::Accepted,
            Self::Delivered => v1::ReceiptState::Delivered,
            Self::Failed => v1::ReceiptState::Failed,
            Self::Unknown => v1::ReceiptState::Unknown,
        }
    }
}

/// What a channel says of an activity that it was handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has it, under this id; empty when it gives none.
    Delivered(String),
    /// It will never take it, and why.
    Failed(String),
    /// It cannot say, and why.
    Undetermined(String),
}

/// A receipt and the conversation that it is of: what a bot is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipted {
    /// The conversation.
    pub conversation: ConversationKey,
    /// The receipt.
    pub receipt: Receipt,
}

impl Receipt {
    /// What is stored of an activity's receipt when its channel has spoken.
    pub(crate) fn record(
        conversation: &ConversationId,
        entry: &Entry,
        said: &Said,
        deleted: bool,
        now: Timestamp,
    ) -> storage::Receipt {
        let (state, theirs, reason) = match said {
            Said::Delivered(theirs) => (State::Delivered, theirs.as_str(), ""),
            Said::Failed(reason) => (State::Failed, "", reason.as_str()),
            Said::Undetermined(reason) => (State::Unknown, "", reason.as_str()),
        };
        // Nearly every id says where its activity is, and the record's key does as well.
        let id = &*entry.activity_id;
        let is_plain = log::position_of(conversation, id) == Some(entry.sequence);
        let activity_id = if is_plain { "" } else { id };
        storage::Receipt {
            channel_activity_id: theirs.to_owned(),
            deleted,
            outcome: state.kind() as i32,
            reason: reason.to_owned(),
            time_ms: now.0,
            activity_id: activity_id.to_owned(),
        }
    }

    /// The receipt that is stored at a position; `None` when its channel has said nothing.
    pub(crate) fn stored(
        conversation: &ConversationId,
        sequence: Sequence,
        stored: storage::Receipt,
    ) -> Option<Self> {
        let state = match v1::ReceiptState::try_from(stored.outcome) {
            Ok(v1::ReceiptState::Delivered) => State::Delivered,
            Ok(v1::ReceiptState::Failed) => State::Failed,
            Ok(v1::ReceiptState::Unknown) => State::Unknown,
            // Of a gateway that kept the channel's id and no more.
            _ if !stored.channel_activity_id.is_empty() => State::Delivered,
            Ok(v1::ReceiptState::Unspecified | v1::ReceiptState::Accepted) | Err(_) => return None,
        };
        let activity_id = match stored.activity_id {
            plain if plain.is_empty() => log::id_at(conversation, sequence),
            id => id,
        };
        Some(Self {
            sequence,
            activity_id,
            state,
            channel_activity_id: stored.channel_activity_id,
            reason: stored.reason,
            time: (stored.time_ms > 0).then_some(Timestamp(stored.time_ms)),
        })
    }

    /// The receipt of an activity of which no channel has said anything.
    fn unsaid(sequence: Sequence, activity_id: &str, state: State) -> Self {
        Self {
            sequence,
            activity_id: activity_id.to_owned(),
            state,
            channel_activity_id: String::new(),
            reason: String::new(),
            time: None,
        }
    }
}

/// Reads the receipts that are kept of a conversation in a range, in order.
///
/// # Errors
///
/// [`Error::StoreFailed`].
pub(crate) fn read(
    store: &dyn Store,
    (id, conversation): (&ConversationId, ConversationNumber),
    range: RangeInclusive<Sequence>,
) -> Result<Vec<Receipt>, Error> {
    let mut receipts = Vec::new();
    let mut corrupt: Option<store::Error> = None;
    let range = KeyRange::receipts(conversation, range);
    store.scan(&range, Order::Ascending, &mut |key, value| {
        let receipt = keys::decode_receipt(key).and_then(|sequence| {
            let key = Key::Receipt {
                conversation,
                sequence,
            };
            let stored = record::decode_receipt(&key, value)?;
            Ok(Receipt::stored(id, sequence, stored))
        });
        match receipt {
            Ok(receipt) => receipts.extend(receipt),
            Err(error) => corrupt = Some(error),
        }
        match corrupt {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    })?;
    match corrupt {
        Some(error) => Err(error.into()),
        None => Ok(receipts),
    }
}

/// What a channel has said of each of some entries, in their order. `settled` is what its egress has come
/// through: what lies in it and has no receipt of its own was delivered, and there was nobody to be told.
///
/// # Errors
///
/// [`Error::StoreFailed`].
pub(crate) fn said(
    store: &dyn Store,
    conversation: (&ConversationId, ConversationNumber),
    settled: Span,
    entries: &[Arc<Entry>],
) -> Result<Vec<Option<Receipt>>, Error> {
    let sequences = || entries.iter().map(|entry| entry.sequence);
    let (Some(first), Some(last)) = (sequences().min(), sequences().max()) else {
        return Ok(Vec::new());
    };
    let kept = read(store, conversation, first..=last)?;
    let said = |entry: &Arc<Entry>| {
        // What the channel itself said is there.
        entry.author.bot()?;
        let sequence = entry.sequence;
        if let Ok(at) = kept.binary_search_by_key(&sequence, |receipt| receipt.sequence) {
            return Some(kept[at].clone());
        }
        settled
            .has(sequence)
            .then(|| Receipt::unsaid(sequence, &entry.activity_id, State::Delivered))
    };
    Ok(entries.iter().map(said).collect())
}

impl Engine {
    /// What became of each of some entries that bots said, in their order; none for what the channel
    /// said. `stored` must have been read before the entries.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`].
    pub fn receipts(
        &self,
        key: &ConversationKey,
        stored: &Stored,
        entries: &[Arc<Entry>],
    ) -> Result<Vec<Option<Receipt>>, Error> {
        let egress = stored.egress();
        let has_egress = self.has_egress(&key.channel);
        // Read after the cursor was, so that of what that has passed nothing is missed.
        let conversation = (&key.conversation, stored.number);
        let settled = egress.unwrap_or_default();
        let said = said(self.store(), conversation, settled, entries)?;
        let receipt = |(entry, said): (&Arc<Entry>, Option<Receipt>)| {
            entry.author.bot()?;
            let waits = has_egress && egress.is_some_and(|settled| entry.sequence > settled.to);
            let state = match waits {
                true => State::Accepted,
                false => State::Unknown,
            };
            let unsaid = || Receipt::unsaid(entry.sequence, &entry.activity_id, state);
            Some(said.unwrap_or_else(unsaid))
        };
        Ok(entries.iter().zip(said).map(receipt).collect())
    }

    /// A place among those who wait for receipts, if there is one. It is free again when dropped.
    #[must_use]
    pub fn waiter_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.waiters).try_acquire_owned().ok()
    }

    /// Waits until a channel has said what became of an activity that is in the log, and no longer than
    /// `patience`.
    ///
    /// Never fails, because the activity is durable whatever happens here: what cannot be found out is
    /// [`State::Accepted`], or [`State::Unknown`] at once where no channel says.
    pub async fn receipt(
        &self,
        key: &ConversationKey,
        appended: &Appended,
        patience: Duration,
    ) -> Receipt {
        let unsaid = |state| Receipt::unsaid(appended.sequence, &appended.activity_id, state);
        if !self.has_egress(&key.channel) {
            return unsaid(State::Unknown);
        }
        let until = self.clock().now().after(patience);
        tokio::select! {
            biased;
            said = self.settled(key, appended) => said.unwrap_or_else(|_| unsaid(State::Accepted)),
            () = self.clock().sleep_until(until) => unsaid(State::Accepted),
        }
    }

    /// Waits until an activity is settled, and returns what the channel has said of it.
    async fn settled(&self, key: &ConversationKey, appended: &Appended) -> Result<Receipt, Error> {
        let sequence = appended.sequence;
        loop {
            let mut follower = self.follow(key.clone(), Start::End).await?;
            match follower.settled(sequence).await {
                Ok(()) => {
                    let conversation = follower.conversation();
                    let kept = read(self.store(), conversation, sequence..=sequence)?;
                    let state = match follower.settled_before().has(sequence) {
                        true => State::Delivered,
                        false => State::Unknown,
                    };
                    let unsaid = || Receipt::unsaid(sequence, &appended.activity_id, state);
                    return Ok(kept.into_iter().next().unwrap_or_else(unsaid));
                }
                // A write has failed under it. Following again asks the shard, which has read the
                // conversation anew, or says that there is no shard any more.
                Err(Error::FollowAgain) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether what bots say waits for an adapter of the channel, which says what became of it.
    fn has_egress(&self, channel: &ChannelId) -> bool {
        let settings = self.settings().look();
        let channel = settings.channels.get(channel);
        channel.is_some_and(|channel| channel.outbound == Outbound::Queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::log::Author;

    fn here() -> ConversationId {
        "c".into()
    }

    fn entry() -> Entry {
        Entry {
            sequence: Sequence(7),
            append_time: Timestamp(1),
            author: Author::Bot("echo".into()),
            activity_id: "a7".into(),
            activity: bytes::Bytes::new(),
            bot_run: 0,
        }
    }

    #[test]
    fn what_a_channel_said_is_what_is_read() {
        for (said, state, theirs, reason) in [
            (Said::Delivered("t".into()), State::Delivered, "t", ""),
            (Said::Delivered(String::new()), State::Delivered, "", ""),
            (Said::Failed("no".into()), State::Failed, "", "no"),
            (Said::Undetermined("?".into()), State::Unknown, "", "?"),
        ] {
            let record = Receipt::record(&here(), &entry(), &said, true, Timestamp(9));
            assert!(record.deleted);
            let receipt =
                Receipt::stored(&here(), Sequence(7), record).expect("the channel has spoken");
            let expected = Receipt {
                sequence: Sequence(7),
                activity_id: "a7".to_owned(),
                state,
                channel_activity_id: theirs.to_owned(),
                reason: reason.to_owned(),
                time: Some(Timestamp(9)),
            };
            assert_eq!(receipt, expected);
        }
    }

    #[test]
    fn an_id_that_says_its_position_is_not_stored() {
        let plain = Entry {
            activity_id: log::id_at(&here(), Sequence(7)).into(),
            ..entry()
        };
        let said = Said::Delivered(String::new());
        let record = Receipt::record(&here(), &plain, &said, false, Timestamp(9));
        assert_eq!(record.activity_id, "");
        let receipt =
            Receipt::stored(&here(), Sequence(7), record).expect("the channel has spoken");
        assert_eq!(*receipt.activity_id, *plain.activity_id);
    }

    #[test]
    fn a_deletion_alone_says_nothing_of_the_channel() {
        let record = storage::Receipt {
            deleted: true,
            ..Default::default()
        };
        assert_eq!(Receipt::stored(&here(), Sequence(7), record), None);
    }

    #[test]
    fn an_id_of_the_channels_from_before_receipts_means_delivered() {
        let record = storage::Receipt {
            channel_activity_id: "theirs".to_owned(),
            ..Default::default()
        };
        let receipt =
            Receipt::stored(&here(), Sequence(7), record).expect("the channel has spoken");
        assert_eq!((receipt.state, receipt.time), (State::Delivered, None));
    }
}
