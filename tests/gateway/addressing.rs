//! Finding the conversation to speak in, and taking along what leads back to it.

use tonic::{Code, Status};
use turnwire::auth::secret::Digest;
use turnwire::proto::v1;
use turnwire::proto::v1::get_conversation_reference_request::Target as Of;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Gateway, Wire, message, name, refused, seconds, text, within};

fn ann(channel: &str) -> v1::UserTarget {
    v1::UserTarget {
        channel_id: channel.to_owned(),
        user_id: "ann".to_owned(),
    }
}

/// Says something to Ann in the name of `echo`.
async fn tell(
    wire: &Wire,
    channel: &str,
    key: &str,
    said: &str,
) -> Result<v1::SendActivityResponse, Status> {
    let request = v1::SendActivityRequest {
        request_id: key.to_owned(),
        target: Some(Target::User(ann(channel))),
        bot_id: "echo".to_owned(),
        activity: Some(message(said).into()),
        ..Default::default()
    };
    let sent = within("a send", wire.conversations().send_activity(request)).await?;
    Ok(sent.into_inner())
}

async fn reference(wire: &Wire, of: Of, bot: &str) -> Result<v1::ConversationReference, Status> {
    let request = v1::GetConversationReferenceRequest {
        target: Some(of),
        bot_id: bot.to_owned(),
    };
    let mut client = wire.conversations();
    let got = within("a reference", client.get_conversation_reference(request)).await?;
    Ok(got.into_inner().reference.expect("a reference"))
}

fn of(channel: &str, conversation: &str) -> Of {
    Of::Conversation(name(channel, conversation))
}

/// The user ends it.
fn ending() -> v1::Activity {
    v1::Activity {
        r#type: Some("endOfConversation".to_owned()),
        ..message("bye")
    }
}

fn to_group(id: &str, said: &str) -> v1::Activity {
    v1::Activity {
        conversation: Some(v1::ConversationAccount {
            id: Some(id.to_owned()),
            is_group: Some(true),
            ..Default::default()
        }),
        ..message(said)
    }
}

fn leaving(id: &str) -> v1::Activity {
    v1::Activity {
        r#type: Some("conversationUpdate".to_owned()),
        members_removed: vec![account(id)],
        from: Some(account("host")),
        ..Default::default()
    }
}

fn account(id: &str) -> v1::ChannelAccount {
    v1::ChannelAccount {
        id: Some(id.to_owned()),
        ..Default::default()
    }
}

/// What was said in a conversation, by users and others.
async fn texts(gateway: &Gateway, channel: &str, conversation: &str) -> Vec<String> {
    let log = gateway.log_on(channel, conversation).await;
    let said = log.iter().filter(|entry| {
        let kind = entry.activity.as_ref().and_then(|it| it.r#type.as_deref());
        kind == Some("message")
    });
    said.map(|entry| text(&entry.activity)).collect()
}

#[tokio::test]
async fn a_conversation_says_whether_it_has_ended() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1");
    user.says("hi").await;
    assert!(!gateway.conversation("c1").await.ended);
    user.posts(ending()).await;
    assert!(gateway.conversation("c1").await.ended);
    // It is over, and not silenced: what is said all the same does not begin it anew.
    user.says("one more thing").await;
    assert!(gateway.conversation("c1").await.ended);
}

#[tokio::test]
async fn a_user_is_spoken_to_in_the_conversation_that_started_last_and_has_not_ended() {
    let gateway = Gateway::start().await;
    let wire = gateway.wire();
    for conversation in ["c1", "c2", "c3"] {
        gateway.user(conversation).says("hi").await;
        gateway.pass(seconds(1)).await;
    }
    // What was said last is no reason, and others' conversations are not Ann's.
    gateway.user("c1").says("still here").await;
    gateway.user("c4").named("bob").says("hi").await;
    tell(&wire, "web", "", "one").await.expect("it is taken");
    gateway.user("c3").posts(ending()).await;
    tell(&wire, "web", "", "two").await.expect("it is taken");
    assert_eq!(texts(&gateway, "web", "c3").await, ["hi", "one"]);
    assert_eq!(texts(&gateway, "web", "c2").await, ["hi", "two"]);
    assert_eq!(texts(&gateway, "web", "c1").await.len(), 2);
}

