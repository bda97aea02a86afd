//! Dead letters, as operators see them: listed from the store, and dealt with by the shards.

use std::ops::ControlFlow;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::engine::command::{Command, DeadLetters, Deal, Dealt};
use crate::engine::conversation::Stored;
use crate::engine::error::Error;
use crate::id::{ChannelId, ConversationId, ConversationKey, Sequence};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::{Order, record};

/// An activity that a bot, or a channel, could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place among all dead letters: where a list goes on.
    pub position: Vec<u8>,
    /// Its conversation.
    pub conversation: ConversationKey,
    /// Who could not take it: the bot's id; empty for the channel's egress.
    pub reader: String,
    /// Its position in the log.
    pub sequence: Sequence,
    /// When it was parked.
    pub parked: Timestamp,
    /// How often it was handed out; of one that is handed over again, since then.
    pub attempts: u32,
    /// Why, in the bot's or channel's words.
    pub reason: String,
    /// It is being handed over again.
    pub replay: bool,
}

/// Which dead letters to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Those of one conversation.
    pub conversation: Option<ConversationKey>,
    /// Those of a bot; those of channels when it is empty.
    pub reader: Option<String>,
}

/// A page of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// In the order of their conversations' numbers, their readers and their sequences.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Vec<u8>>,
}

/// Dead letters of others that a page goes over at most.
const LOOKED_AT: usize = 10_000;

impl Engine {
    /// Dead letters after a position, up to `limit`. A page may have fewer, and none, while there are
    /// more.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`], [`Error::StoreFailed`].
    pub fn dead_letters(
        &self,
        filter: &LetterFilter,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Letters, Error> {
        let store = &*self.inner.shared.store;
        let range = match (&filter.conversation, &filter.reader) {
            (Some(key), reader) => {
                let number = Stored::read(store, key)?.number;
                match reader {
                    Some(reader) => KeyRange::dead_letters_of(number, reader),
                    None => KeyRange::dead_letters(number),
                }
            }
            (None, _) => KeyRange::table(keys::Table::DeadLetter),
        };
        let range = after.map_or(range.clone(), |after| range.after(after));
        let mut page = Letters::default();
        let mut looked_at = 0;
        let mut corrupt = None;
        store.scan(&range, Order::Ascending, &mut |key, value| {
            looked_at += 1;
            let letter = keys::decode_dead_letter(key).and_then(|(conversation, bot, sequence)| {
                let name = Key::DeadLetter {
                    conversation,
                    bot,
                    sequence,
                };
                let stored = record::decode_dead_letter(&name, value)?;
                Ok(DeadLetter {
                    position: key.to_vec(),
                    conversation: ConversationKey {
                        channel: ChannelId::from(stored.channel_id),
                        conversation: ConversationId::from(stored.conversation_id),
                    },
                    reader: bot.to_owned(),
                    sequence,
                    parked: Timestamp(stored.parked_time_ms),
                    attempts: stored.attempts,
                    reason: stored.reason,
                    replay: stored.replay,
                })
            });
            match letter {
                Ok(letter) => {
                    let is_meant = filter.reader.as_ref();
                    if is_meant.is_none_or(|reader| *reader == letter.reader) {
                        page.letters.push(letter);
                    }
                }
                Err(error) => {
                    corrupt = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if page.letters.len() < limit && looked_at < LOOKED_AT {
                return ControlFlow::Continue(());
            }
            page.next = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        match corrupt {
            Some(error) => Err(error.into()),
            None => Ok(page),
        }
    }

    /// Hands dead letters of a conversation over again, or drops them: those at `sequences`, or all of
    /// the reader's, up to a page. Those that are being handed over again already are left alone.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationUnknown`]; [`Error::BotAbsent`] when there is nobody to hand them to;
    /// [`Error::StoreFailed`], [`Error::ShuttingDown`].
    pub async fn deal(
        &self,
        conversation: ConversationKey,
        reader: String,
        sequences: Vec<Sequence>,
        deal: Deal,
    ) -> Result<Dealt, Error> {
        let (reply, dealt) = oneshot::channel();
        let shard = self.shard(&conversation);
        let letters = DeadLetters {
            conversation,
            reader,
            sequences,
            deal,
            reply,
        };
        self.command(shard, Command::Deal(Box::new(letters)))
            .await?;
        dealt.await.map_err(|_| Error::ShuttingDown)?
    }
}
