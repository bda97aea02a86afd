//! Dead letters: what becomes of an activity that a subscriber could not take, and of those that an
//! operator deals with.

use std::ops::ControlFlow;

use tracing::{error, info, warn};

use super::append::Answered;
use super::queue::Lane;
use super::{Place, Shard};
use crate::activity;
use crate::engine::command::{DeadLetters, Deal, Dealt};
use crate::engine::conversation::Reader;
use crate::engine::delivery::Return;
use crate::engine::error::Error;
use crate::engine::log::{self, Author, Entry, Page};
use crate::engine::receipt::Said;
use crate::engine::round::Round;
use crate::engine::settings::OnPoison;
use crate::id::{BotId, ConversationNumber, Sequence};
use crate::proto::{storage, v1};
use crate::store::keys::{self, Key, KeyRange};
use crate::store::{self, Order, record};

/// Why an activity is parked that was handed out as often as it may be.
pub(super) const TOO_MANY: &str = "too many attempts";
/// Why one that was to be handed over again is parked once more, when sessions are there and the
/// selectors of none match it.
pub(super) const NOBODY: &str = "no session takes it";

/// The event that asks a channel to bring in a person: the Bot Framework's name for it.
const HANDOFF: &str = "handoff.initiate";

impl Shard {
    /// Parks what a session says it can never take, and takes back what it got after it.
    pub(super) fn poison(&mut self, place: Place, reason: &str, round: &mut Round) {
        match self.withdraw(place, 0, Return::Lost, round) {
            true => self.end_replay(place, Some(reason), round),
            false => self.park(place, reason, round),
        }
    }

    /// Moves the activity a subscription has come to, which no session has any more, into the dead
    /// letters, and goes on as the bot wants it.
    pub(super) fn park(&mut self, place: Place, reason: &str, round: &mut Round) {
        self.keep_receipt(place, &Said::Failed(reason.to_owned()), round);
        let Place { slot, seat } = place;
        let conversation = &self.conversations[slot];
        let taken = &conversation.seats[seat];
        let Some(entry) = taken.subscription.first().cloned() else {
            return self.go_on(slot, seat, round);
        };
        let letter = storage::DeadLetter {
            parked_time_ms: round.now.0,
            attempts: taken.subscription.first_attempts(),
            reason: reason.to_owned(),
            channel_id: conversation.key.channel.to_string(),
            conversation_id: conversation.key.conversation.to_string(),
            replay: false,
        };
        let key = Key::DeadLetter {
            conversation: conversation.number,
            bot: taken.reader.id(),
            sequence: entry.sequence,
        };
        record::put(&mut round.batch, &key, &letter);
        round.parked.insert(conversation.number);
        self.shared.metrics.dead_letters.inc();
        // Without the reason: it is the bot's or the channel's words, and may hold the user's.
        warn!(
            conversation.id = %conversation.key, activity.sequence = %entry.sequence,
            bot.id = taken.reader.id(), delivery.attempt = letter.attempts,
            "parked in the dead letters"
        );
        let bot = match &taken.reader {
            Reader::Bot(bot) => Some(bot.clone()),
            // A channel goes on with what it can take.
            Reader::Egress => None,
        };
        let settings = &self.settings;
        let policy = bot.as_ref().and_then(|bot| settings.bots.get(bot));
        let policy = policy.map_or(OnPoison::Skip, |bot| bot.on_poison.clone());
        let subscription = &mut self.conversations[slot].seats[seat].subscription;
        match (policy, bot) {
            (OnPoison::Block, _) => {
                subscription.block();
                self.touch(slot, round);
                // What it had asked for before can still be replayed.
                return self.enqueue(slot, seat, Lane::Again, round);
            }
            (OnPoison::Fallback { text }, Some(bot)) => {
                subscription.skip();
                self.fall_back(slot, bot, &entry, text, round);
            }
            (OnPoison::Skip | OnPoison::Fallback { .. }, _) => subscription.skip(),
        }
        self.go_on(slot, seat, round);
    }

