//! Conversations with work for one subscriber, in the order in which they are served.

use std::collections::{HashSet, VecDeque};

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
    queued: HashSet<ConversationKey>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    /// Puts a conversation last in its lane. Returns whether it was not in the queue yet.
    pub(super) fn push(&mut self, key: &ConversationKey, lane: Lane) -> bool {
        let is_new = self.queued.insert(key.clone());
        if is_new {
            self.lane(lane).push_back(key.clone());
        }
        is_new
    }

    /// Takes the conversation that is served next.
    pub(super) fn pop(&mut self) -> Option<(ConversationKey, Lane)> {
        let again = self.again.pop_front().map(|key| (key, Lane::Again));
        let next = again.or_else(|| self.ready.pop_front().map(|key| (key, Lane::Ready)))?;
        self.queued.remove(&next.0);
        Some(next)
    }

    /// Puts back what was taken, to be served next.
    pub(super) fn put_back(&mut self, key: ConversationKey, lane: Lane) {
        self.queued.insert(key.clone());
        self.lane(lane).push_front(key);
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
        assert_eq!(queue.len(), 2);
        let (first, lane) = queue.pop().unwrap();
        assert_eq!((&first, lane), (&key("b"), Lane::Again));
        queue.put_back(first, lane);
        assert_eq!(queue.pop().unwrap().0, key("b"));
        assert_eq!(queue.pop().unwrap().0, key("a"));
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
