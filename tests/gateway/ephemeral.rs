//! What is seen as it happens, or not at all: that someone is typing.

use std::time::Duration;

use turnwire::proto::v1;
use turnwire::proto::v1::subscribe_request::Frame as Asked;

use crate::harness::{Gateway, Watcher, message, name, seconds, text, typing};

/// A channel whose adapter can show that a bot is typing, and one whose adapter cannot.
const KIOSK: &str = "[[channels]]\nid = 'kiosk'\nkind = 'grpc'\nbot = 'echo'\n\
     capabilities = ['typing']\n";

/// A conversation that has begun, with nothing left to do in it.
async fn begun(gateway: &Gateway, bot: &mut crate::harness::Bot, conversation: &str) {
    gateway.user(conversation).says("hi").await;
    let hi = bot.expect(conversation, "hi", 1).await;
    bot.acks(&hi).await;
}

fn who(shown: &v1::Ephemeral) -> (v1::Author, String) {
    let activity = shown.activity.as_ref().expect("an activity");
    assert_eq!(activity.r#type.as_deref(), Some("typing"));
    let from = activity.from.clone().unwrap_or_default();
    (shown.author(), from.id.unwrap_or_default())
}

#[tokio::test]
async fn a_user_who_types_is_seen_by_the_bot_and_by_nobody_later() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let appended = gateway.user("c").posts(typing()).await;
    assert_eq!(appended.sequence, 0, "it is not logged");
    assert!(appended.activity_id.starts_with("c|e"), "{appended:?}");
    let shown = bot.ephemeral().await;
    assert_eq!(shown.conversation, Some(name("web", "c")));
    assert_eq!(who(&shown), (v1::Author::Channel, "ann".to_owned()));
    let activity = shown.activity.expect("an activity");
    assert_eq!(activity.id, Some(appended.activity_id));
    assert!(activity.timestamp.is_some() && activity.channel_id.as_deref() == Some("web"));
    assert_eq!(gateway.texts("c").await, ["hi"]);
    bot.expect_nothing().await;
}

#[tokio::test]
async fn typing_costs_no_credit_and_waits_for_none() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(1, 1 << 20).attach().await;
    begun(&gateway, &mut bot, "c").await;
    gateway.user("c").says("waits").await;
    gateway.user("c").posts(typing()).await;
    bot.ephemeral().await;
    bot.expect_nothing().await;
    bot.credit(1, 1 << 20).await;
    bot.expect("c", "waits", 1).await;
}

