//! Conversations with work for one subscriber, in the order in which they are served.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use foldhash::HashMap;

use crate::engine::command::Backlog;
use crate::id::ConversationKey;

/// Which part of a queue a conversation stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Its next activity was handed out before: served first.
    Again,
    /// Its next activity was not handed out yet.
    Ready,
}

/// A queue of conversations, each at most once. Not all of them are in memory: what waits for a
/// subscriber that is away costs its key here and no more.
#[derive(Debug, Default)]
pub(super) struct Queue {
    again: VecDeque<ConversationKey>,
    ready: VecDeque<ConversationKey>,
    /// What waits in those that are not in memory; nothing for those that are.
    queued: HashMap<ConversationKey, Backlog>,
    /// The sum of `queued`, but for the age.
    away: u64,
}

/// Conversations at the front of a queue among which the oldest activity is looked for: they have
/// waited longest.
const LOOKED_AT: usize = 64;

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Puts a conversation last in its lane. Returns whether it was not in the queue yet.
    pub(super) fn push(&mut self, key: &ConversationKey, lane: Lane) -> bool {
        let Entry::Vacant(vacant) = self.queued.entry(key.clone()) else {
            return false;
        };
        vacant.insert(Backlog::default());
        self.lane(lane).push_back(key.clone());
        true
    }

    /// Takes the conversation that is served next.
    pub(super) fn pop(&mut self) -> Option<(ConversationKey, Lane)> {
        let again = self.again.pop_front().map(|key| (key, Lane::Again));
        let next = again.or_else(|| self.ready.pop_front().map(|key| (key, Lane::Ready)))?;
        if let Some(noted) = self.queued.remove(&next.0) {
            self.away -= noted.undelivered;
        }
        Some(next)
    }

    /// Every conversation in it, those that are served next first.
    pub(super) fn into_keys(self) -> impl Iterator<Item = ConversationKey> {
        self.again.into_iter().chain(self.ready)
    }

    /// Puts back what was taken, to be served next.
    pub(super) fn put_back(&mut self, key: ConversationKey, lane: Lane) {
        self.queued.insert(key.clone(), Backlog::default());
        self.lane(lane).push_front(key);
    }

    /// Notes what waits in a conversation that leaves memory.
    pub(super) fn left(&mut self, key: &ConversationKey, backlog: Backlog) {
        if let Some(noted) = self.queued.get_mut(key) {
            self.away += backlog.undelivered;
            *noted = backlog;
        }
    }

    /// Notes that a conversation is in memory again, where what waits is counted.
    pub(super) fn came_back(&mut self, key: &ConversationKey) {
        if let Some(noted) = self.queued.get_mut(key) {
            self.away -= std::mem::take(noted).undelivered;
        }
    }

    /// What waits outside memory.
    pub(super) fn away(&self) -> Backlog {
        let front = self.again.iter().take(LOOKED_AT);
        let front = front.chain(self.ready.iter().take(LOOKED_AT));
        let oldest = front.filter_map(|key| self.queued.get(key)?.oldest).min();
        Backlog {
            undelivered: self.away,
            oldest,
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<ConversationKey> {
        match lane {
            Lane::Again => &mut self.again,
            Lane::Ready => &mut self.ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> ConversationKey {
        ConversationKey {
            channel: "web".into(),
            conversation: id.into(),
        }
    }

    #[test]
    fn each_conversation_stands_once_and_what_was_tried_goes_first() {
        let mut queue = Queue::default();
        assert!(queue.push(&key("a"), Lane::Ready));
        assert!(!queue.push(&key("a"), Lane::Again));
        assert!(queue.push(&key("b"), Lane::Again));
        let (first, lane) = queue.pop().unwrap();
        assert_eq!((&first, lane), (&key("b"), Lane::Again));
        queue.put_back(first, lane);
        assert_eq!(queue.pop().unwrap().0, key("b"));
        assert_eq!(queue.pop().unwrap().0, key("a"));
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn what_waits_is_counted_while_its_conversation_is_away() {
        let backlog = |undelivered, oldest| Backlog {
            undelivered,
            oldest: Some(crate::clock::Timestamp(oldest)),
        };
        let mut queue = Queue::default();
        queue.push(&key("a"), Lane::Ready);
        queue.push(&key("b"), Lane::Ready);
        queue.left(&key("a"), backlog(2, 70));
        queue.left(&key("b"), backlog(3, 50));
        assert_eq!(queue.away(), backlog(5, 50));
        queue.came_back(&key("b"));
        assert_eq!(queue.away(), backlog(2, 70));
        queue.pop();
        assert_eq!(queue.away(), Backlog::default());
    }
}
