//! State: documents that a bot keeps about users, conversations or itself, with etags.
//!
//! What belongs to a turn is written with its [`Reply`](crate::bot::Reply), so that it becomes durable
//! together with the answers. [`States`] reads, and writes without a turn.

use futures_util::stream::Stream;
use prost_types::value::Kind;

use crate::conversations::pages;
use crate::proto::{
    ConversationName, ConversationUserScope, DeleteStateRequest, GetStateRequest, ListStateRequest,
    ListStateResponse, PutStateRequest, StateDocument, StateScope, StateWrite, UserScope,
    put_state_request, state_scope::Scope, state_write,
};
use crate::{Client, Error};

pub use prost_types::{Struct, Value};

/// Makes the content of a document, for example `object([("visits", 3.0)])`. Fields of several types are
/// given as [`Value`]s.
pub fn object<K, V>(fields: impl IntoIterator<Item = (K, V)>) -> Struct
where
    K: Into<String>,
    V: Into<Value>,
{
    let fields = fields.into_iter();
    let fields = fields.map(|(name, value)| (name.into(), value.into()));
    Struct {
        fields: fields.collect(),
    }
}

/// The documents of one bot: the calls of `StateService`. Each fails as the service lists it.
#[derive(Clone, Debug)]
pub struct States {
    client: Client,
    bot_id: String,
}

impl Client {
    /// Reads and writes the documents of a bot.
    #[must_use]
    pub fn states(&self, bot_id: impl Into<String>) -> States {
        States {
            client: self.clone(),
            bot_id: bot_id.into(),
        }
    }
}

impl StateScope {
    /// About a user of a channel, in all conversations.
    #[must_use]
    pub fn user(channel_id: impl Into<String>, user_id: impl Into<String>) -> Self {
        Self::of(Scope::User(UserScope {
            channel_id: channel_id.into(),
            user_id: user_id.into(),
        }))
    }

    /// About a conversation.
    #[must_use]
    pub fn conversation(conversation: ConversationName) -> Self {
        Self::of(Scope::Conversation(conversation))
    }

    /// About a user in one conversation.
    #[must_use]
    pub fn conversation_user(conversation: ConversationName, user_id: impl Into<String>) -> Self {
        Self::of(Scope::ConversationUser(ConversationUserScope {
            conversation: Some(conversation),
            user_id: user_id.into(),
        }))
    }

    /// About the bot itself.
    #[must_use]
    pub fn bot() -> Self {
        Self::of(Scope::Bot(true))
    }

    fn of(scope: Scope) -> Self {
        Self { scope: Some(scope) }
    }
}

impl StateDocument {
    /// A field of the content.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.content.as_ref()?.fields.get(name)
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.field(name)?.kind {
            Some(Kind::NumberValue(number)) => Some(number),
            _ => None,
        }
    }

    /// A field that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.field(name)?.kind {
            Some(Kind::StringValue(text)) => Some(text),
            _ => None,
        }
    }
}

impl StateWrite {
    /// Writes a document whole, whatever is there.
    #[must_use]
    pub fn put(scope: StateScope, name: impl Into<String>, content: Struct) -> Self {
        Self::of(scope, name, state_write::Change::Put(content))
    }

    /// Removes a document, whatever it says. One that is not there is no mistake.
    #[must_use]
    pub fn delete(scope: StateScope, name: impl Into<String>) -> Self {
        Self::of(scope, name, state_write::Change::Delete(true))
    }

    fn of(scope: StateScope, name: impl Into<String>, change: state_write::Change) -> Self {
        Self {
            scope: Some(scope),
            name: name.into(),
            change: Some(change),
            condition: None,
        }
    }

    /// Only if the document has this etag.
    #[must_use]
    pub fn if_match(mut self, etag: impl Into<String>) -> Self {
        self.condition = Some(state_write::Condition::IfMatch(etag.into()));
        self
    }

    /// Only if there is no such document yet.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.condition = Some(state_write::Condition::IfAbsent(true));
        self
    }

    /// Only if the document still is what was read: the version that was found, or not there.
    #[must_use]
    pub fn if_unchanged(self, read: Option<&StateDocument>) -> Self {
        match read {
            Some(document) => self.if_match(document.etag.clone()),
            None => self.if_absent(),
        }
    }
}

