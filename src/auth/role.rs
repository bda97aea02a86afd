//! What a principal is allowed to be.

use std::fmt;
use std::str::FromStr;

use crate::id::{BotId, ChannelId};

/// One thing a principal is allowed to be. As text: `bot:<id>`, `channel:<id>`, `backend`,
/// `reader` or `admin`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Attaches as this bot, and sends as it.
    Bot(BotId),
    /// Brings in this channel's users.
    Channel(ChannelId),
    /// Sends on behalf of every bot, and reads everything.
    Backend,
    /// Reads everything.
    Reader,
    /// Looks after the gateway; also whatever a backend may do.
    Admin,
}

/// A text that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no role `{0}`; roles are `bot:<bot id>`, `channel:<channel id>`, `backend`, `reader` and `admin`"
)]
pub struct ParseRoleError(String);

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("bot", id)) if !id.is_empty() => Ok(Self::Bot(id.into())),
            Some(("channel", id)) if !id.is_empty() => Ok(Self::Channel(id.into())),
            None if text == "backend" => Ok(Self::Backend),
            None if text == "reader" => Ok(Self::Reader),
            None if text == "admin" => Ok(Self::Admin),
            _ => Err(ParseRoleError(text.to_owned())),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bot(id) => write!(f, "bot:{id}"),
            Self::Channel(id) => write!(f, "channel:{id}"),
            Self::Backend => f.write_str("backend"),
            Self::Reader => f.write_str("reader"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_reads_back_as_it_prints() {
        for text in ["bot:echo", "channel:webchat", "backend", "reader", "admin"] {
            assert_eq!(text.parse::<Role>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_no_roles() {
        for text in [
            "",
            "bot",
            "bot:",
            "channel:",
            "Backend",
            "backend:",
            "admin:echo",
            "root",
        ] {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
    }
}
