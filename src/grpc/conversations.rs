//! `turnwire.v1.ConversationService`: speaking first, reading and following.

use std::pin::Pin;
use std::time::Duration;

use prost::Message;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::{answered, caller, require};
use super::watch::Watch;
use super::{convert, creations, page};
use crate::activity::{Kind, validate};
use crate::auth::Principal;
use crate::engine::log::Page;
use crate::engine::session::Appended;
use crate::engine::{Conversation, Engine, Error, Filter, ListPosition, Start};
use crate::id::{BotId, ChannelId, ConversationKey, Sequence};
use crate::proto::server::conversation_service_server::ConversationService;
use crate::proto::server::{ListActivitiesResponse, LogEntry, WatchConversationResponse};
use crate::proto::v1;
use crate::proto::v1::list_conversations_request::Filter as Asked;
use crate::proto::v1::send_activity_request::Target;
use crate::proto::v1::watch_conversation_request::Start as AskedStart;
use crate::status::Failure;
use crate::store::Order;

/// Largest conversation reference a send may bring, in bytes: it becomes part of the activity.
const REFERENCE_BYTES: usize = 16 * 1024;

/// The service.
pub(super) struct Service {
    engine: Engine,
}

impl Service {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// A conversation, if the caller may see it; otherwise it is as unknown as one that is not there.
    fn visible(&self, caller: &Principal, key: &ConversationKey) -> Result<Conversation, Failure> {
        let conversation = self.engine.conversation(key)?;
        if caller.sees(&key.channel, conversation.bots()) {
            return Ok(conversation);
        }
        Err(Error::ConversationUnknown(key.clone()).into())
    }

    /// Appends an update or a deletion of what a bot said.
    async fn change(
        &self,
        caller: &Principal,
        kind: Kind,
        request: v1::UpdateActivityRequest,
    ) -> Result<Appended, Failure> {
        if request.activity_id.is_empty() {
            return Err(required("activity_id"));
        }
        let mut activity = request.activity.ok_or_else(|| required("activity"))?;
        activity.r#type = Some(kind.as_str().to_owned());
        activity.id = Some(request.activity_id);
        let said = Said {
            key: convert::key(request.conversation, "conversation")?,
            reference: None,
            bot_id: request.bot_id,
            request_id: request.request_id,
            activity,
        };
        self.say(caller, said).await
    }

    /// Appends what a caller wants said, if it may speak for the bot.
    async fn say(&self, caller: &Principal, said: Said) -> Result<Appended, Failure> {
        let bot = (!said.bot_id.is_empty()).then(|| BotId::from(said.bot_id));
        // A principal that is one bot speaks for that bot unless it says otherwise.
        let bot = bot.or_else(|| only(caller.bots()).cloned());
        let (allowed, needs) = match &bot {
            Some(bot) => (
                caller.may_speak_for(bot),
                format!("`backend` or `bot:{bot}`"),
            ),
            None => (caller.may_speak_for_all(), "`backend`".to_owned()),
        };
        require(allowed, caller, &needs)?;
        if !caller.may_speak_for_all() {
            self.visible(caller, &said.key)?;
        }
        let (length, limit) = (said.request_id.len(), self.engine.limits().key_bytes);
        if length > limit {
            return Err(Failure::RequestInvalid {
                field: "request_id",
                problem: format!("has {length} bytes, more than `key_bytes={limit}`"),
            });
        }
        let once = (!said.request_id.is_empty()).then_some(said.request_id);
        let sent = self
            .engine
            .send_activity(said.key, bot, said.reference, once, said.activity);
        Ok(sent.await?)
    }
}

/// What a caller wants said.
struct Said {
    key: ConversationKey,
    reference: Option<Box<v1::ConversationReference>>,
    bot_id: String,
    request_id: String,
    activity: Box<v1::Activity>,
}

