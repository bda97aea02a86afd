//! Small constructors for the activities that bots and adapters make all day.

use crate::proto::{Activity, ChannelAccount, ConversationAccount};

/// The activity type of what is said.
pub(crate) const MESSAGE: &str = "message";

impl Activity {
    /// Makes a message that says `text`.
    #[must_use]
    pub fn message(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::of_type(MESSAGE)
        }
    }

    /// Makes an empty activity of a type, for example `typing` or `event`.
    #[must_use]
    pub fn of_type(kind: impl Into<String>) -> Self {
        Self {
            r#type: Some(kind.into()),
            ..Self::default()
        }
    }

    /// Says who did this, as a channel adapter must.
    #[must_use]
    pub fn from_account(mut self, account: ChannelAccount) -> Self {
        self.from = Some(account);
        self
    }

    /// Says in which conversation of its channel this was done, as a channel adapter must.
    #[must_use]
    pub fn in_conversation(mut self, conversation_id: impl Into<String>) -> Self {
        self.conversation = Some(ConversationAccount {
            id: Some(conversation_id.into()),
            ..ConversationAccount::default()
        });
        self
    }

    /// Sets the channel's own id, which makes posting it again safe.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Whether this is a `message`.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.r#type.as_deref() == Some(MESSAGE)
    }
}

impl ChannelAccount {
    /// Makes an account that has an id and nothing else.
    #[must_use]
    pub fn with_id(id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..Self::default()
        }
    }
}
