//! Sessions: one attached stream of one bot instance, or of one channel adapter; or, for a while, one
//! that has lost its stream and may come back.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::clock::Timestamp;
use crate::engine::delivery;
use crate::engine::error::Error;
use crate::engine::stream::Texts;
use crate::engine::terms::{Said, Selector, Terms};
use crate::id::{BotId, ChannelId, SessionId};
use crate::limits::Limits;

mod told;

pub use told::{Acked, Appended, Cancelled, Delivery, Event, Outcome, Posted, Refused, Sent};

/// Who reads a conversation's log and must not miss anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subscriber {
    /// A bot: reads what others say.
    Bot(BotId),
    /// A channel's egress: reads what bots say.
    Egress(ChannelId),
}

impl fmt::Display for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bot(bot) => write!(f, "bot:{bot}"),
            Self::Egress(channel) => write!(f, "channel:{channel}"),
        }
    }
}

/// A session's number within this run of the gateway; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(pub u64);

/// What a session can still be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Deliveries.
    pub deliveries: i64,
    /// Bytes of encoded activities.
    pub bytes: i64,
}

/// One session: an attached stream, or one that may come back.
#[derive(Debug)]
pub struct Session {
    /// Its id in the API.
    pub id: SessionId,
    /// Its number inside.
    pub number: Number,
    /// Which of its streams this is, from 0: each that resumes the session has one of its own, and
    /// what concerns an earlier one does not concern it.
    pub stream: u32,
    /// Whose it is.
    pub subscriber: Subscriber,
    /// The process at the other end, as it names itself.
    pub instance: String,
    /// Deliveries of one conversation at a time.
    pub window: usize,
    /// When it attached.
    pub since: Timestamp,
    /// What resumes it, and for how long after its stream is lost; `None` when nothing can.
    pub(crate) resumable: Option<Resumable>,
    selectors: Vec<Selector>,
    credit: Mutex<Credit>,
    outbox: mpsc::UnboundedSender<Event>,
    unread: Arc<Unread>,
    /// When a frame last came, in milliseconds.
    heard: AtomicU64,
    /// Shards that have not said yet that a draining session holds nothing of theirs.
    undrained: AtomicUsize,
    /// Its stream is lost.
    away: AtomicBool,
    /// It may not come back.
    closed: AtomicBool,
    receipts: AtomicBool,
    ended: AtomicBool,
    ending: Notify,
    /// What the replies take that it is making.
    pub(crate) texts: Arc<Texts>,
}

/// How a session is resumed.
#[derive(Clone, Debug)]
pub(crate) struct Resumable {
    /// What its Welcome said.
    pub(crate) token: Arc<str>,
    /// How long it outlives its stream.
    pub(crate) grace: Duration,
}

/// What makes a session, besides what its client asks for.
pub(crate) struct Identity {
    pub(crate) id: SessionId,
    pub(crate) number: Number,
    pub(crate) stream: u32,
    pub(crate) subscriber: Subscriber,
    pub(crate) resumable: Option<Resumable>,
    pub(crate) since: Timestamp,
    pub(crate) texts: Arc<Texts>,
}

/// The receiving end of a session's events. It ends when all who could tell the session something
/// have let go of it.
#[derive(Debug)]
pub struct Events {
    inbox: mpsc::UnboundedReceiver<Event>,
    unread: Arc<Unread>,
}

/// Events in the outbox that credit does not bound.
#[derive(Debug, Default)]
struct Unread {
    count: AtomicUsize,
    /// All events in the outbox.
    all: AtomicUsize,
    fewer: Notify,
    /// The stream is gone: nothing will be read any more.
    closed: AtomicBool,
}

impl Session {
    pub(crate) fn new(identity: Identity, terms: &Terms) -> (Arc<Self>, Events) {
        // Unbounded by type, bounded by rule: deliveries by credit, everything else by
        // `session_backlog_frames`, since the stream stops reading frames above it.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let unread = Arc::new(Unread::default());
        let session = Arc::new(Self {
            id: identity.id,
            number: identity.number,
            stream: identity.stream,
            subscriber: identity.subscriber,
            instance: terms.instance.clone(),
            window: terms.window.clamp(1, delivery::WAITING_ENTRIES),
            since: identity.since,
            resumable: identity.resumable,
            selectors: terms.selectors.clone(),
            credit: Mutex::default(),
            outbox,
            unread: Arc::clone(&unread),
            heard: AtomicU64::new(identity.since.0),
            undrained: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            receipts: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            ending: Notify::new(),
            texts: identity.texts,
        });
        (session, Events { inbox, unread })
    }

