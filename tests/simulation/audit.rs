//! The end of a run: all is well again, everyone behaves, and what was promised is checked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use turnwire::clock::Timestamp;
use turnwire::engine::Deal;
use turnwire::engine::log::{Author, Entry};
use turnwire::id::{ConversationKey, DeliveryId, Sequence};
use turnwire::proto::v1;

use crate::act::first_of;
use crate::client::Role;
use crate::gateway::{FALLBACK, RETENTION};
use crate::world::{Book, Fate, PLENTY, World};

/// The event that follows the fallback.
const HANDOFF: &str = "handoff.initiate";
/// Turns that all conversations are given to come to an end.
const ENOUGH: usize = 600;

impl World {
    pub(crate) async fn end(&mut self) {
        self.calm().await;
        self.audit().await;
        for client in &self.clients {
            if let (Role::Adapter(_), Some(stream)) = (client.role, &client.stream) {
                let left = stream.link.session().credit();
                assert_eq!(
                    left, stream.granted,
                    "{client} has nothing, and all its room"
                );
            }
        }
        self.gateway.engine.stop().await;
    }

    /// Everyone does what they should until nothing is left to do.
    async fn calm(&mut self) {
        self.gateway.memory.heal();
        self.trace.note(format_args!("all is well"));
        let open = self.books.iter().flat_map(|(key, book)| {
            let open = book.posts.iter().filter(|(_, post)| post.at.is_none());
            open.map(|(id, _)| (key.clone(), id.clone()))
        });
        for (key, id) in open.collect::<Vec<_>>() {
            self.post_as(&key, &id).await;
        }
        self.zombies.clear();
        for client in &mut self.clients {
            client.crash();
        }
        self.look().await;
        for index in 0..self.clients.len() {
            self.open(index, PLENTY, index % 5 + 1, false, false).await;
        }
        let keys: Vec<_> = self.books.keys().cloned().collect();
        for _ in 0..ENOUGH {
            self.look().await;
            for index in 0..self.clients.len() {
                self.behave(index).await;
            }
            self.look().await;
            let mut letters = 0;
            for key in &keys {
                for is_egress in [false, true] {
                    letters += self.deal_with(key, is_egress, Deal::Replay, false).await;
                }
            }
            self.look().await;
            if letters == 0 && keys.iter().all(|key| self.gateway.is_finished(key)) {
                return;
            }
            self.advance(Duration::from_secs(2));
        }
        let left = keys.iter().filter(|key| !self.gateway.is_finished(key));
        panic!("{:?} are never finished", left.collect::<Vec<_>>());
    }

    /// A client reads everything, and acks it.
    async fn behave(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.read(usize::MAX);
        let is_egress = matches!(client.role, Role::Adapter(_));
        let Some(stream) = client.stream.take() else {
            return;
        };
        while !self.clients[index].holds.is_empty() {
            let holds = &mut self.clients[index].holds;
            let delivery = holds.remove(first_of(holds, 0));
            self.ack(&stream.link, &delivery, is_egress).await;
        }
        self.clients[index].stream = Some(stream);
    }

    async fn audit(&mut self) {
        let keys: Vec<_> = self.books.keys().cloned().collect();
        for key in &keys {
            if self.gateway.engine.conversation(key).is_ok() {
                self.follow_on(key).await;
            }
        }
        self.look().await;
        for key in &keys {
            if self.gateway.engine.conversation(key).is_ok() {
                self.audit_one(key);
            }
        }
    }

    fn audit_one(&self, key: &ConversationKey) {
        let log = self.gateway.log(key);
        let book = &self.books[key];
        let first = self.gateway.first(key).0;
        let conversation = self.gateway.engine.conversation(key);
        let last = conversation.expect("it was started").last.0;
        assert!(
            log.iter().map(|entry| entry.sequence.0).eq(first..=last),
            "{key} has gaps"
        );
        for entry in &log {
            let shown = book.followed.get(&entry.sequence);
            assert!(
                shown == Some(&entry.activity_id),
                "followers are shown the log, and {} was {shown:?}",
                entry.sequence
            );
        }
        let ids: BTreeSet<_> = log.iter().map(|entry| &entry.activity_id).collect();
        assert_eq!(ids.len(), log.len(), "no doubles");
        check_kept(book, first, self.latest);
        check_once(book, &log, first);
        for is_egress in [false, true] {
            self.check_nothing_is_lost(key, &log, is_egress);
        }
    }

