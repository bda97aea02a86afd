//! `turnwire export`: conversations as transcript files.

mod file;
mod name;

use std::path::{Path, PathBuf};
use std::pin::pin;

use serde_json::{Map, Value, json};
use tokio_stream::StreamExt;
use turnwire_client::conversations::Conversations;
use turnwire_client::proto::list_conversations_request::Filter;
use turnwire_client::proto::{Author, ConversationName, LogEntry, ReadOrder, UserName};

use super::address::{self, Address};
use super::connection::Connection;
use super::exit::Usage;
use super::{escape, json, output};
use file::{New, Sink};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which conversation [default: all of them, to a folder]
    #[arg(value_name = "CHANNEL/ID", conflicts_with_all = ["channel", "bot", "user"])]
    conversation: Option<Address>,
    /// All those of a channel
    #[arg(long)]
    channel: Option<String>,
    /// All those a bot takes part in
    #[arg(long, conflicts_with = "channel")]
    bot: Option<String>,
    /// All those this user of --channel is or was a member of
    #[arg(long, requires = "channel")]
    user: Option<String>,
    /// Where to: a new file for one conversation [default: stdout], or a new folder for several
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Reads page by page and writes as it reads, so that the size of a conversation is of no matter.
pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let filter = match (args.channel, args.user, args.bot) {
        (Some(channel_id), Some(user_id), _) => Some(Filter::User(UserName {
            channel_id,
            user_id,
        })),
        (Some(channel_id), None, _) => Some(Filter::ChannelId(channel_id)),
        (None, _, bot) => bot.map(Filter::BotId),
    };
    let one = args.conversation.map(|address| address.0);
    match (one, args.out) {
        (Some(one), None) => {
            let conversations = connection.open().await?.conversations();
            write(&conversations, &one, &mut Sink::Stdout).await?;
            Ok(())
        }
        (Some(one), Some(out)) => {
            let conversations = connection.open().await?.conversations();
            let activities = to_file(&conversations, &one, &out).await?;
            told(&one, &out, activities, json)
        }
        (None, Some(out)) => {
            let conversations = connection.open().await?.conversations();
            to_folder(&conversations, filter, &out, json).await
        }
        (None, None) => {
            let wanted = "name one conversation, or a new folder with `--out` for several";
            Err(Usage(wanted.to_owned()).into())
        }
    }
}

async fn to_folder(
    conversations: &Conversations,
    filter: Option<Filter>,
    out: &Path,
    json: bool,
) -> anyhow::Result<()> {
    file::make_folder(out)?;
    let mut listed = pin!(conversations.list(filter));
    let mut count = 0_u64;
    while let Some(conversation) = listed.next().await {
        let Some(name) = conversation?.name else {
            continue;
        };
        let folder = out.join(name::safe(&name.channel_id));
        file::make_folder_in(&folder)?;
        let path = folder.join(format!("{}.transcript", name::safe(&name.conversation_id)));
        let activities = to_file(conversations, &name, &path).await?;
        if json {
            told(&name, &path, activities, json)?;
        }
        count += 1;
    }
    if json {
        return Ok(());
    }
    let out = out.display().to_string();
    output::line(&format!(
        "exported {count} conversations to {}",
        escape::line(&out)
    ))
}

async fn to_file(
    conversations: &Conversations,
    name: &ConversationName,
    path: &Path,
) -> anyhow::Result<u64> {
    let mut sink = Sink::File(New::create(path)?);
    let activities = write(conversations, name, &mut sink).await?;
    if let Sink::File(new) = sink {
        new.publish()?;
    }
    Ok(activities)
}

fn told(name: &ConversationName, path: &Path, activities: u64, json: bool) -> anyhow::Result<()> {
    let (name, path) = (address::text(name), path.display().to_string());
    if json {
        return output::json(&json!({
            "conversation": name,
            "file": path,
            "activities": activities,
        }));
    }
    output::line(&format!(
        "exported {activities} activities of {} to {}",
        escape::line(&name),
        escape::line(&path)
    ))
}

/// Writes a conversation as an array of its activities, the oldest first: what the Bot Framework
/// Emulator saves and opens as a `.transcript`. (The format's description also has an object around it,
/// which the Emulator does not open: microsoft/BotFramework-Emulator, issue 2319.)
async fn write(
    conversations: &Conversations,
    name: &ConversationName,
    sink: &mut Sink,
) -> anyhow::Result<u64> {
    let mut entries = pin!(conversations.activities(name.clone(), ReadOrder::OldestFirst));
    let mut count = 0_u64;
    let mut before = "[\n";
    while let Some(entry) = entries.next().await {
        let activity = transcribed(&entry?).to_string();
        sink.write(&format!("{before}{}", escape::json(&activity)))?;
        before = ",\n";
        count += 1;
    }
    // Of a conversation whose activities are no longer kept nothing is left but its brackets.
    sink.write(if count == 0 { "[]\n" } else { "\n]\n" })?;
    Ok(count)
}

/// An activity as transcripts have it: who opens one tells users and bots apart by their roles, and
/// shows nothing that has no recipient (the same issue). What is missing of that is added.
fn transcribed(entry: &LogEntry) -> Value {
    let mut activity = entry
        .activity
        .as_deref()
        .map_or_else(|| Value::Object(Map::new()), json::encode);
    let (from, recipient) = match entry.author() {
        Author::Bot | Author::Backend => ("bot", "user"),
        Author::Channel | Author::Unspecified => ("user", "bot"),
    };
    if let Value::Object(members) = &mut activity {
        for (name, role) in [("from", from), ("recipient", recipient)] {
            let account = members.entry(name).or_insert_with(|| json!({}));
            if let Value::Object(account) = account {
                account.entry("role").or_insert_with(|| role.into());
            }
        }
    }
    activity
}

#[cfg(test)]
mod tests {
    use turnwire_client::proto::{Activity, ChannelAccount};

    use super::*;

    fn entry(author: Author, from: Option<ChannelAccount>) -> LogEntry {
        let activity = Activity {
            r#type: Some("message".to_owned()),
            from,
            ..Activity::default()
        };
        LogEntry {
            author: author.into(),
            activity: Some(activity.into()),
            ..LogEntry::default()
        }
    }

    #[test]
    fn everyone_in_a_transcript_has_a_role() {
        let erased = transcribed(&entry(Author::Channel, None));
        let expected = json!({
            "type": "message", "from": {"role": "user"}, "recipient": {"role": "bot"},
        });
        assert_eq!(erased, expected);
        let skill = ChannelAccount {
            id: Some("echo".to_owned()),
            role: Some("skill".to_owned()),
            ..ChannelAccount::default()
        };
        let said = transcribed(&entry(Author::Backend, Some(skill)));
        assert_eq!(said["from"], json!({"id": "echo", "role": "skill"}));
        assert_eq!(said["recipient"], json!({"role": "user"}));
    }
}
