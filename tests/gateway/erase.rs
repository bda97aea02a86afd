//! Erasing a person: what they said is gone everywhere, and everything else goes on.

use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;
use turnwire::activity::json::encode;
use turnwire::clock::Clock;
use turnwire::proto::v1;
use turnwire::proto::v1::list_conversations_request::Filter;
use turnwire::store::{Durability, memory::Verdict};

use crate::harness::{Gateway, message, name, place_of, put, refused, seconds, within};

async fn erase_on(gateway: &Gateway, channel: &str, user: &str) -> v1::EraseUserResponse {
    let request = v1::EraseUserRequest {
        channel_id: channel.to_owned(),
        user_id: user.to_owned(),
    };
    let erased = within("an erasure", gateway.wire().admin().erase_user(request)).await;
    erased.expect("it is erased").into_inner()
}

async fn erase(gateway: &Gateway, user: &str) -> v1::EraseUserResponse {
    erase_on(gateway, "web", user).await
}

/// What a call to erase a user says that has erased all there is.
fn counts(conversations: u64, activities: u64, named: u64) -> v1::EraseUserResponse {
    v1::EraseUserResponse {
        done: true,
        conversations,
        activities,
        named_activities: named,
        files: 0,
        documents: 0,
    }
}

fn account(id: &str, name: &str) -> v1::ChannelAccount {
    v1::ChannelAccount {
        id: Some(id.to_owned()),
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

/// A message of someone with a name.
fn says(id: &str, name: &str, text: &str) -> v1::Activity {
    v1::Activity {
        from: Some(account(id, name)),
        ..message(text)
    }
}

fn shown(activity: &Option<Box<v1::Activity>>) -> Value {
    encode(activity.as_deref().expect("an activity"))
}

async fn shown_log(gateway: &Gateway, channel: &str, conversation: &str) -> Vec<Value> {
    let log = gateway.log_on(channel, conversation).await;
    let sequences: Vec<u64> = log.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (1..=log.len() as u64).collect::<Vec<_>>());
    log.iter().map(|entry| shown(&entry.activity)).collect()
}

async fn listed(gateway: &Gateway, user: &str) -> Vec<String> {
    let request = v1::ListConversationsRequest {
        filter: Some(Filter::User(v1::UserName {
            channel_id: "web".to_owned(),
            user_id: user.to_owned(),
        })),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let page = within("a page", client.list_conversations(request)).await;
    let found = page.expect("a page").into_inner().conversations.into_iter();
    let mut ids: Vec<_> = found
        .filter_map(|c| c.name)
        .map(|n| n.conversation_id)
        .collect();
    ids.sort();
    ids
}

async fn members(gateway: &Gateway, conversation: &str) -> Vec<Value> {
    let request = v1::ListMembersRequest {
        conversation: Some(name("web", conversation)),
        ..Default::default()
    };
    let page = within(
        "members",
        gateway.wire().conversations().list_members(request),
    )
    .await;
    let members = page.expect("a page").into_inner().members.into_iter();
    // Accounts have a JSON form as parts of an activity.
    let from = |member| v1::Activity {
        from: Some(member),
        ..Default::default()
    };
    members
        .map(|member| encode(&from(member))["from"].clone())
        .collect()
}

#[tokio::test]
async fn what_a_person_said_is_gone_and_everything_else_stays() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let user = gateway.user("c1");
    user.posts(says("ann", "Ann", "my secret")).await;
    let delivery = bot.expect("c1", "my secret", 1).await;
    bot.commits(&delivery, &["hello"]).await;
    user.posts(says("bob", "Bob", "not a secret")).await;
    let delivery = bot.expect("c1", "not a secret", 1).await;
    bot.acks(&delivery).await;
    gateway
        .user("c2")
        .posts(says("ann", "Ann", "another secret"))
        .await;
    let delivery = bot.expect("c2", "another secret", 1).await;
    bot.acks(&delivery).await;
    let before = gateway.log("c1").await;

    assert_eq!(erase(&gateway, "ann").await, counts(2, 2, 1));

    let log = shown_log(&gateway, "web", "c1").await;
    assert_eq!(log.len(), 3);
    let then = shown(&before[0].activity);
    assert_eq!(
        log[0],
        json!({
            "type": "message", "id": then["id"], "timestamp": then["timestamp"], "channelId": "web",
            "conversation": {"id": "c1"}, "recipient": then["recipient"], "erased": true,
        })
    );
    // Of what the bot said only the account is less.
    assert_eq!(
        (&log[1]["text"], &log[1]["recipient"]),
        (&json!("hello"), &json!({"id": "ann"}))
    );
    assert_eq!(log[2], shown(&before[2].activity));
    assert_eq!(
        shown_log(&gateway, "web", "c2").await[0]["text"],
        Value::Null
    );
    assert_eq!(listed(&gateway, "ann").await, [""; 0]);
    assert_eq!(listed(&gateway, "bob").await, ["c1"]);
    let left = [
        json!({"id": "ann", "erased": true}),
        json!({"id": "bob", "name": "Bob"}),
    ];
    assert_eq!(members(&gateway, "c1").await, left);
    let user = gateway
        .conversation("c2")
        .await
        .reference
        .and_then(|reference| reference.user);
    let user = user.expect("whom to answer");
    assert_eq!((user.id.as_deref(), user.name), (Some("ann"), None));
    // Nothing of it is anywhere in the store.
    gateway.pass_slowly(15).await;
    for secret in ["my secret", "another secret", "Ann"] {
        assert!(!gateway.stores(secret), "{secret}");
    }
    assert!(gateway.stores("not a secret") && gateway.stores("hello"));
}

#[tokio::test]
async fn a_person_who_is_unknown_is_erased_at_once() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    assert_eq!(erase(&gateway, "nobody").await, counts(0, 0, 0));
    assert_eq!(erase_on(&gateway, "nowhere", "ann").await, counts(0, 0, 0));
    assert_eq!(gateway.texts("c1").await, ["hi"]);
    for (channel, user, field) in [
        ("", "ann", "channel_id"),
        ("web", "", "user_id"),
        ("web", "a\0b", "user_id"),
    ] {
        let request = v1::EraseUserRequest {
            channel_id: channel.to_owned(),
            user_id: user.to_owned(),
        };
        let answer = within("a refusal", gateway.wire().admin().erase_user(request)).await;
        let facts = refused(answer, Code::InvalidArgument, "REQUEST_INVALID");
        assert_eq!(facts["field"], field);
    }
}

