//! Conversations for backends: speaking first, and reading.

use tonic::{Code, Status};
use turnwire::proto::v1;
use turnwire::proto::v1::list_conversations_request::Filter;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Gateway, message, name, padded, refused, seconds, text, within};

async fn send(
    gateway: &Gateway,
    target: Option<Target>,
    bot: &str,
    activity: Option<v1::Activity>,
) -> Result<v1::Appended, Status> {
    let request = v1::SendActivityRequest {
        request_id: String::new(),
        target,
        bot_id: bot.to_owned(),
        activity: activity.map(Box::new),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let sent = within("a send", client.send_activity(request)).await?;
    Ok(sent.into_inner().appended.expect("where"))
}

fn to(channel: &str, conversation: &str) -> Option<Target> {
    Some(Target::Conversation(name(channel, conversation)))
}

fn account(id: &str) -> v1::ChannelAccount {
    v1::ChannelAccount {
        id: Some(id.to_owned()),
        ..Default::default()
    }
}

async fn list(gateway: &Gateway, request: v1::ListConversationsRequest) -> (Vec<String>, String) {
    let mut client = gateway.wire().conversations();
    let page = within("a page", client.list_conversations(request)).await;
    let page = page.expect("a page").into_inner();
    let ids = page.conversations.into_iter();
    let ids = ids.map(|conversation| conversation.name.expect("a name").conversation_id);
    (ids.collect(), page.next_page_token)
}

async fn all(gateway: &Gateway, filter: Option<Filter>, page_size: i32) -> Vec<String> {
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListConversationsRequest {
            page_size,
            page_token,
            filter: filter.clone(),
        };
        let (page, next) = list(gateway, request).await;
        assert!(page.len() <= page_size as usize);
        ids.extend(page);
        if next.is_empty() {
            return ids;
        }
        page_token = next;
    }
}

async fn page(
    gateway: &Gateway,
    request: v1::ListActivitiesRequest,
) -> Result<v1::ListActivitiesResponse, Status> {
    let mut client = gateway.wire().conversations();
    let page = within("a page", client.list_activities(request)).await?;
    Ok(page.into_inner())
}

#[tokio::test]
async fn a_backend_speaks_first_and_the_gateway_fills_in_the_rest() {
    let gateway = Gateway::start().await;
    let hi = v1::Activity {
        locale: Some("fr-CH".to_owned()),
        service_url: Some("https://one.example.org/".to_owned()),
        ..message("hi")
    };
    gateway.user("c1").posts(hi).await;
    gateway.pass(seconds(60)).await;
    let lies = v1::Activity {
        r#type: None,
        id: Some("a lie".to_owned()),
        timestamp: Some("1999-01-01T00:00:00Z".to_owned()),
        channel_id: Some("a lie".to_owned()),
        service_url: Some("https://lie.example.org/".to_owned()),
        from: Some(account("a lie")),
        recipient: Some(account("a lie")),
        conversation: Some(v1::ConversationAccount {
            id: Some("a lie".to_owned()),
            ..Default::default()
        }),
        caller_id: Some("a lie".to_owned()),
        ..message("your order has shipped")
    };
    let appended = send(&gateway, to("web", "c1"), "", Some(lies))
        .await
        .expect("it is taken");
    let log = gateway.log("c1").await;
    let entry = &log[1];
    assert_eq!(
        (entry.author(), entry.bot_id.as_str()),
        (v1::Author::Backend, "echo")
    );
    let said = entry.activity.as_ref().expect("an activity");
    assert_eq!(said.r#type.as_deref(), Some("message"));
    assert_eq!(said.id.as_deref(), Some(appended.activity_id.as_str()));
    assert_eq!(said.id.as_deref(), Some("c1|0000002"));
    assert_eq!(said.timestamp.as_deref(), Some("2026-01-02T00:06:45.678Z"));
    assert_eq!(said.channel_id.as_deref(), Some("web"));
    assert_eq!(
        said.service_url.as_deref(),
        Some("https://one.example.org/")
    );
    let bot = said.from.as_ref().expect("a sender");
    assert_eq!(
        (bot.id.as_deref(), bot.name.as_deref()),
        (Some("echo"), Some("Echo"))
    );
    assert_eq!(
        said.recipient.as_ref().and_then(|user| user.id.as_deref()),
        Some("ann")
    );
    assert_eq!(
        said.conversation.as_ref().and_then(|c| c.id.as_deref()),
        Some("c1")
    );
    assert_eq!(said.locale.as_deref(), Some("fr-CH"));
    assert_eq!(said.reply_to_id, None);
    assert_eq!(said.caller_id, None);
}

#[tokio::test]
async fn a_reference_is_applied_to_what_is_sent() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let reference = v1::ConversationReference {
        activity_id: Some("a7".to_owned()),
        user: Some(account("bob")),
        bot: Some(account("somebody")),
        conversation: Some(v1::ConversationAccount {
            id: Some("c1".to_owned()),
            ..Default::default()
        }),
        channel_id: Some("web".to_owned()),
        locale: Some("it-CH".to_owned()),
        ..Default::default()
    };
    let target = Some(Target::Reference(reference.clone()));
    send(&gateway, target, "", Some(message("ciao")))
        .await
        .expect("it is taken");
    let log = gateway.log("c1").await;
    let said = log[1].activity.as_ref().expect("an activity");
    assert_eq!(said.reply_to_id.as_deref(), Some("a7"));
    assert_eq!(
        said.recipient.as_ref().and_then(|user| user.id.as_deref()),
        Some("bob")
    );
    assert_eq!(said.locale.as_deref(), Some("it-CH"));
    assert_eq!(
        said.from.as_ref().and_then(|bot| bot.id.as_deref()),
        Some("echo")
    );
    // It needs the channel and the conversation.
    for reference in [
        v1::ConversationReference {
            channel_id: None,
            ..reference.clone()
        },
        v1::ConversationReference {
            conversation: None,
            ..reference
        },
    ] {
        let sent = send(
            &gateway,
            Some(Target::Reference(reference)),
            "",
            Some(message("?")),
        )
        .await;
        refused(sent, Code::InvalidArgument, "REQUEST_INVALID");
    }
}

