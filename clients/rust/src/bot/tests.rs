//! What a bot says to a gateway that is played by the test.

use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;

use super::{Bot, BotBuilder, BotFrame, GatewayFrame, Reply, Turn, TurnError};
use crate::Error;
use crate::proto::{
    self, AckOutcome, AckResult, Activity, Appended, BotHeartbeat, Cancel, CancelReason, Commit,
    ConversationName, Delivery, DeliveryResult, Drain, Ephemeral, Hello, Nack, NackMode, Partial,
    Receipt, Resume, Resumed, Retry, SendResult, StateScope, StateWrite, SubscribeResponse,
    Welcome,
};
use crate::stage::{BotLink, Stage};

mod resume;

/// Short, so that heartbeats come within a test.
const HEARTBEAT: Duration = Duration::from_millis(200);

fn wire(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

impl BotLink {
    async fn send(&self, frame: GatewayFrame) {
        self.say(SubscribeResponse { frame: Some(frame) }).await;
    }

    /// Lets a bot in that is not to resume its session.
    async fn welcome(&mut self) -> Hello {
        self.welcomes(Welcome::default()).await
    }

    /// Lets a bot in that may resume its session.
    async fn welcome_resumable(&mut self) -> Hello {
        self.welcomes(resumable()).await
    }

    async fn welcomes(&mut self, welcome: Welcome) -> Hello {
        let hello = match self.heard().await.and_then(|request| request.frame) {
            Some(BotFrame::Hello(hello)) => hello,
            other => panic!("expected a hello, got {other:?}"),
        };
        let welcome = Welcome {
            heartbeat_interval: wire(HEARTBEAT),
            max_ack_ids: 1_000,
            ..welcome
        };
        self.send(GatewayFrame::Welcome(welcome)).await;
        hello
    }

    /// Each in a conversation of its own.
    async fn deliver(&self, delivery_id: u64, text: &str) {
        self.deliver_in(&delivery_id.to_string(), delivery_id, text)
            .await;
    }

    async fn deliver_in(&self, conversation: &str, delivery_id: u64, text: &str) {
        let delivery = Delivery {
            delivery_id,
            sequence: delivery_id,
            conversation: Some(ConversationName::new("dev", conversation)),
            activity: Some(Activity::message(text).into()),
            attempt: 1,
            ..Delivery::default()
        };
        self.send(GatewayFrame::Delivery(delivery)).await;
    }

    async fn refuse(&self, delivery_id: u64, reason: &str, code: Code, retry: Retry) {
        let error = proto::Error {
            reason: reason.to_owned(),
            code: code as i32,
            retry: retry.into(),
            delivery_id,
            ..proto::Error::default()
        };
        self.send(GatewayFrame::Error(error)).await;
    }

    async fn acked(&self, delivery_id: u64, outcome: AckOutcome) {
        let result = DeliveryResult {
            delivery_id,
            outcome: outcome.into(),
            ..DeliveryResult::default()
        };
        let results = vec![result];
        self.send(GatewayFrame::AckResult(AckResult { results }))
            .await;
    }

    /// The next frame that is not a heartbeat; `None` at the end.
    async fn frame(&mut self) -> Option<BotFrame> {
        loop {
            match self.heard().await?.frame {
                Some(BotFrame::Heartbeat(_)) => {}
                frame => return frame,
            }
        }
    }

    async fn commit(&mut self) -> Commit {
        match self.frame().await {
            Some(BotFrame::Commit(commit)) => commit,
            other => panic!("expected a commit, got {other:?}"),
        }
    }

    async fn nack(&mut self) -> Nack {
        match self.frame().await {
            Some(BotFrame::Nack(nack)) => nack,
            other => panic!("expected a nack, got {other:?}"),
        }
    }

    async fn heartbeat(&mut self) -> BotHeartbeat {
        loop {
            match self.heard().await.and_then(|request| request.frame) {
                Some(BotFrame::Heartbeat(heartbeat)) => return heartbeat,
                Some(_) => {}
                None => panic!("the bot has gone"),
            }
        }
    }
}

/// The Welcome of a session that can be resumed.
fn resumable() -> Welcome {
    Welcome {
        session_id: "s1".into(),
        resume_token: "t1".into(),
        resume_grace: wire(Duration::from_secs(5)),
        ..Welcome::default()
    }
}

/// The Welcome of a session that goes on, without these.
fn resumed(lost: &[u64]) -> Welcome {
    let resumed = if lost.is_empty() {
        Resumed::Full
    } else {
        Resumed::Partial
    };
    Welcome {
        resumed: resumed.into(),
        lost_delivery_ids: lost.to_vec(),
        ..resumable()
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    bot: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn ended(self) -> Result<(), Error> {
        self.bot.await.expect("the bot does not panic")
    }
}

fn run<H, F>(stage: &Stage, settings: BotBuilder, handler: H) -> Running
where
    H: Fn(Turn) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reply, TurnError>> + Send + 'static,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let bot = settings.build(&stage.client);
    let bot = tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        bot.run_until(shutdown, handler).await
    });
    Running { stop, bot }
}

