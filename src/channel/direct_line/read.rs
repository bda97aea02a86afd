//! Reading a conversation: page by page, or as it happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::visibility::{self, Change, Changes, Moment};
use super::watermark::Watermark;
use super::{ActivitySet, Caller, DirectLine, Error, Ticket};
use crate::clock::Timestamp;
use crate::engine::log::{self, Entry, Page};
use crate::engine::{self, Conversation as Stored, Ephemeral, Follower, Start, Step};
use crate::id::{ConversationKey, ConversationNumber, Sequence};
use crate::store::Order;

/// For how long an indicator or a piece of a streamed reply is worth showing.
const LIVE: Duration = Duration::from_secs(10);
/// Streamed replies that a stream remembers to have shown.
const REPLIES: usize = 16;
/// A page of history, in bytes as activities are stored; one is returned whatever its size. Small,
/// because it is held as JSON until a client has read it.
const PAGE_BYTES: usize = 256 << 10;

impl DirectLine {
    /// The activities after a watermark, up to a page, and the new watermark. Empty only when there
    /// are no more.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationForeign`]; the engine's.
    pub async fn history(
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
        let reading = self.reading(key, &stored, position).await?;
        let mut activities = Vec::new();
        // An empty list says that there are no more, and what is not for clients fills no list.
        while activities.is_empty() && position < stored.last {
            let from = position.next().max(stored.first);
            let entries = self.page(stored.number, from, stored.last)?;
            let Some(last) = entries.last() else { break };
            position = last.sequence;
            for entry in &entries {
                activities.extend(reading.show(entry, Moment::History)?);
            }
            // Each page is read on this thread: others have their turn in between.
            tokio::task::yield_now().await;
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
        let reading = self.reading(key, &stored, start).await?;
        let follower = self.follow(&reading.key, start).await?;
        let until = Timestamp(claims.until.unwrap_or(claims.exp).saturating_mul(1_000));
        let ticket = self
            .inner
            .streams
            .open(claims, until)
            .ok_or(engine::Error::ShuttingDown)?;
        // Once more: when the streams were ended whose tokens are no longer good, this was either
        // among them, or finds it now.
        let serving = self.inner.serving.load_full();
        let site = serving.site_of(&claims.site, &claims.kid);
        site.ok_or(Error::CredentialUnknown)?;
        self.engine().metrics().watchers.inc();
        let stream = Stream {
            reading,
            follower,
            waiting: VecDeque::new(),
            replies: VecDeque::new(),
            _place: place,
        };
        Ok((stream, ticket))
    }

    /// Follows from a position on, or, when retention has taken what follows it, from the oldest that
    /// is kept: a client can do nothing about what is gone.
    async fn follow(&self, key: &ConversationKey, after: Sequence) -> Result<Follower, Error> {
        let follow = |start| self.engine().follow(key.clone(), start);
        let follower = match follow(Start::After(after)).await {
            Err(engine::Error::SequenceGone { .. }) => follow(Start::After(Sequence::START)).await,
            other => other,
        };
        Ok(follower?.with_ephemeral())
    }

    /// Begins to read after a position: finds the updates and deletions that came later.
    /// Conversations without any, which is most of them, say so at once; others are read through.
    async fn reading(
        &self,
        key: ConversationKey,
        stored: &Stored,
        after: Sequence,
    ) -> Result<Reading, Error> {
        let mut changes = Changes::default();
        let mut position = after;
        while position < stored.last_change {
            let from = position.next().max(stored.first);
            let entries = self.page(stored.number, from, stored.last_change)?;
            let Some(last) = entries.last() else { break };
            position = last.sequence;
            for entry in &entries {
                changes.note(entry);
            }
            tokio::task::yield_now().await;
        }
        Ok(Reading {
            line: self.clone(),
            key,
            number: stored.number,
            after,
            history: stored.last,
            changes,
        })
    }

    fn page(
        &self,
        conversation: ConversationNumber,
        from: Sequence,
        to: Sequence,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let page = Page {
            entries: self.engine().limits().page,
            bytes: PAGE_BYTES,
        };
        let entries = self
            .engine()
            .activities(conversation, from, to, Order::Ascending, page)?;
        Ok(entries)
    }
}

/// Whether an activity with this `channelData` is a piece of a streamed reply: see `visibility`.
fn is_piece(channel_data: &Value) -> bool {
    channel_data.get("streamType").is_some()
}

/// One client's reading of a conversation.
struct Reading {
    line: DirectLine,
    key: ConversationKey,
    number: ConversationNumber,
    /// Where it began.
    after: Sequence,
    /// What was there as it began: that is history.
    history: Sequence,
    /// What became of it.
    changes: Changes,
}

impl Reading {
    /// An entry as this client sees it; `None` when it is not for it.
    fn show(&self, entry: &Entry, moment: Moment) -> Result<Option<Value>, Error> {
        if visibility::is_change(entry) {
            return self.show_change(entry);
        }
        match self.changes.of(entry) {
            None => Ok(visibility::view(entry, moment)),
            Some(Change::Deleted) => Ok(None),
            Some(Change::Updated(sequence)) => {
                let update = self.entry(sequence)?;
                Ok(update.and_then(|update| visibility::view_updated(entry, &update)))
            }
        }
    }

