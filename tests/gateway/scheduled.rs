//! Sends that wait for their time: they happen once, in order of time and not too late, whatever happens
//! to gateway, store and clock; and they can be taken back until then.

use std::time::Duration;

use tonic::{Code, Status};
use turnwire::auth::secret::Digest;
use turnwire::clock::{Clock, Timestamp};
use turnwire::proto::v1;
use turnwire::proto::v1::ScheduleEnd;
use turnwire::proto::v1::send_activity_request::Target;
use turnwire::store::{Durability, Table, memory::Verdict};

use crate::harness::{Gateway, Logs, Wire, message, name, padded, refused, seconds, text, within};

const MINUTE: Duration = seconds(60);
const HOUR: Duration = seconds(3_600);
const DAY: Duration = seconds(24 * 3_600);

/// A point in time of the test's clock.
fn after(gateway: &Gateway, time: Duration) -> Option<prost_types::Timestamp> {
    at(gateway.clock.now().after(time))
}

fn at(time: Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: (time.0 / 1_000) as i64,
        nanos: (time.0 % 1_000) as i32 * 1_000_000,
    })
}

/// A send to `c1` on `web`.
fn saying(said: &str) -> v1::SendActivityRequest {
    v1::SendActivityRequest {
        target: Some(Target::Conversation(name("web", "c1"))),
        activity: Some(message(said).into()),
        ..Default::default()
    }
}

/// The same, at its time.
fn later(gateway: &Gateway, said: &str, time: Duration) -> v1::SendActivityRequest {
    v1::SendActivityRequest {
        deliver_at: after(gateway, time),
        ..saying(said)
    }
}

async fn send(
    wire: &Wire,
    request: v1::SendActivityRequest,
) -> Result<v1::SendActivityResponse, Status> {
    let sent = within("a send", wire.conversations().send_activity(request)).await?;
    Ok(sent.into_inner())
}

/// Schedules something, and returns its id.
async fn schedule(gateway: &Gateway, request: v1::SendActivityRequest) -> String {
    let sent = send(&gateway.wire(), request).await.expect("it is kept");
    assert_eq!(sent.appended, None, "it was to wait");
    assert!(!sent.schedule_id.is_empty() && !sent.repeated_send);
    sent.schedule_id
}

async fn try_cancel(
    wire: &Wire,
    id: &str,
    bot: &str,
) -> Result<v1::CancelScheduledActivityResponse, Status> {
    let request = v1::CancelScheduledActivityRequest {
        conversation: Some(name("web", "c1")),
        schedule_id: id.to_owned(),
        bot_id: bot.to_owned(),
    };
    let mut client = wire.conversations();
    let cancelled = within("a cancel", client.cancel_scheduled_activity(request)).await?;
    Ok(cancelled.into_inner())
}

async fn cancel(gateway: &Gateway, id: &str) -> Result<(ScheduleEnd, bool), Status> {
    let cancelled = try_cancel(&gateway.wire(), id, "").await?;
    Ok((cancelled.end(), cancelled.repeated_cancel))
}

async fn page(
    wire: &Wire,
    page_size: i32,
    page_token: &str,
) -> Result<v1::ListScheduledActivitiesResponse, Status> {
    let request = v1::ListScheduledActivitiesRequest {
        conversation: Some(name("web", "c1")),
        page_size,
        page_token: page_token.to_owned(),
    };
    let mut client = wire.conversations();
    let page = within("a page", client.list_scheduled_activities(request)).await?;
    Ok(page.into_inner())
}

/// What waits in `c1`.
async fn waiting(gateway: &Gateway) -> Vec<String> {
    let page = page(&gateway.wire(), 0, "").await.expect("a page");
    assert!(page.next_page_token.is_empty());
    texts_of(&page.scheduled)
}

fn texts_of(scheduled: &[v1::ScheduledActivity]) -> Vec<String> {
    scheduled.iter().map(|one| text(&one.activity)).collect()
}

async fn outcomes(gateway: &Gateway) -> [f64; 5] {
    let mut counts = [0.0; 5];
    let names = ["scheduled", "sent", "cancelled", "expired", "refused"];
    for (count, outcome) in counts.iter_mut().zip(names) {
        let series = format!("turnwire_scheduled_sends_total{{outcome=\"{outcome}\"}}");
        *count = gateway.metric(&series).await;
    }
    counts
}

