//! A bot in a process of its own, which can be killed: `turnwire bench bot-process`.
//!
//! It attaches, says so on standard output, and answers until the other end of its standard input is
//! closed, so that it does not outlive the measurement. Each answer begins with its number.

use anyhow::{Context, bail};
use prost::Message;
use tokio::io::AsyncReadExt;
use turnwire_client::bot::{BotSender, BotStream, GatewayFrame};
use turnwire_client::proto::{Activity, BotHeartbeat, Commit, Credit, Delivery, Hello};

use super::process::{ATTACHED, NUMBER_SEPARATOR};
use crate::cli::connection::Connection;
use crate::cli::{fresh, output};

/// Within what a gateway grants by default; granted again with each answer.
const CREDIT: Credit = Credit {
    deliveries: 10_000,
    bytes: 64 * 1024 * 1024,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli::bench) struct Args {
    /// Whose process it is
    #[arg(long)]
    bot: String,
    /// What its answers begin with
    #[arg(long)]
    number: usize,
}

pub(in crate::cli::bench) async fn run(args: Args, connection: &Connection) -> anyhow::Result<()> {
    let client = connection.open().await?;
    let hello = Hello {
        min_protocol: 1,
        max_protocol: 1,
        bot_id: args.bot,
        instance_id: format!("bench-{}-{}", args.number, fresh::id()),
        credit: Some(CREDIT),
        ..Hello::default()
    };
    let stream = BotStream::open(&client, hello)
        .await
        .context("the bot was not let in")?;
    let (welcome, sender, mut receiver) = stream.split();
    output::line(ATTACHED)?;
    let mut heartbeat = tokio::time::interval(super::super::heartbeat(welcome.heartbeat_interval));
    let mut stdin = tokio::io::stdin();
    let mut byte = [0];
    loop {
        tokio::select! {
            biased;
            _ = heartbeat.tick() => sender.send(BotHeartbeat::default()).await?,
            frame = receiver.next() => match frame?.context("the gateway ended the session")? {
                GatewayFrame::Delivery(delivery) => answer(&sender, args.number, delivery).await?,
                // That a commit is stale is no mistake here: the users count what was answered.
                GatewayFrame::AckResult(_)
                | GatewayFrame::Welcome(_)
                | GatewayFrame::SendResult(_)
                | GatewayFrame::Receipt(_)
                | GatewayFrame::Heartbeat(_) => {}
                GatewayFrame::Error(error) => {
                    return Err(turnwire_client::Error::from(error))
                        .context("the gateway refused a frame");
                }
                GatewayFrame::Drain(_) => bail!("the gateway is going down"),
                // The others ask for nothing. That a commit is stale is no mistake here: the users count
                // what was answered.
                _ => {}
            },
            _ = stdin.read(&mut byte) => return Ok(()),
        }
    }
}

async fn answer(sender: &BotSender, number: usize, delivery: Delivery) -> anyhow::Result<()> {
    let question = delivery
        .activity
        .context("a delivery without an activity")?;
    let used = Credit {
        deliveries: 1,
        bytes: i64::try_from(question.encoded_len()).unwrap_or(i64::MAX),
    };
    let text = format!("{number}{NUMBER_SEPARATOR}{}", question.text());
    let commit = Commit {
        delivery_id: delivery.delivery_id,
        activities: vec![Activity::message(text)],
        ..Default::default()
    };
    sender.send(commit).await?;
    Ok(sender.send(used).await?)
}