#[tokio::test]
async fn the_reference_is_kept_fresh() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let second = v1::Activity {
        locale: Some("en-GB".to_owned()),
        service_url: Some("https://two.example.org/".to_owned()),
        ..message("hello")
    };
    gateway.user("c1").named("bob").posts(second).await;
    let reference = gateway
        .conversation("c1")
        .await
        .reference
        .expect("a reference");
    assert_eq!(
        reference.user.and_then(|user| user.id).as_deref(),
        Some("bob")
    );
    assert_eq!(
        reference.bot.and_then(|bot| bot.id).as_deref(),
        Some("echo")
    );
    assert_eq!(reference.locale.as_deref(), Some("en-GB"));
    assert_eq!(
        reference.service_url.as_deref(),
        Some("https://two.example.org/")
    );
    assert_eq!(reference.channel_id.as_deref(), Some("web"));
    assert_eq!(reference.activity_id, None);
}

#[tokio::test]
async fn a_send_never_starts_a_conversation() {
    let gateway = Gateway::start().await;
    let before = gateway.memory().len();
    let sent = send(&gateway, to("web", "nowhere"), "", Some(message("hi"))).await;
    refused(sent, Code::NotFound, "CONVERSATION_UNKNOWN");
    let sent = send(&gateway, to("nowhere", "c1"), "echo", Some(message("hi"))).await;
    refused(sent, Code::NotFound, "CONVERSATION_UNKNOWN");
    let mut bot = gateway.bot("echo").credit(0, 0).attach().await;
    bot.write_send(v1::Send {
        client_id: "k".to_owned(),
        conversation: Some(name("web", "nowhere")),
        activity: Some(message("hi").into()),
        delivery_id: 0,
    });
    assert_eq!(
        bot.expect_error("CONVERSATION_UNKNOWN").await.client_id,
        "k"
    );
    gateway.settle().await;
    assert_eq!(gateway.memory().len(), before, "nothing was written");
    assert!(all(&gateway, None, 10).await.is_empty());
    let mut client = gateway.wire().conversations();
    let request = v1::GetConversationRequest {
        conversation: Some(name("web", "nowhere")),
    };
    refused(
        client.get_conversation(request).await,
        Code::NotFound,
        "CONVERSATION_UNKNOWN",
    );
}

