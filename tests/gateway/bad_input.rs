//! What is wrong is refused with its documented reason, changes nothing, and breaks nothing: not the
//! stream, not the gateway, not the log.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tonic::Code;
use turnwire::proto::v1;
use turnwire::proto::v1::list_conversations_request::Filter;
use turnwire::proto::v1::subscribe_request::Frame as Asked;
use turnwire::store::{Embedded, embedded};

use crate::harness::{Bot, Gateway, message, name, padded, refused, seconds, within};

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn members(entries: &[(&str, Kind)]) -> Option<Struct> {
    let entries = entries
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), value(kind.clone())));
    Some(Struct {
        fields: entries.collect::<BTreeMap<_, _>>(),
    })
}

fn nested(levels: usize) -> Value {
    let mut inner = value(Kind::BoolValue(true));
    for _ in 0..levels {
        inner = value(Kind::ListValue(ListValue {
            values: vec![inner],
        }));
    }
    inner
}

/// Activities that are wrong, and the field that is.
fn wrong() -> Vec<(v1::Activity, &'static str)> {
    vec![
        (
            v1::Activity {
                expiration: Some("soon".to_owned()),
                ..message("x")
            },
            "activity.expiration",
        ),
        (
            v1::Activity {
                local_timestamp: Some("2026-13-01T00:00:00Z".to_owned()),
                ..message("x")
            },
            "activity.localTimestamp",
        ),
        (
            v1::Activity {
                reply_to_id: Some("a\0b".to_owned()),
                ..message("x")
            },
            "activity.replyToId",
        ),
        (
            v1::Activity {
                r#type: Some("event".to_owned()),
                ..message("x")
            },
            "activity.name",
        ),
        (
            v1::Activity {
                r#type: Some(String::new()),
                ..message("x")
            },
            "activity.type",
        ),
        (
            v1::Activity {
                r#type: Some("a\u{7}".to_owned()),
                ..message("x")
            },
            "activity.type",
        ),
        (
            v1::Activity {
                members_added: vec![v1::ChannelAccount::default(); 1_001],
                ..message("x")
            },
            "activity.membersAdded",
        ),
        (
            v1::Activity {
                value: Some(value(Kind::NumberValue(f64::NAN))),
                ..message("x")
            },
            "activity.value",
        ),
        (
            v1::Activity {
                value: Some(nested(46)),
                ..message("x")
            },
            "activity.value",
        ),
        // A listed name with a value that its own field holds, and one of a type that it cannot have.
        (
            v1::Activity {
                unknown_members: members(&[("text", Kind::StringValue("y".to_owned()))]),
                text: None,
                ..message("x")
            },
            "activity.text",
        ),
        (
            v1::Activity {
                unknown_members: members(&[("attachments", Kind::NumberValue(7.0))]),
                ..message("x")
            },
            "activity.attachments",
        ),
    ]
}

#[tokio::test]
async fn a_malformed_activity_is_refused_wherever_it_comes_in() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    let mut adapter = gateway.adapter("web").attach().await;
    gateway.user("c1").says("hi").await;
    for (activity, field) in wrong() {
        let posted = gateway.user("c1").tries(activity.clone()).await;
        let facts = refused(posted, Code::InvalidArgument, "ACTIVITY_INVALID");
        assert_eq!(facts["field"], field);
        let request = v1::SendActivityRequest {
            target: Some(v1::send_activity_request::Target::Conversation(name(
                "web", "c1",
            ))),
            activity: Some(activity.clone().into()),
            ..Default::default()
        };
        let sent = within(
            "a send",
            gateway.wire().conversations().send_activity(request),
        )
        .await;
        let facts = refused(sent, Code::InvalidArgument, "ACTIVITY_INVALID");
        assert_eq!(facts["field"], field);
        bot.write_send(v1::Send {
            client_id: "k".to_owned(),
            conversation: Some(name("web", "c1")),
            activity: Some(activity.clone().into()),
            delivery_id: 0,
        });
        assert_eq!(
            bot.expect_error("ACTIVITY_INVALID").await.metadata["field"],
            field
        );
        adapter.write(v1::attach_request::Frame::Post(v1::Post {
            post_id: "p".to_owned(),
            activity: Some(gateway.user("c1").activity(activity).into()),
        }));
        assert_eq!(
            adapter.expect_error("ACTIVITY_INVALID").await.metadata["field"],
            field
        );
    }
    assert_eq!(
        bot.says("c1", "still here").await.outcome(),
        v1::AckOutcome::Ok
    );
    assert_eq!(gateway.texts("c1").await, ["hi", "still here"]);
}

