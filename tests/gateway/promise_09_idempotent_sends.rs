//! Promise 9: a send with a key happens once, and repeating it returns the first result.

use tonic::{Code, Status};
use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Gateway, message, name, refused, seconds, within};

const HOUR: u64 = 3_600;

fn send(client_id: &str, conversation: &str, text: &str) -> v1::Send {
    v1::Send {
        client_id: client_id.to_owned(),
        conversation: Some(name("web", conversation)),
        activity: Some(message(text).into()),
        delivery_id: 0,
    }
}

async fn send_unary(
    gateway: &Gateway,
    request_id: &str,
    conversation: &str,
    text: &str,
) -> Result<v1::SendActivityResponse, Status> {
    let request = v1::SendActivityRequest {
        request_id: request_id.to_owned(),
        target: Some(Target::Conversation(name("web", conversation))),
        bot_id: String::new(),
        activity: Some(message(text).into()),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let sent = within("a send", client.send_activity(request)).await?;
    Ok(sent.into_inner())
}

fn inbound(id: &str, text: &str) -> v1::Activity {
    v1::Activity {
        id: Some(id.to_owned()),
        ..message(text)
    }
}

#[tokio::test]
async fn a_repeated_send_returns_the_first_result_and_appends_nothing() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").says("hi").await;
    let first = bot.send(send("k", "c1", "hello")).await;
    assert_eq!(
        (first.outcome(), first.repeated_send),
        (AckOutcome::Ok, false)
    );
    for _ in 0..3 {
        let again = bot.send(send("k", "c1", "hello")).await;
        assert_eq!(
            (again.outcome(), again.repeated_send),
            (AckOutcome::Ok, true)
        );
        assert_eq!(again.appended, first.appended);
    }
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_activity_is_refused() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").says("hi").await;
    bot.send(send("k", "c1", "hello")).await;
    bot.write_send(send("k", "c1", "something else"));
    let error = bot.expect_error("IDEMPOTENCY_MISMATCH").await;
    assert_eq!(
        (error.client_id.as_str(), error.code),
        ("k", Code::FailedPrecondition as i32)
    );
    let unary = send_unary(&gateway, "k", "c1", "something else").await;
    refused(unary, Code::FailedPrecondition, "IDEMPOTENCY_MISMATCH");
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn a_key_is_of_one_bot_and_one_conversation() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    for conversation in ["c1", "c2"] {
        gateway.user(conversation).says("hi").await;
        let sent = bot.send(send("k", conversation, conversation)).await;
        assert!(!sent.repeated_send);
    }
    assert_eq!(gateway.texts("c1").await, ["hi", "c1"]);
    assert_eq!(gateway.texts("c2").await, ["hi", "c2"]);
}

#[tokio::test]
async fn without_a_key_a_repeat_is_a_second_activity() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    for _ in 0..2 {
        let sent = send_unary(&gateway, "", "c1", "hello")
            .await
            .expect("it is taken");
        assert!(!sent.repeated_send);
    }
    assert_eq!(gateway.texts("c1").await, ["hi", "hello", "hello"]);
}

#[tokio::test]
async fn the_stream_and_the_unary_call_share_their_keys() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").says("hi").await;
    let first = bot.send(send("a", "c1", "from the stream")).await;
    let again = send_unary(&gateway, "a", "c1", "from the stream")
        .await
        .expect("it is taken");
    assert!(again.repeated_send);
    assert_eq!(again.appended, first.appended);
    let first = send_unary(&gateway, "b", "c1", "from the call")
        .await
        .expect("it is taken");
    let again = bot.send(send("b", "c1", "from the call")).await;
    assert!(again.repeated_send);
    assert_eq!(again.appended, first.appended);
    assert_eq!(gateway.log("c1").await.len(), 3);
}

#[tokio::test]
async fn concurrent_duplicates_append_once() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").says("hi").await;
    for _ in 0..20 {
        bot.write_send(send("k", "c1", "once"));
    }
    let calls = (0..20).map(|_| send_unary(&gateway, "k", "c1", "once"));
    let results = futures_util::future::join_all(calls).await;
    let mut first = Vec::new();
    for result in results {
        let result = result.expect("it is taken");
        assert_eq!(result.appended.as_ref().map(|a| a.sequence), Some(2));
        first.extend((!result.repeated_send).then_some(()));
    }
    for _ in 0..20 {
        let result = bot.sent("k").await;
        assert_eq!(result.appended.as_ref().map(|a| a.sequence), Some(2));
        first.extend((!result.repeated_send).then_some(()));
    }
    assert_eq!(first.len(), 1, "one of them was the first");
    assert_eq!(gateway.texts("c1").await, ["hi", "once"]);
}

#[tokio::test]
async fn keys_survive_restarts_and_crashes() {
    for on_disk in [false, true] {
        let setup = Gateway::setup();
        let setup = if on_disk { setup.on_disk() } else { setup };
        let mut gateway = setup.start().await;
        gateway.user("c1").posts(inbound("in", "hi")).await;
        let first = send_unary(&gateway, "k", "c1", "hello")
            .await
            .expect("it is taken");
        for crash in [true, false] {
            if crash {
                gateway.crash().await;
            } else {
                gateway.restart().await;
            }
            let again = send_unary(&gateway, "k", "c1", "hello")
                .await
                .expect("it is taken");
            assert!(again.repeated_send);
            assert_eq!(again.appended, first.appended);
            let other = send_unary(&gateway, "k", "c1", "other").await;
            refused(other, Code::FailedPrecondition, "IDEMPOTENCY_MISMATCH");
            let post = gateway
                .user("c1")
                .tries(inbound("in", "hi"))
                .await
                .expect("it is taken");
            assert!(post.repeated_post);
            let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
            assert!(bot.send(send("k", "c1", "hello")).await.repeated_send);
        }
        assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
    }
}