/// Whether anything of scheduled sends is left in the store.
fn is_nothing_left(gateway: &Gateway) -> bool {
    use turnwire::store::{KeyRange, Order, Store};
    [Table::Scheduled, Table::ScheduledDue].iter().all(|table| {
        let mut found = 0;
        let range = KeyRange::table(*table);
        let scanned = gateway
            .memory()
            .scan(&range, Order::Ascending, &mut |_, _| {
                found += 1;
                std::ops::ControlFlow::Continue(())
            });
        scanned.expect("a readable store");
        found == 0
    })
}

#[tokio::test]
async fn a_send_happens_at_its_time_and_not_before() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let mut watcher = gateway.watch("c1", 1).await;
    let time = HOUR + Duration::from_millis(250);
    schedule(&gateway, later(&gateway, "an hour later", time)).await;
    assert_eq!(waiting(&gateway).await, ["an hour later"]);
    gateway.pass(time - Duration::from_millis(1)).await;
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    // To the millisecond, and woken by nothing else: there is no tick then, and nobody asks.
    gateway.clock.advance(Duration::from_millis(1));
    watcher.expect(2, "an hour later").await;
    gateway.settle().await;
    assert!(waiting(&gateway).await.is_empty() && is_nothing_left(&gateway));
    assert_eq!(outcomes(&gateway).await, [1.0, 1.0, 0.0, 0.0, 0.0]);

    let log = gateway.log("c1").await;
    assert_eq!(log[1].author(), v1::Author::Backend);
    assert_eq!(log[1].bot_id, "echo");
    let said = log[1].activity.as_ref().expect("an activity");
    let recipient = said.recipient.as_ref().and_then(|it| it.id.as_deref());
    assert_eq!(recipient, Some("ann"));
    assert_eq!(log[1].append_time, after(&gateway, Duration::ZERO));

    // The same for what was not there yet at the last tick.
    let soon = Duration::from_millis(30);
    schedule(&gateway, later(&gateway, "soon", soon)).await;
    gateway.clock.advance(soon);
    watcher.expect(3, "soon").await;
}

#[tokio::test]
async fn a_time_that_has_come_is_now() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let long_ago = Some(prost_types::Timestamp {
        seconds: -1,
        nanos: 0,
    });
    for (index, deliver_at) in [after(&gateway, Duration::ZERO), at(Timestamp(1)), long_ago]
        .into_iter()
        .enumerate()
    {
        let request = v1::SendActivityRequest {
            deliver_at,
            expire_at: after(&gateway, MINUTE),
            ..saying("now")
        };
        let sent = send(&gateway.wire(), request).await.expect("it is taken");
        assert!(sent.schedule_id.is_empty());
        let appended = sent.appended.expect("where");
        assert_eq!(appended.sequence, 2 + index as u64);
    }
    assert!(is_nothing_left(&gateway));
}

#[tokio::test]
async fn sends_happen_in_order_of_time_and_of_those_at_one_time_as_they_were_asked_for() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    for (said, time) in [("4", 30), ("1", 10), ("2", 10), ("5", 40), ("3", 20)] {
        schedule(&gateway, later(&gateway, said, seconds(time))).await;
    }
    assert_eq!(waiting(&gateway).await, ["1", "2", "3", "4", "5"]);
    gateway.pass(seconds(35)).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "1", "2", "3", "4"]);
    gateway.pass(seconds(5)).await;
    assert_eq!(
        gateway.texts("c1").await.last().map(String::as_str),
        Some("5")
    );
}

#[tokio::test]
async fn many_that_are_due_at_once_all_happen_in_order() {
    let gateway = Gateway::setup()
        .config(|config| config.limits.scheduled_sends = 1_000)
        .start()
        .await;
    // More than one round sends, here and elsewhere.
    let conversations = ["c1", "c2", "c3"];
    for conversation in conversations {
        gateway.user(conversation).says("hi").await;
    }
    for number in 0..150 {
        for conversation in conversations {
            let request = v1::SendActivityRequest {
                target: Some(Target::Conversation(name("web", conversation))),
                ..later(&gateway, &number.to_string(), HOUR)
            };
            schedule(&gateway, request).await;
        }
    }
    gateway.pass(HOUR).await;
    let expected: Vec<_> = (0..150).map(|number| number.to_string()).collect();
    for conversation in conversations {
        let mut watcher = gateway.watch(conversation, 1).await;
        for (index, said) in expected.iter().enumerate() {
            watcher.expect(2 + index as u64, said).await;
        }
    }
    gateway.settle().await;
    assert!(is_nothing_left(&gateway));
}

