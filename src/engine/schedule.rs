//! Sends that wait for their time: what is asked for, what is answered, and what is listed.
//!
//! They are kept and sent by the shard of their conversation, see `shard/schedule` and `shard/due`.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::activity::{self, Draft};
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::engine::command::{Command, Keyed, Room};
use crate::engine::error::Error;
use crate::engine::log::Page;
use crate::engine::session::Appended;
use crate::id::{BotId, ConversationKey, ConversationNumber, ScheduleId};
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::{self, Order, record};

/// When a send is to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Not before; `None`, or a time that has come: now.
    pub deliver_at: Option<Timestamp>,
    /// Not after; `None`: never too late.
    pub expire_at: Option<Timestamp>,
}

impl Times {
    /// Whether it is too late.
    #[must_use]
    pub fn have_passed(&self, now: Timestamp) -> bool {
        self.expire_at.is_some_and(|at| now > at)
    }
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the log.
    Appended(Appended),
    /// It waits for its time.
    Scheduled {
        /// Names it in its conversation.
        id: ScheduleId,
        /// An earlier send under the same key has scheduled it.
        repeated: bool,
    },
}

impl Sent {
    /// The same, as one who repeats it is told.
    pub(crate) fn repeated(self) -> Self {
        match self {
            Self::Appended(appended) => Self::Appended(Appended {
                repeated: true,
                ..appended
            }),
            Self::Scheduled { id, .. } => Self::Scheduled { id, repeated: true },
        }
    }
}

/// Why a scheduled send will not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// Never [`v1::ScheduleEnd::Sent`], which is an error.
    pub end: v1::ScheduleEnd,
    /// It had ended before.
    pub repeated: bool,
}

/// A send that waits for its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduled {
    /// Names it in its conversation, and says when it is due.
    pub id: ScheduleId,
    /// The bot that will speak.
    pub bot: BotId,
    /// When it is of no use any more.
    pub expire_at: Option<Timestamp>,
    /// When it was asked for.
    pub ask_time: Timestamp,
    /// What will be said, without the gateway's fields.
    pub activity: Box<v1::Activity>,
}

/// Some of the sends that wait.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScheduledPage {
    /// In order of time.
    pub scheduled: Vec<Scheduled>,
    /// The last that was looked at, if there may be more.
    pub next: Option<ScheduleId>,
}

/// A send with times, as a shard is asked for it.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) room: Room,
    pub(crate) conversation: ConversationKey,
    pub(crate) draft: Draft,
    pub(crate) bot: Option<BotId>,
    pub(crate) reference: Option<Box<v1::ConversationReference>>,
    pub(crate) key: Option<Keyed>,
    pub(crate) times: Times,
}

/// A scheduled send to be taken back.
#[derive(Debug)]
pub(crate) struct Cancel {
    pub(crate) conversation: ConversationKey,
    pub(crate) id: ScheduleId,
    /// Only if it is of this bot.
    pub(crate) bot: Option<BotId>,
}

/// An answer that is told when its round is durable.
pub(crate) enum Answer {
    Sent(oneshot::Sender<Result<Sent, Error>>, Result<Sent, Error>),
    Cancelled(
        oneshot::Sender<Result<Cancelled, Error>>,
        Result<Cancelled, Error>,
    ),
}

impl Answer {
    pub(crate) fn tell(self) {
        // A caller that has gone away needs no answer.
        match self {
            Self::Sent(reply, result) => drop(reply.send(result)),
            Self::Cancelled(reply, result) => drop(reply.send(result)),
        }
    }

    /// The same when nothing was written: a success becomes a failure, and a refusal stays; but for the one
    /// that says that something was sent, which may have been in what was not written.
    pub(crate) fn fail(self, why: impl Fn() -> Error) {
        match self {
            Self::Sent(reply, result) => Self::Sent(reply, result.and_then(|_| Err(why()))),
            Self::Cancelled(reply, Ok(_) | Err(Error::ScheduleSent { .. })) => {
                Self::Cancelled(reply, Err(why()))
            }
            refused @ Self::Cancelled(..) => refused,
        }
        .tell();
    }
}

impl Keyed {
    /// With times, which are part of what is asked for.
    pub(crate) fn at(mut self, times: Times) -> Self {
        let millis = |at: Option<Timestamp>| {
            let (is_set, at) = at.map_or((0, 0), |at| (1, at.0));
            [u64::to_be_bytes(is_set), u64::to_be_bytes(at)].concat()
        };
        self.payload_hash = Sha256::new()
            .chain_update(self.payload_hash)
            // No reference's encoding begins so, which might follow here as well.
            .chain_update([0])
            .chain_update(millis(times.deliver_at))
            .chain_update(millis(times.expire_at))
            .finalize()
            .into();
        self
    }
}

