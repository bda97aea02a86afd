//! What each change does.

use tonic::Code;
use turnwire::proto::v1;
use turnwire::proto::v1::list_conversations_request::Filter;

use crate::harness::{Gateway, Watcher, name, refused, seconds, within};

const OTHER: &str = "[[bots]]\nid = \"other\"\n";
const WEB: &str = "id = \"web\"\nkind = \"grpc\"\nbot = \"echo\"\n";

/// Nobody is called `echo` any more: its channels are `other`'s.
fn without_echo(config: &str) -> String {
    config
        .replace("[[bots]]\nid = \"echo\"\nname = \"Echo\"\n", "")
        .replace("bot = \"echo\"", "bot = \"other\"")
}

/// Channel `web` alone is routed to `other`.
fn rerouted(config: &str) -> String {
    assert!(config.contains(WEB));
    config.replace(WEB, &WEB.replace("echo", "other"))
}

async fn of_bot(gateway: &Gateway, bot: &str) -> Vec<String> {
    let request = v1::ListConversationsRequest {
        filter: Some(Filter::BotId(bot.to_owned())),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let page = within("a page", client.list_conversations(request)).await;
    let conversations = page.expect("a page").into_inner().conversations;
    let names = conversations.into_iter().filter_map(|c| c.name);
    names.map(|name| name.conversation_id).collect()
}

#[tokio::test]
async fn a_bot_that_is_added_attaches_and_is_handed_what_comes_for_it() {
    let mut gateway = Gateway::start().await;
    let unknown = gateway.bot("helper").try_attach().await;
    refused(unknown.map(drop), Code::NotFound, "BOT_UNKNOWN");
    gateway
        .reload(|config| {
            let config = config.replace(WEB, &WEB.replace("echo", "helper"));
            format!("{config}\n[[bots]]\nid = \"helper\"\nname = \"Helper\"\n")
        })
        .await
        .expect("it is in force");
    let mut helper = gateway.bot("helper").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = helper.expect("c1", "hi", 1).await;
    helper.commits(&delivery, &["hello"]).await;
    let log = gateway.log("c1").await;
    let from = log[1].activity.as_ref().and_then(|said| said.from.as_ref());
    assert_eq!(from.and_then(|from| from.name.as_deref()), Some("Helper"));
}

#[tokio::test]
async fn a_bot_that_is_removed_is_told_and_the_channels_bot_joins_for_what_comes_then() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    gateway.user("c1").says("two").await;
    echo.expect("c1", "one", 1).await;

    gateway.reload(without_echo).await.expect("it is in force");
    echo.expect_end(Code::NotFound, "BOT_UNKNOWN").await;
    other.expect_nothing().await;
    gateway.user("c1").says("three").await;
    let delivery = other.expect("c1", "three", 1).await;
    other.commits(&delivery, &["yes"]).await;
    assert_eq!(of_bot(&gateway, "other").await, ["c1"]);
    let again = gateway.bot("echo").try_attach().await;
    refused(again.map(drop), Code::NotFound, "BOT_UNKNOWN");

    // What it had not finished is still its own when it is back, as after a restart.
    gateway.reload(str::to_owned).await.expect("it is in force");
    let mut echo = gateway.bot("echo").attach().await;
    for (text, attempt) in [("one", 2), ("two", 1), ("three", 1)] {
        let delivery = echo.expect("c1", text, attempt).await;
        echo.acks(&delivery).await;
    }
    echo.expect_nothing().await;
    other.expect_nothing().await;
}

#[tokio::test]
async fn conversations_come_to_the_same_by_a_reload_as_by_a_restart() {
    let mut after = Vec::new();
    for by_restart in [false, true] {
        let mut gateway = Gateway::start().await;
        let mut echo = gateway.bot("echo").attach().await;
        for conversation in ["finished", "held", "waiting"] {
            gateway.user(conversation).says("before").await;
            let delivery = echo.expect(conversation, "before", 1).await;
            if conversation != "held" {
                echo.acks(&delivery).await;
            }
        }
        gateway.user("waiting").says("more").await;
        echo.expect("waiting", "more", 1).await;
        if by_restart {
            gateway.rewrite(without_echo);
            gateway.restart().await;
        } else {
            gateway.reload(without_echo).await.expect("it is in force");
        }
        gateway.settle().await;
        let mut other = gateway.bot("other").attach().await;
        other.expect_nothing().await;
        for conversation in ["finished", "held", "waiting"] {
            gateway.user(conversation).says("after").await;
            let delivery = other.expect(conversation, "after", 1).await;
            other.commits(&delivery, &["yes"]).await;
        }
        let mut listed = of_bot(&gateway, "other").await;
        listed.sort();
        let mut echoes = of_bot(&gateway, "echo").await;
        echoes.sort();
        gateway.pass_slowly(2).await;
        let backlog = gateway.metric("turnwire_undelivered{bot=\"other\"}").await;
        after.push((listed, echoes, backlog, gateway.texts("held").await));
    }
    assert_eq!(after[0], after[1]);
}

