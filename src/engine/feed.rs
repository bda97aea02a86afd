//! Following a conversation: history from the log, then live, without gap or double.
//!
//! A feed is a window on the newest activities and a signal that there are more. Followers never
//! queue: one that is slower than the window reads the log until it has caught up, so a slow reader
//! loses nothing and costs nothing.
//!
//! Beside it there is a lane of the newest ephemeral activities, for followers who ask for them. Each
//! knows after which entry it was shown, and is given in that place or not at all: who is behind the
//! lane has lost what was in it, and nothing else.

mod receipts;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::error::Error;
use crate::engine::log::{self, Entry, Page};
use crate::engine::receipt::Receipt;
use crate::id::{ConversationId, ConversationNumber, Sequence};
use crate::limits::Limits;
use crate::store::record::Span;
use crate::store::{Order, Store};

/// For how long something ephemeral is worth showing.
const EPHEMERAL: Duration = Duration::from_secs(10);

/// Something of a conversation that is seen as it happens, or not at all.
#[derive(Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// The activity, as an entry of no log: its sequence is zero.
    pub entry: Entry,
    /// The streamed reply of which it is a snapshot, or the end.
    pub stream: Option<Arc<str>>,
}

/// The live end of one conversation, shared by its shard and all who follow it.
#[derive(Debug)]
pub(crate) struct Feed {
    progress: watch::Sender<Progress>,
    recent: Mutex<Recent>,
    lane: Mutex<Lane>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The newest durable activity.
    last: Sequence,
    /// Ephemeral activities that were shown.
    shown: u64,
    /// Everything up to here was settled by the conversation's channel, durably.
    settled: Sequence,
    /// The conversation has left its shard's memory under the followers: nothing more will come.
    ended: bool,
}

#[derive(Debug, Default)]
struct Recent {
    /// Consecutive, newest at the back.
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

/// The newest ephemeral activities. Empty, it takes no memory of its own.
#[derive(Debug, Default)]
struct Lane {
    /// In the order of their numbers.
    items: VecDeque<Shown>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Shown {
    /// Counted from 1.
    number: u64,
    /// The newest entry when it was shown.
    after: Sequence,
    ephemeral: Arc<Ephemeral>,
}

impl Shown {
    fn bytes(&self) -> usize {
        self.ephemeral.entry.activity.len()
    }
}

impl Feed {
    /// A feed of a conversation whose newest durable activity is `last`, and whose channel has settled
    /// everything up to `settled`.
    #[must_use]
    pub(crate) fn new(last: Sequence, settled: Sequence) -> Arc<Self> {
        Arc::new(Self {
            progress: watch::Sender::new(Progress {
                last,
                shown: 0,
                settled,
                ended: false,
            }),
            recent: Mutex::default(),
            lane: Mutex::default(),
        })
    }

    /// Sends the followers away.
    pub(crate) fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// Shows a durable activity to the followers.
    ///
    /// # Panics
    ///
    /// When the activity is not the next one: followers rely on the order.
    pub(crate) fn publish(&self, entry: &Arc<Entry>, limits: &Limits) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.bytes += entry.activity.len();
            recent.entries.push_back(Arc::clone(entry));
            while recent.entries.len() > limits.feed_entries || recent.bytes > limits.feed_bytes {
                let Some(oldest) = recent.entries.pop_front() else {
                    break;
                };
                recent.bytes -= oldest.activity.len();
            }
        }
        // The window is filled before the signal, so that a follower that wakes finds the entry there.
        self.progress.send_modify(|progress| {
            assert_eq!(
                entry.sequence,
                progress.last.next(),
                "a feed shows every activity in order"
            );
            progress.last = entry.sequence;
        });
    }

    /// Empties the window: what was in it has changed, and followers read the log.
    pub(crate) fn forget(&self) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
    }

    /// Shows something ephemeral to the followers who ask for it. Takes the place of an older snapshot of
    /// the same reply, and of what is too old or too much.
    pub(crate) fn show(&self, ephemeral: &Arc<Ephemeral>, limits: &Limits) {
        // Its shard alone shows and publishes, so nothing comes between the look and the signal.
        let Progress { last, shown, .. } = *self.progress.borrow();
        let shown = Shown {
            number: shown + 1,
            after: last,
            ephemeral: Arc::clone(ephemeral),
        };
        {
            let mut lane = self.lane();
            let now = ephemeral.entry.append_time;
            lane.items.retain(|older| {
                let is_same =
                    older.ephemeral.stream.is_some() && older.ephemeral.stream == ephemeral.stream;
                !is_same && now.since(older.ephemeral.entry.append_time) < EPHEMERAL
            });
            lane.items.push_back(shown);
            lane.bytes = lane.items.iter().map(Shown::bytes).sum();
            while lane.items.len() > limits.feed_ephemerals || lane.bytes > limits.feed_bytes {
                let Some(oldest) = lane.items.pop_front() else {
                    break;
                };
                lane.bytes -= oldest.bytes();
            }
        }
        self.progress.send_modify(|progress| progress.shown += 1);
    }

    /// What was shown after the one with this number.
    fn shown_after(&self, number: u64) -> Vec<Shown> {
        let lane = self.lane();
        let newer = lane.items.iter().filter(|shown| shown.number > number);
        newer.cloned().collect()
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        // What one holder left is whole: its bytes are counted anew.
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows `position` in the window; `None` when the window starts later.
    fn recent_after(&self, position: Sequence) -> Option<Vec<Arc<Entry>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.entries.front()?.sequence;
        let skip = position.next().0.checked_sub(first.0)?;
        Some(recent.entries.iter().skip(skip as usize).cloned().collect())
    }
}

