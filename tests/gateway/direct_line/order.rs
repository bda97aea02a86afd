//! Nothing is lost, doubled or out of order, however clients read and whatever breaks.

use std::net::SocketAddr;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use turnwire::proto::v1::subscribe_response::Frame as Told;

use super::{heard, quiet};
use crate::harness::{
    Answer, Bot, Chat, Frame, Gateway, Line, message, padded, says, seconds, within,
};

const CHATS: usize = 50;
const MESSAGES: usize = 100;
const SEED: u64 = 20_260_101;

/// A bot that answers each message until its stream is over.
async fn answers(mut bot: Bot) {
    while let Ok(Some(frame)) = bot.read().await {
        let Told::Delivery(delivery) = frame else {
            continue;
        };
        let told = heard(&delivery);
        let said = match told["text"].as_str() {
            Some(text) => vec![message(&format!("re {text}"))],
            None => Vec::new(),
        };
        bot.commit_all(delivery.delivery_id, said);
    }
}

/// One who goes on wherever the gateway is: comes back when a connection breaks, and tries again.
#[derive(Clone)]
struct Steady {
    line: Line,
    addresses: watch::Receiver<SocketAddr>,
}

impl Steady {
    /// Calls until it is answered, wherever the gateway is by then.
    async fn call(&mut self, method: &str, path: &str, body: &str) -> Value {
        let asked = async {
            loop {
                let answer = self.line.try_call(method, path, body.to_owned()).await;
                match answer {
                    Ok(Answer { status: 503, .. }) | Err(_) => {
                        let address = *self.addresses.borrow();
                        self.line = self.line.to(address);
                        tokio::task::yield_now().await;
                    }
                    Ok(answer) => return answer.is(200),
                }
            }
        };
        within(path, asked).await
    }
}

/// Posts all messages, each until it is taken.
async fn speak(mut who: Steady, id: &str, said: &watch::Sender<usize>) {
    let path = format!("/conversations/{id}/activities");
    for number in 0..MESSAGES {
        let mut activity = says("ann", &number.to_string());
        activity["channelData"] = json!({"clientActivityID": number.to_string()});
        who.call("POST", &path, &activity.to_string()).await;
        said.send_modify(|said| *said += 1);
    }
}

/// Reads by streams, which are cut at random.
async fn listen(mut who: Steady, id: &str, mut chance: StdRng) -> Vec<Value> {
    let (mut seen, mut watermark) = (Vec::new(), String::new());
    while seen.len() < 2 * MESSAGES {
        let path = format!("/conversations/{id}?watermark={watermark}");
        let back = who.call("GET", &path, "").await;
        let url = back["streamUrl"].as_str().expect("a URL");
        let mut stream = match who.line.try_open(url).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(refused)) => {
                refused.refused_by(503);
                continue;
            }
            Err(_) => continue,
        };
        while seen.len() < 2 * MESSAGES {
            match stream.frame().await {
                Frame::Activity(activity, after) => {
                    seen.push(activity);
                    watermark = after;
                }
                Frame::Empty => {}
                Frame::Close(..) | Frame::Gone => break,
            }
            if chance.random_ratio(1, 25) {
                break;
            }
        }
    }
    seen
}

/// Reads by polling.
async fn poll(mut who: Steady, id: &str) -> Vec<Value> {
    let (mut seen, mut watermark) = (Vec::new(), String::new());
    while seen.len() < 2 * MESSAGES {
        let path = format!("/conversations/{id}/activities?watermark={watermark}");
        let page = who.call("GET", &path, "").await;
        seen.extend(
            page["activities"]
                .as_array()
                .expect("a list")
                .iter()
                .cloned(),
        );
        page["watermark"]
            .as_str()
            .expect("a text")
            .clone_into(&mut watermark);
    }
    seen
}

/// Everything that was said and answered, each once, in order, and no answer before its message.
fn check(seen: &[Value]) {
    let texts: Vec<&str> = seen
        .iter()
        .map(|activity| activity["text"].as_str().expect("a text"))
        .collect();
    let numbers: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let (replies, said): (Vec<&str>, Vec<&str>) =
        texts.iter().partition(|text| text.starts_with("re "));
    assert_eq!(said, numbers, "what was said");
    let answered: Vec<&str> = replies.iter().map(|reply| &reply[3..]).collect();
    assert_eq!(answered, numbers, "what was answered");
    for number in &numbers {
        let place = |wanted: &str| texts.iter().position(|text| *text == wanted);
        assert!(place(number) < place(&format!("re {number}")), "{number}");
    }
    for pair in seen.windows(2) {
        let time = |activity: &Value| activity["timestamp"].as_str().expect("a time").to_owned();
        assert!(time(&pair[0]) <= time(&pair[1]), "times go back");
        assert!(
            pair[0]["id"].as_str() < pair[1]["id"].as_str(),
            "ids go back"
        );
    }
}

