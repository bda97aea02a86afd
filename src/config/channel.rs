//! `[[channels]]`: where users are.

use std::time::Duration;

use crate::auth::secret::Digest;
use crate::channel::direct_line::Site;
use crate::config::bot::Bot;
use crate::config::direct_line;
use crate::config::file::{Table, Value};
use crate::config::limits::STREAM_INTERVAL;
use crate::config::named::Named;
use crate::id::{BotId, ChannelId};
use crate::proto::v1::ChannelCapabilities;

/// Longest service URL, in bytes.
const URL_BYTES: usize = 2_048;

/// A place where users are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id: 1 to 64 of `a-z 0-9 _ -`. Never a `:`, which separates ids in keys and roles.
    pub id: ChannelId,
    /// How it is reached.
    pub kind: Kind,
    /// The bot its conversations are routed to; registered.
    pub bot: BotId,
    /// Bots that its new conversations begin with besides; registered.
    pub also: Vec<BotId>,
    /// What it can do. Default: nothing beyond messages between one user and a bot; of a
    /// `direct_line` channel what Web Chat can.
    pub capabilities: ChannelCapabilities,
    /// How what bots say reaches its users.
    pub outbound: Outbound,
    /// The service URL its activities get when they bring none.
    pub service_url: Option<String>,
    /// How often a streamed reply is shown anew. Absent: the limit of that name.
    pub stream_interval: Option<Duration>,
    /// What a channel of kind [`Kind::DirectLine`] has besides, and no other.
    pub direct_line: Option<Site>,
}

/// How a channel is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By adapters that call `ChannelService`.
    Grpc,
    /// By clients that speak Direct Line 3.0, as Web Chat does. Its users read by watching.
    DirectLine,
}

/// How what bots say reaches a channel's users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outbound {
    /// It waits, durably, for an adapter that is attached.
    #[default]
    Queue,
    /// Users read by watching the conversation; nothing is queued.
    Watch,
}

pub(super) fn read_all(
    tables: Vec<Table<'_>>,
    bots: &Named<Bot>,
    most_bots: usize,
) -> Named<Channel> {
    let kinds = [("grpc", Kind::Grpc), ("direct_line", Kind::DirectLine)];
    let ways = [("queue", Outbound::Queue), ("watch", Outbound::Watch)];
    let mut channels = Named::new("channel");
    let mut secrets: Vec<(Digest, usize)> = Vec::new();
    for mut table in tables {
        let id = channels.claim(table.require("id"), check_id);
        let kind = table.require("kind").and_then(|value| value.choice(&kinds));
        let routed = read_bots(&mut table, bots, most_bots);
        let is_direct_line = kind == Some(Kind::DirectLine);
        let capabilities = table.take("capabilities").map(|value| {
            let all = read_capabilities(&value);
            if is_direct_line && all.create {
                value.refuse("`create` is not for this kind: conversations begin when users come");
            }
            all
        });
        let written = table.take("outbound");
        let outbound = written.as_ref().and_then(|value| value.choice(&ways));
        let service_url = table.take("service_url").and_then(|value| read_url(&value));
        let stream_interval = table
            .take("stream_interval")
            .and_then(|value| value.duration(STREAM_INTERVAL));
        let is_direct_line = kind == Some(Kind::DirectLine);
        let site = is_direct_line
            .then(|| direct_line::read(&mut table, &mut secrets))
            .flatten();
        if is_direct_line && let Some(value) = &written {
            value.refuse("is not for this kind: its users read by watching");
        }
        if !is_direct_line {
            refuse_keys_of_direct_line(&mut table);
        }
        table.finish();
        if let (Some(id), Some(kind), Some((bot, also))) = (id, kind, routed) {
            let usual = match kind {
                Kind::Grpc => (ChannelCapabilities::default(), Outbound::Queue),
                Kind::DirectLine => (what_web_chat_can(), Outbound::Watch),
            };
            channels.values.push(Channel {
                id: id.into(),
                kind,
                bot,
                also,
                capabilities: capabilities.unwrap_or(usual.0),
                outbound: outbound.unwrap_or(usual.1),
                service_url,
                stream_interval,
                direct_line: site,
            });
        }
    }
    channels
}

/// The bots that new conversations begin with: `bot`, or several in `bots`, of which the first comes first.
fn read_bots(table: &mut Table<'_>, bots: &Named<Bot>, most: usize) -> Option<(BotId, Vec<BotId>)> {
    let Some(several) = table.take("bots") else {
        let value = table.require("bot")?;
        let bot = value.text()?;
        return bots.resolve(&value, bot).then(|| (bot.into(), Vec::new()));
    };
    if let Some(one) = table.take("bot") {
        one.refuse("is said twice, with `bots`: remove one of them");
    }
    let mut routed: Vec<BotId> = Vec::new();
    for item in several.list()? {
        let bot = item.text()?;
        if !bots.resolve(&item, bot) {
            return None;
        }
        if routed.iter().any(|other| other.as_str() == bot) {
            item.refuse("is listed twice: remove one");
            return None;
        }
        routed.push(bot.into());
    }
    if routed.is_empty() || routed.len() > most {
        several.refuse(format!(
            "must have 1 to {most} bots: limit `conversation_bots`"
        ));
        return None;
    }
    let first = routed.remove(0);
    Some((first, routed))
}

/// What Web Chat shows: it has no groups, and asks nobody to create a conversation.
fn what_web_chat_can() -> ChannelCapabilities {
    ChannelCapabilities {
        update: true,
        delete: true,
        typing: true,
        streaming: true,
        ..Default::default()
    }
}

fn refuse_keys_of_direct_line(table: &mut Table<'_>) {
    for key in direct_line::KEYS {
        if let Some(value) = table.take(key) {
            value.refuse("is only for channels of kind `direct_line`");
        }
    }
}

fn check_id(value: &Value<'_>, id: &str) -> bool {
    let fine = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
    if !fine {
        value.refuse(format!(
            "`{id}` is no channel id: 1 to 64 lower-case letters, digits, `_` and `-`"
        ));
    }
    fine
}

fn read_capabilities(value: &Value<'_>) -> ChannelCapabilities {
    type Set = fn(&mut ChannelCapabilities) -> &mut bool;
    let known: [(&str, Set); 6] = [
        ("groups", |all| &mut all.groups),
        ("update", |all| &mut all.update),
        ("delete", |all| &mut all.delete),
        ("typing", |all| &mut all.typing),
        ("streaming", |all| &mut all.streaming),
        ("create", |all| &mut all.create),
    ];
    let mut all = ChannelCapabilities::default();
    for item in value.list().unwrap_or_default() {
        if let Some(of) = item.choice(&known) {
            let slot = of(&mut all);
            if *slot {
                item.refuse("is listed twice: remove one");
            }
            *slot = true;
        }
    }
    all
}

/// A service URL is opaque to the gateway; only what could not be a URI at all is refused (RFC
/// 3986, section 3.1: a scheme, then a colon).
pub(super) fn read_url(value: &Value<'_>) -> Option<String> {
    let text = value.label(URL_BYTES)?;
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let fine = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !text.contains(' ');
    if !fine {
        value.refuse(format!(
            "`{text}` is no absolute URL: write for example `https://adapter.example.org/`"
        ));
        return None;
    }
    Some(text.to_owned())
}
