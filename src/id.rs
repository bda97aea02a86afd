//! Ids, positions and fences, each its own type, so that one is never taken for another.

use std::fmt;
use std::sync::Arc;

/// Declares an id that is opaque text: cheap to clone, compared byte for byte.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_id! {
    /// A channel, as configured.
    ChannelId
}
text_id! {
    /// A conversation's id on its channel.
    ConversationId
}
text_id! {
    /// A registered bot.
    BotId
}
text_id! {
    /// One attached stream of a bot instance or a channel adapter.
    SessionId
}

/// One conversation: (channel id, conversation id).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationKey {
    /// The channel.
    pub channel: ChannelId,
    /// The conversation's id on it.
    pub conversation: ConversationId,
}

impl fmt::Display for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.channel, self.conversation)
    }
}

/// A conversation's number in its store: what its records have in their keys, in place of two texts
/// that may be long. Given when it starts, and never to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationNumber(pub u64);

impl fmt::Display for ConversationNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:x}", self.0)
    }
}

/// Position in a conversation's log, from 1; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Before the first activity.
    pub const START: Self = Self(0);

    /// The position after this one; the last there can be stays.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before this one; [`Sequence::START`] stays.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A send that waits for its time: names it in its conversation, and orders those by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleId {
    /// When it is due, in milliseconds since 1970-01-01 UTC.
    pub due_ms: u64,
    /// Tells it from others that are due at the same time. Never reused, not even over restarts.
    pub number: u64,
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.due_ms, self.number)
    }
}

impl ScheduleId {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (due, number) = text.split_once('-')?;
        let id = Self {
            due_ms: u64::from_str_radix(due, 16).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        };
        (id.to_string() == text).then_some(id)
    }
}

/// One handing-over of one activity to one session. Never reused, not even over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub u64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One version of a document that a bot keeps. Made as delivery ids are, and like them never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Etag(pub u64);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Tells an earlier holder of a conversation from a later one: it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_scheduled_send_is_written_in_one_way_only() {
        let id = ScheduleId {
            due_ms: 1_767_312_345_678,
            number: 0x100_0000_0001,
        };
        assert_eq!(id.to_string(), "19b7c064a4e-10000000001");
        assert_eq!(ScheduleId::parse(&id.to_string()), Some(id));
        for other in [
            "",
            "-",
            "1",
            "1-",
            "01-1",
            "+1-1",
            "1-+1",
            "A-1",
            "1-1-1",
            "1-10000000000000000",
        ] {
            assert_eq!(ScheduleId::parse(other), None, "{other}");
        }
    }
}
