//! Appends that happen once: their results are kept with their key, and given again when they are
//! repeated.

use bytes::Bytes;

use super::Shard;
use crate::engine::command::Keyed;
use crate::engine::conversation::Conversation;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::engine::schedule::Sent;
use crate::engine::session::Appended;
use crate::id::{BotId, ConversationNumber, ScheduleId, Sequence};
use crate::proto::storage;
use crate::store::keys::{Key, OnceDigest};
use crate::store::{self, record};

/// What makes an append happen once.
pub(super) struct Once {
    digest: OnceDigest,
    keyed: Keyed,
}

impl Once {
    /// `None` without a key: then a repeat is another append.
    pub(super) fn new(
        conversation: ConversationNumber,
        author: &Author,
        keyed: Option<Keyed>,
    ) -> Option<Self> {
        // Keys are the bot's, whoever sends for it. The channel's scope is no bot's id.
        Self::scoped(conversation, author.bot().map_or("", BotId::as_str), keyed)
    }

    /// The same for keys of another scope, which must not be what a bot could be called.
    pub(super) fn scoped(
        conversation: ConversationNumber,
        scope: &str,
        keyed: Option<Keyed>,
    ) -> Option<Self> {
        let keyed = keyed?;
        Some(Self {
            digest: OnceDigest::new(conversation, scope, &keyed.key),
            keyed,
        })
    }

    /// The key again, for who has looked and found nothing.
    pub(super) fn into_keyed(self) -> Keyed {
        self.keyed
    }

    fn mismatch(&self) -> Error {
        Error::IdempotencyMismatch {
            key: self.keyed.key.clone(),
        }
    }
}

/// The result of a keyed send, before it is in the store.
pub(crate) struct Kept {
    payload_hash: [u8; 32],
    sent: Sent,
}

impl Shard {
    /// The result of an earlier append with the same key to a conversation.
    pub(super) fn seen(
        &self,
        once: &Option<Once>,
        slot: usize,
        round: &Round,
    ) -> Result<Option<Appended>, Error> {
        match (self.seen_sent(once, slot, round)?, once) {
            (Some(Sent::Appended(appended)), _) => Ok(Some(appended)),
            // Times are part of what was asked for then, and there are none now.
            (Some(Sent::Scheduled { .. }), Some(once)) => Err(once.mismatch()),
            (Some(Sent::Scheduled { .. }), None) | (None, _) => Ok(None),
        }
    }

    /// The same for sends that may wait for their time.
    pub(super) fn seen_sent(
        &self,
        once: &Option<Once>,
        slot: usize,
        round: &Round,
    ) -> Result<Option<Sent>, Error> {
        let Some(once) = once else { return Ok(None) };
        let asked = &once.keyed.payload_hash;
        let in_flight = self.flight.as_ref();
        let in_flight = in_flight.and_then(|flight| flight.round.results.get(&once.digest));
        let sent = match round.results.get(&once.digest).or(in_flight) {
            Some(kept) => (kept.payload_hash == *asked).then(|| kept.sent.clone()),
            None => {
                let conversation = &self.conversations[slot];
                let Some(stored) = self.stored_result(conversation, once.digest, round)? else {
                    return Ok(None);
                };
                let is_same = stored.payload_hash == asked[..];
                is_same.then(|| decode(stored)).transpose()?
            }
        };
        sent.map(Some).ok_or_else(|| once.mismatch())
    }

    fn stored_result(
        &self,
        conversation: &Conversation,
        digest: OnceDigest,
        round: &Round,
    ) -> Result<Option<storage::Idempotency>, Error> {
        let found = self.stored_once(conversation, digest, round)?;
        let decoded = found.map(|(generation, stored)| {
            let key = Key::Idempotency { generation, digest };
            record::decode_idempotency(&key, stored)
        });
        Ok(decoded.transpose()?)
    }

    /// What is kept under a digest, and in which generation.
    pub(super) fn stored_once(
        &self,
        conversation: &Conversation,
        digest: OnceDigest,
        round: &Round,
    ) -> Result<Option<(u32, Bytes)>, Error> {
        // Nothing was appended before this round, and so there is no result.
        if conversation.durable == Sequence::START {
            return Ok(None);
        }
        let now = self.generation(round.now);
        // A conversation has no results from before it started.
        let oldest = now
            .saturating_sub(1)
            .max(self.generation(conversation.start_time));
        for generation in (oldest..=now).rev() {
            if self.ids.has_started(conversation.number) && !self.kept.may_have(generation, digest)
            {
                continue;
            }
            let key = Key::Idempotency { generation, digest };
            if let Some(stored) = self.shared.store.get(&key)? {
                return Ok(Some((generation, stored)));
            }
        }
        Ok(None)
    }

    /// Keeps the result of an append, written with it.
    pub(super) fn keep_result(
        &mut self,
        once: Option<Once>,
        appended: &Appended,
        round: &mut Round,
    ) {
        self.keep_sent(once, &Sent::Appended(appended.clone()), round);
    }

    /// The same for a send that may wait for its time.
    pub(super) fn keep_sent(&mut self, once: Option<Once>, sent: &Sent, round: &mut Round) {
        let Some(Once { digest, keyed }) = once else {
            return;
        };
        let generation = self.generation(round.now);
        self.kept.keep(generation, digest);
        let key = Key::Idempotency { generation, digest };
        let payload_hash = keyed.payload_hash.to_vec().into();
        let result = match sent {
            Sent::Appended(appended) => storage::Idempotency {
                payload_hash,
                sequence: appended.sequence.0,
                activity_id: appended.activity_id.as_ref().to_owned(),
                ..Default::default()
            },
            Sent::Scheduled { id, .. } => storage::Idempotency {
                payload_hash,
                schedule_id: id.to_string(),
                ..Default::default()
            },
        };
        record::put(&mut round.batch, &key, &result);
        let kept = Kept {
            payload_hash: keyed.payload_hash,
            sent: sent.clone().repeated(),
        };
        round.results.insert(digest, kept);
    }
}

/// A result as one who repeats the send is told.
fn decode(stored: storage::Idempotency) -> Result<Sent, store::Error> {
    if stored.schedule_id.is_empty() {
        return Ok(Sent::Appended(Appended {
            activity_id: stored.activity_id.into(),
            sequence: Sequence(stored.sequence),
            repeated: true,
        }));
    }
    let id = ScheduleId::parse(&stored.schedule_id).ok_or_else(|| store::Error::Corrupt {
        what: "the result of a scheduled send".to_owned(),
    })?;
    Ok(Sent::Scheduled { id, repeated: true })
}