#[tokio::test]
async fn erasing_again_finds_what_came_since() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1");
    user.posts(says("ann", "Ann", "before")).await;
    assert_eq!(erase(&gateway, "ann").await, counts(1, 1, 0));
    assert_eq!(erase(&gateway, "ann").await, counts(0, 0, 0));
    user.posts(says("ann", "Ann", "after")).await;
    // Whoever speaks again is there again.
    assert_eq!(listed(&gateway, "ann").await, ["c1"]);
    assert_eq!(
        members(&gateway, "c1").await,
        [json!({"id": "ann", "name": "Ann"})]
    );
    assert_eq!(shown_log(&gateway, "web", "c1").await[1]["text"], "after");
    assert_eq!(erase(&gateway, "ann").await, counts(1, 1, 0));
    assert!(!gateway.stores("after"));
    // Also after a time in which the conversation left memory, and after a restart.
    user.posts(says("ann", "Ann", "later")).await;
    let mut gateway = gateway;
    gateway.restart().await;
    assert_eq!(erase(&gateway, "ann").await, counts(1, 1, 0));
    gateway.restart().await;
    gateway
        .user("c1")
        .posts(says("ann", "Ann", "at last"))
        .await;
    assert_eq!(listed(&gateway, "ann").await, ["c1"]);
}