#[tonic::async_trait]
impl ConversationService for Service {
    async fn send_activity(
        &self,
        request: Request<v1::SendActivityRequest>,
    ) -> Result<Response<v1::SendActivityResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let (key, reference) = target(request.target)?;
            let patience = patience(request.wait_for_delivery)?;
            // Taken before anything is written: who cannot wait is told so while nothing has happened.
            let waits = patience.map(|patience| {
                let limit = self.engine.limits().delivery_waiters;
                let place = self.engine.waiter_place();
                let place = place.ok_or(Failure::TooManyWaiters { limit })?;
                Ok::<_, Failure>((patience, place))
            });
            let waits = waits.transpose()?;
            let said = Said {
                key: key.clone(),
                reference,
                bot_id: request.bot_id,
                request_id: request.request_id,
                activity: request.activity.ok_or_else(|| required("activity"))?,
            };
            let appended = self.say(&caller, said).await?;
            let receipt = match waits {
                Some((patience, _place)) => {
                    let patience = patience.min(self.engine.limits().delivery_wait);
                    Some(self.engine.receipt(&key, &appended, patience).await)
                }
                None => None,
            };
            Ok(v1::SendActivityResponse {
                appended: Some(convert::appended(&appended)),
                repeated_send: appended.repeated,
                receipt: receipt.map(|receipt| v1::Receipt {
                    conversation: Some(convert::name(&key)),
                    ..convert::receipt(receipt)
                }),
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn create_conversation(
        &self,
        request: Request<v1::CreateConversationRequest>,
    ) -> Result<Response<v1::CreateConversationResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            creations::create(&self.engine, &caller, request.into_inner()).await
        };
        answered(&self.engine, answer.await)
    }