/// Does what it is told.
async fn handler(turn: Turn) -> Result<Reply, TurnError> {
    match turn.text() {
        "fail" => Err(TurnError::retry("told to")),
        "fail later" => {
            tokio::time::sleep(2 * HEARTBEAT).await;
            Err(TurnError::retry("told to"))
        }
        "poison" => Err(TurnError::poison("told to")),
        "panic" => panic!("told to"),
        "hang" => std::future::pending().await,
        "wait" => {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok("waited".into())
        }
        "early" => {
            let sent = turn.send("first", Activity::message("early")).await?;
            Ok(format!("after {}", sent.sequence).into())
        }
        "state" => Ok(Reply::from("kept").with_state(kept())),
        text => Ok(format!("echo: {text}").into()),
    }
}

/// What is written with the answer to `state`.
fn kept() -> StateWrite {
    StateWrite::put(StateScope::bot(), "n", prost_types::Struct::default()).if_match("e1")
}

#[tokio::test]
async fn an_answer_and_its_acknowledgement_are_one_commit() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(7, "hi").await;
    let commit = link.commit().await;
    assert_eq!(commit.delivery_id, 7);
    assert_eq!(commit.activities, [Activity::message("echo: hi")]);
}

#[tokio::test]
async fn a_failed_turn_is_given_back_and_so_is_a_panic() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    for (id, text, mode, reason) in [
        (1, "fail", NackMode::Retry, ""),
        (2, "panic", NackMode::Retry, ""),
        (3, "poison", NackMode::Poison, "told to"),
    ] {
        link.deliver(id, text).await;
        let nack = link.nack().await;
        assert_eq!(nack.delivery_ids, [id], "{text}");
        assert_eq!(nack.mode(), mode, "{text}");
        assert_eq!(nack.reason, reason, "{text}");
    }
}

#[tokio::test]
async fn heartbeats_name_what_runs_and_what_waits_to_run() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b").concurrency(1), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "hang").await;
    link.deliver(2, "hang").await;
    assert_eq!(link.heartbeat().await.delivery_ids, [1, 2]);
}

#[tokio::test]
async fn credit_comes_back_by_the_eighth() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b").credit(16, 1 << 20), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    for id in [1, 2] {
        link.deliver(id, "hi").await;
        link.commit().await;
        link.acked(id, AckOutcome::Ok).await;
    }
    let granted = link.frame().await;
    assert!(matches!(granted, Some(BotFrame::Credit(credit)) if credit.deliveries == 2));
}

#[tokio::test]
async fn a_lost_session_is_opened_again() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "hang").await;
    link.end(Code::Unavailable, "SHUTTING_DOWN").await;
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(2, "again").await;
    assert_eq!(link.commit().await.delivery_id, 2);
}

#[tokio::test]
async fn a_replaced_session_is_not_opened_again() {
    let mut stage = Stage::new().await;
    let running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.end(Code::Aborted, "SESSION_REPLACED").await;
    let ended = running.ended().await;
    assert!(matches!(ended, Err(error) if error.reason() == Some("SESSION_REPLACED")));
}

