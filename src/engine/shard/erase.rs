//! Erasing a user from a page of a log.
//!
//! Done as a round ends, one page in each. Then no other round is in the air, so the store has all that
//! memory has but this round's; and what this round hands over it has handed over, so the log is not read
//! again before the tombstones are in it. Two erasures of one page would each write back what the other
//! removed: hence one in a round.

use std::ops::ControlFlow;

use super::{Shard, letters};
use crate::activity::erase::{self, Erased};
use crate::engine::command::Erase;
use crate::engine::erase::ErasedPage;
use crate::engine::error::Error;
use crate::engine::round::Round;
use crate::id::Sequence;
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange, ListBy};
use crate::store::record::{self, ActivityRecord};
use crate::store::{self, Order};

/// In place of what was said when an erased activity was parked.
const REASON: &str = "erased";

impl Shard {
    /// Does the next page. While there are more, the next round does not wait.
    pub(super) fn erase_next(&mut self, round: &mut Round) {
        let Some(erase) = self.erasing.pop_front() else {
            return;
        };
        // Dead letters that are in this round are not in the store yet, to be looked for.
        let slot = self.slots.get(&erase.conversation);
        if slot.is_some_and(|slot| round.parked.contains(&self.conversations[*slot].number)) {
            self.erasing.push_front(erase);
            self.unfinished = true;
            return;
        }
        self.unfinished |= !self.erasing.is_empty();
        let page = self.erase_page(&erase, round);
        if page.is_ok() {
            round.must_be_durable();
        }
        round.erased(erase.reply, page);
    }

    fn erase_page(&mut self, erase: &Erase, round: &mut Round) -> Result<ErasedPage, Error> {
        let slot = self.resident(&erase.conversation, round)?;
        let mut page = ErasedPage::default();
        // The erasing of a page changes letters, and not whose they are.
        let number = self.conversations[slot].number;
        let readers = letters::readers(&*self.shared.store, number)?;
        for (sequence, record) in self.page(slot, erase)? {
            let by_channel = record.bot_id.is_empty();
            let corrupt = |_| store::Error::Corrupt {
                what: format!("activity {sequence} of `{}`", erase.conversation),
            };
            let left = erase::erase(&record.activity, &erase.user, by_channel).map_err(corrupt)?;
            let activity = match left {
                Erased::Untouched => continue,
                Erased::Named(activity) => {
                    page.named += 1;
                    activity
                }
                Erased::Said(activity) => {
                    page.activities += 1;
                    self.erase_reasons(slot, &readers, sequence, round)?;
                    activity
                }
            };
            let key = Key::Activity {
                conversation: number,
                sequence,
            };
            let left = ActivityRecord {
                append_time: crate::clock::Timestamp(record.append_time_ms),
                author: record.author,
                bot_id: &record.bot_id,
                activity_id: &record.activity_id,
                activity: &activity,
                bot_run: record.bot_run,
                // As it was: newer ones are elsewhere.
                head: &record.head,
            };
            record::put_activity(&mut round.batch, &key, &left);
        }
        if page.activities + page.named > 0 {
            self.forget_entries(slot, round);
        }
        // Who has gone on speaking meanwhile is in a later page.
        page.is_last = erase.at_end && self.conversations[slot].last == erase.through;
        if page.is_last {
            self.erase_member(slot, &erase.user, round)?;
        }
        Ok(page)
    }

