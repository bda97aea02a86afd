//! Handing a conversation over: in one step, with nothing lost and nothing answered twice.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::Code;
use turnwire::auth::secret::Digest;
use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome::{Ok as Taken, Stale};

use crate::harness::{
    Bot, Gateway, added_to, handover, kind_of, message, name, refused, said, seconds, text,
};

const DAY: u64 = 24 * 3600;

/// What comes next, which must be this, for the first time.
async fn expect(bot: &mut Bot, what: &str) -> v1::Delivery {
    let delivery = bot.next_delivery().await;
    assert_eq!((kind_of(&delivery).as_str(), delivery.attempt), (what, 1));
    delivery
}

/// Takes and finishes what comes next, which must be this.
async fn takes(bot: &mut Bot, what: &str) {
    let delivery = expect(bot, what).await;
    bot.acks(&delivery).await;
}

/// Takes what tells of a hand-over.
async fn takes_over(bot: &mut Bot, from: &str, to: &str) {
    takes(bot, &format!("conversationUpdate +{to} -{from}")).await;
    takes(bot, "handoff.initiate").await;
}

/// Says who is asked for, with a key.
fn keyed(key: &str, conversation: &str, from: &str, to: &str) -> v1::HandOverRequest {
    v1::HandOverRequest {
        request_id: key.to_owned(),
        ..handover(conversation, from, to)
    }
}

fn value(text: &str) -> prost_types::Value {
    prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    }
}

#[tokio::test]
async fn who_takes_over_is_told_why_and_goes_on_where_the_other_stopped() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    takes(&mut echo, "one").await;
    let request = v1::HandOverRequest {
        text: "she wants a person".to_owned(),
        value: Some(value("ticket 17")),
        ..handover("c1", "echo", "other")
    };
    let handed = gateway.wire().hands_over(request).await.expect("it is");
    assert!(!handed.repeated_call);
    let appended = handed.appended.expect("where it was told");
    assert_eq!(
        (appended.sequence, appended.activity_id.as_str()),
        (3, "c1|handover-0000003")
    );
    takes(&mut other, "conversationUpdate +other -echo").await;
    let event = expect(&mut other, "she wants a person").await;
    let activity = event.activity.as_deref().expect("an activity");
    assert_eq!(
        (activity.r#type.as_deref(), activity.name.as_deref()),
        (Some("event"), Some("handoff.initiate"))
    );
    assert_eq!(activity.value, Some(value("ticket 17")));
    let id = |account: &Option<v1::ChannelAccount>| account.clone().unwrap_or_default().id;
    assert_eq!(id(&activity.from).as_deref(), Some("echo"));
    assert_eq!(id(&activity.recipient).as_deref(), Some("other"));
    let reference = activity.relates_to.as_ref().expect("a reference");
    assert_eq!(id(&reference.user).as_deref(), Some("ann"));
    assert_eq!(id(&reference.bot).as_deref(), Some("echo"));
    assert_eq!(reference.channel_id.as_deref(), Some("web"));
    assert_eq!(reference.activity_id, None, "all was finished");
    other.commits(&event, &["I am here now"]).await;
    gateway.user("c1").says("two").await;
    takes(&mut other, "two").await;
    echo.expect_nothing().await;
    assert_eq!(gateway.bots_of("c1").await, ["other"]);
    assert_eq!(gateway.listed_for("other").await, ["c1"]);
    assert!(gateway.listed_for("echo").await.is_empty());
    let log = gateway.log("c1").await;
    let answer = log[3].activity.as_deref().expect("an activity");
    assert_eq!(id(&answer.from).as_deref(), Some("other"));
    assert_eq!(id(&answer.recipient).as_deref(), Some("ann"));
    let two = log[4].activity.as_deref().expect("an activity");
    assert_eq!(id(&two.recipient).as_deref(), Some("other"));
}

