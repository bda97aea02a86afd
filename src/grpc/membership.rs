//! Which bots take part: the calls of `turnwire.v1.ConversationService` that change it.

use super::access::require;
use super::conversations::{Service, required, speaker};
use super::convert;
use crate::auth::Principal;
use crate::engine::{Asker, Start};
use crate::id::{BotId, Sequence};
use crate::proto::v1;
use crate::proto::v1::add_bot_request::Start as AskedStart;
use crate::status::Failure;

impl Service {
    pub(super) async fn add(
        &self,
        caller: &Principal,
        request: v1::AddBotRequest,
    ) -> Result<v1::AddBotResponse, Failure> {
        require(caller.may_speak_for_all(), caller, "`backend`")?;
        let key = convert::key(request.conversation, "conversation")?;
        let bot = named(request.bot_id).ok_or_else(|| required("bot_id"))?;
        let once = self.once(request.request_id)?;
        let start = match request.start {
            None => Start::End,
            Some(AskedStart::AfterSequence(sequence)) => Start::After(Sequence(sequence)),
        };
        let added = self.engine().add_bot(key, bot, start, once).await?;
        Ok(v1::AddBotResponse {
            appended: added.appended.as_ref().map(convert::appended),
            unchanged: added.unchanged,
        })
    }

    pub(super) async fn remove(
        &self,
        caller: &Principal,
        request: v1::RemoveBotRequest,
    ) -> Result<v1::RemoveBotResponse, Failure> {
        let key = convert::key(request.conversation, "conversation")?;
        let bot = speaker(caller, request.bot_id);
        let bot = bot.ok_or_else(|| required("bot_id"))?;
        self.may_speak(caller, Some(&bot))?;
        let once = self.once(request.request_id)?;
        let asker = asker(caller);
        let removed = self.engine().remove_bot(key, bot, asker, once).await?;
        Ok(v1::RemoveBotResponse {
            appended: removed.appended.as_ref().map(convert::appended),
            unchanged: removed.unchanged,
        })
    }

    pub(super) async fn pass_on(
        &self,
        caller: &Principal,
        request: v1::HandOverRequest,
    ) -> Result<v1::HandOverResponse, Failure> {
        let key = convert::key(request.conversation, "conversation")?;
        let from = speaker(caller, request.from_bot_id);
        self.may_speak(caller, from.as_ref())?;
        let to = named(request.to_bot_id).ok_or_else(|| required("to_bot_id"))?;
        let once = self.once(request.request_id)?;
        let (text, value) = (request.text, request.value);
        let handed = self
            .engine()
            .hand_over(key, from, to, text, value, asker(caller), once);
        let handed = handed.await?;
        Ok(v1::HandOverResponse {
            appended: handed.appended.as_ref().map(convert::appended),
            repeated_call: handed.unchanged,
        })
    }
}

fn named(bot: String) -> Option<BotId> {
    (!bot.is_empty()).then(|| BotId::from(bot))
}

/// Who asks, for a conversation that not everyone may see.
fn asker(caller: &Principal) -> Asker {
    if caller.may_speak_for_all() {
        Asker::Backend
    } else {
        Asker::Bots(caller.bots().cloned().collect())
    }
}
