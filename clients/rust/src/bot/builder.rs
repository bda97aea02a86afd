//! A bot: how it is set up, and how it is run.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::credit::Meter;
use super::session::Session;
use super::turn::{Reply, Turn, TurnError};
use crate::proto::{Ephemeral, Hello, Receipt, Selector};
use crate::{Client, Error};

/// Least bytes of credit: an activity is up to 1 MiB, and one that does not fit would wait for ever.
const MIN_CREDIT_BYTES: i64 = 1024 * 1024;

/// Most deliveries and bytes of credit that a gateway grants by default.
const MAX_CREDIT_DELIVERIES: u32 = 100_000;
const MAX_CREDIT_BYTES: i64 = 256 * 1024 * 1024;

/// Most deliveries of one conversation at a time, and longest time that a session outlives its stream,
/// that a gateway grants by default.
const MAX_WINDOW: u32 = 32;
const MAX_RESUME: Duration = Duration::from_secs(30);

/// A bot, ready to run.
#[derive(Clone, Debug)]
pub struct Bot {
    pub(super) client: Client,
    pub(super) settings: BotBuilder,
}

/// How a bot is set up.
#[derive(Clone, Debug)]
pub struct BotBuilder {
    pub(super) bot_id: String,
    instance_id: String,
    credit_deliveries: u32,
    credit_bytes: i64,
    pub(super) concurrency: usize,
    pub(super) grace: Duration,
    pub(super) resume_within: Duration,
    window: u32,
    selectors: Vec<Selector>,
    pub(super) on_ephemeral: Option<OnEphemeral>,
    pub(super) on_receipt: Option<OnReceipt>,
}

/// Who is told what is ephemeral.
#[derive(Clone)]
pub(super) struct OnEphemeral(pub(super) Arc<dyn Fn(Ephemeral) + Send + Sync>);

impl fmt::Debug for OnEphemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEphemeral(..)")
    }
}

/// What is done with receipts.
#[derive(Clone)]
pub(super) struct OnReceipt(Arc<dyn Fn(Receipt) + Send + Sync>);

impl OnReceipt {
    pub(super) fn call(&self, receipt: Receipt) {
        (self.0)(receipt);
    }
}

impl fmt::Debug for OnReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnReceipt")
    }
}

impl Bot {
    /// Sets up the bot that the gateway knows as `bot_id`.
    #[must_use]
    pub fn builder(bot_id: impl Into<String>) -> BotBuilder {
        BotBuilder {
            bot_id: bot_id.into(),
            instance_id: crate::random::instance_id(),
            credit_deliveries: 128,
            credit_bytes: 16 * 1024 * 1024,
            concurrency: 64,
            grace: Duration::from_secs(10),
            resume_within: Duration::from_secs(5),
            window: 1,
            selectors: Vec::new(),
            on_ephemeral: None,
            on_receipt: None,
        }
    }

    /// Runs the bot for good. See [`run_until`](Self::run_until).
    ///
    /// # Errors
    ///
    /// Why the gateway will not have the bot.
    pub async fn run<H, F, R>(self, handler: H) -> Result<(), Error>
    where
        H: Fn(Turn) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, TurnError>> + Send + 'static,
        R: Into<Reply> + 'static,
    {
        self.run_until(std::future::pending(), handler).await
    }

    /// Runs the bot until `shutdown` completes.
    ///
    /// Each delivery is a task that runs `handler`, at most [`concurrency`](BotBuilder::concurrency)
    /// at a time: conversations go on in parallel, and within one the gateway hands over the next
    /// activity only when the one before is answered. What the handler returns is appended
    /// together with the acknowledgement. An error or a panic gives the delivery back.
    ///
    /// When the stream is lost, handlers run on and the bot reconnects, at first after short and later
    /// after growing waits, all jittered, for as long as the failure may pass. A session that is
    /// back in time (see [`resume_within`](BotBuilder::resume_within)) goes on: what was said and not heard
    /// of is said again. Handlers of deliveries that have gone to someone else are dropped at their next
    /// await, because nothing they answer would be taken; and so are all of them when the session
    /// is over.
    ///
    /// On `shutdown` the gateway is told that the bot goes, so that its conversations go to other
    /// sessions as their turns end: no further handler is started, what was not started is given back
    /// without counting as an attempt, and running handlers get [`grace`](BotBuilder::grace) to finish. Replicas
    /// that are restarted one after another lose nothing and hold nothing up.
    ///
    /// # Errors
    ///
    /// Why the gateway will not have the bot: it is unknown, its token is, or a newer session of
    /// the same instance has taken over (`SESSION_REPLACED`).
    pub async fn run_until<H, F, R>(
        self,
        shutdown: impl Future<Output = ()>,
        handler: H,
    ) -> Result<(), Error>
    where
        H: Fn(Turn) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, TurnError>> + Send + 'static,
        R: Into<Reply> + 'static,
    {
        let session = Session::new(self, Arc::new(handler));
        session.run(std::pin::pin!(shutdown)).await
    }
}