#[tokio::test]
async fn what_nests_too_deeply_to_be_read_is_refused_and_breaks_nothing() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    for levels in [60, 1_000] {
        let activity = v1::Activity {
            value: Some(nested(levels)),
            ..message("x")
        };
        let posted = gateway.user("c1").tries(activity.clone()).await;
        posted.expect_err("it cannot be read");
        let mut adapter = gateway.adapter("web").attach().await;
        adapter.write(v1::attach_request::Frame::Post(v1::Post {
            post_id: "p".to_owned(),
            activity: Some(gateway.user("c1").activity(activity).into()),
        }));
        adapter
            .expect_end(Code::InvalidArgument, "FRAME_UNREADABLE")
            .await;
    }
    bot.expect_nothing().await;
    gateway.user("c1").says("hi").await;
    assert_eq!(gateway.texts("c1").await, ["hi"]);
}

#[tokio::test]
async fn a_refusal_does_not_repeat_more_than_a_header_holds() {
    let gateway = Gateway::start().await;
    let long = "x".repeat(100_000);
    let posted = gateway.user("c1").on(&long).tries(message("hi")).await;
    refused(posted, Code::NotFound, "CHANNEL_UNKNOWN");
    let bot = gateway.bot(&long).try_attach().await;
    refused(bot.map(drop), Code::NotFound, "BOT_UNKNOWN");
}

#[tokio::test]
async fn what_a_channel_must_say_is_required_and_ids_are_clean() {
    let gateway = Gateway::start().await;
    let account = |id: Option<&str>| v1::ChannelAccount {
        id: id.map(str::to_owned),
        ..Default::default()
    };
    let place = |id: Option<&str>| v1::ConversationAccount {
        id: id.map(str::to_owned),
        ..Default::default()
    };
    let long = "x".repeat(513);
    for bad in [
        None,
        Some(""),
        Some("a\0b"),
        Some("a\nb"),
        Some("a\u{85}"),
        Some(long.as_str()),
    ] {
        for (activity, field) in [
            (
                v1::Activity {
                    from: Some(account(bad)),
                    ..message("x")
                },
                "activity.from.id",
            ),
            (
                v1::Activity {
                    conversation: Some(place(bad)),
                    ..message("x")
                },
                "activity.conversation.id",
            ),
            (
                v1::Activity {
                    members_added: vec![account(Some("ok")), account(bad)],
                    ..message("x")
                },
                "activity.membersAdded[1].id",
            ),
            (
                v1::Activity {
                    members_removed: vec![account(bad)],
                    ..message("x")
                },
                "activity.membersRemoved[0].id",
            ),
        ] {
            let posted = gateway.user("c1").tries(activity).await;
            let facts = refused(posted, Code::InvalidArgument, "ACTIVITY_INVALID");
            assert_eq!(facts["field"], field, "{bad:?}");
        }
        let Some(bad) = bad else { continue };
        let posted = gateway
            .user("c1")
            .tries(v1::Activity {
                id: Some(bad.to_owned()),
                ..message("x")
            })
            .await;
        assert_eq!(
            refused(posted, Code::InvalidArgument, "ACTIVITY_INVALID")["field"],
            "activity.id"
        );
    }
    let untimely = v1::Activity {
        timestamp: Some("yesterday".to_owned()),
        ..message("x")
    };
    let posted = gateway.user("c1").tries(untimely).await;
    assert_eq!(
        refused(posted, Code::InvalidArgument, "ACTIVITY_INVALID")["field"],
        "activity.timestamp"
    );
    gateway
        .user(&"x".repeat(512))
        .says("the longest id there is")
        .await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_says_which_limit() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let posted = gateway.user("c1").tries(padded("large", 1 << 20)).await;
    let facts = refused(posted, Code::InvalidArgument, "ACTIVITY_TOO_LARGE");
    assert_eq!(facts["limit"], "activity_bytes=1048576");
    let activity = v1::Activity {
        channel_data: Some(value(Kind::StringValue("x".repeat(64 << 10)))),
        ..message("x")
    };
    let posted = gateway.user("c1").tries(activity).await;
    let facts = refused(posted, Code::InvalidArgument, "CHANNEL_DATA_TOO_LARGE");
    assert_eq!(
        (facts["limit"].as_str(), facts["field"].as_str()),
        ("channel_data_bytes=65536", "activity.channelData")
    );
    gateway
        .user("c1")
        .posts(padded("as large as may be", 1_000_000))
        .await;
    bot.expect("c1", "as large as may be", 1).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_stream_and_no_other() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let mut other = gateway
        .bot("echo")
        .instance("two")
        .credit(0, 0)
        .attach()
        .await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.commit_all(delivery.delivery_id, vec![padded("large", 9 << 20)]);
    bot.expect_end(Code::InvalidArgument, "FRAME_UNREADABLE")
        .await;
    other.credit(10, 1 << 20).await;
    let again = other.expect("c1", "hi", 2).await;
    other.commits(&again, &["hello"]).await;
    assert_eq!(gateway.texts("c1").await, ["hi", "hello"]);
}

