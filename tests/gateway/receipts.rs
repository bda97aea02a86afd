//! Receipts: what became of what bots said, told to bots, watchers, readers and those who wait for it.

use std::future::Future;

use tokio::task::JoinHandle;
use tonic::{Code, Status};
use turnwire::proto::v1;
use turnwire::proto::v1::attach_request::Frame as Asked;
use turnwire::proto::v1::outcome::Result as Said;
use turnwire::proto::v1::send_activity_request::Target;
use turnwire::proto::v1::watch_conversation_request::Start;
use v1::ReceiptState::{Accepted, Delivered, Failed, Unknown};

use crate::harness::{
    Adapter, Bot, Gateway, Watcher, Wire, duration, message, name, refused, seconds, within,
};

fn failed(reason: &str) -> Said {
    Said::Failed(v1::Failed {
        reason: reason.to_owned(),
    })
}

fn undetermined(reason: &str) -> Said {
    Said::Undetermined(v1::Undetermined {
        reason: reason.to_owned(),
    })
}

/// A gateway with a conversation `c1` on `queue`.
async fn started() -> Gateway {
    let gateway = Gateway::start().await;
    gateway.user("c1").on("queue").says("hi").await;
    gateway
}

fn request(conversation: &str, text: &str) -> v1::SendActivityRequest {
    v1::SendActivityRequest {
        target: Some(Target::Conversation(name("queue", conversation))),
        activity: Some(message(text).into()),
        ..Default::default()
    }
}

async fn send(
    wire: Wire,
    request: v1::SendActivityRequest,
) -> Result<v1::SendActivityResponse, Status> {
    let sent = within("a send", wire.conversations().send_activity(request)).await?;
    Ok(sent.into_inner())
}

/// A backend says something in `c1`, without waiting.
async fn says(gateway: &Gateway, text: &str) -> v1::Appended {
    let sent = send(gateway.wire(), request("c1", text)).await;
    let sent = sent.expect("it is taken");
    assert_eq!(sent.receipt, None, "nobody asked");
    sent.appended.expect("where it was appended")
}

/// A backend says something in `c1`, and waits that long for what becomes of it.
fn says_and_waits(
    gateway: &Gateway,
    text: &str,
    wait: u64,
) -> JoinHandle<Result<v1::SendActivityResponse, Status>> {
    let request = v1::SendActivityRequest {
        wait_for_delivery: Some(duration(seconds(wait))),
        request_id: text.to_owned(),
        ..request("c1", text)
    };
    tokio::spawn(send(gateway.wire(), request))
}

async fn answer<T>(task: JoinHandle<Result<T, Status>>) -> Result<T, Status> {
    within("an answer", task).await.expect("it does not panic")
}

async fn answered(
    task: JoinHandle<Result<v1::SendActivityResponse, Status>>,
) -> (v1::SendActivityResponse, v1::Receipt) {
    let sent = answer(task).await.expect("it is taken");
    let receipt = sent.receipt.clone().expect("it was waited for");
    (sent, receipt)
}

/// The receipts of a conversation on a channel, by sequence.
async fn receipts(gateway: &Gateway, channel: &str, conversation: &str) -> Vec<(u64, v1::Receipt)> {
    let log = gateway.log_on(channel, conversation).await.into_iter();
    log.filter_map(|entry| Some((entry.sequence, entry.receipt?)))
        .collect()
}

async fn states(gateway: &Gateway) -> Vec<(u64, v1::ReceiptState)> {
    let receipts = receipts(gateway, "queue", "c1").await.into_iter();
    receipts
        .map(|(sequence, receipt)| (sequence, receipt.state()))
        .collect()
}

/// The bot `echo`, which wants to know.
fn curious(gateway: &Gateway, instance: &str) -> impl Future<Output = Bot> {
    gateway
        .bot("echo")
        .instance(instance)
        .hello(|hello| hello.want_receipts = true)
        .attach()
}

async fn watch(gateway: &Gateway, start: Option<Start>, receipts: bool) -> Watcher {
    let request = v1::WatchConversationRequest {
        conversation: Some(name("queue", "c1")),
        start,
        receipts,
        ..Default::default()
    };
    let watcher = Watcher::begin(&gateway.wire(), request).await;
    watcher.expect("it may watch")
}

