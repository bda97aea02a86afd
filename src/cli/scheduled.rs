//! `turnwire scheduled`: lists what waits for its time, and takes it back.

use clap::Subcommand;
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use turnwire_client::conversations::Conversations;
use turnwire_client::proto::{ConversationName, ScheduleEnd, ScheduledActivity};

use super::connection::Connection;
use super::output::Palette;
use super::{address, escape, json, output, send, show};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what waits in a conversation, what is due first at the head
    List {
        #[command(flatten)]
        place: Place,
        /// Most to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Take one back: it is not sent any more
    Cancel {
        /// What `send --at` and `scheduled list` call it
        #[arg(value_name = "SCHEDULE")]
        schedule_id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Which conversation.
#[derive(Debug, clap::Args)]
struct Place {
    /// Where: CHANNEL/ID, or the ID alone with --channel [default: the newest conversation]
    #[arg(long, value_name = "CHANNEL/ID")]
    conversation: Option<String>,
    /// The channel of --conversation, or of which to take the newest conversation
    #[arg(long)]
    channel: Option<String>,
}

impl Place {
    async fn find(self, conversations: &Conversations) -> anyhow::Result<ConversationName> {
        match send::named(self.conversation.as_deref(), self.channel.as_deref())? {
            Some(named) => Ok(named),
            None => send::newest(conversations, self.channel).await,
        }
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let conversations = connection.open().await?.conversations();
    match args.command {
        Command::List { place, limit } => {
            let name = place.find(&conversations).await?;
            list(&conversations, name, limit, json).await
        }
        Command::Cancel { schedule_id, place } => {
            let name = place.find(&conversations).await?;
            cancel(&conversations, name, schedule_id, json).await
        }
    }
}

const HEADINGS: [&str; COLUMNS] = ["DUE", "SCHEDULE", "BOT", "EXPIRES", "SAYS"];
const COLUMNS: usize = 5;

async fn list(
    conversations: &Conversations,
    name: ConversationName,
    limit: usize,
    json: bool,
) -> anyhow::Result<()> {
    let conversation = address::text(&name);
    let mut listed = std::pin::pin!(conversations.scheduled(name).take(limit));
    let mut rows = Vec::new();
    while let Some(scheduled) = listed.next().await {
        let scheduled = scheduled?;
        if json {
            output::json(&document(&conversation, &scheduled))?;
        } else {
            rows.push(row(&scheduled));
        }
    }
    if json {
        return Ok(());
    }
    print(&rows)
}

fn document(conversation: &str, scheduled: &ScheduledActivity) -> Value {
    json!({
        "conversation": conversation,
        "scheduleId": scheduled.schedule_id,
        "botId": scheduled.bot_id,
        "deliverAt": scheduled.deliver_at.as_ref().map(show::time),
        "expireAt": scheduled.expire_at.as_ref().map(show::time),
        "askTime": scheduled.ask_time.as_ref().map(show::time),
        "activity": scheduled.activity.as_deref().map(json::encode),
    })
}

fn row(scheduled: &ScheduledActivity) -> [String; COLUMNS] {
    let time = |time: &Option<_>| time.as_ref().map(show::time).unwrap_or_default();
    let says = scheduled.activity.as_deref().map(show::what);
    [
        time(&scheduled.deliver_at),
        escape::line(&scheduled.schedule_id).into_owned(),
        escape::line(&scheduled.bot_id).into_owned(),
        time(&scheduled.expire_at),
        says.unwrap_or_default(),
    ]
}

fn print(rows: &[[String; COLUMNS]]) -> anyhow::Result<()> {
    let headings = HEADINGS.map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&headings]).map(|row| &row[column]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let aligned = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    output::line(&Palette::of_stdout().bold(&aligned(&headings)))?;
    rows.iter().try_for_each(|row| output::line(&aligned(row)))
}

async fn cancel(
    conversations: &Conversations,
    name: ConversationName,
    schedule_id: String,
    json: bool,
) -> anyhow::Result<()> {
    let conversation = address::text(&name);
    let cancelled = conversations
        .cancel_scheduled(name, schedule_id.as_str())
        .await?;
    let end = match cancelled.end() {
        ScheduleEnd::Cancelled => "cancelled",
        ScheduleEnd::Expired => "expired",
        ScheduleEnd::Refused => "refused",
        ScheduleEnd::Sent | ScheduleEnd::Unspecified => "over",
    };
    if json {
        return output::json(&json!({
            "conversation": conversation,
            "scheduleId": schedule_id,
            "end": end,
            "repeated": cancelled.repeated_cancel,
        }));
    }
    let before = if cancelled.repeated_cancel {
        " before"
    } else {
        ""
    };
    output::line(&format!(
        "{}  {}  {end}{before}",
        escape::line(&conversation),
        escape::line(&schedule_id),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnwire_client::proto::Activity;

    #[test]
    fn a_row_is_safe_to_print() {
        let row = row(&ScheduledActivity {
            schedule_id: "1-2\u{1b}".to_owned(),
            bot_id: "echo\n".to_owned(),
            activity: Some(Activity::message("hi\u{1b}[2J").into()),
            ..ScheduledActivity::default()
        });
        assert_eq!(row[1], "1-2\\u{1b}");
        assert_eq!(row[2], "echo\\n");
        assert_eq!(row[4], "hi\\u{1b}[2J");
        assert_eq!((row[0].as_str(), row[3].as_str()), ("", ""));
    }
}
