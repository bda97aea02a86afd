//! What an activity must be to be appended.

use prost::Message;

use super::{Kind, json, timestamp};
use crate::limits::Limits;
use crate::proto::v1::{Activity, ChannelAccount, ConversationAccount};

/// Longest id or `type`, in bytes.
pub const ID_BYTES: usize = 512;

/// Most accounts in `membersAdded`, and in `membersRemoved`.
pub const MEMBERS: usize = 1_000;

/// Longest account or conversation of a posted activity, in bytes encoded.
pub const ACCOUNT_BYTES: usize = 16 * 1024;

/// Why an activity is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A member breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The activity, or a part of it, is larger than a limit allows.
    #[error("{actual} bytes are more than the {allowed} that `{limit}` allows")]
    TooLarge {
        /// The limit's name in the configuration.
        limit: &'static str,
        /// What it allows, in bytes.
        allowed: usize,
        /// What there is, in bytes.
        actual: usize,
    },
}

/// Which member breaks which rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {problem}")]
pub struct Invalid {
    /// The member by its JSON names, as in `membersAdded[2].id`. Short, and never the sender's text.
    pub path: String,
    /// The rule.
    pub problem: Problem,
}

/// The rules that a member can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be there.
    #[error("is required")]
    Missing,
    /// It must not be the empty text.
    #[error("is empty")]
    Empty,
    /// It has more than [`ID_BYTES`].
    #[error("has {0} bytes, more than {ID_BYTES}")]
    TooLong(usize),
    /// It has a control character, such as NUL.
    #[error("has a control character")]
    ControlCharacter,
    /// It is not a point in time.
    #[error("is {0}")]
    Timestamp(#[from] timestamp::Error),
    /// It has more than [`ACCOUNT_BYTES`].
    #[error("has {0} bytes, more than {ACCOUNT_BYTES}")]
    TooLarge(usize),
    /// It has more than [`MEMBERS`].
    #[error("has {0} accounts, more than {MEMBERS}")]
    TooMany(usize),
    /// It has a wrong type, or JSON could not say it.
    #[error("{0}")]
    Shape(#[from] json::Problem),
}

impl Invalid {
    fn new(path: impl Into<String>, problem: impl Into<Problem>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
        }
    }
}

impl From<json::Misfit> for Invalid {
    fn from(misfit: json::Misfit) -> Self {
        let path = match misfit.path.as_str() {
            "" => "activity",
            path => path,
        };
        Self::new(path, misfit.problem)
    }
}

/// Checks what a channel posts: the common rules, and that it says who did what where.
///
/// What the gateway overwrites is not looked at, beyond its shape and size.
///
/// # Errors
///
/// A rule is broken, or a limit exceeded.
pub fn inbound(activity: &Activity, limits: &Limits) -> Result<(), Error> {
    shape_and_size(activity, limits)?;
    required_id("type", activity.r#type.as_deref())?;
    content(activity)?;
    if let Some(text) = &activity.id {
        id("id", text)?;
    }
    time("timestamp", activity.timestamp.as_deref())?;
    let from = activity.from.as_ref();
    required_id("from.id", from.and_then(|from| from.id.as_deref()))?;
    let conversation = activity.conversation.as_ref();
    required_id(
        "conversation.id",
        conversation.and_then(|conversation| conversation.id.as_deref()),
    )?;
    small("from", from.map_or(0, Message::encoded_len))?;
    small("conversation", conversation.map_or(0, Message::encoded_len))?;
    accounts("membersAdded", &activity.members_added)?;
    accounts("membersRemoved", &activity.members_removed)?;
    Ok(())
}

/// The size of a conversation that a channel names, as [`ACCOUNT_BYTES`] counts it.
#[must_use]
pub fn account_bytes(conversation: &ConversationAccount) -> usize {
    conversation.encoded_len()
}

/// Checks the size of an account that is kept with its conversation and becomes part of answers.
fn small(path: &str, bytes: usize) -> Result<(), Invalid> {
    if bytes > ACCOUNT_BYTES {
        return Err(Invalid::new(path, Problem::TooLarge(bytes)));
    }
    Ok(())
}

/// Checks what a bot or a backend sends: the common rules alone, since the gateway sets the rest.
///
/// # Errors
///
/// A rule is broken, or a limit exceeded.
pub fn outbound(activity: &Activity, limits: &Limits) -> Result<(), Error> {
    shape_and_size(activity, limits)?;
    if let Some(kind) = &activity.r#type {
        id("type", kind)?;
        // Which message is changed.
        if matches!(
            Kind::from(kind.as_str()),
            Kind::MessageUpdate | Kind::MessageDelete
        ) {
            required_id("id", activity.id.as_deref())?;
        }
    }
    content(activity)?;
    few("membersAdded", &activity.members_added)?;
    few("membersRemoved", &activity.members_removed)?;
    Ok(())
}