#[tokio::test]
async fn what_waits_survives_restarts_and_crashes_and_happens_once() {
    let mut gateway = Gateway::setup().on_disk().start().await;
    gateway.user("c1").says("hi").await;
    schedule(&gateway, later(&gateway, "one", HOUR)).await;
    gateway.crash().await;
    schedule(&gateway, later(&gateway, "two", 2 * HOUR)).await;
    gateway.restart().await;
    assert_eq!(waiting(&gateway).await, ["one", "two"]);
    gateway.pass(HOUR).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "one"]);
    gateway.crash().await;
    gateway.pass(MINUTE).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "one"]);
    // What falls due while there is no gateway happens when there is one again.
    gateway.kill().await;
    gateway.clock.advance(DAY);
    gateway.start_again().await;
    gateway.settle().await;
    assert_eq!(gateway.texts("c1").await, ["hi", "one", "two"]);
    gateway.restart().await;
    gateway.pass(DAY).await;
    assert_eq!(gateway.texts("c1").await.len(), 3);
    assert!(waiting(&gateway).await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_in_time_is_dropped_and_logged_without_its_text() {
    let logs = Logs::default();
    let mut gateway = Gateway::setup().logged(&logs).start().await;
    gateway.user("c1").says("hi").await;
    let expiring = |gateway: &Gateway, said, time| v1::SendActivityRequest {
        expire_at: after(gateway, time),
        ..later(gateway, said, HOUR)
    };
    let gone = schedule(&gateway, expiring(&gateway, "a-secret", 2 * HOUR)).await;
    schedule(&gateway, expiring(&gateway, "in time", 3 * HOUR)).await;
    gateway.kill().await;
    gateway.clock.advance(2 * HOUR + Duration::from_millis(1));
    gateway.start_again().await;
    gateway.settle().await;
    assert_eq!(gateway.texts("c1").await, ["hi", "in time"]);
    assert!(is_nothing_left(&gateway));
    assert_eq!(outcomes(&gateway).await, [0.0, 1.0, 0.0, 1.0, 0.0]);
    let cancelled = cancel(&gateway, &gone).await.expect("it is known");
    assert_eq!(cancelled, (ScheduleEnd::Expired, true));
    let logged = logs.text();
    assert!(logged.contains("a scheduled send was dropped") && logged.contains(&gone));
    assert!(!logged.contains("a-secret"));
}

#[tokio::test]
async fn at_the_time_after_which_it_is_dropped_it_is_still_sent() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let request = v1::SendActivityRequest {
        expire_at: after(&gateway, 2 * HOUR),
        ..later(&gateway, "just in time", HOUR)
    };
    schedule(&gateway, request).await;
    gateway.kill().await;
    gateway.clock.advance(2 * HOUR);
    gateway.start_again().await;
    gateway.settle().await;
    assert_eq!(gateway.texts("c1").await, ["hi", "just in time"]);
}

#[tokio::test]
async fn a_send_that_has_expired_is_refused_unless_it_repeats_one_that_had_not() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let expiring = v1::SendActivityRequest {
        request_id: "k".to_owned(),
        expire_at: after(&gateway, MINUTE),
        ..saying("hello")
    };
    let first = send(&gateway.wire(), expiring.clone()).await;
    let first = first.expect("it is taken").appended;
    gateway.pass(HOUR).await;
    let again = send(&gateway.wire(), expiring.clone()).await;
    let again = again.expect("it is a repeat");
    assert!(again.repeated_send);
    assert_eq!(again.appended, first);
    let other = v1::SendActivityRequest {
        request_id: String::new(),
        ..expiring
    };
    let refusal = send(&gateway.wire(), other).await;
    refused(refusal, Code::FailedPrecondition, "SEND_EXPIRED");
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn a_repeat_has_the_same_result_before_and_after_its_time_and_other_times_are_refused() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let request = v1::SendActivityRequest {
        request_id: "k".to_owned(),
        ..later(&gateway, "hello", HOUR)
    };
    let id = schedule(&gateway, request.clone()).await;
    for step in 0..4 {
        let again = send(&gateway.wire(), request.clone()).await;
        let again = again.expect("it is a repeat");
        assert!(again.repeated_send && again.appended.is_none());
        assert_eq!(again.schedule_id, id);
        match step {
            0 => gateway.restart().await,
            1 => gateway.pass(HOUR).await,
            _ => gateway.crash().await,
        }
    }
    for other in [
        saying("hello"),
        later(&gateway, "hello", HOUR),
        v1::SendActivityRequest {
            expire_at: after(&gateway, DAY),
            ..request.clone()
        },
        v1::SendActivityRequest {
            activity: Some(message("something else").into()),
            ..request.clone()
        },
    ] {
        let other = v1::SendActivityRequest {
            request_id: "k".to_owned(),
            ..other
        };
        let refusal = send(&gateway.wire(), other).await;
        refused(refusal, Code::FailedPrecondition, "IDEMPOTENCY_MISMATCH");
    }
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn concurrent_repeats_schedule_once() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let request = v1::SendActivityRequest {
        request_id: "k".to_owned(),
        ..later(&gateway, "once", HOUR)
    };
    let wire = gateway.wire();
    let sends = (0..20).map(|_| send(&wire, request.clone()));
    let sent: Vec<_> = futures_util::future::join_all(sends).await;
    let sent: Vec<_> = sent.into_iter().map(|sent| sent.expect("kept")).collect();
    assert_eq!(sent.iter().filter(|sent| !sent.repeated_send).count(), 1);
    assert!(
        sent.iter()
            .all(|one| one.schedule_id == sent[0].schedule_id)
    );
    gateway.pass(HOUR).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "once"]);
}

