//! The watchers: WatchConversation with the activity left as it comes, in bytes.
//!
//! The client library decodes every activity into a message, which is what programs that read them
//! want; a thousand watchers of one conversation on the gateway's own machine would then measure
//! that. What is checked here is the order and that nothing is left out.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use turnwire_client::ClientOptions;

use super::race::Race;
use crate::cli::bench::latency::Latencies;
use crate::proto::server::WatchConversationResponse;
use crate::proto::server::watch_conversation_response::Step;
use crate::proto::v1::watch_conversation_request::Start;
use crate::proto::v1::{ConversationName, WatchConversationRequest};

const METHOD: PathAndQuery =
    PathAndQuery::from_static("/turnwire.v1.ConversationService/WatchConversation");

type Codec = tonic_prost::ProstCodec<WatchConversationRequest, WatchConversationResponse>;

/// A connection for watchers.
pub(super) struct Connection {
    channel: Channel,
    bearer: Option<MetadataValue<Ascii>>,
}

/// One watcher, which has everything up to a sequence.
pub(super) struct Watcher {
    stream: Streaming<WatchConversationResponse>,
    position: u64,
}

impl Connection {
    pub(super) async fn open(gateway: &str, token: Option<&str>) -> anyhow::Result<Self> {
        // As a client of the library is set up.
        let options = ClientOptions::default();
        let channel = Endpoint::from_shared(gateway.to_owned())?
            .connect_timeout(options.connect_timeout)
            .initial_stream_window_size(options.stream_window_bytes)
            .initial_connection_window_size(options.connection_window_bytes)
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| format!("cannot reach the gateway at `{gateway}`"))?;
        let bearer = token.map(|token| format!("Bearer {token}").parse());
        let bearer = bearer
            .transpose()
            .context("the token has characters that none may have")?;
        Ok(Self { channel, bearer })
    }

    /// Begins to watch after `position`.
    pub(super) async fn watch(
        &self,
        conversation: &ConversationName,
        position: u64,
    ) -> anyhow::Result<Watcher> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        let mut request = tonic::Request::new(WatchConversationRequest {
            conversation: Some(conversation.clone()),
            start: Some(Start::AfterSequence(position)),
            with_ephemeral: false,
            ..Default::default()
        });
        if let Some(bearer) = &self.bearer {
            request
                .metadata_mut()
                .insert("authorization", bearer.clone());
        }
        let response = client
            .server_streaming(request, METHOD, Codec::default())
            .await
            .context("a watcher was not let in")?;
        Ok(Watcher {
            stream: response.into_inner(),
            position,
        })
    }
}

impl Watcher {
    /// Watches until something is wrong; the measurement's end drops it. How long the activities
    /// took that came in the measured time is noted in `latencies`.
    pub(super) async fn run(
        mut self,
        race: Arc<Race>,
        measured: Range<Instant>,
        latencies: Arc<Mutex<Latencies>>,
    ) -> anyhow::Result<()> {
        loop {
            let response = self.stream.message().await.context("a watch was ended")?;
            let response = response.context("the gateway ended a watch")?;
            let Some(Step::Entry(entry)) = response.step else {
                continue;
            };
            ensure!(
                entry.sequence == self.position + 1,
                "a watcher got sequence {} after {}",
                entry.sequence,
                self.position
            );
            self.position = entry.sequence;
            let now = Instant::now();
            let latency = race.receive(entry.sequence, now);
            if measured.contains(&now) {
                // One that panicked ends the measurement.
                let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
                latencies.record(latency);
            }
        }
    }
}
