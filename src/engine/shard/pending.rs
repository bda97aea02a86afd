//! Documents that are being written: a write of them was decided, and has not landed.
//!
//! Any shard may write any document of a bot: its commits do, whatever their conversations. But a round
//! is durable only after it was decided, and until then the store lacks what it writes. Two shards that
//! looked at the store alone could both find the etag that both expect, and the later batch would undo
//! the earlier one. So a document belongs to one shard at a time, from when that decides a write until
//! its last such round has landed or failed:
//!
//! - **Another shard's write is refused as busy**, one without a condition too: batches of two shards may
//!   reach the store in either order, and so the write that was decided last need not be the one that
//!   stays. It cannot be said to be stale either, since the other round may still fail.
//! - **The same shard's write is decided on top**, of a round that is being written as well as of the
//!   one that it is in. Its rounds reach the store in order, and one that fails takes along the one that
//!   was decided on top of it (`shard/write`): what was decided on a write never outlives that.
//! - **But not for ever.** Once another shard was refused, the one that has the document decides no more on
//!   top: its rounds land, and then whoever comes first has it. Otherwise a shard that writes a document
//!   in every round would keep it from all others.
//! - **Claimed first, looked up then.** A shard claims the document and only then reads its etag from the
//!   store. Whoever had it before let go after its batch was in the store, where every read sees it; and
//!   nobody else decides while it is claimed. The lock is not held while the store is read.
//! - **Let go before anything is told**, so that who is told of a write can write again at once.
//!
//! A claim never outlives the deciding of one command: it is followed by a decision or taken back. Each
//! shard has at most two rounds that have not landed, and each of their commands at most
//! `commit_state_writes` documents, and so the table is bounded.

use std::sync::Mutex;

use foldhash::HashMap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::engine::lock;
use crate::id::Etag;

/// The documents that are being written, by their encoded keys.
#[derive(Default)]
pub(crate) struct Pending {
    documents: Mutex<HashMap<Vec<u8>, Owned>>,
    /// Told when a document was let go.
    landed: Notify,
}

/// A document that a shard has for itself.
struct Owned {
    shard: u8,
    /// Writes that were decided and have not landed.
    writes: usize,
    /// What the newest of them leaves; meaningless while there is none.
    newest: Option<Etag>,
    /// Another shard has asked for it.
    wanted: bool,
}

/// The document is to land first: another shard has it, or wants it next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// What a claimed document is now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// As the store has it.
    Stored,
    /// As a write leaves it that has not landed: with this etag, or not there.
    Decided(Option<Etag>),
}

impl Pending {
    /// Takes a document for a shard.
    pub(super) fn claim(&self, document: &[u8], shard: u8) -> Result<Now, Busy> {
        let mut documents = lock(&self.documents);
        match documents.get_mut(document) {
            Some(owned) if owned.shard != shard => {
                owned.wanted = true;
                Err(Busy)
            }
            Some(owned) if owned.wanted => Err(Busy),
            Some(owned) if owned.writes > 0 => Ok(Now::Decided(owned.newest)),
            Some(_) => Ok(Now::Stored),
            None => {
                let owned = Owned {
                    shard,
                    writes: 0,
                    newest: None,
                    wanted: false,
                };
                documents.insert(document.to_vec(), owned);
                Ok(Now::Stored)
            }
        }
    }

    /// Takes a claim back that nothing was decided on.
    pub(super) fn release(&self, document: &[u8]) {
        let mut documents = lock(&self.documents);
        if documents
            .get(document)
            .is_some_and(|owned| owned.writes == 0)
        {
            documents.remove(document);
            self.landed.notify_waiters();
        }
    }

    /// Notes what a write leaves that was decided on a claim.
    pub(super) fn decide(&self, document: &[u8], etag: Option<Etag>) {
        let mut documents = lock(&self.documents);
        let owned = documents.get_mut(document);
        let owned = owned.expect("a write is decided on a claim");
        owned.writes += 1;
        owned.newest = etag;
    }

    /// Notes that a round has landed or failed, which had these writes.
    pub(super) fn land(&self, writes: &[Vec<u8>]) {
        if writes.is_empty() {
            return;
        }
        let mut documents = lock(&self.documents);
        for document in writes {
            let owned = documents.get_mut(document);
            let owned = owned.expect("what was decided is owned until it lands");
            owned.writes -= 1;
            if owned.writes == 0 {
                documents.remove(document);
            }
        }
        self.landed.notify_waiters();
    }

    /// Whether a shard has a document for itself.
    pub(crate) fn has(&self, document: &[u8]) -> bool {
        lock(&self.documents).contains_key(document)
    }

    /// Completes when a document was let go, by whichever shard.
    pub(crate) fn landed(&self) -> Notified<'_> {
        self.landed.notified()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        lock(&self.documents).is_empty()
    }
}

#[cfg(test)]
mod tests;
