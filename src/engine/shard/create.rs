//! Writing a conversation that its channel has begun on request.

use super::Shard;
use super::append::Answered;
use crate::engine::create::{Create, Created};
use crate::engine::error::Error;
use crate::engine::log::Author;
use crate::engine::round::Round;
use crate::proto::storage;
use crate::store::keys::Key;
use crate::store::record;

impl Shard {
    /// Starts the conversation, lets the bot say its first activity, and keeps the result: all in one
    /// round, and so all or nothing.
    pub(super) fn create(&mut self, mut create: Create, round: &mut Round) {
        let (reply, _) = tokio::sync::oneshot::channel();
        let reply = std::mem::replace(&mut create.reply, reply);
        let result = self.begin(create, round);
        if result.is_ok() {
            round.must_be_durable();
        }
        round.created(reply, result);
    }

    fn begin(&mut self, create: Create, round: &mut Round) -> Result<Created, Error> {
        let Create {
            room: _room,
            conversation: key,
            bot,
            is_group,
            update,
            first,
            once,
            reply: _,
        } = create;
        let known = match self.resident(&key, round) {
            Ok(slot) => Some(slot),
            Err(Error::ConversationUnknown(_)) => None,
            Err(error) => return Err(error),
        };
        // Everything that may be refused comes before the first write.
        match known {
            Some(slot) if !self.takes_part(slot, &bot) => {
                return Err(Error::BotAbsent {
                    bot,
                    conversation: key,
                });
            }
            None if is_group && !self.can(&key.channel, |all| all.groups) => {
                return Err(Error::GroupsUnsupported(key.channel));
            }
            Some(_) | None => self.check_disk(round.now)?,
        }
        let slot = match known {
            // Nobody joins what has begun before.
            Some(slot) => slot,
            None => {
                let number = self.ids.next_number();
                let slot = self.start(&key, number, &update, is_group, &bot, round)?;
                self.conversations[slot].is_group = is_group;
                self.write_inbound(slot, &update, round);
                slot
            }
        };
        let appended = first.map(|first| {
            self.shared.metrics.sends.appended.inc();
            let author = Author::Backend(bot);
            self.write_outbound(slot, &first, author, &Answered::default(), round)
        });
        if let Some((digest, hash)) = once {
            let generation = self.generation(round.now);
            let result = storage::Idempotency {
                payload_hash: hash.to_vec().into(),
                sequence: appended.as_ref().map_or(0, |first| first.sequence.0),
                activity_id: { appended.as_ref() }
                    .map(|first| first.activity_id.to_string())
                    .unwrap_or_default(),
                conversation_id: key.conversation.to_string(),
                ..Default::default()
            };
            let kept_at = Key::Idempotency { generation, digest };
            record::put(&mut round.batch, &kept_at, &result);
        }
        Ok(Created {
            conversation: key,
            appended,
            repeated: false,
            existed: known.is_some(),
        })
    }
}
