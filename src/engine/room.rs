//! Room for what waits for the shards: who brings more waits, or, with what is ephemeral, drops it.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::activity::Draft;
use crate::engine::Engine;
use crate::engine::command::{Command, Room};
use crate::engine::error::Error;

impl Engine {
    /// Waits for room for drafts, which is given back when they are decided.
    pub(super) async fn room(&self, drafts: &[Draft]) -> Result<Room, Error> {
        self.room_for(drafts.iter().map(|draft| draft.body().len()).sum())
            .await
    }

    /// Waits for room for so many bytes.
    pub(super) async fn room_for(&self, bytes: usize) -> Result<Room, Error> {
        let room = Arc::clone(&self.inner.room);
        room.acquire_many_owned(self.permits(bytes))
            .await
            .map_err(|_| Error::ShuttingDown)
    }

    /// Room for what is dropped rather than that it waits.
    pub(super) fn room_now(&self, bytes: usize) -> Option<Room> {
        let room = Arc::clone(&self.inner.room);
        room.try_acquire_many_owned(self.permits(bytes)).ok()
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.clamp(1, self.inner.room_bytes)).unwrap_or(u32::MAX)
    }

    /// Commands unless the shard is busy: then the command is dropped.
    pub(super) fn command_now(&self, shard: usize, command: Command) -> Result<(), Error> {
        match self.inner.shards[shard].try_send(command) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.metrics().ephemerals.dropped.inc();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::ShuttingDown),
        }
    }
}