/// Many things are said in `c1`, which the channel takes none of. The next one is handed over when what
/// became of the one before is known.
async fn says_much(gateway: &Gateway, adapter: &mut Adapter, count: u64) {
    for _ in 0..count {
        says(gateway, "no").await;
    }
    for _ in 0..count {
        let outbound = adapter.expect("no", 1).await;
        adapter.write(Asked::Outcome(v1::Outcome {
            delivery_id: outbound.delivery_id,
            result: Some(failed(&"x".repeat(1_024))),
        }));
    }
    adapter.expect_nothing().await;
}

async fn adapter(gateway: &Gateway) -> Adapter {
    gateway.adapter("queue").attach().await
}

#[tokio::test]
async fn a_send_that_waits_is_answered_with_what_the_channel_says() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let theirs = v1::Delivered {
        channel_activity_id: "theirs".to_owned(),
    };
    for (text, said, state, id, reason) in [
        ("one", Said::Delivered(theirs), Delivered, "theirs", ""),
        ("two", failed("blocked"), Failed, "", "blocked"),
        ("three", undetermined("cut off"), Unknown, "", "cut off"),
    ] {
        let sending = says_and_waits(&gateway, text, 30);
        let outbound = adapter.expect(text, 1).await;
        assert!(!sending.is_finished(), "the channel has said nothing yet");
        adapter.outcome(&outbound, said).await;
        let (sent, receipt) = answered(sending).await;
        let appended = sent.appended.expect("where it was appended");
        let expected = v1::Receipt {
            conversation: Some(name("queue", "c1")),
            activity_id: appended.activity_id,
            sequence: appended.sequence,
            state: state as i32,
            channel_activity_id: id.to_owned(),
            reason: reason.to_owned(),
            time: receipt.time,
        };
        assert_eq!(receipt, expected);
        assert!(receipt.time.is_some());
        assert_eq!(appended.sequence, outbound.sequence);
    }
}

#[tokio::test]
async fn a_send_whose_time_is_over_is_answered_with_accepted_and_stays_sent() {
    let gateway = started().await;
    let sending = says_and_waits(&gateway, "one", 10);
    let mut adapter = adapter(&gateway).await;
    let outbound = adapter.expect("one", 1).await;
    gateway.pass(seconds(9)).await;
    assert!(!sending.is_finished());
    gateway.pass(seconds(1)).await;
    let (sent, receipt) = answered(sending).await;
    assert_eq!(receipt.state(), Accepted);
    assert_eq!(receipt.time, None);
    adapter.delivered(&outbound).await;
    // A repeat is the same activity, and what became of it is known at once.
    let (again, receipt) = answered(says_and_waits(&gateway, "one", 10)).await;
    assert!(again.repeated_send);
    assert_eq!(again.appended, sent.appended);
    assert_eq!(receipt.state(), Delivered);
}

#[tokio::test]
async fn a_repeat_waits_for_the_same_activity() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let first = says_and_waits(&gateway, "one", 30);
    let outbound = adapter.expect("one", 1).await;
    let second = says_and_waits(&gateway, "one", 20);
    gateway.settle().await;
    adapter.delivered(&outbound).await;
    let (first, first_receipt) = answered(first).await;
    let (second, second_receipt) = answered(second).await;
    assert_eq!(first.appended, second.appended);
    assert_eq!(first_receipt, second_receipt);
    adapter.expect_nothing().await;
}

#[tokio::test]
async fn no_wait_is_longer_than_the_limit() {
    let gateway = started().await;
    let sending = says_and_waits(&gateway, "one", 100_000);
    let mut adapter = adapter(&gateway).await;
    adapter.expect("one", 1).await;
    gateway.pass(seconds(29)).await;
    assert!(!sending.is_finished());
    gateway.pass(seconds(1)).await;
    assert_eq!(answered(sending).await.1.state(), Accepted);
}

#[tokio::test]
async fn a_wait_below_zero_is_refused_and_none_is_no_wait() {
    let gateway = started().await;
    let below = prost_types::Duration {
        seconds: -1,
        nanos: 0,
    };
    let asked = v1::SendActivityRequest {
        wait_for_delivery: Some(below),
        ..request("c1", "one")
    };
    refused(
        send(gateway.wire(), asked).await,
        Code::InvalidArgument,
        "REQUEST_INVALID",
    );
    let asked = v1::SendActivityRequest {
        wait_for_delivery: Some(duration(seconds(0))),
        ..request("c1", "one")
    };
    let sent = send(gateway.wire(), asked).await.expect("it is taken");
    assert_eq!(sent.receipt, None);
    assert_eq!(gateway.log_on("queue", "c1").await.len(), 2, "one was sent");
}

