//! Every limit of the gateway, in one place, with its unit and default.

use std::time::Duration;

/// Activities of one conversation that wait in memory for one subscriber; the rest stay in the log. Also
/// the largest window.
pub const WAITING_ENTRIES: usize = 32;
use serde::Serialize;

/// The gateway's limits. The configuration's `[limits]` table has the same names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Largest activity, in bytes encoded. Default 1 MiB.
    pub activity_bytes: usize,
    /// Largest `channelData`, in bytes encoded. Default 64 KiB.
    pub channel_data_bytes: usize,
    /// Largest frame or request, in bytes; one that is larger ends its stream. Default 8 MiB.
    pub frame_bytes: usize,
    /// Most items in a page. Default 1,000.
    pub page: usize,
    /// Largest page, in bytes; one item is returned whatever its size. Default 4 MiB.
    pub page_bytes: usize,
    /// How long the body of an HTTP request may take; of an upload, each part of it that arrives.
    /// Default 30 s.
    pub body_timeout: Duration,
    /// Bytes of requests that Direct Line works on at one time, and of large answers that it holds until
    /// they are read; more have to wait, and are refused after `body_timeout`. Default 64 MiB each.
    pub direct_line_bytes: usize,
    /// Largest upload, in bytes of all its files. Default 20 MiB.
    pub attachment_bytes: usize,
    /// Most files in an upload. Default 20.
    pub attachment_files: usize,
    /// How long uploaded files are kept. Default 7 days. Zero keeps them for ever.
    pub attachment_retention: Duration,
    /// Most delivery ids in one frame. Default 1,000.
    pub ack_ids: usize,
    /// Most bots in a conversation. Default 8.
    pub conversation_bots: usize,
    /// Most activities of bots in a row that other bots hear, until the channel posts. Default 20.
    pub bot_run: u32,
    /// Most times in a row that bots hand a conversation over by themselves, until the channel posts.
    /// Default 20.
    pub bot_handovers: u32,
    /// Most activities in one Commit. Default 64.
    pub commit_sends: usize,
    /// Most state writes in one Commit. Default 16.
    pub commit_state_writes: usize,
    /// Largest state document, in bytes encoded. Default 256 KiB.
    pub state_document_bytes: usize,
    /// Longest name of a state document, in bytes. Default 256.
    pub state_name_bytes: usize,
    /// Longest idempotency key, in bytes. Default 256.
    pub key_bytes: usize,
    /// Most conversations of a user that are looked at to find the one to speak in, those that started
    /// last. Default 100.
    pub user_conversations: usize,
    /// Most sends that wait for their time in one conversation. Default 100.
    pub scheduled_sends: usize,
    /// How far ahead a send may be scheduled. Default 90 days.
    pub schedule_horizon: Duration,
    /// Longest wait for a stream's first frame. Default 10 s.
    pub hello_timeout: Duration,
    /// How often each side of a stream says it is alive; two missed end it. Default 20 s.
    pub heartbeat_interval: Duration,
    /// How often an idle watcher is told its position. Default 15 s.
    pub watch_report_interval: Duration,
    /// Most connections at one time; more are closed at once. Default 50,000.
    pub connections: usize,
    /// Most watchers at one time. Default 100,000.
    pub watchers: usize,
    /// Most sessions and attachments at one time. Default 100,000.
    pub sessions: usize,
    /// Largest balance of deliveries of a session. Default 100,000.
    pub session_credit_deliveries: i64,
    /// Largest balance of bytes of a session. Default 256 MiB.
    pub session_credit_bytes: i64,
    /// Frames that may wait for a client that does not read, before its own frames are no longer
    /// read; deliveries are bounded by credit instead. Default 4,096.
    pub session_backlog_frames: usize,
    /// Most ephemeral activities, such as typing, of one sender in one conversation in a second; more
    /// are dropped. Default 20.
    pub ephemerals_per_second: usize,
    /// Frames that may wait for a session before it is told nothing ephemeral any more. Default 64.
    pub ephemeral_backlog_frames: usize,
    /// Ephemeral activities that a conversation keeps in memory for whoever follows it, within
    /// `feed_bytes`. Default 16.
    pub feed_ephemerals: usize,
    /// How often a streamed reply is shown anew, unless its channel is slower. Default 250 ms.
    pub stream_interval: Duration,
    /// How long a streamed reply whose delivery came back stays open for the next attempt. Default
    /// 10 s.
    pub stream_grace: Duration,
    /// Most replies that the answer to one delivery streams at one time. Default 8.
    pub delivery_streams: usize,
    /// Largest texts of a session's streamed replies together, in bytes. Default 8 MiB.
    pub session_stream_bytes: usize,
    /// Frames that may wait for a bot that does not read before receipts for it are dropped, but never more
    /// than half of `session_backlog_frames`, so that receipts do not keep the bot's frames from being
    /// read. Default 1,024.
    pub session_receipts: usize,
    /// How long a delivery may be held, from 5 s to 10 min. Default 60 s.
    pub delivery_deadline: Duration,
    /// How long a delivery may be held when it is extended again and again. Default 1 h.
    pub delivery_ceiling: Duration,
    /// How long a session outlives its stream, if its client can resume it; also what a client gets that
    /// does not say. Default 30 s.
    pub resume_grace: Duration,
    /// How long a conversation stays with its session after its last turn. Default 10 min.
    pub lease_idle: Duration,
    /// How long a conversation waits for room of the session that has it while another one has some.
    /// Default 5 s.
    pub lease_patience: Duration,
    /// Conversations out of memory that are remembered to be a session's, for each shard. Default
    /// 100,000.
    pub leases: usize,
    /// Most deliveries of one conversation at a time, up to 32. Default 32.
    pub delivery_window: usize,
    /// Most selectors of a session, and most channels or types in one. Default 32.
    pub selectors: usize,
    /// Attempts before a delivery is parked in the dead letters. Default 5.
    pub delivery_attempts: u32,
    /// Longest wait of a send for what becomes of it on its channel. Default 30 s.
    pub delivery_wait: Duration,
    /// Most sends that wait so at one time. Default 10,000.
    pub delivery_waiters: usize,
    /// How long a channel's adapter may take to say what became of a conversation that it was asked to begin.
    /// Default 30 s.
    pub creation_timeout: Duration,
    /// Most conversations that are being created at one time. Default 1,000.
    pub creations: usize,
    /// Commands that may wait for each shard before callers wait. Default 8,192.
    pub shard_commands: usize,
    /// Bytes of activities that may wait for all shards together before callers wait. Default
    /// 64 MiB.
    pub shard_bytes: usize,
    /// Most commands decided and made durable together. Default 1,024.
    pub shard_round: usize,
    /// Activities a conversation keeps in memory for whoever follows it; readers further back read
    /// the log. Default 256.
    pub feed_entries: usize,
    /// The same in bytes. Default 1 MiB.
    pub feed_bytes: usize,
    /// How long a conversation without work stays in memory. Default 10 s.
    pub conversation_idle: Duration,
    /// Conversations without work that stay in memory at most. Default 10,000.
    pub conversations_idle: usize,
    /// How long activities are kept. Default 7 days. Zero keeps them for ever.
    pub log_retention: Duration,
    /// How long results of keyed appends are kept, at least. Default 24 h.
    pub idempotency_retention: Duration,
    /// Free bytes on the store's disk below which appends are refused. Default 256 MiB: what the store
    /// may still have to write of what it has taken.
    pub disk_reserve_bytes: u64,
    /// Most backups at one time. Default 2: each reads all that is stored.
    pub backups: usize,
    /// How long a backup waits for its reader to take a piece: meanwhile the store keeps what it would
    /// else have dropped. Default 60 s.
    pub backup_stall: Duration,
    /// How long shutdown waits for work in flight. Default 10 s.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            activity_bytes: MIB,
            channel_data_bytes: 64 * KIB,
            frame_bytes: 8 * MIB,
            page: 1_000,
            page_bytes: 4 * MIB,
            body_timeout: Duration::from_secs(30),
            direct_line_bytes: 64 * MIB,
            attachment_bytes: 20 * MIB,
            attachment_files: 20,
            attachment_retention: 7 * 24 * HOUR,
            ack_ids: 1_000,
            conversation_bots: 8,
            bot_run: 20,
            bot_handovers: 20,
            commit_sends: 64,
            commit_state_writes: 16,
            state_document_bytes: 256 * KIB,
            state_name_bytes: 256,
            key_bytes: 256,
            user_conversations: 100,
            scheduled_sends: 100,
            schedule_horizon: 90 * 24 * HOUR,
            hello_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(20),
            watch_report_interval: Duration::from_secs(15),
            connections: 50_000,
            watchers: 100_000,
            sessions: 100_000,
            session_credit_deliveries: 100_000,
            session_credit_bytes: 256 * MIB as i64,
            session_backlog_frames: 4_096,
            ephemerals_per_second: 20,
            ephemeral_backlog_frames: 64,
            feed_ephemerals: 16,
            stream_interval: Duration::from_millis(250),
            stream_grace: Duration::from_secs(10),
            delivery_streams: 8,
            session_stream_bytes: 8 * MIB,
            session_receipts: 1_024,
            delivery_deadline: Duration::from_secs(60),
            delivery_ceiling: HOUR,
            resume_grace: Duration::from_secs(30),
            lease_idle: Duration::from_secs(600),
            lease_patience: Duration::from_secs(5),
            leases: 100_000,
            delivery_window: 32,
            selectors: 32,
            delivery_attempts: 5,
            delivery_wait: Duration::from_secs(30),
            delivery_waiters: 10_000,
            creation_timeout: Duration::from_secs(30),
            creations: 1_000,
            shard_commands: 8_192,
            shard_bytes: 64 * MIB,
            shard_round: 1_024,
            feed_entries: 256,
            feed_bytes: MIB,
            conversation_idle: Duration::from_secs(10),
            conversations_idle: 10_000,
            log_retention: 7 * 24 * HOUR,
            idempotency_retention: 24 * HOUR,
            disk_reserve_bytes: 256 * MIB as u64,
            backups: 2,
            backup_stall: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
