//! What the engine goes by, and how that is replaced while it runs.

use std::sync::Arc;

use tracing::info;

use super::Engine;
use super::command::Command;
use super::error::Error;
use super::session::Subscriber;
use super::settings::{InForce, LimitsInForce, Settings};
use crate::id::{BotId, ChannelId};

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

    /// Puts other settings in force, and ends the sessions of bots and channels that are no more: with
    /// [`Error::BotUnknown`] and [`Error::ChannelUnknown`]. When it returns, every later call is decided by them; but for
    /// `shard_commands`, `delivery_waiters` and `creations`, which size what is made at start, and which a
    /// configuration that is read again therefore may not change.
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
        let settings = Arc::new(settings);
        let metrics = &self.inner.shared.metrics;
        self.settings().replace(Arc::clone(&settings));
        self.inner.room.resize(settings.limits.shard_bytes);
        self.inner.watchers.resize(settings.limits.watchers);
        self.command_all(|| Command::Reload).await?;
        self.end_unknown(&settings).await?;
        let gone = |bot: &&BotId| !settings.bots.contains_key(*bot);
        old.bots
            .keys()
            .filter(gone)
            .for_each(|bot| metrics.forget_bot(bot.as_str()));
        let gone = |channel: &&ChannelId| !settings.channels.contains_key(*channel);
        let gone = old.channels.keys().filter(gone);
        gone.for_each(|channel| metrics.forget_channel(channel.as_str()));
        Ok(())
    }

    /// Whether a bot is registered, or a channel configured; and if not, what its session is told.
    pub(super) fn check_known(&self, subscriber: &Subscriber) -> Result<(), Error> {
        let settings = self.settings().look();
        match subscriber {
            Subscriber::Bot(bot) if !settings.bots.contains_key(bot) => {
                Err(Error::BotUnknown(bot.clone()))
            }
            Subscriber::Egress(channel) if !settings.channels.contains_key(channel) => {
                Err(Error::ChannelUnknown(channel.clone()))
            }
            Subscriber::Bot(_) | Subscriber::Egress(_) => Ok(()),
        }
    }

    /// Ends what the settings no longer name. A session that is being attached looks at the settings
    /// under the same lock: it is found here, or finds that it is not known.
    async fn end_unknown(&self, settings: &Settings) -> Result<(), Error> {
        let mut ended = Vec::new();
        self.sessions().retain(|(subscriber, _), session| {
            let Err(why) = self.check_known(subscriber) else {
                return true;
            };
            ended.push((Arc::clone(session), why));
            false
        });
        self.inner
            .shared
            .declared()
            .retain(|channel, _| settings.channels.contains_key(channel));
        for (session, why) in ended {
            info!(session.id = %session.id, subscriber = %session.subscriber, "no longer known");
            session.end(why);
            let number = session.number;
            self.command_all(|| Command::Detach(number)).await?;
        }
        Ok(())
    }
}