#[tokio::test]
async fn more_than_may_wait_are_refused_before_anything_is_sent() {
    let setup = Gateway::setup().config(|config| config.limits.delivery_waiters = 1);
    let gateway = setup.start().await;
    gateway.user("c1").on("queue").says("hi").await;
    let mut adapter = adapter(&gateway).await;
    let first = says_and_waits(&gateway, "one", 30);
    let outbound = adapter.expect("one", 1).await;
    let second = answer(says_and_waits(&gateway, "two", 30)).await;
    refused(second, Code::ResourceExhausted, "TOO_MANY_WAITERS");
    assert_eq!(gateway.log_on("queue", "c1").await.len(), 2);
    // Who does not wait needs no place, and a place is free when its wait is over.
    says(&gateway, "three").await;
    adapter.delivered(&outbound).await;
    answered(first).await;
    let outbound = adapter.expect("three", 1).await;
    let third = says_and_waits(&gateway, "four", 30);
    adapter.delivered(&outbound).await;
    let outbound = adapter.expect("four", 1).await;
    adapter.delivered(&outbound).await;
    assert_eq!(answered(third).await.1.state(), Delivered);
}

#[tokio::test]
async fn where_users_follow_by_themselves_no_channel_says() {
    let gateway = Gateway::start().await;
    gateway.user("c1").says("hi").await;
    let asked = v1::SendActivityRequest {
        target: Some(Target::Conversation(name("web", "c1"))),
        wait_for_delivery: Some(duration(seconds(30))),
        ..request("c1", "one")
    };
    // At once: time stands still.
    let sent = send(gateway.wire(), asked).await.expect("it is taken");
    assert_eq!(sent.receipt.expect("it was asked for").state(), Unknown);
    let receipts = receipts(&gateway, "web", "c1").await;
    let states: Vec<_> = receipts.iter().map(|(at, r)| (*at, r.state())).collect();
    assert_eq!(states, [(2, Unknown)]);
}

#[tokio::test]
async fn who_waits_when_the_gateway_goes_down_is_told_that_it_is_accepted() {
    let mut gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let sending = says_and_waits(&gateway, "one", 30);
    adapter.expect("one", 1).await;
    gateway.stop().await;
    assert_eq!(answered(sending).await.1.state(), Accepted);
    gateway.start_again().await;
    assert_eq!(states(&gateway).await, [(2, Accepted)]);
}

#[tokio::test]
async fn the_transcript_says_what_became_of_what_bots_said() {
    let mut gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    for text in ["one", "two", "three", "four"] {
        says(&gateway, text).await;
    }
    assert_eq!(
        states(&gateway).await,
        [(2, Accepted), (3, Accepted), (4, Accepted), (5, Accepted)]
    );
    let one = adapter.expect("one", 1).await;
    adapter.delivered(&one).await;
    let two = adapter.expect("two", 1).await;
    adapter.outcome(&two, failed("no such user")).await;
    let three = adapter.expect("three", 1).await;
    adapter.outcome(&three, undetermined("cut off")).await;
    for on in ["the same gateway", "one that was started again"] {
        let receipts = receipts(&gateway, "queue", "c1").await;
        let said: Vec<_> = receipts
            .iter()
            .map(|(at, r)| (*at, r.state(), &*r.channel_activity_id, &*r.reason))
            .collect();
        assert_eq!(
            said,
            [
                (2, Delivered, "theirs-2", ""),
                (3, Failed, "", "no such user"),
                (4, Unknown, "", "cut off"),
                (5, Accepted, "", ""),
            ],
            "{on}"
        );
        gateway.crash().await;
    }
}