    /// What is kept was finished, or an operator dropped it, or no session had to take it.
    fn check_nothing_is_lost(&self, key: &ConversationKey, log: &[Arc<Entry>], is_egress: bool) {
        if is_egress && key.channel.as_str() == "help" {
            // Its users look by themselves.
            return;
        }
        let book = &self.books[key];
        let seat = match is_egress {
            true => &book.egress,
            false => &book.bot,
        };
        let from_users = |entry: &Entry| matches!(entry.author, Author::Channel);
        for entry in log.iter().filter(|entry| from_users(entry) != is_egress) {
            let sequence = entry.sequence.0;
            let passed = self.choosy && seat.optional.contains(&sequence);
            let turn = seat.turns.get(&sequence);
            let is_over = turn.is_some_and(|turn| turn.done || turn.maybe_done);
            assert!(is_over || passed, "{key} {sequence} is lost");
        }
        for &sequence in &self.meant(key, is_egress) {
            let first = log.first().map_or(u64::MAX, |entry| entry.sequence.0);
            let is_there = log.iter().any(|entry| entry.sequence.0 == sequence);
            assert!(
                is_there || sequence < first,
                "{key} {sequence} was answered"
            );
        }
    }
}

/// Only what is old enough was removed.
fn check_kept(book: &Book, first: u64, latest: Timestamp) {
    for (id, post) in &book.posts {
        let at = post.at.expect("every post is answered in the end").0;
        assert!(
            at >= first || post.since.after(RETENTION) <= latest,
            "{id} at {at} was removed early"
        );
    }
}

/// Each thing is said once, where it was said to be; commits are whole.
fn check_once(book: &Book, log: &[Arc<Entry>], first: u64) {
    let mut texts = BTreeMap::new();
    let mut replies: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for entry in log {
        let activity = v1::Activity::decode(&*entry.activity).expect("an activity");
        let text = activity.text.unwrap_or_default();
        if text == FALLBACK || activity.name.as_deref() == Some(HANDOFF) {
            continue;
        }
        if let Some(reply) = text.strip_prefix("reply ") {
            let (delivery, n) = reply.split_once(' ').expect("as it was sent");
            let replies = replies.entry(delivery.parse().expect("an id")).or_default();
            replies.push(n.parse().expect("a number"));
            continue;
        }
        let twice = texts.insert(text.clone(), entry.sequence);
        assert_eq!(twice, None, "`{text}` is said twice");
    }
    let is_kept = |sequence: Sequence| sequence.0 >= first;
    for (id, post) in &book.posts {
        let at = post.at.filter(|at| is_kept(*at));
        assert_eq!(texts.get(&format!("question {id}")), at.as_ref(), "{id}");
    }
    for (text, at) in &book.sends {
        let kept = at.filter(|at| is_kept(*at));
        assert!(at.is_none() || texts.get(text) == kept.as_ref(), "{text}");
    }
    let mut questions = HashSet::new();
    for (id, found) in &replies {
        let commit = &book.commits[&DeliveryId(*id)];
        let whole: Vec<_> = (0..commit.replies).collect();
        // Of what is old the beginning may be gone.
        let is_whole = *found == whole || first > 1 && whole.ends_with(found);
        assert!(is_whole, "the commit of {id} is {found:?} of {whole:?}");
        assert!(commit.fate != Fate::Refused, "what is stale writes nothing");
        assert!(
            questions.insert(commit.question),
            "{} is answered once",
            commit.question
        );
    }
    for (id, commit) in &book.commits {
        let found = replies.get(&id.0).map_or(0, Vec::len);
        assert!(
            commit.fate != Fate::Taken || found == commit.replies || first > 1,
            "the commit of {id} was taken, and is not there"
        );
    }
}
