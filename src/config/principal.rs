//! `[[principals]]`: who may call, and what as.

use crate::auth::secret::Digest;
use crate::auth::{Credentials, Role};
use crate::config::bot::Bot;
use crate::config::channel::Channel;
use crate::config::file::{Table, Value};
use crate::config::named::{LABEL_BYTES, Named};

/// The old token and the new one, while it is being replaced.
const TOKENS: usize = 2;

pub(super) fn read_all(
    tables: Vec<Table<'_>>,
    bots: &Named<Bot>,
    channels: &Named<Channel>,
) -> Vec<Credentials> {
    let mut principals = Named::new("principal");
    let mut tokens: Vec<(Digest, usize)> = Vec::new();
    for mut table in tables {
        let name = principals.claim(table.require("name"), |value, _| {
            value.label(LABEL_BYTES).is_some()
        });
        let digests = table
            .require("token_sha256")
            .map(|value| read_digests(value, &mut tokens));
        let roles = table
            .require("roles")
            .map(|value| read_roles(&value, bots, channels));
        table.finish();
        if let (Some(name), Some(token_digests), Some(roles)) = (name, digests, roles) {
            principals.values.push(Credentials {
                name: name.to_owned(),
                token_digests,
                roles,
            });
        }
    }
    principals.values
}

/// Reads one digest or two; `seen` are those of the whole file. Never repeats what was written:
/// someone may have put the token itself here.
fn read_digests(value: Value<'_>, seen: &mut Vec<(Digest, usize)>) -> Vec<Digest> {
    let mut digests = Vec::new();
    let count = value.list_len();
    if count.is_some_and(|count| !(1..=TOKENS).contains(&count)) {
        value.refuse("must be one SHA-256, or a list of 1 to 2");
    }
    for item in value.one_or_several() {
        let Some(text) = item.text() else { continue };
        let Some(digest) = Digest::from_hex(text) else {
            item.refuse("must be the SHA-256 of a token, as 64 hexadecimal digits");
            continue;
        };
        match seen.iter().find(|(known, _)| *known == digest) {
            Some((_, line)) => item.refuse(format!(
                "is the same token as on line {line}: give each principal its own"
            )),
            None => seen.push((digest, item.line())),
        }
        digests.push(digest);
    }
    digests
}

fn read_roles(value: &Value<'_>, bots: &Named<Bot>, channels: &Named<Channel>) -> Vec<Role> {
    let Some(items) = value.list() else {
        return Vec::new();
    };
    if items.is_empty() {
        value.refuse("must not be empty: a principal without roles may do nothing");
    }
    let mut roles = Vec::new();
    for item in items {
        let Some(text) = item.text() else { continue };
        let role = match text.parse::<Role>() {
            Ok(role) => role,
            Err(error) => {
                item.refuse(error.to_string());
                continue;
            }
        };
        let known = match &role {
            Role::Bot(bot) => bots.resolve(&item, bot.as_str()),
            Role::Channel(channel) => channels.resolve(&item, channel.as_str()),
            Role::Backend | Role::Reader | Role::Admin => true,
        };
        if known && roles.contains(&role) {
            item.refuse("is listed twice: remove one");
        }
        roles.push(role);
    }
    roles
}
