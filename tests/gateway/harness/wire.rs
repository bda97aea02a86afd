//! Connections, clients and what calls end with.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use turnwire::proto::v1::admin_service_client::AdminServiceClient;
use turnwire::proto::v1::bot_service_client::BotServiceClient;
use turnwire::proto::v1::channel_service_client::ChannelServiceClient;
use turnwire::proto::v1::conversation_service_client::ConversationServiceClient;
use turnwire::proto::v1::state_service_client::StateServiceClient;

use super::within;

/// Largest message a test takes.
const MESSAGE_BYTES: usize = 64 << 20;

pub(crate) type Service = InterceptedService<Channel, Bearer>;

/// A connection, and who calls over it.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) channel: Channel,
    bearer: Bearer,
    socket: Arc<TcpStream>,
}

/// Shows a token with every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}"));
            let value = value.map_err(|_| Status::internal("no such token"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Opens a connection.
pub(super) async fn connect(address: SocketAddr, token: Option<&str>) -> Wire {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let socket = within("a connection", tokio::net::TcpStream::connect(address)).await;
    let socket = socket.and_then(|socket| {
        // As every client does. Without it a frame waits for what acknowledges the one before.
        socket.set_nodelay(true)?;
        socket.into_std()
    });
    let socket = socket.expect("it listens");
    let kept = Arc::new(socket.try_clone().expect("a second handle"));
    let mut once = Some(socket);
    let connector = tower::service_fn(move |_| {
        let socket = once.take().ok_or(std::io::ErrorKind::NotConnected);
        std::future::ready(
            socket
                .map_err(std::io::Error::from)
                .and_then(tokio::net::TcpStream::from_std)
                .map(hyper_util::rt::TokioIo::new),
        )
    });
    let channel = within("a connection", endpoint.connect_with_connector(connector)).await;
    Wire {
        channel: channel.expect("it speaks HTTP/2"),
        bearer: Bearer(token.map(str::to_owned)),
        socket: kept,
    }
}

impl Wire {
    /// What breaks the connection: nothing more is said on it, not even goodbye.
    pub(super) fn scissors(&self) -> impl FnOnce() + Send + use<> {
        let socket = Arc::clone(&self.socket);
        // One that is broken already needs no breaking.
        move || drop(socket.shutdown(std::net::Shutdown::Both))
    }

    fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Service> {
        AdminServiceClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn bots(&self) -> BotServiceClient<Service> {
        BotServiceClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn channels(&self) -> ChannelServiceClient<Service> {
        ChannelServiceClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn conversations(&self) -> ConversationServiceClient<Service> {
        ConversationServiceClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn state(&self) -> StateServiceClient<Service> {
        StateServiceClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }
}

/// The stable reason in a status.
pub(super) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "turnwire");
    info.reason
}

/// Checks that a call was refused, with this code and this reason. Returns the facts it gave.
#[track_caller]
pub(crate) fn refused<T>(
    result: Result<T, Status>,
    code: Code,
    why: &str,
) -> std::collections::HashMap<String, String> {
    let Err(status) = result else {
        panic!("it was let through, and should be refused with {why}")
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, why),
        "{status:?}"
    );
    status
        .get_details_error_info()
        .map_or_else(Default::default, |info| info.metadata)
}
