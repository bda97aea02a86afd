//! A gateway played by a test: every stream that a client opens is handed to the test, which
//! reads and writes its frames one by one.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use crate::proto::bot_service_server::{BotService, BotServiceServer};
use crate::proto::channel_service_server::{ChannelService, ChannelServiceServer};
use crate::proto::{
    AttachRequest, AttachResponse, PostActivityRequest, PostActivityResponse, SubscribeRequest,
    SubscribeResponse,
};
use crate::{Client, ClientOptions};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// One stream, from the gateway's side.
pub(crate) struct Link<Q, R> {
    requests: Streaming<Q>,
    responses: mpsc::Sender<Result<R, Status>>,
}

impl<Q, R> Link<Q, R> {
    /// The client's next message; `None` when it has closed its side.
    pub(crate) async fn heard(&mut self) -> Option<Q> {
        let next = tokio::time::timeout(PATIENCE, self.requests.next()).await;
        next.expect("the client says something in time")?.ok()
    }

    pub(crate) async fn say(&self, response: R) {
        let said = self.responses.send(Ok(response)).await;
        said.expect("the client listens");
    }

    /// Ends the stream with a refusal.
    pub(crate) async fn end(self, code: Code, reason: &str) {
        let said = self.responses.send(Err(refusal(code, reason))).await;
        said.expect("the client listens");
    }
}

pub(crate) type BotLink = Link<SubscribeRequest, SubscribeResponse>;
pub(crate) type ChannelLink = Link<AttachRequest, AttachResponse>;

/// The streams that clients open.
pub(crate) struct Stage {
    bots: mpsc::Receiver<BotLink>,
    channels: mpsc::Receiver<ChannelLink>,
    pub(crate) client: Client,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let (bot_sender, bots) = mpsc::channel(4);
        let (channel_sender, channels) = mpsc::channel(4);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = tonic::transport::Server::builder()
            .add_service(BotServiceServer::new(Bots(Mutex::new(bot_sender))))
            .add_service(ChannelServiceServer::new(Channels(Mutex::new(
                channel_sender,
            ))))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let client = Client::connect(format!("http://{address}"), ClientOptions::default());
        Self {
            bots,
            channels,
            client: client.await.expect("a connection"),
        }
    }

    pub(crate) async fn bot(&mut self) -> BotLink {
        let link = tokio::time::timeout(PATIENCE, self.bots.recv()).await;
        link.expect("a bot comes in time").expect("a bot")
    }

    pub(crate) async fn channel(&mut self) -> ChannelLink {
        let link = tokio::time::timeout(PATIENCE, self.channels.recv()).await;
        link.expect("an adapter comes in time").expect("an adapter")
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "turnwire", HashMap::new());
    Status::with_error_details(code, "refused by the test", details)
}

type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

async fn hand_over<Q, R: Send + 'static>(
    links: &Mutex<mpsc::Sender<Link<Q, R>>>,
    requests: Streaming<Q>,
) -> Result<Response<Responses<R>>, Status> {
    let (responses, stream) = mpsc::channel(64);
    let link = Link {
        requests,
        responses,
    };
    let handed = links.lock().await.send(link).await;
    handed.map_err(|_| refusal(Code::Unavailable, "TEST_OVER"))?;
    Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
}

struct Bots(Mutex<mpsc::Sender<BotLink>>);

#[tonic::async_trait]
impl BotService for Bots {
    type SubscribeStream = Responses<SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        hand_over(&self.0, request.into_inner()).await
    }
}

struct Channels(Mutex<mpsc::Sender<ChannelLink>>);

#[tonic::async_trait]
impl ChannelService for Channels {
    type AttachStream = Responses<AttachResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        hand_over(&self.0, request.into_inner()).await
    }

    async fn post_activity(
        &self,
        _request: Request<PostActivityRequest>,
    ) -> Result<Response<PostActivityResponse>, Status> {
        Err(refusal(Code::NotFound, "CHANNEL_UNKNOWN"))
    }
}
