//! Channel adapters: low-level streams that do what a test says and nothing else.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use turnwire::proto::v1;
use turnwire::proto::v1::attach_request::Frame as Asked;
use turnwire::proto::v1::attach_response::Frame;
use turnwire::proto::v1::conversation_created::Result as Begun;
use turnwire::proto::v1::outcome::Result as Said;

use super::{Wire, text, wire, within};

/// A stream to be opened.
pub(crate) struct Opening {
    address: SocketAddr,
    token: Option<String>,
    hello: v1::AttachHello,
}

impl Opening {
    pub(super) fn new(address: SocketAddr, channel: &str) -> Self {
        Self {
            address,
            token: None,
            hello: v1::AttachHello {
                channel_id: channel.to_owned(),
                instance_id: "one".to_owned(),
                ..Default::default()
            },
        }
    }

    /// Another instance than `one`.
    pub(crate) fn instance(mut self, instance: &str) -> Self {
        instance.clone_into(&mut self.hello.instance_id);
        self
    }

    /// Changes the Hello in another way.
    pub(crate) fn hello(mut self, change: impl FnOnce(&mut v1::AttachHello)) -> Self {
        change(&mut self.hello);
        self
    }

    /// With a token.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) async fn attach(self) -> Adapter {
        self.try_attach().await.expect("it is welcome")
    }

    /// Waits for the Welcome, or for what the stream ends with instead.
    pub(crate) async fn try_attach(self) -> Result<Adapter, Status> {
        let wire = wire::connect(self.address, self.token.as_deref()).await;
        let mut adapter = Adapter::open(&wire).await?;
        adapter.write(Asked::Hello(self.hello));
        let welcome = within("a Welcome", adapter.responses.message()).await?;
        match welcome.and_then(|response| response.frame) {
            Some(Frame::Welcome(welcome)) => adapter.welcome = welcome,
            other => panic!("no Welcome but {other:?}"),
        }
        Ok(adapter)
    }
}

/// An adapter's stream.
pub(crate) struct Adapter {
    frames: mpsc::UnboundedSender<v1::AttachRequest>,
    responses: Streaming<v1::AttachResponse>,
    pending: VecDeque<Frame>,
    pub(crate) welcome: v1::AttachWelcome,
}

impl Adapter {
    /// A stream without a Hello.
    pub(crate) async fn open(wire: &Wire) -> Result<Self, Status> {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let mut client = wire.channels();
        let responses = within("a stream", client.attach(outgoing)).await?;
        Ok(Self {
            frames,
            responses: responses.into_inner(),
            pending: VecDeque::new(),
            welcome: v1::AttachWelcome::default(),
        })
    }

    /// Sends a frame.
    pub(crate) fn write(&self, frame: Asked) {
        self.write_raw(Some(frame));
    }

    /// Sends a frame that may be empty.
    pub(crate) fn write_raw(&self, frame: Option<Asked>) {
        // A stream that is over is noticed by whoever reads.
        let _ = self.frames.send(v1::AttachRequest { frame });
    }

