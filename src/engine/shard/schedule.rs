//! Sends that wait for their time: kept, and taken back. `due` sends them.
//!
//! Which of them wait in a conversation is known in memory once anyone has asked, with all that is not
//! in the store yet. So who takes one back and who sends it are decided one after the other, by the same
//! set, and only the first finds it there. A round that fails forgets the conversation, and the set with
//! it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use tokio::sync::oneshot;
use tracing::debug;

use super::Shard;
use super::once::Once;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::engine::schedule::{Answer, Cancel, Cancelled, Schedule, Sent};
use crate::id::{BotId, ConversationNumber, ScheduleId, Sequence};
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange, OnceDigest};
use crate::store::{Order, record};

/// Whose keys the ends of scheduled sends are: no bot's, for the control character, and not the
/// channel's, which is empty.
const SCOPE: &str = "\u{1}schedule";

/// What became of a scheduled send.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(super) how: v1::ScheduleEnd,
    pub(super) bot: BotId,
    /// Where it was appended, and as what, if it was.
    pub(super) sequence: Sequence,
    pub(super) activity_id: String,
}

impl End {
    /// One without an activity.
    pub(super) fn without(how: v1::ScheduleEnd, bot: BotId) -> Self {
        Self {
            how,
            bot,
            sequence: Sequence::START,
            activity_id: String::new(),
        }
    }
}

impl Shard {
    /// Sends something now, or keeps it for its time.
    pub(super) fn schedule(
        &mut self,
        asked: Schedule,
        reply: oneshot::Sender<Result<Sent, Error>>,
        round: &mut Round,
    ) {
        let result = self.decide_schedule(asked, round);
        let metrics = &self.shared.metrics;
        match &result {
            Ok(Sent::Scheduled { repeated: true, .. }) => metrics.sends.repeated.inc(),
            Ok(Sent::Scheduled { .. }) => metrics.scheduled_sends.scheduled.inc(),
            Ok(Sent::Appended(appended)) if appended.repeated => metrics.sends.repeated.inc(),
            Ok(Sent::Appended(_)) => metrics.sends.appended.inc(),
            Err(Error::StoreFailed(_)) => metrics.sends.failed.inc(),
            Err(_) => metrics.sends.refused.inc(),
        };
        if result.is_ok() {
            round.must_be_durable();
        }
        round.answer(Answer::Sent(reply, result));
    }

    fn decide_schedule(&mut self, asked: Schedule, round: &mut Round) -> Result<Sent, Error> {
        let Schedule {
            room: _room,
            conversation: key,
            draft,
            bot,
            reference,
            key: keyed,
            times,
        } = asked;
        let slot = self.resident(&key, round)?;
        let bot = self.speaker(slot, bot, reference.as_deref())?;
        let number = self.conversations[slot].number;
        let once = Once::new(number, &Author::Backend(bot.clone()), keyed);
        if let Some(repeated) = self.seen_sent(&once, slot, round)? {
            return Ok(repeated);
        }
        self.check_takes_part(slot, &bot)?;
        if times.have_passed(round.now) {
            return Err(Error::SendExpired);
        }
        let Some(due) = times.deliver_at.filter(|at| *at > round.now) else {
            let keyed = once.map(Once::into_keyed);
            let sent = self.append_for_backend(key, draft, Some(bot), reference, keyed, round)?;
            return Ok(Sent::Appended(sent));
        };
        let limits = &self.settings.limits;
        let (horizon, limit) = (limits.schedule_horizon, limits.scheduled_sends);
        if due.since(round.now) > horizon {
            return Err(Error::ScheduleTooFar(horizon));
        }
        self.check_change(slot, &draft, &bot)?;
        if self.waiting(slot)?.len() >= limit {
            return Err(Error::TooManyScheduled { limit });
        }
        self.check_disk(round.now)?;
        let id = ScheduleId {
            due_ms: due.0,
            number: self.ids.next_schedule(),
        };
        let kept = storage::Scheduled {
            ask_time_ms: round.now.0,
            expire_time_ms: times.expire_at.map_or(0, |at| at.0),
            bot_id: bot.to_string(),
            activity: draft.body().clone(),
            reference: reference
                .map_or_else(Vec::new, |it| record::encode(&*it))
                .into(),
        };
        let conversation = number;
        record::put(
            &mut round.batch,
            &Key::Scheduled { conversation, id },
            &kept,
        );
        let note = Key::ScheduledDue {
            id,
            conversation: &key,
        };
        round.batch.put(&note, bytes::Bytes::new());
        self.waiting(slot)?.insert(id);
        self.touch(slot, round);
        self.due.expect(due);
        let sent = Sent::Scheduled {
            id,
            repeated: false,
        };
        self.keep_sent(once, &sent, round);
        debug!(conversation.id = %key, schedule.id = %id, "scheduled");
        Ok(sent)
    }

    /// Takes back a send that waits for its time.
    pub(super) fn cancel(
        &mut self,
        asked: &Cancel,
        reply: oneshot::Sender<Result<Cancelled, Error>>,
        round: &mut Round,
    ) {
        let result = self.decide_cancel(asked, round);
        if let Ok(cancelled) = &result {
            if !cancelled.repeated {
                self.shared.metrics.scheduled_sends.cancelled.inc();
            }
            round.must_be_durable();
        }
        round.answer(Answer::Cancelled(reply, result));
    }

