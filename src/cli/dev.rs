//! `turnwire dev`: a gateway to try things with, and a bot that answers.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tokio::sync::{oneshot, watch};
use turnwire_client::{Client, ClientOptions};

use super::connection::DEFAULT_GATEWAY;
use super::output::{self, Palette};
use super::scratch::Scratch;
use super::serve;
use super::{echo_bot, escape, interrupt};
use crate::config::{Config, Log, Overrides};
use crate::observability::logs;

/// The bot that the development configuration registers.
const BOT: &str = "echo";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Listen here [default: 127.0.0.1:7878]; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Keep the data in this folder; without it, in a fresh one that is removed at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let scratch = match args.data {
        Some(_) => None,
        None => Some(Scratch::new(None, "dev")?),
    };
    let data = match (args.data, &scratch) {
        (Some(data), _) => data,
        (None, Some(scratch)) => scratch.path().to_owned(),
        (None, None) => PathBuf::new(),
    };
    let kept = scratch.is_none();
    let config = Config::dev(&Overrides {
        listen: args.listen,
        data_dir: Some(data.clone()),
    })?;

    // Warnings only: this terminal is for the banner.
    logs::init(&Log {
        filter: "warn".to_owned(),
        ..config.log.clone()
    })?;

    // The bot goes first, so that what it works on is still answered.
    let (bot_gone, gateway_may_go) = oneshot::channel::<()>();
    let (bound, address) = oneshot::channel();
    let gateway = serve::serve(
        &config,
        async {
            // Gone with or without a word.
            let _ = gateway_may_go.await;
        },
        move |address, _| bound.send(address).map_err(|_| anyhow::anyhow!("stopped")),
    );
    let bot = async {
        let Ok(address) = address.await else {
            // The gateway did not get as far as to listen, and says why.
            return std::future::pending::<anyhow::Result<()>>().await;
        };
        let gateway = format!("http://{address}");
        let client = Client::connect(gateway.as_str(), ClientOptions::default()).await?;
        output::line(&banner(&gateway, &data.display().to_string(), kept))?;
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move {
            // An error says that nobody can ask to stop any more.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let running = echo_bot::run(&client, BOT, shutdown);
        let mut running = std::pin::pin!(running);
        tokio::select! {
            ended = &mut running => ended,
            () = interrupt::interrupted_or_left() => {
                stop.send_replace(true);
                running.await
            }
        }
        .context("the echo bot has stopped")
    };
    let mut gateway = std::pin::pin!(gateway);
    let ended = tokio::select! {
        ended = &mut gateway => return ended,
        ended = bot => ended,
    };
    drop(bot_gone);
    gateway.await.and(ended)
}

/// What is running, and what to type next.
fn banner(gateway: &str, data: &str, kept: bool) -> String {
    let palette = Palette::of_stdout();
    let flag = if gateway == DEFAULT_GATEWAY {
        String::new()
    } else {
        format!(" --gateway {gateway}")
    };
    let kept = if kept { "kept" } else { "removed at the end" };
    let step = |what: &str, command: &str| {
        let command = palette.bold(&format!("turnwire {command}{flag}"));
        format!("  {what:<32} {command}")
    };
    [
        format!("{} on {gateway}", palette.bold("turnwire dev")),
        format!("  data in {} ({kept})", escape::line(data)),
        format!("  channels `dev` and `webchat`, bot `{BOT}`"),
        String::new(),
        format!("  {:<32} {}", "chat in a browser:", palette.bold(gateway)),
        step("talk to the bot:", "chat"),
        step(
            "speak first, as the bot would:",
            "send \"your table is ready\"",
        ),
        step("watch what happens:", "tail"),
        String::new(),
        palette.dim("Ctrl-C ends it."),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_is_part_of_what_to_type() {
        assert!(
            banner("http://127.0.0.1:9", "d", true).contains("chat --gateway http://127.0.0.1:9")
        );
        assert!(!banner(DEFAULT_GATEWAY, "d", false).contains("--gateway"));
    }
}
