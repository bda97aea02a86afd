//! Updates and deletions: a bot changes what it said itself, on a channel whose users can see that.

use prost::Message as _;

use super::Shard;
use crate::activity::{Draft, Kind, Outline};
use crate::engine::error::Error;
use crate::engine::log;
use crate::id::{BotId, ChannelId};
use crate::proto::v1;
use crate::store::keys::Key;
use crate::store::record;

impl Shard {
    /// Refuses an update or a deletion that cannot be: of a channel that has none, or of what is no
    /// message of this bot's. Everything else passes.
    pub(super) fn check_change(
        &self,
        slot: usize,
        draft: &Draft,
        bot: &BotId,
    ) -> Result<(), Error> {
        let (name, capability): (_, fn(&v1::ChannelCapabilities) -> bool) = match draft.kind {
            Kind::MessageUpdate => ("update", |all| all.update),
            Kind::MessageDelete => ("delete", |all| all.delete),
            _ => return Ok(()),
        };
        let conversation = &self.conversations[slot];
        let channel = &conversation.key.channel;
        if !self.can(channel, capability) {
            return Err(Error::CapabilityMissing {
                channel: channel.clone(),
                capability: name,
            });
        }
        let id = draft.id.as_deref().unwrap_or_default();
        let unknown = || Error::ActivityUnknown {
            id: id.to_owned(),
            bot: bot.clone(),
        };
        // What is not durable yet was told to nobody, and so nobody can mean it.
        let position = log::position_of(&conversation.key.conversation, id)
            .filter(|sequence| *sequence <= conversation.durable);
        let position = position.ok_or_else(unknown)?;
        let key = Key::Activity {
            conversation: conversation.number,
            sequence: position,
        };
        let stored = self.shared.store.get(&key)?.ok_or_else(unknown)?;
        let stored = record::decode_activity(&key, stored)?;
        let outline = Outline::decode(&*stored.activity).unwrap_or_default();
        let is_message = outline.r#type.as_deref() == Some(Kind::Message.as_str());
        if !is_message || stored.activity_id != id || stored.bot_id != bot.as_str() {
            return Err(unknown());
        }
        // A deletion that is in the air is not known here: who updates at the same time may be either
        // before it or after it, and readers of history hold to the deletion.
        let is_deleted = self.stored_receipt(conversation, position)?.deleted;
        if is_deleted && draft.kind == Kind::MessageUpdate {
            return Err(unknown());
        }
        Ok(())
    }

    /// Whether a channel can do something, by its configuration or by what its adapter declared.
    pub(super) fn can(
        &self,
        channel: &ChannelId,
        capability: impl Fn(&v1::ChannelCapabilities) -> bool,
    ) -> bool {
        let configured = self.settings.channels.get(channel);
        configured.is_some_and(|channel| capability(&channel.capabilities))
            || self.shared.declared().get(channel).is_some_and(capability)
    }
}
