//! CreateConversation: what it asks of a channel's adapter, and what it makes of the answer.

use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use turnwire::auth::secret::Digest;
use turnwire::proto::v1;
use turnwire::proto::v1::attach_request::Frame as Asked;
use turnwire::proto::v1::conversation_created::Result as Begun;

use crate::harness::{
    Adapter, Gateway, Wire, duration, message, name, refused, said, seconds, text, within,
};

fn account(id: &str) -> v1::ChannelAccount {
    v1::ChannelAccount {
        id: Some(id.to_owned()),
        ..Default::default()
    }
}

/// A conversation with `zoe` on `queue`, and a first message.
fn wish(request_id: &str) -> v1::CreateConversationRequest {
    v1::CreateConversationRequest {
        request_id: request_id.to_owned(),
        channel_id: "queue".to_owned(),
        members: vec![account("zoe")],
        activity: Some(message("good morning").into()),
        ..Default::default()
    }
}

fn create(
    wire: &Wire,
    request: v1::CreateConversationRequest,
) -> JoinHandle<Result<v1::CreateConversationResponse, Status>> {
    let mut client = wire.conversations();
    tokio::spawn(async move {
        let created = within("an answer", client.create_conversation(request)).await?;
        Ok(created.into_inner())
    })
}

type Answer = Result<v1::CreateConversationResponse, Status>;

async fn answer(creating: JoinHandle<Answer>) -> Answer {
    within("an answer", creating)
        .await
        .expect("it does not panic")
}

async fn created(creating: JoinHandle<Answer>) -> v1::CreateConversationResponse {
    answer(creating).await.expect("it is created")
}

fn id_of(created: &v1::CreateConversationResponse) -> String {
    let conversation = created.conversation.as_ref();
    let name = conversation.and_then(|conversation| conversation.name.clone());
    name.expect("a conversation with a name").conversation_id
}

/// An adapter of `queue` whose channel can create.
async fn attach(gateway: &Gateway, instance: &str) -> Adapter {
    let capabilities = v1::ChannelCapabilities {
        create: true,
        ..Default::default()
    };
    let opening = gateway.adapter("queue").instance(instance);
    let opening = opening.hello(|hello| hello.capabilities = Some(capabilities));
    opening.attach().await
}

/// What a gateway refuses, it refuses before the channel is asked and before anything is written.
async fn is_refused(
    gateway: &Gateway,
    request: v1::CreateConversationRequest,
    code: Code,
    reason: &str,
) -> Status {
    gateway.settle().await;
    let before = gateway.memory().len();
    let status = answer(create(&gateway.wire(), request)).await;
    let status = status.expect_err("it is refused");
    refused::<()>(Err(status.clone()), code, reason);
    gateway.settle().await;
    assert_eq!(gateway.memory().len(), before, "nothing was written");
    status
}

fn field_of(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    info.metadata.get("field").cloned().unwrap_or_default()
}

