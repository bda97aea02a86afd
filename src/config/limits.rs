//! `[limits]`: what may be changed of [`Limits`], and how far.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::file::{Table, Value};
use crate::limits::{Limits, WAITING_ENTRIES};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What the gateway's own fields may add to an activity.
const STAMP_BYTES: u64 = 64 * KIB;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a delivery may be held, by default and by a bot's own setting.
pub(super) const DELIVERY_DEADLINE: RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(10 * 60);
/// How often a streamed reply is shown anew, by default and by a channel's own setting.
pub(super) const STREAM_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(60);
/// Attempts before a delivery is parked, by default and by a bot's own setting.
pub(super) const DELIVERY_ATTEMPTS: RangeInclusive<u64> = 1..=1_000;

/// Reads the table; what is absent or refused keeps its default.
pub(super) fn read(mut table: Table<'_>) -> Limits {
    let mut limits = Limits::default();
    let Limits {
        activity_bytes,
        channel_data_bytes,
        frame_bytes,
        page,
        page_bytes,
        body_timeout,
        direct_line_bytes,
        attachment_bytes,
        attachment_files,
        attachment_retention,
        ack_ids,
        conversation_bots,
        bot_run,
        bot_handovers,
        commit_sends,
        commit_state_writes,
        state_document_bytes,
        state_name_bytes,
        key_bytes,
        user_conversations,
        scheduled_sends,
        schedule_horizon,
        hello_timeout,
        heartbeat_interval,
        watch_report_interval,
        connections,
        watchers,
        sessions,
        session_credit_deliveries,
        session_credit_bytes,
        session_backlog_frames,
        ephemerals_per_second,
        ephemeral_backlog_frames,
        feed_ephemerals,
        stream_interval,
        stream_grace,
        delivery_streams,
        session_stream_bytes,
        delivery_deadline,
        delivery_ceiling,
        delivery_attempts,
        resume_grace,
        lease_idle,
        lease_patience,
        leases,
        delivery_window,
        selectors,
        session_receipts,
        delivery_wait,
        delivery_waiters,
        creation_timeout,
        creations,
        shard_commands,
        shard_bytes,
        shard_round,
        feed_entries,
        feed_bytes,
        conversation_idle,
        conversations_idle,
        log_retention,
        idempotency_retention,
        disk_reserve_bytes,
        backups,
        backup_stall,
        shutdown_grace,
    } = &mut limits;

    let t = &mut table;
    // Nothing is larger than what the store takes as one value.
    size(t, "activity_bytes", activity_bytes, KIB..=64 * MIB);
    size(t, "channel_data_bytes", channel_data_bytes, 0..=64 * MIB);
    size(t, "frame_bytes", frame_bytes, KIB..=256 * MIB);
    count(t, "page", page, 1..=100_000);
    size(t, "page_bytes", page_bytes, 64 * KIB..=256 * MIB);
    time(t, "body_timeout", body_timeout, SECOND..=10 * MINUTE);
    size(t, "direct_line_bytes", direct_line_bytes, MIB..=GIB);
    size(t, "attachment_bytes", attachment_bytes, KIB..=4 * GIB);
    count(t, "attachment_files", attachment_files, 1..=1_000);
    // Zero keeps them for ever.
    time(
        t,
        "attachment_retention",
        attachment_retention,
        Duration::ZERO..=36_500 * DAY,
    );
    count(t, "ack_ids", ack_ids, 1..=100_000);
    count(t, "conversation_bots", conversation_bots, 1..=64);
    // Zero: no bot hears another, and only backends hand over.
    count(t, "bot_run", bot_run, 0..=1_000_000);
    count(t, "bot_handovers", bot_handovers, 0..=1_000_000);
    count(t, "commit_sends", commit_sends, 1..=1_000);
    count(t, "commit_state_writes", commit_state_writes, 1..=1_000);
    size(
        t,
        "state_document_bytes",
        state_document_bytes,
        KIB..=64 * MIB,
    );
    size(t, "state_name_bytes", state_name_bytes, 16..=4 * KIB);
    size(t, "key_bytes", key_bytes, 16..=4 * KIB);
    count(t, "user_conversations", user_conversations, 1..=10_000);
    count(t, "scheduled_sends", scheduled_sends, 0..=10_000);
    time(
        t,
        "schedule_horizon",
        schedule_horizon,
        MINUTE..=3_650 * DAY,
    );
    time(t, "hello_timeout", hello_timeout, SECOND..=MINUTE);
    time(
        t,
        "heartbeat_interval",
        heartbeat_interval,
        SECOND..=10 * MINUTE,
    );
    time(
        t,
        "watch_report_interval",
        watch_report_interval,
        SECOND..=10 * MINUTE,
    );
    count(t, "connections", connections, 1..=1_000_000);
    count(t, "watchers", watchers, 1..=10_000_000);
    count(t, "sessions", sessions, 1..=10_000_000);
    count(
        t,
        "session_credit_deliveries",
        session_credit_deliveries,
        1..=10_000_000,
    );
    size(
        t,
        "session_credit_bytes",
        session_credit_bytes,
        MIB..=64 * GIB,
    );
    count(
        t,
        "session_backlog_frames",
        session_backlog_frames,
        16..=1_000_000,
    );
    count(t, "ephemerals_per_second", ephemerals_per_second, 1..=1_000);
    count(
        t,
        "ephemeral_backlog_frames",
        ephemeral_backlog_frames,
        1..=10_000,
    );
    count(t, "feed_ephemerals", feed_ephemerals, 1..=1_000);
    time(t, "stream_interval", stream_interval, STREAM_INTERVAL);
    time(
        t,
        "stream_grace",
        stream_grace,
        Duration::ZERO..=10 * MINUTE,
    );
    count(t, "delivery_streams", delivery_streams, 1..=1_000);
    size(t, "session_stream_bytes", session_stream_bytes, KIB..=GIB);
    time(t, "delivery_deadline", delivery_deadline, DELIVERY_DEADLINE);
    time(t, "delivery_ceiling", delivery_ceiling, 5 * SECOND..=DAY);
    count(t, "delivery_attempts", delivery_attempts, DELIVERY_ATTEMPTS);
    time(t, "resume_grace", resume_grace, Duration::ZERO..=HOUR);
    time(t, "lease_idle", lease_idle, Duration::ZERO..=DAY);
    time(t, "lease_patience", lease_patience, Duration::ZERO..=HOUR);
    count(t, "leases", leases, 0..=100_000_000);
    let most_window = WAITING_ENTRIES as u64;
    count(t, "delivery_window", delivery_window, 1..=most_window);
    count(t, "selectors", selectors, 1..=1_000);
    count(t, "session_receipts", session_receipts, 1..=1_000_000);
    time(t, "delivery_wait", delivery_wait, SECOND..=10 * MINUTE);
    count(t, "delivery_waiters", delivery_waiters, 1..=1_000_000);
    time(
        t,
        "creation_timeout",
        creation_timeout,
        SECOND..=10 * MINUTE,
    );
    count(t, "creations", creations, 1..=1_000_000);
    count(t, "shard_commands", shard_commands, 16..=1_000_000);
    size(t, "shard_bytes", shard_bytes, MIB..=GIB);
    count(t, "shard_round", shard_round, 1..=100_000);
    count(t, "feed_entries", feed_entries, 1..=100_000);
    size(t, "feed_bytes", feed_bytes, KIB..=GIB);
    time(
        t,
        "conversation_idle",
        conversation_idle,
        Duration::ZERO..=DAY,
    );
    count(t, "conversations_idle", conversations_idle, 0..=100_000_000);
    // Zero keeps activities for ever.
    time(
        t,
        "log_retention",
        log_retention,
        Duration::ZERO..=36_500 * DAY,
    );
    time(
        t,
        "idempotency_retention",
        idempotency_retention,
        MINUTE..=30 * DAY,
    );
    size(t, "disk_reserve_bytes", disk_reserve_bytes, 0..=1_024 * GIB);
    count(t, "backups", backups, 1..=100);
    time(t, "backup_stall", backup_stall, SECOND..=HOUR);
    time(t, "shutdown_grace", shutdown_grace, Duration::ZERO..=HOUR);

    agree(&table, &limits);
    table.finish();
    limits
}