    async fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> Option<T>) -> T {
        for index in 0..self.pending.len() {
            if let Some(found) = wanted(&self.pending[index]) {
                self.pending.remove(index);
                return found;
            }
        }
        loop {
            let response = match within(what, self.responses.message()).await {
                Ok(Some(response)) => response,
                other => panic!("{what}: the stream has ended with {other:?}"),
            };
            let frame = response.frame.expect("a frame that is known");
            if let Some(found) = wanted(&frame) {
                return found;
            }
            if let Frame::Error(error) = frame {
                panic!("{what}: an Error that nobody asked for: {error:?}");
            }
            self.pending.push_back(frame);
        }
    }

    pub(crate) async fn next_outbound(&mut self) -> v1::Outbound {
        let outbound = |frame: &Frame| match frame {
            Frame::Outbound(outbound) => Some(outbound.clone()),
            _ => None,
        };
        self.next("an outbound activity", outbound).await
    }

    /// The next outbound activity, which must say this, in this attempt.
    pub(crate) async fn expect(&mut self, said: &str, attempt: u32) -> v1::Outbound {
        let outbound = self.next_outbound().await;
        assert_eq!(
            (text(&outbound.activity).as_str(), outbound.attempt),
            (said, attempt)
        );
        outbound
    }

    /// The next that is ephemeral.
    pub(crate) async fn ephemeral(&mut self) -> v1::Ephemeral {
        let ephemeral = |frame: &Frame| match frame {
            Frame::Ephemeral(ephemeral) => Some(ephemeral.clone()),
            _ => None,
        };
        self.next("something ephemeral", ephemeral).await
    }

    /// Checks that nothing ephemeral came that a test has not taken.
    pub(crate) async fn expect_quiet(&mut self) {
        self.barrier().await;
        let is_one = |frame: &&Frame| matches!(frame, Frame::Ephemeral(_));
        let more = self.pending.iter().find(is_one);
        assert!(more.is_none(), "{more:?}");
    }

    pub(crate) async fn expect_error(&mut self, reason: &str) -> v1::Error {
        let error = |frame: &Frame| match frame {
            Frame::Error(error) => Some(error.clone()),
            _ => None,
        };
        let error = self.next("an Error frame", error).await;
        assert_eq!(error.reason, reason, "{error:?}");
        error
    }

    /// Sends frames that are answered when everything before them is done, and waits for it.
    pub(crate) async fn barrier(&mut self) {
        const SHARDS: u64 = 16;
        for _ in 0..2 {
            for shard in 0..SHARDS {
                let id = 0xff_ffff << 40 | shard << 34 | 1;
                self.write(Asked::Outcome(v1::Outcome {
                    delivery_id: id,
                    result: Some(Said::Delivered(v1::Delivered::default())),
                }));
                self.next("a barrier", |frame| match frame {
                    Frame::Error(error) if error.delivery_id == id => Some(()),
                    _ => None,
                })
                .await;
            }
        }
    }

    /// Checks that nothing was handed over that a test has not taken.
    pub(crate) async fn expect_nothing(&mut self) {
        self.barrier().await;
        let more = self
            .pending
            .iter()
            .find(|frame| matches!(frame, Frame::Outbound(_)));
        assert!(more.is_none(), "{more:?}");
    }

    /// The next request to begin a conversation.
    pub(crate) async fn next_creation(&mut self) -> v1::CreateConversation {
        let creation = |frame: &Frame| match frame {
            Frame::CreateConversation(creation) => Some(creation.clone()),
            _ => None,
        };
        self.next("a CreateConversation", creation).await
    }

    /// Checks that the channel was not asked for a conversation that a test has not taken.
    pub(crate) async fn expect_no_creation(&mut self) {
        self.barrier().await;
        let more = self
            .pending
            .iter()
            .find(|frame| matches!(frame, Frame::CreateConversation(_)));
        assert!(more.is_none(), "{more:?}");
    }

    /// Answers a request to begin a conversation, without waiting.
    pub(crate) fn answer(&self, request_id: &str, result: Begun) {
        self.write(Asked::ConversationCreated(v1::ConversationCreated {
            request_id: request_id.to_owned(),
            result: Some(result),
        }));
    }

    /// Begins the conversation that the channel is asked for next.
    pub(crate) async fn begins(&mut self, conversation: &str) -> v1::CreateConversation {
        let asked = self.next_creation().await;
        let created = v1::Created {
            conversation: Some(v1::ConversationAccount {
                id: Some(conversation.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.answer(&asked.request_id, Begun::Created(created));
        asked
    }

    /// Says what became of an outbound activity.
    pub(crate) async fn outcome(&mut self, outbound: &v1::Outbound, result: Said) {
        self.write(Asked::Outcome(v1::Outcome {
            delivery_id: outbound.delivery_id,
            result: Some(result),
        }));
        self.barrier().await;
    }

    pub(crate) async fn delivered(&mut self, outbound: &v1::Outbound) {
        let channel_activity_id = format!("theirs-{}", outbound.sequence);
        self.outcome(
            outbound,
            Said::Delivered(v1::Delivered {
                channel_activity_id,
            }),
        )
        .await;
    }

    /// Posts an activity, and waits for what becomes of it.
    pub(crate) async fn posts(&mut self, post_id: &str, activity: v1::Activity) -> v1::PostResult {
        self.write(Asked::Post(v1::Post {
            post_id: post_id.to_owned(),
            activity: Some(activity.into()),
        }));
        self.next("a PostResult", |frame| match frame {
            Frame::PostResult(result) if result.post_id == post_id => Some(result.clone()),
            _ => None,
        })
        .await
    }

    /// Reads to the end of the stream, which must have this reason.
    pub(crate) async fn expect_end(&mut self, code: tonic::Code, why: &str) {
        self.pending.clear();
        loop {
            match within("the stream's end", self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a status"),
                Err(status) => {
                    assert_eq!((status.code(), wire::reason(&status).as_str()), (code, why));
                    return;
                }
            }
        }
    }
}
