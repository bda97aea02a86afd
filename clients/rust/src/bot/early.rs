//! What handlers say before their turn is over, and who waits for the result.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use crate::Error;
use crate::proto::subscribe_request::Frame;
use crate::proto::{Appended, Send};

type Waiting = oneshot::Sender<Result<Appended, Error>>;

/// What a handler says, on its way to the session's task.
#[derive(Debug)]
pub(super) enum Early {
    /// Something that has a result.
    Send(EarlySend),
    /// Something that has none: a piece of a reply, or that the bot is typing.
    Frame(Frame),
}

/// A send on its way to the session's task.
#[derive(Debug)]
pub(super) struct EarlySend {
    pub(super) send: Send,
    pub(super) result: Waiting,
}

/// Sends without a result, by their client id. At most one for each handler that runs, or as many
/// as a handler waits for together.
///
/// A client id is unique in its conversation only, and a result carries nothing else; so a second
/// one of the same name, from another conversation, waits until the first has its result.
#[derive(Default)]
pub(super) struct Unanswered(HashMap<String, (Waiting, VecDeque<EarlySend>)>);

impl Unanswered {
    /// Notes who waits. Returns the send if it may go now.
    pub(super) fn begin(&mut self, early: EarlySend) -> Option<Send> {
        if let Some((_, next)) = self.0.get_mut(&early.send.client_id) {
            next.push_back(early);
            return None;
        }
        let waiting = (early.result, VecDeque::new());
        self.0.insert(early.send.client_id.clone(), waiting);
        Some(early.send)
    }

    /// Hands a result over. Returns the send that may go next.
    pub(super) fn answer(
        &mut self,
        client_id: &str,
        result: Result<Appended, Error>,
    ) -> Option<Send> {
        let (waiting, mut next) = self.0.remove(client_id)?;
        // An error says that the handler no longer waits, which is its right.
        let _ = waiting.send(result);
        let early = next.pop_front()?;
        self.0.insert(client_id.to_owned(), (early.result, next));
        Some(early.send)
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
        assert!(unanswered.begin(first).is_some());
        assert!(unanswered.begin(second).is_none());

        let appended = |sequence| Appended {
            sequence,
            ..Appended::default()
        };
        let next = unanswered.answer("same", Ok(appended(10)));
        assert_eq!(next.map(|send| send.delivery_id), Some(2));
        assert!(unanswered.answer("same", Ok(appended(20))).is_none());
        assert!(matches!(first_answer.await, Ok(Ok(a)) if a.sequence == 10));
        assert!(matches!(second_answer.await, Ok(Ok(a)) if a.sequence == 20));
    }

    #[test]
    fn a_result_nobody_waits_for_is_passed_over() {
        let mut unanswered = Unanswered::default();
        assert!(unanswered.answer("other", Err(Error::Ended)).is_none());
    }
}
