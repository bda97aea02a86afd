//! The streams that are open: one for each URL, and none for longer than its token is good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::token::Claims;
use crate::clock::{Clock, Timestamp};

/// Most streams that the tokens of one session have open at one time: a client has one, and a few more
/// while it comes back again and again.
const STREAMS_PER_SESSION: usize = 8;

/// Why a stream ends, other than by its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A newer one has the same URL, or there are too many of its session.
    Replaced,
    /// Its token is no longer good.
    Expired,
    /// The secret that its token was made with is no longer listed.
    Revoked,
    /// The gateway is shutting down.
    Closing,
}

/// Every open stream.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<Open>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Open {
    by_url: HashMap<String, Arc<Held>>,
    /// The same by the session of their token, which may have several.
    by_session: HashMap<String, Vec<Arc<Held>>>,
    closed: bool,
}

#[derive(Debug)]
struct Held {
    url: String,
    session: String,
    /// The channel, and by which of its secrets its token is good.
    site: String,
    secret: String,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    until: Timestamp,
    ending: Option<Ending>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Streams {
    /// Opens one, and ends an older one of the same URL. `None` once everything is closed.
    pub(super) fn open(self: &Arc<Self>, claims: &Claims, until: Timestamp) -> Option<Ticket> {
        let (url, session) = (claims.jti.clone(), claims.sid.clone());
        let (state, changes) = watch::channel(State {
            until,
            ending: None,
        });
        let held = Arc::new(Held {
            url: url.clone(),
            session: session.clone(),
            site: claims.site.clone(),
            secret: claims.kid.clone(),
            state,
        });
        {
            let mut open = self.lock();
            if open.closed {
                return None;
            }
            if let Some(older) = open.by_url.insert(url, Arc::clone(&held)) {
                older.end(Ending::Replaced);
            }
            let all = open.by_session.entry(session).or_default();
            let open = |held: &&Arc<Held>| held.state.borrow().ending.is_none();
            if all.iter().filter(open).count() >= STREAMS_PER_SESSION
                && let Some(oldest) = all.iter().find(open)
            {
                oldest.end(Ending::Replaced);
            }
            all.push(Arc::clone(&held));
            // Before anyone can close all and wait for none.
            self.count.send_modify(|count| *count += 1);
        }
        Some(Ticket {
            streams: Arc::clone(self),
            held,
            changes,
        })
    }

    /// The tokens of a session are good for longer, and so are its streams.
    pub(super) fn extend(&self, session: &str, until: Timestamp) {
        if let Some(all) = self.lock().by_session.get(session) {
            for held in all {
                held.state
                    .send_modify(|state| state.until = state.until.max(until));
            }
        }
    }

    /// Ends those whose channel, or the secret that their token was made with, is no longer good.
    pub(super) fn revoke(&self, is_good: impl Fn(&str, &str) -> bool) {
        for held in self.lock().by_session.values().flatten() {
            if !is_good(&held.site, &held.secret) {
                held.end(Ending::Revoked);
            }
        }
    }

    /// Ends all, and opens no more.
    pub(super) fn close(&self) {
        let mut open = self.lock();
        open.closed = true;
        for held in open.by_session.values().flatten() {
            held.end(Ending::Closing);
        }
    }

    /// Completes when none is open.
    pub(super) async fn gone(&self) {
        // The sender is this one's own.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Single inserts and removals: what one holder left is whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn end(&self, ending: Ending) {
        self.state.send_modify(|state| {
            state.ending.get_or_insert(ending);
        });
    }
}

/// An open stream's place. Dropped, the stream is no longer open.
#[derive(Debug)]
pub struct Ticket {
    streams: Arc<Streams>,
    held: Arc<Held>,
    changes: watch::Receiver<State>,
}

impl Ticket {
    /// Completes when the stream must end.
    pub async fn ended(&mut self, clock: &dyn Clock) -> Ending {
        loop {
            let state = *self.changes.borrow_and_update();
            if let Some(ending) = state.ending {
                return ending;
            }
            if state.until <= clock.now() {
                return Ending::Expired;
            }
            tokio::select! {
                // The sender is held by this ticket, too.
                _ = self.changes.changed() => {}
                // A refresh may have come at the same time: look again.
                () = clock.sleep_until(state.until) => {}
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        let is_this = |held: &Arc<Held>| Arc::ptr_eq(held, &self.held);
        if open.by_url.get(&self.held.url).is_some_and(is_this) {
            open.by_url.remove(&self.held.url);
        }
        if let Some(all) = open.by_session.get_mut(&self.held.session) {
            all.retain(|held| !is_this(held));
            if all.is_empty() {
                open.by_session.remove(&self.held.session);
            }
        }
        drop(open);
        self.streams.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::super::token::{Subject, Use};
    use super::*;
    use crate::clock::Manual;

    const START: Timestamp = Timestamp(1_000);

    fn open(streams: &Arc<Streams>, url: &str) -> Ticket {
        open_by(streams, url, "old")
    }

    fn open_by(streams: &Arc<Streams>, url: &str, secret: &str) -> Ticket {
        let until = START.after(Duration::from_secs(60));
        let ticket = streams.open(&claims(url, secret), until);
        ticket.expect("open")
    }

    fn claims(url: &str, secret: &str) -> Claims {
        let subject = Subject {
            site: "site".to_owned(),
            conversation: "c".to_owned(),
            user: None,
            name: None,
            kid: secret.to_owned(),
            sid: "session".to_owned(),
            origins: Vec::new(),
        };
        Claims::new(Use::Stream, subject, url.to_owned(), START, START)
    }

    #[tokio::test]
    async fn a_newer_stream_of_the_same_url_ends_the_older_and_no_other() {
        let (streams, clock) = (Arc::new(Streams::default()), Manual::new(START));
        let (mut first, mut other) = (open(&streams, "a"), open(&streams, "b"));
        let mut second = open(&streams, "a");
        assert_eq!(first.ended(&clock).await, Ending::Replaced);
        drop(first);
        assert!(second.ended(&clock).now_or_never().is_none());
        assert!(other.ended(&clock).now_or_never().is_none());
        drop(second);
        let mut third = open(&streams, "a");
        assert!(third.ended(&clock).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_token_and_a_refreshed_token_keeps_it() {
        let (streams, clock) = (Arc::new(Streams::default()), Manual::new(START));
        let mut ticket = open(&streams, "a");
        streams.extend("session", START.after(Duration::from_secs(90)));
        streams.extend("another", START.after(Duration::from_secs(900)));
        clock.advance(Duration::from_secs(89));
        assert!(ticket.ended(&clock).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert_eq!(ticket.ended(&clock).await, Ending::Expired);
    }

    #[tokio::test]
    async fn a_session_has_so_many_streams_and_the_oldest_goes() {
        let (streams, clock) = (Arc::new(Streams::default()), Manual::new(START));
        let urls = 0..STREAMS_PER_SESSION;
        let mut tickets: Vec<_> = urls.map(|url| open(&streams, &url.to_string())).collect();
        let mut newest = open(&streams, "newest");
        assert_eq!(tickets[0].ended(&clock).await, Ending::Replaced);
        assert!(tickets[1].ended(&clock).now_or_never().is_none());
        assert!(newest.ended(&clock).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_token_that_is_refreshed_in_time_keeps_a_stream_that_hears_of_it_late() {
        let (streams, clock) = (Arc::new(Streams::default()), Manual::new(START));
        let mut ticket = open(&streams, "a");
        let mut ended = Box::pin(ticket.ended(&clock));
        assert!((&mut ended).now_or_never().is_none());
        streams.extend("session", START.after(Duration::from_secs(90)));
        clock.advance(Duration::from_secs(89));
        assert!((&mut ended).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert_eq!(ended.await, Ending::Expired);
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_secret_of_its_token_and_no_other_does() {
        let (streams, clock) = (Arc::new(Streams::default()), Manual::new(START));
        let mut old = open_by(&streams, "a", "old");
        let mut new = open_by(&streams, "b", "new");
        streams.revoke(|site, secret| (site, secret) == ("site", "new"));
        assert_eq!(old.ended(&clock).await, Ending::Revoked);
        assert!(new.ended(&clock).now_or_never().is_none());
        streams.revoke(|_, _| false);
        assert_eq!(new.ended(&clock).await, Ending::Revoked);
    }

    #[tokio::test]
    async fn closing_ends_all_and_opens_none() {
        let (streams, clock) = (Arc::new(Streams::default()), Manual::new(START));
        let mut ticket = open(&streams, "a");
        streams.close();
        assert_eq!(ticket.ended(&clock).await, Ending::Closing);
        assert!(streams.gone().now_or_never().is_none());
        drop(ticket);
        streams.gone().await;
        let late = streams.open(&claims("b", "old"), START);
        assert!(late.is_none());
    }
}