impl Engine {
    /// Appends what a backend says for a bot when its time has come: now, or by its shard, exactly once.
    /// Answers when it is durable that it was, or will be. As [`send_activity`](Self::send_activity)
    /// otherwise; the times are part of what `key` stands for.
    ///
    /// # Errors
    ///
    /// Those of [`send_activity`](Self::send_activity), and [`Error::SendExpired`],
    /// [`Error::ScheduleTooFar`], [`Error::TooManyScheduled`].
    pub async fn send_at(
        &self,
        times: Times,
        conversation: ConversationKey,
        bot: Option<BotId>,
        reference: Option<Box<v1::ConversationReference>>,
        key: Option<String>,
        mut activity: Box<v1::Activity>,
    ) -> Result<Sent, Error> {
        let (reply, result) = oneshot::channel();
        let draft = activity::outbound(&mut activity, &self.limits())?;
        let keyed = |key| Keyed::new(key, &draft).with(reference.as_deref()).at(times);
        let key = key.map(keyed);
        let shard = self.shard(&conversation);
        let schedule = Schedule {
            room: self.room(draft.body().len()).await,
            conversation,
            draft,
            bot,
            reference,
            key,
            times,
        };
        self.command(shard, Command::Schedule(Box::new(schedule), reply))
            .await?;
        result.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Takes back a send that waits for its time, durably; only if it is of `bot`, when that is given.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::ScheduleUnknown`], [`Error::ScheduleSent`],
    /// [`Error::StoreFailed`], [`Error::ShuttingDown`].
    pub async fn cancel_scheduled(
        &self,
        conversation: ConversationKey,
        id: ScheduleId,
        bot: Option<BotId>,
    ) -> Result<Cancelled, Error> {
        let (reply, result) = oneshot::channel();
        let shard = self.shard(&conversation);
        let cancel = Cancel {
            conversation,
            id,
            bot,
        };
        self.command(shard, Command::Cancel(cancel, reply)).await?;
        result.await.map_err(|_| Error::ShuttingDown)?
    }

    /// The sends of a conversation that wait for their time, of bots that are `shown`, after one and up to
    /// a page.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`].
    pub fn scheduled(
        &self,
        conversation: ConversationNumber,
        after: Option<ScheduleId>,
        page: Page,
        shown: impl Fn(&BotId) -> bool,
    ) -> Result<ScheduledPage, Error> {
        let mut found = ScheduledPage::default();
        let mut corrupt = None;
        let (mut looked_at, mut bytes) = (0, 0);
        let mut is_more = false;
        let range = KeyRange::scheduled(conversation, after);
        self.store()
            .scan(&range, Order::Ascending, &mut |key, value| {
                let size = value.len();
                if looked_at == page.entries || looked_at > 0 && bytes + size > page.bytes {
                    is_more = true;
                    return ControlFlow::Break(());
                }
                looked_at += 1;
                bytes += size;
                match read(conversation, key, value) {
                    Ok(scheduled) => {
                        found.next = Some(scheduled.id);
                        if shown(&scheduled.bot) {
                            found.scheduled.push(scheduled);
                        }
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        corrupt = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
        if let Some(error) = corrupt {
            return Err(error.into());
        }
        found.next = found.next.filter(|_| is_more);
        Ok(found)
    }
}

fn read(
    conversation: ConversationNumber,
    key: &[u8],
    value: Bytes,
) -> Result<Scheduled, store::Error> {
    let id = keys::decode_scheduled(key)?;
    let key = Key::Scheduled { conversation, id };
    let stored = record::decode_scheduled(&key, value)?;
    let activity = v1::Activity::decode(stored.activity.clone());
    let activity = activity.map_err(|error| store::Error::Corrupt {
        what: format!("the activity of `{key}` cannot be decoded: {error}"),
    })?;
    Ok(Scheduled {
        id,
        bot: BotId::from(stored.bot_id.as_str()),
        expire_at: expire_at(&stored),
        ask_time: Timestamp(stored.ask_time_ms),
        activity: Box::new(activity),
    })
}

/// When a stored send is of no use any more.
pub(crate) fn expire_at(stored: &storage::Scheduled) -> Option<Timestamp> {
    (stored.expire_time_ms > 0).then_some(Timestamp(stored.expire_time_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_part_of_what_a_key_stands_for() {
        let hash = |deliver_at, expire_at| {
            let times = Times {
                deliver_at,
                expire_at,
            };
            Keyed::whatever("k".to_owned()).at(times).payload_hash
        };
        let (zero, one) = (Some(Timestamp(0)), Some(Timestamp(1)));
        let hashes = [
            Keyed::whatever("k".to_owned()).payload_hash,
            hash(None, None),
            hash(zero, None),
            hash(None, zero),
            hash(one, zero),
            hash(zero, one),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
        assert_eq!(hash(one, zero), hash(one, zero));
    }

    #[test]
    fn it_is_too_late_after_the_time_and_not_at_it() {
        let times = Times {
            deliver_at: None,
            expire_at: Some(Timestamp(5)),
        };
        assert!(!times.have_passed(Timestamp(5)));
        assert!(times.have_passed(Timestamp(6)));
        assert!(!Times::default().have_passed(Timestamp(u64::MAX)));
    }
}
