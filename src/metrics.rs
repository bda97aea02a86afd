//! Metrics, in the OpenMetrics text format.
//!
//! Every series that can be named beforehand is a field, so that counting is one atomic addition:
//! no label is looked up where activities pass.

use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "turnwire";

/// A set of one label.
type Label<V> = [(&'static str, V); 1];

/// Everything the gateway counts. Handles are cheap to clone, and clones count together.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Activities appended to conversations.
    pub activities_appended: Authors,
    /// Deliveries handed to sessions, first attempts and later ones.
    pub deliveries: Counter,
    /// Those of [`deliveries`](Self::deliveries) that were not first attempts.
    pub redeliveries: Counter,
    /// Acknowledgements, commits included.
    pub acks: AckOutcomes,
    /// Sends, by whatever way they came.
    pub sends: SendOutcomes,
    /// Writes of documents, with commits and without.
    pub state_writes: StateWriteOutcomes,
    /// Ephemeral activities: typing, and snapshots of streamed replies.
    pub ephemerals: EphemeralOutcomes,
    /// Pieces of streamed replies.
    pub partials: PartialOutcomes,
    /// Streamed replies that are being made now.
    pub streams: Gauge,
    /// Sends that were to wait for their time, and what became of them.
    pub scheduled_sends: ScheduledOutcomes,
    /// Deliveries parked in the dead letters.
    pub dead_letters: Counter,
    /// Activities of bots that bots which hear everyone were not handed, by limit `bot_run`.
    pub bot_runs_cut: Counter,
    /// What channels said of the activities that they were handed.
    pub receipts: ReceiptStates,
    /// Receipts that were not told to bots for want of room.
    pub receipts_dropped: Counter,
    /// Open streams now.
    pub sessions: Sessions,
    /// Sessions that have lost their stream and may come back.
    pub sessions_away: Gauge,
    /// Conversations being watched now, by watcher.
    pub watchers: Gauge,
    /// Conversations in memory now.
    pub conversations_resident: Gauge,
    /// Synced batches.
    pub store_commits: Counter,
    /// How long a batch took until it was durable, in seconds.
    pub store_commit_duration: Histogram,
    /// Commands that were made durable together.
    pub round_size: Histogram,
    /// Rounds that could not be written. Someone must look.
    pub store_failures: Counter,
    /// 1 while appends are refused because the disk has less room than the reserve.
    pub store_full: Gauge,
    /// Configurations that were to be put in force while the gateway ran.
    pub reloads: Reloads,
    undelivered: Family<Label<String>, Gauge>,
    outbound: Family<Label<String>, Gauge>,
    rpc_errors: Family<Label<&'static str>, Counter>,
    direct_line_errors: Family<Label<&'static str>, Counter>,
}

/// A counter for each that may append.
#[derive(Clone, Debug)]
pub struct Authors {
    /// The channel, for a user or for itself.
    pub channel: Counter,
    /// A bot, over its stream.
    pub bot: Counter,
    /// A backend, on behalf of a bot.
    pub backend: Counter,
}

/// A counter for each outcome of an acknowledgement.
#[derive(Clone, Debug)]
pub struct AckOutcomes {
    /// Taken, and durable.
    pub ok: Counter,
    /// The delivery was no longer the session's.
    pub stale: Counter,
    /// No such delivery was ever made.
    pub unknown: Counter,
    /// Not first of what its session holds of the conversation.
    pub out_of_order: Counter,
}

/// A counter for each outcome of a send.
#[derive(Clone, Debug)]
pub struct SendOutcomes {
    /// Appended, and durable.
    pub appended: Counter,
    /// Had been appended before; the first result was given again.
    pub repeated: Counter,
    /// Cited a delivery that was not, or no longer, the session's.
    pub stale: Counter,
    /// Broke a rule; nothing was written.
    pub refused: Counter,
    /// The store failed; it may have been written.
    pub failed: Counter,
}

/// A counter for each outcome of a write of a document.
#[derive(Clone, Debug)]
pub struct StateWriteOutcomes {
    /// Written or removed; durable unless the round failed.
    pub written: Counter,
    /// Its condition did not hold. Nothing was written, nor the rest of its commit.
    pub stale: Counter,
    /// Another write of the document was under way. Nothing was written, nor the rest of its commit.
    pub busy: Counter,
    /// The store could not be read.
    pub failed: Counter,
}

/// A counter for each outcome of a reload.
#[derive(Clone, Debug)]
pub struct Reloads {
    /// Put in force.
    pub applied: Counter,
    /// Wrong, or in need of a restart: nothing changed.
    pub refused: Counter,
}

/// A counter for each thing that can become of an ephemeral activity.
#[derive(Clone, Debug)]
pub struct EphemeralOutcomes {
    /// Given to someone: a session, or the followers.
    pub shown: Counter,
    /// There was nobody to see it.
    pub unseen: Counter,
    /// Its sender is too fast, or someone too slow.
    pub dropped: Counter,
}

/// A counter for each thing that can become of a piece of a streamed reply.
#[derive(Clone, Debug)]
pub struct PartialOutcomes {
    /// Part of the text.
    pub taken: Counter,
    /// Cited a delivery that was not, or no longer, the session's, or the reply was stopped.
    pub dropped: Counter,
    /// Was too large.
    pub refused: Counter,
}

/// A counter for each thing that happens to scheduled sends.
#[derive(Clone, Debug)]
pub struct ScheduledOutcomes {
    /// Kept, to wait for its time.
    pub scheduled: Counter,
    /// Appended when its time had come.
    pub sent: Counter,
    /// Taken back.
    pub cancelled: Counter,
    /// Dropped, since it was of no use any more.
    pub expired: Counter,
    /// Dropped, since it could not be when its time had come.
    pub refused: Counter,
}

/// A counter for each state that a channel can put an activity into.
#[derive(Clone, Debug)]
pub struct ReceiptStates {
    /// The channel has it.
    pub delivered: Counter,
    /// The channel will never take it.
    pub failed: Counter,
    /// Nobody can say.
    pub unknown: Counter,
}

/// A gauge for each kind of stream.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// Bots.
    pub bot: Gauge,
    /// Channel adapters.
    pub channel: Gauge,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let r = &mut registry;

        let authors = counters(
            r,
            "activities_appended",
            "Activities appended to conversations",
        );
        let acks = counters(r, "acks", "Acknowledgements of deliveries");
        let sends = counters(r, "sends", "Sends of bots and backends");
        let state_writes = counters(r, "state_writes", "Writes of state documents");
        let reloads = counters(r, "reloads", "Configurations read while the gateway ran");
        let ephemerals = counters(r, "ephemerals", "Typing, and snapshots of streamed replies");
        let partials = counters(r, "partials", "Pieces of streamed replies");
        let scheduled = counters(r, "scheduled_sends", "Sends that wait for their time");
        let receipts = counters(r, "receipts", "Activities that channels have spoken of");
        let sessions = Family::<Label<&'static str>, Gauge>::default();
        r.register("sessions", "Open streams", sessions.clone());
        let sessions_away = Gauge::default();
        r.register(
            "sessions_away",
            "Sessions that have lost their stream and may come back",
            sessions_away.clone(),
        );
        let outbound = Family::<Label<String>, Gauge>::default();
        r.register(
            "outbound",
            "Activities that wait for a channel's adapter",
            outbound.clone(),
        );
        let undelivered = Family::<Label<String>, Gauge>::default();
        r.register(
            "undelivered",
            "Activities that wait for a bot",
            undelivered.clone(),
        );

        Self {
            activities_appended: Authors {
                channel: resolve(&authors, "author", "channel"),
                bot: resolve(&authors, "author", "bot"),
                backend: resolve(&authors, "author", "backend"),
            },
            deliveries: counter(
                r,
                "deliveries",
                "Deliveries handed to bots and channel adapters",
            ),
            redeliveries: counter(r, "redeliveries", "Deliveries that were not first attempts"),
            acks: AckOutcomes {
                ok: resolve(&acks, "outcome", "ok"),
                stale: resolve(&acks, "outcome", "stale"),
                unknown: resolve(&acks, "outcome", "unknown"),
                out_of_order: resolve(&acks, "outcome", "out_of_order"),
            },
            sends: SendOutcomes {
                appended: resolve(&sends, "outcome", "appended"),
                repeated: resolve(&sends, "outcome", "repeated"),
                stale: resolve(&sends, "outcome", "stale"),
                refused: resolve(&sends, "outcome", "refused"),
                failed: resolve(&sends, "outcome", "failed"),
            },
            state_writes: StateWriteOutcomes {
                written: resolve(&state_writes, "outcome", "written"),
                stale: resolve(&state_writes, "outcome", "stale"),
                busy: resolve(&state_writes, "outcome", "busy"),
                failed: resolve(&state_writes, "outcome", "failed"),
            },
            ephemerals: EphemeralOutcomes {
                shown: resolve(&ephemerals, "outcome", "shown"),
                unseen: resolve(&ephemerals, "outcome", "unseen"),
                dropped: resolve(&ephemerals, "outcome", "dropped"),
            },
            partials: PartialOutcomes {
                taken: resolve(&partials, "outcome", "taken"),
                dropped: resolve(&partials, "outcome", "dropped"),
                refused: resolve(&partials, "outcome", "refused"),
            },
            streams: gauge(r, "streams", "Streamed replies that are being made"),
            dead_letters: counter(r, "dead_letters", "Deliveries parked in the dead letters"),
            sessions_away,
            scheduled_sends: ScheduledOutcomes {
                scheduled: resolve(&scheduled, "outcome", "scheduled"),
                sent: resolve(&scheduled, "outcome", "sent"),
                cancelled: resolve(&scheduled, "outcome", "cancelled"),
                expired: resolve(&scheduled, "outcome", "expired"),
                refused: resolve(&scheduled, "outcome", "refused"),
            },
            bot_runs_cut: counter(
                r,
                "bot_runs_cut",
                "Activities of bots that other bots were not handed",
            ),
            receipts: ReceiptStates {
                delivered: resolve(&receipts, "state", "delivered"),
                failed: resolve(&receipts, "state", "failed"),
                unknown: resolve(&receipts, "state", "unknown"),
            },
            receipts_dropped: counter(
                r,
                "receipts_dropped",
                "Receipts that were not told to bots for want of room",
            ),
            sessions: Sessions {
                bot: sessions.get_or_create_owned(&[("kind", "bot")]),
                channel: sessions.get_or_create_owned(&[("kind", "channel")]),
            },
            watchers: gauge(r, "watchers", "Watchers of conversations"),
            conversations_resident: gauge(r, "conversations_resident", "Conversations in memory"),
            store_commits: counter(r, "store_commits", "Synced batches"),
            // 50 µs to 1.6 s: a sync takes about 130 µs on a good disk, and a second on a bad day.
            store_commit_duration: histogram(
                r,
                "store_commit_duration",
                "Time until a batch was durable",
                Some(Unit::Seconds),
                exponential_buckets(50e-6, 2.0, 16),
            ),
            round_size: histogram(
                r,
                "round_size",
                "Commands made durable together",
                None,
                exponential_buckets(1.0, 2.0, 11),
            ),
            store_failures: counter(r, "store_failures", "Rounds that could not be written"),
            store_full: gauge(
                r,
                "store_full",
                "Whether appends are refused for want of disk",
            ),
            rpc_errors: counters(
                r,
                "rpc_errors",
                "Calls and frames that were refused or failed",
            ),
            direct_line_errors: counters(
                r,
                "direct_line_errors",
                "Calls over Direct Line that were refused or failed",
            ),
            reloads: Reloads {
                applied: resolve(&reloads, "result", "applied"),
                refused: resolve(&reloads, "result", "refused"),
            },
            undelivered,
            outbound,
            registry,
        }
    }

    /// Shows no longer what waits for a bot that is no more.
    pub fn forget_bot(&self, bot: &str) {
        self.undelivered.remove(&[("bot", bot.to_owned())]);
    }

    /// The same for a channel.
    pub fn forget_channel(&self, channel: &str) {
        self.outbound.remove(&[("channel", channel.to_owned())]);
    }

    /// The gauge of what waits for a bot. To be kept: finding it takes a lock.
    #[must_use]
    pub fn undelivered(&self, bot: &str) -> Gauge {
        self.undelivered
            .get_or_create_owned(&[("bot", bot.to_owned())])
    }

    /// Activities that wait for the adapter of `channel`. Finding it takes a lock: keep it.
    #[must_use]
    pub fn outbound(&self, channel: &str) -> Gauge {
        self.outbound
            .get_or_create_owned(&[("channel", channel.to_owned())])
    }

    /// Counts a call, frame or stream that was refused or failed, by its stable reason. Takes a
    /// lock, which errors may: they are few.
    pub fn rpc_error(&self, reason: &'static str) {
        self.rpc_errors.get_or_create(&[("reason", reason)]).inc();
    }

    /// The same for a call over Direct Line.
    pub fn direct_line_error(&self, reason: &'static str) {
        let errors = &self.direct_line_errors;
        errors.get_or_create(&[("reason", reason)]).inc();
    }

    /// All of it, as [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

