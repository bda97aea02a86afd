//! Bots: low-level sessions that do what a test says and nothing else.

mod live;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use turnwire::proto::v1;
use turnwire::proto::v1::subscribe_request::Frame as Asked;
use turnwire::proto::v1::subscribe_response::Frame;

use super::{Wire, duration, message, name, wire, within};

/// A session to be opened.
pub(crate) struct Opening {
    address: SocketAddr,
    token: Option<String>,
    hello: v1::Hello,
}

/// How a stream ended: with a status, or with none.
pub(crate) type End = Option<Status>;

impl Opening {
    pub(super) fn new(address: SocketAddr, bot: &str) -> Self {
        Self {
            address,
            token: None,
            hello: v1::Hello {
                bot_id: bot.to_owned(),
                instance_id: "one".to_owned(),
                credit: Some(v1::Credit {
                    deliveries: 10_000,
                    bytes: 64 << 20,
                }),
                ..Default::default()
            },
        }
    }

    /// Another instance than `one`.
    pub(crate) fn instance(mut self, instance: &str) -> Self {
        instance.clone_into(&mut self.hello.instance_id);
        self
    }

    /// Another credit than plenty.
    pub(crate) fn credit(mut self, deliveries: i64, bytes: i64) -> Self {
        self.hello.credit = Some(v1::Credit { deliveries, bytes });
        self
    }

    /// Changes the Hello in another way.
    pub(crate) fn hello(mut self, change: impl FnOnce(&mut v1::Hello)) -> Self {
        change(&mut self.hello);
        self
    }

    /// With a token.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) async fn attach(self) -> Bot {
        self.try_attach().await.expect("it is welcome")
    }

    /// Waits for the Welcome, or for what the stream ends with instead.
    pub(crate) async fn try_attach(self) -> Result<Bot, Status> {
        let wire = wire::connect(self.address, self.token.as_deref()).await;
        let mut bot = Bot::open(&wire).await?;
        bot.write(Asked::Hello(self.hello));
        match bot.read().await {
            Ok(Some(Frame::Welcome(welcome))) => bot.welcome = welcome,
            Ok(other) => panic!("no Welcome but {other:?}"),
            Err(status) => return Err(status),
        }
        Ok(bot)
    }
}

/// A session.
pub(crate) struct Bot {
    frames: Option<mpsc::UnboundedSender<v1::SubscribeRequest>>,
    responses: Streaming<v1::SubscribeResponse>,
    /// Read and not asked for yet.
    pending: VecDeque<Frame>,
    pub(crate) welcome: v1::Welcome,
    /// Sends are numbered, each key used once.
    sends: u64,
    scissors: Option<Box<dyn FnOnce() + Send>>,
}

impl Bot {
    /// A stream without a Hello.
    pub(crate) async fn open(wire: &Wire) -> Result<Self, Status> {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let mut client = wire.bots();
        let responses = within("a stream", client.subscribe(outgoing)).await?;
        Ok(Self {
            frames: Some(frames),
            responses: responses.into_inner(),
            pending: VecDeque::new(),
            welcome: v1::Welcome::default(),
            sends: 0,
            scissors: Some(Box::new(wire.scissors())),
        })
    }

    /// Sends a frame.
    pub(crate) fn write(&self, frame: Asked) {
        self.write_raw(Some(frame));
    }

    /// Sends a frame that may be empty.
    pub(crate) fn write_raw(&self, frame: Option<Asked>) {
        let frames = self
            .frames
            .as_ref()
            .expect("it has not said that it is done");
        // A stream that is over is noticed by whoever reads.
        let _ = frames.send(v1::SubscribeRequest { frame });
    }

    /// Breaks the connection.
    pub(super) fn cut(mut self) {
        if let Some(cut) = self.scissors.take() {
            cut();
        }
    }

    /// Says that no more frames come.
    pub(crate) fn finish(&mut self) {
        self.frames = None;
    }

    /// Reads a frame, in the order in which they came.
    pub(crate) async fn read(&mut self) -> Result<Option<Frame>, Status> {
        if let Some(frame) = self.pending.pop_front() {
            return Ok(Some(frame));
        }
        let response = within("a frame", self.responses.message()).await?;
        Ok(response.map(|response| response.frame.expect("a frame that is known")))
    }

