//! Watchers of conversations.

use std::future::Future;

use tonic::{Status, Streaming};
use turnwire::proto::v1;
use turnwire::proto::v1::watch_conversation_request::Start;
use turnwire::proto::v1::watch_conversation_response::Step;

use super::activities::{Info, info};
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
            ..Default::default()
        };
        Self::begin(wire, request).await
    }

    /// One who watches a conversation from its end on, and wants what is ephemeral, too.
    pub(crate) async fn live(wire: &Wire, channel: &str, conversation: &str) -> Self {
        let request = v1::WatchConversationRequest {
            conversation: Some(name(channel, conversation)),
            start: Some(Start::OnlyNew(true)),
            with_ephemeral: true,
            ..Default::default()
        };
        let watcher = Self::begin(wire, request).await;
        watcher.expect("it may watch")
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
                Step::Ephemeral(shown) => panic!("no entry but {shown:?}"),
                Step::Receipt(receipt) => panic!("a receipt that nobody asked for: {receipt:?}"),
            }
        }
    }

    /// The next step, past reports of the position, must be something ephemeral.
    pub(crate) async fn ephemeral(&mut self) -> v1::Ephemeral {
        loop {
            match self.step().await.expect("a step") {
                Step::Ephemeral(shown) => return shown,
                Step::Position(_) => {}
                other => panic!("nothing ephemeral but {other:?}"),
            }
        }
    }

    /// The next step must be a snapshot of a reply that says this. Returns what it says of itself.
    #[track_caller]
    pub(crate) fn snapshot<'a>(&'a mut self, said: &'a str) -> impl Future<Output = Info> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let shown = self.ephemeral().await;
            assert_eq!(text(&shown.activity), said, "at {place}");
            info(shown.activity.as_deref().expect("an activity")).expect("a part of a reply")
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
            other => panic!("no activity but {other:?}"),
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
