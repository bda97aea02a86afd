//! Following a conversation over lost connections.

use futures_util::stream::{self, Stream};

use super::Conversations;
use crate::Error;
use crate::backoff::Backoff;
use crate::proto::watch_conversation_request::Start as WireStart;
use crate::proto::watch_conversation_response::Step;
use crate::proto::{
    ConversationName, Ephemeral, LogEntry, Position, Receipt, WatchConversationRequest,
    WatchConversationResponse,
};

/// Where to begin to follow a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest activity that is kept.
    Beginning,
    /// After this sequence.
    After(u64),
    /// With what comes from now on.
    Now,
}

/// A step of a followed conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchStep {
    /// The next activity, in order.
    Entry(Box<LogEntry>),
    /// Nothing new: the reader has everything up to here.
    Position(Position),
    /// Something that is not logged; only of [`watch_live`](Conversations::watch_live).
    Ephemeral(Box<Ephemeral>),
    /// What became of an activity that came before. Only
    /// [`watch_with_receipts`](Conversations::watch_with_receipts) gives these.
    Receipt(Box<Receipt>),
}

impl Conversations {
    /// Follows a conversation: history, then live, without gap or double.
    ///
    /// A connection that is lost later is made again after a growing wait, for as long as the
    /// failure may pass, and goes on after the last sequence seen. The stream ends after an error
    /// that will not pass, and when following cannot be begun.
    pub fn watch(
        &self,
        conversation: ConversationName,
        start: Start,
    ) -> impl Stream<Item = Result<WatchStep, Error>> + Send + use<> {
        self.steps(conversation, start, Asked::default())
    }

    /// Follows a conversation as [`watch`](Self::watch) does, with what is seen now or never in its place:
    /// that someone is typing, and replies while they are made.
    pub fn watch_live(
        &self,
        conversation: ConversationName,
        start: Start,
    ) -> impl Stream<Item = Result<WatchStep, Error>> + Send + use<> {
        let asked = Asked {
            ephemeral: true,
            ..Asked::default()
        };
        self.steps(conversation, start, asked)
    }

    /// Follows a conversation as [`watch`](Self::watch) does, with what becomes of what bots say on its
    /// channel. A receipt that the channel gives while the connection is lost is not told; the transcript
    /// has it ([`LogEntry::receipt`](crate::proto::LogEntry::receipt)).
    pub fn watch_with_receipts(
        &self,
        conversation: ConversationName,
        start: Start,
    ) -> impl Stream<Item = Result<WatchStep, Error>> + Send + use<> {
        let asked = Asked {
            receipts: true,
            ..Asked::default()
        };
        self.steps(conversation, start, asked)
    }

    fn steps(
        &self,
        conversation: ConversationName,
        start: Start,
        asked: Asked,
    ) -> impl Stream<Item = Result<WatchStep, Error>> + Send + use<> {
        let watch = Watch {
            conversations: self.clone(),
            conversation,
            start,
            asked,
            begun: false,
            stream: None,
            backoff: Backoff::default(),
        };
        stream::try_unfold(watch, |mut watch| async move {
            let step = watch.next().await?;
            Ok(Some((step, watch)))
        })
    }
}

/// What a follower asks for besides activities.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    ephemeral: bool,
    receipts: bool,
}

struct Watch {
    conversations: Conversations,
    conversation: ConversationName,
    start: Start,
    asked: Asked,
    begun: bool,
    stream: Option<tonic::Streaming<WatchConversationResponse>>,
    backoff: Backoff,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchStep, Error> {
        loop {
            match self.step().await {
                Ok(step) => {
                    self.backoff.reset();
                    match &step {
                        WatchStep::Entry(entry) => self.start = Start::After(entry.sequence),
                        // It has no position.
                        WatchStep::Ephemeral(_) => {}
                        WatchStep::Position(at) => self.start = Start::After(at.sequence),
                        // It is about something earlier.
                        WatchStep::Receipt(_) => {}
                    }
                    return Ok(step);
                }
                Err(error) if self.begun && error.is_retryable() => {
                    self.stream = None;
                    let wait = self.backoff.next_delay();
                    tracing::debug!(%error, ?wait, "no longer following");
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<WatchStep, Error> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        loop {
            let message = stream.message().await;
            let message = message.map_err(|status| self.conversations.client.error(status))?;
            let step = match message.ok_or(Error::Ended)?.step {
                Some(Step::Entry(entry)) => WatchStep::Entry(Box::new(entry)),
                Some(Step::Position(position)) => WatchStep::Position(position),
                Some(Step::Ephemeral(shown)) => WatchStep::Ephemeral(Box::new(shown)),
                Some(Step::Receipt(receipt)) => WatchStep::Receipt(Box::new(receipt)),
                None => continue,
            };
            self.stream = Some(stream);
            return Ok(step);
        }
    }

    async fn open(&mut self) -> Result<tonic::Streaming<WatchConversationResponse>, Error> {
        if self.start == Start::Now {
            // Not `only_new`: a connection lost before the first step would leave no sequence to
            // go on after.
            let conversation = self.conversations.get(self.conversation.clone()).await?;
            self.start = Start::After(conversation.last_sequence);
        }
        let after_sequence = match self.start {
            Start::After(sequence) => sequence,
            Start::Beginning | Start::Now => 0,
        };
        let request = WatchConversationRequest {
            conversation: Some(self.conversation.clone()),
            start: Some(WireStart::AfterSequence(after_sequence)),
            with_ephemeral: self.asked.ephemeral,
            receipts: self.asked.receipts,
        };
        let client = &self.conversations.client;
        let response = client
            .conversation_service()
            .watch_conversation(request)
            .await;
        let stream = response
            .map_err(|status| client.error(status))?
            .into_inner();
        self.begun = true;
        Ok(stream)
    }
}
