//! Sending what is due: a little in each round, found by its note, exactly once.
//!
//! What is appended and what is removed for it are one batch, so a crash leaves a send that waits or an
//! activity that was sent, and never both or neither. Notes lie in order of time. Each tick looks at those
//! that are due until the next one: what is due is found at a cost in proportion to it, also when a
//! gateway starts, and the first of the others sets the alarm.

use std::ops::ControlFlow;

use prost::Message;
use tracing::{error, warn};

use super::Shard;
use super::append::Answered;
use super::schedule::End;
use crate::activity::Draft;
use crate::clock::Timestamp;
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::engine::schedule::{Times, expire_at};
use crate::engine::shard_of;
use crate::id::{BotId, ConversationKey, ScheduleId};
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::{self, Order, record};

/// Most sends of one round. While there are more, the next round does not wait, and commands go in
/// between.
const SENT_PER_ROUND: usize = 64;

/// How far the sending has come.
pub(super) struct Progress {
    /// Where the walk over what is due goes on; empty at its beginning. `None`: none is under way.
    after: Option<Vec<u8>>,
    /// When the next one is due, if that is before the next tick.
    next: Timestamp,
}

/// Begins with a walk: what was due while there was no gateway is sent at once, or dropped.
impl Default for Progress {
    fn default() -> Self {
        Self {
            after: Some(Vec::new()),
            next: Timestamp::default(),
        }
    }
}

const NEVER: Timestamp = Timestamp(u64::MAX);

impl Progress {
    /// Notes that time has gone on.
    pub(super) fn begin(&mut self) {
        self.after.get_or_insert_default();
    }

    /// Notes that a send is due at a time.
    pub(super) fn expect(&mut self, due: Timestamp) {
        self.next = self.next.min(due);
    }

    /// When to look, at the latest.
    pub(super) fn next(&self) -> Timestamp {
        self.next
    }
}

impl Shard {
    /// Sends some of what is due.
    pub(super) fn send_due(&mut self, round: &mut Round) {
        if round.now >= self.due.next {
            self.due.begin();
        }
        let Some(after) = self.due.after.take() else {
            return;
        };
        if round.now < self.paused_until {
            // The store has just failed.
            self.due.next = self.paused_until;
            return;
        }
        if self.due.next <= round.now {
            self.due.next = NEVER;
        }
        match self.send_some(&after, round) {
            Ok(None) => {}
            Ok(more) => {
                self.due.after = more;
                self.unfinished = true;
            }
            // Looked at again in the next tick.
            Err(error) => {
                error!(shard = self.index, %error, "what is due cannot be read");
            }
        }
    }

