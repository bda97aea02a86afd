//! Which bots take part in a conversation.

use super::Conversations;
use crate::Error;
use crate::proto::{AddBotRequest, Appended, ConversationName, HandOverRequest, RemoveBotRequest};

/// What became of a change of a conversation's bots.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Where it was told. `None` when nothing was to be told, because it was so already.
    pub appended: Option<Appended>,
    /// It was so already, or an earlier call had the same request id: nothing was changed now.
    pub unchanged: bool,
}

impl Conversations {
    /// Adds a bot to a conversation, which hears what is said from then on. A bot that takes part already
    /// stays where it is, so that trying again is safe.
    ///
    /// # Errors
    ///
    /// As `AddBot` lists them.
    pub async fn add_bot(
        &self,
        conversation: ConversationName,
        bot_id: impl Into<String>,
    ) -> Result<Changed, Error> {
        self.add_bot_request(AddBotRequest {
            conversation: Some(conversation),
            bot_id: bot_id.into(),
            ..Default::default()
        })
        .await
    }

    /// Adds a bot, with everything the call offers: from where on it hears, and a request id.
    ///
    /// # Errors
    ///
    /// As `AddBot` lists them.
    pub async fn add_bot_request(&self, request: AddBotRequest) -> Result<Changed, Error> {
        let added = call!(self.add_bot(request))?;
        Ok(Changed {
            appended: added.appended,
            unchanged: added.unchanged,
        })
    }

    /// Removes a bot from a conversation: what it holds there is stale from then on. Nothing is done about
    /// a bot that does not take part, so that trying again is safe.
    ///
    /// # Errors
    ///
    /// As `RemoveBot` lists them.
    pub async fn remove_bot(
        &self,
        conversation: ConversationName,
        bot_id: impl Into<String>,
    ) -> Result<Changed, Error> {
        self.remove_bot_request(RemoveBotRequest {
            conversation: Some(conversation),
            bot_id: bot_id.into(),
            ..Default::default()
        })
        .await
    }

    /// Removes a bot, with everything the call offers.
    ///
    /// # Errors
    ///
    /// As `RemoveBot` lists them.
    pub async fn remove_bot_request(&self, request: RemoveBotRequest) -> Result<Changed, Error> {
        let removed = call!(self.remove_bot(request))?;
        Ok(Changed {
            appended: removed.appended,
            unchanged: removed.unchanged,
        })
    }

    /// Hands a conversation over to another bot, with words for it: from the bot whose token this is, or
    /// else from the conversation's only one. All that is unfinished goes to the other.
    ///
    /// # Errors
    ///
    /// As `HandOver` lists them. It has no request id, so that trying again may be refused with
    /// `BOT_ABSENT` after it has happened; [`hand_over_request`](Self::hand_over_request) takes one.
    pub async fn hand_over(
        &self,
        conversation: ConversationName,
        to_bot_id: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<Changed, Error> {
        self.hand_over_request(HandOverRequest {
            conversation: Some(conversation),
            to_bot_id: to_bot_id.into(),
            text: text.into(),
            ..Default::default()
        })
        .await
    }

    /// Hands a conversation over, with everything the call offers.
    ///
    /// # Errors
    ///
    /// As `HandOver` lists them.
    pub async fn hand_over_request(&self, request: HandOverRequest) -> Result<Changed, Error> {
        let handed = call!(self.hand_over(request))?;
        Ok(Changed {
            appended: handed.appended,
            unchanged: handed.repeated_call,
        })
    }
}