#[tokio::test]
async fn the_channel_is_asked_and_the_bot_is_told_and_speaks_first() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let mut bot = gateway.bot("echo").attach().await;
    let creating = create(&gateway.wire(), wish("r1"));
    let asked = adapter.begins("theirs").await;
    let expected = v1::CreateConversation {
        request_id: asked.request_id.clone(),
        bot: Some(v1::ChannelAccount {
            id: Some("echo".to_owned()),
            name: Some("Echo".to_owned()),
            role: Some("bot".to_owned()),
            ..Default::default()
        }),
        members: vec![account("zoe")],
        ..Default::default()
    };
    assert_eq!(asked, expected);
    let created = created(creating).await;
    assert!(!created.repeated_creation && !created.existed);
    let conversation = created.conversation.expect("a conversation");
    assert_eq!(conversation.name, Some(name("queue", "theirs")));
    assert_eq!(conversation.bot_ids, ["echo"]);
    assert!(!conversation.is_group);
    let reference = conversation.reference.expect("a reference");
    assert_eq!(reference.user, Some(account("zoe")));
    assert_eq!(
        reference.service_url.as_deref(),
        Some("https://adapter.example.org/")
    );
    let appended = created.appended.expect("where the first was appended");
    assert_eq!(appended.sequence, 2);

    let log = gateway.log_on("queue", "theirs").await;
    assert_eq!(log.len(), 2);
    assert_eq!(text(&log[1].activity), "good morning");
    let delivery = bot.next_delivery().await;
    let update = delivery.activity.as_ref().expect("an activity");
    assert_eq!(update.r#type.as_deref(), Some("conversationUpdate"));
    assert_eq!(update.members_added, [account("zoe")]);
    bot.acks(&delivery).await;
    bot.expect_nothing().await;
    let outbound = adapter.expect("good morning", 1).await;
    assert_eq!(outbound.conversation, Some(name("queue", "theirs")));
    let said = outbound.activity.as_ref().expect("an activity");
    assert_eq!(said.recipient, Some(account("zoe")));
    adapter.delivered(&outbound).await;
    // It is a conversation as any other.
    gateway
        .user("theirs")
        .on("queue")
        .named("zoe")
        .says("hi")
        .await;
    bot.expect("theirs", "hi", 1).await;
}

#[tokio::test]
async fn what_the_channel_knows_better_is_taken_and_the_rest_from_the_request() {
    let gateway = Gateway::start().await;
    let both = v1::ChannelCapabilities {
        create: true,
        groups: true,
        ..Default::default()
    };
    let opening = gateway.adapter("queue");
    let opening = opening.hello(|hello| hello.capabilities = Some(both));
    let mut adapter = opening.attach().await;
    let channel_data = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue("theirs".to_owned())),
    };
    let request = v1::CreateConversationRequest {
        members: vec![account("zoe"), account("yan")],
        is_group: true,
        topic_name: "tea".to_owned(),
        tenant_id: "t1".to_owned(),
        channel_data: Some(channel_data.clone()),
        activity: None,
        ..wish("r1")
    };
    let creating = create(&gateway.wire(), request);
    let asked = adapter.next_creation().await;
    assert!(asked.is_group);
    assert_eq!((&*asked.topic_name, &*asked.tenant_id), ("tea", "t1"));
    assert_eq!(asked.channel_data, Some(channel_data.clone()));
    adapter.answer(
        &asked.request_id,
        Begun::Created(v1::Created {
            conversation: Some(v1::ConversationAccount {
                id: Some("g1".to_owned()),
                tenant_id: Some("t2".to_owned()),
                ..Default::default()
            }),
            members: vec![account("zoe@theirs"), account("yan@theirs")],
            service_url: "https://elsewhere.example.org/".to_owned(),
        }),
    );
    let created = created(creating).await;
    assert_eq!(created.appended, None);
    let conversation = created.conversation.expect("a conversation");
    assert!(conversation.is_group);
    let reference = conversation.reference.expect("a reference");
    assert_eq!(
        reference.service_url.as_deref(),
        Some("https://elsewhere.example.org/")
    );
    let place = reference.conversation.expect("a place");
    assert_eq!(place.name.as_deref(), Some("tea"));
    assert_eq!(place.tenant_id.as_deref(), Some("t2"));
    let log = gateway.log_on("queue", "g1").await;
    let update = log[0].activity.as_ref().expect("an activity");
    assert_eq!(
        update.members_added,
        [account("zoe@theirs"), account("yan@theirs")]
    );
    assert_eq!(update.channel_data, Some(channel_data));
    assert_eq!(update.topic_name.as_deref(), Some("tea"));
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn a_repeat_returns_the_same_conversation_and_asks_nobody() {
    for on_disk in [false, true] {
        let setup = Gateway::setup();
        let setup = if on_disk { setup.on_disk() } else { setup };
        let mut gateway = setup.start().await;
        let mut adapter = attach(&gateway, "one").await;
        let creating = create(&gateway.wire(), wish("r1"));
        adapter.begins("theirs").await;
        let first = created(creating).await;
        let again = created(create(&gateway.wire(), wish("r1"))).await;
        assert!(again.repeated_creation);
        assert_eq!(again.appended, first.appended);
        assert_eq!(id_of(&again), "theirs");
        adapter.expect_no_creation().await;
        drop(adapter);
        gateway.crash().await;
        // No adapter is needed for what is there.
        let again = created(create(&gateway.wire(), wish("r1"))).await;
        assert_eq!(id_of(&again), "theirs");
        assert_eq!(gateway.log_on("queue", "theirs").await.len(), 2);
        // Another id is another conversation.
        let mut adapter = attach(&gateway, "one").await;
        let creating = create(&gateway.wire(), wish("r2"));
        adapter.begins("another").await;
        assert_eq!(id_of(&created(creating).await), "another");
    }
}

