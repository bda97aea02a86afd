//! `turnwire.v1.BotService`: the bot's link.

use std::time::Duration;

use tonic::{Request, Response, Status, Streaming};

use super::access::{admitted, caller, require};
use super::stream::{self, About, Dialect, Opened, Rejected, Responses, ids, time};
use super::{convert, partials, state};
use crate::activity::validate;
use crate::auth::Principal;
use crate::engine::session::{Credit, Event};
use crate::engine::terms::{Resume, Selector, Terms};
use crate::engine::{Engine, FrameError, Link, Nack, Opening};
use crate::id::{BotId, ChannelId, ConversationKey, DeliveryId};
use crate::limits::Limits;
use crate::proto::server::bot_service_server::BotService;
use crate::proto::server::subscribe_response::Frame;
use crate::proto::server::{Delivery, SubscribeResponse};
use crate::proto::v1;
use crate::proto::v1::subscribe_request::Frame as Asked;
use crate::status::Failure;

/// The protocol version that the gateway speaks.
const PROTOCOL: u32 = 1;
/// Longest instance id, in bytes.
pub(super) const INSTANCE_BYTES: usize = 128;
/// Longest reason that is kept with a dead letter, in bytes.
const REASON_BYTES: usize = 1_024;
/// How long a nack may ask to wait.
pub(super) const RETRY_DELAY: std::ops::RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(600);
/// How long an extension may be.
const EXTENSION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(600);

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
impl BotService for Service {
    type SubscribeStream = Responses<Bot>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let principal = caller(&request)?;
        let admitted = admitted(&request)?;
        let dialect = Bot {
            engine: self.engine.clone(),
            principal,
        };
        let responses = stream::start(dialect, self.engine.clone(), admitted, request.into_inner());
        Ok(Response::new(responses))
    }
}

/// How bots speak.
pub(super) struct Bot {
    engine: Engine,
    principal: std::sync::Arc<Principal>,
}

impl Dialect for Bot {
    type Request = v1::SubscribeRequest;
    type Response = SubscribeResponse;

