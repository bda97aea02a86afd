//! Conversations with work for one subscriber, in the order in which they are served.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use foldhash::{HashMap, HashSet};

use crate::engine::command::Backlog;
use crate::engine::session;
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
    /// Those that wait for room of the session that has them, in their order. What has left such a line
    /// by another way than its front is still in it, and is found to be elsewhere.
    stalled: HashMap<session::Number, Line>,
    /// Where each stands, and what waits in those that are not in memory.
    queued: HashMap<ConversationKey, Standing>,
    /// The sum of what waits in those, but for the age.
    away: u64,
    /// How many are not stalled.
    free: usize,
}

/// Those that wait for room of one session.
#[derive(Debug, Default)]
struct Line {
    keys: VecDeque<ConversationKey>,
    /// How many have left it by another way than its front.
    left: usize,
}

#[derive(Debug)]
struct Standing {
    /// The session that it waits for.
    stalled: Option<session::Number>,
    backlog: Backlog,
}

/// Conversations at the front of a queue among which the oldest activity is looked for: they have
/// waited longest.
const LOOKED_AT: usize = 64;

impl Queue {
    /// Whether no conversation waits for any session.
    pub(super) fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// Puts a conversation last in its lane. Returns whether it was not in the queue yet.
    pub(super) fn push(&mut self, key: &ConversationKey, lane: Lane) -> bool {
        let Entry::Vacant(vacant) = self.queued.entry(key.clone()) else {
            return false;
        };
        vacant.insert(Standing {
            stalled: None,
            backlog: Backlog::default(),
        });
        self.free += 1;
        self.lane(lane).push_back(key.clone());
        true
    }

    /// Takes the conversation that is served next.
    pub(super) fn pop(&mut self) -> Option<(ConversationKey, Lane)> {
        let again = self.again.pop_front().map(|key| (key, Lane::Again));
        let next = again.or_else(|| self.ready.pop_front().map(|key| (key, Lane::Ready)))?;
        self.free -= 1;
        self.forget(&next.0);
        Some(next)
    }

    /// Every conversation in it, those that are served next first.
    pub(super) fn into_keys(self) -> impl Iterator<Item = ConversationKey> {
        let queued = self.queued;
        let stalled = self.stalled.into_iter().flat_map(move |(session, line)| {
            let waits = |key: &ConversationKey| {
                let standing = queued.get(key);
                standing.is_some_and(|standing| standing.stalled == Some(session))
            };
            line.keys.into_iter().filter(waits).collect::<Vec<_>>()
        });
        self.again.into_iter().chain(self.ready).chain(stalled)
    }

    /// Puts back what was taken, to be served next.
    pub(super) fn put_back(&mut self, key: ConversationKey, lane: Lane) {
        let standing = Standing {
            stalled: None,
            backlog: Backlog::default(),
        };
        self.queued.insert(key.clone(), standing);
        self.free += 1;
        self.lane(lane).push_front(key);
    }

    /// Lets what was taken wait for room of a session.
    pub(super) fn stall(&mut self, key: ConversationKey, session: session::Number) {
        let standing = Standing {
            stalled: Some(session),
            backlog: Backlog::default(),
        };
        self.queued.insert(key.clone(), standing);
        let line = self.stalled.entry(session).or_default();
        line.keys.push_back(key);
    }

    /// Takes the conversation that has waited longest for a session.
    pub(super) fn pop_stalled(&mut self, session: session::Number) -> Option<ConversationKey> {
        let line = self.stalled.get_mut(&session)?;
        while let Some(key) = line.keys.pop_front() {
            let standing = self.queued.get(&key);
            if standing.is_some_and(|standing| standing.stalled == Some(session)) {
                self.forget(&key);
                return Some(key);
            }
        }
        self.stalled.remove(&session);
        None
    }

    /// Lets a conversation that waits for one session go to any. Returns whether it did wait.
    pub(super) fn unstall(&mut self, key: &ConversationKey) -> bool {
        let standing = self.queued.get_mut(key);
        let Some(session) = standing.and_then(|standing| standing.stalled.take()) else {
            return false;
        };
        self.free += 1;
        self.again.push_back(key.clone());
        let Self {
            stalled, queued, ..
        } = self;
        if let Some(line) = stalled.get_mut(&session) {
            line.left += 1;
            // So that a line is never longer than twice what waits in it.
            if line.left > line.keys.len() / 2 {
                let mut seen = HashSet::default();
                line.keys.retain(|key| {
                    let standing = queued.get(key);
                    standing.is_some_and(|standing| standing.stalled == Some(session))
                        && seen.insert(key.clone())
                });
                line.left = 0;
            }
        }
        true
    }

    /// The same, for all that wait for a session.
    pub(super) fn unstall_all(&mut self, session: session::Number) {
        self.unstall_some(session, usize::MAX);
    }

    /// The same, for up to `most` of them, those that have waited longest.
    pub(super) fn unstall_some(&mut self, session: session::Number, most: usize) {
        for _ in 0..most {
            let Some(key) = self.pop_stalled(session) else {
                return;
            };
            self.push(&key, Lane::Again);
        }
    }

    /// Notes what waits in a conversation that leaves memory.
    pub(super) fn left(&mut self, key: &ConversationKey, backlog: Backlog) {
        if let Some(standing) = self.queued.get_mut(key) {
            self.away += backlog.undelivered;
            standing.backlog = backlog;
        }
    }

    /// Notes that a conversation is in memory again, where what waits is counted.
    pub(super) fn came_back(&mut self, key: &ConversationKey) {
        if let Some(standing) = self.queued.get_mut(key) {
            self.away -= std::mem::take(&mut standing.backlog).undelivered;
        }
    }

    /// What waits outside memory.
    pub(super) fn away(&self) -> Backlog {
        let front = self.again.iter().take(LOOKED_AT);
        let front = front.chain(self.ready.iter().take(LOOKED_AT));
        let oldest = front
            .filter_map(|key| self.queued.get(key)?.backlog.oldest)
            .min();
        Backlog {
            undelivered: self.away,
            oldest,
        }
    }

    fn forget(&mut self, key: &ConversationKey) {
        if let Some(standing) = self.queued.remove(key) {
            self.away -= standing.backlog.undelivered;
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

    #[test]
    fn what_waits_for_one_session_holds_up_nothing_and_comes_in_its_order() {
        let session = session::Number(7);
        let mut queue = Queue::default();
        for id in ["a", "b", "c", "d"] {
            queue.push(&key(id), Lane::Ready);
        }
        for _ in 0..3 {
            let (key, _) = queue.pop().unwrap();
            queue.stall(key, session);
        }
        assert!(!queue.push(&key("a"), Lane::Ready), "it stands in line");
        assert_eq!(queue.pop().unwrap().0, key("d"));
        assert!(queue.is_empty());
        queue.unstall(&key("b"));
        assert_eq!(queue.pop().unwrap().0, key("b"));
        assert_eq!(queue.pop_stalled(session), Some(key("a")));
        queue.unstall_all(session);
        assert_eq!(queue.pop_stalled(session), None);
        assert_eq!(queue.pop().unwrap().0, key("c"));
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
