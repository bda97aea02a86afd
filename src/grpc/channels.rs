//! `turnwire.v1.ChannelService`: channels of kind `grpc`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::access::{admitted, answered, caller, require};
use super::bots::{RETRY_DELAY, check_instance, reason};
use super::stream::{self, About, Dialect, Opened, Rejected, Responses, time};
use super::{convert, creations, partials};
use crate::activity::validate;
use crate::auth::Principal;
use crate::engine::session::{Credit, Event};
use crate::engine::terms::Terms;
use crate::engine::{Engine, FrameError, Link, Nack, Opening};
use crate::id::{ChannelId, DeliveryId};
use crate::proto::server::attach_response::Frame;
use crate::proto::server::channel_service_server::ChannelService;
use crate::proto::server::{AttachResponse, Outbound};
use crate::proto::v1;
use crate::proto::v1::attach_request::Frame as Asked;
use crate::proto::v1::outcome::Result as Said;
use crate::status::Failure;

/// Outbound activities an adapter has at one time when it does not say.
const OUTSTANDING: u32 = 1_000;

/// Longest name of a Post, in bytes.
const POST_ID_BYTES: usize = 256;

/// The service.
pub(super) struct Service {
    engine: Engine,
}

impl Service {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl ChannelService for Service {
    async fn post_activity(
        &self,
        request: Request<v1::PostActivityRequest>,
    ) -> Result<Response<v1::PostActivityResponse>, Status> {
        let answer = async {
            let principal = caller(&request)?;
            let v1::PostActivityRequest {
                channel_id,
                activity,
            } = request.into_inner();
            let channel = ChannelId::from(channel_id);
            require_channel(&principal, &channel)?;
            let activity = activity.ok_or_else(|| Failure::RequestInvalid {
                field: "activity",
                problem: "is required".to_owned(),
            })?;
            let appended = self.engine.post(&channel, activity).await?;
            Ok(v1::PostActivityResponse {
                appended: Some(convert::appended(&appended)),
                repeated_post: appended.repeated,
            })
        };
        answered(&self.engine, answer.await)
    }

    type AttachStream = Responses<Adapter>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let principal = caller(&request)?;
        let admitted = admitted(&request)?;
        let dialect = Adapter {
            engine: self.engine.clone(),
            principal,
        };
        let responses = stream::start(dialect, self.engine.clone(), admitted, request.into_inner());
        Ok(Response::new(responses))
    }
}

/// How channel adapters speak.
pub(super) struct Adapter {
    engine: Engine,
    principal: Arc<Principal>,
}

impl Dialect for Adapter {
    type Request = v1::AttachRequest;
    type Response = AttachResponse;

    async fn open(&self, first: Self::Request) -> Result<Opened<Self>, Failure> {
        let Some(Asked::Hello(hello)) = first.frame else {
            return Err(Failure::HelloExpected);
        };
        check_instance(&hello.instance_id)?;
        let channel = ChannelId::from(hello.channel_id);
        require_channel(&self.principal, &channel)?;
        let limits = self.engine.limits();
        let outstanding = match hello.max_outstanding {
            0 => OUTSTANDING,
            asked => asked,
        };
        if i64::from(outstanding) > limits.session_credit_deliveries {
            return Err(Failure::HelloInvalid {
                field: "max_outstanding",
                problem: format!("must be from 1 to {}", limits.session_credit_deliveries),
            });
        }
        let credit = Credit {
            deliveries: i64::from(outstanding),
            bytes: limits.session_credit_bytes,
        };
        let capabilities = hello.capabilities;
        let terms = Terms::new(hello.instance_id, credit);
        let attached = self.engine.attach_channel(&channel, terms, capabilities);
        let Opening { link, events, .. } = attached.await?;
        let welcome = v1::AttachWelcome {
            session_id: link.session().id.to_string(),
            heartbeat_interval: Some(convert::duration(limits.heartbeat_interval)),
            max_activity_bytes: limits.activity_bytes as u32,
        };
        Ok(Opened {
            link,
            events,
            welcome: frame(Frame::Welcome(welcome)),
        })
    }

