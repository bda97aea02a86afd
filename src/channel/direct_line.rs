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
mod site;
mod streams;
mod token;
mod upload;
mod visibility;
mod watermark;

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::engine::Engine;
use crate::files::Files;
use crate::id::ChannelId;
use crate::store;

pub use access::Caller;
pub use error::Error;
pub use origin::Origins;
pub use parameters::Parameters;
pub use read::Stream;
pub use site::Site;
pub use streams::{Ending, Ticket};
pub use token::fresh_id;
pub use upload::Upload;

use streams::Streams;
use token::SigningKey;

/// Where the protocol's paths begin.
pub const BASE: &str = "/v3/directline";

/// Every channel that speaks Direct Line. Cheap to clone.
#[derive(Clone)]
pub struct DirectLine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    sites: Vec<(ChannelId, Site)>,
    key: SigningKey,
    streams: Arc<Streams>,
    files: Files,
}

/// A token, as clients are given it.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
    /// Serves these channels, and keeps what they upload among `files`.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn new(
        engine: Engine,
        sites: Vec<(ChannelId, Site)>,
        files: Files,
    ) -> Result<Self, store::Error> {
        let key = SigningKey::load(engine.store())?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                sites,
                key,
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

    /// Ends every stream, opens no more, and waits until they are gone.
    pub async fn close(&self) {
        self.inner.streams.close();
        self.inner.streams.gone().await;
    }
}
