//! Sends that wait for their time: their times, taking them back, and listing them.

use super::{Service, convert, page, speaker};
use crate::activity::Kind;
use crate::auth::Principal;
use crate::clock::Timestamp;
use crate::engine::Error;
use crate::engine::log::Page;
use crate::engine::schedule::{Scheduled, Times};
use crate::grpc::access::require;
use crate::id::{BotId, ScheduleId};
use crate::proto::v1;
use crate::status::Failure;

/// When a send is to happen.
pub(super) fn times(
    deliver_at: Option<prost_types::Timestamp>,
    expire_at: Option<prost_types::Timestamp>,
) -> Result<Times, Failure> {
    let times = Times {
        deliver_at: convert::time(deliver_at, "deliver_at")?,
        expire_at: convert::time(expire_at, "expire_at")?,
    };
    match (times.deliver_at, times.expire_at) {
        (Some(deliver), Some(expire)) if expire <= deliver => Err(Failure::RequestInvalid {
            field: "expire_at",
            problem: "must be later than `deliver_at`".to_owned(),
        }),
        _ => Ok(times),
    }
}

/// Refuses times for what is seen now or never.
pub(super) fn check(activity: &v1::Activity) -> Result<(), Failure> {
    let kind = activity.r#type.as_deref().map(Kind::from);
    if kind == Some(Kind::Typing) {
        return Err(Failure::RequestInvalid {
            field: "deliver_at",
            problem: "and `expire_at` are not for `typing`, which is seen now or never".to_owned(),
        });
    }
    Ok(())
}

impl Service {
    /// Takes back a send that waits, if the caller may speak for its bot.
    pub(super) async fn cancel(
        &self,
        caller: &Principal,
        request: v1::CancelScheduledActivityRequest,
    ) -> Result<v1::CancelScheduledActivityResponse, Failure> {
        let bot = speaker(caller, request.bot_id);
        self.may_speak(caller, bot.as_ref())?;
        let key = convert::key(request.conversation, "conversation")?;
        if !caller.may_speak_for_all() {
            self.visible(caller, &key)?;
        }
        if request.schedule_id.is_empty() {
            return Err(super::required("schedule_id"));
        }
        let id = ScheduleId::parse(&request.schedule_id)
            .ok_or(Error::ScheduleUnknown(request.schedule_id))?;
        let cancelled = self.engine.cancel_scheduled(key, id, bot).await?;
        Ok(v1::CancelScheduledActivityResponse {
            end: cancelled.end as i32,
            repeated_cancel: cancelled.repeated,
        })
    }

    /// A page of the sends that wait in a conversation.
    pub(super) fn scheduled(
        &self,
        caller: &Principal,
        request: v1::ListScheduledActivitiesRequest,
    ) -> Result<v1::ListScheduledActivitiesResponse, Failure> {
        let sees_all = caller.may_read_all();
        let speaks = sees_all || caller.bots().next().is_some();
        require(speaks, caller, "`backend`, `reader` or that of a bot")?;
        let key = convert::key(request.conversation, "conversation")?;
        let conversation = self.visible(caller, &key)?;
        let limits = self.engine.limits();
        let page = Page {
            entries: page::size(request.page_size, limits.page)?,
            bytes: limits.page_bytes,
        };
        let after: Option<ScheduleId> = page::after(&request.page_token)?;
        let shown = |bot: &BotId| sees_all || caller.may_speak_for(bot);
        let found = self
            .engine
            .scheduled(conversation.number, after, page, shown)?;
        Ok(v1::ListScheduledActivitiesResponse {
            scheduled: found.scheduled.into_iter().map(scheduled).collect(),
            next_page_token: found.next.as_ref().map(page::token).unwrap_or_default(),
        })
    }
}

fn scheduled(scheduled: Scheduled) -> v1::ScheduledActivity {
    v1::ScheduledActivity {
        schedule_id: scheduled.id.to_string(),
        bot_id: scheduled.bot.to_string(),
        deliver_at: Some(convert::timestamp(Timestamp(scheduled.id.due_ms))),
        expire_at: scheduled.expire_at.map(convert::timestamp),
        ask_time: Some(convert::timestamp(scheduled.ask_time)),
        activity: Some(scheduled.activity),
    }
}
