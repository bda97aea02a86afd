//! Speaking for a bot: now, or when its time has come.

use super::address::Target;
use super::{Service, convert, speaker};
use crate::auth::Principal;
use crate::engine::schedule::{Sent, Times};
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

/// The same, when it is known that the caller may, and where it is to go.
struct Allowed {
    key: ConversationKey,
    bot: Option<BotId>,
    reference: Option<Box<v1::ConversationReference>>,
    once: Option<String>,
    activity: Box<v1::Activity>,
}

impl Service {
    /// Appends what a caller wants said, if it may speak for the bot.
    pub(super) async fn say(&self, caller: &Principal, said: Said) -> Result<Appended, Failure> {
        let Allowed {
            key,
            bot,
            reference,
            once,
            activity,
        } = self.allowed(caller, said)?;
        let sent = self
            .engine
            .send_activity(key, bot, reference, once, activity);
        Ok(sent.await?)
    }

    /// The same at its time, which is now if `times` do not say otherwise.
    pub(super) async fn send(
        &self,
        caller: &Principal,
        said: Said,
        times: Times,
    ) -> Result<v1::SendActivityResponse, Failure> {
        let Allowed {
            key,
            bot,
            reference,
            once,
            activity,
        } = self.allowed(caller, said)?;
        let conversation = Some(convert::name(&key));
        let sent = if times == Times::default() {
            let sent = self
                .engine
                .send_activity(key, bot, reference, once, activity);
            Sent::Appended(sent.await?)
        } else {
            super::schedule::check(&activity)?;
            let sent = self
                .engine
                .send_at(times, key, bot, reference, once, activity);
            sent.await?
        };
        Ok(match sent {
            Sent::Appended(appended) => v1::SendActivityResponse {
                appended: Some(convert::appended(&appended)),
                repeated_send: appended.repeated,
                schedule_id: String::new(),
                conversation,
            },
            Sent::Scheduled { id, repeated } => v1::SendActivityResponse {
                appended: None,
                repeated_send: repeated,
                schedule_id: id.to_string(),
                conversation,
            },
        })
    }

    fn allowed(&self, caller: &Principal, said: Said) -> Result<Allowed, Failure> {
        let bot = speaker(caller, said.bot_id);
        self.may_speak(caller, bot.as_ref())?;
        let once = self.once(said.request_id)?;
        let (key, reference) = self.find(caller, said.target, bot.as_ref(), once.as_deref())?;
        if !caller.may_speak_for_all() {
            self.visible(caller, &key)?;
        }
        Ok(Allowed {
            key,
            bot,
            reference,
            once,
            activity: said.activity,
        })
    }

    /// Refuses a caller that may not speak for the bot; for whichever it is, if none is named.
    pub(in crate::grpc) fn may_speak(
        &self,
        caller: &Principal,
        bot: Option<&BotId>,
    ) -> Result<(), Failure> {
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