    /// Whether the session takes an activity.
    pub(crate) fn selects(&self, said: &Said<'_>) -> bool {
        self.selects_all() || self.selectors.iter().any(|one| one.matches(said))
    }

    /// Whether the session takes everything.
    pub(crate) fn selects_all(&self) -> bool {
        self.selectors.is_empty()
    }

    /// What resumes the session, if anything does.
    #[must_use]
    pub fn resume_token(&self) -> Option<&str> {
        self.resumable.as_ref().map(|resumable| &*resumable.token)
    }

    /// How long the session outlives its stream, if it does.
    #[must_use]
    pub fn resume_grace(&self) -> Option<Duration> {
        self.resumable.as_ref().map(|resumable| resumable.grace)
    }

    /// Notes that the session has lost its stream.
    pub(crate) fn lose(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    /// Whether the session is over whatever its client wants.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the session has lost its stream, and may come back.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Notes that the client has said something.
    pub fn hear(&self, now: Timestamp) {
        self.heard.store(now.0, Ordering::Relaxed);
    }

    /// When the client last said something.
    #[must_use]
    pub fn heard(&self) -> Timestamp {
        Timestamp(self.heard.load(Ordering::Relaxed))
    }

    /// Frames that wait for the client to read them, besides deliveries.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread.count.load(Ordering::Relaxed)
    }

    /// Begins to drain: each of `shards` says once that it has nothing of the session's.
    pub(crate) fn drain(&self, shards: usize) {
        // Once: shards say it once, too.
        let _ = self
            .undrained
            .compare_exchange(0, shards, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes that a shard has nothing more of the session's. The last one ends the stream.
    pub(crate) fn drained(&self) {
        if self.undrained.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tell(Event::Drained);
        }
    }

    /// Whether it is a channel adapter's.
    #[must_use]
    pub fn is_egress(&self) -> bool {
        matches!(self.subscriber, Subscriber::Egress(_))
    }

    /// Asks for receipts from now on.
    pub fn want_receipts(&self) {
        self.receipts.store(true, Ordering::Relaxed);
    }

    /// Whether it has asked for receipts.
    pub(crate) fn wants_receipts(&self) -> bool {
        self.receipts.load(Ordering::Relaxed)
    }

    /// What the session can still be sent.
    #[must_use]
    pub fn credit(&self) -> Credit {
        *self.lock_credit()
    }

    /// Adds to the credit.
    ///
    /// # Errors
    ///
    /// [`Error::CreditOutOfRange`] when a part of the grant is negative or takes the balance over its
    /// limit; the balance stays.
    pub fn grant(&self, grant: Credit, limits: &Limits) -> Result<(), Error> {
        let mut credit = self.lock_credit();
        let sum = |balance: i64, grant: i64, limit: i64, field: &'static str| {
            balance
                .checked_add(grant)
                .filter(|sum| grant >= 0 && *sum <= limit)
                .ok_or(Error::CreditOutOfRange {
                    field,
                    grant,
                    limit,
                })
        };
        *credit = Credit {
            deliveries: sum(
                credit.deliveries,
                grant.deliveries,
                limits.session_credit_deliveries,
                "deliveries",
            )?,
            bytes: sum(
                credit.bytes,
                grant.bytes,
                limits.session_credit_bytes,
                "bytes",
            )?,
        };
        Ok(())
    }