    /// The records of a page, but for what retention has removed, be it in this round.
    fn page(
        &self,
        slot: usize,
        erase: &Erase,
    ) -> Result<Vec<(Sequence, storage::Activity)>, store::Error> {
        let conversation = &self.conversations[slot];
        let from = erase.after.next().max(conversation.first);
        let through = erase.through.min(conversation.durable);
        let range = KeyRange::activities(conversation.number, from..=through);
        let mut records = Vec::new();
        let mut corrupt = None;
        let visited = self
            .shared
            .store
            .scan(&range, Order::Ascending, &mut |key, value| {
                let read = keys::decode_activity(key).and_then(|sequence| {
                    let key = Key::Activity {
                        conversation: conversation.number,
                        sequence,
                    };
                    Ok((sequence, record::decode_activity(&key, value)?))
                });
                match read {
                    Ok(read) => records.push(read),
                    Err(error) => {
                        corrupt = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
        visited?;
        corrupt.map_or(Ok(records), Err)
    }

    /// Takes what a bot or a channel said about an activity, when it was parked, from its dead letters: of
    /// all `readers` that have some, those who take part no more as well.
    fn erase_reasons(
        &self,
        slot: usize,
        readers: &[String],
        sequence: Sequence,
        round: &mut Round,
    ) -> Result<(), store::Error> {
        let number = self.conversations[slot].number;
        for reader in readers {
            let key = Key::DeadLetter {
                conversation: number,
                bot: reader,
                sequence,
            };
            if let Some(letter) = self.shared.store.get(&key)? {
                let letter = storage::DeadLetter {
                    reason: REASON.to_owned(),
                    ..record::decode_dead_letter(&key, letter)?
                };
                record::put(&mut round.batch, &key, &letter);
            }
        }
        Ok(())
    }

    /// Lets go of entries in memory: from now on they are read from the log. What sessions hold stays.
    fn forget_entries(&mut self, slot: usize, round: &mut Round) {
        // If the round fails, all of the conversation is read again.
        self.touch(slot, round);
        let conversation = &mut self.conversations[slot];
        for seat in &mut conversation.seats {
            seat.subscription.reread();
        }
        if let Some(feed) = conversation.feed.upgrade() {
            feed.forget();
        }
    }

    /// Leaves of a member an id, and takes the conversation off the list of the user's.
    fn erase_member(
        &mut self,
        slot: usize,
        user: &str,
        round: &mut Round,
    ) -> Result<(), store::Error> {
        self.touch(slot, round);
        let conversation = &mut self.conversations[slot];
        // Who speaks again is a new member, and in the list again: at once, though the store still has
        // the old one.
        conversation.known_members.remove(user);
        let key = Key::Member {
            conversation: conversation.number,
            member: user,
        };
        // One who has left is none; an unreadable store shows when the round is written.
        let left = !matches!(self.shared.store.get(&key), Ok(Some(_)));
        if !left && !round.removed_members.contains(&key.encode()) {
            round.removed_members.insert(key.encode());
            record::put(&mut round.batch, &key, &erase::erased_member(user));
        }
        self.erase_waiting(slot, user, round)?;
        let conversation = &mut self.conversations[slot];
        let listing = Key::Listing {
            by: ListBy::User(&conversation.key.channel, user),
            start: conversation.start_time,
            conversation: &conversation.key,
        };
        round.batch.delete(&listing);
        let account: Option<&mut v1::ChannelAccount> = conversation.reference.user.as_mut();
        let theirs = account.filter(|account| account.id.as_deref() == Some(user));
        if theirs.is_some_and(erase::reduce) {
            let key = Key::Conversation {
                conversation: &conversation.key,
            };
            record::put(&mut round.batch, &key, &conversation.conversation_record());
        }
        Ok(())
    }

    /// Leaves of the account an id in the references of sends that wait for their time: it would be the
    /// recipient. There are at most as many as the limit for sends that wait.
    fn erase_waiting(
        &self,
        slot: usize,
        user: &str,
        round: &mut Round,
    ) -> Result<(), store::Error> {
        let conversation = self.conversations[slot].number;
        let range = KeyRange::scheduled(conversation, None);
        let store = &self.shared.store;
        let mut corrupt = None;
        store.scan(&range, Order::Ascending, &mut |key, value| {
            let reduced = keys::decode_scheduled(key).and_then(|id| {
                let key = Key::Scheduled { conversation, id };
                let scheduled = record::decode_scheduled(&key, value)?;
                let left = erase::reduce_reference(&scheduled.reference, user);
                let left = left.map_err(|_| store::Error::Corrupt {
                    what: format!("the record `{key}` has no reference"),
                })?;
                if let Some(reference) = left {
                    let scheduled = storage::Scheduled {
                        reference: reference.into(),
                        ..scheduled
                    };
                    record::put(&mut round.batch, &key, &scheduled);
                }
                Ok(())
            });
            match reduced {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    corrupt = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        corrupt.map_or(Ok(()), Err)
    }
}
