//! Starting conversations, coming back to them, and saying something in them.

use serde_json::Value;

use super::inbound::{self, Posted};
use super::token::fresh_id;
use super::watermark::Watermark;
use super::{Caller, Conversation, DirectLine, Error, Parameters};
use crate::activity::{self, Kind, validate};
use crate::engine::log::MEMBERSHIP;
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
        let subject = match caller.claims() {
            Some(claims) => claims.subject(),
            None => {
                self.check_start(caller, parameters)?;
                self.fresh(caller, parameters)
            }
        };
        let key = self.key(caller, &subject.conversation);
        let user = self.speaker(caller).or_else(|| parameters.user.clone());
        if let Some(user) = &user {
            self.check_is_user(user)?;
        }
        let locale = parameters.locale.clone();
        let is_new = match self.engine().conversation(&key) {
            Ok(_) => false,
            Err(engine::Error::ConversationUnknown(_)) => {
                self.tell_start(caller, &key, user, locale).await?
            }
            Err(error) => return Err(error.into()),
        };
        let (grant, claims) = self.issue(caller, subject);
        let watermark = Watermark(Sequence::START).to_string();
        let conversation = Conversation {
            grant,
            stream_url: self.stream_url(caller, base, &claims, &watermark),
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
                let user = self.speaker(caller);
                self.tell_start(caller, &key, user, None).await?;
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
            None => self.subject_for(caller, id.to_owned(), &stored),
        };
        let (grant, claims) = self.issue(caller, subject);
        Ok(Conversation {
            grant,
            stream_url: self.stream_url(caller, base, &claims, &Watermark(position).to_string()),
        })
    }

    /// Appends what a client says, durably, and returns its id. Does not wait for the bot.
    ///
    /// What is posted again with the same `channelData.clientActivityID` is the same activity.
    ///
    /// # Errors
    ///
    /// As `inbound::read`; [`Error::ConversationForeign`]; those of the engine.
    pub async fn post(&self, caller: &Caller, id: &str, activity: Value) -> Result<String, Error> {
        let key = self.place(caller, id)?;
        let posted = inbound::read(
            &activity,
            caller.user().as_ref(),
            id,
            self.service_url(caller),
        )?;
        // Larger than what was made of it, and of no more use.
        drop(activity);
        let appended = self.say(caller, &key, posted).await?;
        Ok(appended.activity_id.to_string())
    }

    /// Appends what was made ready, after its user was let in.
    pub(super) async fn say(
        &self,
        caller: &Caller,
        key: &ConversationKey,
        posted: Posted,
    ) -> Result<Appended, Error> {
        let Posted {
            activity,
            client_activity_id,
        } = posted;
        // Before anyone is told of its user: what is refused leaves nothing behind.
        activity::validate::inbound(&activity, &self.engine().limits())
            .map_err(engine::Error::from)?;
        let from = activity.from.clone().unwrap_or_default();
        self.check_is_user(&from)?;
        let kind = Kind::from(activity.r#type.as_deref().unwrap_or_default());
        if kind.is_ephemeral() {
            // Nobody joins by typing, and nothing starts. With a token there may be nothing yet.
            if caller.has_secret() {
                self.engine().conversation(key)?;
            }
            return Ok(self.engine().post(&key.channel, activity).await?);
        }
        self.let_in(caller, key, &from).await?;
        let channel = &key.channel;
        let Some(client) = client_activity_id else {
            return Ok(self.engine().post(channel, activity).await?);
        };
        let from = from.id.unwrap_or_default();
        // The length keeps apart what would run together.
        let once = format!("direct line: {} {from} {client}", from.len());
        Ok(self.engine().post_once(channel, once, activity).await?)
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

    /// Refuses a user who is called as a bot is: any of them may be added to a conversation.
    fn check_is_user(&self, user: &v1::ChannelAccount) -> Result<(), Error> {
        let id = user.id.as_deref();
        if id.is_some_and(|id| self.engine().is_bot(id)) {
            return Err(Error::bad("from.id", "is a bot's: choose another"));
        }
        Ok(())
    }

    /// Tells the bot of a user who has not been in the conversation, before it hears them.
    async fn let_in(
        &self,
        caller: &Caller,
        key: &ConversationKey,
        from: &v1::ChannelAccount,
    ) -> Result<(), Error> {
        let id = from.id.as_deref().unwrap_or_default();
        let stored = match self.engine().conversation(key) {
            Err(engine::Error::ConversationUnknown(_)) if !caller.has_secret() => {
                let user = Some(from.clone());
                if self.tell_start(caller, key, user, None).await? {
                    return Ok(());
                }
                // Another call started it meanwhile, maybe for nobody.
                self.engine().conversation(key)?
            }
            other => other?,
        };
        if stored.ended || self.engine().is_member(stored.number, id)? {
            return Ok(());
        }
        let once = format!("direct line: joined {id}");
        let joined = vec![from.clone()];
        let update = self.membership(caller, key, joined, from.clone(), None);
        self.engine().post_once(&key.channel, once, update).await?;
        Ok(())
    }

    /// Starts a conversation with the activity that says who is in it. Returns whether this was the
    /// one that did.
    async fn tell_start(
        &self,
        caller: &Caller,
        key: &ConversationKey,
        user: Option<v1::ChannelAccount>,
        locale: Option<String>,
    ) -> Result<bool, Error> {
        let bots = self.engine().bots_of(&key.channel);
        let bot = bots.first().cloned();
        let bot = bot.ok_or_else(|| engine::Error::ChannelUnknown(key.channel.clone()))?;
        let from = user.clone().unwrap_or(bot);
        let members = bots.into_iter().chain(user).collect();
        let update = self.membership(caller, key, members, from, locale);
        let posting = self
            .engine()
            .post_once(&key.channel, STARTED.to_owned(), update);
        Ok(!posting.await?.repeated)
    }

    fn membership(
        &self,
        caller: &Caller,
        key: &ConversationKey,
        joined: Vec<v1::ChannelAccount>,
        from: v1::ChannelAccount,
        locale: Option<String>,
    ) -> Box<v1::Activity> {
        Box::new(v1::Activity {
            r#type: Some(Kind::ConversationUpdate.as_str().to_owned()),
            // By this answers to it are known: see `visibility`.
            id: Some(format!("{}{MEMBERSHIP}{}", key.conversation, fresh_id())),
            from: Some(from),
            conversation: Some(v1::ConversationAccount {
                id: Some(key.conversation.to_string()),
                ..Default::default()
            }),
            members_added: joined,
            locale,
            service_url: Some(self.service_url(caller).to_owned()),
            ..Default::default()
        })
    }
}
