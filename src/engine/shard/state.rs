//! Writes of documents: with a commit, or by themselves.

use super::Shard;
use super::pending::Now;
use crate::engine::command::WriteState;
use crate::engine::error::Error;
use crate::engine::round::Round;
use crate::engine::state::{self, Condition, Write};
use crate::id::{BotId, Etag};
use crate::proto::storage;
use crate::store::record;

/// Documents that were claimed for writes whose conditions hold, by their encoded keys. What follows must
/// be [`Shard::write_documents`], or [`Shard::release`] if the writes are refused after all.
#[must_use]
pub(super) struct Claims(Vec<Vec<u8>>);

impl Shard {
    /// A write without a commit.
    pub(super) fn write_state(&mut self, command: WriteState, round: &mut Round) {
        let WriteState {
            room: _room,
            bot,
            write,
            reply,
        } = command;
        let writes = std::slice::from_ref(&write);
        let checked = match write.content {
            Some(_) => self.check_disk(round.now),
            // A deletion is small, and makes room.
            None => Ok(()),
        };
        let result = checked
            .and_then(|()| self.claim(&bot, writes))
            .map(|claims| {
                round.must_be_durable();
                let etags = self.write_documents(&bot, writes, claims, round);
                etags.into_iter().next().flatten()
            });
        round.written(reply, result);
    }

    /// Claims the documents of all writes, if the conditions of all hold; otherwise claims none.
    pub(super) fn claim(&self, bot: &BotId, writes: &[Write]) -> Result<Claims, Error> {
        let mut claims = Claims(Vec::with_capacity(writes.len()));
        let claimed = writes
            .iter()
            .try_for_each(|write| self.claim_one(bot, write, &mut claims));
        if let Err(error) = claimed {
            let outcomes = &self.shared.metrics.state_writes;
            match &error {
                Error::State(state::Error::Stale { .. }) => outcomes.stale.inc(),
                Error::State(state::Error::Busy { .. }) => outcomes.busy.inc(),
                _ => outcomes.failed.inc(),
            };
            self.release(claims);
            return Err(error);
        }
        Ok(claims)
    }

    fn claim_one(&self, bot: &BotId, write: &Write, claims: &mut Claims) -> Result<(), Error> {
        let key = write.key(bot);
        let encoded = key.encode();
        let name = || write.name.clone();
        let now = self.shared.pending.claim(&encoded, self.index);
        let now = now.map_err(|_| state::Error::Busy { name: name() })?;
        claims.0.push(encoded);
        if write.condition == Condition::Any {
            return Ok(());
        }
        let present = match now {
            Now::Decided(etag) => etag,
            Now::Stored => {
                let stored = self.shared.store.get(&key)?;
                let stored = stored.map(|value| record::decode_state(&key, value));
                stored.transpose()?.map(|document| Etag(document.etag))
            }
        };
        if !write.condition.holds(present) {
            return Err(state::Error::Stale { name: name() }.into());
        }
        Ok(())
    }

    /// Takes claims back.
    fn release(&self, claims: Claims) {
        for document in &claims.0 {
            self.shared.pending.release(document);
        }
    }

    /// Writes what was claimed. Returns the new etags, in the order of the writes; none for what is
    /// removed.
    pub(super) fn write_documents(
        &mut self,
        bot: &BotId,
        writes: &[Write],
        claims: Claims,
        round: &mut Round,
    ) -> Vec<Option<Etag>> {
        debug_assert_eq!(claims.0.len(), writes.len());
        let mut etags = Vec::with_capacity(writes.len());
        for (write, encoded) in writes.iter().zip(claims.0) {
            let key = write.key(bot);
            let etag = match &write.content {
                Some(content) => {
                    let etag = self.ids.next_etag();
                    let document = storage::StateDocument {
                        etag: etag.0,
                        update_time_ms: round.now.0,
                        content: content.clone(),
                    };
                    record::put(&mut round.batch, &key, &document);
                    Some(etag)
                }
                None => {
                    round.batch.delete(&key);
                    None
                }
            };
            self.shared.pending.decide(&encoded, etag);
            self.shared.metrics.state_writes.written.inc();
            round.documents.push(encoded);
            etags.push(etag);
        }
        etags
    }
}
