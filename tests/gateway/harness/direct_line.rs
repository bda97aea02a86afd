//! Clients of Direct Line 3.0: its operations over HTTP/1.1, and its stream over WebSocket.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Gateway, within};

const BASE: &str = "/v3/directline";

/// A message of a user.
pub(crate) fn says(user: &str, text: &str) -> Value {
    json!({"type": "message", "text": text, "from": {"id": user}})
}

/// A connection that failed.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Someone who calls, on a connection of their own.
pub(crate) struct Line {
    address: SocketAddr,
    credential: Option<String>,
    headers: Vec<(String, String)>,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Clone for Line {
    fn clone(&self) -> Self {
        Self {
            address: self.address,
            credential: self.credential.clone(),
            headers: self.headers.clone(),
            connection: Mutex::new(None),
        }
    }
}

impl Line {
    pub(super) fn new(address: SocketAddr, credential: Option<&str>) -> Self {
        Self {
            address,
            credential: credential.map(str::to_owned),
            headers: Vec::new(),
            connection: Mutex::new(None),
        }
    }

    /// The same caller with another credential.
    pub(crate) fn with(&self, credential: &str) -> Self {
        Self {
            credential: Some(credential.to_owned()),
            ..self.clone()
        }
    }

    /// The same caller without a credential.
    pub(crate) fn anonymous(&self) -> Self {
        Self {
            credential: None,
            ..self.clone()
        }
    }

    /// The same caller with one more header.
    pub(crate) fn header(&self, name: &str, value: &str) -> Self {
        let mut line = self.clone();
        line.headers.push((name.to_owned(), value.to_owned()));
        line
    }

    /// The same caller from a web page.
    pub(crate) fn page(&self, origin: &str) -> Self {
        self.header("origin", origin)
    }

    /// Goes to a gateway that was started again.
    pub(crate) fn at(&self, gateway: &Gateway) -> Self {
        self.to(gateway.address())
    }

    /// Goes elsewhere.
    pub(crate) fn to(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    /// Calls a path under the base.
    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let answer = self.try_call(method, path, body).await;
        answer.expect("an answer")
    }

    /// Calls a path under the base; the connection may fail.
    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failed> {
        within(path, self.send(method, path, body.into())).await
    }

