//! Several bots, and what begins with one of them: conversations on request, and receipts.

use tokio::task::JoinHandle;
use tonic::{Code, Status};
use turnwire::auth::secret::Digest;
use turnwire::proto::v1;
use turnwire::proto::v1::send_activity_request::Target;
use v1::ReceiptState::{Accepted, Delivered};

use crate::harness::{
    Adapter, Bot, Gateway, Wire, duration, kind_of, message, name, refused, seconds, text, within,
};

type Answer = Result<v1::CreateConversationResponse, Status>;

/// A gateway whose channel `queue` begins conversations with `echo` and `other`.
async fn shared() -> Gateway {
    shared_by("").await
}

/// The same, with more configuration.
async fn shared_by(principals: &str) -> Gateway {
    let mut gateway = Gateway::start().await;
    gateway.rewrite(|config| {
        let queue = "id = \"queue\"\nkind = \"grpc\"\n";
        let config = config.replace(
            &format!("{queue}bot = \"echo\""),
            &format!("{queue}bots = [\"echo\", \"other\"]"),
        );
        assert!(config.contains("bots = ["), "{config}");
        config + principals
    });
    gateway.restart().await;
    gateway
}

/// An adapter of `queue` whose channel can create.
async fn attach(gateway: &Gateway) -> Adapter {
    gateway.adapter("queue").hello(can_create).attach().await
}

fn can_create(hello: &mut v1::AttachHello) {
    hello.capabilities = Some(v1::ChannelCapabilities {
        create: true,
        ..Default::default()
    });
}

/// Asks for a conversation with `zoe` on `queue`, and a first message of a bot.
fn create(wire: &Wire, bot: &str, member: &str) -> JoinHandle<Answer> {
    let request = v1::CreateConversationRequest {
        channel_id: "queue".to_owned(),
        bot_id: bot.to_owned(),
        members: vec![v1::ChannelAccount {
            id: Some(member.to_owned()),
            ..Default::default()
        }],
        activity: Some(message("good morning").into()),
        ..Default::default()
    };
    let mut client = wire.conversations();
    tokio::spawn(async move {
        let created = within("an answer", client.create_conversation(request)).await?;
        Ok(created.into_inner())
    })
}

async fn answer(creating: JoinHandle<Answer>) -> Answer {
    within("an answer", creating)
        .await
        .expect("it does not panic")
}

async fn bots_of(creating: JoinHandle<Answer>) -> Vec<String> {
    let created = answer(creating).await.expect("it is created");
    created.conversation.expect("a conversation").bot_ids
}

async fn curious(gateway: &Gateway, bot: &str) -> Bot {
    let opening = gateway.bot(bot);
    let opening = opening.hello(|hello| hello.want_receipts = true);
    opening.attach().await
}

