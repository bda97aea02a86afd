//! Appends that happen once: their results are kept with their key, and given again when they are
//! repeated.

use sha2::{Digest, Sha256};

use super::Shard;
use crate::activity::Draft;
use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::engine::session::Appended;
use crate::id::{ConversationKey, Sequence};
use crate::proto::{storage, v1};
use crate::store::keys::Key;
use crate::store::record;

/// What makes an append happen once.
pub(super) struct Once {
    conversation: ConversationKey,
    scope: String,
    key: String,
    payload_hash: [u8; 32],
}

impl Once {
    /// `None` without a key: then a repeat is another append.
    pub(super) fn new(
        conversation: &ConversationKey,
        author: &Author,
        key: Option<String>,
        draft: &Draft,
        reference: Option<&v1::ConversationReference>,
    ) -> Option<Self> {
        let key = key?;
        // Keys are the bot's, whoever sends for it. The channel's scope is no bot's id.
        let scope = author.bot().map(ToString::to_string).unwrap_or_default();
        let payload_hash = match reference {
            None => draft.payload_hash,
            Some(reference) => Sha256::new()
                .chain_update(draft.payload_hash)
                .chain_update(record::encode(reference))
                .finalize()
                .into(),
        };
        Some(Self {
            conversation: conversation.clone(),
            scope,
            key,
            payload_hash,
        })
    }
}

impl Shard {
    /// The result of an earlier append with the same key, in a conversation that started then.
    pub(super) fn seen(
        &self,
        once: &Option<Once>,
        started: Timestamp,
        round: &Round,
    ) -> Result<Option<Appended>, Error> {
        let Some(once) = once else { return Ok(None) };
        let generation = self.generation(round.now);
        let key = |generation| Key::Idempotency {
            generation,
            conversation: &once.conversation,
            scope: &once.scope,
            key: &once.key,
        };
        let (payload_hash, appended) = match round.results.get(&key(generation).encode()) {
            Some(result) => result.clone(),
            None => {
                let store = &self.shared.store;
                let mut stored = store.get(&key(generation))?;
                // A conversation has no results from before it started.
                if stored.is_none() && self.generation(started) < generation {
                    stored = store.get(&key(generation - 1))?;
                }
                let Some(stored) = stored else {
                    return Ok(None);
                };
                let stored = record::decode_idempotency(&key(generation), stored)?;
                let appended = Appended {
                    activity_id: stored.activity_id.into(),
                    sequence: Sequence(stored.sequence),
                    repeated: true,
                };
                (stored.payload_hash.to_vec(), appended)
            }
        };
        if payload_hash != once.payload_hash {
            return Err(Error::IdempotencyMismatch {
                key: once.key.clone(),
            });
        }
        Ok(Some(appended))
    }

    /// Keeps the result of an append, written with it.
    pub(super) fn keep_result(&self, once: Option<Once>, appended: &Appended, round: &mut Round) {
        let Some(once) = once else { return };
        let key = Key::Idempotency {
            generation: self.generation(round.now),
            conversation: &once.conversation,
            scope: &once.scope,
            key: &once.key,
        };
        let result = storage::Idempotency {
            payload_hash: once.payload_hash.to_vec().into(),
            sequence: appended.sequence.0,
            activity_id: appended.activity_id.to_string(),
        };
        round.batch.put(&key, record::encode(&result));
        let repeated = Appended {
            repeated: true,
            ..appended.clone()
        };
        round
            .results
            .insert(key.encode(), (once.payload_hash.to_vec(), repeated));
    }
}