    /// Sends what is due after a note. Returns where to go on, if there is more.
    fn send_some(&mut self, after: &[u8], round: &mut Round) -> Result<Option<Vec<u8>>, Error> {
        let now = round.now;
        let shards = self.settings.shards;
        let mut notes = Vec::new();
        let mut looked_at = None;
        let mut next = NEVER;
        let until = self.next_tick.max(now);
        let range = KeyRange::scheduled_due(until).after(after);
        self.shared
            .store
            .scan(&range, Order::Ascending, &mut |key, _| {
                let Ok((id, conversation)) = keys::decode_scheduled_due(key) else {
                    return ControlFlow::Continue(());
                };
                if shard_of(&conversation, shards) != usize::from(self.index) {
                    return ControlFlow::Continue(());
                }
                if id.due_ms > now.0 {
                    next = Timestamp(id.due_ms);
                    return ControlFlow::Break(());
                }
                notes.push((key.to_vec(), id, conversation));
                if notes.len() < SENT_PER_ROUND {
                    return ControlFlow::Continue(());
                }
                looked_at = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
        self.due.expect(next);
        for (note, id, conversation) in notes {
            match self.send_one(id, &conversation, round) {
                Ok(()) => {}
                // Nothing can be sent until there is room: the next tick tries again.
                Err(Error::StoreFull { .. }) => return Ok(None),
                // One that cannot be read does not keep the others. The next tick tries again.
                Err(error) => {
                    error!(
                        conversation.id = %conversation, schedule.id = %id, %error,
                        "a scheduled send cannot be read"
                    );
                }
            }
            if round.batch.bytes() > self.settings.limits.page_bytes {
                return Ok(Some(note));
            }
        }
        Ok(looked_at)
    }

    /// Sends one, or drops it.
    fn send_one(
        &mut self,
        id: ScheduleId,
        key: &ConversationKey,
        round: &mut Round,
    ) -> Result<(), Error> {
        let note = Key::ScheduledDue {
            id,
            conversation: key,
        };
        let slot = match self.resident(key, round) {
            Ok(slot) => slot,
            Err(error @ Error::ConversationUnknown(_)) => {
                warn!(schedule.id = %id, %error, "a scheduled send was dropped");
                round.batch.delete(&note);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if !self.waiting(slot)?.contains(&id) {
            // It was taken back in this very round, which removes the note as well.
            round.batch.delete(&note);
            return Ok(());
        }
        let conversation = self.conversations[slot].number;
        let record_key = Key::Scheduled { conversation, id };
        let stored = self.shared.store.get(&record_key)?;
        let stored = stored.ok_or_else(|| corrupt(&record_key, "is missing"))?;
        let stored = record::decode_scheduled(&record_key, stored)?;
        let bot = BotId::from(stored.bot_id.as_str());
        let times = Times {
            deliver_at: None,
            expire_at: expire_at(&stored),
        };
        let scheduled = &self.shared.metrics.scheduled_sends;
        let end = if times.have_passed(round.now) {
            scheduled.expired.inc();
            warn!(
                conversation.id = %key, schedule.id = %id, bot.id = %bot,
                "a scheduled send was dropped: its time has passed"
            );
            End::without(v1::ScheduleEnd::Expired, bot)
        } else {
            match self.say_scheduled(slot, &record_key, &stored, bot.clone(), round) {
                Ok(end) => {
                    self.shared.metrics.scheduled_sends.sent.inc();
                    end
                }
                Err(error @ (Error::StoreFailed(_) | Error::StoreFull { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    self.shared.metrics.scheduled_sends.refused.inc();
                    warn!(
                        conversation.id = %key, schedule.id = %id, bot.id = %bot, %error,
                        "a scheduled send was dropped: it can be no more"
                    );
                    End::without(v1::ScheduleEnd::Refused, bot)
                }
            }
        };
        self.end_schedule(slot, id, end, round);
        round.must_be_durable();
        Ok(())
    }

    /// Appends one as a backend's send.
    fn say_scheduled(
        &mut self,
        slot: usize,
        record_key: &Key<'_>,
        stored: &storage::Scheduled,
        bot: BotId,
        round: &mut Round,
    ) -> Result<End, Error> {
        let draft = Draft::again(stored.activity.clone());
        let draft = draft.map_err(|_| corrupt(record_key, "has no activity"))?;
        let reference = (!stored.reference.is_empty())
            .then(|| v1::ConversationReference::decode(stored.reference.clone()));
        let reference = reference.transpose();
        let reference = reference.map_err(|_| corrupt(record_key, "has no reference"))?;
        // It may have left since.
        self.check_takes_part(slot, &bot)?;
        self.check_change(slot, &draft, &bot)?;
        self.check_disk(round.now)?;
        let author = Author::Backend(bot.clone());
        let answered = Answered::of(reference);
        let sent = self.write_outbound(slot, &draft, author, &answered, round);
        Ok(End {
            how: v1::ScheduleEnd::Sent,
            bot,
            sequence: sent.sequence,
            activity_id: sent.activity_id.to_string(),
        })
    }
}

fn corrupt(key: &Key<'_>, how: &str) -> store::Error {
    store::Error::Corrupt {
        what: format!("the record `{key}` {how}"),
    }
}
