//! Connections, clients and what calls end with.

use std::net::SocketAddr;

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

use super::within;

/// Largest message a test takes.
const MESSAGE_BYTES: usize = 64 << 20;

pub(crate) type Service = InterceptedService<Channel, Bearer>;

/// A connection, and who calls over it.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) channel: Channel,
    bearer: Bearer,
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
    let channel = within("a connection", endpoint.connect()).await;
    Wire {
        channel: channel.expect("it listens"),
        bearer: Bearer(token.map(str::to_owned)),
    }
}

impl Wire {
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
