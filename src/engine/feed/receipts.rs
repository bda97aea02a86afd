//! Following receipts beside activities: another cursor, on what is settled.
//!
//! A channel settles its activities in the order of the log. So nothing is queued here either: the feed
//! says up to where everything is settled, and a follower reads what lies between there and what it was
//! told from the store.

use super::{Feed, Follower};
use crate::engine::error::Error;
use crate::engine::log;
use crate::engine::receipt::{self, Receipt};
use crate::id::{ConversationId, ConversationNumber, Sequence};
use crate::store::Order;
use crate::store::record::Span;

/// Positions whose receipts a follower reads at one time.
const PAGE: u64 = 256;

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
        self.receipted = Some(self.settled.to.min(self.position));
        self
    }

    /// The next receipts that are due, when everything up to `settled` is settled; `None` when there are
    /// none, or none are wanted.
    pub(super) fn due_receipts(
        &mut self,
        settled: Sequence,
    ) -> Result<Option<Vec<Receipt>>, Error> {
        let due = settled.min(self.position);
        while let Some(receipted) = self.receipted.filter(|receipted| due > *receipted) {
            let page = due.min(Sequence(receipted.0.saturating_add(PAGE)));
            let (receipts, to) = self.receipts(receipted.next(), page)?;
            self.receipted = Some(to);
            // Not every position has a receipt.
            if !receipts.is_empty() {
                return Ok(Some(receipts));
            }
        }
        Ok(None)
    }

    /// The receipts from one position to another, or as far as a page of the log goes, and how far that
    /// is.
    fn receipts(&self, from: Sequence, to: Sequence) -> Result<(Vec<Receipt>, Sequence), Error> {
        let (store, conversation) = (&*self.store, self.conversation());
        if from > self.settled.to {
            // It was there to be told, so all is kept.
            return Ok((receipt::read(store, conversation, from..=to)?, to));
        }
        let to = to.min(self.settled.to);
        let order = Order::Ascending;
        let entries = log::read(store, self.conversation, from, to, order, self.page)?;
        let to = entries.last().map_or(to, |last| last.sequence);
        let receipts = receipt::said(store, conversation, self.settled, &entries)?;
        Ok((receipts.into_iter().flatten().collect(), to))
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

    /// What was settled when it began.
    pub(crate) fn settled_before(&self) -> Span {
        self.settled
    }

    /// The conversation that is followed.
    pub(crate) fn conversation(&self) -> (&ConversationId, ConversationNumber) {
        (&self.id, self.conversation)
    }
}
