//! Speaking for a bot.

use super::address::Target;
use super::{Service, speaker};
use crate::auth::Principal;
use crate::engine::session::Appended;
use crate::grpc::access::require;
use crate::id::{BotId, ConversationKey};
use crate::proto::v1;
use crate::status::Failure;

/// What a caller wants said.
pub(super) struct Said {
    pub(super) target: Target,
    pub(super) bot_id: String,
    pub(super) request_id: String,
    pub(super) activity: Box<v1::Activity>,
}

impl Service {
    /// Appends what a caller wants said, if it may speak for the bot. Says to which conversation.
    pub(super) async fn say(
        &self,
        caller: &Principal,
        said: Said,
    ) -> Result<(ConversationKey, Appended), Failure> {
        let bot = speaker(caller, said.bot_id);
        self.may_speak(caller, bot.as_ref())?;
        let (length, limit) = (said.request_id.len(), self.engine.limits().key_bytes);
        if length > limit {
            return Err(Failure::RequestInvalid {
                field: "request_id",
                problem: format!("has {length} bytes, more than `key_bytes={limit}`"),
            });
        }
        let once = (!said.request_id.is_empty()).then_some(said.request_id);
        let (key, reference) = self.find(caller, said.target, bot.as_ref(), once.as_deref())?;
        if !caller.may_speak_for_all() {
            self.visible(caller, &key)?;
        }
        let sent = self
            .engine
            .send_activity(key.clone(), bot, reference, once, said.activity);
        Ok((key, sent.await?))
    }

    /// Refuses a caller that may not speak for the bot; for whichever it is, if none is named.
    pub(super) fn may_speak(&self, caller: &Principal, bot: Option<&BotId>) -> Result<(), Failure> {
        let (allowed, needs) = match bot {
            Some(bot) => (
                caller.may_speak_for(bot),
                format!("`backend` or `bot:{bot}`"),
            ),
            None => (caller.may_speak_for_all(), "`backend`".to_owned()),
        };
        require(allowed, caller, &needs)
    }
}