    fn decide_cancel(&mut self, asked: &Cancel, round: &mut Round) -> Result<Cancelled, Error> {
        let id = asked.id;
        let is_asked_for = |bot: &BotId| asked.bot.as_ref().is_none_or(|asked| asked == bot);
        let unknown = || Error::ScheduleUnknown(id.to_string());
        let slot = self.resident(&asked.conversation, round)?;
        if self.waiting(slot)?.contains(&id) {
            let conversation = self.conversations[slot].number;
            let key = Key::Scheduled { conversation, id };
            // What is not durable yet was told to nobody, and so nobody can mean it.
            let stored = self.shared.store.get(&key)?.ok_or_else(unknown)?;
            let bot = BotId::from(record::decode_scheduled(&key, stored)?.bot_id);
            if !is_asked_for(&bot) {
                return Err(unknown());
            }
            let how = v1::ScheduleEnd::Cancelled;
            self.end_schedule(slot, id, End::without(how, bot), round);
            debug!(conversation.id = %asked.conversation, schedule.id = %id, "taken back");
            return Ok(Cancelled {
                end: how,
                repeated: false,
            });
        }
        let end = self.end_of(slot, id, round)?;
        let end = end.filter(|end| is_asked_for(&end.bot));
        let end = end.ok_or_else(unknown)?;
        if end.how == v1::ScheduleEnd::Sent {
            return Err(Error::ScheduleSent {
                id,
                activity_id: end.activity_id,
                sequence: end.sequence,
            });
        }
        Ok(Cancelled {
            end: end.how,
            repeated: true,
        })
    }

    /// Removes a send that waits no more, and keeps what became of it for as long as results are kept.
    /// It was found among those that [wait](Self::waiting).
    pub(super) fn end_schedule(
        &mut self,
        slot: usize,
        id: ScheduleId,
        end: End,
        round: &mut Round,
    ) {
        let conversation = &mut self.conversations[slot];
        let was_there = conversation.scheduled.as_mut().map(|all| all.remove(&id));
        debug_assert_eq!(was_there, Some(true));
        let (number, key) = (conversation.number, &conversation.key);
        round.batch.delete(&Key::Scheduled {
            conversation: number,
            id,
        });
        round.batch.delete(&Key::ScheduledDue {
            id,
            conversation: key,
        });
        let digest = end_digest(number, id);
        let generation = self.generation(round.now);
        self.kept.keep(generation, digest);
        let stored = storage::ScheduleEnd {
            end: end.how as i32,
            bot_id: end.bot.to_string(),
            sequence: end.sequence.0,
            activity_id: end.activity_id.clone(),
        };
        record::put(
            &mut round.batch,
            &Key::Idempotency { generation, digest },
            &stored,
        );
        round.ends.insert(digest, end);
        self.touch(slot, round);
    }

    /// What became of a scheduled send, as far as is still known.
    fn end_of(&self, slot: usize, id: ScheduleId, round: &Round) -> Result<Option<End>, Error> {
        let conversation = &self.conversations[slot];
        let digest = end_digest(conversation.number, id);
        let in_flight = self.flight.as_ref();
        let in_flight = in_flight.and_then(|flight| flight.round.ends.get(&digest));
        if let Some(end) = round.ends.get(&digest).or(in_flight) {
            return Ok(Some(end.clone()));
        }
        let Some((generation, stored)) = self.stored_once(conversation, digest, round)? else {
            return Ok(None);
        };
        let key = Key::Idempotency { generation, digest };
        let stored = record::decode_schedule_end(&key, stored)?;
        Ok(Some(End {
            // One that a later gateway knows, and this one does not, is an end all the same.
            how: v1::ScheduleEnd::try_from(stored.end).unwrap_or_default(),
            bot: BotId::from(stored.bot_id.as_str()),
            sequence: Sequence(stored.sequence),
            activity_id: stored.activity_id,
        }))
    }

    /// The sends that wait in a conversation.
    ///
    /// They are read once for each stay in memory, before anything changes them there: so no round in the
    /// air can have changed what is read, and from then on each change is made here, too.
    pub(super) fn waiting(&mut self, slot: usize) -> Result<&mut BTreeSet<ScheduleId>, Error> {
        let conversation = &mut self.conversations[slot];
        if conversation.scheduled.is_none() {
            let range = KeyRange::scheduled(conversation.number, None);
            let mut found = Ok(BTreeSet::new());
            self.shared
                .store
                .scan(&range, Order::Ascending, &mut |key, _| {
                    match (&mut found, keys::decode_scheduled(key)) {
                        (Ok(found), Ok(id)) => drop(found.insert(id)),
                        (_, Err(error)) => found = Err(error),
                        (Err(_), Ok(_)) => {}
                    }
                    match found {
                        Ok(_) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                })?;
            conversation.scheduled = Some(found?);
        }
        Ok(conversation.scheduled.get_or_insert_default())
    }
}

/// Under what the end of a scheduled send is kept.
fn end_digest(conversation: ConversationNumber, id: ScheduleId) -> OnceDigest {
    OnceDigest::new(conversation, SCOPE, &id.to_string())
}