#[tokio::test]
async fn a_stream_begins_with_one_hello() {
    let gateway = Gateway::start().await;
    for first in [
        None,
        Some(Asked::Ack(v1::Ack::default())),
        Some(Asked::Heartbeat(v1::BotHeartbeat::default())),
    ] {
        let mut bot = Bot::open(&gateway.wire()).await.expect("a stream");
        bot.write_raw(first);
        bot.expect_end(Code::FailedPrecondition, "HELLO_EXPECTED")
            .await;
    }
    let mut bot = Bot::open(&gateway.wire()).await.expect("a stream");
    bot.finish();
    bot.expect_end(Code::FailedPrecondition, "HELLO_EXPECTED")
        .await;
    let mut bot = gateway.bot("echo").attach().await;
    bot.write(Asked::Hello(v1::Hello::default()));
    assert_eq!(bot.expect_error("HELLO_REPEATED").await.frame, 2);
    bot.write_raw(None);
    assert_eq!(bot.expect_error("FRAME_UNKNOWN").await.frame, 3);
    gateway.user("c1").says("hi").await;
    bot.expect("c1", "hi", 1).await;
    let mut adapter = gateway.adapter("web").attach().await;
    adapter.write(v1::attach_request::Frame::Hello(v1::AttachHello::default()));
    adapter.expect_error("HELLO_REPEATED").await;
    adapter.write_raw(None);
    adapter.expect_error("FRAME_UNKNOWN").await;
}

#[tokio::test]
async fn a_hello_that_cannot_be_honoured_is_refused() {
    let gateway = Gateway::start().await;
    let code = Code::InvalidArgument;
    for instance in [String::new(), "x".repeat(129)] {
        let bot = gateway.bot("echo").instance(&instance).try_attach().await;
        assert_eq!(
            refused(bot.map(drop), code, "HELLO_INVALID")["field"],
            "instance_id"
        );
    }
    for (min, max) in [(2, 3), (5, 4), (0, 0), (1, 1), (1, 9)] {
        let opening = gateway.bot("echo").hello(|hello| {
            (hello.min_protocol, hello.max_protocol) = (min, max);
        });
        match opening.try_attach().await {
            Ok(bot) => assert_eq!((min <= 1, bot.welcome.protocol), (true, 1)),
            refusal => {
                assert!(min > 1);
                refused(refusal.map(drop), code, "PROTOCOL_UNSUPPORTED");
            }
        }
    }
    for bot in ["", "nobody", "echo\0"] {
        refused(
            gateway.bot(bot).try_attach().await.map(drop),
            Code::NotFound,
            "BOT_UNKNOWN",
        );
    }
    let adapter = gateway
        .adapter("web")
        .hello(|hello| hello.max_outstanding = 100_001)
        .try_attach()
        .await;
    assert_eq!(
        refused(adapter.map(drop), code, "HELLO_INVALID")["field"],
        "max_outstanding"
    );
}

#[tokio::test]
async fn a_stream_without_a_hello_is_not_kept() {
    let setup = Gateway::setup().config(|config| config.limits.hello_timeout = seconds(10));
    let gateway = setup.start().await;
    let mut bot = Bot::open(&gateway.wire()).await.expect("a stream");
    // The stream's response has come, so its clock ticks.
    gateway.pass(seconds(9)).await;
    gateway.clock.advance(seconds(20));
    bot.expect_end(Code::DeadlineExceeded, "HELLO_TIMEOUT")
        .await;
}

#[tokio::test]
async fn too_many_ids_in_a_frame_are_refused_and_none_is_taken() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let delivery_ids = vec![delivery.delivery_id; 10_000];
    for frame in [
        Asked::Ack(v1::Ack {
            delivery_ids: delivery_ids.clone(),
            want_result: true,
        }),
        Asked::Nack(v1::Nack {
            delivery_ids: delivery_ids.clone(),
            mode: v1::NackMode::Poison as i32,
            ..Default::default()
        }),
        Asked::Extend(v1::Extend {
            delivery_ids: delivery_ids.clone(),
            deadline: None,
        }),
        Asked::Heartbeat(v1::BotHeartbeat { delivery_ids }),
    ] {
        bot.write(frame);
        let error = bot.expect_error("TOO_MANY_IDS").await;
        assert_eq!(error.metadata["limit"], "ack_ids=1000");
        assert_eq!(error.metadata["value"], "10000");
    }
    bot.acks(&delivery).await;
}

