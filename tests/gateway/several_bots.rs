//! Several bots in a conversation: who joins, who leaves, whom each hears, and who is who.

use tonic::Code;
use turnwire::auth::secret::Digest;
use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome::Stale;
use turnwire::proto::v1::add_bot_request::Start;
use turnwire::proto::v1::send_activity_request::Target;
use turnwire::store::{KeyRange, Order, Store, Table};

use crate::harness::{
    Bot, Gateway, added_to, kind_of, message, name, refused, removed_from, said, seconds, within,
};

const DAY: u64 = 24 * 3600;

/// What comes next, which must be this.
async fn expect(bot: &mut Bot, what: &str) -> v1::Delivery {
    let delivery = bot.next_delivery().await;
    assert_eq!(kind_of(&delivery), what);
    delivery
}

/// Takes and finishes what comes next, which must be this.
async fn takes(bot: &mut Bot, what: &str) {
    let delivery = expect(bot, what).await;
    bot.acks(&delivery).await;
}

fn from_start(conversation: &str, bot: &str, after: u64) -> v1::AddBotRequest {
    v1::AddBotRequest {
        start: Some(Start::AfterSequence(after)),
        ..added_to(conversation, bot)
    }
}

/// Says something on behalf of a bot.
async fn backend_says(
    gateway: &Gateway,
    bot: &str,
    text: &str,
) -> Result<v1::SendActivityResponse, tonic::Status> {
    let request = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("web", "c1"))),
        bot_id: bot.to_owned(),
        activity: Some(message(text).into()),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let sent = within("a send", client.send_activity(request)).await?;
    Ok(sent.into_inner())
}

/// A gateway whose bots `echo` and `other` hear everyone.
async fn talkative() -> Gateway {
    let mut gateway = Gateway::start().await;
    gateway.rewrite(|config| {
        let hears = "\nhears = \"everyone\"";
        let config = config.replace("name = \"Echo\"", &format!("name = \"Echo\"{hears}"));
        config.replace("id = \"other\"", &format!("id = \"other\"{hears}"))
    });
    gateway.restart().await;
    gateway
}

#[tokio::test]
async fn a_bot_that_is_added_is_told_so_and_hears_what_users_say_from_then_on() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("before").await;
    takes(&mut echo, "before").await;
    let added = gateway.adds("c1", "other").await;
    assert!(!added.unchanged);
    let appended = added.appended.expect("where it was told");
    assert_eq!(
        (appended.sequence, appended.activity_id.as_str()),
        (2, "c1|members-0000002")
    );
    takes(&mut echo, "conversationUpdate +other").await;
    let told = expect(&mut other, "conversationUpdate +other").await;
    assert_eq!((told.sequence, told.attempt), (2, 1));
    let activity = told.activity.as_deref().expect("an activity");
    let id = |account: &Option<v1::ChannelAccount>| account.clone().unwrap_or_default().id;
    assert_eq!(id(&activity.from).as_deref(), Some("ann"));
    assert_eq!(id(&activity.recipient).as_deref(), Some("other"));
    assert_eq!(activity.members_added[0].role(), "bot");
    assert_eq!(activity.channel_id.as_deref(), Some("web"));
    assert_eq!(activity.id.as_deref(), Some("c1|members-0000002"));
    other.acks(&told).await;
    gateway.user("c1").says("after").await;
    takes(&mut echo, "after").await;
    takes(&mut other, "after").await;
    echo.expect_nothing().await;
    other.expect_nothing().await;
    assert_eq!(gateway.bots_of("c1").await, ["echo", "other"]);
    assert_eq!(gateway.listed_for("other").await, ["c1"]);
    assert_eq!(gateway.members_of("c1").await, ["ann", "other"]);
}

#[tokio::test]
async fn a_bot_that_is_added_may_hear_what_was_said_before() {
    let gateway = Gateway::start().await;
    let mut other = gateway.bot("other").attach().await;
    for conversation in ["whole", "part", "none"] {
        for text in ["one", "two", "three"] {
            gateway.user(conversation).says(text).await;
        }
    }
    for (conversation, after, heard) in [
        ("whole", 0, &["one", "two", "three"][..]),
        ("part", 2, &["three"]),
        ("none", 1_000, &[]),
    ] {
        let request = from_start(conversation, "other", after);
        gateway.wire().adds(request).await.expect("it is added");
        for text in heard {
            takes(&mut other, text).await;
        }
        takes(&mut other, "conversationUpdate +other").await;
    }
    other.expect_nothing().await;
}

