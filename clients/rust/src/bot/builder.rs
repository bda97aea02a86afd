//! A bot: how it is set up, and how it comes back when its session is lost.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::credit::Meter;
use super::ending::End;
use super::session::Session;
use super::stream::BotStream;
use super::turn::{Reply, Turn, TurnError};
use crate::backoff::Backoff;
use crate::proto::{Ephemeral, Hello, Receipt};
use crate::{Client, Error};

/// A session that lasted this long was a success, and the next failure is a first one again.
const STEADY: Duration = Duration::from_secs(10);

/// Least bytes of credit: an activity is up to 1 MiB, and one that does not fit would wait for ever.
const MIN_CREDIT_BYTES: i64 = 1024 * 1024;

/// Most deliveries and bytes of credit that a gateway grants by default.
const MAX_CREDIT_DELIVERIES: u32 = 100_000;
const MAX_CREDIT_BYTES: i64 = 256 * 1024 * 1024;

/// A bot, ready to run.
#[derive(Clone, Debug)]
pub struct Bot {
    client: Client,
    pub(super) settings: BotBuilder,
}

/// How a bot is set up.
#[derive(Clone, Debug)]
pub struct BotBuilder {
    bot_id: String,
    instance_id: String,
    credit_deliveries: u32,
    credit_bytes: i64,
    pub(super) concurrency: usize,
    pub(super) grace: Duration,
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
    /// When the session is lost, running handlers are dropped at their next await, because
    /// nothing they answer would be taken; the gateway delivers again, and the bot reconnects
    /// after a growing, jittered wait, for as long as the failure may pass. On `shutdown` no
    /// further handler is started, running ones get [`grace`](BotBuilder::grace) to finish, and
    /// the rest is left to other sessions.
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
        let handler = Arc::new(handler);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let opened = tokio::select! {
                () = &mut shutdown => return Ok(()),
                opened = BotStream::open(&self.client, self.settings.hello()) => opened,
            };
            let ended = match opened {
                Ok(stream) => {
                    let session = Session::new(stream, &self.settings, handler.clone());
                    session.run(shutdown.as_mut()).await
                }
                Err(error) => Err(error),
            };
            if started.elapsed() >= STEADY {
                backoff.reset();
            }
            let wait = match ended {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::Drained { reconnect_after }) => reconnect_after,
                Err(error) if error.is_retryable() => {
                    let asked = error.refusal().and_then(|refusal| refusal.retry_delay);
                    let wait = backoff.next_delay().max(asked.unwrap_or_default());
                    tracing::warn!(bot.id = %self.settings.bot_id, %error, ?wait, "session lost");
                    wait
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
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

    fn hello(&self) -> Hello {
        Hello {
            min_protocol: 1,
            max_protocol: 1,
            bot_id: self.bot_id.clone(),
            instance_id: self.instance_id.clone(),
            credit: Some(self.meter().whole()),
            want_receipts: self.on_receipt.is_some(),
            ..Hello::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_kept_within_what_a_gateway_grants() {
        let small = Bot::builder("b").credit(0, 0).hello().credit;
        assert_eq!(small.map(|c| (c.deliveries, c.bytes)), Some((1, 1 << 20)));
        let large = Bot::builder("b").credit(u32::MAX, u64::MAX).hello().credit;
        assert_eq!(
            large.map(|c| (c.deliveries, c.bytes)),
            Some((100_000, 256 << 20))
        );
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
}