#[tokio::test]
async fn a_delivery_without_an_id_is_known_and_what_was_said_before_the_channel_was_queued_is_not()
{
    let mut gateway = Gateway::start().await;
    let url = "service_url = \"https://adapter.example.org/\"\n";
    let watched = |config: &str| config.replace(url, "outbound = \"watch\"\n");
    gateway.reload(watched).await.expect("it is in force");
    gateway.user("c1").on("queue").says("hi").await;
    says(&gateway, "before").await;
    gateway.reload(str::to_owned).await.expect("it is in force");
    gateway.settle().await;
    let mut adapter = adapter(&gateway).await;
    says(&gateway, "after").await;
    let after = adapter.expect("after", 1).await;
    adapter
        .outcome(&after, Said::Delivered(v1::Delivered::default()))
        .await;
    gateway.restart().await;
    assert_eq!(states(&gateway).await, [(2, Unknown), (3, Delivered)]);
    let mut watcher = watch(&gateway, None, true).await;
    for (sequence, text) in [(1, "hi"), (2, "before"), (3, "after")] {
        watcher.expect(sequence, text).await;
    }
    let receipt = watcher.expect_receipt().await;
    assert_eq!((receipt.sequence, receipt.state()), (3, Delivered));
    assert_eq!(receipt.time, None, "nobody was there to be told");
}

#[tokio::test]
async fn what_failed_is_in_the_dead_letters_and_what_nobody_can_say_is_not() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    for (text, said, letters) in [
        ("one", failed("no"), 1.0),
        ("two", undetermined("who knows"), 1.0),
    ] {
        says(&gateway, text).await;
        let outbound = adapter.expect(text, 1).await;
        adapter.outcome(&outbound, said).await;
        assert_eq!(gateway.metric("turnwire_dead_letters_total").await, letters);
    }
    for (state, count) in [("delivered", 0.0), ("failed", 1.0), ("unknown", 1.0)] {
        let series = format!("turnwire_receipts_total{{state=\"{state}\"}}");
        assert_eq!(gateway.metric(&series).await, count, "{state}");
    }
}

#[tokio::test]
async fn what_failed_and_was_delivered_when_it_was_replayed_is_delivered() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    says(&gateway, "one").await;
    let one = adapter.expect("one", 1).await;
    adapter.outcome(&one, failed("blocked")).await;
    assert_eq!(states(&gateway).await, [(2, Failed)]);
    let replay = v1::ReplayDeadLettersRequest {
        conversation: Some(name("queue", "c1")),
        ..Default::default()
    };
    let replayed = gateway.wire().admin().replay_dead_letters(replay).await;
    replayed.expect("it is taken");
    let one = adapter.expect("one", 1).await;
    adapter
        .outcome(&one, Said::Delivered(v1::Delivered::default()))
        .await;
    assert_eq!(states(&gateway).await, [(2, Delivered)]);
}

#[tokio::test]
async fn the_channels_words_are_kept_up_to_their_limit() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    says(&gateway, "one").await;
    let one = adapter.expect("one", 1).await;
    adapter
        .outcome(&one, undetermined(&"é".repeat(1_000)))
        .await;
    let receipts = receipts(&gateway, "queue", "c1").await;
    assert_eq!(receipts[0].1.reason, "é".repeat(512));
}