/// One reader of a conversation.
pub struct Follower {
    id: ConversationId,
    conversation: ConversationNumber,
    position: Sequence,
    /// What was settled when it began.
    settled: Span,
    /// Receipts up to here were returned; `None` when none are wanted.
    receipted: Option<Sequence>,
    progress: watch::Receiver<Progress>,
    feed: Arc<Feed>,
    store: Arc<dyn Store>,
    page: Page,
    /// Which ephemeral activities it was given, by their number; `None` when it wants none.
    seen: Option<u64>,
}

/// What a follower is given.
#[derive(Debug)]
pub enum Step {
    /// The next activities of the log, at least one.
    Entries(Vec<Arc<Entry>>),
    /// Something ephemeral.
    Ephemeral(Arc<Ephemeral>),
    /// Receipts of activities that came before, at least one, in the order of the log.
    Receipts(Vec<Receipt>),
}

impl Follower {
    /// A follower that has seen everything up to `position`, and that began when `settled` was settled.
    pub(crate) fn new(
        (id, conversation): (ConversationId, ConversationNumber),
        position: Sequence,
        settled: Span,
        feed: Arc<Feed>,
        store: Arc<dyn Store>,
        limits: &Limits,
    ) -> Self {
        Self {
            id,
            conversation,
            position,
            settled,
            receipted: None,
            progress: feed.progress.subscribe(),
            feed,
            store,
            page: Page {
                entries: limits.feed_entries,
                bytes: limits.feed_bytes,
            },
            seen: None,
        }
    }

    /// The same follower, who wants what is ephemeral as well: what is shown from now on.
    #[must_use]
    pub fn with_ephemeral(mut self) -> Self {
        self.seen = Some(self.progress.borrow().shown);
        self
    }

    /// Everything up to here was returned.
    #[must_use]
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// The next activities of the log, at least one, as [`step`](Self::step) gives them.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub async fn next(&mut self) -> Result<Vec<Arc<Entry>>, Error> {
        loop {
            if let Step::Entries(entries) = self.step().await? {
                return Ok(entries);
            }
        }
    }

    /// What comes next; waits until there is something. Safe to cancel: what was not returned is
    /// returned by the next call.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`] when the log cannot be read; [`Error::SequenceGone`] when retention
    /// overtook the follower; [`Error::FollowAgain`] when the feed has ended.
    pub async fn step(&mut self) -> Result<Step, Error> {
        loop {
            let (position, seen, receipted) = (self.position, self.seen, self.receipted);
            let progress = *self
                .progress
                .wait_for(|progress| {
                    let is_shown = seen.is_some_and(|seen| progress.shown > seen);
                    let is_settled = receipted
                        .is_some_and(|receipted| progress.settled.min(position) > receipted);
                    progress.last > position || is_shown || is_settled || progress.ended
                })
                .await
                .map_err(|_| Error::FollowAgain)?;
            // What comes before an activity in the log is told of before it.
            if let Some(receipts) = self.due_receipts(progress.settled)? {
                return Ok(Step::Receipts(receipts));
            }
            let mut last = progress.last;
            if let Some(seen) = &mut self.seen {
                let waiting = self.feed.shown_after(*seen);
                // What was shown before an entry that this follower has would come too late.
                let next = waiting.iter().find(|shown| shown.after >= position);
                match next {
                    Some(shown) if shown.after == position => {
                        *seen = shown.number;
                        return Ok(Step::Ephemeral(Arc::clone(&shown.ephemeral)));
                    }
                    Some(shown) => last = last.min(shown.after),
                    None => *seen = progress.shown.max(*seen),
                }
            }
            if last > position {
                return self.read_on(last).map(Step::Entries);
            }
            if progress.ended {
                return Err(Error::FollowAgain);
            }
        }
    }

    /// The entries after the position, up to `last`, and no more than a page.
    fn read_on(&mut self, last: Sequence) -> Result<Vec<Arc<Entry>>, Error> {
        let position = self.position;
        let recent = self.feed.recent_after(position).map(|mut entries| {
            entries.retain(|entry| entry.sequence <= last);
            entries
        });
        let entries = match recent {
            Some(entries) => entries,
            None => log::read(
                &*self.store,
                self.conversation,
                position.next(),
                last,
                Order::Ascending,
                self.page,
            )?,
        };
        match (entries.first(), entries.last()) {
            (Some(first), Some(newest)) if first.sequence == position.next() => {
                self.position = newest.sequence;
                Ok(entries)
            }
            (Some(first), _) => Err(Error::SequenceGone {
                first: first.sequence,
            }),
            (None, _) => Err(Error::SequenceGone { first: last.next() }),
        }
    }
}
