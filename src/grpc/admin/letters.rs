//! Dead letters and sessions, as the API says them.

use prost::Message;

use crate::clock::Timestamp;
use crate::engine::log::Page;
use crate::engine::session::Subscriber;
use crate::engine::{DeadLetter, Deal, Dealt, Doing, Error, LetterFilter, SessionInfo};
use crate::grpc::convert;
use crate::grpc::page::{self, Room};
use crate::id::{ConversationKey, Sequence};
use crate::proto::{server, v1};
use crate::status::Failure;
use crate::store::Order;

use super::{Service, check_id};

impl Service {
    pub(super) fn letters(
        &self,
        request: v1::ListDeadLettersRequest,
    ) -> Result<server::ListDeadLettersResponse, Failure> {
        let conversation = match request.conversation {
            Some(name) => Some(convert::key(Some(name), "conversation")?),
            None => None,
        };
        if let Some(bot) = request.bot_id.as_deref().filter(|bot| !bot.is_empty()) {
            check_id("bot_id", bot)?;
        }
        let filter = LetterFilter {
            conversation,
            reader: request.bot_id,
        };
        let limits = self.engine.limits().clone();
        let size = page::size(request.page_size, limits.page)?;
        let after: Option<Vec<u8>> = page::after(&request.page_token)?;
        let found = self.engine.dead_letters(&filter, after.as_deref(), size)?;
        let mut room = Room::new(limits.page_bytes);
        let mut next = found.next;
        let mut letters: Vec<server::DeadLetter> = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        for letter in found.letters {
            let position = letter.position.clone();
            let letter = self.letter(letter)?;
            if !room.take(letter.encoded_len()) {
                next = last;
                break;
            }
            letters.push(letter);
            last = Some(position);
        }
        Ok(server::ListDeadLettersResponse {
            dead_letters: letters,
            next_page_token: next.as_ref().map(page::token).unwrap_or_default(),
        })
    }

    /// A dead letter, with its activity.
    fn letter(&self, letter: DeadLetter) -> Result<server::DeadLetter, Failure> {
        let conversation = match self.engine.conversation(&letter.conversation) {
            Ok(conversation) => Some(conversation.number),
            Err(Error::ConversationUnknown(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let one = Page {
            entries: 1,
            bytes: 1,
        };
        let at = letter.sequence;
        let entries = match conversation {
            Some(number) => self
                .engine
                .activities(number, at, at, Order::Ascending, one)?,
            None => Vec::new(),
        };
        Ok(server::DeadLetter {
            conversation: Some(convert::name(&letter.conversation)),
            bot_id: letter.reader,
            sequence: letter.sequence.0,
            parked_time: Some(convert::timestamp(letter.parked)),
            attempts: letter.attempts,
            reason: letter.reason,
            replay: letter.replay,
            activity: entries
                .first()
                .map(|entry| entry.activity.clone())
                .unwrap_or_default(),
        })
    }

    pub(super) async fn deal(
        &self,
        conversation: Option<v1::ConversationName>,
        bot_id: String,
        sequences: Vec<u64>,
        deal: Deal,
    ) -> Result<Dealt, Failure> {
        let key: ConversationKey = convert::key(conversation, "conversation")?;
        if !bot_id.is_empty() {
            check_id("bot_id", &bot_id)?;
        }
        let limit = self.engine.limits().page;
        if sequences.len() > limit {
            let problem = format!("has {} items, more than `page={limit}`", sequences.len());
            return Err(Failure::RequestInvalid {
                field: "sequences",
                problem,
            });
        }
        let sequences = sequences.into_iter().map(Sequence).collect();
        Ok(self.engine.deal(key, bot_id, sequences, deal).await?)
    }
}

/// A session.
pub(super) fn session(info: SessionInfo) -> v1::SessionInfo {
    let time = |at: Option<Timestamp>| at.map(convert::timestamp);
    v1::SessionInfo {
        session_id: info.id,
        subscriber: Some(match info.subscriber {
            Subscriber::Bot(bot) => v1::session_info::Subscriber::BotId(bot.to_string()),
            Subscriber::Egress(channel) => {
                v1::session_info::Subscriber::ChannelId(channel.to_string())
            }
        }),
        instance_id: info.instance,
        state: match info.doing {
            Doing::Open => v1::SessionState::Open,
            Doing::Away => v1::SessionState::Away,
            Doing::Draining => v1::SessionState::Draining,
        } as i32,
        since: time(Some(info.since)),
        heard_time: time(Some(info.heard)),
        window: info.window as u32,
        credit_deliveries: info.credit.deliveries,
        credit_bytes: info.credit.bytes,
        leases: info.leases,
        held: info.held,
        held_since: time(info.held_since),
        unread_frames: info.unread as u64,
        undelivered: info.backlog.undelivered,
        oldest_time: time(info.backlog.oldest),
        deaf: info.deaf,
    }
}
