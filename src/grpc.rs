//! The gRPC services, one file each: they translate between frames and the engine, and decide
//! nothing but who may call.

mod access;
mod admin;
mod bots;
mod channels;
mod conversations;
mod convert;
mod creations;
mod membership;
mod page;
mod partials;
mod state;
mod stream;
mod watch;

use std::sync::Arc;

use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::auth::Authenticator;
use crate::engine::Engine;
use crate::files::Files;
use crate::proto;
use crate::proto::server::admin_service_server::AdminServiceServer;
use crate::proto::server::bot_service_server::BotServiceServer;
use crate::proto::server::channel_service_server::ChannelServiceServer;
use crate::proto::server::conversation_service_server::ConversationServiceServer;
use crate::proto::server::state_service_server::StateServiceServer;

/// The services on one set of routes. Health and reflection are open to everyone: they say nothing
/// about conversations.
///
/// # Errors
///
/// The descriptors that reflection serves cannot be read: a broken build.
pub async fn routes(
    engine: &Engine,
    files: &Files,
    authenticator: Arc<Authenticator>,
) -> Result<Routes, tonic_reflection::server::Error> {
    let limit = engine.limits().frame_bytes;
    let check = access::Check::new(engine.clone(), authenticator);
    let bots =
        BotServiceServer::new(bots::Service::new(engine.clone())).max_decoding_message_size(limit);
    let channels = ChannelServiceServer::new(channels::Service::new(engine.clone()))
        .max_decoding_message_size(limit);
    let conversations = ConversationServiceServer::new(conversations::Service::new(engine.clone()))
        .max_decoding_message_size(limit);
    let state = StateServiceServer::new(state::Service::new(engine.clone()))
        .max_decoding_message_size(limit);
    let admin = AdminServiceServer::new(admin::Service::new(engine.clone(), files.clone()))
        .max_decoding_message_size(limit);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<BotServiceServer<bots::Service>>()
        .await;
    reporter
        .set_serving::<ChannelServiceServer<channels::Service>>()
        .await;
    reporter
        .set_serving::<ConversationServiceServer<conversations::Service>>()
        .await;
    reporter
        .set_serving::<StateServiceServer<state::Service>>()
        .await;
    reporter
        .set_serving::<AdminServiceServer<admin::Service>>()
        .await;
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(InterceptedService::new(bots, check.clone()))
        .add_service(InterceptedService::new(channels, check.clone()))
        .add_service(InterceptedService::new(conversations, check.clone()))
        .add_service(InterceptedService::new(state, check.clone()))
        .add_service(InterceptedService::new(admin, check))
        .add_service(health)
        .add_service(descriptors().build_v1()?)
        // What older tools still ask for.
        .add_service(descriptors().build_v1alpha()?))
}
