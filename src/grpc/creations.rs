//! `CreateConversation`: what a caller may ask of a channel, and what an adapter may answer.

use super::access::require;
use super::bots::{RETRY_DELAY, reason};
use super::convert;
use super::stream::{About, Rejected, time};
use crate::activity::{Kind, validate};
use crate::auth::Principal;
use crate::engine::create::{Answer, Wanted};
use crate::engine::{Engine, Error, FrameError, Link};
use crate::id::{BotId, ChannelId};
use crate::proto::v1;
use crate::proto::v1::conversation_created::Result as Said;
use crate::status::Failure;

/// Longest service URL, in bytes; that of a configuration is no longer.
const URL_BYTES: usize = 2_048;

/// Begins a conversation for a caller.
pub(super) async fn create(
    engine: &Engine,
    caller: &Principal,
    request: v1::CreateConversationRequest,
) -> Result<v1::CreateConversationResponse, Failure> {
    let wanted = wanted(engine, caller, request)?;
    let created = engine.create_conversation(wanted).await?;
    let conversation = engine.conversation(&created.conversation)?;
    let appended = created.appended.as_ref();
    Ok(v1::CreateConversationResponse {
        conversation: Some(convert::conversation(&created.conversation, conversation)),
        appended: appended.map(convert::appended),
        repeated_creation: created.repeated,
        existed: created.existed,
    })
}

/// What is wanted, if the caller may want it.
fn wanted(
    engine: &Engine,
    caller: &Principal,
    request: v1::CreateConversationRequest,
) -> Result<Wanted, Failure> {
    check_id("channel_id", &request.channel_id)?;
    let channel = ChannelId::from(request.channel_id);
    let routed = engine.routed_bots(&channel);
    let bot = match request.bot_id {
        named if !named.is_empty() => {
            check_id("bot_id", &named)?;
            BotId::from(named)
        }
        _ => match (only(caller.bots()), routed.first()) {
            (Some(own), _) => own.clone(),
            (None, Some(routed)) => routed.clone(),
            (None, None) => {
                require(caller.may_speak_for_all(), caller, "`backend`")?;
                return Err(Error::ChannelUnknown(channel).into());
            }
        },
    };
    // A bot begins conversations where its channels are, and not with the users of others.
    let is_routed = routed.contains(&bot);
    let is_own = caller.may_speak_for(&bot) && is_routed;
    let needs = match is_routed {
        true => format!("`backend` or `bot:{bot}`"),
        false => "`backend`".to_owned(),
    };
    require(is_own || caller.may_speak_for_all(), caller, &needs)?;
    let (length, limit) = (request.request_id.len(), engine.limits().key_bytes);
    if length > limit {
        let problem = format!("has {length} bytes, more than `key_bytes={limit}`");
        return Err(invalid("request_id", problem));
    }
    let seated = if is_routed {
        &routed[..]
    } else {
        std::slice::from_ref(&bot)
    };
    check_members(engine, seated, request.is_group, &request.members)?;
    for (field, text) in [
        ("topic_name", &request.topic_name),
        ("tenant_id", &request.tenant_id),
    ] {
        if !text.is_empty() {
            check_id(field, text)?;
        }
    }
    let kind = request.activity.as_ref().and_then(|a| a.r#type.as_deref());
    if let Some(Kind::MessageUpdate | Kind::MessageDelete) = kind.map(Kind::from) {
        let problem = "must not change what was not said yet".to_owned();
        return Err(invalid("activity.type", problem));
    }
    Ok(Wanted {
        channel,
        bot,
        request_id: (!request.request_id.is_empty()).then_some(request.request_id),
        asked: v1::CreateConversation {
            members: request.members,
            is_group: request.is_group,
            topic_name: request.topic_name,
            tenant_id: request.tenant_id,
            channel_data: request.channel_data,
            ..Default::default()
        },
        activity: request.activity,
    })
}

fn check_members(
    engine: &Engine,
    bots: &[BotId],
    is_group: bool,
    members: &[v1::ChannelAccount],
) -> Result<(), Failure> {
    let refuse = |problem: String| Err(invalid("members", problem));
    match members.len() {
        0 => return refuse("is required".to_owned()),
        1 => {}
        many if many > validate::MEMBERS => {
            return refuse(format!(
                "has {many} accounts, more than {}",
                validate::MEMBERS
            ));
        }
        _ if !is_group => {
            return refuse("has more than one account: set `is_group`".to_owned());
        }
        _ => {}
    }
    let accounts = bots.iter().filter_map(|bot| engine.account(bot)?.id);
    let accounts: Vec<_> = accounts.collect();
    let mut seen = std::collections::HashSet::new();
    for member in members {
        let id = member.id.as_deref().unwrap_or_default();
        check_id("members", id)?;
        if accounts.iter().any(|account| account == id) {
            return refuse("has the bot: it is there without being named".to_owned());
        }
        if !seen.insert(id) {
            return refuse("has an account twice".to_owned());
        }
    }
    Ok(())
}

/// Takes an adapter's answer.
pub(super) fn answer(link: &Link, created: v1::ConversationCreated) -> Result<(), Rejected> {
    let v1::ConversationCreated { request_id, result } = created;
    // One that is not ours may be as long as a frame: it is not given back.
    let about = request_id[..request_id.floor_char_boundary(NAME_BYTES)].to_owned();
    let answer = read(result).about(&about, None)?;
    link.created(request_id, answer).about(&about, None)
}

/// Longest name of a request that is given back, in bytes; the gateway's are shorter.
const NAME_BYTES: usize = 64;

fn read(said: Option<Said>) -> Result<Answer, FrameError> {
    let refuse = |field, problem: String| FrameError::Invalid { field, problem };
    match said {
        None => Err(refuse("result", "is required".to_owned())),
        Some(Said::Refused(refused)) => Ok(Answer::Refused(reason(&refused.reason))),
        Some(Said::Retry(retry)) => {
            let delay = time("retry.delay", retry.delay, RETRY_DELAY)?;
            Ok(Answer::Retry(delay))
        }
        Some(Said::Created(created)) => {
            let account = created.conversation.as_ref();
            let id = account.and_then(|account| account.id.as_deref());
            validate::id("id", id.unwrap_or_default()).map_err(|invalid| {
                refuse("created.conversation.id", invalid.problem.to_string())
            })?;
            let bytes = account.map_or(0, validate::account_bytes);
            if bytes > validate::ACCOUNT_BYTES {
                let problem = format!("has {bytes} bytes, more than {}", validate::ACCOUNT_BYTES);
                return Err(refuse("created.conversation", problem));
            }
            let count = created.members.len();
            if count > validate::MEMBERS {
                let problem = format!("has {count} accounts, more than {}", validate::MEMBERS);
                return Err(refuse("created.members", problem));
            }
            for member in &created.members {
                validate::id("id", member.id.as_deref().unwrap_or_default())
                    .map_err(|invalid| refuse("created.members.id", invalid.problem.to_string()))?;
            }
            let bytes = created.service_url.len();
            if bytes > URL_BYTES {
                let problem = format!("has {bytes} bytes, more than {URL_BYTES}");
                return Err(refuse("created.service_url", problem));
            }
            Ok(Answer::Created(Box::new(created)))
        }
    }
}

fn check_id(field: &'static str, id: &str) -> Result<(), Failure> {
    validate::id(field, id).map_err(|error| invalid(field, error.problem.to_string()))
}

fn invalid(field: &'static str, problem: String) -> Failure {
    Failure::RequestInvalid { field, problem }
}

fn only<T>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut items = items.into_iter();
    items.next().filter(|_| items.next().is_none())
}