#[tokio::test]
async fn a_bot_cannot_be_added_where_the_log_is_gone_and_can_at_its_beginning() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("old").await;
    gateway.user("c1").says("old, too").await;
    gateway.pass(seconds(8 * DAY)).await;
    gateway.user("c1").says("new").await;
    gateway.pass_slowly(3).await;
    let facts = refused(
        gateway.wire().adds(from_start("c1", "other", 1)).await,
        Code::OutOfRange,
        "SEQUENCE_GONE",
    );
    assert_eq!(facts["first_sequence"], "3");
    assert_eq!(gateway.bots_of("c1").await, ["echo"]);
    gateway
        .wire()
        .adds(from_start("c1", "other", 0))
        .await
        .expect("it is added");
    let mut other = gateway.bot("other").attach().await;
    takes(&mut other, "new").await;
    takes(&mut other, "conversationUpdate +other").await;
}

#[tokio::test]
async fn what_is_so_already_changes_nothing() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let added = gateway.adds("c1", "echo").await;
    assert!(added.unchanged && added.appended.is_none());
    let removed = gateway.removes("c1", "other").await;
    assert!(removed.unchanged && removed.appended.is_none());
    assert_eq!(gateway.log("c1").await.len(), 1);
}

#[tokio::test]
async fn a_change_with_a_key_happens_once_and_its_key_is_for_nothing_else() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let add = v1::AddBotRequest {
        request_id: "add".to_owned(),
        ..added_to("c1", "other")
    };
    let remove = v1::RemoveBotRequest {
        request_id: "remove".to_owned(),
        ..removed_from("c1", "other")
    };
    let added = gateway.wire().adds(add.clone()).await.expect("added");
    let removed = gateway
        .wire()
        .removes(remove.clone())
        .await
        .expect("removed");
    for restart in [false, true] {
        if restart {
            gateway.crash().await;
        }
        let again = gateway.wire().adds(add.clone()).await.expect("a repeat");
        assert_eq!((again.unchanged, &again.appended), (true, &added.appended));
        let again = gateway
            .wire()
            .removes(remove.clone())
            .await
            .expect("a repeat");
        assert_eq!(
            (again.unchanged, &again.appended),
            (true, &removed.appended)
        );
        assert_eq!(gateway.bots_of("c1").await, ["echo"]);
    }
    let mismatch = v1::RemoveBotRequest {
        request_id: "add".to_owned(),
        ..removed_from("c1", "other")
    };
    refused(
        gateway.wire().removes(mismatch).await,
        Code::FailedPrecondition,
        "IDEMPOTENCY_MISMATCH",
    );
    // A bot's own keys are others.
    let mut echo = gateway.bot("echo").attach().await;
    let send = v1::Send {
        client_id: "add".to_owned(),
        conversation: Some(name("web", "c1")),
        activity: Some(message("mine").into()),
        delivery_id: 0,
    };
    assert!(!echo.send(send).await.repeated_send);
    let long = v1::AddBotRequest {
        request_id: "x".repeat(257),
        ..added_to("c1", "other")
    };
    refused(
        gateway.wire().adds(long).await,
        Code::InvalidArgument,
        "REQUEST_INVALID",
    );
}

#[tokio::test]
async fn what_is_not_there_cannot_join_or_be_joined() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let wire = gateway.wire();
    for (request, code, reason) in [
        (added_to("c1", "nobody"), Code::NotFound, "BOT_UNKNOWN"),
        (
            added_to("c2", "other"),
            Code::NotFound,
            "CONVERSATION_UNKNOWN",
        ),
        (added_to("c1", ""), Code::InvalidArgument, "REQUEST_INVALID"),
        (
            added_to("", "other"),
            Code::InvalidArgument,
            "REQUEST_INVALID",
        ),
    ] {
        refused(wire.adds(request).await, code, reason);
    }
    refused(
        wire.removes(removed_from("c2", "echo")).await,
        Code::NotFound,
        "CONVERSATION_UNKNOWN",
    );
    refused(
        wire.removes(removed_from("c1", "")).await,
        Code::InvalidArgument,
        "REQUEST_INVALID",
    );
    assert_eq!(gateway.log("c1").await.len(), 1);
}