    async fn handle(
        &self,
        link: &Link,
        frame: u64,
        request: Self::Request,
    ) -> Result<(), Rejected> {
        match request.frame {
            None => Err(FrameError::Unknown.into()),
            Some(Asked::Hello(_)) => Err(FrameError::HelloRepeated.into()),
            Some(Asked::Post(post)) => {
                let length = post.post_id.len();
                if length > POST_ID_BYTES {
                    let problem = format!("has {length} bytes, more than {POST_ID_BYTES}");
                    return Err(FrameError::Invalid {
                        field: "post_id",
                        problem,
                    }
                    .into());
                }
                let about = post.post_id.clone();
                let activity = post.activity.ok_or_else(|| FrameError::Invalid {
                    field: "activity",
                    problem: "is required".to_owned(),
                });
                let activity = activity.about(&about, None)?;
                link.post(frame, post.post_id, activity)
                    .await
                    .about(&about, None)
            }
            Some(Asked::Outcome(outcome)) => outcome_of(link, frame, outcome).await,
            Some(Asked::StreamStopped(stopped)) => partials::stopped(link, stopped).await,
            Some(Asked::ConversationCreated(created)) => creations::answer(link, created),
            // To have been heard is all that a heartbeat is for.
            Some(Asked::Heartbeat(v1::AdapterHeartbeat {})) => Ok(()),
        }
    }

    fn say(event: Event) -> Option<Self::Response> {
        let said = match event {
            Event::Delivery(delivery) => Frame::Outbound(Outbound {
                delivery_id: delivery.id.0,
                conversation: Some(convert::name(&delivery.conversation)),
                sequence: delivery.sequence.0,
                attempt: delivery.attempt,
                activity: delivery.activity,
            }),
            Event::Posted(posted) => Frame::PostResult(v1::PostResult {
                post_id: posted.post_id,
                appended: Some(convert::appended(&posted.appended)),
                repeated_post: posted.appended.repeated,
            }),
            Event::Drain {
                reconnect_after,
                grace,
            } => Frame::Drain(v1::Drain {
                reconnect_after: Some(convert::duration(reconnect_after)),
                grace: Some(convert::duration(grace)),
            }),
            Event::Create(create) => Frame::CreateConversation(*create),
            Event::Refused(refused) => Frame::Error(stream::refusal(refused)),
            Event::Ephemeral(key, shown) => Frame::Ephemeral(convert::ephemeral(&key, &shown)),
            // Adapters neither ack nor send, are told no receipts since they tell them, and the end is the
            // stream's status.
            Event::Acked(_)
            | Event::Sent(_)
            | Event::Receipt(_)
            | Event::Revoked { .. }
            | Event::Cancelled(_)
            | Event::Drained
            | Event::End(_) => return None,
        };
        Some(frame(said))
    }

    fn beat(heartbeat: v1::GatewayHeartbeat) -> Self::Response {
        frame(Frame::Heartbeat(heartbeat))
    }
}

async fn outcome_of(link: &Link, frame: u64, outcome: v1::Outcome) -> Result<(), Rejected> {
    let id = DeliveryId(outcome.delivery_id);
    let handled = match outcome.result {
        None => Err(FrameError::Invalid {
            field: "result",
            problem: "is required".to_owned(),
        }
        .into()),
        Some(Said::Delivered(delivered)) => {
            let theirs = delivered.channel_activity_id;
            if theirs.len() > validate::ID_BYTES {
                let problem = format!(
                    "has {} bytes, more than {}",
                    theirs.len(),
                    validate::ID_BYTES
                );
                Err(FrameError::Invalid {
                    field: "delivered.channel_activity_id",
                    problem,
                }
                .into())
            } else {
                link.delivered(frame, id, (!theirs.is_empty()).then_some(theirs))
                    .await
            }
        }
        Some(Said::Failed(failed)) => {
            link.nack(frame, vec![id], Nack::Poison(reason(&failed.reason)), false)
                .await
        }
        Some(Said::Undetermined(undetermined)) => {
            link.undetermined(frame, id, reason(&undetermined.reason))
                .await
        }
        Some(Said::Retry(retry)) => match time("retry.delay", retry.delay, RETRY_DELAY) {
            Ok(delay) => link.nack(frame, vec![id], Nack::Retry(delay), false).await,
            Err(error) => Err(error.into()),
        },
    };
    handled.about("", Some(id))
}

fn require_channel(principal: &Principal, channel: &ChannelId) -> Result<(), Failure> {
    require(
        principal.may_use_channel(channel),
        principal,
        &format!("`channel:{channel}`"),
    )
}

fn frame(frame: Frame) -> AttachResponse {
    AttachResponse { frame: Some(frame) }
}
