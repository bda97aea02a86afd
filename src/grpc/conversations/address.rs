//! Where a call is to go: a conversation by name, by a reference, or by the user to speak to.

use prost::Message;

use super::{Service, required};
use crate::activity::validate;
use crate::auth::Principal;
use crate::engine::{Conversation, User};
use crate::grpc::convert;
use crate::id::{BotId, ChannelId, ConversationKey};
use crate::proto::v1;
use crate::proto::v1::get_conversation_reference_request::Target as AskedReference;
use crate::proto::v1::send_activity_request::Target as AskedSend;
use crate::status::Failure;

/// Largest conversation reference a send may bring, in bytes: it becomes part of the activity. Two
/// accounts of the largest size fit into it, so that one that the gateway gave can always come back.
const REFERENCE_BYTES: usize = 64 * 1024;

/// Where a send is to go, as it was asked for.
pub(super) enum Target {
    /// A conversation, with a reference to apply if one was given.
    Conversation(ConversationKey, Option<Box<v1::ConversationReference>>),
    /// Wherever this user of a channel can be spoken to.
    User(ChannelId, String),
}

impl Target {
    pub(super) fn named(name: Option<v1::ConversationName>) -> Result<Self, Failure> {
        Ok(Self::Conversation(
            convert::key(name, "conversation")?,
            None,
        ))
    }

    pub(super) fn of_send(asked: Option<AskedSend>) -> Result<Self, Failure> {
        match asked.ok_or_else(|| required("target"))? {
            AskedSend::Conversation(name) => Self::named(Some(name)),
            AskedSend::Reference(reference) => Self::referred(reference),
            AskedSend::User(user) => Self::user(user),
        }
    }

    fn referred(reference: v1::ConversationReference) -> Result<Self, Failure> {
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
        Ok(Self::Conversation(key, Some(Box::new(reference))))
    }

    fn user(user: v1::UserTarget) -> Result<Self, Failure> {
        for (part, id) in [("channel_id", &user.channel_id), ("user_id", &user.user_id)] {
            validate::id(part, id).map_err(|problem| Failure::RequestInvalid {
                field: "user",
                problem: format!("is invalid: {problem}"),
            })?;
        }
        Ok(Self::User(user.channel_id.into(), user.user_id))
    }
}

impl Service {
    /// The conversation that is meant, and the reference to apply there. `key` makes the call safe to
    /// repeat, if it has one.
    pub(super) fn find(
        &self,
        caller: &Principal,
        target: Target,
        bot: Option<&BotId>,
        key: Option<&str>,
    ) -> Result<(ConversationKey, Option<Box<v1::ConversationReference>>), Failure> {
        let (channel, user) = match target {
            Target::Conversation(key, reference) => return Ok((key, reference)),
            Target::User(channel, user) => (channel, user),
        };
        let found = self.user_found(caller, channel, user, bot, key)?;
        // In a group the one who last spoke may be another user.
        let reference = found.stored.is_group.then(|| {
            Box::new(v1::ConversationReference {
                user: Some(found.account),
                ..Default::default()
            })
        });
        Ok((found.key, reference))
    }

    fn user_found(
        &self,
        caller: &Principal,
        channel: ChannelId,
        user: String,
        bot: Option<&BotId>,
        key: Option<&str>,
    ) -> Result<crate::engine::Found, Failure> {
        let sees = |stored: &Conversation| caller.sees(&channel, stored.bots());
        let user = User {
            channel: channel.clone(),
            user,
            bot: bot.cloned(),
        };
        Ok(self.engine.conversation_of(&user, key, sees)?)
    }

    /// What leads back to a conversation.
    pub(super) fn reference(
        &self,
        caller: &Principal,
        request: v1::GetConversationReferenceRequest,
    ) -> Result<v1::GetConversationReferenceResponse, Failure> {
        let bot = super::speaker(caller, request.bot_id);
        let (key, stored, user) = match request.target.ok_or_else(|| required("target"))? {
            AskedReference::Conversation(name) => {
                let key = convert::key(Some(name), "conversation")?;
                let stored = self.visible(caller, &key)?;
                (key, stored, None)
            }
            AskedReference::User(user) => {
                let Target::User(channel, user) = Target::user(user)? else {
                    return Err(required("target"));
                };
                let found = self.user_found(caller, channel, user, bot.as_ref(), None)?;
                (found.key, found.stored, Some(found.account))
            }
        };
        let reference = self.engine.reference(&key, stored, bot.as_ref())?;
        let user = user.or(reference.user);
        Ok(v1::GetConversationReferenceResponse {
            reference: Some(v1::ConversationReference { user, ..reference }),
        })
    }
}