#[tokio::test]
async fn a_conversation_has_so_many_bots_and_no_more() {
    let setup = Gateway::setup().config(|config| config.limits.conversation_bots = 2);
    let gateway = setup.start().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    let facts = refused(
        gateway.wire().adds(added_to("c1", "probe")).await,
        Code::FailedPrecondition,
        "TOO_MANY_BOTS",
    );
    assert_eq!(facts["limit"], "conversation_bots=2");
    gateway.removes("c1", "other").await;
    gateway.adds("c1", "probe").await;
    assert_eq!(gateway.bots_of("c1").await, ["echo", "probe"]);
}

#[tokio::test]
async fn a_bot_that_is_removed_holds_nothing_and_the_others_go_on() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    let first = echo.expect("c1", "hi", 1).await;
    let held = expect(&mut other, "conversationUpdate +other").await;
    let removed = gateway.removes("c1", "echo").await;
    assert!(!removed.unchanged);
    // What the other holds it keeps, although its place has moved.
    assert_eq!(echo.commit(&first, &["too late"]).await.outcome(), Stale);
    assert_eq!(echo.answers(&first, "too late").await.outcome(), Stale);
    assert_eq!(echo.ack(&first).await, Stale);
    other.commits(&held, &["mine"]).await;
    takes(&mut other, "conversationUpdate -echo").await;
    gateway.user("c1").says("who is there").await;
    takes(&mut other, "who is there").await;
    echo.expect_nothing().await;
    assert_eq!(gateway.bots_of("c1").await, ["other"]);
    assert!(gateway.listed_for("echo").await.is_empty());
    let log = gateway.log("c1").await;
    let activity = log[4].activity.as_deref().expect("an activity");
    let recipient = activity.recipient.as_ref().expect("a recipient");
    assert_eq!(recipient.id(), "other");
    gateway.crash().await;
    assert_eq!(gateway.bots_of("c1").await, ["other"]);
    gateway.bot("echo").attach().await.expect_nothing().await;
}

#[tokio::test]
async fn a_bot_that_comes_back_hears_what_is_said_from_then_on() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    gateway.user("c1").says("one").await;
    let old = echo.expect("c1", "one", 1).await;
    gateway.removes("c1", "echo").await;
    gateway.user("c1").says("to nobody").await;
    gateway.adds("c1", "echo").await;
    takes(&mut echo, "conversationUpdate +echo").await;
    gateway.user("c1").says("two").await;
    takes(&mut echo, "two").await;
    assert_eq!(echo.ack(&old).await, Stale);
    echo.expect_nothing().await;
}

#[tokio::test]
async fn nothing_is_delivered_without_a_bot_until_one_is_added() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    gateway.removes("c1", "echo").await;
    for again in 0..3 {
        match again {
            0 => {}
            // Out of memory and back.
            1 => gateway.pass_slowly(15).await,
            _ => gateway.crash().await,
        }
        let mut echo = gateway.bot("echo").attach().await;
        let sequence = gateway.user("c1").says("is there anybody").await.sequence;
        assert_eq!(sequence, 3 + again);
        echo.expect_nothing().await;
        assert!(gateway.bots_of("c1").await.is_empty());
        refused(
            backend_says(&gateway, "", "nobody says").await,
            Code::FailedPrecondition,
            "BOT_ABSENT",
        );
    }
    gateway
        .wire()
        .adds(from_start("c1", "other", 3))
        .await
        .expect("it is added");
    gateway.crash().await;
    let mut other = gateway.bot("other").attach().await;
    takes(&mut other, "is there anybody").await;
    takes(&mut other, "is there anybody").await;
    takes(&mut other, "conversationUpdate +other").await;
    gateway.user("c1").says("at last").await;
    let last = expect(&mut other, "at last").await;
    let activity = last.activity.as_deref().expect("an activity");
    assert_eq!(activity.recipient.as_ref().map(|to| to.id()), Some("other"));
}

