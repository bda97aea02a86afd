//! Who reads a conversation, by its cursors and by the settings in force; and conversations in memory
//! when others are put in force: they come to what they would be if they were read anew.
//!
//! A conversation is looked at before anything is done with it, and the rest of them little by little,
//! since there may be many.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Shard, Unsorted};
use crate::clock::Timestamp;
use crate::engine::conversation::{Reader, Seat};
use crate::engine::delivery::{Cursor, Subscription};
use crate::engine::heard::Heard;
use crate::engine::round::Round;
use crate::engine::session::Subscriber;
use crate::engine::settings::{Channel, Outbound, Settings};
use crate::id::{BotId, ConversationKey, Sequence};
use crate::store::keys::{Key, ListBy};

/// Slots of conversations that are looked at in one round.
const LOOKED_AT_PER_ROUND: usize = 1_024;

/// How the settings change who reads a conversation.
#[derive(Default)]
pub(super) struct Readers {
    /// None of its bots is registered any more, and this one, which its channel is routed to, joins.
    pub(super) joins: Option<BotId>,
    /// What bots say waits for an adapter from now on: `Some(true)`; or no more: `Some(false)`.
    pub(super) egress: Option<bool>,
}

impl Readers {
    /// A conversation stays with its bots when its channel is routed elsewhere, unless none of them is
    /// registered any more; and as it is, when its channel is not configured any more.
    pub(super) fn of<'r>(
        settings: &Settings,
        key: &ConversationKey,
        readers: impl Iterator<Item = &'r Reader> + Clone,
        vacant: bool,
    ) -> Self {
        let Some(Channel { bot, outbound, .. }) = settings.channels.get(&key.channel) else {
            return Self::default();
        };
        let mut bots = readers.clone().filter_map(|reader| match reader {
            Reader::Bot(bot) => Some(bot),
            Reader::Egress => None,
        });
        let stays = bots.any(|bot| settings.bots.contains_key(bot));
        let has_egress = { readers }.any(|reader| *reader == Reader::Egress);
        let wants_egress = *outbound == Outbound::Queue;
        Self {
            // One that was made vacant stays so until a bot is added.
            joins: (!stays && !vacant).then(|| bot.clone()),
            egress: (has_egress != wants_egress).then_some(wants_egress),
        }
    }

    fn are_as_before(&self) -> bool {
        self.joins.is_none() && self.egress.is_none()
    }
}

/// Where someone begins who has seen everything up to now.
pub(super) fn here_now(last: Sequence) -> Cursor {
    Cursor {
        finished: last,
        ..Cursor::default()
    }
}

/// Lists a conversation among those of a bot.
pub(super) fn list(key: &ConversationKey, start: Timestamp, bot: &BotId, round: &mut Round) {
    let listing = Key::Listing {
        by: ListBy::Bot(bot),
        start,
        conversation: key,
    };
    round.batch.put(&listing, Bytes::new());
}

impl Shard {
    /// Decides by the settings that are in force by now: of two reloads, the later one stays everywhere.
    pub(super) fn reload(&mut self) {
        let old = std::mem::replace(&mut self.settings, self.shared.settings.get());
        let new = &self.settings;
        let way = |settings: &Settings, channel| {
            let channel: Option<&Channel> = settings.channels.get(channel);
            channel.map(|channel| channel.outbound)
        };
        for subscribed in &mut self.subscribers {
            let goes = match &subscribed.name {
                Subscriber::Bot(bot) => old.bots.contains_key(bot) && !new.bots.contains_key(bot),
                Subscriber::Egress(channel) => {
                    way(new, channel) == Some(Outbound::Watch)
                        && way(&old, channel) != Some(Outbound::Watch)
                }
            };
            if goes {
                // What waits for one who goes is read again, as at a start. Each stands here or
                // there, so that reloads in a row make nothing grow.
                let queue = std::mem::take(&mut subscribed.queue);
                let keys = queue.into_keys().map(Unsorted::Dropped);
                self.unsorted.extend(keys);
            }
        }
        self.reloads += 1;
        self.next_reseated = Some(0);
    }

    /// Looks at some of the conversations in memory, after a reload.
    pub(super) fn reseat_some(&mut self, round: &mut Round) {
        let Some(from) = self.next_reseated else {
            return;
        };
        let to = from.saturating_add(LOOKED_AT_PER_ROUND);
        for slot in from..to.min(self.conversations.capacity()) {
            if self.conversations.contains(slot) {
                self.reseat(slot, round);
            }
        }
        let has_more = to < self.conversations.capacity();
        self.next_reseated = has_more.then_some(to);
        self.unfinished |= has_more;
    }

    /// Brings a conversation in memory up to the settings in force.
    pub(super) fn reseat(&mut self, slot: usize, round: &mut Round) {
        let conversation = &mut self.conversations[slot];
        if std::mem::replace(&mut conversation.reloads, self.reloads) == self.reloads {
            return;
        }
        let readers = conversation.seats.iter().map(|seat| &seat.reader);
        let readers = Readers::of(
            &self.settings,
            &conversation.key,
            readers,
            conversation.vacant,
        );
        if readers.are_as_before() {
            return;
        }
        // Written with the round, so that both fail together.
        self.touch(slot, round);
        if let Some(bot) = readers.joins {
            let conversation = &self.conversations[slot];
            list(&conversation.key, conversation.start_time, &bot, round);
            self.join(slot, Reader::Bot(bot));
        }
        match readers.egress {
            Some(true) => self.join(slot, Reader::Egress),
            Some(false) => self.part(slot, &Reader::Egress, round),
            None => {}
        }
    }

    fn join(&mut self, slot: usize, reader: Reader) {
        let subscriber = reader.subscriber(&self.conversations[slot].key);
        let subscriber = self.subscriber(&subscriber);
        let conversation = &mut self.conversations[slot];
        let last = conversation.last;
        conversation.seats.push(Seat {
            reader,
            subscriber,
            heard: Heard::after(last),
            subscription: Subscription::new(here_now(last), last, VecDeque::new()),
            avoid: None,
            waits_until: None,
            untaken_since: None,
        });
    }

    /// Takes a reader's seat. What it holds is no longer its own.
    fn part(&mut self, slot: usize, reader: &Reader, round: &mut Round) {
        let seats = &self.conversations[slot].seats;
        let Some(gone) = seats.iter().position(|seat| seat.reader == *reader) else {
            return;
        };
        for held in seats[gone].subscription.held().clone() {
            self.let_loose(held.session, held.id, round);
        }
        let seats = &mut self.conversations[slot].seats;
        seats.remove(gone);
        // Those after it have moved up.
        for (seat, moved) in seats.iter().enumerate().skip(gone) {
            for held in moved.subscription.held() {
                if let Some(place) = self.held.get_mut(&held.id) {
                    place.seat = seat;
                }
            }
        }
    }
}
