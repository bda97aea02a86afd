//! Which kind of activity something is.

use std::fmt;

/// Declares [`Kind`] from its table, so that the two directions cannot drift.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The kind of an activity: its `type`, compared byte for byte (A2011).
        ///
        /// Kinds that are not in the table are carried like any other (A2006), so none is lost:
        /// [`Kind::Other`] holds the text.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
            /// A kind the gateway does not know, as it was sent.
            Other(Box<str>),
        }

        impl Kind {
            /// Every kind with a name of its own.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];

            /// The `type` as it is written in an activity.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for Kind {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }
    };
}

kinds! {
    /// Content for the chat.
    Message = "message",
    /// An indicator that lives for three seconds, or a piece of a streamed reply.
    Typing = "typing",
    /// Members or topic changed.
    ConversationUpdate = "conversationUpdate",
    /// Something programmatic, by name.
    Event = "event",
    /// A request that has a response.
    Invoke = "invoke",
    /// The response to an invoke; lives inside SDKs and in `expectReplies` answers.
    InvokeResponse = "invokeResponse",
    /// The conversation is over.
    EndOfConversation = "endOfConversation",
    /// A message was replaced.
    MessageUpdate = "messageUpdate",
    /// A message was deleted.
    MessageDelete = "messageDelete",
    /// Reactions were put on a message, or taken off.
    MessageReaction = "messageReaction",
    /// The bot was added to, or removed from, a contact list.
    ContactRelationUpdate = "contactRelationUpdate",
    /// The bot was installed in, or removed from, an organisational unit.
    InstallationUpdate = "installationUpdate",
    /// A private hint to one user.
    Suggestion = "suggestion",
    /// Diagnostics, hidden from users.
    Trace = "trace",
    /// The conversation changes hands.
    Handoff = "handoff",
    /// A command to the other side, by name.
    Command = "command",
    /// What became of a command.
    CommandResult = "commandResult",
    /// The user asked to be forgotten.
    DeleteUserData = "deleteUserData",
}

impl Kind {
    /// Whether an activity of this kind means nothing without its `name` (reference, section 3).
    #[must_use]
    pub fn needs_name(&self) -> bool {
        matches!(
            self,
            Self::Event | Self::Invoke | Self::Command | Self::CommandResult
        )
    }

    /// Whether an activity of this kind is never logged: it is seen as it happens, or not at all.
    /// Pieces of streamed replies are of this kind, too.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::Typing)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_kind_reads_back_as_itself() {
        for kind in Kind::KNOWN {
            assert_eq!(&Kind::from(kind.as_str()), kind);
        }
    }

    #[test]
    fn typing_alone_is_never_logged() {
        let ephemeral: Vec<_> = Kind::KNOWN
            .iter()
            .filter(|kind| kind.is_ephemeral())
            .collect();
        assert_eq!(ephemeral, [&Kind::Typing]);
        assert!(!Kind::from("Typing").is_ephemeral());
    }

    #[test]
    fn kinds_compare_byte_for_byte() {
        assert_eq!(Kind::from("message"), Kind::Message);
        assert_eq!(Kind::from("Message"), Kind::Other("Message".into()));
        assert_ne!(Kind::from("message "), Kind::Message);
    }

    #[test]
    fn an_unknown_kind_keeps_its_text() {
        assert_eq!(Kind::from("vendor/thing").to_string(), "vendor/thing");
    }
}