#[tokio::test]
async fn each_bot_speaks_in_its_own_name_and_users_speak_to_the_first() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    takes(&mut other, "conversationUpdate +other").await;
    gateway.user("c1").says("again").await;
    let hi = echo.expect("c1", "hi", 1).await;
    echo.commits(&hi, &["from echo"]).await;
    let again = expect(&mut other, "again").await;
    let recipient = again.activity.as_deref().and_then(|a| a.recipient.as_ref());
    assert_eq!(recipient.map(|to| to.id()), Some("echo"));
    other.commits(&again, &["from other"]).await;
    backend_says(&gateway, "other", "for other")
        .await
        .expect("it is said");
    let log = gateway.log("c1").await;
    for (at, from, to) in [(3, "echo", "ann"), (4, "other", "ann"), (5, "other", "ann")] {
        let activity = log[at].activity.as_deref().expect("an activity");
        assert_eq!(activity.from.as_ref().map(|from| from.id()), Some(from));
        assert_eq!(activity.recipient.as_ref().map(|to| to.id()), Some(to));
        assert_eq!(log[at].bot_id, from);
    }
    refused(
        backend_says(&gateway, "", "who").await,
        Code::FailedPrecondition,
        "BOT_AMBIGUOUS",
    );
}

#[tokio::test]
async fn no_bot_of_the_conversation_is_taken_for_its_user() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    // What the channel says in the name of the second bot.
    gateway.user("c1").named("other").says("hello").await;
    let reference = gateway.conversation("c1").await.reference;
    let user = reference.and_then(|reference| reference.user);
    assert_eq!(user.as_ref().map(|user| user.id()), Some("ann"));
}

#[tokio::test]
async fn a_bot_hears_users_and_not_other_bots() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    let hi = echo.expect("c1", "hi", 1).await;
    echo.commits(&hi, &["answer"]).await;
    backend_says(&gateway, "echo", "for echo")
        .await
        .expect("it is said");
    takes(&mut other, "conversationUpdate +other").await;
    other.expect_nothing().await;
    takes(&mut echo, "conversationUpdate +other").await;
    echo.expect_nothing().await;
}

#[tokio::test]
async fn a_bot_that_asks_hears_other_bots_and_never_itself() {
    let gateway = talkative().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    takes(&mut other, "conversationUpdate +other").await;
    let hi = echo.expect("c1", "hi", 1).await;
    echo.commits(&hi, &["answer"]).await;
    takes(&mut echo, "conversationUpdate +other").await;
    takes(&mut other, "answer").await;
    other.says("c1", "by itself").await;
    takes(&mut echo, "by itself").await;
    backend_says(&gateway, "other", "for it")
        .await
        .expect("it is said");
    takes(&mut echo, "for it").await;
    echo.expect_nothing().await;
    other.expect_nothing().await;
}

/// Two bots that answer one another, until they hear nothing more. Returns how often.
async fn they_talk(one: &mut Bot, other: &mut Bot) -> usize {
    let mut answers = 0;
    loop {
        let mut silent = true;
        for bot in [&mut *one, &mut *other] {
            for delivery in bot.waiting().await {
                silent = false;
                if kind_of(&delivery).starts_with("conversationUpdate") {
                    bot.acks(&delivery).await;
                    continue;
                }
                answers += 1;
                let answer = format!("what do you mean by `{}`", said(&delivery).len());
                bot.commits(&delivery, &[&answer]).await;
            }
        }
        if silent {
            return answers;
        }
    }
}

#[tokio::test]
async fn bots_that_talk_to_one_another_come_to_an_end() {
    let mut gateway = talkative().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    for crash in [false, true] {
        let mut echo = gateway.bot("echo").attach().await;
        let mut other = gateway.bot("other").attach().await;
        if crash {
            // All of it was counted, and nobody forgets.
            assert_eq!(they_talk(&mut echo, &mut other).await, 0);
            other.says("c1", "hello?").await;
            assert_eq!(they_talk(&mut echo, &mut other).await, 0);
            gateway.user("c1").says("go on").await;
        }
        // Each of both answers the user first, and then the other: twenty of those are heard.
        let answers = they_talk(&mut echo, &mut other).await;
        let heard_from_user = if crash { 2 } else { 1 };
        assert_eq!(answers, 20 + heard_from_user);
        let cut = gateway.metric("turnwire_bot_runs_cut_total").await;
        assert!(cut > 0.0, "{cut}");
        drop((echo, other));
        gateway.crash().await;
    }
}