#[tokio::test]
async fn a_conversation_stays_with_its_bot_when_its_channel_is_routed_elsewhere() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("old").says("hi").await;
    let delivery = echo.expect("old", "hi", 1).await;
    gateway.reload(rerouted).await.expect("it is in force");
    echo.commits(&delivery, &["hello"]).await;
    gateway.user("old").says("still you").await;
    let delivery = echo.expect("old", "still you", 1).await;
    echo.acks(&delivery).await;
    gateway.user("new").says("and you").await;
    let delivery = other.expect("new", "and you", 1).await;
    other.acks(&delivery).await;
    echo.expect_nothing().await;
}

#[tokio::test]
async fn deadlines_and_attempts_count_from_the_next_delivery_on() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    gateway.user("c1").says("before").await;
    echo.expect("c1", "before", 1).await;
    gateway
        .reload(|config| {
            let settings = "id = \"echo\"\ndelivery_deadline = \"5s\"\ndelivery_attempts = 2\n";
            config.replace("id = \"echo\"\n", settings)
        })
        .await
        .expect("it is in force");
    gateway.user("c2").says("after").await;
    echo.expect("c2", "after", 1).await;
    gateway.pass(seconds(5)).await;
    echo.expect("c2", "after", 2).await;
    echo.expect_nothing().await;
    gateway.pass(seconds(5)).await;
    assert_eq!(gateway.metric("turnwire_dead_letters_total").await, 1.0);
    // The deadline that it was handed over with: a minute.
    gateway.pass(seconds(50)).await;
    echo.expect("c1", "before", 2).await;
}

#[tokio::test]
async fn a_channel_that_is_removed_takes_nothing_more_and_its_adapters_end() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    let user = gateway.user("q1").on("queue");
    user.says("hi").await;
    let delivery = echo.expect("q1", "hi", 1).await;
    let queue = "[[channels]]\nid = \"queue\"\nkind = \"grpc\"\nbot = \"echo\"\n\
                 service_url = \"https://adapter.example.org/\"\n";
    let without = |config: &str| {
        assert!(config.contains(queue));
        config.replace(queue, "")
    };
    gateway.reload(without).await.expect("it is in force");
    adapter.expect_end(Code::NotFound, "CHANNEL_UNKNOWN").await;
    let refusal = user.tries(crate::harness::message("more")).await;
    refused(refusal, Code::NotFound, "CHANNEL_UNKNOWN");
    let again = gateway.adapter("queue").try_attach().await;
    refused(again.map(drop), Code::NotFound, "CHANNEL_UNKNOWN");
    // What was posted before is still answered, and waits until the channel is back.
    echo.commits(&delivery, &["hello"]).await;
    gateway.reload(str::to_owned).await.expect("it is in force");
    let mut adapter = gateway.adapter("queue").attach().await;
    let outbound = adapter.expect("hello", 1).await;
    adapter.delivered(&outbound).await;
    user.says("more").await;
    echo.expect("q1", "more", 1).await;
}

#[tokio::test]
async fn a_channels_way_out_changes_for_conversations_that_are_there() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut adapter = gateway.adapter("queue").attach().await;
    let user = gateway.user("q1").on("queue");
    user.says("one").await;
    let delivery = echo.expect("q1", "one", 1).await;
    echo.commits(&delivery, &["first", "second"]).await;
    let held = adapter.expect("first", 1).await;

    let url = "service_url = \"https://adapter.example.org/\"\n";
    let watched = |config: &str| config.replace(url, "outbound = \"watch\"\n");
    gateway.reload(watched).await.expect("it is in force");
    gateway.settle().await;
    adapter.write(v1::attach_request::Frame::Outcome(v1::Outcome {
        delivery_id: held.delivery_id,
        result: Some(v1::outcome::Result::Delivered(v1::Delivered::default())),
    }));
    adapter.expect_error("DELIVERY_STALE").await;
    user.says("two").await;
    let delivery = echo.expect("q1", "two", 1).await;
    echo.commits(&delivery, &["third"]).await;
    adapter.expect_nothing().await;

    gateway.reload(str::to_owned).await.expect("it is in force");
    user.says("three").await;
    let delivery = echo.expect("q1", "three", 1).await;
    echo.commits(&delivery, &["fourth"]).await;
    adapter.expect("fourth", 1).await;
}

