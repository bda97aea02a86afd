//! Appends that happen once: their results are kept with their key, and given again when they are
//! repeated.

use super::Shard;
use crate::engine::command::Keyed;
use crate::engine::conversation::Conversation;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::engine::session::Appended;
use crate::id::{BotId, ConversationNumber, Sequence};
use crate::proto::storage;
use crate::store::keys::{Key, OnceDigest};
use crate::store::record;

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
        let keyed = keyed?;
        // Keys are the bot's, whoever sends for it. The channel's scope is no bot's id.
        let scope = author.bot().map_or("", BotId::as_str);
        Some(Self {
            digest: OnceDigest::new(conversation, scope, &keyed.key),
            keyed,
        })
    }
}

/// The result of a keyed append, before it is in the store.
pub(crate) struct Kept {
    payload_hash: [u8; 32],
    appended: Appended,
}

impl Shard {
    /// The result of an earlier append with the same key to a conversation.
    pub(super) fn seen(
        &self,
        once: &Option<Once>,
        slot: usize,
        round: &Round,
    ) -> Result<Option<Appended>, Error> {
        let Some(once) = once else { return Ok(None) };
        let asked = &once.keyed.payload_hash;
        let in_flight = self.flight.as_ref();
        let in_flight = in_flight.and_then(|flight| flight.round.results.get(&once.digest));
        let appended = match round.results.get(&once.digest).or(in_flight) {
            Some(kept) => (kept.payload_hash == *asked).then(|| kept.appended.clone()),
            None => {
                let conversation = &self.conversations[slot];
                let Some(stored) = self.stored_result(conversation, once.digest, round)? else {
                    return Ok(None);
                };
                (stored.payload_hash == asked[..]).then(|| Appended {
                    activity_id: stored.activity_id.into(),
                    sequence: Sequence(stored.sequence),
                    repeated: true,
                })
            }
        };
        match appended {
            Some(appended) => Ok(Some(appended)),
            None => Err(Error::IdempotencyMismatch {
                key: once.keyed.key.clone(),
            }),
        }
    }

    fn stored_result(
        &self,
        conversation: &Conversation,
        digest: OnceDigest,
        round: &Round,
    ) -> Result<Option<storage::Idempotency>, Error> {
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
                return Ok(Some(record::decode_idempotency(&key, stored)?));
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
        let Some(Once { digest, keyed }) = once else {
            return;
        };
        let generation = self.generation(round.now);
        self.kept.keep(generation, digest);
        let key = Key::Idempotency { generation, digest };
        let result = storage::Idempotency {
            payload_hash: keyed.payload_hash.to_vec().into(),
            sequence: appended.sequence.0,
            activity_id: appended.activity_id.to_string(),
            ..Default::default()
        };
        record::put(&mut round.batch, &key, &result);
        let kept = Kept {
            payload_hash: keyed.payload_hash,
            appended: Appended {
                repeated: true,
                ..appended.clone()
            },
        };
        round.results.insert(digest, kept);
    }
}