#[tokio::test]
async fn the_same_id_for_something_else_is_refused() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    adapter.begins("theirs").await;
    created(creating).await;
    for other in [
        v1::CreateConversationRequest {
            members: vec![account("yan")],
            ..wish("r1")
        },
        v1::CreateConversationRequest {
            activity: Some(message("good evening").into()),
            ..wish("r1")
        },
    ] {
        let code = Code::FailedPrecondition;
        is_refused(&gateway, other, code, "IDEMPOTENCY_MISMATCH").await;
    }
    adapter.expect_no_creation().await;
}

#[tokio::test]
async fn a_repeat_while_the_channel_is_asked_waits_for_the_same_answer() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let first = create(&gateway.wire(), wish("r1"));
    let asked = adapter.next_creation().await;
    let second = create(&gateway.wire(), wish("r1"));
    gateway.settle().await;
    adapter.expect_no_creation().await;
    let theirs = v1::ConversationAccount {
        id: Some("theirs".to_owned()),
        ..Default::default()
    };
    let begun = v1::Created {
        conversation: Some(theirs),
        ..Default::default()
    };
    adapter.answer(&asked.request_id, Begun::Created(begun));
    let (first, second) = (created(first).await, created(second).await);
    let repeated = [first.repeated_creation, second.repeated_creation];
    assert_eq!(repeated.into_iter().filter(|repeated| *repeated).count(), 1);
    assert_eq!(first.conversation, second.conversation);
    assert_eq!(gateway.log_on("queue", "theirs").await.len(), 2);
    adapter.expect_no_creation().await;
}

#[tokio::test]
async fn what_the_caller_does_not_wait_for_is_still_begun_and_a_repeat_finds_it() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let asked = adapter.next_creation().await;
    creating.abort();
    gateway.settle().await;
    let theirs = v1::ConversationAccount {
        id: Some("theirs".to_owned()),
        ..Default::default()
    };
    let begun = v1::Created {
        conversation: Some(theirs),
        ..Default::default()
    };
    adapter.answer(&asked.request_id, Begun::Created(begun));
    adapter.expect("good morning", 1).await;
    let again = created(create(&gateway.wire(), wish("r1"))).await;
    assert!(again.repeated_creation);
    adapter.expect_no_creation().await;
}

#[tokio::test]
async fn the_same_request_has_the_same_name_at_the_adapter_and_no_other_has() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let mut names = Vec::new();
    let elsewhere = v1::CreateConversationRequest {
        bot_id: "other".to_owned(),
        ..wish("r1")
    };
    let unkeyed = || wish("");
    for request in [
        wish("r1"),
        wish("r1"),
        wish("r2"),
        elsewhere,
        unkeyed(),
        unkeyed(),
    ] {
        let creating = create(&gateway.wire(), request);
        let asked = adapter.next_creation().await;
        assert!(!asked.request_id.is_empty() && asked.request_id.len() <= 64);
        names.push(asked.request_id.clone());
        let later = v1::RetryLater::default();
        adapter.answer(&asked.request_id, Begun::Retry(later));
        let status = answer(creating).await;
        refused(status.map(drop), Code::Unavailable, "CREATION_DEFERRED");
    }
    assert_eq!(names[0], names[1]);
    names.remove(0);
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
}

