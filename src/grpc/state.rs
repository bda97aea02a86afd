//! `turnwire.v1.StateService`: the documents that bots keep.

use prost_types::Struct;
use tonic::{Request, Response, Status};

use super::access::{answered, caller, require};
use super::{convert, page};
use crate::activity::validate;
use crate::auth::Principal;
use crate::engine::log::Page;
use crate::engine::settings::LimitsInForce;
use crate::engine::state::{self, Condition, Document, Scope, Write};
use crate::engine::{Engine, Error, FrameError};
use crate::id::{BotId, ChannelId, ConversationKey, Etag};
use crate::limits::Limits;
use crate::proto::server::state_service_server::StateService;
use crate::proto::v1;
use crate::proto::v1::state_write::Change;
use crate::status::Failure;

/// The service.
pub(super) struct Service {
    engine: Engine,
}

impl Service {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn limits(&self) -> LimitsInForce {
        self.engine.limits()
    }
}

#[tonic::async_trait]
impl StateService for Service {
    async fn get_state(
        &self,
        request: Request<v1::GetStateRequest>,
    ) -> Result<Response<v1::GetStateResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let bot = bot(&caller, request.bot_id, For::Reading)?;
            let scope = scope(request.scope)?;
            let name = name(request.name, &self.limits())?;
            let found = self.engine.document(&bot, &scope, &name)?;
            Ok(v1::GetStateResponse {
                document: Some(document(found)),
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn put_state(
        &self,
        request: Request<v1::PutStateRequest>,
    ) -> Result<Response<v1::PutStateResponse>, Status> {
        use v1::put_state_request::Condition as Asked;
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let bot = bot(&caller, request.bot_id, For::Writing)?;
            let condition = match request.condition {
                None => Condition::Any,
                Some(Asked::IfMatch(etag)) => matches(etag)?,
                Some(Asked::IfAbsent(absent)) => is_absent(absent)?,
            };
            let content = request.content.ok_or_else(|| wrong("content", REQUIRED))?;
            let write = Write {
                scope: scope(request.scope)?,
                name: name(request.name, &self.limits())?,
                content: Some(state::content(&content, &self.limits()).map_err(Error::from)?),
                condition,
            };
            let etag = self.engine.write_document(&bot, write).await?;
            Ok(v1::PutStateResponse {
                etag: text(etag.as_ref()),
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn delete_state(
        &self,
        request: Request<v1::DeleteStateRequest>,
    ) -> Result<Response<v1::DeleteStateResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let bot = bot(&caller, request.bot_id, For::Writing)?;
            let write = Write {
                scope: scope(request.scope)?,
                name: name(request.name, &self.limits())?,
                content: None,
                condition: match request.if_match {
                    None => Condition::Any,
                    Some(etag) => matches(etag)?,
                },
            };
            self.engine.write_document(&bot, write).await?;
            Ok(v1::DeleteStateResponse {})
        };
        answered(&self.engine, answer.await)
    }

    async fn list_state(
        &self,
        request: Request<v1::ListStateRequest>,
    ) -> Result<Response<v1::ListStateResponse>, Status> {
        let answer = async {
            let caller = caller(&request)?;
            let request = request.into_inner();
            let bot = bot(&caller, request.bot_id, For::Reading)?;
            let scope = scope(request.scope)?;
            let size = Page {
                entries: page::size(request.page_size, self.limits().page)?,
                bytes: self.limits().page_bytes,
            };
            let after: Option<String> = page::after(&request.page_token)?;
            let (found, more) = self
                .engine
                .documents(&bot, &scope, after.as_deref(), size)?;
            let last = found.last().filter(|_| more);
            Ok(v1::ListStateResponse {
                next_page_token: last.map(|last| page::token(&last.name)).unwrap_or_default(),
                documents: found.into_iter().map(document).collect(),
            })
        };
        answered(&self.engine, answer.await)
    }
}

/// What a call does to documents.
#[derive(Clone, Copy)]
enum For {
    Reading,
    Writing,
}

/// The bot whose documents are meant, if the caller may do that to them.
fn bot(caller: &Principal, named: String, what: For) -> Result<BotId, Failure> {
    let bot = match named.is_empty() {
        // A principal that is one bot means that bot unless it says otherwise.
        true => {
            let mut own = caller.bots();
            let only = own.next().filter(|_| own.next().is_none());
            only.cloned().ok_or_else(|| wrong("bot_id", REQUIRED))?
        }
        false => {
            validate::id("bot_id", &named).map_err(|invalid| wrong("bot_id", invalid.problem))?;
            BotId::from(named)
        }
    };
    let (allowed, needs) = match what {
        For::Reading => (caller.may_read_state(&bot), "reader"),
        For::Writing => (caller.may_write_state(&bot), "admin"),
    };
    require(allowed, caller, &format!("`{needs}` or `bot:{bot}`"))?;
    Ok(bot)
}

/// A field that breaks a rule, in a request or in a write of a Commit.
struct Wrong {
    field: &'static str,
    problem: String,
}

const REQUIRED: &str = "is required";

fn wrong(field: &'static str, problem: impl ToString) -> Wrong {
    let problem = problem.to_string();
    Wrong { field, problem }
}

impl From<Wrong> for Failure {
    fn from(Wrong { field, problem }: Wrong) -> Self {
        Self::RequestInvalid { field, problem }
    }
}

fn id(field: &'static str, id: String) -> Result<String, Wrong> {
    validate::id(field, &id).map_err(|invalid| wrong(field, invalid.problem))?;
    Ok(id)
}

fn scope(scope: Option<v1::StateScope>) -> Result<Scope, Wrong> {
    use v1::state_scope::Scope as Asked;
    let scope = scope.and_then(|scope| scope.scope);
    match scope.ok_or_else(|| wrong("scope", REQUIRED))? {
        Asked::Bot(true) => Ok(Scope::Bot),
        Asked::Bot(false) => Err(wrong("scope.bot", "must be true if set")),
        Asked::User(user) => Ok(Scope::User(
            ChannelId::from(id("scope.user.channel_id", user.channel_id)?),
            id("scope.user.user_id", user.user_id)?,
        )),
        Asked::Conversation(name) => Ok(Scope::Conversation(conversation(
            "scope.conversation",
            Some(name),
        )?)),
        Asked::ConversationUser(user) => Ok(Scope::ConversationUser(
            conversation("scope.conversation_user.conversation", user.conversation)?,
            id("scope.conversation_user.user_id", user.user_id)?,
        )),
    }
}

fn conversation(
    field: &'static str,
    name: Option<v1::ConversationName>,
) -> Result<ConversationKey, Wrong> {
    let name = name.ok_or_else(|| wrong(field, REQUIRED))?;
    Ok(ConversationKey {
        channel: id(field, name.channel_id)?.into(),
        conversation: id(field, name.conversation_id)?.into(),
    })
}

fn name(name: String, limits: &Limits) -> Result<String, Wrong> {
    let limit = limits.state_name_bytes;
    let problem = match name.len() {
        0 => REQUIRED.to_owned(),
        bytes if bytes > limit => {
            format!("has {bytes} bytes, more than `state_name_bytes={limit}`")
        }
        _ if name.chars().any(char::is_control) => "has a control character".to_owned(),
        _ => return Ok(name),
    };
    Err(wrong("name", problem))
}

fn matches(etag: String) -> Result<Condition, Wrong> {
    if etag.is_empty() {
        let problem = "is empty; leave it out to write whatever is there";
        return Err(wrong("if_match", problem));
    }
    Ok(Condition::Match(etag))
}

fn is_absent(absent: bool) -> Result<Condition, Wrong> {
    match absent {
        true => Ok(Condition::Absent),
        false => Err(wrong("if_absent", "must be true if set")),
    }
}

/// The writes of a Commit.
pub(super) fn writes(asked: Vec<v1::StateWrite>, limits: &Limits) -> Result<Vec<Write>, Error> {
    // Before anything is made of them: each may be as large as a document.
    let (count, limit) = (asked.len(), limits.commit_state_writes);
    if count > limit {
        return Err(FrameError::TooManyStateWrites { count, limit }.into());
    }
    let mut writes = Vec::with_capacity(count);
    for (index, asked) in asked.into_iter().enumerate() {
        let invalid = |Wrong { field, problem }| FrameError::Invalid {
            field: "state_writes",
            problem: format!("has a mistake at index {index}: `{field}` {problem}"),
        };
        let (write, put) = write(asked, limits).map_err(invalid)?;
        writes.push(Write {
            content: put
                .map(|content| state::content(&content, limits))
                .transpose()?,
            ..write
        });
    }
    Ok(writes)
}

/// One write of a Commit, and what it is to put.
fn write(asked: v1::StateWrite, limits: &Limits) -> Result<(Write, Option<Struct>), Wrong> {
    use v1::state_write::Condition as Asked;
    let put = match asked.change {
        None => return Err(wrong("change", REQUIRED)),
        Some(Change::Put(content)) => Some(content),
        Some(Change::Delete(true)) => None,
        Some(Change::Delete(false)) => return Err(wrong("delete", "must be true if set")),
    };
    let condition = match asked.condition {
        None => Condition::Any,
        Some(Asked::IfMatch(etag)) => matches(etag)?,
        Some(Asked::IfAbsent(_)) if put.is_none() => {
            return Err(wrong("if_absent", "is for `put` only"));
        }
        Some(Asked::IfAbsent(absent)) => is_absent(absent)?,
    };
    let write = Write {
        scope: scope(asked.scope)?,
        name: name(asked.name, limits)?,
        content: None,
        condition,
    };
    Ok((write, put))
}

fn document(document: Document) -> v1::StateDocument {
    v1::StateDocument {
        etag: text(Some(&document.etag)),
        name: document.name,
        content: Some(document.content),
        update_time: Some(convert::timestamp(document.update_time)),
    }
}

/// An etag as the API has it; empty for a document that is not there.
pub(super) fn text(etag: Option<&Etag>) -> String {
    etag.map(ToString::to_string).unwrap_or_default()
}
