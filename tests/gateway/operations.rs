//! What operators rely on.

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{Gateway, message, refused, seconds, within};

#[tokio::test]
async fn health_says_serving_for_every_service() {
    let gateway = Gateway::start().await;
    let mut client = HealthClient::new(gateway.wire().channel);
    for service in [
        "",
        "turnwire.v1.AdminService",
        "turnwire.v1.BotService",
        "turnwire.v1.ChannelService",
        "turnwire.v1.ConversationService",
        "turnwire.v1.StateService",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let health = within("health", client.check(request))
            .await
            .expect("it is known");
        assert_eq!(
            health.into_inner().status(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    let request = HealthCheckRequest {
        service: "nowhere".to_owned(),
    };
    assert_eq!(
        client.check(request).await.expect_err("unknown").code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let gateway = Gateway::start().await;
    let mut client = ServerReflectionClient::new(gateway.wire().channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = client.server_reflection_info(tokio_stream::once(request));
    let mut answers = within("reflection", asked)
        .await
        .expect("it answers")
        .into_inner();
    let answer = within("an answer", answers.message())
        .await
        .expect("no error")
        .expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list but {answer:?}")
    };
    let mut names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "turnwire.v1.AdminService",
            "turnwire.v1.BotService",
            "turnwire.v1.ChannelService",
            "turnwire.v1.ConversationService",
            "turnwire.v1.StateService",
        ]
    );
}

#[tokio::test]
async fn the_pages_for_machines_are_served_over_http_1() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(gateway.get("/readyz").await, (200, "ready\n".to_owned()));
    let (status, metrics) = gateway.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("turnwire_sessions{kind=\"bot\"} 0\n"));
}

#[tokio::test]
async fn a_path_that_is_not_there_is_not_found() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/nowhere").await.0, 404);
}

#[tokio::test]
async fn metrics_count_what_has_happened() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.commits(&delivery, &["one", "two"]).await;
    for (series, wanted) in [
        (
            "turnwire_activities_appended_total{author=\"channel\"}",
            1.0,
        ),
        ("turnwire_activities_appended_total{author=\"bot\"}", 2.0),
        ("turnwire_deliveries_total", 1.0),
        ("turnwire_redeliveries_total", 0.0),
        ("turnwire_acks_total{outcome=\"ok\"}", 1.0),
        ("turnwire_sessions{kind=\"bot\"}", 1.0),
        ("turnwire_conversations_resident", 1.0),
    ] {
        assert_eq!(gateway.metric(series).await, wanted, "{series}");
    }
}

#[tokio::test]
async fn refused_calls_and_frames_are_counted_by_reason() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    refused(
        gateway.user("c1").on("nowhere").tries(message("hi")).await,
        Code::NotFound,
        "CHANNEL_UNKNOWN",
    );
    bot.write_raw(None);
    bot.expect_error("FRAME_UNKNOWN").await;
    refused(
        gateway.bot("nobody").try_attach().await.map(drop),
        Code::NotFound,
        "BOT_UNKNOWN",
    );
    for reason in ["BOT_UNKNOWN", "CHANNEL_UNKNOWN", "FRAME_UNKNOWN"] {
        let series = format!("turnwire_rpc_errors_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&series).await, 1.0, "{reason}");
    }
}

#[tokio::test]
async fn a_shutdown_tells_the_sessions_waits_for_their_work_and_loses_nothing() {
    let setup = Gateway::setup().config(|config| config.limits.shutdown_grace = seconds(10));
    let mut gateway = setup.on_disk().start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut idle = gateway.bot("other").attach().await;
    gateway.user("c1").says("first").await;
    gateway.user("c1").says("second").await;
    let first = bot.expect("c1", "first", 1).await;
    gateway.begin_stop();
    let drain = bot.expect_drain().await;
    assert_eq!(drain.grace.expect("a grace").seconds, 10);
    assert!(drain.reconnect_after.is_some());
    idle.expect_drain().await;
    // What is in work may be finished, and nothing new is handed over.
    bot.commits(&first, &["in time"]).await;
    bot.expect_nothing().await;
    gateway.clock.advance(seconds(1));
    bot.expect_end(Code::Unavailable, "SHUTTING_DOWN").await;
    idle.expect_end(Code::Unavailable, "SHUTTING_DOWN").await;
    gateway.stopped().await;
    gateway.start_again().await;
    assert_eq!(gateway.texts("c1").await, ["first", "second", "in time"]);
    let mut bot = gateway.bot("echo").attach().await;
    bot.expect("c1", "second", 1).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_longer_than_its_grace() {
    let setup = Gateway::setup().config(|config| config.limits.shutdown_grace = seconds(10));
    let mut gateway = setup.start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    gateway.begin_stop();
    bot.expect_drain().await;
    // Sessions are told before the grace begins to run, so it may take a second push.
    let end = bot.end();
    tokio::pin!(end);
    let end = loop {
        gateway.clock.advance(seconds(10));
        match futures_util::poll!(&mut end) {
            std::task::Poll::Ready(end) => break end,
            std::task::Poll::Pending => tokio::task::yield_now().await,
        }
    };
    refused(
        Err::<(), _>(end.expect("a status")),
        Code::Unavailable,
        "SHUTTING_DOWN",
    );
    gateway.stopped().await;
    gateway.start_again().await;
    gateway
        .bot("echo")
        .attach()
        .await
        .expect("c1", "hi", 2)
        .await;
}

#[tokio::test]
async fn idle_conversations_leave_memory_and_come_back_as_they_were() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let series = "turnwire_conversations_resident";
    for number in 0..300 {
        let conversation = format!("c{number}");
        gateway.user(&conversation).says("hi").await;
        let delivery = bot.expect(&conversation, "hi", 1).await;
        bot.acks(&delivery).await;
    }
    assert_eq!(gateway.metric(series).await, 300.0);
    gateway.pass_slowly(12).await;
    assert_eq!(gateway.metric(series).await, 0.0);
    gateway.user("c7").says("again").await;
    assert_eq!(gateway.metric(series).await, 1.0);
    let again = bot.expect("c7", "again", 1).await;
    assert_eq!(again.sequence, 2);
}

#[tokio::test]
async fn what_waits_for_a_bot_that_is_away_costs_no_memory() {
    let gateway = Gateway::start().await;
    for number in 0..300 {
        gateway.user(&format!("c{number}")).says("hi").await;
    }
    gateway.pass_slowly(12).await;
    assert_eq!(gateway.metric("turnwire_conversations_resident").await, 0.0);
    let mut bot = gateway.bot("echo").attach().await;
    assert_eq!(bot.waiting().await.len(), 300);
}
