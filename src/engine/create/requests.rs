//! Requests for conversations that are in the air: who works on what, and which adapter was asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::Answer;
use crate::engine::lock;
use crate::engine::session;
use crate::id::ChannelId;

/// The requests in the air.
pub(in crate::engine) struct Creations {
    places: Arc<Semaphore>,
    open: Mutex<Open>,
    /// Told when a name is free again.
    freed: Notify,
}

#[derive(Default)]
struct Open {
    ended: bool,
    /// Requests that someone works on: a repetition waits for the result.
    names: HashSet<(ChannelId, String)>,
    /// Requests that an adapter was asked, by adapter and name.
    asked: HashMap<(session::Number, String), oneshot::Sender<Answer>>,
}

impl Creations {
    pub(in crate::engine) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            open: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// A place among those who wait for a conversation, if there is one. It is free again when dropped.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Waits until nobody else works on a name, and takes it.
    pub(super) async fn claim(&self, channel: &ChannelId, name: &str) -> Claim<'_> {
        let name = (channel.clone(), name.to_owned());
        let mut freed = std::pin::pin!(self.freed.notified());
        loop {
            // Enabled before the look, so that a name that is freed between look and wait wakes it.
            freed.as_mut().enable();
            if self.lock().names.insert(name.clone()) {
                return Claim {
                    creations: self,
                    name,
                };
            }
            freed.as_mut().await;
            freed.set(self.freed.notified());
        }
    }

    /// Notes that an adapter is asked. `None` when the gateway goes down.
    pub(super) fn ask(
        &self,
        session: session::Number,
        name: &str,
    ) -> Option<oneshot::Receiver<Answer>> {
        let (answer, answered) = oneshot::channel();
        let mut open = self.lock();
        if open.ended {
            return None;
        }
        open.asked.insert((session, name.to_owned()), answer);
        Some(answered)
    }

    /// Notes that an adapter is not awaited any more.
    pub(super) fn forget(&self, session: session::Number, name: &str) {
        self.lock().asked.remove(&(session, name.to_owned()));
    }

    /// Brings an adapter's answer to who waits for it. Returns whether someone did.
    pub(in crate::engine) fn answer(
        &self,
        session: session::Number,
        name: String,
        answer: Answer,
    ) -> bool {
        let asked = self.lock().asked.remove(&(session, name));
        asked.is_some_and(|asked| asked.send(answer).is_ok())
    }

    /// Notes that an adapter has gone: it will not answer.
    pub(in crate::engine) fn lost(&self, session: session::Number) {
        self.lock().asked.retain(|(asked, _), _| *asked != session);
    }

    /// Sends everyone away: the gateway goes down.
    pub(in crate::engine) fn end(&self) {
        let mut open = self.lock();
        open.ended = true;
        open.asked.clear();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }
}

/// A request that is worked on.
pub(super) struct Claim<'a> {
    creations: &'a Creations,
    name: (ChannelId, String),
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.creations.lock().names.remove(&self.name);
        self.creations.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_name_is_worked_on_by_one_at_a_time() {
        let creations = Creations::new(2);
        let channel = ChannelId::from("web");
        let first = creations.claim(&channel, "a").now_or_never();
        let first = first.expect("it is free");
        let mut second = Box::pin(creations.claim(&channel, "a"));
        assert!(second.as_mut().now_or_never().is_none());
        let other = creations.claim(&channel, "b").now_or_never();
        assert!(other.is_some(), "another name is free");
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[test]
    fn only_the_adapter_that_was_asked_answers_and_once() {
        let creations = Creations::new(1);
        let (one, two) = (session::Number(1), session::Number(2));
        let answered = creations.ask(one, "a").expect("it goes on");
        let no = || Answer::Refused("no".to_owned());
        assert!(!creations.answer(two, "a".to_owned(), no()));
        assert!(!creations.answer(one, "b".to_owned(), no()));
        assert!(creations.answer(one, "a".to_owned(), no()));
        assert!(!creations.answer(one, "a".to_owned(), no()));
        assert_eq!(answered.now_or_never(), Some(Ok(no())));
    }

    #[test]
    fn who_asked_an_adapter_that_is_gone_is_not_kept_waiting() {
        let creations = Creations::new(1);
        let (one, two) = (session::Number(1), session::Number(2));
        let gone = creations.ask(one, "a").expect("it goes on");
        let stays = creations.ask(two, "b").expect("it goes on");
        creations.lost(one);
        assert!(matches!(gone.now_or_never(), Some(Err(_))));
        assert!(stays.now_or_never().is_none());
        creations.end();
        assert!(creations.ask(two, "c").is_none());
    }
}
