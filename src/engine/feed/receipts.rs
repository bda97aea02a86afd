//! Following receipts beside activities: another cursor, on what is settled.
//!
//! A channel settles its activities in the order of the log. So nothing is queued here either: the feed
//! says up to where everything is settled, and a follower reads what lies between there and what it was
//! told from the store.

use super::{Feed, Follower};
use crate::engine::error::Error;
use crate::engine::receipt::{self, Receipt};
use crate::id::{ConversationId, ConversationNumber, Sequence};

/// Receipts that a follower reads at one time.
const PAGE: usize = 256;

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

    /// The next receipts that are due, when everything up to `settled` is settled; `None` when there are
    /// none, or none are wanted.
    pub(super) fn due_receipts(
        &mut self,
        settled: Sequence,
    ) -> Result<Option<Vec<Receipt>>, Error> {
        let due = settled.min(self.position);
        let Some(receipted) = self.receipted.filter(|receipted| due > *receipted) else {
            return Ok(None);
        };
        let range = receipted.next()..=due;
        let receipts = receipt::read(&*self.store, self.conversation(), range, PAGE)?;
        self.receipted = Some(match receipts.last() {
            Some(last) if receipts.len() == PAGE => last.sequence,
            // Not every position has a receipt.
            _ => due,
        });
        Ok((!receipts.is_empty()).then_some(receipts))
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
    pub(crate) fn conversation(&self) -> (&ConversationId, ConversationNumber) {
        (&self.id, self.conversation)
    }
}
