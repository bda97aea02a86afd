//! Sessions, as operators see them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::engine::command::{Backlog, Command, Description};
use crate::engine::error::Error;
use crate::engine::session::{Credit, Number, Session, Subscriber};

/// An adapter has no deadline: one that has had an activity for so long looks deaf.
const ADAPTER_DEADLINE: Duration = Duration::from_secs(60);
/// How long something may wait for a session without credit before that looks deaf.
const WITHOUT_CREDIT: Duration = Duration::from_secs(60);

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It gets what there is.
    Open,
    /// It has lost its stream, and may come back.
    Away,
    /// It finishes what it holds.
    Draining,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its id in the API.
    pub id: String,
    /// Whose it is.
    pub subscriber: Subscriber,
    /// The process, as it names itself.
    pub instance: String,
    /// What it is doing.
    pub doing: Doing,
    /// When it attached.
    pub since: Timestamp,
    /// When it last said anything.
    pub heard: Timestamp,
    /// Deliveries of one conversation at a time.
    pub window: usize,
    /// What it can still be sent.
    pub credit: Credit,
    /// Conversations that are its.
    pub leases: u64,
    /// Deliveries that it has.
    pub held: u64,
    /// When the oldest of them was handed over.
    pub held_since: Option<Timestamp>,
    /// Frames that it was told and has not read.
    pub unread: usize,
    /// What waits for its subscriber.
    pub backlog: Backlog,
    /// Whether it looks as if nobody were at the other end.
    pub deaf: bool,
}

impl Engine {
    /// The sessions, by subscriber and instance.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn list_sessions(&self) -> Result<Vec<SessionInfo>, Error> {
        let mut answers = Vec::new();
        for shard in 0..self.shards() {
            let (reply, answer) = oneshot::channel();
            self.command(shard, Command::Describe(reply)).await?;
            answers.push(answer);
        }
        let mut described: HashMap<Number, Vec<Description>> = HashMap::new();
        for answer in answers {
            for part in answer.await.map_err(|_| Error::ShuttingDown)? {
                described.entry(part.session).or_default().push(part);
            }
        }
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        let mut infos: Vec<_> = sessions
            .iter()
            .map(|session| {
                let parts = described.remove(&session.number).unwrap_or_default();
                self.describe(session, &parts)
            })
            .collect();
        infos.sort_by_cached_key(|info| (info.subscriber.to_string(), info.instance.clone()));
        Ok(infos)
    }

    fn describe(&self, session: &Session, parts: &[Description]) -> SessionInfo {
        let doing = match (session.is_away(), parts.iter().any(|part| part.is_draining)) {
            (true, _) => Doing::Away,
            (false, true) => Doing::Draining,
            (false, false) => Doing::Open,
        };
        let mut info = SessionInfo {
            id: session.id.to_string(),
            subscriber: session.subscriber.clone(),
            instance: session.instance.clone(),
            doing,
            since: session.since,
            heard: session.heard(),
            window: session.window,
            credit: session.credit(),
            leases: parts.iter().map(|part| part.leases).sum(),
            held: parts.iter().map(|part| part.held).sum(),
            held_since: parts.iter().filter_map(|part| part.held_since).min(),
            unread: session.unread(),
            backlog: self.backlog(&session.subscriber),
            deaf: false,
        };
        info.deaf = doing != Doing::Away && self.looks_deaf(&info);
        info
    }

    /// The connection is up, since it would be gone without heartbeats; but what is sent there seems to
    /// reach nobody who works.
    fn looks_deaf(&self, info: &SessionInfo) -> bool {
        let now = self.clock().now();
        let deadline = match &info.subscriber {
            Subscriber::Bot(bot) => self.delivery_deadline(bot),
            Subscriber::Egress(_) => ADAPTER_DEADLINE,
        };
        let older_than = |at: Option<Timestamp>, age| at.is_some_and(|at| now.since(at) >= age);
        let has_no_credit = info.credit.deliveries <= 0 || info.credit.bytes <= 0;
        let starves = has_no_credit && older_than(info.backlog.oldest, WITHOUT_CREDIT);
        let does_not_read = info.unread >= self.limits().session_backlog_frames / 2;
        older_than(info.held_since, deadline / 2) || starves || does_not_read
    }
}