#[tokio::test]
async fn a_bot_that_stops_finishes_what_runs_and_releases_the_rest() {
    let mut stage = Stage::new().await;
    let running = run(&stage, Bot::builder("b").concurrency(1), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "wait").await;
    link.deliver(2, "hi").await;
    // Both are with the bot when a heartbeat names them.
    while link.heartbeat().await.delivery_ids.len() < 2 {}
    let _ = running.stop.send(());
    assert!(matches!(link.frame().await, Some(BotFrame::Drain(_))));
    let nack = link.nack().await;
    assert_eq!(
        (nack.mode(), nack.delivery_ids),
        (NackMode::Release, vec![2])
    );
    link.acked(2, AckOutcome::Ok).await;
    // What was on its way goes back as well.
    link.deliver(3, "hi").await;
    let nack = link.nack().await;
    assert_eq!(nack.delivery_ids, [3]);
    link.acked(3, AckOutcome::Ok).await;
    assert_eq!(
        link.commit().await.activities,
        [Activity::message("waited")]
    );
    link.acked(1, AckOutcome::Ok).await;
    // The bot leaves it to the gateway to end the stream.
    link.heartbeat().await;
    drop(link);
    let ended = running.bot.await;
    assert!(matches!(ended, Ok(Ok(()))));
}

#[tokio::test]
async fn a_bot_that_stops_and_is_lost_has_stopped() {
    let mut stage = Stage::new().await;
    let running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome_resumable().await;
    link.deliver(1, "hang").await;
    link.heartbeat().await;
    let Running { stop, bot } = running;
    let _ = stop.send(());
    assert!(matches!(link.frame().await, Some(BotFrame::Drain(_))));
    link.end(Code::Unavailable, "SHUTTING_DOWN").await;
    assert!(matches!(bot.await, Ok(Ok(()))));
}

#[tokio::test]
async fn a_draining_gateway_gets_its_answers_and_the_bot_comes_back() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "wait").await;
    let drain = Drain {
        reconnect_after: wire(Duration::from_millis(10)),
        grace: wire(Duration::from_secs(5)),
    };
    link.send(GatewayFrame::Drain(drain)).await;
    assert_eq!(link.commit().await.delivery_id, 1);
    link.acked(1, AckOutcome::Ok).await;
    assert!(link.frame().await.is_none());
    drop(link);
    stage.bot().await.welcome().await;
}

#[tokio::test]
async fn a_send_before_the_turn_is_over_gets_its_own_result() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "early").await;
    let Some(BotFrame::Send(send)) = link.frame().await else {
        panic!("expected a send");
    };
    assert_eq!((send.client_id.as_str(), send.delivery_id), ("first", 1));
    let result = SendResult {
        client_id: send.client_id,
        outcome: AckOutcome::Ok.into(),
        appended: Some(Appended {
            sequence: 12,
            ..Appended::default()
        }),
        repeated_send: false,
        frame: 0,
    };
    link.send(GatewayFrame::SendResult(result)).await;
    assert_eq!(
        link.commit().await.activities,
        [Activity::message("after 12")]
    );
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_let_go() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "hi").await;
    link.commit().await;
    link.acked(1, AckOutcome::Stale).await;
    // The first may have been on its way.
    link.heartbeat().await;
    assert_eq!(link.heartbeat().await.delivery_ids, [0; 0]);
}

#[tokio::test]
async fn a_turn_whose_state_was_stale_is_begun_anew_and_keeps_its_delivery() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "state").await;
    for (reason, retry) in [("STATE_STALE", Retry::Never), ("STATE_BUSY", Retry::Later)] {
        let commit = link.commit().await;
        assert_eq!((commit.delivery_id, commit.state_writes), (1, vec![kept()]));
        link.refuse(1, reason, Code::Aborted, retry).await;
    }
    let commit = link.commit().await;
    assert_eq!(commit.activities, [Activity::message("kept")]);
    link.acked(1, AckOutcome::Ok).await;
    link.heartbeat().await;
    assert_eq!(link.heartbeat().await.delivery_ids, [0; 0]);
}

