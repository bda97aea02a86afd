//! Who is in a conversation, and how to come back to it: learnt from what its channel posts.

use bytes::Bytes;

use super::Shard;
use super::bots::{account as account_of, bots};
use crate::activity::erase::is_erased_member;
use crate::activity::{Draft, Kind};
use crate::engine::round::Round;
use crate::id::Sequence;
use crate::proto::v1;
use crate::store::keys::{Key, ListBy};
use crate::store::record;

impl Shard {
    /// Keeps the members: who joins, who leaves, and who speaks.
    pub(super) fn learn_members(&mut self, slot: usize, draft: &Draft, round: &mut Round) {
        let speaker = draft.from.as_ref().filter(|from| !self.is_bot(slot, from));
        let conversation = &mut self.conversations[slot];
        let joining = draft.members_added.iter().map(|account| (account, true));
        for (account, renew) in speaker
            .map(|account| (account, false))
            .into_iter()
            .chain(joining)
        {
            let Some(id) = account.id.as_deref() else {
                continue;
            };
            if !renew && conversation.knows_member(id) {
                continue;
            }
            conversation.remember_member(id);
            let key = Key::Member {
                conversation: conversation.number,
                member: id,
            };
            // An unreadable store shows when the round is written.
            let encoded = key.encode();
            let flight = self.flight.as_ref();
            let is_new = round.removed_members.remove(&encoded)
                || flight.is_some_and(|flight| flight.round.removed_members.contains(&encoded))
                || !matches!(self.shared.store.get(&key), Ok(Some(known)) if !is_erased_member(&known));
            if renew || is_new {
                record::put(&mut round.batch, &key, account);
            }
            if is_new {
                let by = ListBy::User(&conversation.key.channel, id);
                let (start, conversation) = (conversation.start_time, &conversation.key);
                round.batch.put(
                    &Key::Listing {
                        by,
                        start,
                        conversation,
                    },
                    Bytes::new(),
                );
            }
        }
        for account in &draft.members_removed {
            let Some(id) = account.id.as_deref() else {
                continue;
            };
            conversation.known_members.remove(id);
            let key = Key::Member {
                conversation: conversation.number,
                member: id,
            };
            round.removed_members.insert(key.encode());
            round.batch.delete(&key);
        }
    }

    /// Keeps the reference fresh: who last spoke for the user, in which language, called back where.
    pub(super) fn freshen_reference(&mut self, slot: usize, draft: &Draft, round: &mut Round) {
        let is_update = draft.kind == Kind::ConversationUpdate;
        let users = |account: &&v1::ChannelAccount| !self.is_bot(slot, account);
        let user = if is_update {
            let joined = draft.members_added.iter().find(users);
            joined.filter(|_| self.conversations[slot].reference.user.is_none())
        } else {
            draft.from.as_ref().filter(users)
        };
        let user = user.cloned();
        let conversation = &mut self.conversations[slot];
        let reference = &mut conversation.reference;
        let mut changed = conversation.last == Sequence::START;
        changed |= renew(&mut reference.user, user.as_ref());
        // Later posts often name the conversation by its id alone; that is no news.
        let told = draft.conversation.as_ref().filter(|account| {
            **account
                != v1::ConversationAccount {
                    id: account.id.clone(),
                    ..Default::default()
                }
        });
        changed |= renew(&mut reference.conversation, told);
        changed |= renew(&mut reference.service_url, draft.service_url.as_ref());
        changed |= renew(&mut reference.locale, draft.locale.as_ref());
        if changed {
            let key = Key::Conversation {
                conversation: &conversation.key,
            };
            record::put(&mut round.batch, &key, &conversation.conversation_record());
        }
    }

    /// Whether an account is a bot of the conversation.
    fn is_bot(&self, slot: usize, account: &v1::ChannelAccount) -> bool {
        if account.role.as_deref() == Some("bot") {
            return true;
        }
        let conversation = &self.conversations[slot];
        let id = account.id.as_ref();
        let named = conversation.reference.bot.as_ref();
        let is = |bot: &v1::ChannelAccount| id.is_some() && bot.id.as_ref() == id;
        let (settings, reference) = (&self.settings, &conversation.reference);
        named.is_some_and(is)
            || bots(conversation).any(|bot| is(&account_of(settings, reference, bot)))
    }
}

/// Replaces `kept` by what was told, if anything was. Returns whether that changed it.
fn renew<T: Clone + PartialEq>(kept: &mut Option<T>, told: Option<&T>) -> bool {
    let changed = told.is_some() && kept.as_ref() != told;
    if changed {
        *kept = told.cloned();
    }
    changed
}
