//! A user of a web chat: starts a conversation, opens its socket, and posts by other connections.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::http::Client;
use super::talk::{Talk, Turns};

/// How long a socket may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A socket's buffers, in bytes. There are thousands of them, and messages are short.
const BUFFER_BYTES: usize = 4 << 10;

/// One whose socket is open.
pub(super) struct User {
    pub(super) number: usize,
    pub(super) place: Place,
    pub(super) socket: Socket,
}

/// Where it may post.
pub(super) struct Place {
    path: String,
    token: String,
}

pub(super) struct Socket(WebSocketStream<TcpStream>);

/// What starting a conversation is answered with, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    conversation_id: String,
    token: String,
    stream_url: String,
}

/// A frame of the stream.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    activities: Vec<Said<'a>>,
}

/// An activity, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Said<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) from: Speaker<'a>,
    #[serde(default)]
    pub(super) text: Cow<'a, str>,
    pub(super) reply_to_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct Speaker<'a> {
    pub(super) role: Cow<'a, str>,
}

impl User {
    /// Starts a conversation and opens its stream.
    pub(super) async fn open(client: &mut Client, number: usize) -> anyhow::Result<Self> {
        let body = json!({ "user": { "id": id(number) } });
        let secret = client.line().secret().to_owned();
        let started = client.post("/conversations", &secret, &body).await?;
        let started: Started =
            serde_json::from_slice(&started).context("a conversation's start says little")?;
        let socket = client.line().connect().await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0);
        let opening =
            tokio_tungstenite::client_async_with_config(started.stream_url, socket, Some(config));
        let (socket, _) = tokio::time::timeout(OPEN_TIMEOUT, opening)
            .await
            .context("a socket was not opened in time")?
            .context("a socket was not opened")?;
        Ok(Self {
            number,
            place: Place {
                path: format!("/conversations/{}/activities", started.conversation_id),
                token: started.token,
            },
            socket: Socket(socket),
        })
    }
}

impl Socket {
    /// Reads what comes until something is wrong. `told` counts sockets that were sent a sign of life.
    pub(super) async fn stay(
        mut self,
        number: usize,
        talk: Arc<Talk>,
        told: Arc<AtomicUsize>,
    ) -> anyhow::Result<()> {
        let mut is_told = false;
        while let Some(message) = self.0.next().await {
            match message.context("a socket failed")? {
                Message::Text(text) if text.is_empty() => {
                    if !std::mem::replace(&mut is_told, true) {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::Text(text) => {
                    let frame: Frame<'_> =
                        serde_json::from_str(&text).context("a frame with no activities")?;
                    for said in &frame.activities {
                        talk.hear(number, said)?;
                    }
                }
                Message::Close(why) => bail!("the gateway closed a socket: {why:?}"),
                // Pings are answered as the next message is read.
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
        bail!("the gateway ended a socket")
    }
}

impl Place {
    /// Posts turns as they are due, one after the other.
    pub(super) async fn post(
        self,
        mut client: Client,
        number: usize,
        talk: Arc<Talk>,
        mut turns: Turns,
    ) -> anyhow::Result<()> {
        while let Some(turn) = turns.recv().await {
            // What Web Chat says, and what makes a post that is repeated the same one.
            let body = json!({
                "type": "message",
                "from": { "id": id(number), "role": "user" },
                "text": talk.question(number, turn),
                "channelData": { "clientActivityID": format!("{number}-{turn}") },
            });
            let answer = client.post(&self.path, &self.token, &body).await?;
            #[derive(Deserialize)]
            struct Posted {
                id: String,
            }
            let posted: Posted = serde_json::from_slice(&answer).context("a post has no id")?;
            ensure!(!posted.id.is_empty(), "a post has no id");
        }
        Ok(())
    }
}

fn id(number: usize) -> String {
    format!("user-{number}")
}
