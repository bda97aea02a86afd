//! Reading a conversation: page by page, or as it happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::visibility::{self, Changes, Moment};
use super::watermark::Watermark;
use super::{ActivitySet, Caller, DirectLine, Error, Ticket};
use crate::clock::Timestamp;
use crate::engine::log::{Entry, Page};
use crate::engine::{self, Conversation as Stored, Follower, Start};
use crate::id::{ConversationKey, Sequence};
use crate::store::Order;

/// For how long an indicator or a piece of a streamed reply is worth showing.
const LIVE: Duration = Duration::from_secs(10);

impl DirectLine {
    /// The activities after a watermark, up to a page, and the new watermark. Empty only when there
    /// are no more.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationForeign`]; the engine's.
    pub fn history(
        &self,
        caller: &Caller,
        id: &str,
        watermark: Option<&str>,
    ) -> Result<ActivitySet, Error> {
        let key = self.place(caller, id)?;
        let after = watermark.and_then(Watermark::read);
        let after = after.map_or(Sequence::START, |mark| mark.0);
        let stored = match self.engine().conversation(&key) {
            Ok(stored) => stored,
            // The token says that there may be one.
            Err(engine::Error::ConversationUnknown(_)) if !caller.has_secret() => {
                return Ok(ActivitySet {
                    activities: Vec::new(),
                    watermark: Watermark(Sequence::START).to_string(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let mut position = after.min(stored.last);
        let changes = self.changes(&stored, position)?;
        let mut activities = Vec::new();
        // An empty list says that there are no more, and what is not for clients fills no list.
        while activities.is_empty() && position < stored.last {
            let from = position.next().max(stored.first);
            let entries = self.page(&stored, from, stored.last)?;
            let Some(last) = entries.last() else { break };
            position = last.sequence;
            let views = entries
                .iter()
                .filter_map(|entry| visibility::view(entry, Moment::History, &changes));
            activities.extend(views);
        }
        Ok(ActivitySet {
            activities,
            watermark: Watermark(position).to_string(),
        })
    }

    /// Opens a stream by its URL: the conversation's id, the watermark and the token in it.
    ///
    /// # Errors
    ///
    /// [`Error::CredentialUnknown`], [`Error::StreamUrlExpired`], [`Error::OriginUntrusted`],
    /// [`Error::ConversationForeign`], [`Error::TooManyWatchers`]; the engine's.
    pub async fn open_stream(
        &self,
        id: &str,
        watermark: Option<&str>,
        token: &str,
        origin: Option<&str>,
    ) -> Result<(Stream, Ticket), Error> {
        let caller = self.authorize_stream(token)?;
        self.check_origin(&caller, origin)?;
        let key = self.place(&caller, id)?;
        let claims = caller.claims().ok_or(Error::CredentialUnknown)?;
        let limit = self.engine().limits().watchers;
        let place = self.engine().watch_place();
        let place = place.ok_or(Error::TooManyWatchers { limit })?;
        let stored = self.engine().conversation(&key)?;
        let start = match Watermark::start(watermark) {
            Start::End => stored.last,
            Start::After(sequence) => sequence.min(stored.last),
        };
        let changes = self.changes(&stored, start)?;
        let follower = self.follow(&key, start).await?;
        let until = Timestamp(claims.until.unwrap_or(claims.exp).saturating_mul(1_000));
        let ticket = self
            .inner
            .streams
            .open(claims.jti.clone(), claims.sid.clone(), until)
            .ok_or(engine::Error::ShuttingDown)?;
        self.engine().metrics().watchers.inc();
        let stream = Stream {
            line: self.clone(),
            key,
            follower,
            history: stored.last,
            changes,
            waiting: VecDeque::new(),
            _place: place,
        };
        Ok((stream, ticket))
    }

    /// Follows from a position on, or, when retention has taken what follows it, from the oldest that
    /// is kept: a client can do nothing about what is gone.
    async fn follow(&self, key: &ConversationKey, after: Sequence) -> Result<Follower, Error> {
        let follow = |start| self.engine().follow(key.clone(), start);
        match follow(Start::After(after)).await {
            Err(engine::Error::SequenceGone { .. }) => {
                Ok(follow(Start::After(Sequence::START)).await?)
            }
            other => Ok(other?),
        }
    }

    /// The updates and deletions after a position. Conversations without any, which is most of them,
    /// say so at once; others are read through.
    fn changes(&self, stored: &Stored, after: Sequence) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        let mut position = after;
        while position < stored.last_change {
            let from = position.next().max(stored.first);
            let entries = self.page(stored, from, stored.last_change)?;
            let Some(last) = entries.last() else { break };
            position = last.sequence;
            for entry in &entries {
                changes.note(entry);
            }
        }
        Ok(changes)
    }

    fn page(
        &self,
        stored: &Stored,
        from: Sequence,
        to: Sequence,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let limits = self.engine().limits();
        let page = Page {
            entries: limits.page,
            bytes: limits.page_bytes,
        };
        let entries = self
            .engine()
            .activities(stored.number, from, to, Order::Ascending, page)?;
        Ok(entries)
    }
}

/// What a client's stream shows: one activity a frame, in order, history first.
pub struct Stream {
    line: DirectLine,
    key: ConversationKey,
    follower: Follower,
    /// What was there as it was opened is history.
    history: Sequence,
    changes: Changes,
    waiting: VecDeque<Arc<Entry>>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Stream {
    /// The next activity. Waits until there is one. Safe to cancel: what was not returned is returned
    /// by the next call.
    ///
    /// # Errors
    ///
    /// The engine's; the client has to come back.
    pub async fn next(&mut self) -> Result<ActivitySet, Error> {
        loop {
            while let Some(entry) = self.waiting.pop_front() {
                if let Some(view) = visibility::view(&entry, self.moment(&entry), &self.changes) {
                    return Ok(ActivitySet {
                        activities: vec![view],
                        watermark: Watermark(entry.sequence).to_string(),
                    });
                }
            }
            match self.follower.next().await {
                Ok(entries) => self.waiting.extend(entries),
                Err(engine::Error::FollowAgain | engine::Error::SequenceGone { .. }) => {
                    let position = self.follower.position();
                    self.follower = self.line.follow(&self.key, position).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn moment(&self, entry: &Entry) -> Moment {
        let now = self.line.engine().clock().now();
        if entry.sequence > self.history && now.since(entry.append_time) < LIVE {
            Moment::Live
        } else {
            Moment::History
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.line.engine().metrics().watchers.dec();
    }
}
