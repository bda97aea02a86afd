//! A bidirectional gRPC stream to another process that sends everything back.
//!
//! A turn is two messages there and two back, one after the other: question, delivery, commit,
//! answer. Messages are bytes, which nobody encodes or looks into.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context as TaskContext, Poll};

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use turnwire_client::ClientOptions;

use super::{MEASURED, WARMUP};
use crate::cli::bench::child::{LISTENING, Process};
use crate::cli::bench::latency::Latencies;
use crate::cli::bench::load::Level;
use crate::cli::output;

/// What starts the other process: the arguments of this program.
pub(in crate::cli::bench) const COMMAND: &str = "echo-server";

const PATH: &str = "/turnwire.bench.Echo/Echo";

/// Messages there and back in a turn.
const ROUND_TRIPS: u8 = 2;

/// Bytes at the beginning of a message that say its conversation.
const NUMBER_BYTES: usize = 8;

pub(super) async fn measure(level: &Level) -> anyhow::Result<Latencies> {
    let server = Process::start(["bench", COMMAND]).await?;
    let mut streams = JoinSet::new();
    for stream in 0..level.streams {
        let conversations = (stream..level.conversations).step_by(level.streams);
        let (count, size) = (conversations.count(), level.size);
        streams.spawn(talk(server.address().to_owned(), count, size));
    }
    let mut turns = Latencies::new()?;
    while let Some(ended) = streams.join_next().await {
        turns.add(&ended??)?;
    }
    Ok(turns)
}

/// Has one stream's conversations take turns until the time is over.
async fn talk(address: String, conversations: usize, size: usize) -> anyhow::Result<Latencies> {
    // As the client library has it.
    let options = ClientOptions::default();
    let channel = Endpoint::from_shared(address)?
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .tcp_nodelay(true)
        .connect()
        .await?;
    let (sender, requests) = mpsc::channel(conversations.max(1));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let request = Request::new(ReceiverStream::new(requests));
    let path = http::uri::PathAndQuery::from_static(PATH);
    let responses = client.streaming(request, path, Raw).await?;
    let mut responses: Streaming<Bytes> = responses.into_inner();

    let mut latencies = Latencies::new()?;
    let begin = Instant::now() + WARMUP;
    let end = begin + MEASURED;
    // When each conversation's turn began, and how many messages of it came back.
    let mut turns = vec![(Instant::now(), 0); conversations];
    for conversation in 0..conversations {
        let mut message = vec![b'x'; size.max(NUMBER_BYTES)];
        message[..NUMBER_BYTES].copy_from_slice(&(conversation as u64).to_be_bytes());
        sender.send(Bytes::from(message)).await?;
    }
    while let Some(message) = responses.message().await? {
        let number = message.clone().try_get_u64().ok();
        let turn = number.and_then(|number| turns.get_mut(usize::try_from(number).ok()?));
        let (began, round_trips) = turn.context("a message of no conversation")?;
        *round_trips += 1;
        if *round_trips == ROUND_TRIPS {
            let now = Instant::now();
            if now >= end {
                return Ok(latencies);
            }
            if now >= begin {
                latencies.record(now.saturating_duration_since(*began));
            }
            (*began, *round_trips) = (now, 0);
        }
        sender.send(message).await?;
    }
    anyhow::bail!("the stream has ended")
}

/// Serves until it is killed.
pub(in crate::cli::bench) async fn serve() -> anyhow::Result<()> {
    let options = ClientOptions::default();
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())
        .context("cannot listen")?
        .with_nodelay(Some(true));
    output::line(&format!("{LISTENING}http://{}", incoming.local_addr()?))?;
    Server::builder()
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .add_service(Echo)
        .serve_with_incoming(incoming)
        .await
        .context("cannot serve")
}

#[derive(Clone, Debug)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "turnwire.bench.Echo";
}

impl<B> Service<http::Request<B>> for Echo
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(grpc.streaming(SendBack, request).await)
        })
    }
}

struct SendBack;

impl StreamingService<Bytes> for SendBack {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