/// Checks an id: 1 to [`ID_BYTES`] bytes, no control characters.
///
/// NUL above all must not get in: it separates the parts of the store's keys.
///
/// # Errors
///
/// It is not so; the error names `path`.
pub fn id(path: &str, text: &str) -> Result<(), Invalid> {
    let problem = if text.is_empty() {
        Problem::Empty
    } else if text.len() > ID_BYTES {
        Problem::TooLong(text.len())
    } else if text.chars().any(char::is_control) {
        Problem::ControlCharacter
    } else {
        return Ok(());
    };
    Err(Invalid::new(path, problem))
}

fn required_id(path: &str, text: Option<&str>) -> Result<(), Invalid> {
    id(
        path,
        text.ok_or_else(|| Invalid::new(path, Problem::Missing))?,
    )
}

/// Nesting comes first: the sizes are computed by recursion.
fn shape_and_size(activity: &Activity, limits: &Limits) -> Result<(), Error> {
    json::check(activity).map_err(Invalid::from)?;
    let channel_data = activity.channel_data.as_ref();
    at_most(
        "channel_data_bytes",
        limits.channel_data_bytes,
        channel_data.map_or(0, Message::encoded_len),
    )?;
    at_most(
        "activity_bytes",
        limits.activity_bytes,
        activity.encoded_len(),
    )
}

fn at_most(limit: &'static str, allowed: usize, actual: usize) -> Result<(), Error> {
    if actual <= allowed {
        return Ok(());
    }
    Err(Error::TooLarge {
        limit,
        allowed,
        actual,
    })
}

/// The rules for what is carried on as it was sent, whoever sent it.
fn content(activity: &Activity) -> Result<(), Invalid> {
    let kind = activity.r#type.as_deref().map(Kind::from);
    if kind.is_some_and(|kind| kind.needs_name()) {
        match activity.name.as_deref() {
            None => return Err(Invalid::new("name", Problem::Missing)),
            Some("") => return Err(Invalid::new("name", Problem::Empty)),
            Some(_) => {}
        }
    }
    // SDKs write an empty `replyToId` for an absent one (reference, section 11).
    if let Some(text) = activity
        .reply_to_id
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        id("replyToId", text)?;
    }
    time("localTimestamp", activity.local_timestamp.as_deref())?;
    time("expiration", activity.expiration.as_deref())
}

/// Some SDKs answer 500 to a time they cannot parse, so none is let through (reference, section 6).
fn time(path: &str, text: Option<&str>) -> Result<(), Invalid> {
    match text.map(timestamp::parse) {
        Some(Err(error)) => Err(Invalid::new(path, error)),
        _ => Ok(()),
    }
}

fn accounts(path: &str, accounts: &[ChannelAccount]) -> Result<(), Invalid> {
    few(path, accounts)?;
    accounts
        .iter()
        .enumerate()
        .try_for_each(|(index, account)| {
            required_id("", account.id.as_deref())
                .map_err(|invalid| Invalid::new(format!("{path}[{index}].id"), invalid.problem))
        })
}

fn few(path: &str, accounts: &[ChannelAccount]) -> Result<(), Invalid> {
    if accounts.len() <= MEMBERS {
        return Ok(());
    }
    Err(Invalid::new(path, Problem::TooMany(accounts.len())))
}

#[cfg(test)]
mod tests;
