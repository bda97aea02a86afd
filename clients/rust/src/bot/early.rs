//! What handlers say before their turn is over, and who waits for the result.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use crate::Error;
use crate::proto::subscribe_request::Frame;
use crate::proto::{AckOutcome, Appended, Send, SendResult};

type Waiting = oneshot::Sender<Result<Appended, Error>>;

/// What a handler says, on its way to the session's task.
#[derive(Debug)]
pub(super) enum Early {
    /// Something that has a result.
    Send(EarlySend),
    /// Something that has none: a piece of a reply, or that the bot is typing.
    Frame {
        frame: Frame,
        /// Which stream it was meant for.
        stream: u64,
    },
}

/// Counts the streams of a session. A piece of a reply goes on from what was said before it on the same
/// stream; on the next one the reply begins with all of its text.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<AtomicU64>);

impl Streams {
    /// The stream of now, or when there is none, the next.
    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that the stream was lost.
    pub(super) fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A send on its way to the session's task.
#[derive(Debug)]
pub(super) struct EarlySend {
    pub(super) send: Send,
    pub(super) result: Waiting,
}

/// A send that was said.
struct Said {
    /// Position among all that was said.
    number: u64,
    /// To be said again on another stream.
    send: Send,
    result: Waiting,
    /// Those of the same name that come after it.
    next: VecDeque<EarlySend>,
}

/// Sends without a result, by their client id. At most one for each handler that runs, or as many
/// as a handler waits for together.
///
/// A client id is unique in its conversation only, and a result carries nothing else; so a second
/// one of the same name, from another conversation, waits until the first has its result.
#[derive(Default)]
pub(super) struct Unanswered(HashMap<String, Said>);

impl Unanswered {
    /// Notes who waits. Returns the send if it may go now, as the `number`th thing said.
    pub(super) fn begin(&mut self, early: EarlySend, number: u64) -> Option<Send> {
        if let Some(said) = self.0.get_mut(&early.send.client_id) {
            said.next.push_back(early);
            return None;
        }
        Some(self.say(early, VecDeque::new(), number))
    }

    /// Hands a result over. Returns the send that may go next, as the `number`th thing said.
    pub(super) fn answer(
        &mut self,
        client_id: &str,
        result: Result<Appended, Error>,
        number: u64,
    ) -> Option<Send> {
        let Said {
            result: waiting,
            mut next,
            ..
        } = self.0.remove(client_id)?;
        // An error says that the handler no longer waits, which is its right.
        let _ = waiting.send(result);
        let early = next.pop_front()?;
        Some(self.say(early, next, number))
    }

    /// Lets go of sends that cite a delivery which is not held any more.
    pub(super) fn retain(&mut self, is_held: impl Fn(u64) -> bool) {
        for (_, said) in std::mem::take(&mut self.0) {
            let Said {
                number,
                send,
                result,
                next,
            } = said;
            let mut kept = VecDeque::new();
            for early in std::iter::once(EarlySend { send, result }).chain(next) {
                if is_held(early.send.delivery_id) {
                    kept.push_back(early);
                } else {
                    // An error says that its handler was dropped.
                    let _ = early.result.send(Err(Error::Stale));
                }
            }
            if let Some(early) = kept.pop_front() {
                self.say(early, kept, number);
            }
        }
    }

    /// What was said and not heard of, with its number.
    pub(super) fn unheard(&self) -> Vec<(u64, Send)> {
        let said = self.0.values();
        said.map(|said| (said.number, said.send.clone())).collect()
    }

    fn say(&mut self, early: EarlySend, next: VecDeque<EarlySend>, number: u64) -> Send {
        let EarlySend { send, result } = early;
        let said = Said {
            number,
            send: send.clone(),
            result,
            next,
        };
        self.0.insert(send.client_id.clone(), said);
        send
    }
}

/// What became of a send.
pub(super) fn sent(result: SendResult) -> Result<Appended, Error> {
    match (result.outcome(), result.appended) {
        (AckOutcome::Ok, Some(appended)) => Ok(appended),
        (AckOutcome::Ok, None) => Err(Error::Protocol("a send without its position")),
        _ => Err(Error::Stale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(delivery_id: u64) -> (EarlySend, oneshot::Receiver<Result<Appended, Error>>) {
        let (result, answered) = oneshot::channel();
        let send = Send {
            client_id: "same".into(),
            delivery_id,
            ..Send::default()
        };
        (EarlySend { send, result }, answered)
    }

    #[tokio::test]
    async fn the_same_client_id_of_two_conversations_is_answered_to_each() {
        let mut unanswered = Unanswered::default();
        let (first, first_answer) = early(1);
        let (second, second_answer) = early(2);
        assert!(unanswered.begin(first, 1).is_some());
        assert!(unanswered.begin(second, 2).is_none());

        let appended = |sequence| Appended {
            sequence,
            ..Appended::default()
        };
        let next = unanswered.answer("same", Ok(appended(10)), 3);
        assert_eq!(next.map(|send| send.delivery_id), Some(2));
        assert!(unanswered.answer("same", Ok(appended(20)), 4).is_none());
        assert!(matches!(first_answer.await, Ok(Ok(a)) if a.sequence == 10));
        assert!(matches!(second_answer.await, Ok(Ok(a)) if a.sequence == 20));
    }

    #[tokio::test]
    async fn sends_of_a_delivery_that_is_lost_are_stale_and_the_others_are_said_again() {
        let mut unanswered = Unanswered::default();
        let (lost, lost_answer) = early(1);
        let (kept, mut kept_answer) = early(2);
        unanswered.begin(lost, 7);
        unanswered.begin(kept, 8);
        unanswered.retain(|delivery_id| delivery_id == 2);
        assert!(matches!(lost_answer.await, Ok(Err(Error::Stale))));
        let again = unanswered.unheard();
        let again: Vec<u64> = again.iter().map(|(_, send)| send.delivery_id).collect();
        assert_eq!(again, [2]);
        assert!(kept_answer.try_recv().is_err(), "it waits");
    }

    #[test]
    fn a_result_nobody_waits_for_is_passed_over() {
        let mut unanswered = Unanswered::default();
        assert!(unanswered.answer("other", Err(Error::Ended), 1).is_none());
    }
}