    /// Answers the user in the bot's place, and asks the channel to bring in a person.
    fn fall_back(
        &mut self,
        slot: usize,
        bot: BotId,
        entry: &Entry,
        text: String,
        round: &mut Round,
    ) {
        let message = v1::Activity {
            r#type: Some(activity::Kind::Message.as_str().to_owned()),
            text: Some(text),
            ..Default::default()
        };
        let event = v1::Activity {
            r#type: Some(activity::Kind::Event.as_str().to_owned()),
            name: Some(HANDOFF.to_owned()),
            ..Default::default()
        };
        let answered = Answered::to(entry);
        for mut activity in [message, event] {
            match activity::outbound(&mut activity, &self.settings.limits) {
                Ok(draft) => {
                    let author = Author::Bot(bot.clone());
                    self.write_outbound(slot, &draft, author, &answered, round);
                }
                // The configuration holds the text to the limits.
                Err(error) => error!(bot.id = %bot, %error, "a fallback cannot be said"),
            }
        }
        round.must_be_durable();
    }

    /// Notes how often a dead letter was handed over again, so that a restart knows.
    pub(super) fn note_replay(&mut self, place: Place, attempt: u32, round: &mut Round) {
        self.change_letter(place, round, |letter| letter.attempts = attempt);
    }

    /// Ends a replay: the letter goes, or is a dead letter once more.
    pub(super) fn end_replay(&mut self, place: Place, failed: Option<&str>, round: &mut Round) {
        let Place { slot, seat } = place;
        let now = round.now;
        match failed {
            Some(reason) => {
                self.change_letter(place, round, |letter| {
                    letter.replay = false;
                    letter.parked_time_ms = now.0;
                    reason.clone_into(&mut letter.reason);
                });
                self.shared.metrics.dead_letters.inc();
            }
            None => {
                let taken = &self.conversations[slot].seats[seat];
                if let Some(sequence) = taken.subscription.replaying() {
                    let key = Key::DeadLetter {
                        conversation: self.conversations[slot].number,
                        bot: taken.reader.id(),
                        sequence,
                    };
                    round.remove_letter(&key);
                }
            }
        }
        let subscription = &mut self.conversations[slot].seats[seat].subscription;
        subscription.end_replay();
        self.go_on(slot, seat, round);
    }

    fn change_letter(
        &self,
        place: Place,
        round: &mut Round,
        change: impl FnOnce(&mut storage::DeadLetter),
    ) {
        let conversation = &self.conversations[place.slot];
        let taken = &conversation.seats[place.seat];
        let Some(sequence) = taken.subscription.replaying() else {
            return;
        };
        let key = Key::DeadLetter {
            conversation: conversation.number,
            bot: taken.reader.id(),
            sequence,
        };
        // What a write in the air changes of it is changed here once more.
        let stored = self.shared.store.get(&key).ok().flatten();
        let stored = stored.and_then(|stored| record::decode_dead_letter(&key, stored).ok());
        let mut letter = storage::DeadLetter {
            channel_id: conversation.key.channel.to_string(),
            conversation_id: conversation.key.conversation.to_string(),
            replay: true,
            ..stored.unwrap_or_default()
        };
        change(&mut letter);
        record::put(&mut round.batch, &key, &letter);
    }

    /// Deals with dead letters as an operator asks.
    pub(super) fn deal(&mut self, letters: DeadLetters, round: &mut Round) {
        let dealt = self.deal_with(&letters, round);
        if dealt.is_ok() {
            round.must_be_durable();
        }
        round.dealt(letters.reply, dealt);
    }

