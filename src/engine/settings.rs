//! What the engine is told at start, and when it is configured anew: bots, channels and limits.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::id::{BotId, ChannelId};
use crate::limits::Limits;
use crate::proto::v1;

/// Everything that configures an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The limits.
    pub limits: Limits,
    /// The registered bots.
    pub bots: HashMap<BotId, Bot>,
    /// The configured channels.
    pub channels: HashMap<ChannelId, Channel>,
    /// Threads that decide and write, 1 to 64; each conversation belongs to one of them. They share
    /// one journal, so more of them help only when deciding, not writing, is the bottleneck.
    pub shards: usize,
    /// Seed of all randomness (ids, jitter).
    pub seed: u64,
}

impl Settings {
    /// How long a bot may hold a delivery: its own deadline, or for one that is not registered any
    /// more the usual one.
    #[must_use]
    pub fn delivery_deadline(&self, bot: &BotId) -> Duration {
        let bot = self.bots.get(bot);
        bot.map_or(self.limits.delivery_deadline, |bot| bot.delivery_deadline)
    }

    /// Whom a bot hears; of one that is not registered any more, users.
    #[must_use]
    pub fn hears(&self, bot: &BotId) -> Hears {
        self.bots.get(bot).map_or(Hears::Users, |bot| bot.hears)
    }
}

/// A registered bot.
#[derive(Clone, Debug)]
pub struct Bot {
    /// The bot as channels and users see it.
    pub account: v1::ChannelAccount,
    /// How long it may hold a delivery.
    pub delivery_deadline: Duration,
    /// Attempts before a delivery is parked in the dead letters.
    pub delivery_attempts: u32,
    /// What becomes of an activity that it cannot take.
    pub on_poison: OnPoison,
    /// Whom it hears in a conversation with several bots.
    pub hears: Hears,
}

/// What becomes of an activity that a bot cannot take, besides that it is parked in the dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnPoison {
    /// The next one is handed over, and says that there is a gap.
    #[default]
    Skip,
    /// Those behind it in the conversation wait until an operator deals with it.
    Block,
    /// As with skip; and the user is answered in the bot's place, and the channel asked for a person.
    Fallback {
        /// What the user is told.
        text: String,
    },
}

/// Whom a bot hears. Never itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hears {
    /// What the channel posts: users, and who joins and leaves.
    #[default]
    Users,
    /// That, and what other bots say, as far as limit `bot_run` goes.
    Everyone,
}

/// A configured channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The bot its conversations are routed to.
    pub bot: BotId,
    /// Bots that its new conversations begin with besides.
    pub also: Vec<BotId>,
    /// What it can do, by configuration.
    pub capabilities: v1::ChannelCapabilities,
    /// How what bots say reaches users.
    pub outbound: Outbound,
    /// Where a bot would call back over HTTP.
    pub service_url: Option<String>,
    /// How often a streamed reply is shown anew to its users.
    pub stream_interval: Duration,
    /// Whether users can say nothing more after an `endOfConversation` of either side.
    pub end_closes: bool,
}

impl Channel {
    /// The bots that its new conversations begin with, the one that it is routed to first.
    pub fn bots(&self) -> impl Iterator<Item = &BotId> {
        std::iter::once(&self.bot).chain(&self.also)
    }
}

/// How what bots say reaches a channel's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// It waits durably, per conversation, for an attached adapter.
    Queue,
    /// Users follow their conversations themselves; nothing waits.
    Watch,
}

/// The settings in force: replaced whole, while others read them.
///
/// A reader sees those of before or those of after, and never some of each. Two looks may see
/// different ones, so what belongs together is taken from one.
#[derive(Debug)]
pub struct InForce(ArcSwap<Settings>);

impl InForce {
    /// Puts the first settings in force.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(ArcSwap::from_pointee(settings))
    }

    /// The settings, to be kept for as long as one likes.
    #[must_use]
    pub fn get(&self) -> Arc<Settings> {
        self.0.load_full()
    }

    /// A short look at them, which writes to nothing that other threads do: for what happens with
    /// every frame. Not to be kept over long waits: a thread has few places for looks, and those
    /// beyond cost as much as [`get`](Self::get).
    #[must_use]
    pub fn look(&self) -> Look {
        Look(self.0.load())
    }

    /// Puts others in force.
    pub(crate) fn replace(&self, settings: Arc<Settings>) {
        self.0.store(settings);
    }
}

/// A short look at the settings in force.
pub struct Look(Guard<Arc<Settings>>);

impl Deref for Look {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.0
    }
}

impl Look {
    /// The limits alone.
    #[must_use]
    pub(crate) fn limits(self) -> LimitsInForce {
        LimitsInForce(self)
    }
}

/// A short look at the limits in force.
pub struct LimitsInForce(Look);

impl Deref for LimitsInForce {
    type Target = Limits;

    fn deref(&self) -> &Limits {
        &self.0.limits
    }
}
