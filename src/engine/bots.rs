//! Which bots take part in a conversation: adding one, removing one, handing over from one to another.

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::activity::{self, Draft, Kind};
use crate::engine::Engine;
use crate::engine::Start;
use crate::engine::command::{Command, Keyed, Room};
use crate::engine::error::Error;
use crate::engine::session::Appended;
use crate::engine::settings::Settings;
use crate::id::{BotId, ConversationKey, Sequence};
use crate::proto::v1;

/// What the event is called that tells a bot of a conversation that is handed over to it: the name that
/// the Bot Framework's SDKs give it, `HandoffEventNames.InitiateHandoff`.
const INITIATE: &str = "handoff.initiate";

/// Who wants to change the bots of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// One who may see every conversation.
    Backend,
    /// One who is these bots: where none of them takes part, there is no conversation for it.
    Bots(Vec<BotId>),
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where it was told to those who take part; `None` when nothing was to be told.
    pub appended: Option<Appended>,
    /// Nothing was changed now: it was so already, or this is the result of an earlier call.
    pub unchanged: bool,
}

/// A change that a shard is asked for.
#[derive(Debug)]
pub(crate) struct ChangeBots {
    /// Of a hand-over: room for its event.
    pub(crate) room: Option<Room>,
    pub(crate) conversation: ConversationKey,
    pub(crate) change: Change,
    pub(crate) asker: Asker,
    /// Makes repeating safe.
    pub(crate) key: Option<Keyed>,
    pub(crate) reply: oneshot::Sender<Result<Appended, Error>>,
}

/// What is to change.
#[derive(Debug)]
pub(crate) enum Change {
    Add {
        bot: BotId,
        start: Start,
    },
    Remove {
        bot: BotId,
    },
    HandOver {
        /// `None`: the only bot.
        from: Option<BotId>,
        to: BotId,
        event: Box<Draft>,
    },
}

impl Change {
    /// What tells it from other changes under the same key.
    fn hash(&self) -> [u8; 32] {
        let (name, parts) = match self {
            Self::Add { bot, start } => {
                let start = match start {
                    Start::End => "end".to_owned(),
                    Start::After(sequence) => sequence.to_string(),
                };
                ("add", vec![bot.to_string(), start])
            }
            Self::Remove { bot } => ("remove", vec![bot.to_string()]),
            Self::HandOver { from, to, .. } => {
                let from = from.as_ref().map(ToString::to_string);
                ("hand over", vec![from.unwrap_or_default(), to.to_string()])
            }
        };
        let mut hash = Sha256::new_with_prefix(name);
        for part in parts {
            // The length keeps apart what would run together.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        if let Self::HandOver { event, .. } = self {
            hash.update(event.payload_hash());
        }
        hash.finalize().into()
    }
}

/// The only one of a conversation's bots that is registered: one that is not any more speaks no more.
pub(crate) fn only_bot<'b>(
    bots: impl Iterator<Item = &'b BotId>,
    settings: &Settings,
    conversation: &ConversationKey,
) -> Result<&'b BotId, Error> {
    let mut bots = bots.filter(|bot| settings.bots.contains_key(*bot));
    match (bots.next(), bots.next()) {
        (Some(bot), None) => Ok(bot),
        (None, _) => Err(Error::NoBot(conversation.clone())),
        (Some(_), Some(_)) => Err(Error::BotAmbiguous(conversation.clone())),
    }
}

impl Engine {
    /// Adds a bot to a conversation, durably. It is handed what follows `start`. `key` makes repeating
    /// safe; without it a bot that takes part already stays where it is.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::BotUnknown`], [`Error::TooManyBots`];
    /// [`Error::SequenceGone`] when retention has removed what follows `start`;
    /// [`Error::IdempotencyMismatch`], [`Error::StoreFull`], [`Error::StoreFailed`],
    /// [`Error::ShuttingDown`].
    pub async fn add_bot(
        &self,
        conversation: ConversationKey,
        bot: BotId,
        start: Start,
        key: Option<String>,
    ) -> Result<Changed, Error> {
        let change = Change::Add { bot, start };
        self.change_bots(conversation, change, Asker::Backend, key, None)
            .await
    }