/// Calls a method and takes the response out, or makes the status an error.
macro_rules! call {
    ($self:ident.$method:ident($request:expr)) => {
        $self
            .client
            .state_service()
            .$method($request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| $self.client.error(status))
    };
}

impl States {
    /// Reads a document, if there is one.
    ///
    /// # Errors
    ///
    /// Those of every call.
    pub async fn get(
        &self,
        scope: StateScope,
        name: impl Into<String>,
    ) -> Result<Option<StateDocument>, Error> {
        let request = GetStateRequest {
            bot_id: self.bot_id.clone(),
            scope: Some(scope),
            name: name.into(),
        };
        match call!(self.get_state(request)) {
            Ok(response) => match response.document {
                Some(document) => Ok(Some(document)),
                None => Err(Error::Protocol("an answer without the document")),
            },
            Err(error) if error.reason() == Some("STATE_UNKNOWN") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes or removes a document, and waits until that is durable. Returns the new etag; empty for a
    /// document that was removed.
    ///
    /// # Errors
    ///
    /// As `PutState` and `DeleteState` list them. [`Error::is_state_conflict`] tells a write that came
    /// too late from other failures: read again, and begin anew.
    pub async fn write(&self, write: StateWrite) -> Result<String, Error> {
        use put_state_request::Condition;
        use state_write::{Change, Condition as Asked};
        let bot_id = self.bot_id.clone();
        let StateWrite {
            scope,
            name,
            change,
            condition,
        } = write;
        if let Some(Change::Delete(true)) = change {
            let request = DeleteStateRequest {
                bot_id,
                scope,
                name,
                if_match: match condition {
                    Some(Asked::IfMatch(etag)) => Some(etag),
                    Some(Asked::IfAbsent(_)) | None => None,
                },
            };
            call!(self.delete_state(request))?;
            return Ok(String::new());
        }
        let request = PutStateRequest {
            bot_id,
            scope,
            name,
            content: match change {
                Some(Change::Put(content)) => Some(content),
                Some(Change::Delete(_)) | None => None,
            },
            condition: condition.map(|condition| match condition {
                Asked::IfMatch(etag) => Condition::IfMatch(etag),
                Asked::IfAbsent(absent) => Condition::IfAbsent(absent),
            }),
        };
        Ok(call!(self.put_state(request))?.etag)
    }

    /// Lists the documents of a scope in order of their names.
    ///
    /// The stream ends after the first error.
    pub fn list(
        &self,
        scope: StateScope,
    ) -> impl Stream<Item = Result<StateDocument, Error>> + Send + use<> {
        let states = self.clone();
        pages(move |page_token| {
            let states = states.clone();
            let request = ListStateRequest {
                bot_id: states.bot_id.clone(),
                scope: Some(scope.clone()),
                page_size: 0,
                page_token,
            };
            async move {
                let page = states.list_page(request).await?;
                Ok((page.documents, page.next_page_token))
            }
        })
    }

    /// Returns a page of the documents of a scope.
    ///
    /// # Errors
    ///
    /// Those of every call.
    pub async fn list_page(&self, request: ListStateRequest) -> Result<ListStateResponse, Error> {
        call!(self.list_state(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_says_is_found_by_field_and_type() {
        let fields = [("visits", Value::from(3.0)), ("name", Value::from("Ana"))];
        let document = StateDocument {
            content: Some(object(fields)),
            ..StateDocument::default()
        };
        assert_eq!(document.number("visits"), Some(3.0));
        assert_eq!(document.text("name"), Some("Ana"));
        assert_eq!(document.number("name"), None);
        assert_eq!(document.field("absent"), None);
        assert_eq!(StateDocument::default().number("visits"), None);
    }

    #[test]
    fn a_write_expects_what_was_read() {
        let put = || StateWrite::put(StateScope::bot(), "n", Struct::default());
        let read = StateDocument {
            etag: "e1".to_owned(),
            ..StateDocument::default()
        };
        assert_eq!(put().if_unchanged(Some(&read)), put().if_match("e1"));
        assert_eq!(put().if_unchanged(None), put().if_absent());
    }
}
