//! A connection to a gateway: where it is, who is calling, and how the transport is tuned.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::Error;
use crate::proto::admin_service_client::AdminServiceClient;
use crate::proto::bot_service_client::BotServiceClient;
use crate::proto::channel_service_client::ChannelServiceClient;
use crate::proto::conversation_service_client::ConversationServiceClient;
use crate::proto::state_service_client::StateServiceClient;

/// Largest message taken from the gateway. A page of a transcript is up to 4 MiB of activities
/// and one activity more, which tonic's default of 4 MiB would refuse.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The service that every stub is built on.
pub(crate) type Service = InterceptedService<Channel, Bearer>;

/// A secret that says who is calling. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl<T: Into<String>> From<T> for Token {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How to connect. The defaults suit bots and load generators alike.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Who is calling. Absent: a gateway that runs open on a loopback address needs none.
    pub token: Option<Token>,
    /// Longest wait for a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Bytes that may be in flight on one stream, 64 KiB to 2 GiB. Default 4 MiB: HTTP/2's own
    /// 64 KiB holds less than one large activity, and a stream that carries all of a bot's
    /// conversations would stop for a round trip after every hundred deliveries.
    pub stream_window_bytes: u32,
    /// The same for all streams of the connection together. Default 16 MiB, so that one stream
    /// that is not read cannot stop the others.
    pub connection_window_bytes: u32,
    /// How often an idle connection is probed, so that one that died without a word is noticed.
    /// Default 20 s.
    pub keepalive_interval: Duration,
    /// How long a probe may go unanswered before the connection is given up. Default 10 s.
    pub keepalive_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            token: None,
            connect_timeout: Duration::from_secs(5),
            stream_window_bytes: 4 * 1024 * 1024,
            connection_window_bytes: 16 * 1024 * 1024,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

impl ClientOptions {
    /// The default options with a token.
    #[must_use]
    pub fn with_token(token: impl Into<Token>) -> Self {
        Self {
            token: Some(token.into()),
            ..Self::default()
        }
    }
}

/// A connection to a gateway. Clones share it; it reconnects by itself when it is next used.
#[derive(Clone)]
pub struct Client {
    endpoint: Arc<str>,
    service: Service,
}

impl Client {
    /// Connects to a gateway, for example `http://127.0.0.1:7878`.
    ///
    /// # Errors
    ///
    /// [`Error::Endpoint`] and [`Error::Token`] when these cannot be used, and
    /// [`Error::Unreachable`] when nothing answers there. Whether the token is known shows with
    /// the first call.
    pub async fn connect(
        endpoint: impl Into<String>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let endpoint = endpoint.into();
        let bearer = Bearer::new(options.token.as_ref())?;
        let channel = configure(&endpoint, &options)?
            .connect()
            .await
            .map_err(|source| Error::Unreachable {
                endpoint: endpoint.clone(),
                source: Box::new(source),
            })?;
        Ok(Self {
            endpoint: endpoint.into(),
            service: InterceptedService::new(channel, bearer),
        })
    }

    /// Prepares a connection that is made by the first call. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Endpoint`] and [`Error::Token`], as [`connect`](Self::connect).
    pub fn connect_lazily(
        endpoint: impl Into<String>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let endpoint = endpoint.into();
        let bearer = Bearer::new(options.token.as_ref())?;
        let channel = configure(&endpoint, &options)?.connect_lazy();
        Ok(Self {
            endpoint: endpoint.into(),
            service: InterceptedService::new(channel, bearer),
        })
    }

    /// Where the gateway is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn bots(&self) -> BotServiceClient<Service> {
        BotServiceClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn channels(&self) -> ChannelServiceClient<Service> {
        ChannelServiceClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn conversation_service(&self) -> ConversationServiceClient<Service> {
        ConversationServiceClient::new(self.service.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn state_service(&self) -> StateServiceClient<Service> {
        StateServiceClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn admin_service(&self) -> AdminServiceClient<Service> {
        AdminServiceClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn error(&self, status: tonic::Status) -> Error {
        Error::from_status(&self.endpoint, status)
    }

    pub(crate) fn shared_endpoint(&self) -> Arc<str> {
        self.endpoint.clone()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Puts the token on every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: Option<&Token>) -> Result<Self, Error> {
        let Some(Token(token)) = token else {
            return Ok(Self(None));
        };
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Error::Token)?;
        // Keeps it out of HPACK's table and out of Debug.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

fn configure(endpoint: &str, options: &ClientOptions) -> Result<Endpoint, Error> {
    let refuse = |detail: &str| Error::Endpoint {
        endpoint: endpoint.to_owned(),
        detail: detail.to_owned(),
    };
    if !endpoint.starts_with("http://") {
        return Err(refuse("expected `http://HOST:PORT`"));
    }
    let configured =
        Endpoint::from_shared(endpoint.to_owned()).map_err(|error| refuse(&error.to_string()))?;
    Ok(configured
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        // A bot without work has an open stream and no traffic: exactly when a dead connection
        // must be noticed.
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_never_shown() -> Result<(), Error> {
        let options = ClientOptions::with_token("s3cret");
        assert!(!format!("{options:?}").contains("s3cret"));
        let client = Client::connect_lazily("http://127.0.0.1:1", options)?;
        assert!(!format!("{client:?}").contains("s3cret"));
        Ok(())
    }

    #[tokio::test]
    async fn a_token_with_a_line_break_is_refused_without_being_shown() {
        let result =
            Client::connect_lazily("http://127.0.0.1:1", ClientOptions::with_token("a\nb"));
        assert!(matches!(result, Err(Error::Token)));
    }

    #[tokio::test]
    async fn an_endpoint_needs_a_scheme() {
        for endpoint in ["127.0.0.1:7878", "ftp://gateway", "http://"] {
            let result = Client::connect_lazily(endpoint, ClientOptions::default());
            assert!(matches!(result, Err(Error::Endpoint { .. })), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let result = Client::connect("http://127.0.0.1:1", ClientOptions::default()).await;
        assert!(result.is_err_and(|error| error.is_unreachable() && error.is_retryable()));
    }
}