async fn all_arrive(crash: bool) {
    let mut gateway = quiet().await;
    let mut bot = tokio::spawn(answers(gateway.bot("echo").attach().await));
    let (moves, addresses) = watch::channel(gateway.address());
    let said = watch::Sender::new(0);
    let mut chats = Vec::new();
    for number in 0..CHATS {
        let chat = gateway.chat().await;
        let who = Steady {
            line: chat.line.clone(),
            addresses: addresses.clone(),
        };
        let said = said.clone();
        chats.push(tokio::spawn(async move {
            let chance = StdRng::seed_from_u64(SEED + number as u64);
            let reads = async {
                if number % 2 == 0 {
                    listen(who.clone(), &chat.id, chance).await
                } else {
                    poll(who.clone(), &chat.id).await
                }
            };
            let (seen, ()) = tokio::join!(reads, speak(who.clone(), &chat.id, &said));
            check(&seen);
        }));
    }
    if crash {
        let half = CHATS * MESSAGES / 2;
        said.subscribe()
            .wait_for(|said| *said >= half)
            .await
            .expect("they speak");
        gateway.crash().await;
        bot.await.expect("its stream is over");
        bot = tokio::spawn(answers(gateway.bot("echo").attach().await));
        moves.send(gateway.address()).expect("they listen");
    }
    for chat in join_all(chats).await {
        chat.expect("all arrived");
    }
    bot.abort();
}

#[tokio::test]
async fn every_message_of_fifty_conversations_arrives_once_and_in_order() {
    all_arrive(false).await;
}

#[tokio::test]
async fn every_message_arrives_once_and_in_order_over_a_crash_as_well() {
    all_arrive(true).await;
}

/// More than the buffers of two sockets hold.
const LARGE: usize = 40;

/// A conversation with a stream that nobody reads, and much to read.
async fn unread(gateway: &Gateway) -> (Bot, Chat) {
    let mut bot = gateway.bot("echo").attach().await;
    let chat = gateway.chat().await;
    let update = bot.next_delivery().await;
    bot.acks(&update).await;
    for number in 0..LARGE {
        chat.says(&number.to_string()).await;
        let delivery = bot.next_delivery().await;
        bot.commit_all(delivery.delivery_id, vec![padded("large", 500_000)]);
    }
    bot.barrier().await;
    (bot, chat)
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_holds_up_nobody() {
    let gateway = quiet().await;
    let chat = gateway.chat().await;
    let back = chat.line.reconnect(&chat.id, Some("")).await.is(200);
    let mut slow = Chat::of(&chat.line, &back, "ann").stream().await;
    let mut quick = chat.stream().await;
    let mut large = says("ann", "");
    large["summary"] = "x".repeat(500_000).into();
    for number in 0..LARGE {
        large["text"] = number.to_string().into();
        chat.posts(&large).await;
        quick.expect(&number.to_string()).await;
    }
    for number in 0..LARGE {
        slow.expect(&number.to_string()).await;
    }
    chat.says("last").await;
    slow.expect("last").await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_sent_away_and_comes_back_for_the_rest() {
    let gateway = quiet().await;
    let (_bot, mut chat) = unread(&gateway).await;
    let mut slow = chat.stream().await;
    let watermark = slow.expect("0").await;
    // In steps, since a frame may be on its way when time moves on.
    for _ in 0..4 {
        gateway.pass(seconds(60)).await;
    }
    let mut last = watermark;
    let mut seen = 1;
    let end = loop {
        match slow.frame().await {
            Frame::Activity(_, watermark) => {
                last = watermark;
                seen += 1;
            }
            Frame::Empty => {}
            end => break end,
        }
    };
    assert_eq!(end, Frame::Gone);
    assert!(seen < 2 * LARGE, "it was sent away before the end");
    let mut rest = chat.back(Some(&last)).await;
    for _ in seen..2 * LARGE {
        rest.next().await;
    }
    chat.says("last").await;
    rest.expect("last").await;
}