// The library adds what OpenMetrics asks for: the full stop to a help text, `_total` to a
// counter's name, and its unit to a name.

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn histogram(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    buckets: impl Iterator<Item = f64>,
) -> Histogram {
    let histogram = Histogram::new(buckets);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, histogram.clone()),
        None => registry.register(name, help, histogram.clone()),
    }
    histogram
}

fn counters<V>(registry: &mut Registry, name: &str, help: &str) -> Family<Label<V>, Counter>
where
    V: EncodeLabelValue + Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn resolve(
    family: &Family<Label<&'static str>, Counter>,
    label: &'static str,
    value: &'static str,
) -> Counter {
    family.get_or_create_owned(&[(label, value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_the_gateways_prefix_and_its_unit() {
        let metrics = Metrics::new();
        metrics.activities_appended.bot.inc();
        metrics.acks.stale.inc_by(2);
        metrics.sends.failed.inc();
        metrics.state_writes.stale.inc();
        metrics.sessions.channel.set(3);
        metrics.undelivered("echo").set(4);
        metrics.rpc_error("BOT_UNKNOWN");
        metrics.store_commit_duration.observe(0.000_130);
        metrics.round_size.observe(1.0);
        let text = metrics.encode();
        for series in [
            "turnwire_activities_appended_total{author=\"bot\"} 1",
            "turnwire_activities_appended_total{author=\"channel\"} 0",
            "turnwire_deliveries_total 0",
            "turnwire_redeliveries_total 0",
            "turnwire_acks_total{outcome=\"stale\"} 2",
            "turnwire_sends_total{outcome=\"failed\"} 1",
            "turnwire_state_writes_total{outcome=\"stale\"} 1",
            "turnwire_scheduled_sends_total{outcome=\"sent\"} 0",
            "turnwire_dead_letters_total 0",
            "turnwire_receipts_total{state=\"failed\"} 0",
            "turnwire_receipts_dropped_total 0",
            "turnwire_sessions{kind=\"channel\"} 3",
            "turnwire_watchers 0",
            "turnwire_conversations_resident 0",
            "turnwire_undelivered{bot=\"echo\"} 4",
            "turnwire_store_commits_total 0",
            "turnwire_store_commit_duration_seconds_count 1",
            "turnwire_store_commit_duration_seconds_bucket{le=\"0.0002\"} 1",
            "turnwire_round_size_bucket{le=\"1.0\"} 1",
            "turnwire_store_failures_total 0",
            "turnwire_rpc_errors_total{reason=\"BOT_UNKNOWN\"} 1",
        ] {
            assert!(text.lines().any(|line| line == series), "{series}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let foreign = |line: &&str| !line.starts_with('#') && !line.starts_with("turnwire_");
        assert_eq!(text.lines().find(foreign), None);
    }

    #[test]
    fn a_gauge_that_was_kept_is_the_one_that_is_shown() {
        let metrics = Metrics::new();
        let (kept, again) = (metrics.undelivered("echo"), metrics.undelivered("echo"));
        kept.inc();
        again.inc();
        assert!(
            metrics
                .encode()
                .contains("turnwire_undelivered{bot=\"echo\"} 2\n")
        );
        assert!(!metrics.encode().contains("bot=\"other\""));
        metrics.forget_bot("echo");
        assert!(!metrics.encode().contains("bot=\"echo\""));
    }
}
