//! Where calls go, and connections that make them one after another.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::uri::{Authority, Scheme};
use axum::http::{Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::channel::direct_line::BASE;
use crate::cli::exit::Usage;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway and a secret of a channel there.
#[derive(Clone)]
pub(super) struct Line {
    authority: Authority,
    secret: String,
}

/// A connection that is kept, and opened again when the gateway has closed it.
pub(super) struct Client {
    line: Line,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub(super) fn new(gateway: &str, secret: &str) -> anyhow::Result<Self> {
        let uri: Uri = gateway.parse().context("the gateway is no URL")?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(Usage("sockets are opened over plain `http` only".to_owned()).into());
        }
        let authority = uri.authority().context("the gateway has no host")?;
        Ok(Self {
            authority: authority.clone(),
            secret: secret.to_owned(),
        })
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// One that is not open yet.
    pub(super) fn client(&self) -> Client {
        Client {
            line: self.clone(),
            sender: None,
        }
    }

    /// A socket to the gateway.
    pub(super) async fn connect(&self) -> anyhow::Result<TcpStream> {
        let (host, port) = (self.authority.host(), self.authority.port_u16());
        let socket = TcpStream::connect((host.trim_matches(['[', ']']), port.unwrap_or(80))).await;
        let socket = socket.with_context(|| format!("cannot reach `{}`", self.authority))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

impl Client {
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// Opens the connection, unless it is open.
    pub(super) async fn open(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        let mut sender = self.sender.take();
        if let Some(open) = &mut sender
            && open.ready().await.is_err()
        {
            sender = None;
        }
        let sender = match sender {
            Some(open) => open,
            None => {
                let socket = TokioIo::new(self.line.connect().await?);
                let (sender, connection) = http1::handshake(socket).await?;
                // Ends with the sender; what goes wrong is told to whoever waits for an answer.
                tokio::spawn(connection);
                sender
            }
        };
        Ok(self.sender.insert(sender))
    }

    /// Posts to a path below the protocol's base, and returns the answer, which must be a success.
    pub(super) async fn post(
        &mut self,
        path: &str,
        bearer: &str,
        body: &Value,
    ) -> anyhow::Result<Bytes> {
        let request = Request::post(format!("{BASE}{path}"))
            .header(header::HOST, self.line.authority.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {bearer}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))?;
        let answering = async {
            let (head, body) = self.open().await?.send_request(request).await?.into_parts();
            anyhow::Ok((head.status, body.collect().await?.to_bytes()))
        };
        let answered = tokio::time::timeout(PATIENCE, answering).await;
        let (status, body) = answered.context("a post was not answered in time")??;
        let said = || String::from_utf8_lossy(&body);
        ensure!(
            status.is_success(),
            "a post was refused: {status} {}",
            said()
        );
        Ok(body)
    }
}