#[tokio::test]
async fn what_is_held_goes_to_the_other_and_the_former_holder_writes_nothing() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    gateway.user("c1").says("two").await;
    // Tried before, so that it is seen that attempts begin anew.
    let first = echo.expect("c1", "one", 1).await;
    gateway.pass(seconds(60)).await;
    let held = echo.expect("c1", "one", 2).await;
    gateway.hands_over("c1", "echo", "other").await;
    let mine = expect(&mut other, "one").await;
    assert!(mine.fence > held.fence && mine.delivery_id > held.delivery_id);
    for old in [&first, &held] {
        assert_eq!(echo.answers(old, "too late").await.outcome(), Stale);
        assert_eq!(echo.commit(old, &["too late"]).await.outcome(), Stale);
        assert_eq!(echo.ack(old).await, Stale);
        assert_eq!(echo.retry(old, None).await, Stale);
        assert_eq!(echo.release(old).await, Stale);
        assert_eq!(echo.poison(old, "zombie").await, Stale);
    }
    // Nor with what the other has.
    assert_eq!(echo.commit(&mine, &["theirs"]).await.outcome(), Stale);
    other.commits(&mine, &["answer"]).await;
    takes(&mut other, "two").await;
    takes_over(&mut other, "echo", "other").await;
    // Without a delivery it has nothing to say any more.
    echo.write_send(v1::Send {
        client_id: "late".to_owned(),
        conversation: Some(name("web", "c1")),
        activity: Some(message("hello?").into()),
        delivery_id: 0,
    });
    echo.expect_error("CONVERSATION_UNKNOWN").await;
    echo.expect_nothing().await;
    other.expect_nothing().await;
    let log = gateway.log("c1").await;
    let event = log[3].activity.as_deref().expect("an activity");
    let reference = event.relates_to.as_ref().expect("a reference");
    assert_eq!(reference.activity_id.as_deref(), Some("c1|0000001"));
    assert_eq!(log.len(), 5, "the answer is the one thing that was said");
}

#[tokio::test]
async fn what_was_answered_before_is_not_answered_again() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    let one = echo.expect("c1", "one", 1).await;
    let send = v1::Send {
        client_id: "mine".to_owned(),
        conversation: Some(name("web", "c1")),
        activity: Some(message("in time").into()),
        delivery_id: one.delivery_id,
    };
    assert_eq!(echo.send(send.clone()).await.outcome(), Taken);
    echo.commits(&one, &["all of it"]).await;
    gateway.hands_over("c1", "echo", "other").await;
    takes_over(&mut other, "echo", "other").await;
    other.expect_nothing().await;
    // The result of what was stored in time stays its result.
    let again = echo.send(send).await;
    assert_eq!((again.outcome(), again.repeated_send), (Taken, true));
    assert_eq!(gateway.log("c1").await.len(), 5);
}

#[tokio::test]
async fn it_can_be_handed_back_and_nothing_of_before_counts() {
    let mut gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    let first = echo.expect("c1", "one", 1).await;
    gateway.hands_over("c1", "echo", "other").await;
    let second = expect(&mut other, "one").await;
    gateway.hands_over("c1", "other", "echo").await;
    let third = expect(&mut echo, "one").await;
    assert!(third.fence > second.fence && second.fence > first.fence);
    assert_eq!(echo.commit(&first, &["too late"]).await.outcome(), Stale);
    assert_eq!(other.commit(&second, &["too late"]).await.outcome(), Stale);
    drop((echo, other));
    gateway.crash().await;
    let mut echo = gateway.bot("echo").attach().await;
    let fourth = echo.next_delivery().await;
    assert_eq!((said(&fourth).as_str(), fourth.attempt), ("one", 2));
    assert_eq!(echo.commit(&third, &["too late"]).await.outcome(), Stale);
    echo.commits(&fourth, &["once"]).await;
    takes(&mut echo, "conversationUpdate +other -echo").await;
    takes(&mut echo, "handoff.initiate").await;
    takes(&mut echo, "conversationUpdate +echo -other").await;
    takes(&mut echo, "handoff.initiate").await;
    echo.expect_nothing().await;
    gateway.bot("other").attach().await.expect_nothing().await;
    assert_eq!(gateway.bots_of("c1").await, ["echo"]);
}

