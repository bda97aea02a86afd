//! Starting conversations, coming back to them, and saying something in them.

use serde_json::Value;

use super::inbound::{self, Posted};
use super::watermark::Watermark;
use super::{Caller, Conversation, DirectLine, Error, Parameters};
use crate::activity::{Kind, validate};
use crate::engine::session::Appended;
use crate::engine::{self, Start};
use crate::id::{ConversationId, ConversationKey, Sequence};
use crate::proto::v1;

/// Under which key a conversation's first activity is posted, so that it is one whoever starts it.
const STARTED: &str = "direct line: started";

impl DirectLine {
    /// Starts a conversation: of a caller with a secret a new one, of one with a token the token's.
    /// Returns whether it was started now. The bot is told who is in it.
    ///
    /// # Errors
    ///
    /// [`Error::PropertyMissing`] and [`Error::ArgumentBad`] under enhanced authentication; those of
    /// the engine.
    pub async fn start(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        base: &str,
    ) -> Result<(bool, Conversation), Error> {
        if self.site(caller).enhanced_authentication && self.trusted(caller).is_empty() {
            return Err(Error::PropertyMissing("trustedOrigins"));
        }
        let subject = match caller.claims() {
            Some(claims) => claims.subject(),
            None => {
                self.check_user(caller, parameters)?;
                self.fresh(caller, parameters)
            }
        };
        let key = self.key(caller, &subject.conversation);
        let user = self.speaker(caller).or_else(|| parameters.user.clone());
        let locale = parameters.locale.clone();
        let is_new = match self.engine().conversation(&key) {
            Ok(_) => false,
            Err(engine::Error::ConversationUnknown(_)) => {
                self.tell_start(&key, user, locale, base).await?
            }
            Err(error) => return Err(error.into()),
        };
        let (grant, claims) = self.issue(caller, subject);
        let watermark = Watermark(Sequence::START).to_string();
        let conversation = Conversation {
            grant,
            stream_url: self.stream_url(base, &claims, &watermark),
        };
        Ok((is_new, conversation))
    }

    /// Gives a client that was cut a stream that goes on after its watermark.
    ///
    /// A token's conversation that has not started is started: its client takes it for one that has.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationForeign`]; the engine's when there is no such conversation.
    pub async fn reconnect(
        &self,
        caller: &Caller,
        id: &str,
        watermark: Option<&str>,
        base: &str,
    ) -> Result<Conversation, Error> {
        let key = self.place(caller, id)?;
        let stored = match self.engine().conversation(&key) {
            Err(engine::Error::ConversationUnknown(_)) if !caller.has_secret() => {
                self.tell_start(&key, self.speaker(caller), None, base)
                    .await?;
                self.engine().conversation(&key)?
            }
            other => other?,
        };
        let position = match Watermark::start(watermark) {
            Start::End => stored.last,
            Start::After(sequence) => sequence,
        };
        let subject = match caller.claims() {
            Some(claims) => claims.subject(),
            None => self.subject(caller, id.to_owned(), &Parameters::default()),
        };
        let (grant, claims) = self.issue(caller, subject);
        Ok(Conversation {
            grant,
            stream_url: self.stream_url(base, &claims, &Watermark(position).to_string()),
        })
    }

    /// Appends what a client says, durably, and returns its id. Does not wait for the bot.
    ///
    /// What is posted again with the same `channelData.clientActivityID` is the same activity.
    ///
    /// # Errors
    ///
    /// As `inbound::read`; [`Error::ConversationForeign`]; those of the engine.
    pub async fn post(
        &self,
        caller: &Caller,
        id: &str,
        activity: &Value,
        base: &str,
    ) -> Result<String, Error> {
        let key = self.place(caller, id)?;
        let user = caller.user();
        let posted = inbound::read(activity, user.as_ref(), id, &service_url(base))?;
        let appended = self.say(caller, &key, posted, base).await?;
        Ok(appended.activity_id.to_string())
    }

