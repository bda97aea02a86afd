//! `turnwire.v1.ConversationService`: speaking first, reading and following.

mod address;
mod say;
mod schedule;

use std::pin::Pin;

use prost::Message;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::{admitted, answered, caller, require};
use super::watch::Watch;
use super::{convert, creations, page};
use crate::activity::{Kind, validate};
use crate::auth::{Needs, Principal};
use crate::engine::log::Page;
use crate::engine::session::Appended;
use crate::engine::{Conversation, Engine, Error, Filter, ListPosition, Start};
use crate::id::{BotId, ChannelId, ConversationKey, Sequence};
use crate::proto::server::conversation_service_server::ConversationService;
use crate::proto::server::{ListActivitiesResponse, LogEntry, WatchConversationResponse};
use crate::proto::v1;
use crate::proto::v1::list_conversations_request::Filter as Asked;
use crate::proto::v1::watch_conversation_request::Start as AskedStart;
use crate::status::Failure;
use crate::store::Order;
use say::Said;

/// The service.
pub(super) struct Service {
    engine: Engine,
}

impl Service {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The key that makes a call safe to repeat, if it has one.
    pub(super) fn once(&self, request_id: String) -> Result<Option<String>, Failure> {
        let (length, limit) = (request_id.len(), self.engine.limits().key_bytes);
        if length > limit {
            return Err(Failure::RequestInvalid {
                field: "request_id",
                problem: format!("has {length} bytes, more than `key_bytes={limit}`"),
            });
        }
        Ok((!request_id.is_empty()).then_some(request_id))
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
            target: address::Target::named(request.conversation)?,
            bot_id: request.bot_id,
            request_id: request.request_id,
            activity,
        };
        self.say(caller, said).await
    }
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
            let times = schedule::times(request.deliver_at, request.expire_at)?;
            let patience = say::patience(request.wait_for_delivery)?;
            let said = Said {
                target: address::Target::of_send(request.target)?,
                bot_id: request.bot_id,
                request_id: request.request_id,
                activity: request.activity.ok_or_else(|| required("activity"))?,
            };
            self.send(&caller, said, times, patience).await
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

    async fn add_bot(
        &self,
        request: Request<v1::AddBotRequest>,
    ) -> Result<Response<v1::AddBotResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            self.add(&caller, request.into_inner()).await
        };
        answered(&self.engine, answer.await)
    }

    async fn remove_bot(
        &self,
        request: Request<v1::RemoveBotRequest>,
    ) -> Result<Response<v1::RemoveBotResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            self.remove(&caller, request.into_inner()).await
        };
        answered(&self.engine, answer.await)
    }

    async fn hand_over(
        &self,
        request: Request<v1::HandOverRequest>,
    ) -> Result<Response<v1::HandOverResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            self.pass_on(&caller, request.into_inner()).await
        };
        answered(&self.engine, answer.await)
    }

    async fn cancel_scheduled_activity(
        &self,
        request: Request<v1::CancelScheduledActivityRequest>,
    ) -> Result<Response<v1::CancelScheduledActivityResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            self.cancel(&caller, request.into_inner()).await
        };
        answered(&self.engine, answer.await)
    }

    async fn list_scheduled_activities(
        &self,
        request: Request<v1::ListScheduledActivitiesRequest>,
    ) -> Result<Response<v1::ListScheduledActivitiesResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            self.scheduled(&caller, request.into_inner())
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

    async fn get_conversation_reference(
        &self,
        request: Request<v1::GetConversationReferenceRequest>,
    ) -> Result<Response<v1::GetConversationReferenceResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            self.reference(&caller, request.into_inner())
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
            let caller = admitted(&request)?;
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
            let conversation = self.visible(caller.principal(), &key)?;
            let bots = conversation.bots().cloned().collect();
            let standing = caller.stand_for(Needs::to_see(key.channel.clone(), bots))?;
            let limit = self.engine.limits().watchers;
            let place = self.engine.watch_place();
            let place = place.ok_or(Failure::TooManyWatchers { limit })?;
            let mut follower = self.engine.follow(key.clone(), start).await?;
            if request.with_ephemeral {
                follower = follower.with_ephemeral();
            }
            if request.receipts {
                follower = follower.with_receipts();
            }
            let watch = Watch::new(
                key,
                follower,
                self.engine.clone(),
                (caller, standing),
                place,
            );
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

pub(super) fn required(field: &'static str) -> Failure {
    Failure::RequestInvalid {
        field,
        problem: "is required".to_owned(),
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
        None => {
            let bots: Vec<_> = caller.bots().collect();
            let channels: Vec<_> = caller.channels().collect();
            match (&*bots, &*channels) {
                ([bot], []) => Filter::Bot((*bot).clone()),
                ([], [channel]) => Filter::Channel((*channel).clone()),
                _ => return Err(required("filter")),
            }
        }
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

/// The bot that a call is about: the one it names, or else the one that the caller is.
pub(super) fn speaker(caller: &Principal, named: String) -> Option<BotId> {
    let named = (!named.is_empty()).then(|| BotId::from(named));
    named.or_else(|| only(caller.bots()).cloned())
}

fn only<T>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut items = items.into_iter();
    items.next().filter(|_| items.next().is_none())
}