    /// Uses credit for one delivery of `bytes`, if there is enough.
    #[must_use]
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let mut credit = self.lock_credit();
        let bytes = bytes as i64;
        let enough = credit.deliveries >= 1 && credit.bytes >= bytes;
        if enough {
            credit.deliveries -= 1;
            credit.bytes -= bytes;
        }
        enough
    }

    /// Gives back the credit of a delivery that was not sent after all.
    pub(crate) fn refund(&self, bytes: usize) {
        let mut credit = self.lock_credit();
        credit.deliveries += 1;
        credit.bytes += bytes as i64;
    }

    /// Tells the stream something. What is said after the end is dropped.
    pub(crate) fn tell(&self, event: Event) {
        if !matches!(event, Event::Delivery(_)) {
            self.unread.count.fetch_add(1, Ordering::Relaxed);
        }
        self.unread.all.fetch_add(1, Ordering::Relaxed);
        // A closed inbox means that the stream is gone; its detachment is on the way.
        let _ = self.outbox.send(event);
    }

    /// Tells the stream something ephemeral, unless it is behind: then that is dropped.
    pub(crate) fn whisper(&self, event: Event, limits: &Limits) {
        if !self.is_behind(limits) {
            self.tell(event);
        }
    }

    /// Whether so much waits for the stream that it is told nothing ephemeral.
    pub(crate) fn is_behind(&self, limits: &Limits) -> bool {
        self.unread.all.load(Ordering::Relaxed) >= limits.ephemeral_backlog_frames
    }

    /// Tells the stream something it can do without, unless `most` frames wait for it. Returns whether
    /// it was told. Shards that tell at one time may go over by one each.
    pub(crate) fn offer(&self, event: Event, most: usize) -> bool {
        let has_room = self.unread.count.load(Ordering::Relaxed) < most;
        if has_room {
            self.tell(event);
        }
        has_room
    }

    /// Ends the session: its stream is told why, and it gets nothing more.
    pub(crate) fn end(&self, why: Error) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.tell(Event::End(why));
            self.ending.notify_one();
        }
    }

    /// Ends the session of a stream that says why by itself, for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.ending.notify_one();
        }
    }

    /// Whether the session is ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until the session is ended. One task may wait.
    pub async fn ended(&self) {
        self.ending.notified().await;
    }

    /// Waits until the client has read enough of what it was told: fewer than `frames` wait. Does not
    /// wait for a stream that is gone.
    pub async fn has_room(&self, frames: usize) {
        // A wake-up between the look and the wait is kept by the notify for the wait.
        while self.unread.count.load(Ordering::Relaxed) >= frames
            && !self.unread.closed.load(Ordering::Acquire)
        {
            self.unread.fewer.notified().await;
        }
    }

    fn lock_credit(&self) -> MutexGuard<'_, Credit> {
        // The balance is two numbers written together: valid whatever happened to another holder.
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// The next event; `None` when the engine has gone.
    pub fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Event>> {
        let event = std::task::ready!(self.inbox.poll_recv(cx));
        if event.is_some() {
            self.unread.all.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(event) = &event
            && !matches!(event, Event::Delivery(_))
        {
            self.unread.count.fetch_sub(1, Ordering::Relaxed);
            self.unread.fewer.notify_one();
        }
        std::task::Poll::Ready(event)
    }

    /// The next event; `None` when the engine has gone.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.unread.closed.store(true, Ordering::Release);
        self.unread.fewer.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(credit: Credit) -> Arc<Session> {
        let identity = Identity {
            id: "s".into(),
            number: Number(1),
            stream: 0,
            subscriber: Subscriber::Bot("echo".into()),
            resumable: None,
            since: Timestamp::default(),
            texts: Arc::default(),
        };
        let (session, _) = Session::new(identity, &Terms::default());
        session.grant(credit, &Limits::default()).unwrap();
        session
    }

    #[test]
    fn credit_is_never_exceeded_in_deliveries_or_bytes() {
        let session = session(Credit {
            deliveries: 2,
            bytes: 100,
        });
        assert!(!session.take(101));
        assert!(session.take(60));
        assert!(!session.take(60));
        assert!(session.take(40));
        assert!(!session.take(0));
    }

    #[test]
    fn a_grant_out_of_range_leaves_the_balance() {
        let limits = Limits::default();
        let session = session(Credit {
            deliveries: 1,
            bytes: 1,
        });
        for (deliveries, bytes) in [
            (-1, 0),
            (0, -1),
            (i64::MAX, 0),
            (0, i64::MAX),
            (5, i64::MIN),
        ] {
            assert!(
                session
                    .grant(Credit { deliveries, bytes }, &limits)
                    .is_err()
            );
        }
        assert_eq!(
            session.credit(),
            Credit {
                deliveries: 1,
                bytes: 1
            }
        );
        session
            .grant(
                Credit {
                    deliveries: 4,
                    bytes: 9,
                },
                &limits,
            )
            .unwrap();
        assert_eq!(
            session.credit(),
            Credit {
                deliveries: 5,
                bytes: 10
            }
        );
    }
}