    fn deal_with(&mut self, letters: &DeadLetters, round: &mut Round) -> Result<Dealt, Error> {
        let slot = self.resident(&letters.conversation, round)?;
        let conversation = &self.conversations[slot];
        let mut seats = conversation.seats.iter();
        let seat = seats.position(|seat| seat.reader.id() == letters.reader);
        let most = self.settings.limits.page;
        let mut found = Vec::new();
        let mut corrupt = None;
        let range = KeyRange::dead_letters_of(conversation.number, &letters.reader);
        self.shared
            .store
            .scan(&range, Order::Ascending, &mut |key, _| {
                match keys::decode_dead_letter(key) {
                    Ok((_, _, sequence)) => {
                        let is_meant =
                            letters.sequences.is_empty() || letters.sequences.contains(&sequence);
                        let is_done = letters.deal == Deal::Replay
                            && seat.is_some_and(|seat| {
                                conversation.seats[seat].subscription.is_to_replay(sequence)
                            });
                        if is_meant && !is_done && !self.is_letter_removed(key, round) {
                            found.push(sequence);
                        }
                    }
                    Err(error) => corrupt = Some(error),
                }
                match found.len() <= most && corrupt.is_none() {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
        if let Some(error) = corrupt {
            return Err(error.into());
        }
        let more = found.len() > most;
        found.truncate(most);
        let count = match letters.deal {
            Deal::Replay => self.replay_letters(slot, seat, letters, &found, round)?,
            Deal::Drop => self.drop_letters(slot, seat, letters, &found, round)?,
        };
        info!(
            conversation.id = %letters.conversation, bot.id = letters.reader, count,
            deal = ?letters.deal, "dealt with dead letters"
        );
        Ok(Dealt { count, more })
    }

    fn replay_letters(
        &mut self,
        slot: usize,
        seat: Option<usize>,
        letters: &DeadLetters,
        found: &[Sequence],
        round: &mut Round,
    ) -> Result<usize, Error> {
        let Some(seat) = seat else {
            let conversation = letters.conversation.clone();
            return Err(match Reader::of_id(&letters.reader) {
                Reader::Bot(bot) => Error::BotAbsent { bot, conversation },
                Reader::Egress => Error::EgressAbsent(conversation),
            });
        };
        let number = self.conversations[slot].number;
        let mut count = 0;
        for &sequence in found {
            let key = Key::DeadLetter {
                conversation: number,
                bot: &letters.reader,
                sequence,
            };
            let subscription = &mut self.conversations[slot].seats[seat].subscription;
            if subscription.is_to_replay(sequence) {
                continue;
            }
            count += 1;
            // One that blocks is tried again where it is. Others that are ahead come by themselves, if the bot
            // went back to before them: it was added again, or took over from another one.
            let taken = &mut self.conversations[slot].seats[seat];
            let subscription = &mut taken.subscription;
            let is_ahead = sequence > subscription.cursor().finished;
            if is_ahead && !taken.heard.is_done(sequence) {
                if subscription.is_blocked_by(sequence) {
                    subscription.unblock();
                }
                round.remove_letter(&key);
                continue;
            }
            subscription.replay([sequence]);
            let stored = self.shared.store.get(&key)?;
            let stored = stored.map(|stored| record::decode_dead_letter(&key, stored));
            let letter = storage::DeadLetter {
                attempts: 0,
                replay: true,
                ..stored.transpose()?.unwrap_or_default()
            };
            record::put(&mut round.batch, &key, &letter);
        }
        self.touch(slot, round);
        self.enqueue(slot, seat, Lane::Again, round);
        Ok(count)
    }

    fn drop_letters(
        &mut self,
        slot: usize,
        seat: Option<usize>,
        letters: &DeadLetters,
        found: &[Sequence],
        round: &mut Round,
    ) -> Result<usize, Error> {
        let number = self.conversations[slot].number;
        let mut count = 0;
        if let Some(seat) = seat {
            let subscription = &mut self.conversations[slot].seats[seat].subscription;
            subscription.forget_replays(|letter| found.contains(&letter));
        }
        for &sequence in found {
            if let Some(seat) = seat {
                let subscription = &self.conversations[slot].seats[seat].subscription;
                // What a session has is its own until it is done with it.
                if subscription.replaying() == Some(sequence) && subscription.holds_replay() {
                    continue;
                }
                // Any other that is ahead comes by itself.
                if subscription.is_blocked_by(sequence) {
                    self.read_on(slot, seat)?;
                    let subscription = &mut self.conversations[slot].seats[seat].subscription;
                    if subscription.first().is_some() {
                        subscription.skip();
                    }
                }
            }
            round.remove_letter(&Key::DeadLetter {
                conversation: number,
                bot: &letters.reader,
                sequence,
            });
            count += 1;
        }
        if let Some(seat) = seat {
            self.go_on(slot, seat, round);
        }
        Ok(count)
    }

    /// Whether a dead letter is removed by what is not written yet.
    fn is_letter_removed(&self, key: &[u8], round: &Round) -> bool {
        let in_flight = self.flight.as_ref();
        round.removed_letters.contains(key)
            || in_flight.is_some_and(|flight| flight.round.removed_letters.contains(key))
    }

    /// Reads the dead letter that is to be handed over again next, if it is still there.
    pub(super) fn read_replay(&mut self, slot: usize, seat: usize) -> Result<(), Error> {
        loop {
            let conversation = &mut self.conversations[slot];
            let taken = &mut conversation.seats[seat];
            let Some(sequence) = taken.subscription.must_read_replay() else {
                return Ok(());
            };
            let key = Key::DeadLetter {
                conversation: conversation.number,
                bot: taken.reader.id(),
                sequence,
            };
            let letter = self.shared.store.get(&key)?;
            let letter = letter.map(|letter| record::decode_dead_letter(&key, letter));
            let letter = letter.transpose()?;
            let page = Page {
                entries: 1,
                bytes: 1,
            };
            let entry = log::read(
                &*self.shared.store,
                conversation.number,
                sequence,
                sequence,
                Order::Ascending,
                page,
            )?;
            let letter = letter
                .zip(entry.into_iter().next())
                // One that was asked for just now has the attempts that parked it until that is written.
                .map(|(letter, entry)| (entry, if letter.replay { letter.attempts } else { 0 }));
            taken.subscription.learn_replay(letter);
        }
    }
}

/// Readers whose dead letters in one conversation are looked for at a time, former ones included.
const READERS: usize = 1_000;

/// Who has dead letters in a conversation, by their ids, whether they take part or not. Only the letters
/// say: there is a look at the store for each.
pub(super) fn readers(
    store: &dyn store::Store,
    conversation: ConversationNumber,
) -> Result<Vec<String>, store::Error> {
    let mut readers = Vec::new();
    let mut range = KeyRange::dead_letters(conversation);
    while readers.len() < READERS {
        let mut next = None;
        store.scan(&range, Order::Ascending, &mut |key, _| {
            next = Some(keys::decode_dead_letter(key).map(|(_, reader, _)| reader.to_owned()));
            ControlFlow::Break(())
        })?;
        let Some(reader) = next.transpose()? else {
            break;
        };
        let last = Key::DeadLetter {
            conversation,
            bot: &reader,
            sequence: Sequence(u64::MAX),
        };
        range = range.after(&last.encode());
        readers.push(reader);
    }
    Ok(readers)
}

/// The dead letters of a reader that are to be handed over again, oldest first.
pub(super) fn to_replay(
    store: &dyn store::Store,
    conversation: ConversationNumber,
    reader: &Reader,
) -> Result<std::collections::VecDeque<Sequence>, store::Error> {
    let mut letters = std::collections::VecDeque::new();
    let mut corrupt = None;
    let range = KeyRange::dead_letters_of(conversation, reader.id());
    store.scan(&range, Order::Ascending, &mut |key, value| {
        let letter = keys::decode_dead_letter(key).and_then(|(_, bot, sequence)| {
            let key = Key::DeadLetter {
                conversation,
                bot,
                sequence,
            };
            Ok((sequence, record::decode_dead_letter(&key, value)?.replay))
        });
        match letter {
            Ok((sequence, true)) => letters.push_back(sequence),
            Ok((_, false)) => {}
            Err(error) => corrupt = Some(error),
        }
        match corrupt {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    })?;
    match corrupt {
        Some(error) => Err(error),
        None => Ok(letters),
    }
}
