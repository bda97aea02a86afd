//! A body as a stream that is never read far ahead.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::{Stream, StreamExt as _};

/// How many bytes may be read that nobody has taken, before another piece of the body is: the headers
/// of a part have to fit, and this is all of an upload that is in memory beside one such piece.
const AHEAD_BYTES: usize = 64 << 10;

/// A request's body. What reads it as a stream can be dropped, and the rest still be read.
pub(super) struct Source {
    shared: Arc<Shared>,
}

struct Shared {
    body: Mutex<BodyDataStream>,
    ahead: AtomicUsize,
}

/// Why a body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Body(#[from] axum::Error),
    #[error("the headers of a part have more than {AHEAD_BYTES} bytes")]
    TooFarAhead,
}

impl Source {
    pub(super) fn new(body: Body) -> Self {
        let shared = Shared {
            body: Mutex::new(body.into_data_stream()),
            ahead: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Reads on. At one time there should be one.
    pub(super) fn stream(&self) -> Pieces {
        Pieces {
            shared: Arc::clone(&self.shared),
            has_given: false,
        }
    }

    /// What was read until now has been used.
    pub(super) fn taken(&self) {
        self.shared.ahead.store(0, Ordering::Relaxed);
    }

    /// Reads and forgets, `most` bytes or until it ends.
    pub(super) async fn drain(&self, most: usize) {
        let mut left = most;
        let mut pieces = self.stream();
        self.taken();
        while let Some(Ok(piece)) = pieces.next().await {
            self.taken();
            match left.checked_sub(piece.len()) {
                Some(fewer) => left = fewer,
                None => return,
            }
        }
    }
}

/// The body, piece by piece.
pub(super) struct Pieces {
    shared: Arc<Shared>,
    has_given: bool,
}

impl Stream for Pieces {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The reader of parts takes all that there is before it gives any of it on.
        if std::mem::take(&mut self.has_given) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.shared.ahead.load(Ordering::Relaxed) > AHEAD_BYTES {
            return Poll::Ready(Some(Err(Error::TooFarAhead)));
        }
        let next = {
            let mut body = self.shared.body.lock();
            let body = body.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut());
            ready!(body.poll_next_unpin(cx))
        };
        let next = next.map(|piece| piece.map_err(Error::from));
        if let Some(Ok(data)) = &next {
            self.shared.ahead.fetch_add(data.len(), Ordering::Relaxed);
            self.has_given = true;
        }
        Poll::Ready(next)
    }
}
