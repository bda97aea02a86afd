//! `turnwire send`: speaks first, on behalf of a bot.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use turnwire_client::conversations::{Conversations, Scheduled, Sending, Sent};
use turnwire_client::proto::{
    Activity, ConversationName, ListConversationsRequest, Receipt, ReceiptState,
    SendActivityRequest, UserTarget, list_conversations_request::Filter,
    send_activity_request::Target,
};

use super::address::{self, Address};
use super::connection::Connection;
use super::exit::Usage;
use super::when::{self, When};
use super::{escape, json, output, show};
use crate::clock::{self, Clock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to say
    #[arg(required_unless_present = "activity")]
    text: Option<String>,
    /// Where to: CHANNEL/ID, or the ID alone with --channel [default: the newest conversation]
    #[arg(long, value_name = "CHANNEL/ID")]
    conversation: Option<String>,
    /// Whom to: this user of --channel, in the conversation that started last and has not ended
    #[arg(long, requires = "channel", conflicts_with = "conversation")]
    user: Option<String>,
    /// The channel of --conversation or --user, or of which to take the newest conversation
    #[arg(long)]
    channel: Option<String>,
    /// The bot that speaks [default: the only bot of the conversation]
    #[arg(long, value_name = "BOT")]
    bot: Option<String>,
    /// Send it at this time, as `2026-11-24T09:00:00+01:00`, or so long from now, as `10m`; the gateway
    /// keeps it until then
    #[arg(long, value_name = "WHEN")]
    at: Option<When>,
    /// Drop it if it could not be sent until this time, or so long after --at
    #[arg(long, value_name = "WHEN")]
    expire: Option<When>,
    /// Makes it safe to send again: the same id within 24 hours is sent once. With --at and --expire give
    /// times, since `10m` is another one each time
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Wait for what the channel makes of it, 30 seconds at most; ends with 1 if it will not take it
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with = "at",
        default_missing_value = "30",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    wait: Option<u16>,
    /// Send the activity in this JSON file, or on stdin for `-`; TEXT replaces its text
    #[arg(long, value_name = "FILE")]
    activity: Option<PathBuf>,
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let activity = activity(&args)?;
    let now = clock::System.now();
    let at = args.at.map(|at| at.from(now));
    let expire = args.expire.map(|expire| expire.from(at.unwrap_or(now)));
    let named = named(args.conversation.as_deref(), args.channel.as_deref())?;
    let client = connection.open().await?;
    let conversations = client.conversations();
    let target = match (named, args.user, args.channel) {
        (Some(conversation), ..) => Target::from(conversation),
        (None, Some(user), Some(channel)) => UserTarget::new(channel, user).into(),
        (None, _, channel) => newest(&conversations, channel).await?.into(),
    };
    let request = SendActivityRequest {
        request_id: args.request_id.unwrap_or_default(),
        target: Some(target),
        bot_id: args.bot.unwrap_or_default(),
        activity: Some(activity.into()),
        deliver_at: at.map(when::to_proto),
        expire_at: expire.map(when::to_proto),
        wait_for_delivery: args.wait.map(|seconds| prost_types::Duration {
            seconds: seconds.into(),
            nanos: 0,
        }),
    };
    match conversations.send_request(request).await? {
        Sending::Now(sent) => print_sent(&sent, json),
        Sending::Later(scheduled) => print_scheduled(&scheduled, at, json),
    }
}

fn print_sent(sent: &Sent, json: bool) -> anyhow::Result<()> {
    let conversation = address::text(&sent.conversation);
    if json {
        let mut said = json!({
            "conversation": conversation,
            "activityId": sent.appended.activity_id,
            "sequence": sent.appended.sequence,
            "repeated": sent.repeated,
        });
        if let Some(receipt) = &sent.receipt {
            said["receipt"] = json::receipt(receipt);
        }
        output::json(&said)?;
        return failed(sent.receipt.as_ref());
    }
    let again = if sent.repeated {
        " (was sent before)"
    } else {
        ""
    };
    let receipt = sent.receipt.as_ref().map(show::receipt);
    let receipt = receipt.map(|receipt| format!("  {receipt}"));
    output::line(&format!(
        "{}  {}  {}{again}{}",
        escape::line(&conversation),
        sent.appended.sequence,
        escape::line(&sent.appended.activity_id),
        receipt.unwrap_or_default(),
    ))?;
    failed(sent.receipt.as_ref())
}

/// What the channel will never take is a failure, although it was sent.
fn failed(receipt: Option<&Receipt>) -> anyhow::Result<()> {
    let failed = receipt.is_some_and(|receipt| receipt.state() == ReceiptState::Failed);
    anyhow::ensure!(!failed, "the channel will not take it");
    Ok(())
}

fn print_scheduled(scheduled: &Scheduled, at: Option<Timestamp>, json: bool) -> anyhow::Result<()> {
    let conversation = address::text(&scheduled.conversation);
    let at = at.map(when::to_proto).as_ref().map(show::time);
    if json {
        return output::json(&json!({
            "conversation": conversation,
            "scheduleId": scheduled.schedule_id,
            "deliverAt": at,
            "repeated": scheduled.repeated,
        }));
    }
    let again = if scheduled.repeated {
        " (was scheduled before)"
    } else {
        ""
    };
    output::line(&format!(
        "{}  {}  {}{again}",
        escape::line(&conversation),
        at.unwrap_or_default(),
        escape::line(&scheduled.schedule_id),
    ))
}

fn activity(args: &Args) -> anyhow::Result<Activity> {
    let mut activity = match args.activity.as_deref() {
        Some(path) => read(path)?,
        None => Activity::of_type("message"),
    };
    if let Some(text) = &args.text {
        activity.text = Some(text.clone());
    }
    Ok(activity)
}

fn read(path: &Path) -> anyhow::Result<Activity> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_end(&mut text)
            .context("cannot read stdin")?;
    } else {
        text = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    }
    json::decode(&text).with_context(|| format!("`{}` holds no activity", path.display()))
}

/// The conversation that the flags name, if they name one.
pub(super) fn named(
    conversation: Option<&str>,
    channel: Option<&str>,
) -> Result<Option<ConversationName>, Usage> {
    match (conversation, channel) {
        (None, _) => Ok(None),
        (Some(conversation), Some(channel)) => {
            Ok(Some(ConversationName::new(channel, conversation)))
        }
        (Some(conversation), None) => {
            let address: Result<Address, String> = conversation.parse();
            address
                .map(|address| Some(address.0))
                .map_err(|error| Usage(format!("--conversation `{conversation}`: {error}")))
        }
    }
}

/// The conversation that started last, of a channel if one is given.
pub(super) async fn newest(
    conversations: &Conversations,
    channel: Option<String>,
) -> anyhow::Result<ConversationName> {
    let request = ListConversationsRequest {
        filter: channel.map(Filter::ChannelId),
        page_size: 1,
        page_token: String::new(),
    };
    let page = conversations.list_page(request).await?;
    let newest = page.conversations.into_iter().next();
    newest
        .and_then(|newest| newest.name)
        .context("there is no conversation yet; begin one with `turnwire chat`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_named_whole_or_by_its_channel() {
        let name = Some(ConversationName::new("dev", "c/1"));
        assert_eq!(named(Some("dev/c/1"), None).ok(), Some(name.clone()));
        assert_eq!(named(Some("c/1"), Some("dev")).ok(), Some(name));
        assert_eq!(named(None, Some("dev")).ok(), Some(None));
        assert!(named(Some("c-1"), None).is_err());
    }
}