#[tokio::test]
async fn a_bot_that_was_away_hears_of_a_long_talk_no_more_than_one_that_was_there() {
    let setup = Gateway::setup().config(|config| config.limits.bot_run = 3);
    let mut gateway = setup.start().await;
    gateway
        .rewrite(|config| config.replace("id = \"other\"", "id = \"other\"\nhears = \"everyone\""));
    gateway.restart().await;
    gateway.user("c1").says("hi").await;
    gateway.adds("c1", "other").await;
    for number in 1..=6 {
        backend_says(&gateway, "echo", &format!("part {number}"))
            .await
            .expect("it is said");
    }
    // That a bot joins is nobody's word, and ends no run.
    gateway.adds("c1", "probe").await;
    backend_says(&gateway, "echo", "part 7")
        .await
        .expect("it is said");
    assert_eq!(gateway.metric("turnwire_bot_runs_cut_total").await, 4.0);
    gateway.crash().await;
    backend_says(&gateway, "echo", "part 8")
        .await
        .expect("it is said");
    gateway.user("c1").says("enough").await;
    backend_says(&gateway, "echo", "part 9")
        .await
        .expect("it is said");
    let mut other = gateway.bot("other").attach().await;
    for what in [
        "conversationUpdate +other",
        "part 1",
        "part 2",
        "part 3",
        "conversationUpdate +probe",
        "enough",
        "part 9",
    ] {
        takes(&mut other, what).await;
    }
    other.expect_nothing().await;
}

#[tokio::test]
async fn a_channel_may_begin_its_conversations_with_several_bots() {
    let mut gateway = Gateway::start().await;
    gateway.rewrite(|config| config.replacen("bot = \"echo\"", "bots = [\"echo\", \"other\"]", 1));
    gateway.restart().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("hi").await;
    takes(&mut echo, "hi").await;
    let hi = expect(&mut other, "hi").await;
    let recipient = hi.activity.as_deref().and_then(|a| a.recipient.as_ref());
    assert_eq!(recipient.map(|to| to.id()), Some("echo"));
    assert_eq!(gateway.bots_of("c1").await, ["echo", "other"]);
    assert_eq!(gateway.listed_for("other").await, ["c1"]);
}

#[tokio::test]
async fn the_dead_letters_of_a_bot_that_left_go_with_their_activities() {
    let gateway = Gateway::start().await;
    let letters = |gateway: &Gateway| {
        let mut count = 0;
        let range = KeyRange::table(Table::DeadLetter);
        let mut visit = |_: &[u8], _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        };
        let scanned = gateway.memory().scan(&range, Order::Ascending, &mut visit);
        scanned.expect("a readable store");
        count
    };
    gateway.user("c1").says("poison").await;
    gateway.adds("c1", "other").await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    let poison = echo.expect("c1", "poison", 1).await;
    echo.poison(&poison, "bad").await;
    let told = expect(&mut other, "conversationUpdate +other").await;
    other.poison(&told, "bad").await;
    takes(&mut echo, "conversationUpdate +other").await;
    gateway.pass(seconds(4 * DAY)).await;
    gateway.user("c1").says("later").await;
    for bot in [&mut echo, &mut other] {
        let later = expect(bot, "later").await;
        bot.poison(&later, "bad").await;
    }
    gateway.removes("c1", "echo").await;
    gateway.removes("c1", "other").await;
    assert_eq!(letters(&gateway), 4);
    gateway.pass(seconds(4 * DAY)).await;
    gateway.pass_slowly(3).await;
    assert_eq!(letters(&gateway), 2, "what is kept is still listed");
    gateway.pass(seconds(4 * DAY)).await;
    gateway.pass_slowly(3).await;
    assert_eq!(letters(&gateway), 0);
}

