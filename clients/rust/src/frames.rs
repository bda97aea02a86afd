//! Bidirectional streams, whole and in two halves.
//!
//! Neither half has a task of its own. A sent frame takes one hop, through a bounded queue that
//! the transport empties; a received one is decoded where it is awaited.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Client, Error};

/// Frames that may wait for the transport, unless the caller says otherwise.
pub const DEFAULT_QUEUE_FRAMES: usize = 4_096;

/// A request message whose only content is one of several frames.
pub trait Envelope: Send + 'static {
    /// The frames.
    type Frame;

    /// Puts a frame into its envelope.
    fn wrap(frame: Self::Frame) -> Self;
}

/// A response message whose only content is one of several frames, the first of them a welcome.
pub trait Opened: Send + 'static {
    /// The frames.
    type Frame;
    /// What the gateway says when it lets the client in.
    type Welcome: fmt::Debug + Send;

    /// Takes the frame out; `None` for one that this version does not know.
    fn unwrap(self) -> Option<Self::Frame>;

    /// Takes the welcome out of the first frame.
    ///
    /// # Errors
    ///
    /// What the gateway said instead.
    fn welcome(first: Self::Frame) -> Result<Self::Welcome, Error>;
}

/// A stream that the gateway has let in, typed in both directions and otherwise as the protocol is.
#[derive(Debug)]
pub struct Stream<E, O: Opened> {
    welcome: O::Welcome,
    sender: Sender<E>,
    receiver: Receiver<O>,
}

impl<E: Envelope, O: Opened> Stream<E, O> {
    /// Waits for the welcome on a stream whose hello was queued.
    pub(crate) async fn begin(
        client: &Client,
        sender: Sender<E>,
        response: Result<tonic::Response<tonic::Streaming<O>>, tonic::Status>,
    ) -> Result<Self, Error> {
        let stream = response
            .map_err(|status| client.error(status))?
            .into_inner();
        let mut receiver = Receiver::new(stream, client.shared_endpoint());
        let first = receiver.next().await?.ok_or(Error::Ended)?;
        Ok(Self {
            welcome: O::welcome(first)?,
            sender,
            receiver,
        })
    }

    /// What the gateway said when it let the client in.
    #[must_use]
    pub fn welcome(&self) -> &O::Welcome {
        &self.welcome
    }

    /// Sends a frame. See [`Sender::send`].
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the stream is over.
    pub async fn send(&self, frame: impl Into<E::Frame>) -> Result<(), Error> {
        self.sender.send(frame).await
    }

    /// Waits for the next frame. See [`Receiver::next`].
    ///
    /// # Errors
    ///
    /// Why the stream has ended.
    pub async fn next(&mut self) -> Result<Option<O::Frame>, Error> {
        self.receiver.next().await
    }

    /// Takes the stream apart, for a reader and writers that are not the same task.
    #[must_use]
    pub fn split(self) -> (O::Welcome, Sender<E>, Receiver<O>) {
        (self.welcome, self.sender, self.receiver)
    }
}

/// The sending half. Clones send on the same stream; when the last is dropped, the gateway sees
/// the end of the client's side.
#[derive(Debug)]
pub struct Sender<E> {
    queue: mpsc::Sender<E>,
}

impl<E> Clone for Sender<E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

/// A frame that could not be sent without waiting.
#[derive(Debug)]
pub enum TrySendError<F> {
    /// The queue is full: the gateway reads more slowly than the caller sends.
    Full(F),
    /// The stream has ended.
    Ended,
}

impl<E: Envelope> Sender<E> {
    /// A queue of `capacity` frames, and what the transport empties it by.
    pub(crate) fn queue(capacity: usize) -> (Self, ReceiverStream<E>) {
        let (queue, frames) = mpsc::channel(capacity.max(1));
        (Self { queue }, ReceiverStream::new(frames))
    }

    /// Queues a frame, waiting for room.
    ///
    /// A caller that waits here and does not read meanwhile can stop for ever when the gateway
    /// in turn waits for it to read: keep fewer frames unanswered than the queue holds, or read
    /// in another task.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the stream is over; the receiving half says why.
    pub async fn send(&self, frame: impl Into<E::Frame>) -> Result<(), Error> {
        let envelope = E::wrap(frame.into());
        self.queue.send(envelope).await.map_err(|_| Error::Ended)
    }

    /// Queues a frame if there is room at once.
    ///
    /// # Errors
    ///
    /// Gives the frame back when there is none.
    pub fn try_send(&self, frame: impl Into<E::Frame>) -> Result<(), TrySendError<E::Frame>> {
        let frame = frame.into();
        match self.queue.try_reserve() {
            Ok(room) => {
                room.send(E::wrap(frame));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(TrySendError::Full(frame)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(TrySendError::Ended),
        }
    }

    /// Waits until [`try_send`](Self::try_send) has room, or the stream has ended.
    pub async fn ready(&self) {
        // An error says that the stream is over, which `try_send` will say as well.
        drop(self.queue.reserve().await);
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<O> {
    stream: tonic::Streaming<O>,
    endpoint: Arc<str>,
}

impl<O: Opened> Receiver<O> {
    pub(crate) fn new(stream: tonic::Streaming<O>, endpoint: Arc<str>) -> Self {
        Self { stream, endpoint }
    }

    /// Waits for the next frame; `None` when the gateway has ended the stream without an error.
    /// Frames that this version does not know are passed over. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Why the stream has ended.
    pub async fn next(&mut self) -> Result<Option<O::Frame>, Error> {
        loop {
            match self.stream.message().await {
                Ok(Some(message)) => {
                    if let Some(frame) = message.unwrap() {
                        return Ok(Some(frame));
                    }
                }
                Ok(None) => return Ok(None),
                Err(status) => return Err(Error::from_status(&self.endpoint, status)),
            }
        }
    }
}
