//! What the engine goes by, and how that is replaced while it runs.

use std::sync::Arc;

use super::Engine;
use super::command::Command;
use super::error::Error;
use super::settings::{InForce, LimitsInForce, Settings};

impl Engine {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &InForce {
        &self.inner.shared.settings
    }

    /// A short look at the limits in force: see [`look`](InForce::look).
    #[must_use]
    pub fn limits(&self) -> LimitsInForce {
        self.settings().look().limits()
    }

    /// Puts other settings in force. When it returns, every later call is decided by them; but for
    /// `shard_commands`, `shard_bytes`, `watchers`, `delivery_waiters` and `creations`, which size what is
    /// made at start.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    ///
    /// # Panics
    ///
    /// When `shards` or `seed` differ from those that the engine was opened with.
    pub async fn reload(&self, settings: Settings) -> Result<(), Error> {
        let old = self.settings().get();
        assert_eq!(
            (settings.shards, settings.seed),
            (old.shards, old.seed),
            "shards and seed last as long as the engine"
        );
        self.settings().replace(Arc::new(settings));
        self.command_all(|| Command::Reload).await
    }
}