#[tokio::test]
async fn a_page_of_long_reasons_is_no_larger_than_any_page() {
    let setup = Gateway::setup().config(|config| config.limits.page_bytes = 4_096);
    let gateway = setup.start().await;
    gateway.user("c1").on("queue").says("hi").await;
    let mut adapter = adapter(&gateway).await;
    for number in 0..8 {
        let text = format!("{number}");
        says(&gateway, &text).await;
        let outbound = adapter.expect(&text, 1).await;
        adapter.outcome(&outbound, failed(&"x".repeat(1_024))).await;
    }
    let request = v1::ListActivitiesRequest {
        conversation: Some(name("queue", "c1")),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    let page = within("a page", client.list_activities(request)).await;
    let page = page.expect("a page").into_inner();
    assert!(prost::Message::encoded_len(&page) < 5_000);
    assert!(page.entries.len() < 9 && !page.next_page_token.is_empty());
    // The pages together are whole.
    let all = receipts(&gateway, "queue", "c1").await;
    let sequences: Vec<_> = all.iter().map(|(at, _)| *at).collect();
    assert_eq!(sequences, (2..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bot_that_asks_is_told_what_became_of_what_it_said() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let mut bot = curious(&gateway, "one").await;
    let delivery = bot.next_delivery().await;
    bot.commits(&delivery, &["hello"]).await;
    let outbound = adapter.expect("hello", 1).await;
    bot.expect_no_receipt().await;
    adapter.delivered(&outbound).await;
    let receipt = bot.expect_receipt().await;
    let expected = v1::Receipt {
        conversation: Some(name("queue", "c1")),
        activity_id: "c1|0000002".to_owned(),
        sequence: 2,
        state: Delivered as i32,
        channel_activity_id: "theirs-2".to_owned(),
        reason: String::new(),
        time: receipt.time,
    };
    assert_eq!(receipt, expected);
    // What a backend says for it is its own as well.
    says(&gateway, "and then").await;
    let outbound = adapter.expect("and then", 1).await;
    adapter.outcome(&outbound, failed("blocked")).await;
    let receipt = bot.expect_receipt().await;
    assert_eq!((receipt.sequence, receipt.state()), (3, Failed));
    assert_eq!(receipt.reason, "blocked");
    bot.expect_no_receipt().await;
}

#[tokio::test]
async fn an_update_has_a_receipt_of_its_own() {
    let gateway = started().await;
    let can_update = v1::ChannelCapabilities {
        update: true,
        ..Default::default()
    };
    let opening = gateway.adapter("queue");
    let opening = opening.hello(|hello| hello.capabilities = Some(can_update));
    let mut adapter = opening.attach().await;
    let mut bot = curious(&gateway, "one").await;
    let said = says(&gateway, "one").await;
    let outbound = adapter.expect("one", 1).await;
    adapter.delivered(&outbound).await;
    bot.expect_receipt().await;
    let request = v1::UpdateActivityRequest {
        conversation: Some(name("queue", "c1")),
        activity_id: said.activity_id.clone(),
        activity: Some(message("one, mended").into()),
        ..Default::default()
    };
    let mut client = gateway.wire().conversations();
    within("an update", client.update_activity(request))
        .await
        .expect("it is taken");
    let outbound = adapter.expect("one, mended", 1).await;
    adapter.outcome(&outbound, failed("too late")).await;
    let receipt = bot.expect_receipt().await;
    assert_eq!(receipt.activity_id, said.activity_id);
    assert_eq!((receipt.sequence, receipt.state()), (3, Failed));
    assert_eq!(states(&gateway).await, [(2, Delivered), (3, Failed)]);
}

#[tokio::test]
async fn a_bot_that_does_not_ask_and_one_that_did_not_say_it_hear_nothing() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let mut quiet = gateway.bot("echo").instance("quiet").attach().await;
    let other = gateway.bot("other");
    let other = other.hello(|hello| hello.want_receipts = true);
    let mut other = other.attach().await;
    says(&gateway, "one").await;
    let outbound = adapter.expect("one", 1).await;
    adapter.delivered(&outbound).await;
    quiet.expect_no_receipt().await;
    other.expect_no_receipt().await;
}

#[tokio::test]
async fn the_session_that_has_the_conversation_is_told_and_no_other() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let mut sessions = [
        curious(&gateway, "one").await,
        curious(&gateway, "two").await,
        curious(&gateway, "three").await,
    ];
    // Whoever has it, by whatever rank.
    let mut holder = None;
    for (index, bot) in sessions.iter_mut().enumerate() {
        for delivery in bot.waiting().await {
            bot.commits(&delivery, &["hello"]).await;
            holder = Some(index);
        }
    }
    let holder = holder.expect("one of them has it");
    let outbound = adapter.expect("hello", 1).await;
    adapter.delivered(&outbound).await;
    assert_eq!(sessions[holder].expect_receipt().await.sequence, 2);
    for bot in &mut sessions {
        bot.expect_no_receipt().await;
    }
}

#[tokio::test]
async fn when_no_session_has_the_conversation_one_that_asked_is_told() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    // No credit: it gets nothing handed over, and so never has the conversation.
    let mut quiet = gateway.bot("echo").credit(0, 0).attach().await;
    let curious = gateway.bot("echo").credit(0, 0).instance("two");
    let curious = curious.hello(|hello| hello.want_receipts = true);
    let mut curious = curious.attach().await;
    says(&gateway, "one").await;
    let outbound = adapter.expect("one", 1).await;
    adapter.delivered(&outbound).await;
    assert_eq!(curious.expect_receipt().await.state(), Delivered);
    quiet.expect_no_receipt().await;
}

#[tokio::test]
async fn receipts_for_a_bot_that_does_not_read_are_dropped_and_counted_and_can_be_read() {
    let setup = Gateway::setup().config(|config| config.limits.session_receipts = 1);
    let gateway = setup.start().await;
    gateway.user("c1").on("queue").says("hi").await;
    let mut adapter = adapter(&gateway).await;
    let bot = curious(&gateway, "one").await;
    // The sockets between take some.
    let mut said = 0;
    while gateway.metric("turnwire_receipts_dropped_total").await == 0.0 {
        assert!(said < 10_000, "a bot that does not read is told for ever");
        says_much(&gateway, &mut adapter, 100).await;
        said += 100;
    }
    let states = states(&gateway).await;
    assert_eq!(states.len(), said);
    assert!(states.iter().all(|(_, state)| *state == Failed));
    drop(bot);
}

