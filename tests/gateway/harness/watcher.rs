//! Watchers of conversations.

use tonic::{Status, Streaming};
use turnwire::proto::v1;
use turnwire::proto::v1::watch_conversation_request::Start;
use turnwire::proto::v1::watch_conversation_response::Step;

use super::{Wire, name, text, within};

/// One who follows a conversation.
pub(crate) struct Watcher {
    steps: Streaming<v1::WatchConversationResponse>,
}

impl Watcher {
    pub(crate) async fn start(
        wire: &Wire,
        conversation: &str,
        start: Option<Start>,
    ) -> Result<Self, Status> {
        let request = v1::WatchConversationRequest {
            conversation: Some(name("web", conversation)),
            start,
            receipts: false,
        };
        Self::begin(wire, request).await
    }

    pub(crate) async fn begin(
        wire: &Wire,
        request: v1::WatchConversationRequest,
    ) -> Result<Self, Status> {
        let mut client = wire.conversations();
        let steps = within("a watch", client.watch_conversation(request)).await?;
        Ok(Self {
            steps: steps.into_inner(),
        })
    }

    /// The next step must be a receipt.
    pub(crate) async fn expect_receipt(&mut self) -> v1::Receipt {
        match self.step().await.expect("a step") {
            Step::Receipt(receipt) => receipt,
            other => panic!("no receipt but {other:?}"),
        }
    }

    pub(crate) async fn step(&mut self) -> Result<Step, Status> {
        let step = within("a step", self.steps.message()).await?;
        let step = step.expect("a watch does not end by itself").step;
        Ok(step.expect("a step that is known"))
    }

    /// The next activity, past reports of the position.
    pub(crate) async fn entry(&mut self) -> v1::LogEntry {
        loop {
            match self.step().await.expect("a step") {
                Step::Entry(entry) => return entry,
                Step::Position(_) => {}
                Step::Receipt(receipt) => panic!("a receipt that nobody asked for: {receipt:?}"),
            }
        }
    }

    /// The next activity must be this one.
    pub(crate) async fn expect(&mut self, sequence: u64, said: &str) {
        let entry = self.entry().await;
        assert_eq!(
            (entry.sequence, text(&entry.activity).as_str()),
            (sequence, said)
        );
    }

    /// The next step must be this activity, and no report of the position.
    pub(crate) async fn expect_at_once(&mut self, sequence: u64) {
        match self.step().await.expect("a step") {
            Step::Entry(entry) => assert_eq!(entry.sequence, sequence),
            other => panic!("a step too early: {other:?}"),
        }
    }

    /// The next step must be a report of this position.
    pub(crate) async fn expect_position(&mut self, sequence: u64) {
        match self.step().await.expect("a step") {
            Step::Position(position) => assert_eq!(position.sequence, sequence),
            other => panic!("no position but {other:?}"),
        }
    }
}