    async fn send(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, Failed> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{BASE}{path}"))
            .header("host", self.address.to_string());
        if let Some(credential) = &self.credential {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).expect("a good request");
        let mut connection = self.connection.lock().await;
        let is_open = match connection.as_mut() {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            *connection = Some(self.connect().await?);
        }
        let open = connection.as_mut().expect("connected");
        let response = match open.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                *connection = None;
                return Err(error.into());
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer::new(head.status.as_u16(), head.headers, &body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failed> {
        let socket = TcpStream::connect(self.address).await?;
        let (open, connection) = handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(open)
    }

    pub(crate) async fn generate(&self, parameters: &Value) -> Answer {
        self.call("POST", "/tokens/generate", text(parameters))
            .await
    }

    pub(crate) async fn refresh(&self) -> Answer {
        self.call("POST", "/tokens/refresh", "").await
    }

    pub(crate) async fn start(&self, parameters: &Value) -> Answer {
        self.call("POST", "/conversations", text(parameters)).await
    }

    pub(crate) async fn reconnect(&self, id: &str, watermark: Option<&str>) -> Answer {
        let path = format!("/conversations/{id}{}", query(watermark));
        self.call("GET", &path, "").await
    }

    pub(crate) async fn history(&self, id: &str, watermark: Option<&str>) -> Answer {
        let path = format!("/conversations/{id}/activities{}", query(watermark));
        self.call("GET", &path, "").await
    }

    pub(crate) async fn post(&self, id: &str, activity: &Value) -> Answer {
        let path = format!("/conversations/{id}/activities");
        self.call("POST", &path, text(activity)).await
    }

    /// The whole history, page by page until one is empty.
    pub(crate) async fn everything(&self, id: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut watermark = None;
        loop {
            let page = self.history(id, watermark.as_deref()).await.is(200);
            let activities = page["activities"].as_array().expect("a list");
            if activities.is_empty() {
                return all;
            }
            all.extend(activities.iter().cloned());
            let next = page["watermark"].as_str().expect("a text");
            assert_ne!(watermark.as_deref(), Some(next), "it does not go on");
            watermark = Some(next.to_owned());
        }
    }

    /// Opens a stream by the URL that was given out for it, whatever host it names.
    pub(crate) async fn open(&self, url: &str) -> Result<Socket, Answer> {
        self.try_open(url).await.expect("an answer")
    }

    /// The same; the connection may fail.
    pub(crate) async fn try_open(&self, url: &str) -> Result<Result<Socket, Answer>, Failed> {
        let mut request = url.into_client_request().expect("a URL");
        for (name, value) in &self.headers {
            let name: hyper::header::HeaderName = name.parse().expect("a name");
            request
                .headers_mut()
                .insert(name, value.parse().expect("a value"));
        }
        let opened = async {
            let socket = TcpStream::connect(self.address).await?;
            client_async(request, socket).await
        };
        Ok(match within("a stream", opened).await {
            Ok((socket, _)) => Ok(Socket { socket }),
            Err(tungstenite::Error::Http(response)) => {
                let (head, body) = response.into_parts();
                let body = body.unwrap_or_default();
                Err(Answer::new(head.status.as_u16(), head.headers, &body))
            }
            Err(error) => return Err(error.into()),
        })
    }
}

fn text(body: &Value) -> String {
    match body {
        Value::Null => String::new(),
        body => body.to_string(),
    }
}

fn query(watermark: Option<&str>) -> String {
    watermark.map_or_else(String::new, |mark| format!("?watermark={mark}"))
}

/// What a call is answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    fn new(status: u16, headers: HeaderMap, body: &[u8]) -> Self {
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        Self {
            status,
            headers,
            body,
        }
    }

    /// The body of what must have this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.body
    }

    /// Checks that it is a refusal as documented, with this status and this code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        let error = &self.body["error"];
        let got = (self.status, error["code"].as_str());
        assert_eq!(got, (status, Some(code)), "{self:?}");
        let message = error["message"].as_str();
        assert!(
            message.is_some_and(|message| !message.is_empty()),
            "{self:?}"
        );
    }

    /// Checks the status only: of a refused stream its client sees no more.
    #[track_caller]
    pub(crate) fn refused_by(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A user in a conversation, with its token.
#[derive(Clone)]
pub(crate) struct Chat {
    pub(crate) line: Line,
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) url: String,
    user: String,
}

impl Chat {
    /// Starts one for a user.
    pub(crate) async fn start(line: &Line, user: &str) -> Self {
        let started = line.start(&json!({"user": {"id": user}})).await.is(201);
        Self::of(line, &started, user)
    }

    /// The conversation that starting or coming back was answered with.
    pub(crate) fn of(line: &Line, conversation: &Value, user: &str) -> Self {
        let member = |name: &str| conversation[name].as_str().expect(name).to_owned();
        let token = member("token");
        Self {
            line: line.with(&token),
            id: member("conversationId"),
            token,
            url: member("streamUrl"),
            user: user.to_owned(),
        }
    }

    /// Says something. Returns the id that it got.
    pub(crate) async fn says(&self, text: &str) -> String {
        self.posts(&says(&self.user, text)).await
    }

    /// Posts an activity. Returns the id that it got.
    pub(crate) async fn posts(&self, activity: &Value) -> String {
        let posted = self.line.post(&self.id, activity).await.is(200);
        posted["id"].as_str().expect("an id").to_owned()
    }

    /// Opens the stream whose URL it has.
    pub(crate) async fn stream(&self) -> Socket {
        self.line.open(&self.url).await.expect("it is let in")
    }

