//! A bot that shows what a chat page can do: it answers by what it is told.
//!
//! | told | answers with |
//! |---|---|
//! | `suggest` | suggested actions |
//! | `hero` | a hero card with a button of each kind |
//! | `adaptive` | an Adaptive Card with inputs and a submit button |
//! | `typing` | a typing indicator, and a message two seconds later |
//! | `stream` | a reply that grows while it is read, and that can be stopped |
//! | `break off` | a reply that grows and never ends |
//! | an attachment | its name, its type and how many bytes it has |
//! | an order, from a card's button | what was ordered |
//! | anything else | the same words |
//!
//! `cargo run -p turnwire-client --example cards -- http://127.0.0.1:7878 cards`

use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use turnwire_client::bot::{Bot, Reply, Turn, TurnError};
use turnwire_client::proto::{Activity, Attachment, CancelReason, CardAction, SuggestedActions};
use turnwire_client::{Client, ClientOptions};

/// How long this bot pretends to think, and how long between two pieces of a streamed reply.
const THINKING: Duration = Duration::from_secs(2);
const BETWEEN_PIECES: Duration = Duration::from_millis(400);

/// A file that takes longer to download than this is given up, and the turn tried again.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a streamed reply says, piece by piece.
const PIECES: [&str; 5] = [
    "A streamed reply ",
    "grows while ",
    "you read it, ",
    "piece by piece, ",
    "and ends as one message.",
];