#[tokio::test]
async fn typing_starts_no_conversation_and_is_no_error() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let appended = gateway.user("new").posts(typing()).await;
    assert_eq!(appended.sequence, 0);
    bot.expect_quiet().await;
    let unknown = v1::GetConversationRequest {
        conversation: Some(name("web", "new")),
    };
    let mut client = gateway.wire().conversations();
    let refused = client.get_conversation(unknown).await.expect_err("unknown");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert_eq!(
        gateway
            .metric("turnwire_ephemerals_total{outcome=\"unseen\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn typing_makes_nobody_a_member_and_changes_no_reference() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let before = gateway.conversation("c").await;
    gateway.user("c").named("bob").posts(typing()).await;
    assert_eq!(who(&bot.ephemeral().await).1, "bob");
    assert_eq!(gateway.conversation("c").await, before);
    let request = v1::ListMembersRequest {
        conversation: Some(name("web", "c")),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let members = client.list_members(request).await.expect("members");
    assert_eq!(members.into_inner().members.len(), 1);
}

#[tokio::test]
async fn typing_goes_to_the_session_that_has_the_conversation() {
    let gateway = Gateway::start().await;
    let mut one = gateway.bot("echo").instance("1").attach().await;
    begun(&gateway, &mut one, "c").await;
    let mut others = Vec::new();
    for instance in ["2", "3", "4"] {
        others.push(gateway.bot("echo").instance(instance).attach().await);
    }
    gateway.user("c").posts(typing()).await;
    one.ephemeral().await;
    for other in &mut others {
        other.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_bot_that_types_is_seen_by_those_who_ask_for_it() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let mut live = gateway.watch_live("c").await;
    let mut plain = gateway.watch("c", 1).await;
    bot.types("web", "c");
    let shown = live.ephemeral().await;
    assert_eq!(who(&shown), (v1::Author::Bot, "echo".to_owned()));
    assert_eq!(shown.bot_id, "echo");
    bot.says("c", "done").await;
    live.expect(2, "done").await;
    plain.expect_at_once(2).await;
    bot.expect_quiet().await;
}

#[tokio::test]
async fn whatever_way_a_bot_types_it_is_not_logged() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c").says("hi").await;
    let hi = bot.expect("c", "hi", 1).await;
    let mut live = gateway.watch_live("c").await;

    let send = v1::Send {
        client_id: "k".to_owned(),
        conversation: None,
        activity: Some(typing().into()),
        delivery_id: hi.delivery_id,
    };
    let sent = bot.send(send).await;
    assert_eq!(sent.outcome(), v1::AckOutcome::Ok);
    assert_eq!(sent.appended.expect("a result").sequence, 0);
    assert_eq!(who(&live.ephemeral().await).0, v1::Author::Bot);

    bot.commit_all(hi.delivery_id, vec![typing(), message("hello")]);
    assert_eq!(bot.outcomes(&[hi.delivery_id]).await, [v1::AckOutcome::Ok]);
    live.ephemeral().await;
    live.expect(2, "hello").await;

    let request = v1::SendActivityRequest {
        target: Some(v1::send_activity_request::Target::Conversation(name(
            "web", "c",
        ))),
        activity: Some(typing().into()),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let answer = client
        .send_activity(request)
        .await
        .expect("taken")
        .into_inner();
    assert_eq!(answer.appended.expect("a result").sequence, 0);
    assert_eq!(who(&live.ephemeral().await).0, v1::Author::Backend);

    assert_eq!(gateway.texts("c").await, ["hi", "hello"]);
}

#[tokio::test]
async fn an_adapter_is_told_if_its_channel_can_show_it() {
    let gateway = Gateway::setup().and(KIOSK).start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut kiosk = gateway.adapter("kiosk").attach().await;
    let mut queue = gateway.adapter("queue").attach().await;
    for channel in ["kiosk", "queue"] {
        gateway.user("c").on(channel).says("hi").await;
        let hi = bot.next_delivery().await;
        bot.acks(&hi).await;
        bot.types(channel, "c");
    }
    bot.barrier().await;
    let shown = kiosk.ephemeral().await;
    assert_eq!(shown.conversation, Some(name("kiosk", "c")));
    queue.expect_quiet().await;
    queue.expect_nothing().await;
}

#[tokio::test]
async fn what_is_typed_too_fast_is_dropped_and_no_error() {
    let setup = Gateway::setup().config(|config| config.limits.ephemerals_per_second = 3);
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    for _ in 0..10 {
        gateway.user("c").posts(typing()).await;
    }
    gateway.user("c").named("bob").posts(typing()).await;
    for _ in 0..3 {
        assert_eq!(who(&bot.ephemeral().await).1, "ann");
    }
    assert_eq!(
        who(&bot.ephemeral().await).1,
        "bob",
        "another one has its own"
    );
    bot.expect_quiet().await;
    assert_eq!(
        gateway
            .metric("turnwire_ephemerals_total{outcome=\"dropped\"}")
            .await,
        7.0
    );
    gateway.pass(seconds(2)).await;
    gateway.user("c").posts(typing()).await;
    bot.ephemeral().await;
}

#[tokio::test]
async fn a_session_that_does_not_read_is_told_nothing_ephemeral() {
    let setup = Gateway::setup().config(|config| {
        config.limits.ephemerals_per_second = 1_000;
        config.limits.ephemeral_backlog_frames = 8;
    });
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let large = v1::Activity {
        summary: Some("x".repeat(64 << 10)),
        ..typing()
    };
    for _ in 0..300 {
        gateway.user("c").posts(large.clone()).await;
    }
    let dropped = gateway
        .metric("turnwire_ephemerals_total{outcome=\"dropped\"}")
        .await;
    assert!(
        dropped > 0.0,
        "20 MB do not lie about for one who does not read"
    );
    gateway.user("c").says("still here").await;
    bot.expect("c", "still here", 1).await;
}

#[tokio::test]
async fn a_watcher_that_lags_has_what_is_logged_and_the_newest_of_the_rest_in_its_place() {
    let setup = Gateway::setup().config(|config| {
        config.limits.ephemerals_per_second = 1_000;
        config.limits.feed_ephemerals = 2;
    });
    let gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let mut live = gateway.watch_live("c").await;
    let large = |text: &str| v1::Activity {
        summary: Some("x".repeat(256 << 10)),
        ..message(text)
    };
    // More than the connection takes before its reader reads.
    for number in 0..40 {
        gateway.user("c").posts(large(&number.to_string())).await;
        gateway.user("c").posts(typing()).await;
    }
    let mut seen = 0;
    let mut next = 0;
    while next < 40 {
        match live.step().await.expect("a step") {
            v1::watch_conversation_response::Step::Entry(entry) => {
                assert_eq!(text(&entry.activity), next.to_string());
                next += 1;
            }
            v1::watch_conversation_response::Step::Ephemeral(_) => seen += 1,
            v1::watch_conversation_response::Step::Position(_) => {}
            other => panic!("nothing else was asked for: {other:?}"),
        }
    }
    assert!(seen < 40, "some were dropped");
    assert_eq!(
        who(&live.ephemeral().await).1,
        "ann",
        "the newest is there, after the last"
    );
}

#[tokio::test]
async fn a_new_watcher_is_shown_nothing_of_before() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let mut first = gateway.watch_live("c").await;
    bot.types("web", "c");
    first.ephemeral().await;
    let mut second = Watcher::live(&gateway.wire(), "web", "c").await;
    bot.says("c", "done").await;
    second.expect(2, "done").await;
}

#[tokio::test]
async fn a_bot_frame_that_breaks_a_rule_is_refused() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    let frame = |activity: Option<v1::Activity>, conversation| {
        Asked::Ephemeral(v1::BotEphemeral {
            conversation,
            delivery_id: 0,
            activity: activity.map(Into::into),
        })
    };
    let here = Some(name("web", "c"));
    bot.write(frame(None, here.clone()));
    bot.expect_error("FRAME_INVALID").await;
    bot.write(frame(Some(message("hi")), here.clone()));
    bot.expect_error("FRAME_INVALID").await;
    bot.write(frame(Some(typing()), None));
    bot.expect_error("FRAME_INVALID").await;
    bot.write(frame(Some(typing()), Some(name("web", "other"))));
    bot.expect_error("CONVERSATION_UNKNOWN").await;
    gateway.user("d").on("second").says("hi").await;
    bot.write(frame(Some(typing()), Some(name("second", "d"))));
    bot.expect_error("CONVERSATION_UNKNOWN").await;
    // What is late is dropped without a word.
    bot.write(Asked::Ephemeral(v1::BotEphemeral {
        conversation: here,
        delivery_id: 77,
        activity: Some(typing().into()),
    }));
    bot.expect_quiet().await;
}

#[tokio::test]
async fn a_send_of_typing_is_fenced_as_any_other() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c").says("hi").await;
    let hi = bot.expect("c", "hi", 1).await;
    bot.acks(&hi).await;
    let send = v1::Send {
        client_id: "k".to_owned(),
        conversation: Some(name("web", "c")),
        activity: Some(typing().into()),
        delivery_id: hi.delivery_id,
    };
    assert_eq!(bot.send(send).await.outcome(), v1::AckOutcome::Stale);
}

#[tokio::test]
async fn typing_writes_nothing_to_the_store() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    begun(&gateway, &mut bot, "c").await;
    gateway.pass(Duration::from_millis(1)).await;
    let before = gateway.metric("turnwire_store_commits_total").await;
    for _ in 0..5 {
        gateway.user("c").posts(typing()).await;
        bot.types("web", "c");
    }
    for _ in 0..5 {
        bot.ephemeral().await;
    }
    assert_eq!(gateway.metric("turnwire_store_commits_total").await, before);
}