#[tokio::test]
async fn web_chats_see_each_bot_as_a_bot_and_nothing_of_who_joins() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    let chat = gateway.chat().await;
    let start = echo.next_delivery().await;
    echo.acks(&start).await;
    let conversation = start.conversation.clone();
    let add = v1::AddBotRequest {
        conversation: conversation.clone(),
        bot_id: "other".to_owned(),
        ..Default::default()
    };
    gateway.wire().adds(add).await.expect("it is added");
    takes(&mut echo, "conversationUpdate +other").await;
    let told = expect(&mut other, "conversationUpdate +other").await;
    other.commits(&told, &["hello, I am the other"]).await;
    let hand_over = v1::HandOverRequest {
        conversation,
        from_bot_id: "other".to_owned(),
        to_bot_id: "echo".to_owned(),
        text: "between us".to_owned(),
        ..Default::default()
    };
    gateway
        .wire()
        .hands_over(hand_over)
        .await
        .expect("handed over");
    takes(&mut echo, "conversationUpdate -other").await;
    let told = expect(&mut echo, "between us").await;
    echo.commits(&told, &["I go on"]).await;
    let activities = chat.everything().await;
    let seen: Vec<_> = activities
        .iter()
        .map(|activity| {
            let text = activity["text"].as_str().unwrap_or_default();
            let from = &activity["from"];
            let reply = activity.get("replyToId").is_some();
            (text, from["id"].as_str(), from["role"].as_str(), reply)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("hello, I am the other", Some("other"), Some("bot"), false),
            ("I go on", Some("echo"), Some("bot"), false),
        ]
    );
}

#[tokio::test]
async fn no_user_of_a_web_chat_is_called_as_a_bot_that_may_join() {
    let gateway = Gateway::start().await;
    let chat = gateway.chat().await;
    let line = gateway.line("site-one");
    for (from, status) in [("other", 400), ("echo", 400), ("bea", 200)] {
        let said = serde_json::json!({"type": "message", "text": "hi", "from": {"id": from}});
        let answer = line.post(&chat.id, &said).await;
        assert_eq!(answer.status, status, "{from}");
    }
}

#[tokio::test]
async fn backends_add_and_a_bot_may_leave() {
    let principal = |role: &str| {
        let digest = Digest::of(role);
        format!(
            "[[principals]]\nname = \"{role}\"\ntoken_sha256 = \"{digest}\"\nroles = [\"{role}\"]\n"
        )
    };
    let roles = [
        "bot:echo",
        "bot:other",
        "channel:web",
        "backend",
        "reader",
        "admin",
    ];
    let principals: String = roles.iter().map(|role| principal(role)).collect();
    let gateway = Gateway::setup().and(&principals).start().await;
    let web = gateway.wire_with("channel:web").await;
    gateway.user("c1").over(&web).says("hi").await;
    for role in ["bot:echo", "bot:other", "channel:web", "reader"] {
        let wire = gateway.wire_with(role).await;
        refused(
            wire.adds(added_to("c1", "other")).await,
            Code::PermissionDenied,
            "ROLE_MISSING",
        );
    }
    for role in ["bot:other", "channel:web", "reader"] {
        let wire = gateway.wire_with(role).await;
        refused(
            wire.removes(removed_from("c1", "echo")).await,
            Code::PermissionDenied,
            "ROLE_MISSING",
        );
    }
    let other = gateway.wire_with("bot:other").await;
    refused(
        other.removes(removed_from("c1", "other")).await,
        Code::NotFound,
        "CONVERSATION_UNKNOWN",
    );
    for role in ["backend", "admin"] {
        let wire = gateway.wire_with(role).await;
        let added = wire.adds(added_to("c1", "other")).await;
        assert!(!added.expect("it is added").unchanged);
        // Whoever is one bot means itself.
        let leave = v1::RemoveBotRequest {
            request_id: role.to_owned(),
            ..removed_from("c1", "")
        };
        let left = other.removes(leave.clone()).await.expect("it leaves");
        assert!(!left.unchanged);
        let again = other.removes(leave).await.expect("a repeat");
        assert_eq!((again.unchanged, again.appended), (true, left.appended));
        refused(
            other.removes(removed_from("c1", "")).await,
            Code::NotFound,
            "CONVERSATION_UNKNOWN",
        );
    }
}
