//! Who may do what: each role on every call, what it may and what it may not.

use tonic::{Code, Status};
use turnwire::auth::secret::Digest;
use turnwire::proto::v1;
use turnwire::proto::v1::list_conversations_request::Filter;
use turnwire::proto::v1::send_activity_request::Target;

use crate::harness::{Bot, Gateway, Watcher, Wire, message, name, refused, within};

/// Principals are named after their roles, and so are their tokens.
const ROLES: [&str; 7] = [
    "bot:echo",
    "bot:other",
    "channel:web",
    "channel:second",
    "backend",
    "reader",
    "admin",
];

async fn guarded() -> Gateway {
    let principal = |role: &str| {
        let digest = Digest::of(role);
        format!(
            "[[principals]]\nname = \"{role}\"\ntoken_sha256 = \"{digest}\"\nroles = [\"{role}\"]\n"
        )
    };
    let principals: String = ROLES.iter().map(|role| principal(role)).collect();
    let gateway = Gateway::setup().and(&principals).start().await;
    let web = gateway.wire_with("channel:web").await;
    let second = gateway.wire_with("channel:second").await;
    gateway.user("c1").over(&web).says("hi").await;
    gateway
        .user("s1")
        .on("second")
        .over(&second)
        .says("hi")
        .await;
    gateway
}

async fn send(wire: &Wire, channel: &str, conversation: &str, bot: &str) -> Result<(), Status> {
    let request = v1::SendActivityRequest {
        target: Some(Target::Conversation(name(channel, conversation))),
        bot_id: bot.to_owned(),
        activity: Some(message("hello").into()),
        request_id: String::new(),
        ..Default::default()
    };
    let sent = within("a send", wire.conversations().send_activity(request)).await;
    sent.map(drop)
}

/// All calls that read one conversation. They must agree.
async fn read(wire: &Wire, channel: &str, conversation: &str) -> Result<(), Status> {
    let name = Some(name(channel, conversation));
    let mut client = wire.conversations();
    let got = client.get_conversation(v1::GetConversationRequest {
        conversation: name.clone(),
    });
    let got = within("a conversation", got).await.map(drop);
    let members = client.list_members(v1::ListMembersRequest {
        conversation: name.clone(),
        ..Default::default()
    });
    let members = within("members", members).await.map(drop);
    let activities = client.list_activities(v1::ListActivitiesRequest {
        conversation: name.clone(),
        ..Default::default()
    });
    let activities = within("activities", activities).await.map(drop);
    let watch = client.watch_conversation(v1::WatchConversationRequest {
        conversation: name,
        ..Default::default()
    });
    let watch = within("a watch", watch).await.map(drop);
    for other in [members, activities, watch] {
        let code = |result: &Result<(), Status>| result.as_ref().err().map(Status::code);
        assert_eq!(code(&got), code(&other));
    }
    got
}

async fn list(wire: &Wire, filter: Option<Filter>) -> Result<Vec<String>, Status> {
    let request = v1::ListConversationsRequest {
        filter,
        ..Default::default()
    };
    let page = within("a page", wire.conversations().list_conversations(request)).await?;
    let conversations = page.into_inner().conversations.into_iter();
    let mut ids: Vec<_> = conversations
        .filter_map(|c| c.name)
        .map(|n| n.conversation_id)
        .collect();
    ids.sort();
    Ok(ids)
}

#[tokio::test]
async fn only_the_bot_itself_attaches_as_it() {
    let gateway = guarded().await;
    for role in ROLES {
        let attached = gateway
            .bot("echo")
            .token(role)
            .credit(0, 0)
            .try_attach()
            .await;
        if role == "bot:echo" {
            attached.expect("it is welcome").barrier().await;
        } else {
            refused(attached.map(drop), Code::PermissionDenied, "ROLE_MISSING");
        }
    }
}

#[tokio::test]
async fn only_the_channel_itself_posts_and_attaches_as_it() {
    let gateway = guarded().await;
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        let posted = gateway.user("c2").over(&wire).tries(message("hi")).await;
        let attached = gateway.adapter("web").token(role).try_attach().await;
        if role == "channel:web" {
            posted.expect("it is taken");
            attached.expect("it is welcome").barrier().await;
        } else {
            refused(posted, Code::PermissionDenied, "ROLE_MISSING");
            refused(attached.map(drop), Code::PermissionDenied, "ROLE_MISSING");
        }
    }
}