#[tokio::test]
async fn what_was_taken_back_is_not_sent_and_each_end_is_told_apart() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let taken = schedule(&gateway, later(&gateway, "never", HOUR)).await;
    let sent = schedule(&gateway, later(&gateway, "sent", HOUR)).await;
    let first = cancel(&gateway, &taken).await.expect("in time");
    assert_eq!(first, (ScheduleEnd::Cancelled, false));
    assert_eq!(waiting(&gateway).await, ["sent"]);
    gateway.crash().await;
    gateway.pass(HOUR).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "sent"]);
    for _ in 0..2 {
        let again = cancel(&gateway, &taken).await.expect("it is a repeat");
        assert_eq!(again, (ScheduleEnd::Cancelled, true));
        let facts = refused(
            cancel(&gateway, &sent).await,
            Code::FailedPrecondition,
            "SCHEDULE_SENT",
        );
        assert_eq!(facts["sequence"], "2");
        assert_eq!(facts["activity_id"], "c1|0000002");
        gateway.restart().await;
    }
    for unknown in ["1-1", "nonsense", &format!("0{taken}")] {
        let cancelled = cancel(&gateway, unknown).await;
        refused(cancelled, Code::NotFound, "SCHEDULE_UNKNOWN");
    }
    refused(
        cancel(&gateway, "").await,
        Code::InvalidArgument,
        "REQUEST_INVALID",
    );
    // What became of it is forgotten as other results are.
    gateway.pass(3 * DAY).await;
    for id in [&taken, &sent] {
        let cancelled = cancel(&gateway, id).await;
        refused(cancelled, Code::NotFound, "SCHEDULE_UNKNOWN");
    }
    assert_eq!(gateway.texts("c1").await, ["hi", "sent"]);
}

#[tokio::test]
async fn whoever_is_first_taking_back_or_time_has_its_way_and_never_both() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let mut said = Vec::new();
    for number in 0..40 {
        let request = later(&gateway, &number.to_string(), seconds(1));
        let id = schedule(&gateway, request).await;
        let wire = gateway.wire();
        let cancelling = async {
            // Some are there before the time, and some after it.
            for _ in 0..number % 8 {
                tokio::task::yield_now().await;
            }
            try_cancel(&wire, &id, "").await
        };
        let time = async { gateway.pass(seconds(1)).await };
        let (cancelled, ()) = tokio::join!(cancelling, time);
        gateway.settle().await;
        match cancelled {
            Ok(_) => {}
            Err(status) => {
                refused(
                    Err::<(), _>(status),
                    Code::FailedPrecondition,
                    "SCHEDULE_SENT",
                );
                said.push(number.to_string());
            }
        }
        assert_eq!(gateway.texts("c1").await[1..], said, "{number}");
        assert!(is_nothing_left(&gateway));
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_and_forth_delays_nothing_beyond_its_time_and_sends_nothing_twice()
{
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let start = gateway.clock.now();
    schedule(&gateway, later(&gateway, "10 min", 10 * MINUTE)).await;
    schedule(&gateway, later(&gateway, "20 min", 20 * MINUTE)).await;
    gateway.pass(10 * MINUTE).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "10 min"]);
    // Back before what was sent: it stays sent.
    gateway.clock.set_back(8 * MINUTE);
    gateway.settle().await;
    schedule(&gateway, later(&gateway, "5 min", 3 * MINUTE)).await;
    gateway.pass(3 * MINUTE).await;
    assert_eq!(gateway.clock.now(), start.after(5 * MINUTE));
    assert_eq!(gateway.texts("c1").await, ["hi", "10 min", "5 min"]);
    // Nothing waits for the time at which the clock was set back.
    gateway.clock.set_back(4 * MINUTE);
    gateway.settle().await;
    gateway.pass(19 * MINUTE - Duration::from_millis(1)).await;
    assert_eq!(gateway.texts("c1").await.len(), 3);
    gateway.pass(Duration::from_millis(1)).await;
    assert_eq!(gateway.texts("c1").await[3..], ["20 min"]);
    gateway.pass(HOUR).await;
    assert_eq!(gateway.texts("c1").await.len(), 4);
}