#[tokio::test]
async fn one_who_has_left_is_erased_and_does_not_come_back() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1");
    user.posts(says("ann", "Ann", "my secret")).await;
    user.posts(v1::Activity {
        r#type: Some("conversationUpdate".to_owned()),
        from: Some(account("bob", "Bob")),
        members_removed: vec![account("ann", "Ann")],
        ..Default::default()
    })
    .await;
    assert_eq!(
        members(&gateway, "c1").await,
        [json!({"id": "bob", "name": "Bob"})]
    );
    assert_eq!(erase(&gateway, "ann").await, counts(1, 1, 1));
    assert_eq!(
        members(&gateway, "c1").await,
        [json!({"id": "bob", "name": "Bob"})]
    );
    let log = shown_log(&gateway, "web", "c1").await;
    assert_eq!(log[1]["membersRemoved"], json!([{"id": "ann"}]));
    assert_eq!(listed(&gateway, "ann").await, [""; 0]);
}

#[tokio::test]
async fn what_waits_for_a_bot_comes_as_it_is_now_and_what_is_held_stays_held() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let user = gateway.user("c1");
    user.posts(says("ann", "Ann", "held")).await;
    let held = bot.expect("c1", "held", 1).await;
    user.posts(says("ann", "Ann", "waiting")).await;
    user.posts(says("bob", "Bob", "of another")).await;
    assert_eq!(erase(&gateway, "ann").await, counts(1, 2, 0));
    user.posts(says("ann", "Ann", "since then")).await;
    bot.acks(&held).await;
    let erased = bot.next_delivery().await;
    let activity = shown(&erased.activity);
    assert_eq!((erased.sequence, &activity["erased"]), (2, &json!(true)));
    assert_eq!(
        (&activity["text"], &activity["from"]),
        (&Value::Null, &Value::Null)
    );
    bot.acks(&erased).await;
    for text in ["of another", "since then"] {
        let delivery = bot.expect("c1", text, 1).await;
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
}

#[tokio::test]
async fn what_was_given_back_comes_as_it_is_now() {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway
        .user("c1")
        .posts(says("ann", "Ann", "my secret"))
        .await;
    let delivery = bot.expect("c1", "my secret", 1).await;
    bot.retry(&delivery, Some(seconds(5))).await;
    erase(&gateway, "ann").await;
    gateway.pass(seconds(6)).await;
    let again = bot.next_delivery().await;
    assert_eq!((again.sequence, again.attempt), (1, 2));
    assert_eq!(shown(&again.activity)["erased"], true);
    bot.acks(&again).await;
}

#[tokio::test]
async fn who_follows_from_the_start_does_not_see_what_is_erased() {
    let gateway = Gateway::start().await;
    let user = gateway.user("c1");
    user.says("first").await;
    let mut live = gateway.watch("c1", 0).await;
    live.expect(1, "first").await;
    user.posts(says("bob", "Bob", "my secret")).await;
    live.expect(2, "my secret").await;
    erase(&gateway, "bob").await;
    user.says("last").await;
    // One who has seen it goes on; one who comes now sees what is left.
    live.expect(3, "last").await;
    let mut late = gateway.watch("c1", 0).await;
    late.expect(1, "first").await;
    let entry = late.entry().await;
    assert_eq!(shown(&entry.activity)["erased"], true);
    late.expect(3, "last").await;
}

/// A gateway with a dead letter of `echo` whose reason says what Ann said.
async fn with_a_letter() -> Gateway {
    let gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway
        .user("c1")
        .posts(says("ann", "Ann", "my secret"))
        .await;
    let delivery = bot.expect("c1", "my secret", 1).await;
    bot.poison(&delivery, "cannot answer to my secret").await;
    gateway
}

#[tokio::test]
async fn dead_letters_lose_what_was_said_of_it() {
    let gateway = with_a_letter().await;
    assert!(gateway.stores("cannot answer"));
    erase(&gateway, "ann").await;
    assert!(!gateway.stores("cannot answer"));
}

#[tokio::test]
async fn letters_of_a_bot_that_has_left_lose_it_too() {
    let gateway = with_a_letter().await;
    gateway.removes("c1", "echo").await;
    assert!(gateway.stores("cannot answer"));
    erase(&gateway, "ann").await;
    assert!(!gateway.stores("cannot answer"));
}