#[tokio::test]
async fn a_channel_that_cannot_or_has_no_adapter_is_not_asked() {
    let gateway = Gateway::start().await;
    let cannot = |channel: &str| v1::CreateConversationRequest {
        channel_id: channel.to_owned(),
        ..wish("r1")
    };
    let code = Code::FailedPrecondition;
    let mut adapter = gateway.adapter("queue").attach().await;
    for channel in ["queue", "web", "site"] {
        is_refused(&gateway, cannot(channel), code, "CAPABILITY_MISSING").await;
    }
    adapter.expect_no_creation().await;
    drop(adapter);
    drop(attach(&gateway, "two").await);
    gateway.settle().await;
    // It can, by what was declared, and nobody is there.
    let absent = async {
        loop {
            let status = answer(create(&gateway.wire(), wish("r1"))).await;
            let status = status.expect_err("it is refused");
            let details = status.get_error_details();
            let reason = details.error_info().expect("a reason").reason.clone();
            // Until the gateway has noticed that the stream is gone.
            if reason != "ADAPTER_LOST" {
                return status;
            }
        }
    };
    let status = within("an absent adapter", absent).await;
    refused::<()>(Err(status), Code::Unavailable, "ADAPTER_ABSENT");
}

#[tokio::test]
async fn groups_are_refused_on_a_channel_that_has_none() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let group = v1::CreateConversationRequest {
        is_group: true,
        ..wish("r1")
    };
    let code = Code::FailedPrecondition;
    is_refused(&gateway, group, code, "GROUPS_UNSUPPORTED").await;
    adapter.expect_no_creation().await;
    // Nor does the channel's answer make one.
    let creating = create(&gateway.wire(), wish("r2"));
    let asked = adapter.next_creation().await;
    let group = v1::ConversationAccount {
        id: Some("g1".to_owned()),
        is_group: Some(true),
        ..Default::default()
    };
    let begun = v1::Created {
        conversation: Some(group),
        ..Default::default()
    };
    adapter.answer(&asked.request_id, Begun::Created(begun));
    let answer = answer(creating).await;
    refused(answer.map(drop), code, "GROUPS_UNSUPPORTED");
}

#[tokio::test]
async fn requests_that_break_a_rule_say_which_field() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    type Change = fn(&mut v1::CreateConversationRequest);
    let changes: [(&str, Change); 12] = [
        ("channel_id", |r| r.channel_id.clear()),
        ("request_id", |r| r.request_id = "x".repeat(257)),
        ("bot_id", |r| r.bot_id = "a\0b".to_owned()),
        ("members", |r| r.members.clear()),
        ("members", |r| r.members.push(account("yan"))),
        ("members", |r| {
            r.is_group = true;
            r.members.push(account("zoe"));
        }),
        ("members", |r| r.members = vec![account("echo")]),
        ("members", |r| r.members = vec![account("")]),
        ("members", |r| {
            r.members = (0..1_001).map(|n| account(&n.to_string())).collect();
        }),
        ("topic_name", |r| r.topic_name = "x".repeat(513)),
        ("tenant_id", |r| r.tenant_id = "a\nb".to_owned()),
        ("activity.type", |r| {
            let update = Some("messageUpdate".to_owned());
            r.activity.as_mut().expect("it has one").r#type = update;
        }),
    ];
    for (field, change) in changes {
        let mut request = wish("r1");
        change(&mut request);
        let code = Code::InvalidArgument;
        let status = is_refused(&gateway, request, code, "REQUEST_INVALID").await;
        assert_eq!(field_of(&status), field);
    }
    let mut request = wish("r1");
    request.channel_data = Some(prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue("x".repeat(65 << 10))),
    });
    let code = Code::InvalidArgument;
    is_refused(&gateway, request, code, "CHANNEL_DATA_TOO_LARGE").await;
    for (channel, bot, reason) in [
        ("nowhere", "", "CHANNEL_UNKNOWN"),
        ("nowhere", "echo", "CHANNEL_UNKNOWN"),
        ("queue", "nobody", "BOT_UNKNOWN"),
    ] {
        let request = v1::CreateConversationRequest {
            channel_id: channel.to_owned(),
            bot_id: bot.to_owned(),
            ..wish("r1")
        };
        is_refused(&gateway, request, Code::NotFound, reason).await;
    }
    adapter.expect_no_creation().await;
}

