//! A bot that greets newcomers and says back what it is told.
//!
//! `cargo run -p turnwire-client --example echo -- http://127.0.0.1:7878 echo`

use turnwire_client::bot::{Bot, Reply, Turn, TurnError};
use turnwire_client::{Client, ClientOptions};

#[tokio::main]
async fn main() -> Result<(), turnwire_client::Error> {
    let mut arguments = std::env::args().skip(1);
    let gateway = arguments
        .next()
        .unwrap_or_else(|| "http://127.0.0.1:7878".to_owned());
    let bot_id = arguments.next().unwrap_or_else(|| "echo".to_owned());

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
    let bot = activity.recipient.as_ref().map(|bot| bot.id());
    let newcomer = activity
        .members_added
        .iter()
        .find(|member| Some(member.id()) != bot);
    Ok(match newcomer {
        Some(newcomer) => format!("welcome, {}", newcomer.name()).into(),
        None if activity.is_message() => format!("echo: {}", turn.text()).into(),
        None => ().into(),
    })
}
