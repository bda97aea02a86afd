//! Sessions: one attached stream of one bot instance, or of one channel adapter.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::engine::receipt::Receipted;
use crate::id::{BotId, ChannelId, ConversationKey, DeliveryId, Fence, Sequence, SessionId};
use crate::limits::Limits;
use crate::proto::v1;

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

/// What the engine tells a session's stream.
#[derive(Debug)]
pub enum Event {
    /// An activity for it.
    Delivery(Delivery),
    /// What became of acknowledgements.
    Acked(Vec<Acked>),
    /// What became of a send.
    Sent(Sent),
    /// What became of a post.
    Posted(Posted),
    /// A frame was refused.
    Refused(Refused),
    /// What became of an activity on its channel.
    Receipt(Box<Receipted>),
    /// A conversation is wanted.
    Create(Box<v1::CreateConversation>),
    /// The gateway is going down.
    Drain {
        /// When to reconnect, from now.
        reconnect_after: Duration,
        /// How long the gateway waits for work in flight.
        grace: Duration,
    },
    /// The session is over.
    End(Error),
}

/// One activity handed to a session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The delivery.
    pub id: DeliveryId,
    /// The conversation.
    pub conversation: ConversationKey,
    /// The activity's position in its log.
    pub sequence: Sequence,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The lease's fence.
    pub fence: Fence,
    /// When it is taken back; `None` while the session lives.
    pub deadline: Option<Timestamp>,
    /// The activity, encoded.
    pub activity: Bytes,
    /// Something was skipped before it.
    pub after_gap: bool,
}

/// What became of one acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The delivery.
    pub id: DeliveryId,
    /// What became of it.
    pub outcome: Outcome,
    /// What a commit appended.
    pub appended: Vec<Appended>,
}

/// Whether what cites a delivery was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, and durable.
    Ok,
    /// The session does not hold the delivery any more.
    Stale,
    /// There never was such a delivery.
    Unknown,
}

/// Where an activity was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The activity's id.
    pub activity_id: Arc<str>,
    /// Its position in the log.
    pub sequence: Sequence,
    /// This is the result of an earlier append with the same key.
    pub repeated: bool,
}

/// What became of a send.
#[derive(Debug)]
pub struct Sent {
    /// Which frame of the stream, from 1.
    pub frame: u64,
    /// The client's key.
    pub client_id: String,
    /// Where it was appended, or why it was not taken.
    pub result: Result<Appended, Outcome>,
}

/// What became of a post.
#[derive(Debug)]
pub struct Posted {
    /// The adapter's name for the frame.
    pub post_id: String,
    /// Where it was appended.
    pub appended: Appended,
}

/// A frame that was refused.
#[derive(Debug)]
pub struct Refused {
    /// Which frame of the stream, from 1.
    pub frame: u64,
    /// Why.
    pub error: Error,
    /// The frame's client id or post id, if it had one.
    pub client_id: String,
    /// The delivery the frame cited, if it did.
    pub delivery: Option<DeliveryId>,
}

/// One attached stream.
#[derive(Debug)]
pub struct Session {
    /// Its id in the API.
    pub id: SessionId,
    /// Its number inside.
    pub number: Number,
    /// Whose it is.
    pub subscriber: Subscriber,
    /// The process at the other end, as it names itself.
    pub instance: String,
    credit: Mutex<Credit>,
    outbox: mpsc::UnboundedSender<Event>,
    unread: Arc<Unread>,
    receipts: AtomicBool,
    ended: AtomicBool,
    ending: Notify,
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
    fewer: Notify,
    /// The stream is gone: nothing will be read any more.
    closed: AtomicBool,
}

impl Session {
    pub(crate) fn new(
        id: SessionId,
        number: Number,
        subscriber: Subscriber,
        instance: String,
    ) -> (Arc<Self>, Events) {
        // Unbounded by type, bounded by rule: deliveries by credit, everything else by
        // `session_backlog_frames`, since the stream stops reading frames above it.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let unread = Arc::new(Unread::default());
        let session = Arc::new(Self {
            id,
            number,
            subscriber,
            instance,
            credit: Mutex::default(),
            outbox,
            unread: Arc::clone(&unread),
            receipts: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            ending: Notify::new(),
        });
        (session, Events { inbox, unread })
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
        // A closed inbox means that the stream is gone; its detachment is on the way.
        let _ = self.outbox.send(event);
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
        let subscriber = Subscriber::Bot("echo".into());
        let (session, _) = Session::new("s".into(), Number(1), subscriber, "i".into());
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
