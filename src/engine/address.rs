//! Finding the conversation to speak to a user in, and what leads back to a conversation.
//!
//! Both read what is durable, on the caller's task. A conversation that ends or starts meanwhile is as
//! one that does so a moment later: what is found was right when it was looked for.

use std::sync::Arc;

use prost::Message;

use crate::activity::{Kind, Outline};
use crate::engine::Engine;
use crate::engine::bots::only_bot;
use crate::engine::conversation::Stored;
use crate::engine::error::Error;
use crate::engine::log::{Author, Entry, Page};
use crate::engine::read::Filter;
use crate::id::{BotId, ChannelId, ConversationKey};
use crate::proto::v1;
use crate::store::keys::{self, Key, OnceDigest};
use crate::store::{Order, record};

/// How many of the newest activities are looked at for one that a reference can be an answer to.
const LOOKED_BACK: usize = 32;

/// A user to speak to, and for whom.
#[derive(Clone, Debug)]
pub struct User {
    /// The channel.
    pub channel: ChannelId,
    /// The user's id on it.
    pub user: String,
    /// The bot that speaks; `None`: whichever does in the conversation.
    pub bot: Option<BotId>,
}

/// A conversation that a user was found in.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub key: ConversationKey,
    /// The conversation.
    pub stored: Stored,
    /// The user, as its channel has described it.
    pub account: v1::ChannelAccount,
}

impl Engine {
    /// The conversation to speak to a user in: of those that have not ended, that the bot takes part in
    /// and the user is in, and that the caller `sees`, the one that started last; a direct one before
    /// any group. No more than limit `user_conversations` are looked at, those that started last.
    ///
    /// One in which the bot has a result under `key` goes before all others, even if it has ended: a
    /// repeat is to find what it repeats, whatever has started since, and wherever the bot has left.
    ///
    /// # Errors
    ///
    /// [`Error::UserUnreachable`], [`Error::StoreFailed`].
    pub fn conversation_of(
        &self,
        user: &User,
        key: Option<&str>,
        sees: impl Fn(&Stored) -> bool,
    ) -> Result<Found, Error> {
        let filter = Filter::User(user.channel.clone(), user.user.clone());
        let most = self.limits().user_conversations;
        let mut best: Option<Found> = None;
        for position in self.conversations(&filter, None, most)? {
            let is_settled = best.as_ref().is_some_and(|best| !best.stored.is_group);
            if is_settled && key.is_none() {
                break;
            }
            let name = position.conversation;
            let stored = self.conversation(&name)?;
            if !sees(&stored) {
                continue;
            }
            let speaks = user.bot.as_ref();
            let is_repeat = match key {
                Some(key) => self.has_result(&name, &stored, speaks, key)?,
                None => false,
            };
            let takes_part = |bot| stored.bots().any(|other| other == bot);
            if !is_repeat && !speaks.is_none_or(takes_part) {
                continue;
            }
            let is_better = best
                .as_ref()
                .is_none_or(|best| best.stored.is_group && !stored.is_group);
            if !is_repeat && (stored.ended || !is_better) {
                continue;
            }
            let account = self.member(&stored, &user.user)?;
            if !is_repeat && account.is_none() {
                // The user was here, and has left.
                continue;
            }
            let found = Found {
                key: name,
                stored,
                account: account.unwrap_or_else(|| v1::ChannelAccount {
                    id: Some(user.user.clone()),
                    ..Default::default()
                }),
            };
            if is_repeat {
                return Ok(found);
            }
            best = Some(found);
        }
        best.ok_or_else(|| Error::UserUnreachable {
            user: user.user.clone(),
            channel: user.channel.clone(),
        })
    }

    /// What leads a bot back to a conversation, as fresh as its channel has told it.
    ///
    /// # Errors
    ///
    /// [`Error::BotAbsent`], [`Error::BotAmbiguous`], [`Error::NoBot`], [`Error::StoreFailed`].
    pub fn reference(
        &self,
        key: &ConversationKey,
        stored: Stored,
        bot: Option<&BotId>,
    ) -> Result<v1::ConversationReference, Error> {
        let bot = match bot {
            Some(bot) if stored.bots().any(|other| other == bot) => bot,
            Some(bot) => {
                return Err(Error::BotAbsent {
                    bot: bot.clone(),
                    conversation: key.clone(),
                });
            }
            None => self.only_bot(key, &stored)?,
        };
        let registered = self.settings().get();
        let account = registered.bots.get(bot).map(|bot| bot.account.clone());
        let activity_id = self.newest_of_user(&stored)?;
        let reference = stored.reference;
        Ok(v1::ConversationReference {
            activity_id,
            bot: account.or(reference.bot),
            channel_id: Some(key.channel.to_string()),
            ..reference
        })
    }

    /// The only bot of a conversation that is registered.
    fn only_bot<'s>(&self, key: &ConversationKey, stored: &'s Stored) -> Result<&'s BotId, Error> {
        only_bot(stored.bots(), &self.settings().get(), key)
    }

    /// The id of the newest activity that a user can be answered to.
    fn newest_of_user(&self, stored: &Stored) -> Result<Option<String>, Error> {
        let page = Page {
            entries: LOOKED_BACK,
            bytes: self.limits().page_bytes,
        };
        let (first, last) = (stored.first, stored.last);
        let newest = self.activities(stored.number, first, last, Order::Descending, page)?;
        let is_answerable = |entry: &&Arc<Entry>| {
            let kind = Outline::decode(&*entry.activity).ok();
            let kind = kind.and_then(|outline| outline.r#type);
            let kind = kind.as_deref().map(Kind::from);
            // Who joined, and that someone types, is nothing to answer.
            entry.author == Author::Channel
                && !matches!(
                    kind,
                    None | Some(Kind::ConversationUpdate | Kind::Typing | Kind::MessageDelete)
                )
        };
        let newest = newest.iter().find(is_answerable);
        Ok(newest.map(|entry| entry.activity_id.to_string()))
    }

    /// Whether a bot has sent something under a key in a conversation, as far as results are kept.
    fn has_result(
        &self,
        name: &ConversationKey,
        stored: &Stored,
        bot: Option<&BotId>,
        key: &str,
    ) -> Result<bool, Error> {
        let bot = match bot {
            Some(bot) => bot,
            None => match self.only_bot(name, stored) {
                Ok(bot) => bot,
                // Nobody has sent here without saying for whom.
                Err(_) => return Ok(false),
            },
        };
        let digest = OnceDigest::new(stored.number, bot.as_str(), key);
        let retention = self.limits().idempotency_retention;
        let now = keys::generation(self.clock().now(), retention.as_millis().max(1) as u64);
        for generation in [now, now.saturating_sub(1)] {
            let key = Key::Idempotency { generation, digest };
            if self.store().get(&key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A member's account.
    fn member(&self, stored: &Stored, member: &str) -> Result<Option<v1::ChannelAccount>, Error> {
        let key = Key::Member {
            conversation: stored.number,
            member,
        };
        let account = self.store().get(&key)?;
        let account = account.map(|account| record::decode_member(&key, account));
        Ok(account.transpose()?)
    }
}
