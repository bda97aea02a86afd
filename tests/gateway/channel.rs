//! Channels of kind `grpc`: what adapters bring in, and what they are handed.

use tonic::Code;
use turnwire::proto::v1;
use turnwire::proto::v1::attach_request::Frame as Asked;
use turnwire::proto::v1::outcome::Result as Said;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Gateway, duration, message, name, refused, seconds, text, within};

fn retry(delay: Option<u64>) -> Said {
    Said::Retry(v1::RetryLater {
        delay: delay.map(|delay| duration(seconds(delay))),
    })
}

fn failed(reason: &str) -> Said {
    Said::Failed(v1::Failed {
        reason: reason.to_owned(),
    })
}

fn account(id: &str) -> v1::ChannelAccount {
    v1::ChannelAccount {
        id: Some(id.to_owned()),
        ..Default::default()
    }
}

/// A backend says something in a conversation on `queue`.
async fn says(gateway: &Gateway, conversation: &str, text: &str) {
    let request = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("queue", conversation))),
        activity: Some(message(text).into()),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    within("a send", client.send_activity(request))
        .await
        .expect("it is taken");
}

async fn members(gateway: &Gateway, channel: &str, conversation: &str) -> Vec<String> {
    let request = v1::ListMembersRequest {
        conversation: Some(name(channel, conversation)),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let page = within("members", client.list_members(request))
        .await
        .expect("a page");
    let members = page.into_inner().members.into_iter();
    members.map(|member| member.id.expect("an id")).collect()
}

#[tokio::test]
async fn what_bots_say_comes_in_order_one_at_a_time() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    // What users say is not for the channel.
    adapter.expect_nothing().await;
    for text in ["one", "two", "three"] {
        says(&gateway, "c1", text).await;
    }
    for (sequence, text) in [(2, "one"), (3, "two"), (4, "three")] {
        let outbound = adapter.expect(text, 1).await;
        assert_eq!(outbound.sequence, sequence);
        adapter.expect_nothing().await;
        adapter.delivered(&outbound).await;
    }
    adapter.expect_nothing().await;
}

#[tokio::test]
async fn a_conversation_whose_outcome_is_awaited_delays_no_other() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    for conversation in ["c1", "c2"] {
        gateway.user(conversation).on("queue").says("hi").await;
    }
    says(&gateway, "c1", "one").await;
    let one = adapter.expect("one", 1).await;
    says(&gateway, "c2", "two").await;
    adapter.expect("two", 1).await;
    adapter.delivered(&one).await;
}

#[tokio::test]
async fn without_an_adapter_everything_waits_over_restarts_and_crashes() {
    for on_disk in [false, true] {
        let setup = Gateway::setup();
        let setup = if on_disk { setup.on_disk() } else { setup };
        let mut gateway = setup.start().await;
        gateway.user("c1").on("queue").says("hi").await;
        says(&gateway, "c1", "one").await;
        gateway.restart().await;
        says(&gateway, "c1", "two").await;
        gateway.crash().await;
        gateway.pass(seconds(24 * 3_600)).await;
        let mut adapter = gateway.adapter("queue").attach().await;
        let one = adapter.expect("one", 1).await;
        adapter.delivered(&one).await;
        let two = adapter.expect("two", 1).await;
        adapter.delivered(&two).await;
        drop(adapter);
        gateway.restart().await;
        gateway
            .adapter("queue")
            .attach()
            .await
            .expect_nothing()
            .await;
    }
}

#[tokio::test]
async fn an_adapter_has_no_deadline_while_it_is_attached() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "one").await;
    let one = adapter.expect("one", 1).await;
    gateway.pass(seconds(24 * 3_600)).await;
    adapter.expect_nothing().await;
    adapter.delivered(&one).await;
}

#[tokio::test]
async fn what_a_lost_adapter_had_goes_to_another_at_once() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "one").await;
    adapter.expect("one", 1).await;
    drop(adapter);
    let mut adapter = gateway.adapter("queue").instance("two").attach().await;
    adapter.expect("one", 2).await;
}

#[tokio::test]
async fn what_failed_is_not_tried_again_and_the_next_follows() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "bad").await;
    says(&gateway, "c1", "good").await;
    let bad = adapter.expect("bad", 1).await;
    // Longer than what is kept, and cut within a character.
    adapter.outcome(&bad, failed(&"é".repeat(1_000))).await;
    let good = adapter.expect("good", 1).await;
    adapter.delivered(&good).await;
    assert_eq!(gateway.metric("turnwire_dead_letters_total").await, 1.0);
}