#[tokio::test]
async fn a_turn_that_meets_other_writes_again_and_again_is_given_back_for_another_attempt() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "state").await;
    let mut commits = 0;
    let nack = loop {
        match link.frame().await {
            Some(BotFrame::Commit(_)) => commits += 1,
            Some(BotFrame::Nack(nack)) => break nack,
            other => panic!("expected a commit or a nack, got {other:?}"),
        }
        link.refuse(1, "STATE_STALE", Code::Aborted, Retry::Never)
            .await;
    };
    assert_eq!((commits, nack.mode()), (16, NackMode::Retry));
    assert_eq!(nack.delivery_ids, [1]);
}

#[tokio::test]
async fn a_commit_that_is_refused_for_good_is_parked_with_its_state() {
    let mut stage = Stage::new().await;
    let _running = run(&stage, Bot::builder("b"), handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "state").await;
    link.commit().await;
    let code = Code::InvalidArgument;
    link.refuse(1, "STATE_TOO_LARGE", code, Retry::Never).await;
    assert_eq!(link.nack().await.mode(), NackMode::Poison);
}

#[tokio::test]
async fn pieces_of_a_reply_go_before_its_answer() {
    let mut stage = Stage::new().await;
    let streams = |turn: Turn| async move {
        turn.typing();
        let mut reply = turn.stream();
        reply.push("Hel");
        reply.push("lo");
        Ok(reply.into())
    };
    let _running = run(&stage, Bot::builder("b"), streams);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "hi").await;
    let typing = link.frame().await;
    assert!(matches!(typing, Some(BotFrame::Ephemeral(_))), "{typing:?}");
    for piece in ["Hel", "lo"] {
        let partial = Partial {
            delivery_id: 1,
            stream: 0,
            content: Some(crate::proto::partial::Content::Append(piece.into())),
        };
        assert_eq!(link.frame().await, Some(BotFrame::Partial(partial)));
    }
    assert_eq!(link.commit().await.activities, [Activity::message("Hello")]);
}

#[tokio::test]
async fn a_reply_that_is_stopped_hears_of_it() {
    let mut stage = Stage::new().await;
    let streams = |turn: Turn| async move {
        let mut reply = turn.stream();
        reply.push("On");
        let why = reply.cancelled().await;
        reply.push(&format!(" {why:?}"));
        Ok(reply.into())
    };
    let _running = run(&stage, Bot::builder("b"), streams);
    let mut link = stage.bot().await;
    link.welcome().await;
    link.deliver(1, "hi").await;
    assert!(matches!(link.frame().await, Some(BotFrame::Partial(_))));
    let cancel = Cancel {
        delivery_id: 1,
        stream: 0,
        reason: CancelReason::UserStopped.into(),
    };
    link.send(GatewayFrame::Cancel(cancel)).await;
    assert!(matches!(link.frame().await, Some(BotFrame::Partial(_))));
    let answer = link.commit().await.activities;
    assert_eq!(answer, [Activity::message("On UserStopped")]);
}

#[tokio::test]
async fn who_asks_is_told_what_is_ephemeral() {
    let mut stage = Stage::new().await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let settings = Bot::builder("b").on_ephemeral(move |shown| {
        let _ = told.send(shown);
    });
    let _running = run(&stage, settings, handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    let typing = Ephemeral {
        activity: Some(Activity::of_type("typing").into()),
        ..Ephemeral::default()
    };
    link.send(GatewayFrame::Ephemeral(typing.clone())).await;
    assert_eq!(heard.recv().await, Some(typing));
}

#[tokio::test]
async fn a_bot_that_wants_receipts_is_handed_each() {
    let mut stage = Stage::new().await;
    let (told, mut receipts) = tokio::sync::mpsc::unbounded_channel();
    let settings = Bot::builder("b").on_receipt(move |receipt| {
        let _ = told.send(receipt);
    });
    let _running = run(&stage, settings, handler);
    let mut link = stage.bot().await;
    link.welcome().await;
    for sequence in 1..=2 {
        let receipt = Receipt {
            sequence,
            ..Receipt::default()
        };
        link.send(GatewayFrame::Receipt(receipt)).await;
    }
    let told = [receipts.recv().await, receipts.recv().await];
    let sequences = told.map(|receipt| receipt.expect("a receipt").sequence);
    assert_eq!(sequences, [1, 2]);
}
