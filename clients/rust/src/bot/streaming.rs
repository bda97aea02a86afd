//! A reply that users see while it is made.

use tokio::sync::{mpsc, watch};

use super::early::{Early, Streams};
use super::turn::Reply;
use crate::proto::partial::Content;
use crate::proto::{Activity, Cancel, CancelReason, Partial};

/// Cancels of one turn that are remembered.
const CANCELS: usize = 64;

/// A reply that is made piece by piece. Users see all of the text so far, as often as their channel
/// shows it anew; only what the handler answers at the end is kept.
///
/// Nothing here waits. Pieces that find no room on their way go together with the next one, so a
/// handler may push as fast as a model speaks.
///
/// ```no_run
/// # use turnwire_client::bot::{Reply, Turn, TurnError};
/// # async fn next_words() -> Option<&'static str> { None }
/// async fn answer(turn: Turn) -> Result<Reply, TurnError> {
///     let mut reply = turn.stream();
///     reply.status("Searching…");
///     while let Some(words) = next_words().await {
///         reply.push(words);
///         if reply.cancel().is_some() {
///             break;
///         }
///     }
///     Ok(reply.finish().into())
/// }
/// ```
///
/// Dropped without an answer, it is shown as broken off when the turn is over.
#[derive(Debug)]
pub struct ReplyStream {
    frames: mpsc::Sender<Early>,
    links: Streams,
    /// The stream on which it was said so far.
    link: u64,
    cancels: watch::Receiver<Vec<Cancel>>,
    delivery_id: u64,
    index: u32,
    text: String,
    /// How much of the text is on its way.
    sent_bytes: usize,
    /// The text was replaced, and goes as a whole.
    is_replaced: bool,
}

impl ReplyStream {
    pub(super) fn new(
        frames: mpsc::Sender<Early>,
        links: Streams,
        cancels: watch::Receiver<Vec<Cancel>>,
        delivery_id: u64,
        index: u32,
        is_again: bool,
    ) -> Self {
        Self {
            frames,
            link: links.current(),
            links,
            cancels,
            delivery_id,
            index,
            text: String::new(),
            sent_bytes: 0,
            // What an earlier call of the handler showed of it is not to be added to.
            is_replaced: is_again,
        }
    }

    /// Adds to the text.
    pub fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        self.flush();
    }

    /// Replaces the text.
    pub fn replace(&mut self, text: impl Into<String>) {
        self.text = text.into();
        self.is_replaced = true;
        self.flush();
    }

    /// Shows a status line until there is more text: `Searching…`. One that finds no room is dropped.
    pub fn status(&self, line: impl Into<String>) {
        self.say(Content::Informative(line.into()));
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why the reply is wanted no more, if it is not.
    ///
    /// `UserStopped` and `Stale` mean that nothing more of it is shown; after the first an answer is
    /// still taken. `Superseded` is advice: the user said something else meanwhile.
    #[must_use]
    pub fn cancel(&self) -> Option<CancelReason> {
        newest(&self.cancels.borrow(), self.index)
    }

    /// Waits until the reply is wanted no more, and says why. Safe to drop, and to wait for beside what
    /// makes the reply.
    pub async fn cancelled(&mut self) -> CancelReason {
        let index = self.index;
        let found = self
            .cancels
            .wait_for(|cancels| newest(cancels, index).is_some())
            .await;
        let reason = found.ok().and_then(|cancels| newest(&cancels, index));
        match reason {
            Some(reason) => reason,
            // The session is gone, and the handler with it.
            None => std::future::pending().await,
        }
    }

    /// The whole reply, to be the answer of the turn: as a message, which may be given more than its
    /// text.
    #[must_use]
    pub fn finish(self) -> Activity {
        Activity::message(self.text)
    }

    fn flush(&mut self) {
        let link = self.links.current();
        if link != self.link {
            // The pieces that went last may be lost with their stream.
            self.link = link;
            self.is_replaced = true;
        }
        let content = if self.is_replaced {
            Content::Text(self.text.clone())
        } else if self.sent_bytes < self.text.len() {
            Content::Append(self.text[self.sent_bytes..].to_owned())
        } else {
            return;
        };
        if self.say(content) {
            self.sent_bytes = self.text.len();
            self.is_replaced = false;
        }
    }

    fn say(&self, content: Content) -> bool {
        let partial = Partial {
            delivery_id: self.delivery_id,
            stream: self.index,
            content: Some(content),
        };
        let frame = partial.into();
        let stream = self.link;
        self.frames.try_send(Early::Frame { frame, stream }).is_ok()
    }
}