#[tokio::test]
async fn a_nack_without_a_mode_is_refused() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    for mode in [0, 99, -1] {
        bot.write(Asked::Nack(v1::Nack {
            delivery_ids: vec![delivery.delivery_id],
            mode,
            ..Default::default()
        }));
        assert_eq!(
            bot.expect_error("FRAME_INVALID").await.metadata["field"],
            "mode"
        );
    }
    bot.acks(&delivery).await;
}

#[tokio::test]
async fn ids_that_no_conversation_can_have_are_answered_and_break_nothing() {
    for on_disk in [false, true] {
        let setup = Gateway::setup();
        let setup = if on_disk { setup.on_disk() } else { setup };
        let gateway = setup.start().await;
        gateway.user("c1").says("hi").await;
        for (id, code) in [
            ("c1\0", Code::InvalidArgument),
            ("\0", Code::InvalidArgument),
            (&"x".repeat(100_000), Code::InvalidArgument),
            ("c1\n", Code::InvalidArgument),
        ] {
            let request = v1::GetConversationRequest {
                conversation: Some(name("web", id)),
            };
            let got = within(
                "an answer",
                gateway.wire().conversations().get_conversation(request),
            )
            .await;
            assert_eq!(
                got.expect_err("no such conversation").code(),
                code,
                "{:?}",
                &id[..1]
            );
        }
        let user = |user: &str| {
            Filter::User(v1::UserName {
                channel_id: "web".to_owned(),
                user_id: user.to_owned(),
            })
        };
        for filter in [
            user("ann\0"),
            user(&"x".repeat(100_000)),
            Filter::ChannelId("web\0".to_owned()),
            Filter::BotId("echo\0".to_owned()),
        ] {
            let request = v1::ListConversationsRequest {
                filter: Some(filter),
                ..Default::default()
            };
            let listed = within(
                "an answer",
                gateway.wire().conversations().list_conversations(request),
            )
            .await;
            match listed {
                Ok(page) => assert!(page.into_inner().conversations.is_empty()),
                refusal => drop(refused(refusal, Code::InvalidArgument, "REQUEST_INVALID")),
            }
        }
        assert_eq!(gateway.texts("c1").await, ["hi"]);
    }
}

#[tokio::test]
async fn forged_page_tokens_and_sizes_are_refused() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let mut client = gateway.wire().conversations();
    let long = "QQ".repeat(100_000);
    for token in ["!", "x", "AA", "🙂", long.as_str()] {
        let listed = client.list_conversations(v1::ListConversationsRequest {
            page_token: token.to_owned(),
            ..Default::default()
        });
        assert_eq!(
            refused(listed.await, Code::InvalidArgument, "REQUEST_INVALID")["field"],
            "page_token"
        );
        let listed = client.list_activities(v1::ListActivitiesRequest {
            conversation: Some(name("web", "c1")),
            page_token: token.to_owned(),
            ..Default::default()
        });
        assert_eq!(
            refused(listed.await, Code::InvalidArgument, "REQUEST_INVALID")["field"],
            "page_token"
        );
    }
    // Numbers at the ends of their range: nothing there, and no harm done.
    for (token, order) in [
        ("MTg0NDY3NDQwNzM3MDk1NTE2MTU", 1),
        ("MTg0NDY3NDQwNzM3MDk1NTE2MTU", 2),
        ("MA", 1),
        ("MA", 2),
    ] {
        let listed = client.list_activities(v1::ListActivitiesRequest {
            conversation: Some(name("web", "c1")),
            page_token: token.to_owned(),
            order,
            page_size: 0,
        });
        match within("a page", listed).await {
            Ok(page) => assert!(page.into_inner().entries.len() <= 1),
            refusal => drop(refused(refusal, Code::InvalidArgument, "REQUEST_INVALID")),
        }
    }
    let listed = client.list_activities(v1::ListActivitiesRequest {
        conversation: Some(name("web", "c1")),
        page_size: -1,
        ..Default::default()
    });
    assert_eq!(
        refused(listed.await, Code::InvalidArgument, "REQUEST_INVALID")["field"],
        "page_size"
    );
    // A number as a member's id is a place like any other.
    let listed = client.list_members(v1::ListMembersRequest {
        conversation: Some(name("web", "c1")),
        page_token: "MA".to_owned(),
        page_size: 10,
    });
    assert_eq!(
        within("a page", listed)
            .await
            .expect("a page")
            .into_inner()
            .members
            .len(),
        1
    );
}