#[tokio::test]
async fn what_the_channel_refuses_or_puts_off_is_said_with_its_words_and_its_time() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let asked = adapter.next_creation().await;
    let reason = "zoe has blocked this bot".to_owned();
    adapter.answer(&asked.request_id, Begun::Refused(v1::Refused { reason }));
    let status = answer(creating).await.expect_err("it is refused");
    assert!(status.message().contains("zoe has blocked this bot"));
    refused::<()>(Err(status), Code::FailedPrecondition, "CREATION_REFUSED");

    // A refusal is no result: the channel is asked again.
    let creating = create(&gateway.wire(), wish("r1"));
    let asked = adapter.next_creation().await;
    let delay = Some(duration(seconds(40)));
    adapter.answer(&asked.request_id, Begun::Retry(v1::RetryLater { delay }));
    let status = answer(creating).await.expect_err("it is put off");
    let details = status.get_error_details();
    let retry = details.retry_info().expect("when to try again");
    assert_eq!(retry.retry_delay, Some(seconds(40)));
    refused::<()>(Err(status), Code::Unavailable, "CREATION_DEFERRED");

    let creating = create(&gateway.wire(), wish("r1"));
    adapter.begins("theirs").await;
    assert!(!created(creating).await.repeated_creation);
}

#[tokio::test]
async fn a_channel_that_does_not_answer_in_time_is_not_waited_for_and_asked_again_under_the_name() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let first = adapter.next_creation().await;
    gateway.pass(seconds(29)).await;
    assert!(!creating.is_finished());
    gateway.pass(seconds(1)).await;
    let status = answer(creating).await;
    refused(status.map(drop), Code::DeadlineExceeded, "CREATION_TIMEOUT");
    // Too late, and it is told so.
    let refusal = v1::Refused::default();
    adapter.answer(&first.request_id, Begun::Refused(refusal));
    let error = adapter.expect_error("CREATION_UNKNOWN").await;
    assert_eq!(error.client_id, first.request_id);
    let creating = create(&gateway.wire(), wish("r1"));
    let second = adapter.begins("theirs").await;
    assert_eq!(second.request_id, first.request_id);
    created(creating).await;
}

#[tokio::test]
async fn an_adapter_that_goes_away_answers_no_more_and_another_is_asked() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let first = adapter.next_creation().await;
    drop(adapter);
    let status = answer(creating).await;
    refused(status.map(drop), Code::Unavailable, "ADAPTER_LOST");
    let mut adapter = attach(&gateway, "two").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let second = adapter.begins("theirs").await;
    assert_eq!(second.request_id, first.request_id);
    created(creating).await;
}

#[tokio::test]
async fn an_adapter_that_is_replaced_answers_no_more() {
    let gateway = Gateway::start().await;
    let mut first = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    first.next_creation().await;
    let mut second = attach(&gateway, "one").await;
    let status = answer(creating).await;
    refused(status.map(drop), Code::Unavailable, "ADAPTER_LOST");
    first.expect_end(Code::Aborted, "SESSION_REPLACED").await;
    let creating = create(&gateway.wire(), wish("r1"));
    second.begins("theirs").await;
    created(creating).await;
}

