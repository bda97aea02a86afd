//! Documents that bots keep: what they are about, what is written to them, and reading them.
//!
//! Reads go to the store, as all reads do. Writes go through a shard, with a Commit or by themselves:
//! `shard/state` decides them.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::ops::ControlFlow;
use std::pin::pin;

use bytes::Bytes;
use prost_types::Struct;
use tokio::sync::oneshot;

use crate::activity::json::{self, Json};
use crate::clock::Timestamp;
use crate::engine::command::{Command, WriteState};
use crate::engine::error::{Error as EngineError, FrameError};
use crate::engine::log::Page;
use crate::engine::{Engine, hashed};
use crate::id::{BotId, ChannelId, ConversationKey, Etag};
use crate::limits::Limits;
use crate::store::keys::{self, About, Key, KeyRange};
use crate::store::{Order, record};

/// How often a write is decided again that met another one under way: each time that other one has
/// landed first, so that this many have gone ahead of it.
const BUSY_TRIES: usize = 16;

/// What a document is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The bot itself.
    Bot,
    /// A user of a channel, in all conversations.
    User(ChannelId, String),
    /// A conversation.
    Conversation(ConversationKey),
    /// A user in one conversation.
    ConversationUser(ConversationKey, String),
}

impl Scope {
    fn about(&self) -> About<'_> {
        match self {
            Self::Bot => About::Bot,
            Self::User(channel, user) => About::User(channel, user),
            Self::Conversation(conversation) => About::Conversation(conversation),
            Self::ConversationUser(conversation, user) => {
                About::ConversationUser(conversation, user)
            }
        }
    }
}

/// What must be so for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// The document has this etag.
    Match(String),
    /// There is no such document.
    Absent,
}

impl Condition {
    /// Whether it holds for a document that has this etag, or for one that is not there.
    #[must_use]
    pub fn holds(&self, present: Option<Etag>) -> bool {
        match self {
            Self::Any => true,
            // Compared as text: one that this gateway could not have given matches nothing.
            Self::Match(etag) => present.is_some_and(|present| present.to_string() == *etag),
            Self::Absent => present.is_none(),
        }
    }
}

/// A write to a document.
#[derive(Clone, PartialEq)]
pub struct Write {
    /// What the document is about.
    pub scope: Scope,
    /// Its name in there.
    pub name: String,
    /// What it says from now on, encoded; `None` removes it.
    pub content: Option<Bytes>,
    /// What must be so for the write to happen.
    pub condition: Condition,
}

/// Leaves out what it says, which is for nobody's log.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("scope", &self.scope)
            .field("name", &self.name)
            .field("condition", &self.condition)
            .finish_non_exhaustive()
    }
}

impl Write {
    /// The document's key.
    pub(crate) fn key<'a>(&'a self, bot: &'a BotId) -> Key<'a> {
        Key::State {
            bot,
            about: self.scope.about(),
            name: &self.name,
        }
    }

    /// How many bytes of content wait with it.
    pub(crate) fn bytes(&self) -> usize {
        self.content.as_ref().map_or(0, Bytes::len)
    }
}

/// Checks what a document is to say, and encodes it.
///
/// # Errors
///
/// [`Error::Shape`], [`Error::TooLarge`].
pub fn content(content: &Struct, limits: &Limits) -> Result<Bytes, Error> {
    // Nesting comes first: what is encoded is walked by recursion.
    content.check(json::NESTING)?;
    let encoded = record::encode(content);
    let (actual, allowed) = (encoded.len(), limits.state_document_bytes);
    if actual > allowed {
        return Err(Error::TooLarge { allowed, actual });
    }
    Ok(encoded.into())
}

/// Checks the writes of one Commit together.
///
/// # Errors
///
/// [`FrameError::TooManyStateWrites`], and [`FrameError::Invalid`] when two are to one document.
pub fn check(writes: &[Write], limits: &Limits) -> Result<(), FrameError> {
    let (count, limit) = (writes.len(), limits.commit_state_writes);
    if count > limit {
        return Err(FrameError::TooManyStateWrites { count, limit });
    }
    let mut documents = HashSet::new();
    match writes
        .iter()
        .find(|write| !documents.insert((&write.scope, &write.name)))
    {
        None => Ok(()),
        Some(twice) => Err(FrameError::Invalid {
            field: "state_writes",
            problem: format!("has two writes to document `{}`", twice.name),
        }),
    }
}

/// A document as it is stored.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// Its name in its scope.
    pub name: String,
    /// Which version of it this is.
    pub etag: Etag,
    /// When it was written.
    pub update_time: Timestamp,
    /// What it says.
    pub content: Struct,
}

/// Leaves out what it says, which is for nobody's log.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("name", &self.name)
            .field("etag", &self.etag)
            .finish_non_exhaustive()
    }
}