    /// Comes back, as a client does that was cut.
    pub(crate) async fn back(&mut self, watermark: Option<&str>) -> Socket {
        let answer = self.line.reconnect(&self.id, watermark).await.is(200);
        *self = Self::of(&self.line, &answer, &self.user);
        self.stream().await
    }

    /// The same conversation by way of another caller.
    pub(crate) fn over(&self, line: Line) -> Self {
        Self {
            line,
            ..self.clone()
        }
    }

    /// Goes to a gateway that was started again.
    pub(crate) fn at(&self, gateway: &Gateway) -> Self {
        Self {
            line: self.line.at(gateway),
            ..self.clone()
        }
    }

    /// The whole history.
    pub(crate) async fn everything(&self) -> Vec<Value> {
        self.line.everything(&self.id).await
    }

    /// What was said, by the history.
    pub(crate) async fn texts(&self) -> Vec<String> {
        let all = self.everything().await;
        let texts = all.iter().filter_map(|activity| activity["text"].as_str());
        texts.map(str::to_owned).collect()
    }
}

/// What comes down a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// An activity, and the watermark after it.
    Activity(Value, String),
    /// The empty text that keeps a stream alive.
    Empty,
    /// The gateway closed it, with a code and a reason.
    Close(u16, String),
    /// The connection is gone.
    Gone,
}

/// An open stream.
pub(crate) struct Socket {
    socket: WebSocketStream<TcpStream>,
}

impl Socket {
    /// The next frame, whatever it is.
    pub(crate) async fn frame(&mut self) -> Frame {
        loop {
            let text = match within("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(close))) => {
                    let close = close.expect("the gateway says why");
                    return Frame::Close(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(other)) => panic!("no frame of this protocol: {other:?}"),
                Some(Err(_)) | None => return Frame::Gone,
            };
            if text.is_empty() {
                return Frame::Empty;
            }
            let set: Value = serde_json::from_str(&text).expect("JSON");
            let watermark = set["watermark"].as_str().expect("a text");
            assert!(!watermark.is_empty(), "a watermark says something");
            let activities = set["activities"].as_array().expect("a list");
            assert_eq!(activities.len(), 1, "one activity a frame");
            return Frame::Activity(activities[0].clone(), watermark.to_owned());
        }
    }

    /// The next activity and the watermark after it.
    #[track_caller]
    pub(crate) fn entry(&mut self) -> impl Future<Output = (Value, String)> + '_ {
        let place = std::panic::Location::caller();
        async move {
            loop {
                match self.frame().await {
                    Frame::Activity(activity, watermark) => return (activity, watermark),
                    Frame::Empty => {}
                    other => panic!("at {place}: no activity but {other:?}"),
                }
            }
        }
    }

    /// The next activity.
    #[track_caller]
    pub(crate) fn next(&mut self) -> impl Future<Output = Value> + '_ {
        let entry = self.entry();
        async move { entry.await.0 }
    }

    /// The next activity must say this. Returns the watermark after it.
    #[track_caller]
    pub(crate) fn expect<'a>(&'a mut self, text: &'a str) -> impl Future<Output = String> + 'a {
        let place = std::panic::Location::caller();
        let entry = self.entry();
        async move {
            let (activity, watermark) = entry.await;
            assert_eq!(activity["text"], *text, "at {place}: {activity}");
            watermark
        }
    }

    /// How the stream ends, past what still comes.
    pub(crate) async fn end(&mut self) -> Frame {
        loop {
            match self.frame().await {
                Frame::Activity(..) | Frame::Empty => {}
                end => return end,
            }
        }
    }

    /// Sends a message.
    pub(crate) async fn write(&mut self, message: Message) {
        self.try_write(message).await.expect("it goes");
    }

    /// Sends a message that may not be taken.
    pub(crate) async fn try_write(&mut self, message: Message) -> Result<(), Failed> {
        Ok(within("a message to go", self.socket.send(message)).await?)
    }

    /// The connection itself, for what no client would send.
    pub(crate) fn raw(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }
}