#[tokio::test]
async fn what_is_to_be_retried_comes_again_when_asked_or_by_the_backoff_and_is_never_given_up() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "one").await;
    says(&gateway, "c1", "two").await;
    let mut one = adapter.expect("one", 1).await;
    adapter.outcome(&one, retry(Some(30))).await;
    gateway.pass(seconds(29)).await;
    adapter.expect_nothing().await;
    gateway.pass(seconds(1)).await;
    one = adapter.expect("one", 2).await;
    for attempt in 3..=20 {
        adapter.outcome(&one, retry(None)).await;
        gateway.pass(seconds(150)).await;
        one = adapter.expect("one", attempt).await;
    }
    adapter.delivered(&one).await;
    adapter.expect("two", 1).await;
}

#[tokio::test]
async fn outcomes_out_of_range_are_refused_and_the_activity_stays_out() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "one").await;
    let one = adapter.expect("one", 1).await;
    let long = v1::Delivered {
        channel_activity_id: "x".repeat(513),
    };
    for (result, field) in [
        (Some(retry(Some(601))), "retry.delay"),
        (Some(Said::Delivered(long)), "delivered.channel_activity_id"),
        (None, "result"),
    ] {
        adapter.write(Asked::Outcome(v1::Outcome {
            delivery_id: one.delivery_id,
            result,
        }));
        let error = adapter.expect_error("FRAME_INVALID").await;
        assert_eq!(
            (error.metadata["field"].as_str(), error.delivery_id),
            (field, one.delivery_id)
        );
    }
    adapter.delivered(&one).await;
}

#[tokio::test]
async fn an_outcome_of_what_an_attachment_does_not_hold_is_refused() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "one").await;
    let one = adapter.expect("one", 1).await;
    adapter.delivered(&one).await;
    for (delivery_id, reason) in [
        (one.delivery_id, "DELIVERY_STALE"),
        (one.delivery_id + 1, "DELIVERY_UNKNOWN"),
        (0, "DELIVERY_UNKNOWN"),
    ] {
        adapter.write(Asked::Outcome(v1::Outcome {
            delivery_id,
            result: Some(Said::Delivered(v1::Delivered::default())),
        }));
        let error = adapter.expect_error(reason).await;
        assert_eq!(error.delivery_id, delivery_id);
    }
}

#[tokio::test]
async fn an_adapter_has_at_most_what_it_asked_for() {
    let gateway = Gateway::start().await;
    for number in 0..5 {
        let conversation = format!("c{number}");
        gateway.user(&conversation).on("queue").says("hi").await;
        says(&gateway, &conversation, "hello").await;
    }
    let mut adapter = gateway
        .adapter("queue")
        .hello(|hello| hello.max_outstanding = 2)
        .attach()
        .await;
    let first = adapter.next_outbound().await;
    adapter.next_outbound().await;
    adapter.expect_nothing().await;
    adapter.delivered(&first).await;
    adapter.next_outbound().await;
    adapter.expect_nothing().await;
}

#[tokio::test]
async fn every_kind_of_outcome_makes_room_for_another() {
    let gateway = Gateway::start().await;
    for number in 0..4 {
        let conversation = format!("c{number}");
        gateway.user(&conversation).on("queue").says("hi").await;
        says(&gateway, &conversation, "hello").await;
    }
    let mut adapter = gateway
        .adapter("queue")
        .hello(|hello| hello.max_outstanding = 1)
        .attach()
        .await;
    let delivered = Said::Delivered(v1::Delivered::default());
    for outcome in [retry(Some(600)), failed("no"), delivered] {
        let outbound = adapter.expect("hello", 1).await;
        adapter.expect_nothing().await;
        adapter.outcome(&outbound, outcome).await;
    }
    let last = adapter.expect("hello", 1).await;
    // What the store did not take comes again, and takes no room twice.
    gateway.memory().fail_next_commits(1);
    adapter.delivered(&last).await;
    gateway.pass(seconds(2)).await;
    let last = adapter.expect("hello", 2).await;
    adapter.expect_nothing().await;
    adapter.delivered(&last).await;
    gateway.pass(seconds(600)).await;
    adapter.expect("hello", 2).await;
}

#[tokio::test]
async fn a_channel_whose_users_watch_has_no_queue() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("web").attach().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.commits(&delivery, &["hello"]).await;
    adapter.expect_nothing().await;
}