    fn show_change(&self, change: &Entry) -> Result<Option<Value>, Error> {
        let position = log::position_of(&self.key.conversation, &change.activity_id);
        let was_shown = |position: Sequence| position > self.after;
        // In history it was shown in the place of what it changes; of several the last counts.
        let is_last = self
            .changes
            .of(change)
            .is_none_or(|last| visibility::is_last(change, last));
        if change.sequence <= self.history && (position.is_some_and(was_shown) || !is_last) {
            return Ok(None);
        }
        let original = match position {
            Some(position) => self.entry(position)?,
            None => None,
        };
        Ok(match original {
            Some(original) => visibility::view_updated(&original, change),
            None => visibility::view(change, Moment::History),
        })
    }

    fn entry(&self, sequence: Sequence) -> Result<Option<Arc<Entry>>, Error> {
        Ok(self.line.page(self.number, sequence, sequence)?.pop())
    }
}

/// What a client's stream shows: one activity a frame, in order, history first.
pub struct Stream {
    reading: Reading,
    follower: Follower,
    waiting: VecDeque<Arc<Entry>>,
    _place: crate::capacity::Share,
    /// Streamed replies of which its client was shown something, the newest last.
    replies: VecDeque<Arc<str>>,
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
                if let Some(view) = self.show(&entry)? {
                    return Ok(ActivitySet {
                        activities: vec![view],
                        watermark: Watermark(entry.sequence).to_string(),
                    });
                }
            }
            match self.follower.step().await {
                Ok(Step::Entries(entries)) => self.waiting.extend(entries),
                Ok(Step::Ephemeral(shown)) => {
                    if let Some(view) = self.show_ephemeral(&shown) {
                        return Ok(ActivitySet {
                            activities: vec![view],
                            // Where the client stands already: what is not logged moves nothing.
                            watermark: Watermark(self.follower.position()).to_string(),
                        });
                    }
                }
                // It asks for none.
                Ok(Step::Receipts(_)) => {}
                Err(engine::Error::FollowAgain | engine::Error::SequenceGone { .. }) => {
                    let (line, key) = (&self.reading.line, &self.reading.key);
                    self.follower = line.follow(key, self.follower.position()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Something ephemeral, as its client sees it.
    ///
    /// Web Chat knows a streamed reply by the id of its first activity. A client that comes while the
    /// reply grows has missed that, so what it is shown first has this id.
    fn show_ephemeral(&mut self, shown: &Ephemeral) -> Option<Value> {
        let line = &self.reading.line;
        if line.engine().clock().now().since(shown.entry.append_time) >= LIVE {
            return None;
        }
        let can = line.engine().capabilities(&self.reading.key.channel);
        let is_users = shown.entry.author.bot().is_none();
        let mut view = visibility::view(&shown.entry, Moment::Live)?;
        let is_piece = view.get("channelData").is_some_and(is_piece);
        if !is_users && !(if is_piece { can.streaming } else { can.typing }) {
            return None;
        }
        if let Some(id) = &shown.stream
            && !self.replies.contains(id)
        {
            if self.replies.len() >= REPLIES {
                self.replies.pop_front();
            }
            self.replies.push_back(Arc::clone(id));
            view["id"] = (**id).into();
        }
        Some(view)
    }

    fn show(&mut self, entry: &Entry) -> Result<Option<Value>, Error> {
        let now = self.reading.line.engine().clock().now();
        if entry.sequence <= self.reading.history {
            return self.reading.show(entry, Moment::History);
        }
        // From here on changes come as they happen.
        self.reading.changes.forget();
        let is_recent = now.since(entry.append_time) < LIVE;
        let moment = if is_recent {
            Moment::Live
        } else {
            Moment::History
        };
        self.reading.show(entry, moment)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reading.line.engine().metrics().watchers.dec();
    }
}
