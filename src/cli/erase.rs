//! `turnwire erase`: erases a person.

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use serde_json::json;
use turnwire_client::proto::EraseUserResponse;

use super::connection::Connection;
use super::exit::Usage;
use super::{escape, output};

/// Calls that may end without anything erased before the person is taken for one who keeps speaking.
const IDLE_CALLS: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The channel that the person is on
    #[arg(long)]
    channel: String,
    /// The person's id on that channel
    #[arg(long)]
    user: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    if !args.yes {
        confirm(&args).await?;
    }
    let admin = connection.open().await?.admin();
    let mut sum = EraseUserResponse::default();
    let mut idle = 0;
    while !sum.done {
        let erased = admin.erase_user(&args.channel, &args.user).await?;
        let count = erased.conversations + erased.activities + erased.named_activities;
        let is_idle = count + erased.documents == 0;
        idle = if is_idle { idle + 1 } else { 0 };
        sum.done = erased.done;
        sum.conversations += erased.conversations;
        sum.activities += erased.activities;
        sum.named_activities += erased.named_activities;
        sum.files += erased.files;
        sum.documents += erased.documents;
        if idle >= IDLE_CALLS {
            bail!("it comes to no end, because there is always more; try again later");
        }
    }
    if json {
        return output::json(&json!({
            "channel": args.channel,
            "user": args.user,
            "conversations": sum.conversations,
            "activities": sum.activities,
            "namedActivities": sum.named_activities,
            "files": sum.files,
            "documents": sum.documents,
        }));
    }
    let user = escape::line(&args.user).into_owned();
    if sum.conversations + sum.activities + sum.documents == 0 {
        let channel = escape::line(&args.channel).into_owned();
        return output::line(&format!("nothing is kept of {user} on {channel}"));
    }
    output::line(&format!(
        "erased {user}: {} activities and {} files in {} conversations, {} documents of bots; {} \
         activities of others named the account",
        sum.activities, sum.files, sum.conversations, sum.documents, sum.named_activities,
    ))
}

/// Asks whoever sits there; whoever does not must have said `--yes`.
async fn confirm(args: &Args) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Usage("nobody can be asked here: say `--yes`".to_owned()).into());
    }
    output::write(&format!(
        "All that {} has said on {} will be gone for good. Type the id to go on: ",
        escape::line(&args.user),
        escape::line(&args.channel),
    ))?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await?.context("cannot read stdin")?;
    if answer.trim_end_matches(['\r', '\n']) == args.user {
        return Ok(());
    }
    bail!("nothing was erased")
}