#[tokio::test]
async fn a_delivery_is_still_held_when_the_channels_way_out_goes() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let user = gateway.user("q1").on("queue");
    user.says("one").await;
    let delivery = echo.expect("q1", "one", 1).await;
    echo.acks(&delivery).await;
    // Its seat is after the one of the channel.
    gateway.reload(without_echo).await.expect("it is in force");
    let mut other = gateway.bot("other").attach().await;
    user.says("two").await;
    let delivery = other.expect("q1", "two", 1).await;
    let url = "service_url = \"https://adapter.example.org/\"\n";
    gateway
        .reload(|config| without_echo(config).replace(url, "outbound = \"watch\"\n"))
        .await
        .expect("it is in force");
    gateway.settle().await;
    other.commits(&delivery, &["hello"]).await;
    user.says("three").await;
    let delivery = other.expect("q1", "three", 1).await;
    other.acks(&delivery).await;
}

#[tokio::test]
async fn capabilities_are_those_in_force() {
    let mut gateway = Gateway::start().await;
    let group = || {
        let mut said = crate::harness::message("hi");
        said.conversation = Some(v1::ConversationAccount {
            id: Some("g1".to_owned()),
            is_group: Some(true),
            ..Default::default()
        });
        said
    };
    let user = gateway.user("g1");
    let refusal = user.tries(group()).await;
    refused(refusal, Code::FailedPrecondition, "GROUPS_UNSUPPORTED");
    gateway
        .reload(|config| config.replace(WEB, &format!("{WEB}capabilities = [\"groups\"]\n")))
        .await
        .expect("it is in force");
    gateway.user("g1").posts(group()).await;
}

#[tokio::test]
async fn limits_are_in_force_for_what_is_asked_from_then_on() {
    let mut gateway = Gateway::start().await;
    let user = gateway.user("c1");
    user.says(&"x".repeat(4_096)).await;
    let mut first = gateway.watch("c1", 0).await;
    let mut second = gateway.watch("c1", 0).await;
    first.entry().await;
    second.entry().await;
    gateway
        .relimit(|limits| {
            limits.activity_bytes = 2_048;
            limits.channel_data_bytes = 1_024;
            limits.watchers = 1;
            limits.sessions = 1;
        })
        .await
        .expect("it is in force");
    let large = user
        .tries(crate::harness::message(&"x".repeat(4_096)))
        .await;
    refused(large, Code::InvalidArgument, "ACTIVITY_TOO_LARGE");
    let third = Watcher::start(&gateway.wire(), "c1", None).await;
    let facts = refused(
        third.map(drop),
        Code::ResourceExhausted,
        "TOO_MANY_WATCHERS",
    );
    assert_eq!(facts["limit"], "watchers=1");
    let _bot = gateway.bot("echo").attach().await;
    let more = gateway.bot("other").try_attach().await;
    refused(more.map(drop), Code::ResourceExhausted, "TOO_MANY_SESSIONS");
    // Those who watch go on, though there are too many.
    user.says("hi").await;
    first.expect(2, "hi").await;
    second.expect(2, "hi").await;

    gateway
        .relimit(|limits| {
            limits.watchers = 4;
            limits.sessions = 100;
        })
        .await
        .expect("it is in force");
    let mut third = gateway.watch("c1", 1).await;
    third.expect(2, "hi").await;
    gateway.bot("other").attach().await.barrier().await;
}

#[tokio::test]
async fn a_stream_keeps_the_heartbeat_that_it_was_told() {
    let mut gateway = Gateway::setup()
        .config(|config| config.limits.heartbeat_interval = seconds(20))
        .start()
        .await;
    let mut old = gateway.bot("echo").attach().await;
    gateway
        .relimit(|limits| limits.heartbeat_interval = seconds(100))
        .await
        .expect("it is in force");
    let mut new = gateway.bot("other").attach().await;
    let told = new.welcome.heartbeat_interval;
    assert_eq!(told, Some(crate::harness::duration(seconds(100))));
    gateway.clock.advance(seconds(21));
    old.expect_heartbeat().await;
    gateway.clock.advance(seconds(21));
    old.expect_end(Code::DeadlineExceeded, "HEARTBEAT_MISSED")
        .await;
    new.barrier().await;
}

#[tokio::test]
async fn a_reload_that_names_nobody_new_leaves_sessions_and_their_deliveries_alone() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = echo.expect("c1", "hi", 1).await;
    let extra = format!("{OTHER}name = \"Other\"\n");
    gateway
        .reload(|config| config.replace(OTHER, &extra))
        .await
        .expect("it is in force");
    echo.commits(&delivery, &["hello"]).await;
    let got = gateway.conversation("c1").await;
    assert_eq!(got.name, Some(name("web", "c1")));
    echo.expect_nothing().await;
}
