//! What a channel of kind `direct_line` has besides: secrets, trusted origins, tokens.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::auth::secret::Digest;
use crate::channel::direct_line::{Origins, Site};
use crate::config::channel::read_url;
use crate::config::file::{Table, Value};

/// The old secret and the new one, while it is being replaced.
const SECRETS: usize = 2;
/// Most origins of a list.
const ORIGINS: usize = 1_000;
const TOKEN_LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);
/// The documented 1,800 seconds (reference, section 1).
const USUAL_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Keys that only a channel of this kind may have.
pub(super) const KEYS: [&str; 5] = [
    "secrets_sha256",
    "trusted_origins",
    "token_lifetime",
    "enhanced_authentication",
    "public_url",
];

/// Reads them; `seen` are the secrets of the whole file.
pub(super) fn read(table: &mut Table<'_>, seen: &mut Vec<(Digest, usize)>) -> Option<Site> {
    let secrets = table
        .require("secrets_sha256")
        .map(|value| read_secrets(value, seen));
    let origins = table
        .take("trusted_origins")
        .map(|value| read_origins(&value));
    let token_lifetime = table
        .take("token_lifetime")
        .and_then(|value| value.duration(TOKEN_LIFETIME));
    let enhanced = table
        .take("enhanced_authentication")
        .and_then(|value| value.flag());
    let public_url = table
        .take("public_url")
        .and_then(|value| read_public_url(&value));
    Some(Site {
        secrets: secrets?,
        origins: origins.unwrap_or_default(),
        token_lifetime: token_lifetime.unwrap_or(USUAL_TOKEN_LIFETIME),
        enhanced_authentication: enhanced.unwrap_or_default(),
        public_url,
    })
}

/// Never repeats what was written: someone may have put the secret itself here.
fn read_secrets(value: Value<'_>, seen: &mut Vec<(Digest, usize)>) -> Vec<Digest> {
    let count = value.list_len();
    if count.is_some_and(|count| !(1..=SECRETS).contains(&count)) {
        value.refuse("must be one SHA-256, or a list of 1 to 2");
    }
    let mut secrets = Vec::new();
    for item in value.one_or_several() {
        let Some(text) = item.text() else { continue };
        let Some(digest) = Digest::from_hex(text) else {
            item.refuse("must be the SHA-256 of a secret, as 64 hexadecimal digits");
            continue;
        };
        match seen.iter().find(|(known, _)| *known == digest) {
            Some((_, line)) => item.refuse(format!(
                "is the same secret as on line {line}: it would not say which channel is meant"
            )),
            None => seen.push((digest, item.line())),
        }
        secrets.push(digest);
    }
    secrets
}

fn read_origins(value: &Value<'_>) -> Origins {
    let mut origins = Origins::default();
    let items = value.list().unwrap_or_default();
    if items.is_empty() {
        value.refuse("must not be empty: leave it out to trust every page, or name those that are");
    }
    if items.len() > ORIGINS {
        value.refuse(format!("must have at most {ORIGINS}"));
    }
    for item in items {
        let Some(text) = item.text() else { continue };
        if !origins.trust(text) {
            item.refuse(format!(
                "`{text}` is no origin: write scheme, host and, if it is not the usual one, port, \
                 such as `https://www.example.org` or `http://localhost:*`"
            ));
        }
    }
    origins
}

/// Clients are sent there, so it must be one that they can use.
fn read_public_url(value: &Value<'_>) -> Option<String> {
    let url = read_url(value)?;
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['?', '#'])) {
        value.refuse(format!(
            "`{url}` is no URL of this gateway: write for example `https://chat.example.org`"
        ));
        return None;
    }
    Some(url.trim_end_matches('/').to_owned())
}