#[tokio::test]
async fn what_waits_is_listed_in_order_of_time_in_pages() {
    let gateway = Gateway::setup()
        .config(|config| config.limits.page_bytes = 1 << 20)
        .start()
        .await;
    gateway.user("c1").says("hi").await;
    gateway.user("c2").says("hi").await;
    for number in [3, 1, 4, 0, 2] {
        let request = later(&gateway, &number.to_string(), number * HOUR + MINUTE);
        schedule(&gateway, request).await;
    }
    let elsewhere = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("web", "c2"))),
        ..later(&gateway, "elsewhere", MINUTE)
    };
    schedule(&gateway, elsewhere).await;
    let wire = gateway.wire();
    let (mut said, mut token) = (Vec::new(), String::new());
    loop {
        let page = page(&wire, 2, &token).await.expect("a page");
        assert!(page.scheduled.len() <= 2);
        said.extend(texts_of(&page.scheduled));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(said, ["0", "1", "2", "3", "4"]);

    let expiring = v1::SendActivityRequest {
        bot_id: "echo".to_owned(),
        expire_at: after(&gateway, 2 * DAY),
        activity: Some(padded("large", 700_000).into()),
        ..later(&gateway, "", DAY)
    };
    let id = schedule(&gateway, expiring.clone()).await;
    schedule(&gateway, expiring.clone()).await;
    // Both together are more than a page holds.
    let first = page(&wire, 0, "").await.expect("a page");
    assert_eq!(first.scheduled.len(), 6);
    let large = &first.scheduled[5];
    assert_eq!(large.schedule_id, id);
    assert_eq!(large.bot_id, "echo");
    assert_eq!(large.deliver_at, expiring.deliver_at);
    assert_eq!(large.expire_at, expiring.expire_at);
    assert_eq!(large.ask_time, after(&gateway, Duration::ZERO));
    let rest = page(&wire, 0, &first.next_page_token)
        .await
        .expect("a page");
    assert_eq!(
        (rest.scheduled.len(), rest.next_page_token.as_str()),
        (1, "")
    );
    let forged = page(&wire, 0, "forged").await;
    refused(forged, Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn times_that_are_none_or_make_no_sense_are_refused_with_their_field() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let no_time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let soon = after(&gateway, MINUTE);
    let mut typing = message("");
    typing.r#type = Some("typing".to_owned());
    for (request, field) in [
        (
            v1::SendActivityRequest {
                deliver_at: no_time(0, -1),
                ..saying("x")
            },
            "deliver_at",
        ),
        (
            v1::SendActivityRequest {
                expire_at: no_time(i64::MAX, 0),
                ..saying("x")
            },
            "expire_at",
        ),
        (
            v1::SendActivityRequest {
                deliver_at: soon,
                expire_at: soon,
                ..saying("x")
            },
            "expire_at",
        ),
        (
            v1::SendActivityRequest {
                activity: Some(typing.into()),
                deliver_at: soon,
                ..saying("x")
            },
            "deliver_at",
        ),
    ] {
        let facts = refused(
            send(&gateway.wire(), request).await,
            Code::InvalidArgument,
            "REQUEST_INVALID",
        );
        assert_eq!(facts["field"], field);
    }
    let far = later(&gateway, "x", 90 * DAY + Duration::from_millis(1));
    let facts = refused(
        send(&gateway.wire(), far).await,
        Code::InvalidArgument,
        "SCHEDULE_TOO_FAR",
    );
    assert_eq!(
        (facts["field"].as_str(), facts["limit"].as_str()),
        ("deliver_at", "schedule_horizon=7776000s")
    );
    schedule(&gateway, later(&gateway, "just near enough", 90 * DAY)).await;
    assert_eq!(waiting(&gateway).await, ["just near enough"]);
}

#[tokio::test]
async fn what_an_activity_must_obey_is_checked_when_it_is_asked_for() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let wire = gateway.wire();
    let with = |activity: v1::Activity| v1::SendActivityRequest {
        activity: Some(activity.into()),
        ..later(&gateway, "", HOUR)
    };
    let large = send(&wire, with(padded("x", 2 << 20))).await;
    refused(large, Code::InvalidArgument, "ACTIVITY_TOO_LARGE");
    let wrong = v1::Activity {
        r#type: Some("event".to_owned()),
        ..Default::default()
    };
    let wrong = send(&wire, with(wrong)).await;
    refused(wrong, Code::InvalidArgument, "ACTIVITY_INVALID");
    let update = v1::Activity {
        r#type: Some("messageUpdate".to_owned()),
        id: Some("c1|0000001".to_owned()),
        ..message("x")
    };
    let update = send(&wire, with(update)).await;
    refused(update, Code::FailedPrecondition, "CAPABILITY_MISSING");
    let absent = v1::SendActivityRequest {
        bot_id: "other".to_owned(),
        ..later(&gateway, "x", HOUR)
    };
    refused(
        send(&wire, absent).await,
        Code::FailedPrecondition,
        "BOT_ABSENT",
    );
    let nowhere = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("web", "nowhere"))),
        ..later(&gateway, "x", HOUR)
    };
    refused(
        send(&wire, nowhere).await,
        Code::NotFound,
        "CONVERSATION_UNKNOWN",
    );
    assert!(is_nothing_left(&gateway));
}