#[tokio::test]
async fn only_the_adapter_that_was_asked_answers() {
    let gateway = Gateway::start().await;
    let mut one = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let asked = one.next_creation().await;
    let mut two = attach(&gateway, "two").await;
    for (adapter, request_id) in [(&mut two, &*asked.request_id), (&mut one, "something else")] {
        let refusal = v1::Refused::default();
        adapter.answer(request_id, Begun::Refused(refusal));
        let error = adapter.expect_error("CREATION_UNKNOWN").await;
        assert_eq!(error.client_id, request_id);
    }
    assert!(!creating.is_finished());
    let theirs = v1::ConversationAccount {
        id: Some("theirs".to_owned()),
        ..Default::default()
    };
    let begun = v1::Created {
        conversation: Some(theirs),
        ..Default::default()
    };
    one.answer(&asked.request_id, Begun::Created(begun.clone()));
    created(creating).await;
    // And once.
    one.answer(&asked.request_id, Begun::Created(begun));
    one.expect_error("CREATION_UNKNOWN").await;
}

#[tokio::test]
async fn answers_that_break_a_rule_are_refused_and_another_is_taken() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    let asked = adapter.next_creation().await;
    let begun = |id: &str| v1::Created {
        conversation: Some(v1::ConversationAccount {
            id: Some(id.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let named = v1::Created {
        conversation: Some(v1::ConversationAccount {
            id: Some("theirs".to_owned()),
            name: Some("x".repeat(17 << 10)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let long = v1::Created {
        service_url: "x".repeat(2_049),
        ..begun("theirs")
    };
    let nobody = v1::Created {
        members: vec![account("")],
        ..begun("theirs")
    };
    let crowd = v1::Created {
        members: (0..1_001).map(|n| account(&n.to_string())).collect(),
        ..begun("theirs")
    };
    let late = v1::RetryLater {
        delay: Some(duration(seconds(601))),
    };
    for (result, field) in [
        (None, "result"),
        (
            Some(Begun::Created(v1::Created::default())),
            "created.conversation.id",
        ),
        (
            Some(Begun::Created(begun("a\0b"))),
            "created.conversation.id",
        ),
        (Some(Begun::Created(named)), "created.conversation"),
        (Some(Begun::Created(long)), "created.service_url"),
        (Some(Begun::Created(nobody)), "created.members.id"),
        (Some(Begun::Created(crowd)), "created.members"),
        (Some(Begun::Retry(late)), "retry.delay"),
    ] {
        adapter.write(Asked::ConversationCreated(v1::ConversationCreated {
            request_id: asked.request_id.clone(),
            result,
        }));
        let error = adapter.expect_error("FRAME_INVALID").await;
        assert_eq!(error.metadata["field"], field);
        assert_eq!(error.client_id, asked.request_id);
    }
    adapter.answer(&asked.request_id, Begun::Created(begun("theirs")));
    assert_eq!(id_of(&created(creating).await), "theirs");
}

#[tokio::test]
async fn a_conversation_that_is_known_is_gone_on_with() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway
        .user("theirs")
        .on("queue")
        .named("zoe")
        .says("hi")
        .await;
    let delivery = bot.next_delivery().await;
    bot.acks(&delivery).await;
    let creating = create(&gateway.wire(), wish("r1"));
    adapter.begins("theirs").await;
    let first = created(creating).await;
    assert!(first.existed && !first.repeated_creation);
    let log = gateway.log_on("queue", "theirs").await;
    assert_eq!(log.len(), 2, "nobody joined");
    assert_eq!(text(&log[1].activity), "good morning");
    bot.expect_nothing().await;
    let again = created(create(&gateway.wire(), wish("r1"))).await;
    assert!(again.repeated_creation);
    // A bot that does not take part does not come in by this door.
    let other = v1::CreateConversationRequest {
        bot_id: "other".to_owned(),
        ..wish("r2")
    };
    let creating = create(&gateway.wire(), other);
    adapter.begins("theirs").await;
    let answer = answer(creating).await;
    refused(answer.map(drop), Code::FailedPrecondition, "BOT_ABSENT");
    assert_eq!(gateway.log_on("queue", "theirs").await.len(), 2);
}

#[tokio::test]
async fn more_than_may_be_in_the_air_are_refused() {
    let setup = Gateway::setup().config(|config| config.limits.creations = 1);
    let gateway = setup.start().await;
    let mut adapter = attach(&gateway, "one").await;
    let first = create(&gateway.wire(), wish("r1"));
    let asked = adapter.next_creation().await;
    let second = answer(create(&gateway.wire(), wish("r2"))).await;
    refused(
        second.map(drop),
        Code::ResourceExhausted,
        "TOO_MANY_CREATIONS",
    );
    let refusal = v1::Refused::default();
    adapter.answer(&asked.request_id, Begun::Refused(refusal));
    answer(first).await.expect_err("it is refused");
    let third = create(&gateway.wire(), wish("r3"));
    adapter.begins("theirs").await;
    created(third).await;
}

#[tokio::test]
async fn a_gateway_that_goes_down_lets_nobody_wait() {
    let mut gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let creating = create(&gateway.wire(), wish("r1"));
    adapter.next_creation().await;
    gateway.stop().await;
    let answer = answer(creating).await;
    assert_eq!(answer.expect_err("it goes down").code(), Code::Unavailable);
}

#[tokio::test]
async fn bots_begin_conversations_on_their_own_channels_and_backends_on_all() {
    let roles = [
        "bot:echo",
        "bot:other",
        "channel:queue",
        "backend",
        "reader",
        "admin",
    ];
    let principal = |role: &&str| {
        let digest = Digest::of(role);
        format!(
            "[[principals]]\nname = \"{role}\"\ntoken_sha256 = \"{digest}\"\nroles = [\"{role}\"]\n"
        )
    };
    let principals: String = roles.iter().map(principal).collect();
    let gateway = Gateway::setup().and(&principals).start().await;
    let capabilities = v1::ChannelCapabilities {
        create: true,
        ..Default::default()
    };
    let opening = gateway.adapter("queue").token("channel:queue");
    let opening = opening.hello(|hello| hello.capabilities = Some(capabilities));
    let mut adapter = opening.attach().await;
    for (role, bot, may) in [
        ("bot:echo", "", true),
        ("bot:echo", "echo", true),
        ("bot:echo", "other", false),
        // Its own bot, and a channel that is routed to another.
        ("bot:other", "", false),
        ("bot:other", "other", false),
        ("bot:other", "echo", false),
        ("channel:queue", "", false),
        ("reader", "", false),
        ("backend", "", true),
        ("backend", "other", true),
        ("admin", "echo", true),
    ] {
        let wire = gateway.wire_with(role).await;
        let request = v1::CreateConversationRequest {
            bot_id: bot.to_owned(),
            ..wish("")
        };
        let creating = create(&wire, request);
        if may {
            let asked = adapter.begins(&format!("{role} {bot}")).await;
            let spoken_for = asked.bot.and_then(|bot| bot.id);
            let expected = if bot.is_empty() { "echo" } else { bot };
            assert_eq!(spoken_for.as_deref(), Some(expected), "{role} as `{bot}`");
            let created = created(creating).await;
            let conversation = created.conversation.expect("a conversation");
            assert_eq!(conversation.bot_ids, [expected]);
        } else {
            let answer = answer(creating).await;
            refused(answer.map(drop), Code::PermissionDenied, "ROLE_MISSING");
        }
    }
    adapter.expect_no_creation().await;
}

#[tokio::test]
async fn what_is_said_in_it_is_seen_by_its_bot_and_no_other() {
    let gateway = Gateway::start().await;
    let mut adapter = attach(&gateway, "one").await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    let request = v1::CreateConversationRequest {
        bot_id: "other".to_owned(),
        ..wish("r1")
    };
    let creating = create(&gateway.wire(), request);
    adapter.begins("theirs").await;
    created(creating).await;
    let delivery = other.next_delivery().await;
    other.acks(&delivery).await;
    gateway
        .user("theirs")
        .on("queue")
        .named("zoe")
        .says("hi")
        .await;
    let delivery = other.next_delivery().await;
    assert_eq!(said(&delivery), "hi");
    echo.expect_nothing().await;
}