    async fn open(&self, first: Self::Request) -> Result<Opened<Self>, Failure> {
        let Some(Asked::Hello(hello)) = first.frame else {
            return Err(Failure::HelloExpected);
        };
        let (min, max) = (hello.min_protocol.max(1), hello.max_protocol.max(1));
        if !(min..=max).contains(&PROTOCOL) {
            return Err(Failure::ProtocolUnsupported { min, max });
        }
        check_instance(&hello.instance_id)?;
        let bot = BotId::from(hello.bot_id);
        require(
            self.principal.may_be_bot(&bot),
            &self.principal,
            &format!("`bot:{bot}`"),
        )?;
        let asks_to_resume = hello
            .resume
            .as_ref()
            .is_some_and(|resume| !resume.session_id.is_empty());
        let terms = Terms {
            instance: hello.instance_id,
            credit: credit(hello.credit.unwrap_or_default()),
            window: window(hello.window, self.engine.limits().delivery_window)?,
            selectors: selectors(hello.selectors, self.engine.limits().selectors)?,
            resume: resume(hello.resume, &self.engine.limits())?,
        };
        let Opening {
            link,
            events,
            resumed,
        } = self.engine.attach_bot(&bot, terms).await?;
        if hello.want_receipts {
            link.session().want_receipts();
        }
        let limits = self.engine.limits();
        let session = link.session();
        let became = match (asks_to_resume, resumed.same) {
            (false, _) => v1::Resumed::Unspecified,
            (true, false) => v1::Resumed::None,
            (true, true) if resumed.lost.is_empty() => v1::Resumed::Full,
            (true, true) => v1::Resumed::Partial,
        };
        let welcome = v1::Welcome {
            session_id: session.id.to_string(),
            protocol: PROTOCOL,
            heartbeat_interval: Some(convert::duration(limits.heartbeat_interval)),
            delivery_deadline: Some(convert::duration(self.engine.delivery_deadline(&bot))),
            max_activity_bytes: limits.activity_bytes as u32,
            max_ack_ids: limits.ack_ids as u32,
            max_commit_sends: limits.commit_sends as u32,
            resume_token: session.resume_token().unwrap_or_default().to_owned(),
            resume_grace: session.resume_grace().map(convert::duration),
            resumed: became as i32,
            lost_delivery_ids: resumed.lost.iter().map(|id| id.0).collect(),
            window: session.window as u32,
            partial_interval: Some(convert::duration(limits.stream_interval)),
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
        let limits = self.engine.limits();
        match request.frame {
            None => Err(FrameError::Unknown.into()),
            Some(Asked::Hello(_)) => Err(FrameError::HelloRepeated.into()),
            Some(Asked::Credit(grant)) => Ok(link.grant(credit(grant)).await?),
            Some(Asked::Ack(ack)) => {
                let ids = ids(ack.delivery_ids, limits.ack_ids)?;
                Ok(link.ack(frame, ids, ack.want_result).await?)
            }
            Some(Asked::Nack(nack)) => {
                let how = how(&nack)?;
                let ids = ids(nack.delivery_ids, limits.ack_ids)?;
                Ok(link.nack(frame, ids, how, nack.want_result).await?)
            }
            Some(Asked::Extend(extend)) => {
                let by = time("deadline", extend.deadline, EXTENSION)?;
                Ok(link
                    .extend(ids(extend.delivery_ids, limits.ack_ids)?, by)
                    .await?)
            }
            Some(Asked::Send(send)) => self.send(link, frame, send).await,
            Some(Asked::Commit(commit)) => {
                let id = DeliveryId(commit.delivery_id);
                let (count, limit) = (commit.activities.len(), limits.commit_sends);
                if count > limit {
                    return Err(FrameError::TooManySends { count, limit }).about("", Some(id));
                }
                let writes = state::writes(commit.state_writes, &limits).about("", Some(id))?;
                link.commit_with_state(frame, id, commit.activities, writes)
                    .await
                    .about("", Some(id))
            }
            Some(Asked::Drain(v1::BotDrain {})) => Ok(link.drain().await?),
            Some(Asked::Heartbeat(beat)) => {
                let ids = ids(beat.delivery_ids, limits.ack_ids)?;
                Ok(link.extend(ids, None).await?)
            }
            Some(Asked::Partial(partial)) => partials::partial(link, frame, partial).await,
            Some(Asked::Ephemeral(shown)) => partials::ephemeral(link, frame, shown).await,
        }
    }

    fn say(event: Event) -> Option<Self::Response> {
        let said = match event {
            Event::Delivery(delivery) => Frame::Delivery(Delivery {
                delivery_id: delivery.id.0,
                conversation: Some(convert::name(&delivery.conversation)),
                sequence: delivery.sequence.0,
                attempt: delivery.attempt,
                fence: delivery.fence.0,
                deadline: delivery.deadline.map(convert::timestamp),
                activity: delivery.activity,
                after_gap: delivery.after_gap,
                replay: delivery.replay,
            }),
            Event::Revoked {
                conversation,
                fence,
            } => Frame::Revoked(v1::Revoked {
                conversation: Some(convert::name(&conversation)),
                fence: fence.0,
            }),
            Event::Acked(acked) => {
                let results = acked.into_iter().map(|acked| v1::DeliveryResult {
                    delivery_id: acked.id.0,
                    outcome: convert::outcome(acked.outcome) as i32,
                    appended: acked.appended.iter().map(convert::appended).collect(),
                    state_etags: acked
                        .etags
                        .iter()
                        .map(|etag| state::text(etag.as_ref()))
                        .collect(),
                });
                Frame::AckResult(v1::AckResult {
                    results: results.collect(),
                })
            }
            Event::Sent(sent) => {
                let (outcome, appended) = match &sent.result {
                    Ok(appended) => (v1::AckOutcome::Ok, Some(appended)),
                    Err(refused) => (convert::outcome(*refused), None),
                };
                Frame::SendResult(v1::SendResult {
                    client_id: sent.client_id,
                    outcome: outcome as i32,
                    appended: appended.map(convert::appended),
                    repeated_send: appended.is_some_and(|appended| appended.repeated),
                    frame: sent.frame,
                })
            }
            Event::Drain {
                reconnect_after,
                grace,
            } => Frame::Drain(v1::Drain {
                reconnect_after: Some(convert::duration(reconnect_after)),
                grace: Some(convert::duration(grace)),
            }),
            Event::Refused(refused) => Frame::Error(stream::refusal(refused)),
            Event::Cancelled(cancelled) => Frame::Cancel(partials::cancel(cancelled)),
            Event::Ephemeral(key, shown) => Frame::Ephemeral(convert::ephemeral(&key, &shown)),
            Event::Receipt(receipted) => Frame::Receipt(convert::receipted(*receipted)),
            // Bots neither post nor create, and the end is the stream's status.
            Event::Posted(_) | Event::Create(_) | Event::Drained | Event::End(_) => return None,
        };
        Some(frame(said))
    }

    fn beat(heartbeat: v1::GatewayHeartbeat) -> Self::Response {
        frame(Frame::Heartbeat(heartbeat))
    }
}

impl Bot {
    async fn send(&self, link: &Link, frame: u64, send: v1::Send) -> Result<(), Rejected> {
        let cites = (send.delivery_id != 0).then_some(DeliveryId(send.delivery_id));
        let client_id = send.client_id;
        let invalid = |field, problem: String| FrameError::Invalid { field, problem };
        let checked = || {
            let activity = send.activity;
            let activity = activity.ok_or_else(|| invalid("activity", "is required".to_owned()))?;
            let conversation = conversation(send.conversation, cites)?;
            Ok::<_, FrameError>((activity, conversation))
        };
        // One that is refused for its length is not given back: it may be as long as a frame.
        check_client_id(&client_id, self.engine.limits().key_bytes).about("", cites)?;
        let (activity, conversation) = checked().about(&client_id, cites)?;
        let about = client_id.clone();
        link.send(frame, client_id, conversation, cites, activity)
            .await
            .about(&about, cites)
    }
}

fn check_client_id(client_id: &str, limit: usize) -> Result<(), FrameError> {
    let problem = match client_id.len() {
        0 => "is required".to_owned(),
        length if length > limit => format!("has {length} bytes, more than `key_bytes={limit}`"),
        _ => return Ok(()),
    };
    Err(FrameError::Invalid {
        field: "client_id",
        problem,
    })
}

/// Where something goes: to the conversation that is named, or to that of the delivery it cites.
pub(super) fn conversation(
    name: Option<v1::ConversationName>,
    cites: Option<DeliveryId>,
) -> Result<Option<ConversationKey>, FrameError> {
    let invalid = |problem| FrameError::Invalid {
        field: "conversation",
        problem,
    };
    match name {
        None if cites.is_none() => {
            let problem = "is required unless `delivery_id` is given";
            Err(invalid(problem.to_owned()))
        }
        None => Ok(None),
        Some(name) => match convert::key(Some(name), "conversation") {
            Ok(key) => Ok(Some(key)),
            Err(failure) => Err(invalid(failure.to_string())),
        },
    }
}

/// An instance id that can be honoured.
pub(super) fn check_instance(instance: &str) -> Result<(), Failure> {
    let problem = match instance.len() {
        0 => "is required".to_owned(),
        length if length > INSTANCE_BYTES => {
            format!("has {length} bytes, more than {INSTANCE_BYTES}")
        }
        _ => return Ok(()),
    };
    Err(Failure::HelloInvalid {
        field: "instance_id",
        problem,
    })
}

/// The window that a Hello asks for.
fn window(asked: u32, limit: usize) -> Result<usize, Failure> {
    match asked as usize {
        0 => Ok(1),
        window if window <= limit => Ok(window),
        window => Err(Failure::HelloInvalid {
            field: "window",
            problem: format!("is {window}, more than `delivery_window={limit}`"),
        }),
    }
}

/// The selectors of a Hello.
fn selectors(asked: Vec<v1::Selector>, limit: usize) -> Result<Vec<Selector>, Failure> {
    let invalid = |problem: String| Failure::HelloInvalid {
        field: "selectors",
        problem,
    };
    let lists = asked
        .iter()
        .flat_map(|selector| [selector.channel_ids.len(), selector.activity_types.len()]);
    let longest = lists.chain([asked.len()]).max().unwrap_or_default();
    if longest > limit {
        return Err(invalid(format!(
            "has {longest} items in a list, more than `selectors={limit}`"
        )));
    }
    let mut names = asked
        .iter()
        .flat_map(|selector| selector.channel_ids.iter().chain(&selector.activity_types));
    if names.any(|name| name.is_empty() || name.len() > validate::ID_BYTES) {
        let most = validate::ID_BYTES;
        return Err(invalid(format!("has a name that is not 1 to {most} bytes")));
    }
    let selectors = asked.into_iter().map(|selector| Selector {
        channels: selector
            .channel_ids
            .into_iter()
            .map(ChannelId::from)
            .collect(),
        types: selector.activity_types,
    });
    Ok(selectors.collect())
}

/// The session that a Hello wants to go on with.
fn resume(asked: Option<v1::Resume>, limits: &Limits) -> Result<Option<Resume>, Failure> {
    let Some(asked) = asked else { return Ok(None) };
    let invalid = |field, problem| Failure::HelloInvalid { field, problem };
    let (count, limit) = (asked.delivery_ids.len(), limits.session_credit_deliveries);
    if count as i64 > limit {
        let problem = format!("has {count} ids, more than `session_credit_deliveries={limit}`");
        return Err(invalid("resume.delivery_ids", problem));
    }
    let grace = asked.grace.map(Duration::try_from).transpose();
    let grace = grace.map_err(|_| invalid("resume.grace", "is negative".to_owned()))?;
    Ok(Some(Resume {
        session_id: asked.session_id,
        token: asked.token,
        held: asked.delivery_ids.into_iter().map(DeliveryId).collect(),
        grace,
    }))
}

fn how(nack: &v1::Nack) -> Result<Nack, FrameError> {
    match nack.mode() {
        v1::NackMode::Retry => Ok(Nack::Retry(time("delay", nack.delay, RETRY_DELAY)?)),
        v1::NackMode::Release => Ok(Nack::Release),
        v1::NackMode::Poison => Ok(Nack::Poison(reason(&nack.reason))),
        v1::NackMode::Unspecified => Err(FrameError::Invalid {
            field: "mode",
            problem: "must be RETRY, RELEASE or POISON".to_owned(),
        }),
    }
}

/// A reason as it is kept: cut to its limit, at a character's end.
pub(super) fn reason(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned()
}

fn credit(credit: v1::Credit) -> Credit {
    Credit {
        deliveries: credit.deliveries,
        bytes: credit.bytes,
    }
}

fn frame(frame: Frame) -> SubscribeResponse {
    SubscribeResponse { frame: Some(frame) }
}