#[tokio::test]
async fn a_conversation_with_the_user_alone_goes_before_groups_and_one_the_user_left_is_none() {
    let gateway = Gateway::start().await;
    let wire = gateway.wire();
    let user = |conversation| gateway.user(conversation).on("party");
    user("alone").says("hi").await;
    gateway.pass(seconds(1)).await;
    for group in ["g1", "g2"] {
        user(group).posts(to_group(group, "hi")).await;
        // Not who spoke last is meant, but who was asked for.
        user(group).named("bob").posts(to_group(group, "ho")).await;
        gateway.pass(seconds(1)).await;
    }
    tell(&wire, "party", "", "one").await.expect("it is taken");
    assert_eq!(texts(&gateway, "party", "alone").await, ["hi", "one"]);

    user("alone").posts(ending()).await;
    tell(&wire, "party", "", "two").await.expect("it is taken");
    let log = gateway.log_on("party", "g2").await;
    let said = log.last().and_then(|entry| entry.activity.clone());
    let said = said.expect("an activity");
    assert_eq!(said.text.as_deref(), Some("two"));
    let recipient = said.recipient.and_then(|recipient| recipient.id);
    assert_eq!(recipient.as_deref(), Some("ann"));

    user("g2").posts(leaving("ann")).await;
    tell(&wire, "party", "", "three")
        .await
        .expect("it is taken");
    assert_eq!(texts(&gateway, "party", "g1").await, ["hi", "ho", "three"]);
}

#[tokio::test]
async fn a_user_in_no_open_conversation_of_the_bot_is_unreachable() {
    let gateway = Gateway::start().await;
    let wire = gateway.wire();
    gateway.user("c1").on("second").says("hi").await;
    let strangers = ["web", "nowhere", "second"];
    for channel in strangers {
        let told = tell(&wire, channel, "", "hello").await;
        refused(told, Code::NotFound, "USER_UNREACHABLE");
        let referred = reference(&wire, Of::User(ann(channel)), "echo").await;
        refused(referred, Code::NotFound, "USER_UNREACHABLE");
    }
    gateway.user("c2").posts(ending()).await;
    let told = tell(&wire, "web", "", "hello").await;
    refused(told, Code::NotFound, "USER_UNREACHABLE");
    assert_eq!(gateway.log("c2").await.len(), 1);
}

#[tokio::test]
async fn no_more_conversations_of_a_user_are_looked_at_than_the_limit() {
    let gateway = Gateway::setup()
        .config(|config| config.limits.user_conversations = 2)
        .start()
        .await;
    let wire = gateway.wire();
    for conversation in ["c1", "c2", "c3"] {
        gateway.user(conversation).says("hi").await;
        gateway.pass(seconds(1)).await;
    }
    gateway.user("c3").posts(ending()).await;
    tell(&wire, "web", "", "hello").await.expect("c2 is second");
    gateway.user("c2").posts(ending()).await;
    // `c1` is open, and third.
    let told = tell(&wire, "web", "", "hello").await;
    refused(told, Code::NotFound, "USER_UNREACHABLE");
}

#[tokio::test]
async fn a_repeat_leads_to_where_the_first_send_went_whatever_has_started_or_ended_since() {
    let gateway = Gateway::start().await;
    let wire = gateway.wire();
    gateway.user("c1").says("hi").await;
    let first = tell(&wire, "web", "k", "hello").await.expect("taken");
    gateway.pass(seconds(1)).await;
    gateway.user("c2").says("hi").await;
    gateway.user("c1").posts(ending()).await;
    let again = tell(&wire, "web", "k", "hello").await.expect("repeated");
    assert!(again.repeated_send);
    assert_eq!(again.appended, first.appended);
    let other = tell(&wire, "web", "k", "something else").await;
    refused(other, Code::FailedPrecondition, "IDEMPOTENCY_MISMATCH");
    assert_eq!(texts(&gateway, "web", "c2").await, ["hi"]);
    let fresh = tell(&wire, "web", "k2", "hello").await.expect("taken");
    assert!(!fresh.repeated_send);
    assert_eq!(texts(&gateway, "web", "c2").await, ["hi", "hello"]);
}

