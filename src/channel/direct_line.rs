//! Direct Line 3.0: what web chats speak. Secrets and tokens, conversations with watermarks, posts,
//! and a stream.
//!
//! [`DirectLine`] is what the sockets in `http/direct_line` call: every operation of the protocol, with
//! its rules. Section numbers in this module are those of the protocol's description that the rules
//! were taken from: 1 credentials, 2 operations, 3 the stream, 6 Web Chat, 9 where clients and the
//! documented service pull apart.
//!
//! A conversation's log is the same as everyone's. What makes it Direct Line is here: who may see it
//! (`token`), what of it (`visibility`), and from where on (`watermark`).

mod access;
mod conversations;
mod error;
mod inbound;
mod origin;
mod parameters;
mod read;
mod serving;
mod site;
mod streams;
mod token;
mod upload;
mod visibility;
mod watermark;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::Value;

use crate::capacity::{Capacity, Share};
use crate::engine::Engine;
use crate::files::Files;
use crate::id::ChannelId;
use crate::store;

pub use access::Caller;
pub use error::Error;
pub use origin::Origins;
pub use parameters::Parameters;
pub use read::Stream;
pub use serving::Serving;
pub use site::Site;
pub use streams::{Ending, Ticket};
pub use token::fresh_id;
pub use upload::Upload;

use streams::Streams;

/// Where the protocol's paths begin.
pub const BASE: &str = "/v3/directline";

/// Every channel that speaks Direct Line. Cheap to clone.
#[derive(Clone)]
pub struct DirectLine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    serving: ArcSwap<Serving>,
    /// Where the gateway listens: scheme and authority.
    base: String,
    streams: Arc<Streams>,
    /// Room for requests that are worked on, and for answers that wait to be read, in bytes.
    reading: Capacity,
    writing: Capacity,
    files: Files,
}

/// A channel that is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its id.
    pub channel: ChannelId,
    /// How it lets clients in.
    pub site: Site,
    /// Where bots of the Bot Framework's SDKs would call back.
    pub service_url: String,
}

/// A token, as clients are given it. Not to be shown, and so without `Debug`.
#[derive(Clone, Serialize)]
pub struct Grant {
    /// The conversation that it is good for.
    #[serde(rename = "conversationId")]
    pub conversation_id: String,
    /// The token.
    pub token: String,
    /// For how many seconds it is good.
    pub expires_in: u64,
}

/// A conversation, as clients are given it.
#[derive(Clone, Serialize)]
pub struct Conversation {
    /// The conversation, and a token for it.
    #[serde(flatten)]
    pub grant: Grant,
    /// Where its stream is, to be opened within a minute.
    #[serde(rename = "streamUrl")]
    pub stream_url: String,
}

/// Shows nothing.
impl std::fmt::Debug for DirectLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectLine(..)")
    }
}

/// Activities of a conversation, and the position of the last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivitySet {
    /// The activities, in order.
    pub activities: Vec<Value>,
    /// The position to go on after.
    pub watermark: String,
}

impl DirectLine {
    /// Serves these channels, and keeps what they upload among `files`. `base` is where the gateway
    /// listens: scheme and authority.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn new(
        engine: Engine,
        sites: Vec<Served>,
        base: String,
        files: Files,
    ) -> Result<Self, store::Error> {
        let serving = Serving::new(sites, engine.store())?;
        let room = engine.limits().direct_line_bytes;
        Ok(Self {
            inner: Arc::new(Inner {
                reading: Capacity::new(room),
                writing: Capacity::new(room),
                engine,
                serving: ArcSwap::from_pointee(serving),
                base,
                streams: Arc::new(Streams::default()),
                files,
            }),
        })
    }

    /// The engine that it serves.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Waits for room for a request that takes so many bytes while it is worked on.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when there is none within `body_timeout`.
    pub async fn room_to_read(&self, bytes: usize) -> Result<Share, Error> {
        self.room(&self.inner.reading, bytes).await
    }

    /// The same for an answer, until it is read.
    ///
    /// # Errors
    ///
    /// As [`room_to_read`](Self::room_to_read).
    pub async fn room_to_write(&self, bytes: usize) -> Result<Share, Error> {
        self.room(&self.inner.writing, bytes).await
    }

    async fn room(&self, room: &Capacity, bytes: usize) -> Result<Share, Error> {
        let timeout = self.engine().limits().body_timeout;
        let clock = self.engine().clock();
        tokio::select! {
            biased;
            share = room.take(bytes) => Ok(share),
            () = clock.sleep_until(clock.now().after(timeout)) => Err(Error::Busy),
        }
    }

    /// Ends every stream, opens no more, and waits until they are gone.
    pub async fn close(&self) {
        self.inner.streams.close();
        self.inner.streams.gone().await;
    }
}
