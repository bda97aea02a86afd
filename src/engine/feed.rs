//! Following a conversation: history from the log, then live, without gap or double.
//!
//! A feed is a window on the newest activities and a signal that there are more. Followers never
//! queue: one that is slower than the window reads the log until it has caught up, so a slow reader
//! loses nothing and costs nothing.

mod receipts;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::engine::error::Error;
use crate::engine::log::{self, Entry, Page};
use crate::id::{ConversationNumber, Sequence};
use crate::limits::Limits;
use crate::store::{Order, Store};

pub use receipts::News;

/// The live end of one conversation, shared by its shard and all who follow it.
#[derive(Debug)]
pub(crate) struct Feed {
    progress: watch::Sender<Progress>,
    recent: Mutex<Recent>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The newest durable activity.
    last: Sequence,
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

impl Feed {
    /// A feed of a conversation whose newest durable activity is `last`, and whose channel has settled
    /// everything up to `settled`.
    #[must_use]
    pub(crate) fn new(last: Sequence, settled: Sequence) -> Arc<Self> {
        Arc::new(Self {
            progress: watch::Sender::new(Progress {
                last,
                settled,
                ended: false,
            }),
            recent: Mutex::default(),
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
    conversation: ConversationNumber,
    position: Sequence,
    /// Everything up to here was settled when it began.
    settled: Sequence,
    /// Receipts up to here were returned; `None` when none are wanted.
    receipted: Option<Sequence>,
    progress: watch::Receiver<Progress>,
    feed: Arc<Feed>,
    store: Arc<dyn Store>,
    page: Page,
}

impl Follower {
    /// A follower that has seen everything up to `position`, and that began when everything up to `settled`
    /// was settled.
    pub(crate) fn new(
        conversation: ConversationNumber,
        position: Sequence,
        settled: Sequence,
        feed: Arc<Feed>,
        store: Arc<dyn Store>,
        limits: &Limits,
    ) -> Self {
        Self {
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
        }
    }

    /// Everything up to here was returned.
    #[must_use]
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// The next activities, at least one; waits until there is one. Safe to cancel: what was not
    /// returned is returned by the next call.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`] when the log cannot be read; [`Error::SequenceGone`] when retention
    /// overtook the follower; [`Error::FollowAgain`] when the feed has ended.
    pub async fn next(&mut self) -> Result<Vec<Arc<Entry>>, Error> {
        let position = self.position;
        let progress = *self
            .progress
            .wait_for(|progress| progress.last > position || progress.ended)
            .await
            .map_err(|_| Error::FollowAgain)?;
        let last = progress.last;
        if last <= position {
            return Err(Error::FollowAgain);
        }
        let entries = match self.feed.recent_after(position) {
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