#[tokio::test]
async fn a_watcher_that_asks_is_told_of_an_activity_first_and_then_what_became_of_it() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let mut watcher = watch(&gateway, None, true).await;
    watcher.expect(1, "hi").await;
    says(&gateway, "one").await;
    watcher.expect(2, "one").await;
    let outbound = adapter.expect("one", 1).await;
    says(&gateway, "two").await;
    watcher.expect(3, "two").await;
    adapter.delivered(&outbound).await;
    let receipt = watcher.expect_receipt().await;
    let expected = v1::Receipt {
        conversation: None,
        activity_id: "c1|0000002".to_owned(),
        sequence: 2,
        state: Delivered as i32,
        channel_activity_id: "theirs-2".to_owned(),
        reason: String::new(),
        time: receipt.time,
    };
    assert_eq!(receipt, expected);
    let outbound = adapter.expect("two", 1).await;
    adapter.outcome(&outbound, failed("no")).await;
    let receipt = watcher.expect_receipt().await;
    assert_eq!((receipt.sequence, receipt.state()), (3, Failed));
}

#[tokio::test]
async fn a_watcher_that_starts_later_is_told_what_is_settled_of_what_it_reads() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    for text in ["one", "two", "three"] {
        says(&gateway, text).await;
    }
    for text in ["one", "two"] {
        let outbound = adapter.expect(text, 1).await;
        adapter.delivered(&outbound).await;
    }
    let third = adapter.expect("three", 1).await;
    let mut all = watch(&gateway, None, true).await;
    for (sequence, text) in [(1, "hi"), (2, "one"), (3, "two"), (4, "three")] {
        all.expect(sequence, text).await;
    }
    assert_eq!(all.expect_receipt().await.sequence, 2);
    assert_eq!(all.expect_receipt().await.sequence, 3);
    // Who reads only what is new hears of what was open.
    let mut new = watch(&gateway, Some(Start::OnlyNew(true)), true).await;
    let mut part = watch(&gateway, Some(Start::AfterSequence(2)), true).await;
    part.expect(3, "two").await;
    part.expect(4, "three").await;
    assert_eq!(part.expect_receipt().await.sequence, 3);
    adapter.delivered(&third).await;
    for watcher in [&mut all, &mut new, &mut part] {
        let receipt = watcher.expect_receipt().await;
        assert_eq!((receipt.sequence, receipt.state()), (4, Delivered));
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_ask_sees_nothing_new() {
    let gateway = started().await;
    let mut adapter = adapter(&gateway).await;
    let mut watcher = watch(&gateway, None, false).await;
    watcher.expect(1, "hi").await;
    for (sequence, text) in [(2, "one"), (3, "two")] {
        says(&gateway, text).await;
        let outbound = adapter.expect(text, 1).await;
        adapter.delivered(&outbound).await;
        // It fails on a receipt.
        watcher.expect(sequence, text).await;
    }
}

#[tokio::test]
async fn a_watcher_that_is_far_behind_is_told_every_receipt() {
    let setup = Gateway::setup().config(|config| config.limits.feed_entries = 4);
    let gateway = setup.start().await;
    gateway.user("c1").on("queue").says("hi").await;
    let mut adapter = adapter(&gateway).await;
    const SAID: u64 = 300;
    says_much(&gateway, &mut adapter, SAID).await;
    let mut watcher = watch(&gateway, None, true).await;
    let (mut seen, mut settled) = (0, 1);
    while settled < SAID + 1 {
        use v1::watch_conversation_response::Step;
        match watcher.step().await.expect("a step") {
            Step::Entry(entry) => {
                assert_eq!(entry.sequence, seen + 1);
                seen += 1;
            }
            Step::Receipt(receipt) => {
                assert_eq!(receipt.sequence, settled + 1, "no gap and no double");
                assert!(receipt.sequence <= seen, "an activity comes first");
                settled += 1;
            }
            Step::Position(_) => {}
            Step::Ephemeral(shown) => panic!("nobody asked for {shown:?}"),
        }
    }
}
