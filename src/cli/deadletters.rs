//! `turnwire deadletters`: what bots and channels could not take, and what becomes of it.

use clap::Subcommand;
use serde_json::{Value, json};
use turnwire_client::admin::Admin;
use turnwire_client::proto::{ConversationName, DeadLetter, ListDeadLettersRequest};

use super::connection::Connection;
use super::exit::Usage;
use super::output::Palette;
use super::{address, escape, json, output, send, show};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them: conversation, position, whose, attempt, when and why
    List {
        /// Those of one conversation: CHANNEL/ID
        #[arg(long, value_name = "CHANNEL/ID")]
        conversation: Option<String>,
        /// Those of one bot
        #[arg(long, conflicts_with = "channels")]
        bot: Option<String>,
        /// Those of channels
        #[arg(long)]
        channels: bool,
        /// Most to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Show one, with what could not be taken
    Show(Which),
    /// Hand some over again, in order
    Replay(Which),
    /// Remove some: nobody gets them any more
    Drop(Which),
}

/// Which of them.
#[derive(Debug, clap::Args)]
struct Which {
    /// Their conversation: CHANNEL/ID
    #[arg(value_name = "CHANNEL/ID")]
    conversation: String,
    /// Their positions in the log
    #[arg(
        value_name = "SEQUENCE",
        conflicts_with = "all",
        required_unless_present = "all"
    )]
    sequences: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// The bot that could not take them
    #[arg(long, conflicts_with = "channel", required_unless_present = "channel")]
    bot: Option<String>,
    /// The channel could not take them
    #[arg(long)]
    channel: bool,
}

impl Which {
    fn conversation(&self) -> anyhow::Result<ConversationName> {
        named(&self.conversation)
    }

    fn bot(&self) -> String {
        self.bot.clone().unwrap_or_default()
    }

    /// Says how many it was done with. That none of those that were named could be found is a failure.
    fn told(&self, done: &str, key: &str, count: u64, json: bool) -> anyhow::Result<()> {
        if json {
            output::json(&json!({ key: count }))?;
        } else if count > 0 || self.all {
            output::line(&format!("{count} {done}"))?;
        }
        if count == 0 && !self.all {
            anyhow::bail!(
                "none of these is a dead letter that waits; `turnwire deadletters list` shows them"
            );
        }
        Ok(())
    }
}

fn named(text: &str) -> anyhow::Result<ConversationName> {
    let named = send::named(Some(text), None)?;
    named.ok_or_else(|| Usage("say which conversation: CHANNEL/ID".to_owned()).into())
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let admin = connection.open().await?.admin();
    match args.command {
        Command::List {
            conversation,
            bot,
            channels,
            limit,
        } => {
            let request = ListDeadLettersRequest {
                conversation: conversation.as_deref().map(named).transpose()?,
                bot_id: bot.or_else(|| channels.then(String::new)),
                ..Default::default()
            };
            list(&admin, request, limit, json).await
        }
        Command::Show(which) => show_some(&admin, &which, json).await,
        Command::Replay(which) => {
            let mut count = 0;
            loop {
                let sequences = which.sequences.clone();
                let done = admin
                    .replay_dead_letters(which.conversation()?, which.bot(), sequences)
                    .await?;
                count += done.count;
                // A call that finds nothing new has found all that one call sees.
                if !done.more || done.count == 0 {
                    return which.told("handed over again", "replayed", count, json);
                }
            }
        }
        Command::Drop(which) => {
            let mut count = 0;
            loop {
                let sequences = which.sequences.clone();
                let done = admin
                    .drop_dead_letters(which.conversation()?, which.bot(), sequences)
                    .await?;
                count += done.count;
                if !done.more || done.count == 0 {
                    return which.told("removed", "dropped", count, json);
                }
            }
        }
    }
}

async fn list(
    admin: &Admin,
    mut request: ListDeadLettersRequest,
    limit: usize,
    json: bool,
) -> anyhow::Result<()> {
    let palette = Palette::of_stdout();
    let mut left = limit;
    while left > 0 {
        request.page_size = i32::try_from(left.min(1_000)).unwrap_or(1_000);
        let page = admin.dead_letters_page(request.clone()).await?;
        for letter in page.dead_letters.iter().take(left) {
            left -= 1;
            if json {
                output::json(&document(letter))?;
            } else {
                output::line(&line(letter, palette))?;
            }
        }
        if page.next_page_token.is_empty() {
            if left == limit && !json {
                output::line("no dead letters")?;
            }
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
    Ok(())
}

async fn show_some(admin: &Admin, which: &Which, json: bool) -> anyhow::Result<()> {
    let mut request = ListDeadLettersRequest {
        conversation: Some(which.conversation()?),
        bot_id: Some(which.bot()),
        ..Default::default()
    };
    let mut found = 0;
    loop {
        let page = admin.dead_letters_page(request.clone()).await?;
        let meant = |letter: &&DeadLetter| which.all || which.sequences.contains(&letter.sequence);
        for letter in page.dead_letters.iter().filter(meant) {
            found += 1;
            if json {
                output::json(&document(letter))?;
                continue;
            }
            output::line(&line(letter, Palette::of_stdout()))?;
            let activity = letter.activity.as_deref().cloned().unwrap_or_default();
            output::line(&serde_json::to_string_pretty(&json::encode(&activity))?)?;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if found == 0 {
        anyhow::bail!("there is no such dead letter; `turnwire deadletters list` shows them");
    }
    Ok(())
}

fn line(letter: &DeadLetter, palette: Palette) -> String {
    let whose = match letter.bot_id.as_str() {
        "" => "channel".to_owned(),
        bot => format!("bot:{}", escape::line(bot)),
    };
    let time = letter.parked_time.as_ref().map(show::time);
    let replay = if letter.replay { " (replay)" } else { "" };
    format!(
        "{}  {}  {whose}  attempt {}{replay}  {}  {}",
        place(letter),
        letter.sequence,
        letter.attempts,
        palette.dim(&time.unwrap_or_default()),
        escape::line(&letter.reason),
    )
}

fn place(letter: &DeadLetter) -> String {
    let name = letter.conversation.clone().unwrap_or_default();
    escape::line(&address::text(&name)).into_owned()
}

fn document(letter: &DeadLetter) -> Value {
    let name = letter.conversation.clone().unwrap_or_default();
    json!({
        "conversation": address::text(&name),
        "sequence": letter.sequence,
        "bot": (!letter.bot_id.is_empty()).then_some(&letter.bot_id),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "parkedTime": letter.parked_time.as_ref().map(show::time),
        "replay": letter.replay,
        "activity": letter.activity.as_deref().map(json::encode),
    })
}