#[tokio::test]
async fn a_user_target_that_is_none_is_refused_with_its_field() {
    let gateway = Gateway::start().await;
    for user_id in [String::new(), "a\u{0}b".to_owned(), "x".repeat(513)] {
        let request = v1::SendActivityRequest {
            target: Some(Target::User(v1::UserTarget {
                channel_id: "web".to_owned(),
                user_id,
            })),
            activity: Some(message("hello").into()),
            ..Default::default()
        };
        let mut client = gateway.wire().conversations();
        let sent = within("a send", client.send_activity(request)).await;
        let facts = refused(sent, Code::InvalidArgument, "REQUEST_INVALID");
        assert_eq!(facts["field"], "user");
    }
}

#[tokio::test]
async fn a_reference_leads_back_days_and_restarts_later() {
    let mut gateway = Gateway::start().await;
    let hi = v1::Activity {
        id: Some("from-ann".to_owned()),
        locale: Some("fr-CH".to_owned()),
        from: Some(v1::ChannelAccount {
            name: Some("Ann".to_owned()),
            ..account("ann")
        }),
        ..message("hi")
    };
    gateway.user("c1").on("queue").posts(hi).await;
    let joined = v1::Activity {
        r#type: Some("conversationUpdate".to_owned()),
        members_added: vec![account("bob")],
        ..Default::default()
    };
    gateway.user("c1").on("queue").posts(joined).await;
    let by_name = reference(&gateway.wire(), of("queue", "c1"), "").await;
    let kept = by_name.expect("a reference");
    let by_user = reference(&gateway.wire(), Of::User(ann("queue")), "echo").await;
    assert_eq!(by_user.expect("a reference"), kept);

    let bot = kept.bot.clone().expect("a bot");
    assert_eq!(
        (bot.id.as_deref(), bot.name.as_deref()),
        (Some("echo"), Some("Echo"))
    );
    let user = kept.user.clone().expect("a user");
    assert_eq!(
        (user.id.as_deref(), user.name.as_deref()),
        (Some("ann"), Some("Ann"))
    );
    let conversation = kept.conversation.clone().expect("a conversation");
    assert_eq!(conversation.id.as_deref(), Some("c1"));
    assert_eq!(kept.channel_id.as_deref(), Some("queue"));
    assert_eq!(kept.locale.as_deref(), Some("fr-CH"));
    let service_url = kept.service_url.as_deref();
    assert_eq!(service_url, Some("https://adapter.example.org/"));
    // Who joined is nothing to answer.
    assert_eq!(kept.activity_id.as_deref(), Some("from-ann"));

    gateway.restart().await;
    gateway.pass(seconds(3 * 24 * 3_600)).await;
    let request = v1::SendActivityRequest {
        target: Some(Target::Reference(kept)),
        activity: Some(message("your order has shipped").into()),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let sent = within("a send", client.send_activity(request)).await;
    sent.expect("it is taken");
    let log = gateway.log_on("queue", "c1").await;
    let said = log.last().and_then(|entry| entry.activity.clone());
    let said = said.expect("an activity");
    assert_eq!(
        said.recipient.and_then(|it| it.name).as_deref(),
        Some("Ann")
    );
    assert_eq!(said.reply_to_id.as_deref(), Some("from-ann"));
    assert_eq!(said.locale.as_deref(), Some("fr-CH"));
}

#[tokio::test]
async fn the_largest_reference_that_is_given_is_taken_back() {
    let gateway = Gateway::start().await;
    let large = |id: &str| v1::ChannelAccount {
        name: Some("x".repeat(16_000)),
        ..account(id)
    };
    let hi = v1::Activity {
        from: Some(large("ann")),
        conversation: Some(v1::ConversationAccount {
            id: Some("c1".to_owned()),
            name: Some("x".repeat(16_000)),
            ..Default::default()
        }),
        ..message("hi")
    };
    gateway.user("c1").posts(hi).await;
    let kept = reference(&gateway.wire(), of("web", "c1"), "").await;
    let request = |reference| v1::SendActivityRequest {
        target: Some(Target::Reference(reference)),
        activity: Some(message("hello").into()),
        ..Default::default()
    };
    let kept = kept.expect("a reference");
    let mut client = gateway.wire().conversations();
    let sent = client.send_activity(request(kept.clone()));
    within("a send", sent).await.expect("it is taken");
    let larger = v1::ConversationReference {
        locale: Some("x".repeat(64 * 1_024)),
        ..kept
    };
    let sent = within("a send", client.send_activity(request(larger))).await;
    let facts = refused(sent, Code::InvalidArgument, "REQUEST_INVALID");
    assert_eq!(facts["field"], "reference");
}

#[tokio::test]
async fn where_several_bots_speak_a_reference_is_of_one_and_comes_back_to_it() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    // `echo` goes, so that `other` joins, and comes back.
    let without = |config: &str| {
        let config = config.replace("bot = \"echo\"", "bot = \"other\"");
        config.replace("id = \"echo\"\nname = \"Echo\"", "id = \"gone\"")
    };
    gateway.rewrite(without);
    gateway.restart().await;
    gateway.user("c1").says("anyone?").await;
    gateway.rewrite(str::to_owned);
    gateway.restart().await;

    let wire = gateway.wire();
    assert_eq!(gateway.conversation("c1").await.bot_ids, ["echo", "other"]);
    let unnamed = reference(&wire, of("web", "c1"), "").await;
    refused(unnamed, Code::FailedPrecondition, "BOT_AMBIGUOUS");
    let absent = reference(&wire, of("web", "c1"), "probe").await;
    refused(absent, Code::FailedPrecondition, "BOT_ABSENT");
    for bot in ["other", "echo"] {
        let kept = reference(&wire, of("web", "c1"), bot).await;
        let request = v1::SendActivityRequest {
            target: Some(Target::Reference(kept.expect("a reference"))),
            activity: Some(message("hello").into()),
            ..Default::default()
        };
        let mut client = gateway.wire().conversations();
        let sent = within("a send", client.send_activity(request)).await;
        sent.expect("it is taken");
        let log = gateway.log("c1").await;
        assert_eq!(log.last().map(|entry| entry.bot_id.as_str()), Some(bot));
    }
}