#[tokio::test]
async fn the_bot_backends_and_admins_send_for_a_bot_and_nobody_else() {
    let gateway = guarded().await;
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        let sent = send(&wire, "web", "c1", "echo").await;
        match role {
            "bot:echo" | "backend" | "admin" => sent.expect("it is taken"),
            _ => drop(refused(sent, Code::PermissionDenied, "ROLE_MISSING")),
        }
        let sent = send(&wire, "web", "c1", "").await;
        match role {
            "bot:echo" | "backend" | "admin" => sent.expect("it is taken"),
            // It speaks for itself, where it does not take part.
            "bot:other" => drop(refused(sent, Code::NotFound, "CONVERSATION_UNKNOWN")),
            _ => drop(refused(sent, Code::PermissionDenied, "ROLE_MISSING")),
        }
    }
    assert_eq!(sent_to(&gateway, "web", "c1").await, 6);
    assert_eq!(sent_to(&gateway, "second", "s1").await, 0);
}

/// How much was sent to a conversation.
async fn sent_to(gateway: &Gateway, channel: &str, conversation: &str) -> usize {
    let wire = gateway.wire_with("reader").await;
    let request = v1::ListActivitiesRequest {
        conversation: Some(name(channel, conversation)),
        ..Default::default()
    };
    let page = within("a page", wire.conversations().list_activities(request)).await;
    let entries = page.expect("a page").into_inner().entries;
    entries
        .iter()
        .filter(|entry| entry.author() != v1::Author::Channel)
        .count()
}

#[tokio::test]
async fn a_bot_sends_only_to_its_own_conversations() {
    let gateway = guarded().await;
    let wire = gateway.wire_with("bot:other").await;
    let sent = send(&wire, "web", "c1", "other").await;
    refused(sent, Code::NotFound, "CONVERSATION_UNKNOWN");
    send(&wire, "second", "s1", "other")
        .await
        .expect("it is taken");
    let mut bot = gateway
        .bot("other")
        .token("bot:other")
        .credit(0, 0)
        .attach()
        .await;
    bot.write_send(v1::Send {
        client_id: "k".to_owned(),
        conversation: Some(name("web", "c1")),
        activity: Some(message("hello").into()),
        delivery_id: 0,
    });
    bot.expect_error("CONVERSATION_UNKNOWN").await;
}

#[tokio::test]
async fn a_conversation_exists_only_for_those_who_may_see_it() {
    let gateway = guarded().await;
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        for (channel, conversation, own) in [
            ("web", "c1", ["bot:echo", "channel:web"]),
            ("second", "s1", ["bot:other", "channel:second"]),
        ] {
            let seen = read(&wire, channel, conversation).await;
            if own.contains(&role) || ["backend", "reader", "admin"].contains(&role) {
                seen.expect("it sees it");
            } else {
                let hidden = refused(seen, Code::NotFound, "CONVERSATION_UNKNOWN");
                // No fact tells it from one that is not there.
                let absent = read(&wire, channel, "nowhere").await;
                assert_eq!(
                    hidden,
                    refused(absent, Code::NotFound, "CONVERSATION_UNKNOWN")
                );
            }
        }
    }
}

#[tokio::test]
async fn lists_show_what_a_caller_may_see() {
    let gateway = guarded().await;
    let user = |channel: &str| {
        Filter::User(v1::UserName {
            channel_id: channel.to_owned(),
            user_id: "ann".to_owned(),
        })
    };
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        let everything: &[&str] = match role {
            "bot:echo" | "channel:web" => &["c1"],
            "bot:other" | "channel:second" => &["s1"],
            _ => &["c1", "s1"],
        };
        assert_eq!(
            list(&wire, None).await.expect("a list"),
            everything,
            "{role}"
        );
        let sees_all = ["backend", "reader", "admin"].contains(&role);
        for (filter, own) in [
            (Filter::ChannelId("web".to_owned()), "channel:web"),
            (user("web"), "channel:web"),
            (Filter::BotId("echo".to_owned()), "bot:echo"),
        ] {
            let listed = list(&wire, Some(filter)).await;
            if sees_all || role == own {
                assert_eq!(listed.expect("a list"), ["c1"]);
            } else {
                refused(listed, Code::PermissionDenied, "ROLE_MISSING");
            }
        }
    }
}

