//! Users, backends, followers and operators: everyone without a session.

use rand::RngExt;
use turnwire::clock::Clock;
use turnwire::engine::session::Appended;
use turnwire::engine::{Deal, Error, LetterFilter, Start};
use turnwire::id::{BotId, ConversationKey};

use crate::client::Role;
use crate::world::{CONVERSATIONS, Post, World, bot_of, message, question};

/// Why the engine parks what no session takes.
const NOBODY: &str = "no session takes it";

impl World {
    pub(crate) async fn post(&mut self) {
        let key = self.any_conversation();
        let book = self.books.entry(key.clone()).or_default();
        // What failed is repeated, sooner or later; and what did not, too.
        let known: Vec<_> = book.posts.keys().cloned().collect();
        let id = match known.is_empty() {
            false if self.random.random_bool(0.3) => {
                known[self.random.random_range(0..known.len())].clone()
            }
            _ => self.new_post(&key),
        };
        self.post_as(&key, &id).await;
    }

    /// Notes a post that was never tried.
    pub(crate) fn new_post(&mut self, key: &ConversationKey) -> String {
        self.posts += 1;
        let id = format!("p{}", self.posts);
        let post = Post {
            since: self.gateway.clock.now(),
            kind: ["message", "message", "event"][self.random.random_range(0..3)],
            at: None,
        };
        let book = self.books.entry(key.clone()).or_default();
        book.posts.insert(id.clone(), post);
        id
    }