    /// Removes a bot from a conversation, durably: what it holds there is taken from it. `key` makes
    /// repeating safe; without it nothing is done about a bot that does not take part.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::IdempotencyMismatch`], [`Error::StoreFull`],
    /// [`Error::StoreFailed`], [`Error::ShuttingDown`].
    pub async fn remove_bot(
        &self,
        conversation: ConversationKey,
        bot: BotId,
        asker: Asker,
        key: Option<String>,
    ) -> Result<Changed, Error> {
        let change = Change::Remove { bot };
        self.change_bots(conversation, change, asker, key, None)
            .await
    }

    /// Hands a conversation over from a bot (or the only one) to another, durably, with words and a
    /// value for that. `key` makes repeating safe.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::BotUnknown`], [`Error::BotAbsent`],
    /// [`Error::BotAmbiguous`], [`Error::NoBot`], [`Error::SameBot`], [`Error::BotsLoop`];
    /// [`Error::Activity`] of what `text` and `value` make; [`Error::IdempotencyMismatch`],
    /// [`Error::StoreFull`], [`Error::StoreFailed`], [`Error::ShuttingDown`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field of the one request"
    )]
    pub async fn hand_over(
        &self,
        conversation: ConversationKey,
        from: Option<BotId>,
        to: BotId,
        text: String,
        value: Option<prost_types::Value>,
        asker: Asker,
        key: Option<String>,
    ) -> Result<Changed, Error> {
        let mut event = Box::new(v1::Activity {
            r#type: Some(Kind::Event.as_str().to_owned()),
            name: Some(INITIATE.to_owned()),
            text: (!text.is_empty()).then_some(text),
            value,
            ..Default::default()
        });
        let event = activity::outbound(&mut event, &self.limits())?;
        let room = self.room(event.body().len()).await;
        let event = Box::new(event);
        let change = Change::HandOver { from, to, event };
        self.change_bots(conversation, change, asker, key, Some(room))
            .await
    }

    async fn change_bots(
        &self,
        conversation: ConversationKey,
        change: Change,
        asker: Asker,
        key: Option<String>,
        room: Option<Room>,
    ) -> Result<Changed, Error> {
        let (reply, result) = oneshot::channel();
        let shard = self.shard(&conversation);
        let key = key.map(|key| Keyed {
            payload_hash: change.hash(),
            key,
        });
        let change = ChangeBots {
            room,
            conversation,
            change,
            asker,
            key,
            reply,
        };
        self.command(shard, Command::Bots(Box::new(change))).await?;
        let appended = result.await.map_err(|_| Error::ShuttingDown)??;
        Ok(Changed {
            unchanged: appended.repeated,
            // There is no such position: nothing was appended.
            appended: (appended.sequence != Sequence::START).then_some(appended),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_under_a_key_is_told_apart() {
        let add = |bot: &str, start| Change::Add {
            bot: bot.into(),
            start,
        };
        let hand_over = |from: Option<&str>, to: &str, text: &str| {
            let mut event = v1::Activity {
                r#type: Some("event".to_owned()),
                name: Some(INITIATE.to_owned()),
                text: Some(text.to_owned()),
                ..Default::default()
            };
            let event = activity::outbound(&mut event, &Default::default()).expect("a good event");
            Change::HandOver {
                from: from.map(Into::into),
                to: to.into(),
                event: Box::new(event),
            }
        };
        let changes = [
            add("a", Start::End),
            add("a", Start::After(Sequence(0))),
            add("a", Start::After(Sequence(1))),
            add("b", Start::End),
            Change::Remove { bot: "a".into() },
            hand_over(None, "a", ""),
            hand_over(Some("a"), "b", ""),
            hand_over(Some("b"), "a", ""),
            hand_over(Some("a"), "b", "why"),
        ];
        for (index, one) in changes.iter().enumerate() {
            for (other, another) in changes.iter().enumerate() {
                assert_eq!(one.hash() == another.hash(), index == other);
            }
        }
    }
}