#[tokio::test]
async fn documents_about_a_person_go_and_those_about_others_stay() {
    let gateway = Gateway::start().await;
    gateway
        .user("c1")
        .posts(says("ann", "Ann", "my secret"))
        .await;
    let theirs = [
        v1::StateScope::user("web", "ann"),
        v1::StateScope::conversation(name("web", "c1")),
        v1::StateScope::conversation_user(name("web", "c1"), "ann"),
    ];
    let of_others = [
        v1::StateScope::bot(),
        v1::StateScope::user("web", "bob"),
        v1::StateScope::user("queue", "ann"),
        v1::StateScope::conversation_user(name("web", "c1"), "bob"),
    ];
    for scope in theirs.iter().chain(&of_others) {
        for document in ["a", "b"] {
            gateway.puts(put(scope, document, 1.0)).await;
        }
    }
    let erased = erase(&gateway, "ann").await;
    assert_eq!((erased.done, erased.documents), (true, 6));
    for document in ["a", "b"] {
        for scope in &theirs {
            assert_eq!(gateway.number(scope, document).await, None, "{scope:?}");
        }
        for scope in &of_others {
            assert_eq!(gateway.number(scope, document).await, Some(1.0));
        }
    }
    assert_eq!(erase(&gateway, "ann").await, counts(0, 0, 0));
}

#[tokio::test]
async fn what_waits_for_its_time_does_not_bring_the_account_back() {
    let gateway = Gateway::start().await;
    gateway
        .user("c1")
        .posts(says("ann", "Ann", "my secret"))
        .await;
    let at = gateway.clock.now().after(seconds(60));
    let reference = v1::ConversationReference {
        conversation: Some(v1::ConversationAccount {
            id: Some("c1".to_owned()),
            ..Default::default()
        }),
        channel_id: Some("web".to_owned()),
        user: Some(account("ann", "Ann Example")),
        ..Default::default()
    };
    let later = v1::SendActivityRequest {
        target: Some(v1::send_activity_request::Target::Reference(reference)),
        activity: Some(message("a reminder").into()),
        deliver_at: Some(prost_types::Timestamp {
            seconds: (at.0 / 1_000) as i64,
            nanos: (at.0 % 1_000 * 1_000_000) as i32,
        }),
        ..Default::default()
    };
    let waits = gateway.wire().conversations().send_activity(later).await;
    waits.expect("it waits");
    assert!(gateway.stores("Ann Example"));
    erase(&gateway, "ann").await;
    gateway.pass(seconds(60)).await;
    let log = shown_log(&gateway, "web", "c1").await;
    assert_eq!(log[1]["text"], "a reminder");
    assert_eq!(log[1]["recipient"]["id"], "ann");
    assert!(!gateway.stores("Ann Example"));
}

#[tokio::test]
async fn a_long_log_is_erased_page_by_page_while_others_are_served() {
    // On disk rounds are written while the next is decided.
    let gateway = Gateway::setup().on_disk().start().await;
    let user = gateway.user("long");
    for n in 0..700 {
        let text = format!("secret {n}");
        user.posts(if n % 2 == 0 {
            says("ann", "Ann", &text)
        } else {
            says("bob", "Bob", &text)
        })
        .await;
    }
    let mut bot = gateway.bot("echo").attach().await;
    let other = gateway.user("other").named("carl");
    let talking = async {
        for n in 0..20 {
            other.says(&format!("talk {n}")).await;
        }
    };
    let (erased, ()) = tokio::join!(erase(&gateway, "ann"), talking);
    assert_eq!(erased, counts(1, 350, 0));
    let log = shown_log(&gateway, "web", "long").await;
    for (n, entry) in log.iter().enumerate() {
        assert_eq!(entry["erased"] == json!(true), n % 2 == 0, "{n}");
    }
    // Everything is delivered, in order, what is left of it as well.
    let mut next = [1, 1];
    for _ in 0..720 {
        let delivery = bot.next_delivery().await;
        let turn = &mut next[usize::from(place_of(&delivery) == "other")];
        assert_eq!(delivery.sequence, *turn);
        *turn += 1;
        bot.acks(&delivery).await;
    }
    bot.expect_nothing().await;
}