/// Refuses limits that are fine alone and not together. One that is at fault only because of
/// another's default is named all the same, since the file must change.
fn agree(table: &Table<'_>, limits: &Limits) {
    let activity_bytes = limits.activity_bytes as u64;
    let rules = [
        (
            limits.channel_data_bytes as u64 > activity_bytes,
            ["channel_data_bytes", "activity_bytes"],
            "`channel_data_bytes` must not be more than `activity_bytes`",
        ),
        (
            (limits.page_bytes as u64) < activity_bytes,
            ["page_bytes", "activity_bytes"],
            "`page_bytes` must not be less than `activity_bytes`: a page must hold any activity",
        ),
        (
            u64::try_from(limits.session_credit_bytes).unwrap_or(0) < activity_bytes + STAMP_BYTES,
            ["session_credit_bytes", "activity_bytes"],
            "`session_credit_bytes` must be at least 64 KiB more than `activity_bytes`: a session \
             could never receive the largest",
        ),
        (
            limits.delivery_deadline > limits.delivery_ceiling,
            ["delivery_deadline", "delivery_ceiling"],
            "`delivery_deadline` must not be more than `delivery_ceiling`",
        ),
    ];
    for (broken, keys, message) in rules {
        let blamed = keys.into_iter().find_map(|key| table.peek(key));
        if let (true, Some(value)) = (broken, blamed) {
            value.refuse(message);
        }
    }
}

fn size<T: TryFrom<u64>>(
    table: &mut Table<'_>,
    name: &'static str,
    slot: &mut T,
    range: RangeInclusive<u64>,
) {
    set(slot, table.take(name), |value| value.size(range));
}

fn count<T: TryFrom<u64>>(
    table: &mut Table<'_>,
    name: &'static str,
    slot: &mut T,
    range: RangeInclusive<u64>,
) {
    set(slot, table.take(name), |value| value.count(range));
}

fn time(
    table: &mut Table<'_>,
    name: &'static str,
    slot: &mut Duration,
    range: RangeInclusive<Duration>,
) {
    if let Some(duration) = table.take(name).and_then(|value| value.duration(range)) {
        *slot = duration;
    }
}

/// Every range ends where its field's type can follow, so that nothing is lost here.
fn set<T: TryFrom<u64>>(
    slot: &mut T,
    value: Option<Value<'_>>,
    read: impl FnOnce(&Value<'_>) -> Option<u64>,
) {
    if let Some(number) = value
        .as_ref()
        .and_then(read)
        .and_then(|n| T::try_from(n).ok())
    {
        *slot = number;
    }
}