#[tokio::test]
async fn a_bot_that_takes_part_is_handed_what_was_said_before_it_joined_and_nothing_twice() {
    for crash in [false, true] {
        let mut gateway = Gateway::start().await;
        // It is away, and so all of this is unfinished.
        for text in ["one", "two"] {
            gateway.user("c1").says(text).await;
        }
        gateway.adds("c1", "other").await;
        for text in ["three", "four"] {
            gateway.user("c1").says(text).await;
        }
        let mut other = gateway.bot("other").attach().await;
        takes(&mut other, "conversationUpdate +other").await;
        takes(&mut other, "three").await;
        let four = expect(&mut other, "four").await;
        gateway.hands_over("c1", "echo", "other").await;
        // It is to do the older ones first, and so this one comes again.
        assert_eq!(other.commit(&four, &["too early"]).await.outcome(), Stale);
        takes(&mut other, "one").await;
        if crash {
            drop(other);
            gateway.crash().await;
            other = gateway.bot("other").attach().await;
            let two = other.next_delivery().await;
            assert_eq!(said(&two), "two");
            other.acks(&two).await;
        } else {
            takes(&mut other, "two").await;
        }
        for what in ["four", "conversationUpdate -echo", "handoff.initiate"] {
            takes(&mut other, what).await;
        }
        other.expect_nothing().await;
        assert_eq!(gateway.bots_of("c1").await, ["other"]);
    }
}

#[tokio::test]
async fn a_bot_that_was_handed_all_of_it_keeps_its_own_place() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    takes(&mut echo, "one").await;
    gateway.adds("c1", "other").await;
    takes(&mut echo, "conversationUpdate +other").await;
    gateway.user("c1").says("two").await;
    let held = echo.expect("c1", "two", 1).await;
    takes(&mut other, "conversationUpdate +other").await;
    let mine = expect(&mut other, "two").await;
    gateway.hands_over("c1", "echo", "other").await;
    assert_eq!(echo.commit(&held, &["too late"]).await.outcome(), Stale);
    other.commits(&mine, &["mine"]).await;
    takes(&mut other, "conversationUpdate -echo").await;
    takes(&mut other, "handoff.initiate").await;
    other.expect_nothing().await;
    echo.expect_nothing().await;
    assert_eq!(gateway.members_of("c1").await, ["ann", "other"]);
}

#[tokio::test]
async fn other_bots_of_the_conversation_keep_what_they_hold() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    gateway.user("c1").says("one").await;
    gateway.adds("c1", "other").await;
    let hers = echo.expect("c1", "one", 1).await;
    let told = expect(&mut other, "conversationUpdate +other").await;
    gateway.hands_over("c1", "echo", "probe").await;
    assert_eq!(gateway.bots_of("c1").await, ["probe", "other"]);
    other.commits(&told, &["still here"]).await;
    assert_eq!(echo.ack(&hers).await, Stale);
    // They are told, and see whom it is for.
    takes(&mut other, "conversationUpdate +probe -echo").await;
    let event = expect(&mut other, "handoff.initiate").await;
    let recipient = event.activity.as_deref().and_then(|a| a.recipient.as_ref());
    assert_eq!(recipient.map(|to| to.id()), Some("probe"));
    other.acks(&event).await;
    // One leaves that stood before another: what that one holds stays where it is.
    gateway.user("c1").says("two").await;
    let two = expect(&mut other, "two").await;
    gateway.removes("c1", "probe").await;
    other.commits(&two, &["and still"]).await;
    takes(&mut other, "conversationUpdate -probe").await;
    other.expect_nothing().await;
}