    /// Appends what was made ready, after its user was let in.
    pub(super) async fn say(
        &self,
        caller: &Caller,
        key: &ConversationKey,
        posted: Posted,
        base: &str,
    ) -> Result<Appended, Error> {
        if let Some(from) = &posted.activity.from {
            self.let_in(caller, key, from, base).await?;
        }
        let channel = &key.channel;
        let appended = match &posted.client_activity_id {
            Some(client) => {
                let from = posted.activity.from.as_ref();
                let from = from.and_then(|from| from.id.as_deref()).unwrap_or_default();
                // The length keeps apart what would run together.
                let once = format!("direct line: {} {from} {client}", from.len());
                let posting = self.engine().post_once(channel, once, posted.activity);
                posting.await?
            }
            None => self.engine().post(channel, posted.activity).await?,
        };
        Ok(appended)
    }

    /// Where a caller wants to go, if it may.
    pub(super) fn place(&self, caller: &Caller, id: &str) -> Result<ConversationKey, Error> {
        if caller.claims().is_some_and(|claims| claims.conv != id) {
            return Err(Error::ConversationForeign);
        }
        let key = self.key(caller, id);
        if validate::id("conversationId", id).is_err() {
            // What cannot be an id is not one of any conversation.
            return Err(engine::Error::ConversationUnknown(key).into());
        }
        Ok(key)
    }

    fn key(&self, caller: &Caller, id: &str) -> ConversationKey {
        ConversationKey {
            channel: self.channel(caller).clone(),
            conversation: ConversationId::from(id),
        }
    }

    /// The user of the caller's token.
    fn speaker(&self, caller: &Caller) -> Option<v1::ChannelAccount> {
        let user = caller.user()?;
        Some(v1::ChannelAccount {
            id: Some(user.id),
            name: user.name,
            role: Some("user".to_owned()),
            ..Default::default()
        })
    }

    /// Tells the bot of a user who has not been in the conversation, before it hears them.
    async fn let_in(
        &self,
        caller: &Caller,
        key: &ConversationKey,
        from: &v1::ChannelAccount,
        base: &str,
    ) -> Result<(), Error> {
        let id = from.id.as_deref().unwrap_or_default();
        match self.engine().conversation(key) {
            Ok(stored) if stored.ended || self.engine().is_member(stored.number, id)? => Ok(()),
            Ok(_) => {
                let once = format!("direct line: joined {id}");
                let update = membership(key, vec![from.clone()], from.clone(), None, base);
                self.engine().post_once(&key.channel, once, update).await?;
                Ok(())
            }
            Err(engine::Error::ConversationUnknown(_)) if !caller.has_secret() => {
                self.tell_start(key, Some(from.clone()), None, base).await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Starts a conversation with the activity that says who is in it. Returns whether this was the
    /// one that did.
    async fn tell_start(
        &self,
        key: &ConversationKey,
        user: Option<v1::ChannelAccount>,
        locale: Option<String>,
        base: &str,
    ) -> Result<bool, Error> {
        let bot = self.engine().bot_of(&key.channel).cloned();
        let bot = bot.ok_or_else(|| engine::Error::ChannelUnknown(key.channel.clone()))?;
        let from = user.clone().unwrap_or_else(|| bot.clone());
        let members = std::iter::once(bot).chain(user).collect();
        let update = membership(key, members, from, locale, base);
        let posting = self
            .engine()
            .post_once(&key.channel, STARTED.to_owned(), update);
        Ok(!posting.await?.repeated)
    }
}

fn membership(
    key: &ConversationKey,
    joined: Vec<v1::ChannelAccount>,
    from: v1::ChannelAccount,
    locale: Option<String>,
    base: &str,
) -> Box<v1::Activity> {
    Box::new(v1::Activity {
        r#type: Some(Kind::ConversationUpdate.as_str().to_owned()),
        from: Some(from),
        conversation: Some(v1::ConversationAccount {
            id: Some(key.conversation.to_string()),
            ..Default::default()
        }),
        members_added: joined,
        locale,
        service_url: Some(service_url(base)),
        ..Default::default()
    })
}

/// Where bots of the Bot Framework's SDKs would call back.
pub(super) fn service_url(base: &str) -> String {
    format!("{base}/")
}