impl Document {
    /// Reads the value of a document's key.
    fn read(key: &Key<'_>, name: &str, value: Bytes) -> Result<Self, EngineError> {
        let stored = record::decode_state(key, value)?;
        Ok(Self {
            name: name.to_owned(),
            etag: Etag(stored.etag),
            update_time: Timestamp(stored.update_time_ms),
            content: record::decode_content(key, stored.content)?,
        })
    }
}

/// Why a document is not read or written. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A write's condition does not hold.
    #[error("document `{name}` is not as the write expects it; read it and begin anew")]
    Stale {
        /// The document's name in its scope.
        name: String,
    },
    /// Another write of the document is under way, so that nobody can say yet whether the condition
    /// holds, or which of the two comes last.
    #[error("document `{name}` is being written; send the same again")]
    Busy {
        /// The document's name in its scope.
        name: String,
    },
    /// A document is larger than the limit.
    #[error("a document of {actual} bytes is over the {allowed} of `state_document_bytes`")]
    TooLarge {
        /// Limit `state_document_bytes`.
        allowed: usize,
        /// What there is, in bytes.
        actual: usize,
    },
    /// A document nests too deeply, or JSON could not say it.
    #[error("{0}")]
    Shape(#[from] json::Misfit),
    /// There is no such document.
    #[error("there is no document `{0}`")]
    Unknown(String),
}