impl From<ReplyStream> for Reply {
    fn from(stream: ReplyStream) -> Self {
        stream.finish().into()
    }
}

/// Notes a cancel for those who stream.
pub(super) fn note(cancels: &watch::Sender<Vec<Cancel>>, cancel: Cancel) {
    cancels.send_modify(|cancels| {
        if cancels.len() >= CANCELS {
            cancels.remove(0);
        }
        cancels.push(cancel);
    });
}

fn newest(cancels: &[Cancel], index: u32) -> Option<CancelReason> {
    let cancel = cancels.iter().rev().find(|cancel| cancel.stream == index)?;
    Some(cancel.reason())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::subscribe_request::Frame;

    fn begin(
        room: usize,
    ) -> (
        ReplyStream,
        mpsc::Receiver<Early>,
        watch::Sender<Vec<Cancel>>,
    ) {
        let (frames, said) = mpsc::channel(room);
        let (cancels, told) = watch::channel(Vec::new());
        let links = Streams::default();
        let reply = ReplyStream::new(frames, links, told, 7, 1, false);
        (reply, said, cancels)
    }

    fn next(said: &mut mpsc::Receiver<Early>) -> Option<Content> {
        match said.try_recv().ok()? {
            Early::Frame {
                frame: Frame::Partial(partial),
                ..
            } => {
                assert_eq!((partial.delivery_id, partial.stream), (7, 1));
                partial.content
            }
            other => panic!("no piece but {other:?}"),
        }
    }

    fn cancel(stream: u32, reason: CancelReason) -> Cancel {
        Cancel {
            delivery_id: 7,
            stream,
            reason: reason.into(),
        }
    }

    #[test]
    fn pieces_that_find_no_room_go_with_the_next() {
        let (mut reply, mut said, _cancels) = begin(1);
        for piece in ["a", "b", "c"] {
            reply.push(piece);
        }
        assert_eq!(next(&mut said), Some(Content::Append("a".into())));
        reply.push("d");
        assert_eq!(next(&mut said), Some(Content::Append("bcd".into())));
        assert_eq!(next(&mut said), None);
        assert_eq!(reply.finish(), Activity::message("abcd"));
    }

    #[test]
    fn on_another_stream_a_reply_begins_with_all_of_its_text() {
        let (mut reply, mut said, _cancels) = begin(4);
        reply.push("a");
        assert_eq!(next(&mut said), Some(Content::Append("a".into())));
        reply.links.next();
        reply.push("b");
        assert_eq!(next(&mut said), Some(Content::Text("ab".into())));
        reply.push("c");
        assert_eq!(next(&mut said), Some(Content::Append("c".into())));
    }

    #[test]
    fn a_text_that_is_replaced_goes_as_a_whole_however_late() {
        let (mut reply, mut said, _cancels) = begin(1);
        reply.push("a");
        reply.replace("x");
        reply.push("y");
        assert_eq!(next(&mut said), Some(Content::Append("a".into())));
        reply.push("z");
        assert_eq!(next(&mut said), Some(Content::Text("xyz".into())));
        reply.push("!");
        assert_eq!(next(&mut said), Some(Content::Append("!".into())));
    }

    #[tokio::test]
    async fn a_reply_hears_of_its_own_cancels_alone() {
        let (mut reply, _said, cancels) = begin(1);
        note(&cancels, cancel(0, CancelReason::Stale));
        assert_eq!(reply.cancel(), None);
        note(&cancels, cancel(1, CancelReason::Superseded));
        assert_eq!(reply.cancelled().await, CancelReason::Superseded);
        note(&cancels, cancel(1, CancelReason::UserStopped));
        assert_eq!(reply.cancel(), Some(CancelReason::UserStopped));
    }

    #[test]
    fn so_many_cancels_are_remembered() {
        let (_reply, _said, cancels) = begin(1);
        for stream in 0..200 {
            note(&cancels, cancel(stream, CancelReason::Stale));
        }
        assert_eq!(cancels.borrow().len(), CANCELS);
    }
}