#[tokio::test]
async fn no_more_wait_in_a_conversation_than_the_limit_and_each_end_makes_room() {
    let mut gateway = Gateway::setup()
        .config(|config| config.limits.scheduled_sends = 2)
        .start()
        .await;
    gateway.user("c1").says("hi").await;
    let id = schedule(&gateway, later(&gateway, "one", HOUR)).await;
    schedule(&gateway, later(&gateway, "two", 2 * HOUR)).await;
    let full = |facts: std::collections::HashMap<String, String>| {
        assert_eq!(facts["limit"], "scheduled_sends=2");
    };
    let (code, why) = (Code::ResourceExhausted, "TOO_MANY_SCHEDULED");
    let third = later(&gateway, "three", 3 * HOUR);
    full(refused(
        send(&gateway.wire(), third.clone()).await,
        code,
        why,
    ));
    gateway.restart().await;
    full(refused(
        send(&gateway.wire(), third.clone()).await,
        code,
        why,
    ));
    cancel(&gateway, &id).await.expect("in time");
    schedule(&gateway, third.clone()).await;
    full(refused(
        send(&gateway.wire(), third.clone()).await,
        code,
        why,
    ));
    gateway.pass(2 * HOUR).await;
    schedule(&gateway, third).await;
    // What is to happen now needs no room.
    send(&gateway.wire(), saying("now")).await.expect("taken");
}

#[tokio::test]
async fn what_can_be_no_more_when_its_time_has_come_is_dropped_and_keeps_nothing_else() {
    const LIVELY: &str = "[[channels]]\nid = \"lively\"\nkind = \"grpc\"\nbot = \"echo\"\n\
        outbound = \"watch\"\ncapabilities = [\"update\", \"delete\"]\n";
    let gateway = Gateway::setup().and(LIVELY).start().await;
    gateway.user("c1").on("lively").says("hi").await;
    let wire = gateway.wire();
    let to = |request| v1::SendActivityRequest {
        target: Some(Target::Conversation(name("lively", "c1"))),
        ..request
    };
    let said = send(&wire, to(saying("helo"))).await.expect("taken");
    let id = said.appended.expect("where").activity_id;
    let update = v1::Activity {
        r#type: Some("messageUpdate".to_owned()),
        id: Some(id.clone()),
        ..message("hello")
    };
    for time in [HOUR, 3 * HOUR] {
        let request = v1::SendActivityRequest {
            activity: Some(update.clone().into()),
            ..later(&gateway, "", time)
        };
        schedule(&gateway, to(request)).await;
    }
    schedule(&gateway, to(later(&gateway, "and on it goes", 3 * HOUR))).await;
    gateway.pass(2 * HOUR).await;
    let delete = v1::DeleteActivityRequest {
        conversation: Some(name("lively", "c1")),
        activity_id: id,
        ..Default::default()
    };
    let mut client = wire.conversations();
    let deleted = within("a deletion", client.delete_activity(delete)).await;
    deleted.expect("it is deleted");
    gateway.pass(HOUR).await;
    let log = gateway.log_on("lively", "c1").await;
    let said = log.iter().filter_map(|entry| entry.activity.as_ref());
    let said: Vec<_> = said.filter_map(|said| said.text.as_deref()).collect();
    // The deletion has no text, and the second update was of nothing any more.
    assert_eq!(said, ["hi", "helo", "hello", "and on it goes"]);
    assert_eq!(outcomes(&gateway).await, [3.0, 2.0, 0.0, 0.0, 1.0]);
    assert!(is_nothing_left(&gateway));
}