#[tokio::test]
async fn only_a_bot_that_takes_part_speaks() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    for bot in ["other", "nobody"] {
        let sent = send(&gateway, to("web", "c1"), bot, Some(message("hi"))).await;
        refused(sent, Code::FailedPrecondition, "BOT_ABSENT");
    }
    send(&gateway, to("web", "c1"), "echo", Some(message("hi")))
        .await
        .expect("it is taken");
    // To a bot over its stream, conversations of others are unknown.
    let mut other = gateway.bot("other").credit(0, 0).attach().await;
    other.write_send(v1::Send {
        client_id: "k".to_owned(),
        conversation: Some(name("web", "c1")),
        activity: Some(message("hi").into()),
        delivery_id: 0,
    });
    other.expect_error("CONVERSATION_UNKNOWN").await;
    assert_eq!(gateway.log("c1").await.len(), 2);
}

#[tokio::test]
async fn what_a_send_lacks_is_named() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    for (target, activity, field) in [
        (None, Some(message("hi")), "target"),
        (to("web", "c1"), None, "activity"),
        (to("web", ""), Some(message("hi")), "conversation"),
        (to("", "c1"), Some(message("hi")), "conversation"),
    ] {
        let sent = send(&gateway, target, "", activity).await;
        let facts = refused(sent, Code::InvalidArgument, "REQUEST_INVALID");
        assert_eq!(facts["field"], field);
    }
}

#[tokio::test]
async fn a_reply_is_threaded_to_what_it_answers_unless_the_bot_says_otherwise() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let hi = v1::Activity {
        id: Some("a1".to_owned()),
        ..message("hi")
    };
    gateway.user("c1").named("bob").posts(hi).await;
    gateway.user("c1").named("cleo").says("me too").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.answers(&delivery, "one").await;
    bot.says("c1", "two").await;
    let own = v1::Activity {
        reply_to_id: Some("a0".to_owned()),
        ..message("four")
    };
    bot.commit_all(delivery.delivery_id, vec![message("three"), own]);
    bot.barrier().await;
    let log = gateway.log("c1").await;
    let said: Vec<_> = log[2..]
        .iter()
        .map(|entry| {
            let activity = entry.activity.clone().expect("an activity");
            let to = activity
                .recipient
                .and_then(|user| user.id)
                .unwrap_or_default();
            (
                text(&entry.activity),
                activity.reply_to_id.unwrap_or_default(),
                to,
            )
        })
        .collect();
    let row =
        |text: &str, reply: &str, to: &str| (text.to_owned(), reply.to_owned(), to.to_owned());
    assert_eq!(
        said,
        [
            row("one", "a1", "bob"),
            // Of its own accord: to whoever spoke last.
            row("two", "", "cleo"),
            row("three", "a1", "bob"),
            row("four", "a0", "bob"),
        ]
    );
}

#[tokio::test]
async fn a_send_that_cites_a_delivery_of_another_conversation_is_refused() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    gateway.user("c2").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    bot.write_send(v1::Send {
        client_id: "k".to_owned(),
        conversation: Some(name("web", "c2")),
        activity: Some(message("misplaced").into()),
        delivery_id: delivery.delivery_id,
    });
    let error = bot.expect_error("DELIVERY_ELSEWHERE").await;
    assert_eq!(error.delivery_id, delivery.delivery_id);
    assert_eq!(gateway.texts("c2").await, ["hi"]);
    // Without a conversation, it goes where the delivery is.
    let sent = bot
        .send(v1::Send {
            client_id: "k".to_owned(),
            conversation: None,
            activity: Some(message("in place").into()),
            delivery_id: delivery.delivery_id,
        })
        .await;
    assert_eq!(sent.outcome(), v1::AckOutcome::Ok);
    assert_eq!(gateway.texts("c1").await, ["hi", "in place"]);
}

#[tokio::test]
async fn conversations_are_listed_newest_first_by_channel_bot_and_user_in_pages() {
    let mut gateway = Gateway::start().await;
    for number in 0..7 {
        gateway.user(&format!("w{number}")).says("hi").await;
        gateway.pass(seconds(1)).await;
    }
    gateway.user("q").on("queue").says("hi").await;
    gateway.pass(seconds(1)).await;
    gateway.user("s").on("second").named("bob").says("hi").await;
    gateway.user("w3").named("bob").says("hello").await;
    let web = ["w6", "w5", "w4", "w3", "w2", "w1", "w0"];
    for _ in 0..2 {
        for size in [1, 2, 3, 7, 100] {
            let everything = all(&gateway, None, size).await;
            assert_eq!(everything, [&["s", "q"][..], &web].concat(), "{size}");
            let channel = Some(Filter::ChannelId("web".to_owned()));
            assert_eq!(all(&gateway, channel, size).await, web, "{size}");
            let bot = Some(Filter::BotId("echo".to_owned()));
            assert_eq!(
                all(&gateway, bot, size).await,
                [&["q"][..], &web].concat(),
                "{size}"
            );
        }
        let user = |channel: &str, user: &str| {
            Some(Filter::User(v1::UserName {
                channel_id: channel.to_owned(),
                user_id: user.to_owned(),
            }))
        };
        assert_eq!(all(&gateway, user("web", "ann"), 2).await, web);
        assert_eq!(all(&gateway, user("web", "bob"), 2).await, ["w3"]);
        assert_eq!(all(&gateway, user("second", "bob"), 2).await, ["s"]);
        assert!(all(&gateway, user("web", "an"), 2).await.is_empty());
        assert!(
            all(&gateway, Some(Filter::ChannelId("we".to_owned())), 2)
                .await
                .is_empty()
        );
        gateway.crash().await;
    }
}

