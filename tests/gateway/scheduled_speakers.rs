//! For whom a send happens when the bots of its conversation change: before its time, and before it is
//! repeated.

use tonic::{Code, Status};
use turnwire::proto::v1;
use turnwire::proto::v1::ScheduleEnd;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Gateway, message, name, refused, seconds, within};

const HOUR: std::time::Duration = seconds(3_600);

/// A send to `c1` for a bot, in an hour.
fn later(gateway: &Gateway, bot: &str, said: &str) -> v1::SendActivityRequest {
    use turnwire::clock::Clock;
    let due = gateway.clock.now().after(HOUR);
    v1::SendActivityRequest {
        deliver_at: Some(prost_types::Timestamp {
            seconds: (due.0 / 1_000) as i64,
            nanos: (due.0 % 1_000) as i32 * 1_000_000,
        }),
        ..now(bot, said)
    }
}

fn now(bot: &str, said: &str) -> v1::SendActivityRequest {
    v1::SendActivityRequest {
        target: Some(Target::Conversation(name("web", "c1"))),
        bot_id: bot.to_owned(),
        activity: Some(message(said).into()),
        ..Default::default()
    }
}

async fn send(
    gateway: &Gateway,
    request: v1::SendActivityRequest,
) -> Result<v1::SendActivityResponse, Status> {
    let mut client = gateway.wire().conversations();
    let sent = within("a send", client.send_activity(request)).await?;
    Ok(sent.into_inner())
}

async fn schedule(gateway: &Gateway, request: v1::SendActivityRequest) -> String {
    let sent = send(gateway, request).await.expect("it is kept");
    assert!(sent.appended.is_none());
    sent.schedule_id
}

/// What became of a scheduled send.
async fn end(gateway: &Gateway, id: &str) -> Result<ScheduleEnd, Status> {
    let request = v1::CancelScheduledActivityRequest {
        conversation: Some(name("web", "c1")),
        schedule_id: id.to_owned(),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let ended = within("a cancel", client.cancel_scheduled_activity(request)).await?;
    Ok(ended.into_inner().end())
}

/// What was said in `c1`.
async fn said(gateway: &Gateway) -> Vec<String> {
    let log = gateway.log_on("web", "c1").await;
    let said = log.into_iter().filter_map(|entry| entry.activity);
    // Who joined and who left has no text.
    said.filter_map(|said| said.text).collect()
}

#[tokio::test]
async fn what_is_scheduled_for_a_bot_that_has_left_by_then_is_refused_and_goes_to_no_other() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    let of_echo = schedule(&gateway, later(&gateway, "echo", "from echo")).await;
    let of_other = schedule(&gateway, later(&gateway, "other", "from other")).await;
    gateway.hands_over("c1", "echo", "other").await;
    gateway.pass(HOUR).await;
    assert_eq!(said(&gateway).await, ["hi", "from other"]);
    assert_eq!(
        end(&gateway, &of_echo).await.ok(),
        Some(ScheduleEnd::Refused)
    );
    let too_late = end(&gateway, &of_other).await;
    refused(too_late, Code::FailedPrecondition, "SCHEDULE_SENT");

    let of_other = schedule(&gateway, later(&gateway, "other", "once more")).await;
    gateway.removes("c1", "other").await;
    gateway.pass(HOUR).await;
    assert_eq!(said(&gateway).await, ["hi", "from other"]);
    assert_eq!(
        end(&gateway, &of_other).await.ok(),
        Some(ScheduleEnd::Refused)
    );
    let counted = gateway.metric("turnwire_scheduled_sends_total{outcome=\"refused\"}");
    assert_eq!(counted.await, 2.0);
}

#[tokio::test]
async fn what_is_scheduled_for_a_bot_that_is_back_by_then_is_sent() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    schedule(&gateway, later(&gateway, "echo", "from echo")).await;
    gateway.hands_over("c1", "echo", "other").await;
    let absent = send(&gateway, later(&gateway, "echo", "too late")).await;
    refused(absent, Code::FailedPrecondition, "BOT_ABSENT");
    gateway.hands_over("c1", "other", "echo").await;
    gateway.pass(HOUR).await;
    assert_eq!(said(&gateway).await, ["hi", "from echo"]);
}

#[tokio::test]
async fn a_repeat_is_found_after_its_bot_has_left() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let conversation = gateway.conversation("c1").await;
    let reference = conversation.reference.expect("a reference");
    let user = reference.user.and_then(|user| user.id).expect("its user");
    let user = Target::User(v1::UserTarget {
        channel_id: "web".to_owned(),
        user_id: user,
    });
    let keyed = |key: &str, request| v1::SendActivityRequest {
        request_id: key.to_owned(),
        ..request
    };
    let waits = keyed("k1", later(&gateway, "echo", "later"));
    let to_user = v1::SendActivityRequest {
        target: Some(user.clone()),
        ..keyed("k2", now("echo", "now"))
    };
    let first = [
        send(&gateway, waits.clone()).await.expect("kept"),
        send(&gateway, to_user.clone()).await.expect("sent"),
    ];
    gateway.hands_over("c1", "echo", "other").await;
    let again = [
        send(&gateway, waits).await.expect("the same"),
        send(&gateway, to_user).await.expect("the same"),
    ];
    for (first, again) in first.into_iter().zip(again) {
        let repeated = v1::SendActivityResponse {
            repeated_send: true,
            ..first
        };
        assert_eq!(again, repeated);
    }
    // What is no repeat is for a bot that takes part.
    let other_key = v1::SendActivityRequest {
        target: Some(user),
        ..keyed("k3", now("echo", "now"))
    };
    let unreachable = send(&gateway, other_key).await;
    refused(unreachable, Code::NotFound, "USER_UNREACHABLE");
    let absent = send(&gateway, now("echo", "now")).await;
    refused(absent, Code::FailedPrecondition, "BOT_ABSENT");
}

#[tokio::test]
async fn of_several_bots_the_one_of_the_reference_speaks_and_of_none_nobody() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    let ambiguous = send(&gateway, later(&gateway, "", "who?")).await;
    refused(ambiguous, Code::FailedPrecondition, "BOT_AMBIGUOUS");
    let mut reference = gateway.conversation("c1").await.reference.expect("one");
    reference.bot = Some(v1::ChannelAccount {
        id: Some("other".to_owned()),
        ..Default::default()
    });
    let referred = v1::SendActivityRequest {
        target: Some(Target::Reference(reference)),
        ..later(&gateway, "", "from other")
    };
    schedule(&gateway, referred.clone()).await;
    gateway.removes("c1", "echo").await;
    gateway.pass(HOUR).await;
    assert_eq!(said(&gateway).await, ["hi", "from other"]);

    gateway.removes("c1", "other").await;
    let nobody = send(&gateway, referred).await;
    refused(nobody, Code::FailedPrecondition, "BOT_ABSENT");
}