#[tokio::test]
async fn groups_are_refused_unless_the_channel_can() {
    let gateway = Gateway::start().await;
    let group = v1::Activity {
        conversation: Some(v1::ConversationAccount {
            id: Some("g1".to_owned()),
            is_group: Some(true),
            ..Default::default()
        }),
        ..message("hi all")
    };
    let before = gateway.memory().len();
    let post = gateway.user("g1").tries(group.clone()).await;
    refused(post, Code::FailedPrecondition, "GROUPS_UNSUPPORTED");
    gateway.settle().await;
    assert_eq!(gateway.memory().len(), before, "nothing was written");
    // By its configuration, or by what its adapter declares.
    gateway.user("g1").on("party").posts(group.clone()).await;
    let mut adapter = gateway.adapter("web").attach().await;
    adapter.write(Asked::Post(v1::Post {
        post_id: "p".to_owned(),
        activity: Some(gateway.user("g1").activity(group.clone()).into()),
    }));
    assert_eq!(
        adapter.expect_error("GROUPS_UNSUPPORTED").await.client_id,
        "p"
    );
    let capabilities = v1::ChannelCapabilities {
        groups: true,
        ..Default::default()
    };
    let opening = gateway
        .adapter("web")
        .hello(|hello| hello.capabilities = Some(capabilities));
    let _adapter = opening.instance("two").attach().await;
    gateway.user("g1").posts(group).await;
    assert!(gateway.conversation("g1").await.is_group);
}

#[tokio::test]
async fn members_are_who_joined_or_spoke_and_did_not_leave() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1").on("queue");
    let update = v1::Activity {
        r#type: Some("conversationUpdate".to_owned()),
        members_added: vec![account("bob"), account("cleo"), account("dan")],
        ..Default::default()
    };
    user.posts(update).await;
    assert_eq!(
        members(&gateway, "queue", "c1").await,
        ["ann", "bob", "cleo", "dan"]
    );
    let update = v1::Activity {
        r#type: Some("conversationUpdate".to_owned()),
        members_removed: vec![account("bob"), account("nobody")],
        ..Default::default()
    };
    user.posts(update).await;
    assert_eq!(
        members(&gateway, "queue", "c1").await,
        ["ann", "cleo", "dan"]
    );
    user.clone().named("eve").says("me too").await;
    assert_eq!(
        members(&gateway, "queue", "c1").await,
        ["ann", "cleo", "dan", "eve"]
    );
    // Who left and speaks is back.
    user.clone().named("bob").says("again").await;
    assert_eq!(
        members(&gateway, "queue", "c1").await,
        ["ann", "bob", "cleo", "dan", "eve"]
    );
    // The bot is none.
    says(&gateway, "c1", "welcome").await;
    assert_eq!(members(&gateway, "queue", "c1").await.len(), 5);
}

#[tokio::test]
async fn the_channel_sets_the_ids_and_the_gateway_only_those_that_are_missing() {
    let gateway = Gateway::start().await;
    let user = gateway.user("their conversation").on("queue");
    let activity = v1::Activity {
        id: Some("their activity".to_owned()),
        timestamp: Some("2025-12-31T23:59:59.5Z".to_owned()),
        channel_id: Some("a lie".to_owned()),
        recipient: Some(account("a lie")),
        caller_id: Some("a lie".to_owned()),
        ..message("hi")
    };
    let appended = user.posts(activity).await;
    assert_eq!(appended.activity_id, "their activity");
    user.says("without an id").await;
    let log = gateway.log_on("queue", "their conversation").await;
    let first = log[0].activity.as_ref().expect("an activity");
    assert_eq!(first.id.as_deref(), Some("their activity"));
    assert_eq!(first.timestamp.as_deref(), Some("2025-12-31T23:59:59.5Z"));
    assert_eq!(first.channel_id.as_deref(), Some("queue"));
    assert_eq!(
        first.recipient.as_ref().and_then(|bot| bot.id.as_deref()),
        Some("echo")
    );
    assert_eq!(first.caller_id, None);
    assert_eq!(
        first.service_url.as_deref(),
        Some("https://adapter.example.org/")
    );
    let second = log[1].activity.as_ref().expect("an activity");
    assert_eq!(second.id.as_deref(), Some("their conversation|0000002"));
    assert_eq!(
        second.timestamp.as_deref(),
        Some("2026-01-02T00:05:45.678Z")
    );
}