#[tokio::test]
async fn an_erasure_that_is_interrupted_is_finished_by_the_next() {
    let mut gateway = Gateway::start().await;
    for conversation in ["c1", "c2", "c3"] {
        let user = gateway.user(conversation);
        user.posts(says("ann", "Ann", "my secret")).await;
        user.posts(says("bob", "Bob", "hello")).await;
    }
    // The store fails at the second conversation.
    let mut synced = 0;
    gateway.memory().on_commit(move |_, durability| {
        synced += usize::from(durability == Durability::Synced);
        if synced == 4 {
            let place = "memory".to_owned();
            return Verdict::Refuse(turnwire::store::Error::Stopped { place });
        }
        Verdict::Apply
    });
    let request = v1::EraseUserRequest {
        channel_id: "web".to_owned(),
        user_id: "ann".to_owned(),
    };
    let answer = within("a failure", gateway.wire().admin().erase_user(request)).await;
    refused(answer, Code::Unavailable, "STORE_FAILED");
    gateway.memory().heal();
    assert!(gateway.stores("my secret"));
    let left = listed(&gateway, "ann").await;
    assert!((1..3).contains(&left.len()), "{left:?}");
    gateway.crash().await;
    let erased = erase(&gateway, "ann").await;
    assert!(
        erased.done && erased.conversations == left.len() as u64,
        "{erased:?}"
    );
    assert_eq!(listed(&gateway, "ann").await, [""; 0]);
    assert!(!gateway.stores("my secret") && gateway.stores("hello"));
}

#[tokio::test]
async fn files_go_with_what_they_were_sent_with() {
    let folder = TempDir::new().expect("a folder");
    let gateway = Gateway::setup().in_folder(folder.path()).start().await;
    let chat = gateway.chat().await;
    let uploading = chat.line.header("content-type", "text/plain");
    let uploading = uploading.header("content-disposition", "attachment; filename=\"a.txt\"");
    let path = format!("/conversations/{}/upload?userId=ann", chat.id);
    uploading.call("POST", &path, "a file's text").await.is(200);
    let said = chat.everything().await;
    let url = said.iter().find_map(|activity| {
        let attachments = activity["attachments"].as_array()?;
        attachments.first()?["contentUrl"].as_str()
    });
    let url = url.expect("the upload is in the log").to_owned();
    let path = &url[url.find("/v3/").expect("a path of Direct Line")..];
    assert_eq!(gateway.get(path).await.0, 200);

    let erased = erase_on(&gateway, "site", "ann").await;
    assert!(erased.done && erased.files == 1, "{erased:?}");
    assert_eq!(gateway.get(path).await.0, 404);
    let mut left = std::fs::read_dir(folder.path().join("attachments")).expect("a folder");
    let is_empty =
        |day: std::path::PathBuf| std::fs::read_dir(day).is_ok_and(|mut day| day.next().is_none());
    assert!(left.all(|day| is_empty(day.expect("an entry").path())));
    // The client's token is as good as before, and its page shows that there was something.
    assert!(
        chat.everything()
            .await
            .iter()
            .any(|activity| activity["erased"] == json!(true))
    );
    chat.says("and on").await;
}

#[tokio::test]
async fn who_goes_on_speaking_is_erased_up_to_then_and_found_again() {
    let gateway = Gateway::setup().on_disk().start().await;
    let user = gateway.user("c1");
    user.posts(says("ann", "Ann", "first")).await;
    let speaking = async {
        for n in 0..200 {
            user.posts(says("ann", "Ann", &format!("more {n}"))).await;
        }
    };
    let erasing = async {
        for _ in 0..20 {
            erase(&gateway, "ann").await;
        }
    };
    tokio::join!(speaking, erasing);
    // Whatever came between, what is left is listed, and goes with the next call.
    let left = gateway.log("c1").await.into_iter();
    let left = left
        .filter(|entry| shown(&entry.activity)["erased"] != json!(true))
        .count() as u64;
    assert_eq!(listed(&gateway, "ann").await.len() as u64, left.min(1));
    assert_eq!(erase(&gateway, "ann").await, counts(left.min(1), left, 0));
    let log = shown_log(&gateway, "web", "c1").await;
    assert!(log.len() == 201 && log.iter().all(|entry| entry["erased"] == json!(true)));
}
