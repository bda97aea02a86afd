//! Reading conversations. What is read is durable, and comes straight from the store: readers cost
//! the shards nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message;

use crate::capacity::Share;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::engine::conversation::Stored;
use crate::engine::error::Error;
use crate::engine::log::{self, Entry, Page};
use crate::id::{BotId, ChannelId, ConversationKey, ConversationNumber, Sequence};
use crate::proto::v1;
use crate::store::keys::{self, Key, KeyRange, ListBy};
use crate::store::{self, Order, Store};

/// Which conversations to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// Those of a channel.
    Channel(ChannelId),
    /// Those a bot takes part in.
    Bot(BotId),
    /// Those a user of a channel is or was a member of.
    User(ChannelId, String),
}

/// Where a list of conversations goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// When the last conversation that was listed started.
    pub start: Timestamp,
    /// That conversation.
    pub conversation: ConversationKey,
}

impl Engine {
    /// A conversation as it is stored.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::StoreFailed`].
    pub fn conversation(&self, key: &ConversationKey) -> Result<Stored, Error> {
        Stored::read(&*self.inner.shared.store, key)
    }

    /// Conversations, the one started last first, up to `limit` after a position.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`].
    pub fn conversations(
        &self,
        filter: &Filter,
        after: Option<&ListPosition>,
        limit: usize,
    ) -> Result<Vec<ListPosition>, Error> {
        let by = match filter {
            Filter::All => ListBy::All,
            Filter::Channel(channel) => ListBy::Channel(channel),
            Filter::Bot(bot) => ListBy::Bot(bot),
            Filter::User(channel, user) => ListBy::User(channel, user),
        };
        let after = after.map(|after| (after.start, &after.conversation));
        self.collect(&KeyRange::listing(by, after), limit, |key, _| {
            let (start, conversation) = keys::decode_listing(key)?;
            Ok(ListPosition {
                start,
                conversation,
            })
        })
    }

    /// Members in order of their ids, up to `limit` after one.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`].
    pub fn members(
        &self,
        conversation: ConversationNumber,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<v1::ChannelAccount>, Error> {
        self.collect(
            &KeyRange::members(conversation, after),
            limit,
            |key, value| {
                let corrupt = |_| store::Error::Corrupt {
                    what: "a member's account".to_owned(),
                };
                keys::decode_member(key)?;
                v1::ChannelAccount::decode(value).map_err(corrupt)
            },
        )
    }

    /// Whether someone is a member.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`].
    pub fn is_member(&self, conversation: ConversationNumber, member: &str) -> Result<bool, Error> {
        let key = Key::Member {
            conversation,
            member,
        };
        Ok(self.inner.shared.store.get(&key)?.is_some())
    }

    /// Activities from `from` to `to`, both included, in the given order, up to a page.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`].
    pub fn activities(
        &self,
        conversation: ConversationNumber,
        from: Sequence,
        to: Sequence,
        order: Order,
        page: Page,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        log::read(
            &*self.inner.shared.store,
            conversation,
            from,
            to,
            order,
            page,
        )
    }

    /// Whether someone is called as a registered bot is.
    #[must_use]
    pub fn is_bot(&self, id: &str) -> bool {
        let settings = self.settings().look();
        let mut bots = settings.bots.values();
        bots.any(|bot| bot.account.id.as_deref() == Some(id))
    }

    /// The accounts of the bots that a channel's new conversations begin with; the first comes first.
    #[must_use]
    pub fn bots_of(&self, channel: &ChannelId) -> Vec<v1::ChannelAccount> {
        let settings = self.settings().look();
        let Some(channel) = settings.channels.get(channel) else {
            return Vec::new();
        };
        let accounts = channel.bots().filter_map(|bot| settings.bots.get(bot));
        accounts.map(|bot| bot.account.clone()).collect()
    }

    /// The bots that a channel's new conversations begin with; the first comes first. None without the channel.
    #[must_use]
    pub fn routed_bots(&self, channel: &ChannelId) -> Vec<BotId> {
        let settings = self.settings().look();
        let channel = settings.channels.get(channel);
        let bots = channel.into_iter().flat_map(|channel| channel.bots());
        bots.cloned().collect()
    }

    /// A registered bot as users see it.
    #[must_use]
    pub fn account(&self, bot: &BotId) -> Option<v1::ChannelAccount> {
        let settings = self.settings().look();
        let bot = settings.bots.get(bot)?;
        Some(bot.account.clone())
    }

    /// What a channel can do, by its configuration or by what its adapter declared.
    #[must_use]
    pub fn capabilities(&self, channel: &ChannelId) -> v1::ChannelCapabilities {
        let shared = &self.inner.shared;
        let settings = shared.settings.look();
        let configured = settings.channels.get(channel);
        let configured = configured.map_or_else(Default::default, |channel| channel.capabilities);
        let declared = shared.declared().get(channel).copied().unwrap_or_default();
        v1::ChannelCapabilities {
            groups: configured.groups || declared.groups,
            update: configured.update || declared.update,
            delete: configured.delete || declared.delete,
            typing: configured.typing || declared.typing,
            streaming: configured.streaming || declared.streaming,
            create: configured.create || declared.create,
        }
    }

    /// A place among those who watch conversations, if there is one. It is free again when dropped.
    #[must_use]
    pub fn watch_place(&self) -> Option<Share> {
        self.inner.watchers.try_take(1)
    }

    /// The store, for what is not part of any conversation.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.inner.shared.store
    }

    fn collect<T>(
        &self,
        range: &KeyRange,
        limit: usize,
        mut decode: impl FnMut(&[u8], bytes::Bytes) -> Result<T, store::Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        let mut corrupt = None;
        self.inner
            .shared
            .store
            .scan(range, Order::Ascending, &mut |key, value| {
                match decode(key, value) {
                    Ok(item) => items.push(item),
                    Err(error) => corrupt = Some(error),
                }
                if items.len() < limit && corrupt.is_none() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        match corrupt {
            Some(error) => Err(error.into()),
            None => Ok(items),
        }
    }
}