    pub(crate) async fn post_as(&mut self, key: &ConversationKey, id: &str) {
        let kind = self.books[key].posts[id].kind;
        let activity = question(key, id, kind).into();
        let posted = self.gateway.engine.post(&key.channel, activity).await;
        self.trace.note(format_args!("post {key} {id}: {posted:?}"));
        match posted {
            Ok(appended) => {
                assert_eq!(&*appended.activity_id, id);
                self.posted(key, id, &appended);
            }
            Err(Error::StoreFailed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn posted(&mut self, key: &ConversationKey, id: &str, appended: &Appended) {
        let book = self.books.entry(key.clone()).or_default();
        let post = book.posts.get_mut(id).expect("it was posted");
        let before = post.at.replace(appended.sequence);
        assert!(
            before.is_none_or(|before| before == appended.sequence && appended.repeated),
            "{id} was at {before:?}, and is {appended:?}"
        );
        book.bot.meant.insert(appended.sequence.0);
        if post.kind != "message" {
            book.bot.optional.insert(appended.sequence.0);
        }
    }

    pub(crate) async fn post_over_a_stream(&mut self) {
        let frame = self.frame();
        let Some(index) = self.any_client(|client| matches!(client.role, Role::Adapter(_))) else {
            return;
        };
        let Role::Adapter(channel) = self.clients[index].role else {
            return;
        };
        let key = ConversationKey {
            channel: channel.into(),
            conversation: self
                .random
                .random_range(0..CONVERSATIONS)
                .to_string()
                .into(),
        };
        for _ in 0..self.random.random_range(1..4) {
            let id = self.new_post(&key);
            let activity = question(&key, &id, self.books[&key].posts[&id].kind);
            let post_id = format!("{channel} {} {id}", key.conversation);
            if let Some(stream) = &self.clients[index].stream {
                let done = stream.link.post(frame, post_id, activity.into());
                done.await.expect("the engine runs");
            }
        }
        self.trace
            .note(format_args!("{key} is posted to over a stream"));
    }

    pub(crate) async fn send(&mut self) {
        let Some(key) = self.started() else { return };
        let book = self.books.entry(key.clone()).or_default();
        let known = book.sends.keys().filter(|text| text.starts_with("backend"));
        let known: Vec<_> = known.cloned().collect();
        let text = match known.is_empty() {
            false if self.random.random_bool(0.3) => {
                known[self.random.random_range(0..known.len())].clone()
            }
            _ => format!(
                "backend {} {} {}",
                key.channel,
                key.conversation,
                known.len()
            ),
        };
        book.sends.entry(text.clone()).or_default();
        let bot = Some(BotId::from(bot_of(&key)));
        let (request, activity) = (Some(text.clone()), message(&text).into());
        let engine = self.gateway.engine.clone();
        let sent = engine.send_activity(key.clone(), bot, None, request, activity);
        let sent = sent.await;
        self.trace.note(format_args!("send {key} {text}: {sent:?}"));
        match sent {
            Ok(appended) => self.sent(&key, text, &appended),
            Err(Error::StoreFailed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn sent(&mut self, key: &ConversationKey, text: String, appended: &Appended) {
        let book = self.books.entry(key.clone()).or_default();
        let before = book.sends.insert(text, Some(appended.sequence)).flatten();
        assert!(
            before.is_none_or(|before| before == appended.sequence && appended.repeated),
            "it was at {before:?}, and is {appended:?}"
        );
        book.egress.meant.insert(appended.sequence.0);
    }

    pub(crate) async fn follow(&mut self) {
        let Some(key) = self.started() else { return };
        self.follow_on(&key).await;
    }

    pub(crate) async fn follow_on(&mut self, key: &ConversationKey) {
        let book = self.books.entry(key.clone()).or_default();
        let mut start = Start::After(book.position);
        for _ in 0..2 {
            match self.gateway.engine.follow(key.clone(), start).await {
                Ok(follower) => {
                    book.position = follower.position();
                    self.followers.insert(key.clone(), follower);
                    return;
                }
                Err(Error::SequenceGone { first }) => {
                    assert!(first > book.position.next(), "what follows is kept");
                    start = Start::After(first.previous());
                }
                Err(Error::StoreFailed(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// An operator deals with dead letters.
    pub(crate) async fn deal(&mut self) {
        let Some(key) = self.started() else { return };
        let is_egress = self.random.random_ratio(1, 4);
        let deal = match self.random.random_ratio(2, 3) {
            true => Deal::Replay,
            false => Deal::Drop,
        };
        let one = self.random.random_bool(0.5);
        self.deal_with(&key, is_egress, deal, one).await;
    }

    /// Returns how many dead letters there were.
    pub(crate) async fn deal_with(
        &mut self,
        key: &ConversationKey,
        is_egress: bool,
        deal: Deal,
        one: bool,
    ) -> usize {
        let reader = match is_egress {
            true => String::new(),
            false => bot_of(key).to_owned(),
        };
        let filter = LetterFilter {
            conversation: Some(key.clone()),
            reader: Some(reader.clone()),
        };
        let letters = match self.gateway.engine.dead_letters(&filter, None, 1_000) {
            Ok(letters) => letters.letters,
            Err(Error::ConversationUnknown(_)) => return 0,
            Err(error) => panic!("{error}"),
        };
        let book = self.books.entry(key.clone()).or_default();
        let seat = book.seat(is_egress);
        let mut sequences: Vec<_> = letters.iter().map(|letter| letter.sequence).collect();
        for letter in &letters {
            let turn = seat.turn(letter.sequence.0);
            // Who had it, or was to get it, is gone, and none that came takes it.
            let was_left = letter.reason == NOBODY && !is_egress;
            assert!(
                turn.poisoned || turn.exhausted && !is_egress || was_left,
                "{letter:?} is parked without a reason"
            );
            assert!(!turn.done, "{letter:?} is done");
        }
        let count = sequences.len();
        if sequences.is_empty() {
            return 0;
        }
        if one {
            sequences = vec![sequences[self.random.random_range(0..count)]];
        }
        for sequence in &sequences {
            let turn = seat.turn(sequence.0);
            turn.anew = true;
            turn.replay |= deal == Deal::Replay;
            turn.poisoned = true;
            turn.maybe_done |= deal == Deal::Drop;
        }
        seat.blocked = None;
        seat.gap_due = None;
        let engine = self.gateway.engine.clone();
        let dealt = engine.deal(key.clone(), reader, sequences.clone(), deal);
        let dealt = dealt.await;
        self.trace
            .note(format_args!("{deal:?} {key} {sequences:?}: {dealt:?}"));
        match dealt {
            Ok(dealt) if deal == Deal::Drop && dealt.count == sequences.len() => {
                let book = self.books.entry(key.clone()).or_default();
                for sequence in sequences {
                    book.seat(is_egress).turn(sequence.0).done = true;
                }
            }
            Ok(_) | Err(Error::StoreFailed(_)) => {}
            Err(error) => panic!("{error}"),
        }
        count
    }
}
