//! Room for what waits for the shards: who brings more waits, or, with what is ephemeral, drops it.

use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::engine::command::{Command, Room};
use crate::engine::error::Error;

impl Engine {
    /// Waits for room for so many bytes of a command, which is given back when it is decided.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        self.inner.room.take(bytes).await
    }

    /// Room for what is dropped rather than that it waits.
    pub(super) fn room_now(&self, bytes: usize) -> Option<Room> {
        self.inner.room.try_take(bytes)
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