#[tokio::test]
async fn what_is_due_while_the_disk_is_full_waits_for_room() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    schedule(&gateway, later(&gateway, "hello", HOUR)).await;
    gateway.memory().set_free_bytes(0);
    gateway.pass(HOUR).await;
    gateway.pass_slowly(3).await;
    let full = send(&gateway.wire(), later(&gateway, "x", HOUR)).await;
    refused(full, Code::ResourceExhausted, "STORE_FULL");
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    assert_eq!(waiting(&gateway).await, ["hello"]);
    gateway.memory().set_free_bytes(u64::MAX);
    gateway.pass_slowly(2).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn each_commit_of_a_scheduled_sends_life_may_fail_and_it_is_sent_once_all_the_same() {
    for apply in [false, true] {
        // Scheduling, and sending: whichever fails.
        for failing in 0..2 {
            let mut gateway = Gateway::start().await;
            gateway.user("c1").says("hi").await;
            let request = v1::SendActivityRequest {
                request_id: "k".to_owned(),
                ..later(&gateway, "hello", HOUR)
            };
            let fail_next = |gateway: &Gateway| {
                let mut left = 1;
                gateway.memory().on_commit(move |_, durability| {
                    if durability != Durability::Synced || left == 0 {
                        return Verdict::Apply;
                    }
                    left -= 1;
                    let error = turnwire::store::Error::Failed {
                        place: "memory".to_owned(),
                        source: std::sync::Arc::new(std::io::Error::other("told to fail")),
                    };
                    match apply {
                        true => Verdict::ApplyAndFail(error),
                        false => Verdict::Refuse(error),
                    }
                });
            };
            if failing == 0 {
                fail_next(&gateway);
                let failed = send(&gateway.wire(), request.clone()).await;
                refused(failed, Code::Unavailable, "STORE_FAILED");
            }
            let sent = send(&gateway.wire(), request.clone()).await;
            let sent = sent.expect("it is kept");
            assert_eq!(sent.repeated_send, failing == 0 && apply);
            if failing == 1 {
                fail_next(&gateway);
            }
            gateway.pass(HOUR).await;
            gateway.pass_slowly(3).await;
            assert_eq!(
                gateway.texts("c1").await,
                ["hi", "hello"],
                "{apply} {failing}"
            );
            assert!(is_nothing_left(&gateway));
            gateway.crash().await;
            gateway.pass_slowly(3).await;
            assert_eq!(
                gateway.texts("c1").await,
                ["hi", "hello"],
                "{apply} {failing}"
            );
        }
    }
}

#[tokio::test]
async fn the_append_and_the_removal_are_one_batch() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    schedule(&gateway, later(&gateway, "hello", HOUR)).await;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let batches = std::sync::Arc::clone(&seen);
    gateway.memory().on_commit(move |batch, durability| {
        let tables: Vec<_> = batch
            .writes()
            .filter_map(|write| Some((Table::from_tag(write.key[0])?, write.value.is_some())))
            .collect();
        if tables.iter().any(|(table, _)| *table == Table::Activity) {
            batches.lock().expect("no panic").push((tables, durability));
        }
        Verdict::Apply
    });
    gateway.pass(HOUR).await;
    gateway.memory().heal();
    let seen = seen.lock().expect("no panic");
    let [(tables, durability)] = &seen[..] else {
        panic!("not one batch with an activity: {seen:?}");
    };
    assert_eq!(*durability, Durability::Synced);
    for change in [
        (Table::Activity, true),
        (Table::Scheduled, false),
        (Table::ScheduledDue, false),
        (Table::Idempotency, true),
    ] {
        assert!(tables.contains(&change), "{change:?} {tables:?}");
    }
}