impl Engine {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`], [`EngineError::StoreFailed`].
    pub fn document(
        &self,
        bot: &BotId,
        scope: &Scope,
        name: &str,
    ) -> Result<Document, EngineError> {
        let about = scope.about();
        let key = Key::State { bot, about, name };
        match self.inner.shared.store.get(&key)? {
            Some(value) => Document::read(&key, name, value),
            None => Err(Error::Unknown(name.to_owned()).into()),
        }
    }

    /// Documents of a scope in order of their names, up to a page after one. Returns whether there may
    /// be more.
    ///
    /// # Errors
    ///
    /// [`EngineError::StoreFailed`].
    pub fn documents(
        &self,
        bot: &BotId,
        scope: &Scope,
        after: Option<&str>,
        page: Page,
    ) -> Result<(Vec<Document>, bool), EngineError> {
        let about = scope.about();
        let range = KeyRange::state(bot, about, after);
        let mut documents: Vec<Document> = Vec::new();
        let (mut failed, mut more, mut bytes) = (None, false, 0);
        let store = &self.inner.shared.store;
        store.scan(&range, Order::Ascending, &mut |key, value| {
            // The first is taken whatever its size.
            bytes += key.len() + value.len();
            if !documents.is_empty() && (documents.len() >= page.entries || bytes > page.bytes) {
                more = true;
                return ControlFlow::Break(());
            }
            let document = keys::decode_state(key)
                .map_err(EngineError::from)
                .and_then(|name| Document::read(&Key::State { bot, about, name }, name, value));
            match document {
                Ok(document) => {
                    documents.push(document);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok((documents, more)),
        }
    }

    /// The first bot after another one, by id, that keeps documents, whether it is registered or not.
    ///
    /// # Errors
    ///
    /// [`EngineError::StoreFailed`].
    pub(crate) fn next_with_documents(
        &self,
        after: Option<&BotId>,
    ) -> Result<Option<BotId>, EngineError> {
        let mut found = None;
        let range = KeyRange::state_of_bots(after);
        let store = &self.inner.shared.store;
        store.scan(&range, Order::Ascending, &mut |key, _| {
            found = Some(keys::decode_state_bot(key));
            ControlFlow::Break(())
        })?;
        Ok(found.transpose()?)
    }

    /// Removes all documents of a scope, of every bot, durably. Returns how many there were.
    ///
    /// # Errors
    ///
    /// As [`write_document`](Self::write_document).
    pub(crate) async fn remove_documents(&self, scope: &Scope) -> Result<u64, EngineError> {
        let limits = self.limits();
        let page = Page {
            entries: limits.page,
            bytes: limits.page_bytes,
        };
        let mut removed = 0;
        let mut bots = self.next_with_documents(None)?;
        while let Some(bot) = bots {
            loop {
                let (documents, more) = self.documents(&bot, scope, None, page)?;
                for document in documents {
                    let write = Write {
                        scope: scope.clone(),
                        name: document.name,
                        content: None,
                        condition: Condition::Any,
                    };
                    self.write_document(&bot, write).await?;
                    removed += 1;
                }
                if !more {
                    break;
                }
            }
            bots = self.next_with_documents(Some(&bot))?;
        }
        Ok(removed)
    }

    /// Writes or removes a document, durably. Returns the new etag of one that was written.
    ///
    /// # Errors
    ///
    /// [`EngineError::BotUnknown`] for what is to be written, [`Error::Stale`], [`Error::Busy`],
    /// [`EngineError::StoreFull`], [`EngineError::StoreFailed`], [`EngineError::ShuttingDown`].
    pub async fn write_document(
        &self,
        bot: &BotId,
        write: Write,
    ) -> Result<Option<Etag>, EngineError> {
        let shared = &self.inner.shared;
        if write.content.is_some() && !shared.settings.look().bots.contains_key(bot) {
            return Err(EngineError::BotUnknown(bot.clone()));
        }
        let shard = self.shard_of_document(bot, &write.scope, &write.name);
        for _ in 1..BUSY_TRIES {
            // Waits from here on: what lands between the answer and the wait is not missed. And it does
            // land, since a shard decides nothing that it does not write or take back.
            let mut landed = pin!(shared.pending.landed());
            landed.as_mut().enable();
            match self.write_once(shard, bot, write.clone()).await {
                Err(EngineError::State(Error::Busy { .. })) => {
                    // Whatever else lands meanwhile is no try. Who has the document decides nothing more on
                    // top once it was asked for, so this ends.
                    let document = write.key(bot).encode();
                    while shared.pending.has(&document) {
                        landed.as_mut().await;
                        landed.set(shared.pending.landed());
                        landed.as_mut().enable();
                    }
                }
                result => return result,
            }
        }
        self.write_once(shard, bot, write).await
    }

    async fn write_once(
        &self,
        shard: usize,
        bot: &BotId,
        write: Write,
    ) -> Result<Option<Etag>, EngineError> {
        let (reply, result) = oneshot::channel();
        let command = WriteState {
            room: self.room(write.bytes()).await,
            bot: bot.clone(),
            write,
            reply,
        };
        self.command(shard, Command::WriteState(Box::new(command)))
            .await?;
        result.await.map_err(|_| EngineError::ShuttingDown)?
    }

    /// The shard that decides writes without a Commit: the one whose commits are most likely to be to
    /// the same document, so that they seldom meet in two.
    fn shard_of_document(&self, bot: &BotId, scope: &Scope, name: &str) -> usize {
        match scope {
            Scope::Conversation(key) | Scope::ConversationUser(key, _) => self.shard(key),
            Scope::Bot | Scope::User(..) => hashed(&(bot, scope, name), self.inner.shards.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Value;
    use prost_types::value::Kind;

    use super::*;

    fn limits() -> Limits {
        Limits {
            state_document_bytes: 1_000,
            commit_state_writes: 2,
            ..Limits::default()
        }
    }

    fn with(value: Kind) -> Struct {
        let value = Value { kind: Some(value) };
        Struct {
            fields: [("it".to_owned(), value)].into(),
        }
    }

    fn write(scope: Scope, name: &str) -> Write {
        Write {
            scope,
            name: name.to_owned(),
            content: None,
            condition: Condition::Any,
        }
    }

    #[test]
    fn a_condition_is_about_the_etag_that_is_there() {
        let (there, other) = (Etag(7), Etag(8));
        let matches = Condition::Match(there.to_string());
        assert!(matches.holds(Some(there)));
        assert!(!matches.holds(Some(other)));
        assert!(!matches.holds(None));
        assert!(!Condition::Match("7".to_owned()).holds(Some(there)));
        assert!(Condition::Absent.holds(None));
        assert!(!Condition::Absent.holds(Some(there)));
        assert!(Condition::Any.holds(None) && Condition::Any.holds(Some(there)));
    }

    #[test]
    fn what_json_could_not_say_is_refused_and_so_is_what_is_too_large_or_too_deep() {
        content(&with(Kind::NumberValue(1.5)), &limits()).expect("it is fine");
        content(&Struct::default(), &limits()).expect("it may be empty");
        let infinite = content(&with(Kind::NumberValue(f64::INFINITY)), &limits());
        assert!(matches!(infinite, Err(Error::Shape(_))), "{infinite:?}");
        let large = content(&with(Kind::StringValue("x".repeat(1_000))), &limits());
        assert!(matches!(large, Err(Error::TooLarge { .. })), "{large:?}");
        let deep = (0..json::NESTING).fold(with(Kind::BoolValue(true)), |inner, _| {
            with(Kind::StructValue(inner))
        });
        assert!(matches!(content(&deep, &limits()), Err(Error::Shape(_))));
    }

    #[test]
    fn a_commit_writes_each_document_once_and_no_more_than_the_limit() {
        let user = Scope::User("web".into(), "ann".to_owned());
        let two = [write(Scope::Bot, "a"), write(user.clone(), "a")];
        check(&two, &limits()).expect("they are different documents");
        let twice = [write(user.clone(), "a"), write(user, "a")];
        let refused = check(&twice, &limits()).expect_err("one document twice");
        assert!(matches!(
            refused,
            FrameError::Invalid {
                field: "state_writes",
                ..
            }
        ));
        let many = [
            write(Scope::Bot, "a"),
            write(Scope::Bot, "b"),
            write(Scope::Bot, "c"),
        ];
        assert_eq!(
            check(&many, &limits()),
            Err(FrameError::TooManyStateWrites { count: 3, limit: 2 })
        );
    }
}
