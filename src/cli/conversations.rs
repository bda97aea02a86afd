//! `turnwire conversations`: lists what the gateway knows.

use tokio_stream::StreamExt;
use turnwire_client::proto::list_conversations_request::Filter;
use turnwire_client::proto::{Conversation, UserName};

use super::connection::Connection;
use super::output::Palette;
use super::{address, escape, json, output, show};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only those of a channel
    #[arg(long)]
    channel: Option<String>,
    /// Only those a bot takes part in
    #[arg(long, conflicts_with = "channel")]
    bot: Option<String>,
    /// Only those this user of --channel is or was a member of
    #[arg(long, requires = "channel")]
    user: Option<String>,
    /// Most to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

const HEADINGS: [&str; COLUMNS] = ["CONVERSATION", "USER", "BOTS", "LAST", "STARTED", "STATE"];
const COLUMNS: usize = 6;

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let limit = args.limit;
    let client = connection.open().await?;
    let listed = client.conversations().list(filter(args)).take(limit);
    let mut listed = std::pin::pin!(listed);
    let mut rows = Vec::new();
    while let Some(conversation) = listed.next().await {
        let conversation = conversation?;
        if json {
            output::json(&json::conversation(&conversation))?;
        } else {
            rows.push(row(&conversation));
        }
    }
    if json {
        return Ok(());
    }
    print(&rows)
}

fn filter(args: Args) -> Option<Filter> {
    match (args.channel, args.user, args.bot) {
        (Some(channel_id), Some(user_id), _) => Some(Filter::User(UserName {
            channel_id,
            user_id,
        })),
        (Some(channel_id), None, _) => Some(Filter::ChannelId(channel_id)),
        (None, _, bot) => bot.map(Filter::BotId),
    }
}

fn row(conversation: &Conversation) -> [String; COLUMNS] {
    let reference = conversation.reference.as_ref();
    let user = reference.and_then(|reference| reference.user.as_ref());
    let name = conversation.name.as_ref().map(address::text);
    [
        escape::line(&name.unwrap_or_default()).into_owned(),
        escape::line(user.map_or("", |user| user.id())).into_owned(),
        escape::line(&conversation.bot_ids.join(",")).into_owned(),
        conversation.last_sequence.to_string(),
        conversation
            .start_time
            .as_ref()
            .map(show::time)
            .unwrap_or_default(),
        if conversation.ended { "ended" } else { "" }.to_owned(),
    ]
}

fn print(rows: &[[String; COLUMNS]]) -> anyhow::Result<()> {
    let mut widths = HEADINGS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings = HEADINGS.map(str::to_owned);
    output::line(&Palette::of_stdout().bold(&aligned(&headings, &widths)))?;
    rows.iter()
        .try_for_each(|row| output::line(&aligned(row, &widths)))
}

fn aligned(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let cells: Vec<String> = row
        .iter()
        .zip(widths)
        .map(|(cell, &width)| format!("{cell:<width$}"))
        .collect();
    cells.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnwire_client::proto::ConversationName;

    #[test]
    fn a_row_is_safe_to_print() {
        let row = row(&Conversation {
            name: Some(ConversationName::new("dev", "c\u{1b}")),
            bot_ids: vec!["a".into(), "b".into()],
            ..Conversation::default()
        });
        assert_eq!(row[0], "dev/c\\u{1b}");
        assert_eq!(row[2], "a,b");
    }

    #[test]
    fn a_row_says_that_a_conversation_has_ended_and_nothing_while_it_goes_on() {
        for (ended, shown) in [(true, "ended"), (false, "")] {
            let row = row(&Conversation {
                ended,
                ..Conversation::default()
            });
            assert_eq!(row[5], shown);
        }
    }
}