    async fn update_activity(
        &self,
        request: Request<v1::UpdateActivityRequest>,
    ) -> Result<Response<v1::UpdateActivityResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let appended = self.change(&caller, Kind::MessageUpdate, request).await?;
            Ok(v1::UpdateActivityResponse {
                appended: Some(convert::appended(&appended)),
                repeated_send: appended.repeated,
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn delete_activity(
        &self,
        request: Request<v1::DeleteActivityRequest>,
    ) -> Result<Response<v1::DeleteActivityResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            // An update to nothing, but for its type.
            let request = v1::UpdateActivityRequest {
                request_id: request.request_id,
                conversation: request.conversation,
                activity_id: request.activity_id,
                bot_id: request.bot_id,
                activity: Some(Box::default()),
            };
            let appended = self.change(&caller, Kind::MessageDelete, request).await?;
            Ok(v1::DeleteActivityResponse {
                appended: Some(convert::appended(&appended)),
                repeated_send: appended.repeated,
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn get_conversation(
        &self,
        request: Request<v1::GetConversationRequest>,
    ) -> Result<Response<v1::GetConversationResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let key = convert::key(request.into_inner().conversation, "conversation")?;
            let conversation = self.visible(&caller, &key)?;
            Ok(v1::GetConversationResponse {
                conversation: Some(convert::conversation(&key, conversation)),
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn list_conversations(
        &self,
        request: Request<v1::ListConversationsRequest>,
    ) -> Result<Response<v1::ListConversationsResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let filter = filter(&caller, request.filter)?;
            let size = page::size(request.page_size, self.engine.limits().page)?;
            let after: Option<ListPosition> = page::after(&request.page_token)?;
            let found = self.engine.conversations(&filter, after.as_ref(), size)?;
            let mut conversations = Vec::with_capacity(found.len());
            let mut room = page::Room::new(self.engine.limits().page_bytes);
            for position in &found {
                let key = &position.conversation;
                let conversation = convert::conversation(key, self.engine.conversation(key)?);
                if !room.take(conversation.encoded_len()) {
                    break;
                }
                conversations.push(conversation);
            }
            let is_last = found.len() < size && conversations.len() == found.len();
            let last = found[..conversations.len()].last().filter(|_| !is_last);
            Ok(v1::ListConversationsResponse {
                conversations,
                next_page_token: last.map(page::token).unwrap_or_default(),
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let key = convert::key(request.conversation, "conversation")?;
            let conversation = self.visible(&caller, &key)?;
            let size = page::size(request.page_size, self.engine.limits().page)?;
            let after: Option<String> = page::after(&request.page_token)?;
            let mut members = self
                .engine
                .members(conversation.number, after.as_deref(), size)?;
            let found = members.len();
            let mut room = page::Room::new(self.engine.limits().page_bytes);
            let fitting = members
                .iter()
                .take_while(|member| room.take(member.encoded_len()))
                .count();
            members.truncate(fitting);
            let is_last = found < size && fitting == found;
            let last = members.last().filter(|_| !is_last);
            let next = last.and_then(|member| member.id.as_ref()).map(page::token);
            Ok(v1::ListMembersResponse {
                members,
                next_page_token: next.unwrap_or_default(),
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn list_activities(
        &self,
        request: Request<v1::ListActivitiesRequest>,
    ) -> Result<Response<ListActivitiesResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let order = match request.order() {
                v1::ReadOrder::Unspecified | v1::ReadOrder::OldestFirst => Order::Ascending,
                v1::ReadOrder::NewestFirst => Order::Descending,
            };
            let key = convert::key(request.conversation, "conversation")?;
            let conversation = self.visible(&caller, &key)?;
            let limits = self.engine.limits();
            let page = Page {
                entries: page::size(request.page_size, limits.page)?,
                bytes: limits.page_bytes,
            };
            let after: Option<Sequence> = page::after(&request.page_token)?;
            let (first, last) = (conversation.first, conversation.last);
            let (from, to) = match (after, order) {
                (None, _) => (first, last),
                (Some(after), Order::Ascending) => (after.next().max(first), last),
                (Some(after), Order::Descending) => (first, after.previous()),
            };
            let entries = self
                .engine
                .activities(conversation.number, from, to, order, page)?;
            let end = match order {
                Order::Ascending => to,
                Order::Descending => from,
            };
            let receipts = self.engine.receipts(&key, &conversation, &entries)?;
            // Receipts count as well, or a page of long reasons would be larger than any page.
            let mut room = page::Room::new(limits.page_bytes);
            let entries: Vec<_> = { entries.iter().zip(receipts) }
                .map(|(entry, receipt)| LogEntry {
                    receipt: receipt.map(convert::receipt),
                    ..convert::entry(entry)
                })
                .take_while(|entry| {
                    let receipt = entry.receipt.as_ref();
                    room.take(entry.activity.len() + receipt.map_or(0, Message::encoded_len))
                })
                .collect();
            let next = entries
                .last()
                .map(|entry| Sequence(entry.sequence))
                .filter(|reached| *reached != end);
            Ok(ListActivitiesResponse {
                entries,
                next_page_token: next.as_ref().map(page::token).unwrap_or_default(),
            })
        };
        answered(&self.engine, answer.await)
    }

    type WatchConversationStream =
        Pin<Box<dyn Stream<Item = Result<WatchConversationResponse, Status>> + Send>>;

    async fn watch_conversation(
        &self,
        request: Request<v1::WatchConversationRequest>,
    ) -> Result<Response<Self::WatchConversationStream>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let start = match request.start {
                None => Start::After(Sequence::START),
                Some(AskedStart::AfterSequence(sequence)) => Start::After(Sequence(sequence)),
                Some(AskedStart::OnlyNew(true)) => Start::End,
                Some(AskedStart::OnlyNew(false)) => {
                    let problem = "must be true if set".to_owned();
                    return Err(Failure::RequestInvalid {
                        field: "only_new",
                        problem,
                    });
                }
            };
            let key = convert::key(request.conversation, "conversation")?;
            self.visible(&caller, &key)?;
            let limit = self.engine.limits().watchers;
            let place = self.engine.watch_place();
            let place = place.ok_or(Failure::TooManyWatchers { limit })?;
            let mut follower = self.engine.follow(key, start).await?;
            if request.receipts {
                follower = follower.with_receipts();
            }
            let watch = Watch::new(follower, self.engine.clone(), place);
            let steps = futures_util::stream::unfold(watch, |mut watch| async move {
                let step = watch.step().await?;
                Some((step, watch))
            });
            let steps: Self::WatchConversationStream = Box::pin(steps);
            Ok(steps)
        };
        answered(&self.engine, answer.await)
    }
}

fn required(field: &'static str) -> Failure {
    Failure::RequestInvalid {
        field,
        problem: "is required".to_owned(),
    }
}

/// How long to wait for a receipt, if at all.
fn patience(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Failure> {
    let Some(asked) = asked else { return Ok(None) };
    match Duration::try_from(asked) {
        Ok(patience) => Ok((!patience.is_zero()).then_some(patience)),
        Err(_) => Err(Failure::RequestInvalid {
            field: "wait_for_delivery",
            problem: "must be zero or more".to_owned(),
        }),
    }
}

/// Where to send, and the reference to apply, if one was given.
fn target(
    target: Option<Target>,
) -> Result<(ConversationKey, Option<Box<v1::ConversationReference>>), Failure> {
    match target.ok_or_else(|| required("target"))? {
        Target::Conversation(name) => Ok((convert::key(Some(name), "conversation")?, None)),
        Target::Reference(reference) => {
            let conversation = reference.conversation.as_ref().and_then(|c| c.id.clone());
            let name = v1::ConversationName {
                channel_id: reference.channel_id.clone().unwrap_or_default(),
                conversation_id: conversation.unwrap_or_default(),
            };
            let key = convert::key(Some(name), "reference")?;
            let bytes = reference.encoded_len();
            if bytes > REFERENCE_BYTES {
                let problem = format!("has {bytes} bytes, more than {REFERENCE_BYTES}");
                return Err(Failure::RequestInvalid {
                    field: "reference",
                    problem,
                });
            }
            Ok((key, Some(Box::new(reference))))
        }
    }
}

/// What to list, if the caller may. Without a filter: all that the caller may see.
fn filter(caller: &Principal, asked: Option<Asked>) -> Result<Filter, Failure> {
    let checked = |field: &'static str, id: String| match validate::id(field, &id) {
        Ok(()) => Ok(id),
        Err(problem) => Err(Failure::RequestInvalid {
            field: "filter",
            problem: format!("is invalid: {problem}"),
        }),
    };
    let filter = match asked {
        Some(Asked::ChannelId(channel)) => {
            Filter::Channel(ChannelId::from(checked("channel_id", channel)?))
        }
        Some(Asked::BotId(bot)) => Filter::Bot(BotId::from(checked("bot_id", bot)?)),
        Some(Asked::User(user)) => Filter::User(
            ChannelId::from(checked("user.channel_id", user.channel_id)?),
            checked("user.user_id", user.user_id)?,
        ),
        None if caller.may_read_all() => Filter::All,
        None => match (only(caller.bots()), only(caller.channels())) {
            (Some(bot), None) => Filter::Bot(bot.clone()),
            (None, Some(channel)) => Filter::Channel(channel.clone()),
            _ => return Err(required("filter")),
        },
    };
    let (allowed, needs) = match &filter {
        Filter::All => (caller.may_read_all(), "`reader`".to_owned()),
        Filter::Channel(channel) | Filter::User(channel, _) => (
            caller.sees(channel, []),
            format!("`reader` or `channel:{channel}`"),
        ),
        Filter::Bot(bot) => {
            let is_own = caller.bots().any(|own| own == bot);
            (
                is_own || caller.may_read_all(),
                format!("`reader` or `bot:{bot}`"),
            )
        }
    };
    require(allowed, caller, &needs)?;
    Ok(filter)
}

fn only<T>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut items = items.into_iter();
    items.next().filter(|_| items.next().is_none())
}