#[tokio::test]
async fn a_second_attachment_of_the_same_instance_replaces_the_first() {
    let gateway = Gateway::start().await;
    let mut first = gateway.adapter("queue").attach().await;
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "c1", "one").await;
    let old = first.expect("one", 1).await;
    let mut second = gateway.adapter("queue").attach().await;
    first.expect_end(Code::Aborted, "SESSION_REPLACED").await;
    let new = second.expect("one", 2).await;
    assert_ne!(old.delivery_id, new.delivery_id);
    assert_ne!(first.welcome.session_id, second.welcome.session_id);
    second.delivered(&new).await;
}

#[tokio::test]
async fn another_instance_replaces_nobody() {
    let gateway = Gateway::start().await;
    let mut first = gateway.adapter("queue").attach().await;
    let mut second = gateway.adapter("queue").instance("two").attach().await;
    let mut elsewhere = gateway.adapter("web").attach().await;
    first.expect_nothing().await;
    second.expect_nothing().await;
    elsewhere.expect_nothing().await;
}

#[tokio::test]
async fn posts_over_the_stream_are_answered_by_their_names() {
    let gateway = Gateway::start().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    let user = gateway.user("c1").on("queue");
    let first = adapter.posts("p1", user.activity(message("one"))).await;
    let second = adapter.posts("p1", user.activity(message("two"))).await;
    let sequence = |result: v1::PostResult| result.appended.map(|appended| appended.sequence);
    // A post id is no key.
    assert_eq!((sequence(first), sequence(second)), (Some(1), Some(2)));
    adapter.write(Asked::Post(v1::Post {
        post_id: "p3".to_owned(),
        activity: None,
    }));
    assert_eq!(adapter.expect_error("FRAME_INVALID").await.client_id, "p3");
    adapter.write(Asked::Post(v1::Post {
        post_id: "p4".to_owned(),
        activity: Some(message("nobody, nowhere").into()),
    }));
    let error = adapter.expect_error("ACTIVITY_INVALID").await;
    assert_eq!(
        (error.client_id.as_str(), error.metadata["field"].as_str()),
        ("p4", "activity.from.id")
    );
}

#[tokio::test]
async fn what_an_unknown_channel_posts_is_refused() {
    let gateway = Gateway::start().await;
    let post = gateway.user("c1").on("nowhere").tries(message("hi")).await;
    refused(post, Code::NotFound, "CHANNEL_UNKNOWN");
    let attach = gateway.adapter("nowhere").try_attach().await;
    refused(attach.map(drop), Code::NotFound, "CHANNEL_UNKNOWN");
}

#[tokio::test]
async fn an_adapter_that_falls_silent_is_sent_away_and_one_that_beats_is_not() {
    let setup = Gateway::setup().config(|config| config.limits.heartbeat_interval = seconds(20));
    let gateway = setup.start().await;
    let mut silent = gateway.adapter("queue").attach().await;
    let mut alive = gateway.adapter("queue").instance("two").attach().await;
    alive.barrier().await;
    silent.barrier().await;
    for _ in 0..4 {
        gateway.pass(seconds(10)).await;
        alive.write(Asked::Heartbeat(v1::AdapterHeartbeat {}));
        alive.barrier().await;
    }
    silent
        .expect_end(Code::DeadlineExceeded, "HEARTBEAT_MISSED")
        .await;
    alive.expect_nothing().await;
}

#[tokio::test]
async fn outbound_activities_carry_what_the_channel_needs() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    let user = gateway.user("c1").on("queue");
    let hi = v1::Activity {
        id: Some("a1".to_owned()),
        locale: Some("de-CH".to_owned()),
        ..message("hi")
    };
    user.posts(hi).await;
    let delivery = bot.next_delivery().await;
    bot.commits(&delivery, &["hello"]).await;
    let outbound = adapter.expect("hello", 1).await;
    assert_eq!(outbound.conversation, Some(name("queue", "c1")));
    let activity = outbound.activity.as_ref().expect("an activity");
    assert_eq!(text(&outbound.activity), "hello");
    assert_eq!(activity.reply_to_id.as_deref(), Some("a1"));
    assert_eq!(
        activity
            .recipient
            .as_ref()
            .and_then(|user| user.id.as_deref()),
        Some("ann")
    );
    assert_eq!(
        activity.from.as_ref().and_then(|bot| bot.id.as_deref()),
        Some("echo")
    );
    assert_eq!(activity.locale.as_deref(), Some("de-CH"));
    assert_eq!(
        activity.service_url.as_deref(),
        Some("https://adapter.example.org/")
    );
}
