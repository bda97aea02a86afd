//! `turnwire bots`: which bots take part in a conversation.

use anyhow::Context;
use serde_json::json;
use turnwire_client::conversations::Changed;
use turnwire_client::proto::add_bot_request::Start;
use turnwire_client::proto::{AddBotRequest, ConversationName, HandOverRequest, RemoveBotRequest};

use super::address::{self, Address};
use super::connection::Connection;
use super::{escape, json, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    change: Change,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Add a bot to a conversation
    Add(Add),
    /// Remove a bot from a conversation; what it holds there goes to nobody
    Remove(Remove),
    /// Hand a conversation over to another bot, with all that is unfinished
    Handover(Handover),
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Which conversation
    #[arg(value_name = "CHANNEL/ID")]
    conversation: Address,
    /// The bot that joins
    bot: String,
    /// Let it hear what was said after this sequence [default: only what comes from now on]
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "from_start")]
    after: Option<u64>,
    /// Let it hear all that is kept
    #[arg(long)]
    from_start: bool,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, clap::Args)]
struct Remove {
    /// Which conversation
    #[arg(value_name = "CHANNEL/ID")]
    conversation: Address,
    /// The bot that leaves
    bot: String,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, clap::Args)]
struct Handover {
    /// Which conversation
    #[arg(value_name = "CHANNEL/ID")]
    conversation: Address,
    /// The bot that takes over
    to: String,
    /// The bot that hands over [default: the only bot of the conversation]
    #[arg(long, value_name = "BOT")]
    from: Option<String>,
    /// Why, in words for the bot that takes over
    #[arg(long)]
    text: Option<String>,
    /// What the bot that takes over is to know: any JSON
    #[arg(long, value_name = "JSON")]
    value: Option<String>,
    #[command(flatten)]
    once: Once,
}

#[derive(Debug, clap::Args)]
struct Once {
    /// Makes it safe to ask again: the same id within 24 hours gives the first result
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    match args.change {
        Change::Add(args) => add(args, connection, json).await,
        Change::Remove(args) => remove(args, connection, json).await,
        Change::Handover(args) => hand_over(args, connection, json).await,
    }
}

async fn add(args: Add, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let conversation = args.conversation.0;
    let after = args.after.or(args.from_start.then_some(0));
    let request = AddBotRequest {
        request_id: args.once.request_id.unwrap_or_default(),
        conversation: Some(conversation.clone()),
        bot_id: args.bot.clone(),
        start: after.map(Start::AfterSequence),
    };
    let conversations = connection.open().await?.conversations();
    let added = conversations.add_bot_request(request).await?;
    let already = format!("`{}` takes part already", args.bot);
    print(&conversation, &added, &already, json)
}

async fn remove(args: Remove, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let conversation = args.conversation.0;
    let request = RemoveBotRequest {
        request_id: args.once.request_id.unwrap_or_default(),
        conversation: Some(conversation.clone()),
        bot_id: args.bot.clone(),
    };
    let conversations = connection.open().await?.conversations();
    let removed = conversations.remove_bot_request(request).await?;
    let already = format!("`{}` does not take part", args.bot);
    print(&conversation, &removed, &already, json)
}

async fn hand_over(args: Handover, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let conversation = args.conversation.0;
    let request = HandOverRequest {
        request_id: args.once.request_id.unwrap_or_default(),
        conversation: Some(conversation.clone()),
        from_bot_id: args.from.unwrap_or_default(),
        to_bot_id: args.to,
        text: args.text.unwrap_or_default(),
        value: args.value.as_deref().map(value).transpose()?,
    };
    let conversations = connection.open().await?.conversations();
    let handed = conversations.hand_over_request(request).await?;
    print(&conversation, &handed, "it was so already", json)
}

/// Any JSON, as an activity's `value` has it.
fn value(text: &str) -> anyhow::Result<prost_types::Value> {
    let value: serde_json::Value = serde_json::from_str(text).context("`--value` is no JSON")?;
    let activity = json::decode(json!({ "value": value }).to_string().as_bytes())?;
    activity
        .value
        .context("`--value` has nothing in it: leave it out")
}

fn print(
    conversation: &ConversationName,
    changed: &Changed,
    already: &str,
    json: bool,
) -> anyhow::Result<()> {
    let conversation = address::text(conversation);
    let appended = changed.appended.as_ref();
    if json {
        return output::json(&json!({
            "conversation": conversation,
            "activityId": appended.map(|appended| &appended.activity_id),
            "sequence": appended.map(|appended| appended.sequence),
            "unchanged": changed.unchanged,
        }));
    }
    output::line(&line(&conversation, changed, already))
}

fn line(conversation: &str, changed: &Changed, already: &str) -> String {
    let conversation = escape::line(conversation);
    match (&changed.appended, changed.unchanged) {
        (None, _) => format!("{conversation}  ({})", escape::line(already)),
        (Some(appended), unchanged) => format!(
            "{conversation}  {}  {}{}",
            appended.sequence,
            escape::line(&appended.activity_id),
            if unchanged { " (was done before)" } else { "" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnwire_client::proto::Appended;

    #[test]
    fn a_value_is_any_json_and_nothing_else() {
        for good in ["17", "\"ticket\"", "{\"a\": [1, true]}"] {
            assert!(value(good).is_ok(), "{good}");
        }
        for bad in ["", "ticket", "{", "1}, \"text\": \"x\""] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_printed_is_safe_and_says_when_nothing_changed() {
        let appended = Appended {
            activity_id: "c\u{1b}|members-0000005".into(),
            sequence: 5,
        };
        let changed = |appended, unchanged| Changed {
            appended,
            unchanged,
        };
        let told = changed(Some(appended.clone()), false);
        assert_eq!(
            line("dev/c-1", &told, ""),
            "dev/c-1  5  c\\u{1b}|members-0000005"
        );
        let again = changed(Some(appended), true);
        assert!(line("dev/c-1", &again, "").ends_with(" (was done before)"));
        let already = changed(None, true);
        assert_eq!(
            line("dev/c-1", &already, "`x` takes part already"),
            "dev/c-1  (`x` takes part already)"
        );
    }
}