#[tokio::test]
async fn a_scheduled_send_to_a_user_goes_to_the_conversation_of_when_it_was_asked_for() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    gateway.pass(seconds(1)).await;
    let request = v1::SendActivityRequest {
        target: Some(Target::User(v1::UserTarget {
            channel_id: "web".to_owned(),
            user_id: "ann".to_owned(),
        })),
        ..later(&gateway, "hello", HOUR)
    };
    let sent = send(&gateway.wire(), request).await.expect("it is kept");
    assert_eq!(sent.conversation, Some(name("web", "c1")));
    gateway.user("c2").says("hi").await;
    gateway.pass(HOUR).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
    assert_eq!(gateway.texts("c2").await, ["hi"]);
}

#[tokio::test]
async fn a_reference_is_kept_with_what_waits() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let reference = v1::ConversationReference {
        activity_id: Some("long-ago".to_owned()),
        conversation: Some(v1::ConversationAccount {
            id: Some("c1".to_owned()),
            ..Default::default()
        }),
        channel_id: Some("web".to_owned()),
        user: Some(v1::ChannelAccount {
            id: Some("bob".to_owned()),
            ..Default::default()
        }),
        locale: Some("de-CH".to_owned()),
        ..Default::default()
    };
    let request = v1::SendActivityRequest {
        target: Some(Target::Reference(reference)),
        ..later(&gateway, "hello", HOUR)
    };
    schedule(&gateway, request).await;
    gateway.restart().await;
    gateway.pass(HOUR).await;
    let log = gateway.log("c1").await;
    let said = log[1].activity.as_ref().expect("an activity");
    assert_eq!(said.reply_to_id.as_deref(), Some("long-ago"));
    assert_eq!(said.locale.as_deref(), Some("de-CH"));
    let recipient = said.recipient.as_ref().and_then(|it| it.id.as_deref());
    assert_eq!(recipient, Some("bob"));
}

#[tokio::test]
async fn what_is_sent_later_waits_for_the_channels_adapter_as_other_sends_do() {
    let gateway = Gateway::start().await;
    gateway.user("c1").on("queue").says("hi").await;
    let request = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("queue", "c1"))),
        ..later(&gateway, "hello", HOUR)
    };
    schedule(&gateway, request).await;
    // The conversation has left memory by then.
    gateway.pass(MINUTE).await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.pass(HOUR).await;
    let outbound = adapter.expect("hello", 1).await;
    assert_eq!(text(&outbound.activity), "hello");
}

#[tokio::test]
async fn each_role_schedules_lists_and_takes_back_what_it_may() {
    const ROLES: [&str; 6] = [
        "bot:echo",
        "bot:other",
        "channel:web",
        "backend",
        "reader",
        "admin",
    ];
    let principal = |role: &str| {
        let digest = Digest::of(role);
        format!(
            "[[principals]]\nname = \"{role}\"\ntoken_sha256 = \"{digest}\"\nroles = [\"{role}\"]\n"
        )
    };
    let principals: String = ROLES.into_iter().map(principal).collect();
    let gateway = Gateway::setup().and(&principals).start().await;
    let web = gateway.wire_with("channel:web").await;
    let backend = gateway.wire_with("backend").await;
    gateway.user("c1").over(&web).says("hi").await;
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        let scheduled = send(&wire, later(&gateway, role, HOUR)).await;
        match role {
            "bot:echo" | "backend" | "admin" => drop(scheduled.expect("it is kept")),
            "bot:other" => drop(refused(scheduled, Code::NotFound, "CONVERSATION_UNKNOWN")),
            _ => drop(refused(scheduled, Code::PermissionDenied, "ROLE_MISSING")),
        }
        let listed = page(&wire, 0, "").await;
        match role {
            "bot:other" => drop(refused(listed, Code::NotFound, "CONVERSATION_UNKNOWN")),
            "channel:web" => drop(refused(listed, Code::PermissionDenied, "ROLE_MISSING")),
            _ => assert!(!listed.expect("a page").scheduled.is_empty(), "{role}"),
        }
        let one = send(&backend, later(&gateway, "x", HOUR)).await;
        let id = one.expect("it is kept").schedule_id;
        let cancelled = try_cancel(&wire, &id, "").await;
        match role {
            "bot:echo" | "backend" | "admin" => drop(cancelled.expect("in time")),
            "bot:other" => drop(refused(cancelled, Code::NotFound, "CONVERSATION_UNKNOWN")),
            _ => drop(refused(cancelled, Code::PermissionDenied, "ROLE_MISSING")),
        }
        // A send of one bot is none of another's.
        let foreign = try_cancel(&backend, &id, "other").await;
        refused(foreign, Code::NotFound, "SCHEDULE_UNKNOWN");
    }
}