#[tokio::test]
async fn a_transcript_is_read_from_either_end_in_pages() {
    let gateway = Gateway::start().await;
    for number in 1..=10 {
        gateway.user("c1").says(&format!("m{number}")).await;
    }
    for (order, wanted) in [
        (v1::ReadOrder::Unspecified, (1..=10).collect::<Vec<u64>>()),
        (v1::ReadOrder::OldestFirst, (1..=10).collect()),
        (v1::ReadOrder::NewestFirst, (1..=10).rev().collect()),
    ] {
        for size in [1, 3, 5, 10, 11] {
            let mut seen = Vec::new();
            let mut request = v1::ListActivitiesRequest {
                conversation: Some(name("web", "c1")),
                order: order as i32,
                page_size: size,
                page_token: String::new(),
            };
            loop {
                let page = page(&gateway, request.clone()).await.expect("a page");
                assert!(page.entries.len() <= size as usize);
                seen.extend(page.entries.iter().map(|entry| entry.sequence));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!(seen, wanted, "{order:?} {size}");
        }
    }
}

#[tokio::test]
async fn a_page_is_also_bounded_in_bytes_and_has_one_activity_at_least() {
    let setup = Gateway::setup().config(|config| config.limits.page_bytes = 5_000);
    let gateway = setup.start().await;
    for number in 1..=6 {
        gateway
            .user("c1")
            .posts(padded(&format!("m{number}"), 2_000))
            .await;
    }
    gateway.user("c1").posts(padded("m7", 50_000)).await;
    let request = v1::ListActivitiesRequest {
        conversation: Some(name("web", "c1")),
        ..Default::default()
    };
    let first = page(&gateway, request).await.expect("a page");
    assert!(
        (1..=3).contains(&first.entries.len()),
        "{}",
        first.entries.len()
    );
    assert_eq!(gateway.log("c1").await.len(), 7);
}

#[tokio::test]
async fn a_page_has_100_items_unless_asked_and_1000_at_most() {
    let setup = Gateway::setup().config(|config| config.limits.page = 150);
    let gateway = setup.start().await;
    for number in 1..=200 {
        gateway
            .user("c1")
            .named(&format!("u{number:03}"))
            .says("hi")
            .await;
    }
    for (page_size, wanted) in [(0, 100), (120, 120), (150, 150), (5_000, 150)] {
        let request = v1::ListActivitiesRequest {
            conversation: Some(name("web", "c1")),
            page_size,
            ..Default::default()
        };
        assert_eq!(
            page(&gateway, request).await.expect("a page").entries.len(),
            wanted
        );
    }
    let mut members = Vec::new();
    let mut request = v1::ListMembersRequest {
        conversation: Some(name("web", "c1")),
        page_size: 70,
        page_token: String::new(),
    };
    loop {
        let mut client = gateway.wire().conversations();
        let page = within("members", client.list_members(request.clone())).await;
        let page = page.expect("a page").into_inner();
        members.extend(page.members.into_iter().filter_map(|member| member.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let wanted: Vec<_> = (1..=200).map(|number| format!("u{number:03}")).collect();
    assert_eq!(members, wanted);
}

#[tokio::test]
async fn what_is_known_of_a_conversation_survives_a_restart() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let before = gateway.conversation("c1").await;
    assert_eq!(before.bot_ids, ["echo"]);
    assert_eq!((before.first_sequence, before.last_sequence), (1, 1));
    assert_eq!(before.start_time.expect("a time").seconds, 1_767_312_345);
    gateway.crash().await;
    assert_eq!(gateway.conversation("c1").await, before);
}