impl BotBuilder {
    /// Names this process of the bot: stable while it runs, different for each replica, at most
    /// 128 bytes. A newer session with the same name takes over. Default: made up at random.
    #[must_use]
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = instance_id.into();
        self
    }

    /// Sets how much the gateway may hand over before the bot has finished some: 1 to 100,000
    /// deliveries, 1 MiB to 256 MiB; outside of that the nearest is taken. Default 128 deliveries
    /// and 16 MiB. This is the bound of the bot's memory.
    #[must_use]
    pub fn credit(mut self, deliveries: u32, bytes: u64) -> Self {
        self.credit_deliveries = deliveries.clamp(1, MAX_CREDIT_DELIVERIES);
        self.credit_bytes = i64::try_from(bytes)
            .unwrap_or(i64::MAX)
            .clamp(MIN_CREDIT_BYTES, MAX_CREDIT_BYTES);
        self
    }

    /// Sets how many handlers may run at a time; at least 1, default 64. Deliveries within credit
    /// and above this wait in the bot, and are kept alive by its heartbeats.
    #[must_use]
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers.max(1);
        self
    }

    /// Sets how long running handlers may take to finish on shutdown. Default 10 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets who is told what is seen now or never: that a user is typing. It must not block: the
    /// session does nothing else meanwhile. Default: nobody.
    #[must_use]
    pub fn on_ephemeral(mut self, told: impl Fn(Ephemeral) + Send + Sync + 'static) -> Self {
        self.on_ephemeral = Some(OnEphemeral(Arc::new(told)));
        self
    }

    /// Asks what becomes of the bot's activities on their channels, and does this with each receipt. It is
    /// called between frames and must not block; a channel's sender is a good thing to call.
    ///
    /// Receipts are best effort: those that come while the bot is away, or faster than it reads, are not
    /// told again. The durable ones are in the transcript
    /// ([`LogEntry::receipt`](crate::proto::LogEntry::receipt)).
    #[must_use]
    pub fn on_receipt(mut self, told: impl Fn(Receipt) + Send + Sync + 'static) -> Self {
        self.on_receipt = Some(OnReceipt(Arc::new(told)));
        self
    }

    /// Sets how long handlers run on when the stream is lost, and the gateway keeps what they work on for
    /// this session: at most 30 s, default 5 s. Zero: the session ends with its stream, and what it held
    /// goes to other sessions at once.
    ///
    /// Until then nobody else gets what the session holds: short is better for bots with replicas. A
    /// gateway that restarts remembers no sessions.
    #[must_use]
    pub fn resume_within(mut self, within: Duration) -> Self {
        self.resume_within = within.min(MAX_RESUME);
        self
    }

    /// Sets how many deliveries of one conversation may be in work at a time: 1 to 32, default 1. Outside
    /// of that the nearest is taken.
    ///
    /// With more than one, handlers of the same conversation run side by side. What they return is still
    /// taken in the order of the conversation: an answer waits until those before it were taken.
    /// A turn that fails takes back all that came after it in the conversation, whose handlers
    /// are dropped; they come again. What a handler says with [`Turn::send`] does not wait.
    #[must_use]
    pub fn window(mut self, deliveries: u32) -> Self {
        self.window = deliveries.clamp(1, MAX_WINDOW);
        self
    }

    /// Takes activities of these channels and of these types only; an empty list means all. Said again, it adds
    /// others: an activity is taken that any of them takes. At most 32 times, with at most 32 channels and
    /// types each; the gateway refuses more with `HELLO_INVALID`.
    ///
    /// What no session of the bot takes is skipped for it. All replicas should select the same, unless they
    /// mean to share the work by it.
    #[must_use]
    pub fn select<C, T>(
        mut self,
        channel_ids: impl IntoIterator<Item = C>,
        activity_types: impl IntoIterator<Item = T>,
    ) -> Self
    where
        C: Into<String>,
        T: Into<String>,
    {
        self.selectors.push(Selector {
            channel_ids: channel_ids.into_iter().map(Into::into).collect(),
            activity_types: activity_types.into_iter().map(Into::into).collect(),
        });
        self
    }

    /// Makes the bot; it connects when it is run.
    #[must_use]
    pub fn build(self, client: &Client) -> Bot {
        Bot {
            client: client.clone(),
            settings: self,
        }
    }

    pub(super) fn meter(&self) -> Meter {
        Meter::new(i64::from(self.credit_deliveries), self.credit_bytes)
    }

    /// Opens a session, without credit and resuming none.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            min_protocol: 1,
            max_protocol: 1,
            bot_id: self.bot_id.clone(),
            instance_id: self.instance_id.clone(),
            want_receipts: self.on_receipt.is_some(),
            selectors: self.selectors.clone(),
            window: self.window,
            ..Hello::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_kept_within_what_a_gateway_grants() {
        let credit = |settings: BotBuilder| settings.meter().begin(0, 0);
        let small = credit(Bot::builder("b").credit(0, 0));
        assert_eq!((small.deliveries, small.bytes), (1, 1 << 20));
        let large = credit(Bot::builder("b").credit(u32::MAX, u64::MAX));
        assert_eq!((large.deliveries, large.bytes), (100_000, 256 << 20));
    }

    #[test]
    fn two_bots_are_two_instances_unless_told_otherwise() {
        let ids = [Bot::builder("b"), Bot::builder("b")].map(|bot| bot.hello().instance_id);
        assert_ne!(ids[0], ids[1]);
        assert_eq!(Bot::builder("b").instance_id("x").hello().instance_id, "x");
    }

    #[test]
    fn receipts_are_asked_for_only_by_who_does_something_with_them() {
        assert!(!Bot::builder("b").hello().want_receipts);
        assert!(Bot::builder("b").on_receipt(drop).hello().want_receipts);
    }

    #[test]
    fn a_window_is_kept_within_what_a_gateway_grants() {
        assert_eq!(Bot::builder("b").hello().window, 1);
        assert_eq!(Bot::builder("b").window(0).hello().window, 1);
        assert_eq!(Bot::builder("b").window(99).hello().window, 32);
    }

    #[test]
    fn each_selection_is_one_more() {
        let none: [&str; 0] = [];
        let bot = Bot::builder("b").select(["dev"], none);
        let selectors = bot.select(none, ["message"]).hello().selectors;
        assert_eq!(selectors.len(), 2);
        assert_eq!(selectors[0].channel_ids, ["dev"]);
        assert_eq!(selectors[1].activity_types, ["message"]);
    }
}
