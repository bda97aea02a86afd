//! `turnwire tail`: watches what happens.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::Either;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt};
use turnwire_client::backoff::Backoff;
use turnwire_client::conversations::{Conversations, Start, WatchStep};
use turnwire_client::proto::{ConversationName, LogEntry, Receipt};

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
    /// Show as well what becomes on its channel of what bots say
    #[arg(long)]
    receipts: bool,
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

type Line = (ConversationName, WatchStep);

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let conversations = connection.open().await?.conversations();
    let printer = Printer {
        json,
        palette: Palette::of_stdout(),
    };
    let start = args.from.start();
    let follow = Follow {
        conversations,
        receipts: args.receipts,
    };
    match args.conversation {
        Some(Address(name)) => one(&follow, name, start, printer).await,
        None => all(&follow, start, printer).await,
    }
}

/// How conversations are followed.
#[derive(Clone)]
struct Follow {
    conversations: Conversations,
    receipts: bool,
}

impl Follow {
    fn steps(
        &self,
        name: ConversationName,
        start: Start,
    ) -> impl Stream<Item = Result<WatchStep, turnwire_client::Error>> + Send + use<> {
        if self.receipts {
            Either::Left(self.conversations.watch_with_receipts(name, start))
        } else {
            Either::Right(self.conversations.watch(name, start))
        }
    }
}

async fn one(
    follow: &Follow,
    name: ConversationName,
    start: Start,
    printer: Printer,
) -> anyhow::Result<()> {
    let mut steps = pin!(follow.steps(name.clone(), start));
    while let Some(step) = steps.next().await {
        printer.print(&name, &step?)?;
    }
    Ok(())
}

async fn all(follow: &Follow, start: Start, printer: Printer) -> anyhow::Result<()> {
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
            Some((name, step)) = printed.recv() => printer.print(&name, &step)?,
            Some(ended) = watches.join_next() => {
                if let Ok(Err(error)) = ended {
                    return Err(error);
                }
            }
            _ = look.tick() => match fresh(&follow.conversations, &mut known).await {
                Ok(names) => {
                    backoff.reset();
                    for name in names {
                        if watches.len() < MAX_WATCHED {
                            watches.spawn(watch(follow.clone(), name, start, lines.clone()));
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
    follow: Follow,
    name: ConversationName,
    start: Start,
    lines: mpsc::Sender<Line>,
) -> anyhow::Result<()> {
    let mut steps = pin!(follow.steps(name.clone(), start));
    while let Some(step) = steps.next().await {
        let step = step?;
        let is_seen = !matches!(step, WatchStep::Position(_));
        if is_seen && lines.send((name.clone(), step)).await.is_err() {
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
    fn print(self, name: &ConversationName, step: &WatchStep) -> anyhow::Result<()> {
        let conversation = address::text(name);
        match step {
            WatchStep::Entry(entry) if self.json => {
                output::json(&json::entry(&conversation, entry))
            }
            WatchStep::Entry(entry) => output::line(&self.line(&conversation, entry)),
            WatchStep::Receipt(receipt) if self.json => {
                output::json(&json::receipt_step(&conversation, receipt))
            }
            WatchStep::Receipt(receipt) => output::line(&self.receipt(&conversation, receipt)),
            WatchStep::Position(_) | WatchStep::Ephemeral(_) => Ok(()),
        }
    }

    /// Which activity, and what became of it.
    fn receipt(self, conversation: &str, receipt: &Receipt) -> String {
        let time = receipt.time.as_ref().map(show::time);
        format!(
            "{} {} {}",
            self.palette.dim(&time.unwrap_or_default()),
            escape::line(conversation),
            self.palette.dim(&format!(
                "({} {})",
                escape::line(&receipt.activity_id),
                show::receipt(receipt)
            )),
        )
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
