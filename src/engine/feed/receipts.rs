//! Following receipts beside activities: another cursor, on what is settled.
//!
//! A channel settles its activities in the order of the log. So nothing is queued here either: the feed
//! says up to where everything is settled, and a follower reads what lies between there and what it was
//! told from the store.

use std::sync::Arc;

use super::{Feed, Follower};
use crate::engine::error::Error;
use crate::engine::log::Entry;
use crate::engine::receipt::{self, Receipt};
use crate::id::{ConversationNumber, Sequence};

/// Receipts that a follower reads at one time.
const PAGE: usize = 256;

/// What a follower is told.
#[derive(Debug)]
pub enum News {
    /// The next activities, at least one.
    Entries(Vec<Arc<Entry>>),
    /// Receipts of activities that came before, at least one, in the order of the log.
    Receipts(Vec<Receipt>),
}

impl Feed {
    /// Shows the followers that everything up to a position is settled, durably.
    pub(crate) fn settle(&self, sequence: Sequence) {
        self.progress.send_modify(|progress| {
            progress.settled = progress.settled.max(sequence);
        });
    }
}

impl Follower {
    /// Also returns receipts: those of activities after the position, and of earlier ones that were not
    /// settled when it began.
    #[must_use]
    pub fn with_receipts(mut self) -> Self {
        self.receipted = Some(self.settled.min(self.position));
        self
    }

    /// The next activities or receipts; waits until there are some. Safe to cancel, as
    /// [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn news(&mut self) -> Result<News, Error> {
        let Some(mut receipted) = self.receipted else {
            return Ok(News::Entries(self.next().await?));
        };
        loop {
            let position = self.position;
            let progress = *self
                .progress
                .wait_for(|progress| {
                    let due = progress.settled.min(position);
                    due > receipted || progress.last > position || progress.ended
                })
                .await
                .map_err(|_| Error::FollowAgain)?;
            // What comes before an activity in the log is told of before it.
            let due = progress.settled.min(position);
            if due <= receipted {
                return Ok(News::Entries(self.next().await?));
            }
            let range = receipted.next()..=due;
            let receipts = receipt::read(&*self.store, self.conversation, range, PAGE)?;
            receipted = match receipts.last() {
                Some(last) if receipts.len() == PAGE => last.sequence,
                // Not every position has a receipt.
                _ => due,
            };
            self.receipted = Some(receipted);
            if !receipts.is_empty() {
                return Ok(News::Receipts(receipts));
            }
        }
    }

    /// Waits until everything up to a position is settled.
    ///
    /// # Errors
    ///
    /// [`Error::FollowAgain`] when the feed has ended.
    pub(crate) async fn settled(&mut self, sequence: Sequence) -> Result<(), Error> {
        let progress = self
            .progress
            .wait_for(|progress| progress.settled >= sequence || progress.ended)
            .await
            .map_err(|_| Error::FollowAgain)?;
        if progress.settled < sequence {
            return Err(Error::FollowAgain);
        }
        Ok(())
    }

    /// The conversation that is followed.
    pub(crate) fn conversation(&self) -> ConversationNumber {
        self.conversation
    }
}
