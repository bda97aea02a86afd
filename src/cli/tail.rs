//! `turnwire tail`: watches what happens.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use turnwire_client::backoff::Backoff;
use turnwire_client::conversations::{Conversations, Start, WatchStep};
use turnwire_client::proto::{ConversationName, LogEntry};

use super::address::{self, Address};
use super::connection::Connection;
use super::output::Palette;
use super::{escape, json, output, show};

/// Conversations watched at one time; each is a stream. The newest are.
const MAX_WATCHED: usize = 500;

/// How often new conversations are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Entries that may wait to be printed; more make their streams wait, and nothing is lost.
const UNPRINTED: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which conversation [default: all of them, up to the newest 500]
    #[arg(value_name = "CHANNEL/ID")]
    conversation: Option<Address>,
    /// Where to begin; conversations that begin later are shown whole
    #[arg(long, value_enum, default_value_t = From::Now)]
    from: From,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum From {
    /// With the oldest activity that is kept
    Start,
    /// With what comes from now on
    Now,
}

impl From {
    fn start(self) -> Start {
        match self {
            Self::Start => Start::Beginning,
            Self::Now => Start::Now,
        }
    }
}

type Line = (ConversationName, Box<LogEntry>);

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let conversations = connection.open().await?.conversations();
    let printer = Printer {
        json,
        palette: Palette::of_stdout(),
    };
    let start = args.from.start();
    match args.conversation {
        Some(Address(name)) => one(&conversations, name, start, printer).await,
        None => all(&conversations, start, printer).await,
    }
}

async fn one(
    conversations: &Conversations,
    name: ConversationName,
    start: Start,
    printer: Printer,
) -> anyhow::Result<()> {
    let mut steps = pin!(conversations.watch(name.clone(), start));
    while let Some(step) = steps.next().await {
        if let WatchStep::Entry(entry) = step? {
            printer.print(&name, &entry)?;
        }
    }
    Ok(())
}

async fn all(conversations: &Conversations, start: Start, printer: Printer) -> anyhow::Result<()> {
    let (lines, mut printed) = mpsc::channel::<Line>(UNPRINTED);
    let mut known = HashSet::new();
    let mut watches = JoinSet::new();
    let mut backoff = Backoff::default();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    // What is there now begins where the user wants; what comes later is new as a whole.
    let mut start = start;
    let mut begun = false;
    loop {
        tokio::select! {
            Some((name, entry)) = printed.recv() => printer.print(&name, &entry)?,
            Some(ended) = watches.join_next() => {
                if let Ok(Err(error)) = ended {
                    return Err(error);
                }
            }
            _ = look.tick() => match fresh(conversations, &mut known).await {
                Ok(names) => {
                    backoff.reset();
                    for name in names {
                        if watches.len() < MAX_WATCHED {
                            watches.spawn(watch(conversations.clone(), name, start, lines.clone()));
                        }
                    }
                    start = Start::Beginning;
                    begun = true;
                }
                Err(error) if begun && error.is_retryable() => {
                    look.reset_after(LOOK_INTERVAL.max(backoff.next_delay()));
                }
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// The conversations not seen before, newest first, as far as they could be watched.
///
/// The list begins with the newest, so that it need be read only up to one that is known.
async fn fresh(
    conversations: &Conversations,
    known: &mut HashSet<(String, String)>,
) -> Result<Vec<ConversationName>, turnwire_client::Error> {
    let mut names = Vec::new();
    let mut listed = pin!(conversations.list(None).take(MAX_WATCHED));
    while let Some(conversation) = listed.next().await {
        let Some(name) = conversation?.name else {
            continue;
        };
        let key = (name.channel_id.clone(), name.conversation_id.clone());
        if known.contains(&key) {
            break;
        }
        names.push(name);
    }
    known.extend(
        names
            .iter()
            .map(|name| (name.channel_id.clone(), name.conversation_id.clone())),
    );
    Ok(names)
}

async fn watch(
    conversations: Conversations,
    name: ConversationName,
    start: Start,
    lines: mpsc::Sender<Line>,
) -> anyhow::Result<()> {
    let mut steps = pin!(conversations.watch(name.clone(), start));
    while let Some(step) = steps.next().await {
        if let WatchStep::Entry(entry) = step?
            && lines.send((name.clone(), entry)).await.is_err()
        {
            break;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Printer {
    json: bool,
    palette: Palette,
}

impl Printer {
    fn print(self, name: &ConversationName, entry: &LogEntry) -> anyhow::Result<()> {
        let conversation = address::text(name);
        if self.json {
            return output::json(&json::entry(&conversation, entry));
        }
        output::line(&self.line(&conversation, entry))
    }

    fn line(self, conversation: &str, entry: &LogEntry) -> String {
        let activity = entry.activity.clone().unwrap_or_default();
        let time = entry.append_time.as_ref().map(show::time);
        let who = show::who(&activity);
        format!(
            "{} {} {}: {}",
            self.palette.dim(&time.unwrap_or_default()),
            escape::line(conversation),
            if show::is_from_bot(entry) {
                self.palette.bot(&who)
            } else {
                self.palette.user(&who)
            },
            show::what(&activity),
        )
    }
}