#[tokio::main]
async fn main() -> Result<(), turnwire_client::Error> {
    let mut arguments = std::env::args().skip(1);
    let gateway = arguments
        .next()
        .unwrap_or_else(|| "http://127.0.0.1:7878".to_owned());
    let bot_id = arguments.next().unwrap_or_else(|| "cards".to_owned());

    let options = ClientOptions {
        token: std::env::var("TURNWIRE_TOKEN").ok().map(Into::into),
        ..ClientOptions::default()
    };
    let client = Client::connect(gateway, options).await?;

    let interrupted = async {
        // Without a signal to wait for, the bot runs until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Bot::builder(bot_id)
        .build(&client)
        .run_until(interrupted, answer)
        .await
}

async fn answer(turn: Turn) -> Result<Reply, TurnError> {
    let activity = turn.activity();
    if !activity.is_message() {
        return Ok(greeting(activity).into());
    }
    if let Some(order) = order(activity) {
        return Ok(order.into());
    }
    if !activity.attachments.is_empty() {
        return describe(&activity.attachments).await;
    }
    Ok(match turn.text() {
        "suggest" => suggested_actions().into(),
        "hero" => hero_card().into(),
        "adaptive" => adaptive_card().into(),
        "typing" => type_then_answer(&turn).await?,
        "stream" => stream(&turn).await?,
        "break off" => break_off(&turn).await?,
        text => format!("echo: {text}").into(),
    })
}

/// Welcomes whoever joined, except for the bot itself.
fn greeting(activity: &Activity) -> Option<String> {
    let bot = activity.recipient.as_ref().map(|bot| bot.id());
    let newcomer = activity
        .members_added
        .iter()
        .find(|member| Some(member.id()) != bot)?;
    Some(match newcomer.name() {
        "" => "welcome".to_owned(),
        name => format!("welcome, {name}"),
    })
}

/// What the buttons of the cards below send: an object with a drink in it.
fn order(activity: &Activity) -> Option<String> {
    let Some(Kind::StructValue(order)) = &activity.value.as_ref()?.kind else {
        return None;
    };
    let member = |name| match &order.fields.get(name)?.kind {
        Some(Kind::StringValue(text)) => Some(text.as_str()),
        _ => None,
    };
    let drink = member("drink")?;
    Some(format!(
        "ordered: {} {drink}",
        member("size").unwrap_or("a")
    ))
}

fn suggested_actions() -> Activity {
    let button = |title: &str| CardAction {
        r#type: Some("imBack".to_owned()),
        title: Some(title.to_owned()),
        value: Some(value(json!(title))),
        ..CardAction::default()
    };
    Activity {
        suggested_actions: Some(SuggestedActions {
            actions: vec![button("red"), button("green"), button("blue")],
            ..SuggestedActions::default()
        }),
        ..Activity::message("which colour?")
    }
}

/// The three kinds of button differ in what the user sees being said: the button's value, nothing,
/// or a text of its own.
fn hero_card() -> Activity {
    with_card(
        "application/vnd.microsoft.card.hero",
        json!({
            "title": "The bar",
            "subtitle": "open until late",
            "text": "What may it be?",
            "buttons": [
                { "type": "imBack", "title": "Say hello", "value": "hello from a card" },
                { "type": "postBack", "title": "A tea, quietly", "value": { "drink": "tea" } },
                {
                    "type": "messageBack",
                    "title": "A large coffee",
                    "displayText": "A large coffee, please",
                    "text": "coffee",
                    "value": { "drink": "coffee", "size": "large" }
                }
            ]
        }),
    )
}

fn adaptive_card() -> Activity {
    with_card(
        "application/vnd.microsoft.card.adaptive",
        json!({
            "type": "AdaptiveCard",
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "version": "1.3",
            "body": [
                { "type": "TextBlock", "text": "Your order", "size": "large", "weight": "bolder" },
                { "type": "Input.Text", "id": "drink", "placeholder": "Drink" },
                {
                    "type": "Input.ChoiceSet",
                    "id": "size",
                    "style": "expanded",
                    "value": "small",
                    "choices": [
                        { "title": "Small", "value": "small" },
                        { "title": "Large", "value": "large" }
                    ]
                }
            ],
            "actions": [{ "type": "Action.Submit", "title": "Order" }]
        }),
    )
}

fn with_card(content_type: &str, content: serde_json::Value) -> Activity {
    Activity {
        attachments: vec![Attachment {
            content_type: Some(content_type.to_owned()),
            content: Some(value(content)),
            ..Attachment::default()
        }],
        ..Activity::of_type("message")
    }
}

async fn type_then_answer(turn: &Turn) -> Result<Reply, TurnError> {
    turn.typing();
    tokio::time::sleep(THINKING).await;
    Ok("thought about it".into())
}

/// Says a reply in pieces. The user may stop it.
async fn stream(turn: &Turn) -> Result<Reply, TurnError> {
    let mut reply = turn.stream();
    for piece in PIECES {
        reply.push(piece);
        tokio::time::sleep(BETWEEN_PIECES).await;
        if reply.cancel() == Some(CancelReason::UserStopped) {
            break;
        }
    }
    Ok(reply.into())
}

/// Begins a reply and never gets to its end.
async fn break_off(turn: &Turn) -> Result<Reply, TurnError> {
    let mut reply = turn.stream();
    for piece in &PIECES[..2] {
        reply.push(piece);
        tokio::time::sleep(BETWEEN_PIECES).await;
    }
    Ok(Reply::default())
}

/// Answers with a message for each file.
async fn describe(attachments: &[Attachment]) -> Result<Reply, TurnError> {
    let mut answers = Vec::new();
    for attachment in attachments {
        let (kind, length) =
            tokio::time::timeout(DOWNLOAD_TIMEOUT, download(attachment.content_url()))
                .await
                .map_err(|_| TurnError::retry("the download took too long"))??;
        answers.push(Activity::message(format!(
            "got {} ({}): {length} bytes of {kind}",
            attachment.name(),
            attachment.content_type(),
        )));
    }
    Ok(answers.into())
}

/// Fetches a file over plain HTTP, and says its type and length. The URL is all it takes: it cannot
/// be guessed. A bot of yours has an HTTP client for this, which also speaks TLS.
async fn download(url: &str) -> Result<(String, usize), TurnError> {
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| TurnError::poison(format!("`{url}` is not plain HTTP")))?;
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // With HTTP/1.0 the answer is in one piece, and over when the connection is.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;

    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| TurnError::retry("the answer is cut off"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let (status, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    if status.split(' ').nth(1) != Some("200") {
        return Err(TurnError::retry(format!("the file is not there: {status}")));
    }
    let kind = headers
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map_or("no type", |(_, kind)| kind.trim());
    Ok((kind.to_owned(), answer.len() - end - 4))
}

/// Protobuf's form of JSON.
fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(truth),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(value).collect(),
        }),
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members
                .into_iter()
                .map(|(name, member)| (name, value(member)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}