#[tokio::test]
async fn keys_are_kept_for_a_day_and_not_for_ever() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    send_unary(&gateway, "k", "c1", "hello")
        .await
        .expect("it is taken");
    gateway.pass(seconds(24 * HOUR - 1)).await;
    let again = send_unary(&gateway, "k", "c1", "hello")
        .await
        .expect("it is taken");
    assert!(again.repeated_send);
    gateway.pass(seconds(24 * HOUR + 1)).await;
    let later = send_unary(&gateway, "k", "c1", "something else")
        .await
        .expect("it is taken");
    assert!(!later.repeated_send);
    assert_eq!(gateway.texts("c1").await, ["hi", "hello", "something else"]);
}

#[tokio::test]
async fn keys_that_are_not_kept_any_more_leave_the_store() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    gateway.pass_slowly(15).await;
    let before = gateway.memory().len();
    for number in 0..100 {
        let key = format!("k{number}");
        send_unary(&gateway, &key, "c1", "hello")
            .await
            .expect("it is taken");
    }
    gateway.pass(seconds(48 * HOUR)).await;
    gateway.pass_slowly(3).await;
    // The activities stay, and perhaps a note of the hour.
    let grown = gateway.memory().len() - before;
    assert!((100..=103).contains(&grown), "{grown}");
}

#[tokio::test]
async fn an_inbound_activity_is_taken_once_by_its_id() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let user = gateway.user("c1");
    let first = user.posts(inbound("a1", "hi")).await;
    let again = user.tries(inbound("a1", "hi")).await.expect("it is taken");
    assert!(again.repeated_post);
    assert_eq!(again.appended, Some(first));
    let other = user.tries(inbound("a1", "something else")).await;
    refused(other, Code::FailedPrecondition, "IDEMPOTENCY_MISMATCH");
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.acks(&delivery).await;
    bot.expect_nothing().await;
    // The same id elsewhere is another activity.
    assert!(
        !gateway
            .user("c2")
            .tries(inbound("a1", "hi"))
            .await
            .expect("taken")
            .repeated_post
    );
    assert_eq!(gateway.log("c1").await.len(), 1);
}

#[tokio::test]
async fn an_inbound_activity_without_an_id_is_taken_each_time() {
    let gateway = Gateway::start().await;
    let (first, second) = (
        gateway.user("c1").says("hi").await,
        gateway.user("c1").says("hi").await,
    );
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_ne!(first.activity_id, second.activity_id);
}

#[tokio::test]
async fn an_adapters_stream_and_the_unary_post_share_their_ids() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("web").attach().await;
    let user = gateway.user("c1");
    let first = user.posts(inbound("a1", "hi")).await;
    let again = adapter
        .posts("p1", user.activity(inbound("a1", "hi")))
        .await;
    assert!(again.repeated_post);
    assert_eq!(again.appended, Some(first));
}

#[tokio::test]
async fn concurrent_posts_of_one_activity_append_once() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1");
    let posts = (0..30).map(|_| user.tries(inbound("a1", "hi")));
    let results = futures_util::future::join_all(posts).await;
    let fresh = results
        .into_iter()
        .filter(|r| !r.as_ref().expect("taken").repeated_post);
    assert_eq!(fresh.count(), 1);
    assert_eq!(gateway.log("c1").await.len(), 1);
}

#[tokio::test]
async fn users_and_a_bot_do_not_share_keys_whatever_the_bot_is_called() {
    let setup = Gateway::setup().and(
        "[[bots]]\nid = \"channel\"\n[[channels]]\nid = \"odd\"\nkind = \"grpc\"\nbot = \"channel\"\noutbound = \"watch\"",
    );
    let gateway = setup.start().await;
    gateway.user("c1").on("odd").posts(inbound("k", "hi")).await;
    let mut bot = gateway.bot("channel").credit(0, 0).attach().await;
    let sent = bot
        .send(v1::Send {
            conversation: Some(name("odd", "c1")),
            ..send("k", "c1", "hello")
        })
        .await;
    assert!(!sent.repeated_send);
    assert_eq!(gateway.log_on("odd", "c1").await.len(), 2);
}

#[tokio::test]
async fn a_send_of_which_only_the_answer_was_lost_is_answered_after_its_delivery_is_gone() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let cited = v1::Send {
        delivery_id: delivery.delivery_id,
        ..send("k", "c1", "hello")
    };
    let first = bot.send(cited.clone()).await;
    bot.acks(&delivery).await;
    let again = bot.send(cited).await;
    assert_eq!(
        (again.outcome(), again.repeated_send),
        (AckOutcome::Ok, true)
    );
    assert_eq!(again.appended, first.appended);
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn a_send_over_the_stream_needs_a_key_of_at_most_256_bytes() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    gateway.user("c1").says("hi").await;
    for key in ["", &"k".repeat(257)] {
        bot.write_send(send(key, "c1", "hello"));
        let error = bot.expect_error("FRAME_INVALID").await;
        assert_eq!(error.metadata["field"], "client_id");
    }
    let long = send_unary(&gateway, &"k".repeat(257), "c1", "hello").await;
    refused(long, Code::InvalidArgument, "REQUEST_INVALID");
    // Any text will do, NUL included.
    for key in ["k".repeat(256), "a\0b".to_owned(), "é\n".to_owned()] {
        assert!(!bot.send(send(&key, "c1", "hello")).await.repeated_send);
        assert!(bot.send(send(&key, "c1", "hello")).await.repeated_send);
    }
}
