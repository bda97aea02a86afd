//! What a session says, without ever waiting to say it.

use std::collections::VecDeque;

use super::stream::BotSender;
use crate::Error;
use crate::frames::TrySendError;
use crate::proto::subscribe_request::Frame;

/// Frames on their way to the stream, in order.
///
/// Those for which the stream has no room are kept, because the session must go on reading: a
/// gateway that waits to be read would never make room. They are at most a few for each delivery
/// held, which the credit bounds.
pub(super) struct Outbox {
    sender: BotSender,
    unsent: VecDeque<Frame>,
}

impl Outbox {
    pub(super) fn new(sender: BotSender) -> Self {
        Self {
            sender,
            unsent: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends at once if nothing waits.
    pub(super) fn send(&mut self, frame: impl Into<Frame>) {
        let frame = frame.into();
        if !self.unsent.is_empty() {
            self.unsent.push_back(frame);
            return;
        }
        match self.sender.try_send(frame) {
            Err(TrySendError::Full(frame)) => self.unsent.push_back(frame),
            // Why the stream has ended is what its receiver says next.
            Ok(()) | Err(TrySendError::Ended) => {}
        }
    }

    /// Waits for room and uses it. Dropping the future loses nothing.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        while !self.unsent.is_empty() {
            self.sender.ready().await;
            while let Some(frame) = self.unsent.pop_front() {
                match self.sender.try_send(frame) {
                    Ok(()) => {}
                    Err(TrySendError::Full(frame)) => {
                        self.unsent.push_front(frame);
                        break;
                    }
                    Err(TrySendError::Ended) => return Err(Error::Ended),
                }
            }
        }
        Ok(())
    }
}