#[tokio::test]
async fn without_a_token_or_with_a_wrong_one_nothing_is_answered() {
    let gateway = guarded().await;
    for (token, why) in [(None, "TOKEN_MISSING"), (Some("tw_guess"), "TOKEN_UNKNOWN")] {
        let wire = match token {
            Some(token) => gateway.wire_with(token).await,
            None => gateway.wire(),
        };
        let code = Code::Unauthenticated;
        refused(send(&wire, "web", "c1", "echo").await, code, why);
        refused(read(&wire, "web", "c1").await, code, why);
        refused(list(&wire, None).await, code, why);
        refused(
            gateway.user("c1").over(&wire).tries(message("hi")).await,
            code,
            why,
        );
        refused(Bot::open(&wire).await.map(drop), code, why);
        refused(
            crate::harness::Adapter::open(&wire).await.map(drop),
            code,
            why,
        );
        refused(Watcher::start(&wire, "c1", None).await.map(drop), code, why);
    }
    assert_eq!(gateway.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn documents_are_written_by_their_bot_and_admins_and_read_by_all_who_read() {
    let gateway = guarded().await;
    let scope = Some(v1::StateScope::user("web", "ann"));
    for role in ROLES {
        let wire = gateway.wire_with(role).await;
        let put = v1::PutStateRequest {
            bot_id: "echo".to_owned(),
            scope: scope.clone(),
            name: "n".to_owned(),
            content: Some(crate::harness::content(1.0)),
            condition: None,
        };
        let put = within("a write", wire.state().put_state(put))
            .await
            .map(drop);
        let get = v1::GetStateRequest {
            bot_id: "echo".to_owned(),
            scope: scope.clone(),
            name: "n".to_owned(),
        };
        let get = within("a document", wire.state().get_state(get))
            .await
            .map(drop);
        let list = v1::ListStateRequest {
            bot_id: "echo".to_owned(),
            scope: scope.clone(),
            ..Default::default()
        };
        let list = within("a page", wire.state().list_state(list))
            .await
            .map(drop);
        let delete = v1::DeleteStateRequest {
            bot_id: "echo".to_owned(),
            scope: scope.clone(),
            name: "not there".to_owned(),
            if_match: None,
        };
        let delete = within("a deletion", wire.state().delete_state(delete))
            .await
            .map(drop);
        let (writes, reads) = match role {
            "bot:echo" | "admin" => (true, true),
            "backend" | "reader" => (false, true),
            _ => (false, false),
        };
        for (result, may) in [(put, writes), (delete, writes), (get, reads), (list, reads)] {
            if may {
                result.expect("it may");
            } else {
                refused(result, Code::PermissionDenied, "ROLE_MISSING");
            }
        }
    }
}

#[tokio::test]
async fn a_bot_that_names_none_means_itself_and_others_must_name_one() {
    let gateway = guarded().await;
    for role in ["bot:echo", "bot:other", "admin"] {
        let wire = gateway.wire_with(role).await;
        let put = v1::PutStateRequest {
            scope: Some(v1::StateScope::bot()),
            name: role.to_owned(),
            content: Some(crate::harness::content(1.0)),
            ..Default::default()
        };
        let put = within("a write", wire.state().put_state(put)).await;
        if role == "admin" {
            let facts = refused(put, Code::InvalidArgument, "REQUEST_INVALID");
            assert_eq!(facts["field"], "bot_id");
        } else {
            put.expect("it is its own");
        }
    }
    let wire = gateway.wire_with("reader").await;
    for bot in ["echo", "other"] {
        let list = v1::ListStateRequest {
            bot_id: bot.to_owned(),
            scope: Some(v1::StateScope::bot()),
            ..Default::default()
        };
        let page = within("a page", wire.state().list_state(list)).await;
        let documents = page.expect("a page").into_inner().documents;
        let names: Vec<_> = documents.iter().map(|document| &document.name).collect();
        assert_eq!(names, [&format!("bot:{bot}")]);
    }
}

#[tokio::test]
async fn only_an_admin_looks_after_the_gateway() {
    let gateway = guarded().await;
    for role in ROLES {
        let mut admin = gateway.wire_with(role).await.admin();
        let backup = within("a backup", admin.backup(v1::BackupRequest {})).await;
        let erase = admin.erase_user(v1::EraseUserRequest {
            channel_id: "web".to_owned(),
            user_id: "nobody".to_owned(),
        });
        let erase = within("an erasure", erase).await;
        if role == "admin" {
            backup.expect("it begins");
            assert!(erase.expect("it may").into_inner().done);
        } else {
            refused(backup, Code::PermissionDenied, "ROLE_MISSING");
            refused(erase, Code::PermissionDenied, "ROLE_MISSING");
        }
    }
}

#[tokio::test]
async fn a_bot_that_was_removed_sees_no_more_of_the_conversation() {
    let gateway = guarded().await;
    let web = gateway.wire_with("channel:web").await;
    let own = gateway.wire_with("bot:echo").await;
    let admin = gateway.wire_with("admin").await;
    let mut watcher = Watcher::start(&own, "c1", None).await.expect("it may");
    watcher.expect(1, "hi").await;
    let mut all = Watcher::start(&admin, "c1", None).await.expect("it may");
    all.expect(1, "hi").await;
    let remove = v1::RemoveBotRequest {
        conversation: Some(name("web", "c1")),
        bot_id: "echo".to_owned(),
        ..Default::default()
    };
    let removed = admin.conversations().remove_bot(remove).await;
    removed.expect("it is removed");
    gateway.user("c1").over(&web).says("not for it").await;
    // What says that it has left is the last that it sees.
    assert_eq!(watcher.entry().await.sequence, 2);
    refused(watcher.step().await, Code::NotFound, "CONVERSATION_UNKNOWN");
    assert_eq!(all.entry().await.sequence, 2);
    all.expect(3, "not for it").await;
}
