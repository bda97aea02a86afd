//! Speaking for a bot: now, or when its time has come.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::address::Target;
use super::{Service, convert, speaker};
use crate::auth::Principal;
use crate::engine::schedule::{Sent, Times};
use crate::engine::session::Appended;
use crate::grpc::access::require;
use crate::id::{BotId, ConversationKey};
use crate::proto::v1;
use crate::status::Failure;

/// How long to wait for a receipt, if at all.
pub(super) fn patience(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Failure> {
    let Some(asked) = asked else { return Ok(None) };
    match Duration::try_from(asked) {
        Ok(patience) => Ok((!patience.is_zero()).then_some(patience)),
        Err(_) => Err(Failure::RequestInvalid {
            field: "wait_for_delivery",
            problem: "must be zero or more".to_owned(),
        }),
    }
}

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

    /// The same at its time, which is now if `times` do not say otherwise. What is appended now can be waited
    /// for with `patience`, until its channel says what became of it.
    pub(super) async fn send(
        &self,
        caller: &Principal,
        said: Said,
        times: Times,
        patience: Option<Duration>,
    ) -> Result<v1::SendActivityResponse, Failure> {
        let Allowed {
            key,
            bot,
            reference,
            once,
            activity,
        } = self.allowed(caller, said)?;
        // Taken before anything is written: who cannot wait is told so while nothing has happened.
        let waits = patience.map(|patience| self.place(patience)).transpose()?;
        let conversation = Some(convert::name(&key));
        let sent = if times == Times::default() {
            let sent = self
                .engine
                .send_activity(key.clone(), bot, reference, once, activity);
            Sent::Appended(sent.await?)
        } else {
            super::schedule::check(&activity)?;
            let sent = self
                .engine
                .send_at(times, key.clone(), bot, reference, once, activity);
            sent.await?
        };
        Ok(match sent {
            Sent::Appended(appended) => {
                let receipt = match waits {
                    Some((patience, _place)) => {
                        Some(self.engine.receipt(&key, &appended, patience).await)
                    }
                    None => None,
                };
                v1::SendActivityResponse {
                    appended: Some(convert::appended(&appended)),
                    repeated_send: appended.repeated,
                    schedule_id: String::new(),
                    receipt: receipt.map(|receipt| v1::Receipt {
                        conversation: conversation.clone(),
                        ..convert::receipt(receipt)
                    }),
                    conversation,
                }
            }
            Sent::Scheduled { id, repeated } => v1::SendActivityResponse {
                appended: None,
                repeated_send: repeated,
                schedule_id: id.to_string(),
                conversation,
                receipt: None,
            },
        })
    }

    /// Room to wait for a receipt, and for how long.
    fn place(&self, patience: Duration) -> Result<(Duration, OwnedSemaphorePermit), Failure> {
        let limits = self.engine.limits();
        let limit = limits.delivery_waiters;
        let place = self.engine.waiter_place();
        let place = place.ok_or(Failure::TooManyWaiters { limit })?;
        Ok((patience.min(limits.delivery_wait), place))
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