#[tokio::test]
async fn only_who_may_speak_for_the_bot_addresses_users_and_only_who_may_read_gets_references() {
    const ROLES: [&str; 6] = [
        "bot:echo",
        "bot:other",
        "channel:web",
        "channel:second",
        "backend",
        "reader",
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
    gateway.user("c1").over(&web).says("hi").await;
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        let told = tell(&wire, "web", "", "hello").await;
        match role {
            "bot:echo" | "backend" => drop(told.expect("it is taken")),
            _ => drop(refused(told, Code::PermissionDenied, "ROLE_MISSING")),
        }
        let by_name = reference(&wire, of("web", "c1"), "echo").await;
        let by_user = reference(&wire, Of::User(ann("web")), "echo").await;
        match role {
            "bot:echo" | "backend" | "reader" | "channel:web" => {
                by_name.expect("it sees it");
                by_user.expect("it sees it");
            }
            _ => {
                refused(by_name, Code::NotFound, "CONVERSATION_UNKNOWN");
                refused(by_user, Code::NotFound, "USER_UNREACHABLE");
            }
        }
    }
    // A bot that names nobody speaks for itself, to those it knows.
    let wire = gateway.wire_with("bot:other").await;
    let request = v1::SendActivityRequest {
        target: Some(Target::User(ann("web"))),
        activity: Some(message("hello").into()),
        ..Default::default()
    };
    let sent = within("a send", wire.conversations().send_activity(request)).await;
    refused(sent, Code::NotFound, "USER_UNREACHABLE");
}