/// A send for a bot to a conversation of `queue` that waits for its receipt.
fn send(bot: &str, text: &str) -> v1::SendActivityRequest {
    v1::SendActivityRequest {
        target: Some(Target::Conversation(name("queue", "c1"))),
        bot_id: bot.to_owned(),
        activity: Some(message(text).into()),
        wait_for_delivery: Some(duration(seconds(5))),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_conversation_on_request_begins_with_all_bots_of_its_channel_and_the_asker_first() {
    let gateway = shared().await;
    let mut adapter = attach(&gateway).await;
    let mut echo = gateway.bot("echo").attach().await;
    let mut other = gateway.bot("other").attach().await;
    let creating = create(&gateway.wire(), "other", "zoe");
    adapter.begins("c1").await;
    assert_eq!(bots_of(creating).await, ["other", "echo"]);
    for bot in [&mut echo, &mut other] {
        let delivery = bot.next_delivery().await;
        assert_eq!(kind_of(&delivery), "conversationUpdate +zoe");
        let activity = delivery.activity.as_ref().expect("an activity");
        let recipient = activity.recipient.as_ref().expect("a recipient");
        assert_eq!(recipient.id(), "other");
        bot.acks(&delivery).await;
    }
    // What the one says is nothing to the other, which does not hear bots.
    echo.expect_nothing().await;
    let outbound = adapter.expect("good morning", 1).await;
    let activity = outbound.activity.as_ref().expect("an activity");
    assert_eq!(activity.from.as_ref().expect("a speaker").id(), "other");

    // None named: the one that the channel is routed to. One of no channel comes alone.
    let creating = create(&gateway.wire(), "", "zoe");
    adapter.begins("c2").await;
    assert_eq!(bots_of(creating).await, ["echo", "other"]);
    let creating = create(&gateway.wire(), "probe", "zoe");
    adapter.begins("c3").await;
    assert_eq!(bots_of(creating).await, ["probe"]);
    let is_member = answer(create(&gateway.wire(), "echo", "other")).await;
    refused(is_member, Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn each_bot_of_a_channel_may_begin_conversations_there() {
    let principal = |role: &str| {
        let digest = Digest::of(role);
        let name = format!("name = \"{role}\"\ntoken_sha256 = \"{digest}\"");
        format!("[[principals]]\n{name}\nroles = [\"{role}\"]\n")
    };
    let roles = ["channel:queue", "bot:other", "bot:probe"];
    let principals: String = roles.into_iter().map(principal).collect();
    let gateway = shared_by(&principals).await;
    let opening = gateway.adapter("queue").token("channel:queue");
    let mut adapter = opening.hello(can_create).attach().await;
    let creating = create(&gateway.wire_with("bot:other").await, "", "zoe");
    adapter.begins("c1").await;
    assert_eq!(bots_of(creating).await, ["other", "echo"]);
    let elsewhere = create(&gateway.wire_with("bot:probe").await, "", "zoe");
    refused(
        answer(elsewhere).await,
        Code::PermissionDenied,
        "ROLE_MISSING",
    );
}

#[tokio::test]
async fn of_several_bots_the_one_that_said_it_is_told_what_became_of_it_even_when_it_has_left() {
    let gateway = shared().await;
    gateway.user("c1").on("queue").says("hi").await;
    let mut adapter = attach(&gateway).await;
    let mut echo = curious(&gateway, "echo").await;
    let mut other = curious(&gateway, "other").await;
    for bot in [&mut echo, &mut other] {
        let delivery = bot.next_delivery().await;
        bot.acks(&delivery).await;
    }
    let says = |bot: &str, text: &str| {
        let (mut client, request) = (gateway.wire().conversations(), send(bot, text));
        tokio::spawn(async move {
            let sent = within("a send", client.send_activity(request)).await;
            sent.expect("it is sent").into_inner()
        })
    };
    let waits = says("other", "from other");
    let outbound = adapter.expect("from other", 1).await;
    adapter.delivered(&outbound).await;
    let sent = waits.await.expect("it does not panic");
    let receipt = sent.receipt.expect("it was waited for");
    assert_eq!(receipt.state(), Delivered);
    let told = other.expect_receipt().await;
    assert_eq!((told.sequence, told.state()), (receipt.sequence, Delivered));
    echo.expect_no_receipt().await;

    // The channel speaks only when the bot is gone, and its seat is another's.
    let waits = says("other", "goodbye");
    let outbound = adapter.expect("goodbye", 1).await;
    let request = v1::RemoveBotRequest {
        conversation: Some(name("queue", "c1")),
        bot_id: "other".to_owned(),
        ..Default::default()
    };
    gateway
        .wire()
        .removes(request)
        .await
        .expect("it is removed");
    adapter.delivered(&outbound).await;
    let sent = waits.await.expect("it does not panic");
    assert_eq!(sent.receipt.expect("it was waited for").state(), Delivered);
    assert_eq!(other.expect_receipt().await.state(), Delivered);
    echo.expect_no_receipt().await;
    let log = gateway.log_on("queue", "c1").await;
    let receipts = log.iter().filter_map(|entry| entry.receipt.as_ref());
    let receipts: Vec<_> = receipts.map(v1::Receipt::state).collect();
    // What the gateway says of its bots is of nobody, and has none.
    assert_eq!(receipts, [Delivered, Delivered]);
}

#[tokio::test]
async fn what_waits_for_its_time_is_not_waited_for_and_has_a_receipt_when_it_is_sent() {
    use turnwire::clock::Clock;
    let gateway = shared().await;
    gateway.user("c1").on("queue").says("hi").await;
    let mut adapter = attach(&gateway).await;
    let mut other = curious(&gateway, "other").await;
    let due = gateway.clock.now().after(seconds(60));
    let later = v1::SendActivityRequest {
        deliver_at: Some(prost_types::Timestamp {
            seconds: (due.0 / 1_000) as i64,
            nanos: (due.0 % 1_000) as i32 * 1_000_000,
        }),
        ..send("other", "in time")
    };
    let mut client = gateway.wire().conversations();
    let sent = within("a send", client.send_activity(later)).await;
    let sent = sent.expect("it is kept").into_inner();
    assert!(sent.receipt.is_none() && !sent.schedule_id.is_empty());
    gateway.pass(seconds(60)).await;
    let outbound = adapter.expect("in time", 1).await;
    let log = gateway.log_on("queue", "c1").await;
    let newest = log.last().expect("an entry");
    assert_eq!(text(&newest.activity), "in time");
    let receipt = newest.receipt.as_ref().expect("its receipt");
    assert_eq!(receipt.state(), Accepted);
    adapter.delivered(&outbound).await;
    assert_eq!(other.expect_receipt().await.state(), Delivered);
}