#[tokio::test]
async fn a_sequence_at_the_end_of_its_range_breaks_no_watch() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let mut watcher = gateway.watch("c1", u64::MAX).await;
    gateway.user("c1").says("next").await;
    watcher.expect(2, "next").await;
}

#[tokio::test]
async fn a_bot_that_never_reads_hurts_only_itself() {
    let gateway = Gateway::start().await;
    let deaf = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    // More than fits the connection, and more than may wait for it.
    for number in 0..20_000_u64 {
        deaf.write(Asked::Ack(v1::Ack {
            delivery_ids: vec![number; 50],
            want_result: true,
        }));
    }
    for number in 0..20 {
        gateway
            .user(&format!("c{number}"))
            .posts(padded("large", 100_000))
            .await;
    }
    gateway.user("s1").on("second").says("hi").await;
    let delivery = other.expect("s1", "hi", 1).await;
    other.acks(&delivery).await;
    gateway.settle().await;
    // What it holds goes to another at its deadline.
    let mut bot = gateway.bot("echo").instance("two").attach().await;
    drop(deaf);
    for _ in 0..20 {
        bot.next_delivery().await;
    }
}

#[tokio::test]
async fn a_bot_that_floods_and_never_reads_is_sent_away_when_its_time_is_up() {
    let setup = Gateway::setup().config(|config| {
        config.limits.heartbeat_interval = seconds(20);
        config.limits.session_backlog_frames = 16;
    });
    let gateway = setup.start().await;
    let deaf = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    for _ in 0..50_000 {
        deaf.write(Asked::Ack(v1::Ack {
            delivery_ids: vec![1; 50],
            want_result: true,
        }));
    }
    // The probe would miss its own heartbeats, so each step has one of its own.
    let series = "turnwire_sessions{kind=\"bot\"}";
    for _ in 0..200 {
        gateway.clock.advance(seconds(20));
        if gateway.metric(series).await == 0.0 {
            return;
        }
    }
    panic!("its session is kept for ever");
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_lets_work_finish() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    gateway.memory().set_free_bytes((64 << 20) - 1);
    gateway.pass(seconds(2)).await;
    let posted = gateway.user("c1").tries(message("more")).await;
    refused(posted, Code::ResourceExhausted, "STORE_FULL");
    bot.commit_all(delivery.delivery_id, vec![message("hello")]);
    let error = bot.expect_error("STORE_FULL").await;
    assert_eq!(error.retry(), v1::Retry::Later);
    bot.write_send(v1::Send {
        client_id: "k".to_owned(),
        conversation: Some(name("web", "c1")),
        activity: Some(message("hello").into()),
        delivery_id: 0,
    });
    bot.expect_error("STORE_FULL").await;
    bot.acks(&delivery).await;
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    gateway.memory().set_free_bytes(1 << 30);
    gateway.pass(seconds(2)).await;
    gateway.user("c1").says("again").await;
    bot.expect("c1", "again", 1).await;
}

#[tokio::test]
async fn a_data_folder_in_use_is_not_opened_twice() {
    let gateway = Gateway::setup().on_disk().start().await;
    let second = Embedded::open(gateway.kept().path(), &embedded::Options::default());
    assert!(matches!(
        second.err(),
        Some(turnwire::store::Error::InUse { .. })
    ));
    gateway.user("c1").says("hi").await;
    assert_eq!(gateway.texts("c1").await, ["hi"]);
}

#[tokio::test]
async fn a_damaged_store_is_not_opened() {
    let mut gateway = Gateway::setup().on_disk().start().await;
    for number in 0..50 {
        gateway
            .user("c1")
            .posts(padded(&format!("m{number}"), 2_000))
            .await;
    }
    gateway.kill().await;
    let mut damaged = 0;
    for entry in std::fs::read_dir(gateway.kept().path()).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let mut bytes = std::fs::read(&path).expect("a journal");
            // In the middle of what was written, past the head and before the end.
            let middle = 20_000;
            bytes[middle..middle + 64].fill(0x5a);
            std::fs::write(&path, bytes).expect("it can be damaged");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1, "where is the journal?");
    let opened = Embedded::open(gateway.kept().path(), &embedded::Options::default());
    assert!(matches!(
        opened.err(),
        Some(turnwire::store::Error::Corrupt { .. })
    ));
}