#[tokio::test]
async fn a_hand_over_with_a_key_happens_once() {
    let mut gateway = Gateway::start().await;
    gateway.user("c1").says("one").await;
    let request = keyed("h1", "c1", "echo", "other");
    let handed = gateway.wire().hands_over(request.clone()).await;
    let handed = handed.expect("it is handed over");
    for crash in [false, true] {
        if crash {
            gateway.crash().await;
        }
        let again = gateway.wire().hands_over(request.clone()).await;
        let again = again.expect("a repeat");
        assert!(again.repeated_call);
        assert_eq!(again.appended, handed.appended);
    }
    assert_eq!(gateway.bots_of("c1").await, ["other"]);
    refused(
        gateway
            .wire()
            .hands_over(keyed("h1", "c1", "other", "echo"))
            .await,
        Code::FailedPrecondition,
        "IDEMPOTENCY_MISMATCH",
    );
    refused(
        gateway
            .wire()
            .hands_over(handover("c1", "echo", "other"))
            .await,
        Code::FailedPrecondition,
        "BOT_ABSENT",
    );
    assert_eq!(gateway.log("c1").await.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_handed_over_stays_where_it_is() {
    let gateway = Gateway::start().await;
    let mut echo = gateway.bot("echo").attach().await;
    gateway.user("c1").says("one").await;
    let one = echo.expect("c1", "one", 1).await;
    let wire = gateway.wire();
    let invalid = Code::InvalidArgument;
    let precondition = Code::FailedPrecondition;
    for (request, code, reason) in [
        (
            handover("c1", "echo", "nobody"),
            Code::NotFound,
            "BOT_UNKNOWN",
        ),
        (handover("c1", "probe", "other"), precondition, "BOT_ABSENT"),
        (handover("c1", "echo", "echo"), invalid, "REQUEST_INVALID"),
        (handover("c1", "", "echo"), invalid, "REQUEST_INVALID"),
        (handover("c1", "echo", ""), invalid, "REQUEST_INVALID"),
        (
            handover("c2", "echo", "other"),
            Code::NotFound,
            "CONVERSATION_UNKNOWN",
        ),
        (
            v1::HandOverRequest {
                text: "x".repeat(1 << 20),
                ..handover("c1", "echo", "other")
            },
            invalid,
            "ACTIVITY_TOO_LARGE",
        ),
    ] {
        refused(wire.hands_over(request).await, code, reason);
    }
    wire.adds(added_to("c1", "other"))
        .await
        .expect("it is added");
    refused(
        wire.hands_over(handover("c1", "", "probe")).await,
        precondition,
        "BOT_AMBIGUOUS",
    );
    echo.commits(&one, &["still mine"]).await;
}

#[tokio::test]
async fn the_only_bot_need_not_be_named() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("one").await;
    gateway.hands_over("c1", "", "other").await;
    assert_eq!(gateway.bots_of("c1").await, ["other"]);
}

#[tokio::test]
async fn a_log_that_retention_has_shortened_is_handed_over_from_what_is_left() {
    let gateway = Gateway::start().await;
    for text in ["old", "older than it looks"] {
        gateway.user("c1").says(text).await;
    }
    gateway.adds("c1", "probe").await;
    gateway.pass(seconds(6 * DAY)).await;
    gateway.user("c1").says("kept").await;
    gateway.pass(seconds(2 * DAY)).await;
    gateway.pass_slowly(3).await;
    gateway.hands_over("c1", "echo", "other").await;
    let mut other = gateway.bot("other").attach().await;
    let kept = expect(&mut other, "kept").await;
    assert!(kept.after_gap);
    other.acks(&kept).await;
    takes_over(&mut other, "echo", "other").await;
    other.expect_nothing().await;
    // And what goes while one has it before another joined.
    gateway.hands_over("c1", "other", "probe").await;
    let mut probe = gateway.bot("probe").instance("real").attach().await;
    let kept = probe.next_delivery().await;
    assert_eq!(said(&kept), "kept");
    probe.acks(&kept).await;
}

#[tokio::test]
async fn a_bot_hands_over_what_is_its_own_and_backends_what_is_anyones() {
    let principal = |role: &str| {
        let digest = Digest::of(role);
        format!(
            "[[principals]]\nname = \"{role}\"\ntoken_sha256 = \"{digest}\"\nroles = [\"{role}\"]\n"
        )
    };
    let roles = [
        "bot:echo",
        "bot:other",
        "bot:probe",
        "channel:web",
        "backend",
        "reader",
        "admin",
    ];
    let principals: String = roles.iter().map(|role| principal(role)).collect();
    let gateway = Gateway::setup().and(&principals).start().await;
    let web = gateway.wire_with("channel:web").await;
    gateway.user("c1").over(&web).says("hi").await;
    for role in ["bot:other", "channel:web", "reader"] {
        let wire = gateway.wire_with(role).await;
        refused(
            wire.hands_over(handover("c1", "echo", "other")).await,
            Code::PermissionDenied,
            "ROLE_MISSING",
        );
    }
    // It does not take part, and so there is no such conversation.
    let probe = gateway.wire_with("bot:probe").await;
    refused(
        probe.hands_over(handover("c1", "probe", "other")).await,
        Code::NotFound,
        "CONVERSATION_UNKNOWN",
    );
    let echo = gateway.wire_with("bot:echo").await;
    let own = keyed("own", "c1", "", "other");
    let handed = echo.hands_over(own.clone()).await.expect("its own");
    let again = echo.hands_over(own).await.expect("a repeat");
    assert_eq!(again.appended, handed.appended);
    refused(
        echo.hands_over(handover("c1", "", "other")).await,
        Code::NotFound,
        "CONVERSATION_UNKNOWN",
    );
    let backend = gateway.wire_with("backend").await;
    let back = backend.hands_over(handover("c1", "other", "echo")).await;
    back.expect("anyone's");
    let admin = gateway.wire_with("admin").await;
    let there = admin.hands_over(handover("c1", "", "other")).await;
    there.expect("anyone's");
}

#[tokio::test]
async fn bots_that_hand_over_to_one_another_come_to_an_end() {
    let principal = |role: &str| {
        let digest = Digest::of(role);
        format!(
            "[[principals]]\nname = \"{role}\"\ntoken_sha256 = \"{digest}\"\nroles = [\"{role}\"]\n"
        )
    };
    let roles = ["bot:echo", "bot:other", "channel:web", "backend"];
    let principals: String = roles.iter().map(|role| principal(role)).collect();
    let mut gateway = Gateway::setup().and(&principals).start().await;
    let web = gateway.wire_with("channel:web").await;
    gateway.user("c1").over(&web).says("hi").await;
    for round in 0..2 {
        let bots = [
            gateway.wire_with("bot:echo").await,
            gateway.wire_with("bot:other").await,
        ];
        for turn in 0..20 {
            let request = handover("c1", "", ["other", "echo"][turn % 2]);
            bots[turn % 2].hands_over(request).await.expect("it is");
        }
        if round == 1 {
            gateway.crash().await;
        }
        let echo = gateway.wire_with("bot:echo").await;
        let facts = refused(
            echo.hands_over(handover("c1", "", "other")).await,
            Code::FailedPrecondition,
            "BOTS_LOOP",
        );
        assert_eq!(facts["limit"], "bot_handovers=20");
        let backend = gateway.wire_with("backend").await;
        for (from, to) in [("echo", "other"), ("other", "echo")] {
            let handed = backend.hands_over(handover("c1", from, to)).await;
            handed.expect("backends know what they do");
        }
        let web = gateway.wire_with("channel:web").await;
        gateway.user("c1").over(&web).says("still here").await;
    }
}

/// The messages of a log, and who answered each how often.
async fn answers(gateway: &Gateway, conversation: &str) -> HashMap<String, Vec<String>> {
    let mut answers: HashMap<String, Vec<String>> = HashMap::new();
    for entry in gateway.log(conversation).await {
        let activity = entry.activity.as_deref().expect("an activity");
        match (entry.author(), activity.r#type.as_deref()) {
            (v1::Author::Channel, Some("message")) => {
                answers.entry(text(&entry.activity)).or_default();
            }
            (v1::Author::Bot, _) => {
                let of = text(&entry.activity);
                let of = of.strip_prefix("answer to ").expect("an answer").to_owned();
                let from = activity.from.as_ref().map(|from| from.id().to_owned());
                assert_eq!(from.as_deref(), Some(entry.bot_id.as_str()));
                answers.entry(of).or_default().push(entry.bot_id);
            }
            _ => {}
        }
    }
    answers
}

/// What a bot says to a delivery: an answer to a message, and nothing to anything else.
fn answer_to(delivery: &v1::Delivery) -> Vec<v1::Activity> {
    let what = kind_of(delivery);
    let is_message = what.starts_with("message");
    let answer = is_message.then(|| message(&format!("answer to {what}")));
    answer.into_iter().collect()
}

/// Two bots, a user who goes on talking, and somebody who hands the conversation back and forth.
struct Relay {
    gateway: Gateway,
    random: SmallRng,
    bots: Vec<Bot>,
    /// Who has the conversation.
    holder: usize,
    /// What each was handed and never answered.
    kept: Vec<(usize, v1::Delivery)>,
    /// Answers that came too late.
    stale: usize,
}

impl Relay {
    const NAMES: [&str; 2] = ["echo", "other"];

    async fn start() -> Self {
        let mut relay = Self {
            gateway: Gateway::setup().on_disk().start().await,
            random: SmallRng::seed_from_u64(20_260_103),
            bots: Vec::new(),
            holder: 0,
            kept: Vec::new(),
            stale: 0,
        };
        relay.attach().await;
        relay
    }

    async fn attach(&mut self) {
        for name in Self::NAMES {
            let opening = self.gateway.bot(name).credit(100_000, 200 << 20);
            self.bots.push(opening.attach().await);
        }
    }

    async fn crash(&mut self) {
        self.kept.clear();
        self.bots.clear();
        self.gateway.crash().await;
        self.attach().await;
    }

    /// Whoever has the conversation does what it was handed; now and then it keeps it for later. What it
    /// was handed at an earlier time and has not looked at is stale by now, all but the last. Returns
    /// whether there was anything.
    async fn work(&mut self, keep: bool) -> bool {
        let mut waiting = self.bots[self.holder].waiting().await;
        let Some(last) = waiting.pop() else {
            return false;
        };
        self.kept
            .extend(waiting.into_iter().map(|old| (self.holder, old)));
        if keep && self.random.random_range(0..4) == 0 {
            self.kept.push((self.holder, last));
            return true;
        }
        let bot = &mut self.bots[self.holder];
        bot.commit_all(last.delivery_id, answer_to(&last));
        assert_eq!(bot.outcomes(&[last.delivery_id]).await, [Taken]);
        true
    }

    /// Hands the conversation over, while its holder answers what it was handed: either comes first.
    async fn hand_over(&mut self, key: &str) {
        let last = self.bots[self.holder].waiting().await.pop();
        if let Some(last) = &last {
            self.bots[self.holder].commit_all(last.delivery_id, answer_to(last));
        }
        let (from, to) = (Self::NAMES[self.holder], Self::NAMES[1 - self.holder]);
        let request = keyed(key, "c1", from, to);
        let handed = self.gateway.wire().hands_over(request).await;
        assert!(!handed.expect("it is handed over").repeated_call);
        if let Some(last) = last {
            let outcome = self.bots[self.holder].outcomes(&[last.delivery_id]).await[0];
            assert!(outcome == Taken || outcome == Stale, "{outcome:?}");
            self.stale += usize::from(outcome == Stale);
        }
        self.holder = 1 - self.holder;
    }

    /// All that was kept is answered now, after the conversation has changed hands.
    async fn zombies_answer(&mut self) {
        for (who, delivery) in std::mem::take(&mut self.kept) {
            let result = self.bots[who]
                .commit(&delivery, &["answer to nobody"])
                .await;
            assert_eq!(result.outcome(), Stale);
            self.stale += 1;
        }
    }
}

#[tokio::test]
async fn handed_back_and_forth_under_load_every_message_is_answered_exactly_once() {
    const HANDOVERS: usize = 200;
    let mut relay = Relay::start().await;
    let mut posted = 0;
    for turn in 0..HANDOVERS {
        for _ in 0..relay.random.random_range(1..4) {
            posted += 1;
            let text = format!("message {posted}");
            relay.gateway.user("c1").says(&text).await;
        }
        for _ in 0..relay.random.random_range(0..8) {
            relay.work(true).await;
        }
        relay.hand_over(&format!("h{turn}")).await;
        if relay.random.random_range(0..3) == 0 {
            relay.zombies_answer().await;
        }
        if turn % 50 == 49 {
            relay.crash().await;
        }
    }
    relay.zombies_answer().await;
    while relay.work(false).await {}
    assert!(
        relay.stale > HANDOVERS / 10,
        "{} came too late",
        relay.stale
    );
    let Relay {
        gateway,
        mut bots,
        holder,
        ..
    } = relay;
    assert_eq!(gateway.bots_of("c1").await, [Relay::NAMES[holder]]);
    bots[1 - holder].barrier().await;
    let answers = answers(&gateway, "c1").await;
    assert_eq!(answers.len(), posted);
    for (message, by) in &answers {
        assert_eq!(by.len(), 1, "`{message}` is answered by {by:?}");
    }
    let by_echo = answers.values().filter(|by| by[0] == "echo").count();
    assert!(by_echo > 0 && by_echo < posted, "{by_echo} of {posted}");
}
