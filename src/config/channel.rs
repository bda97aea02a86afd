//! `[[channels]]`: where users are.

use crate::config::bot::Bot;
use crate::config::file::{Table, Value};
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
    /// What it can do. Default: nothing beyond messages between one user and a bot.
    pub capabilities: ChannelCapabilities,
    /// How what bots say reaches its users.
    pub outbound: Outbound,
    /// The service URL its activities get when they bring none.
    pub service_url: Option<String>,
}

/// How a channel is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By adapters that call `ChannelService`.
    Grpc,
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

pub(super) fn read_all(tables: Vec<Table<'_>>, bots: &Named<Bot>) -> Named<Channel> {
    let kinds = [("grpc", Kind::Grpc)];
    let ways = [("queue", Outbound::Queue), ("watch", Outbound::Watch)];
    let mut channels = Named::new("channel");
    for mut table in tables {
        let id = channels.claim(table.require("id"), check_id);
        let kind = table.require("kind").and_then(|value| value.choice(&kinds));
        let bot = table.require("bot").and_then(|value| {
            let bot = value.text()?;
            bots.resolve(&value, bot).then_some(bot)
        });
        let capabilities = table
            .take("capabilities")
            .map(|value| read_capabilities(&value));
        let outbound = table.take("outbound").and_then(|value| value.choice(&ways));
        let service_url = table.take("service_url").and_then(|value| read_url(&value));
        table.finish();
        if let (Some(id), Some(kind), Some(bot)) = (id, kind, bot) {
            channels.values.push(Channel {
                id: id.into(),
                kind,
                bot: bot.into(),
                capabilities: capabilities.unwrap_or_default(),
                outbound: outbound.unwrap_or_default(),
                service_url,
            });
        }
    }
    channels
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
fn read_url(value: &Value<'_>) -> Option<String> {
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