    /// The first frame that is wanted, leaving the others for later.
    async fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> Option<T>) -> T {
        for index in 0..self.pending.len() {
            if let Some(found) = wanted(&self.pending[index]) {
                self.pending.remove(index);
                return found;
            }
        }
        loop {
            let response = within(what, self.responses.message()).await;
            let response = match response {
                Ok(Some(response)) => response,
                other => panic!("{what}: the stream has ended with {other:?}"),
            };
            let mut found = None;
            for frame in apart(response.frame.expect("a frame that is known")) {
                if found.is_none() {
                    found = wanted(&frame);
                    if found.is_some() {
                        continue;
                    }
                }
                if let Frame::Error(error) = frame {
                    panic!("{what}: an Error that nobody asked for: {error:?}");
                }
                self.pending.push_back(frame);
            }
            if let Some(found) = found {
                return found;
            }
        }
    }

    pub(crate) async fn next_delivery(&mut self) -> v1::Delivery {
        let delivery = |frame: &Frame| match frame {
            Frame::Delivery(delivery) => Some(delivery.clone()),
            _ => None,
        };
        self.next("a delivery", delivery).await
    }

    /// The next delivery, which must say this, be in this attempt.
    #[track_caller]
    pub(crate) fn expect<'a>(
        &'a mut self,
        conversation: &'a str,
        text: &'a str,
        attempt: u32,
    ) -> impl Future<Output = v1::Delivery> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let delivery = self.next_delivery().await;
            let got = (place_of(&delivery), said(&delivery), delivery.attempt);
            let wanted = (conversation.to_owned(), text.to_owned(), attempt);
            assert_eq!(got, wanted, "at {place}");
            delivery
        }
    }

    /// Sends frames that are answered when everything before them is done, and waits for it.
    pub(crate) async fn barrier(&mut self) {
        // Of an epoch that never comes, for each shard there may be. Twice, because what is handed
        // over with the first answer comes after it.
        const SHARDS: u64 = 16;
        let ids: Vec<u64> = (0..SHARDS)
            .map(|shard| 0xff_ffff << 40 | shard << 34 | 1)
            .collect();
        for _ in 0..2 {
            self.write(Asked::Ack(v1::Ack {
                delivery_ids: ids.clone(),
                want_result: true,
            }));
            let mut answered = 0;
            while answered < ids.len() {
                answered += self
                    .next("a barrier", |frame| match frame {
                        Frame::AckResult(result)
                            if ids.contains(&result.results[0].delivery_id) =>
                        {
                            Some(result.results.len())
                        }
                        _ => None,
                    })
                    .await;
            }
        }
    }

    /// Checks that nothing was delivered that a test has not taken.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) -> impl Future<Output = ()> + '_ {
        let place = std::panic::Location::caller();
        async move {
            self.barrier().await;
            let more = self.pending.iter().find_map(|frame| match frame {
                Frame::Delivery(delivery) => Some(delivery),
                _ => None,
            });
            assert!(more.is_none(), "at {place}: {more:?}");
        }
    }

    /// The deliveries that came and were not taken, after a barrier.
    pub(crate) async fn waiting(&mut self) -> Vec<v1::Delivery> {
        self.barrier().await;
        let (deliveries, others) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|frame| matches!(frame, Frame::Delivery(_)));
        self.pending = others;
        let deliveries: VecDeque<Frame> = deliveries;
        let deliveries = deliveries.into_iter().filter_map(|frame| match frame {
            Frame::Delivery(delivery) => Some(delivery),
            _ => None,
        });
        deliveries.collect()
    }

    /// The Error frame that must come.
    pub(crate) async fn expect_error(&mut self, reason: &str) -> v1::Error {
        let error = |frame: &Frame| match frame {
            Frame::Error(error) => Some(error.clone()),
            _ => None,
        };
        let error = self.next("an Error frame", error).await;
        assert_eq!(error.reason, reason, "{error:?}");
        error
    }

    pub(crate) async fn expect_revoked(&mut self) -> v1::Revoked {
        let revoked = |frame: &Frame| match frame {
            Frame::Revoked(revoked) => Some(revoked.clone()),
            _ => None,
        };
        self.next("a Revoked frame", revoked).await
    }

    pub(crate) async fn expect_drain(&mut self) -> v1::Drain {
        let drain = |frame: &Frame| match frame {
            Frame::Drain(drain) => Some(*drain),
            _ => None,
        };
        self.next("a Drain frame", drain).await
    }

    pub(crate) async fn expect_heartbeat(&mut self) -> v1::GatewayHeartbeat {
        let heartbeat = |frame: &Frame| match frame {
            Frame::Heartbeat(heartbeat) => Some(*heartbeat),
            _ => None,
        };
        self.next("a heartbeat", heartbeat).await
    }

    /// Reads to the end of the stream.
    pub(crate) async fn end(&mut self) -> End {
        self.pending.clear();
        loop {
            match within("the stream's end", self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Reads to the end of the stream, which must have this reason.
    pub(crate) async fn expect_end(&mut self, code: tonic::Code, why: &str) {
        let end = self.end().await.expect("a status");
        assert_eq!((end.code(), wire::reason(&end).as_str()), (code, why));
    }

    /// The next receipt.
    pub(crate) async fn expect_receipt(&mut self) -> v1::Receipt {
        let receipt = |frame: &Frame| match frame {
            Frame::Receipt(receipt) => Some(receipt.clone()),
            _ => None,
        };
        self.next("a receipt", receipt).await
    }

    /// Checks that no receipt was told that a test has not taken.
    pub(crate) async fn expect_no_receipt(&mut self) {
        self.barrier().await;
        let more = self
            .pending
            .iter()
            .find(|frame| matches!(frame, Frame::Receipt(_)));
        assert!(more.is_none(), "{more:?}");
    }

    async fn results(&mut self, ids: &[u64]) -> Vec<v1::DeliveryResult> {
        let mut results = Vec::new();
        while results.len() < ids.len() {
            let more = self
                .next("an AckResult", |frame| match frame {
                    Frame::AckResult(result) if ids.contains(&result.results[0].delivery_id) => {
                        Some(result.results.clone())
                    }
                    _ => None,
                })
                .await;
            results.extend(more);
        }
        results
    }

    /// What becomes of acks that were sent.
    pub(crate) async fn outcomes(&mut self, ids: &[u64]) -> Vec<v1::AckOutcome> {
        let results = self.results(ids).await;
        results.iter().map(v1::DeliveryResult::outcome).collect()
    }

    async fn outcome(&mut self, id: u64) -> v1::AckOutcome {
        self.results(&[id]).await[0].outcome()
    }

    /// Acks, and waits for what becomes of it.
    pub(crate) async fn ack(&mut self, delivery: &v1::Delivery) -> v1::AckOutcome {
        self.ack_id(delivery.delivery_id).await
    }

    pub(crate) async fn ack_id(&mut self, id: u64) -> v1::AckOutcome {
        self.write(Asked::Ack(v1::Ack {
            delivery_ids: vec![id],
            want_result: true,
        }));
        self.outcome(id).await
    }

    /// Acks what must be taken.
    pub(crate) async fn acks(&mut self, delivery: &v1::Delivery) {
        assert_eq!(self.ack(delivery).await, v1::AckOutcome::Ok);
    }

    /// Gives a delivery back.
    pub(crate) async fn nack(&mut self, delivery: &v1::Delivery, nack: v1::Nack) -> v1::AckOutcome {
        self.write(Asked::Nack(v1::Nack {
            delivery_ids: vec![delivery.delivery_id],
            want_result: true,
            ..nack
        }));
        self.outcome(delivery.delivery_id).await
    }

    /// Gives a delivery back, to be tried again after a time or by the backoff.
    pub(crate) async fn retry(
        &mut self,
        delivery: &v1::Delivery,
        delay: Option<Duration>,
    ) -> v1::AckOutcome {
        let nack = v1::Nack {
            mode: v1::NackMode::Retry as i32,
            delay: delay.map(duration),
            ..Default::default()
        };
        self.nack(delivery, nack).await
    }

    /// Gives a delivery back, for another session.
    pub(crate) async fn release(&mut self, delivery: &v1::Delivery) -> v1::AckOutcome {
        let nack = v1::Nack {
            mode: v1::NackMode::Release as i32,
            ..Default::default()
        };
        self.nack(delivery, nack).await
    }

    /// Gives up on a delivery.
    pub(crate) async fn poison(&mut self, delivery: &v1::Delivery, why: &str) -> v1::AckOutcome {
        let nack = v1::Nack {
            mode: v1::NackMode::Poison as i32,
            reason: why.to_owned(),
            ..Default::default()
        };
        self.nack(delivery, nack).await
    }

    /// Asks for more time.
    pub(crate) async fn extend(&mut self, delivery: &v1::Delivery, by: Option<Duration>) {
        self.write(Asked::Extend(v1::Extend {
            delivery_ids: vec![delivery.delivery_id],
            deadline: by.map(duration),
        }));
        self.barrier().await;
    }

    pub(crate) async fn credit(&mut self, deliveries: i64, bytes: i64) {
        self.write(Asked::Credit(v1::Credit { deliveries, bytes }));
        self.barrier().await;
    }

    /// Answers and acks in one.
    pub(crate) async fn commit(
        &mut self,
        delivery: &v1::Delivery,
        texts: &[&str],
    ) -> v1::DeliveryResult {
        let activities = texts.iter().map(|text| message(text)).collect();
        self.commit_all(delivery.delivery_id, activities);
        self.results(&[delivery.delivery_id]).await.remove(0)
    }

    /// Answers and acks what must be taken.
    pub(crate) async fn commits(&mut self, delivery: &v1::Delivery, texts: &[&str]) {
        let result = self.commit(delivery, texts).await;
        assert_eq!(result.outcome(), v1::AckOutcome::Ok);
        assert_eq!(result.appended.len(), texts.len());
    }

    /// Sends a Commit without waiting.
    pub(crate) fn commit_all(&self, delivery_id: u64, activities: Vec<v1::Activity>) {
        self.write(Asked::Commit(v1::Commit {
            delivery_id,
            activities,
            ..Default::default()
        }));
    }

    /// Answers, writes state and acks, in one.
    pub(crate) async fn commit_with(
        &mut self,
        delivery: &v1::Delivery,
        text: &str,
        state_writes: Vec<v1::StateWrite>,
    ) -> v1::DeliveryResult {
        self.write_commit(delivery, text, state_writes);
        self.results(&[delivery.delivery_id]).await.remove(0)
    }

    /// The same without waiting.
    pub(crate) fn write_commit(
        &self,
        delivery: &v1::Delivery,
        text: &str,
        state_writes: Vec<v1::StateWrite>,
    ) {
        self.write(Asked::Commit(v1::Commit {
            delivery_id: delivery.delivery_id,
            activities: vec![message(text)],
            state_writes,
        }));
    }

    /// Sends without waiting, under a key.
    pub(crate) fn write_send(&self, send: v1::Send) {
        self.write(Asked::Send(send));
    }

    /// Sends, and waits for what becomes of it.
    pub(crate) async fn send(&mut self, send: v1::Send) -> v1::SendResult {
        let client_id = send.client_id.clone();
        self.write_send(send);
        self.sent(&client_id).await
    }

    /// What becomes of a send.
    pub(crate) async fn sent(&mut self, client_id: &str) -> v1::SendResult {
        self.next("a SendResult", |frame| match frame {
            Frame::SendResult(result) if result.client_id == client_id => Some(result.clone()),
            _ => None,
        })
        .await
    }

    /// Says something in a conversation on `web`, of its own accord.
    pub(crate) async fn says(&mut self, conversation: &str, text: &str) -> v1::SendResult {
        self.sends += 1;
        let send = v1::Send {
            client_id: format!("send-{}", self.sends),
            conversation: Some(name("web", conversation)),
            activity: Some(message(text).into()),
            delivery_id: 0,
        };
        self.send(send).await
    }

    /// Answers a delivery without acking it.
    pub(crate) async fn answers(&mut self, delivery: &v1::Delivery, text: &str) -> v1::SendResult {
        self.sends += 1;
        let send = v1::Send {
            client_id: format!("send-{}", self.sends),
            conversation: delivery.conversation.clone(),
            activity: Some(message(text).into()),
            delivery_id: delivery.delivery_id,
        };
        self.send(send).await
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let unasked = self
            .pending
            .iter()
            .find(|frame| matches!(frame, Frame::Error(_)));
        assert!(unasked.is_none(), "left behind: {unasked:?}");
        // What lies read in the stream, and nothing that is still on its way.
        while let Some(Ok(Some(response))) =
            futures_util::FutureExt::now_or_never(self.responses.message())
        {
            if let Some(Frame::Error(error)) = response.frame {
                panic!("left behind: {error:?}");
            }
        }
    }
}

/// The conversation of a delivery.
pub(crate) fn place_of(delivery: &v1::Delivery) -> String {
    let conversation = delivery.conversation.as_ref();
    conversation.map_or_else(String::new, |name| name.conversation_id.clone())
}

/// What a delivery says.
pub(crate) fn said(delivery: &v1::Delivery) -> String {
    super::text(&delivery.activity)
}

/// One AckResult may answer several frames: a frame for each result, so that each is found by what it
/// answers.
fn apart(frame: Frame) -> Vec<Frame> {
    match frame {
        Frame::AckResult(result) => result
            .results
            .into_iter()
            .map(|result| {
                Frame::AckResult(v1::AckResult {
                    results: vec![result],
                })
            })
            .collect(),
        frame => vec![frame],
    }
}
