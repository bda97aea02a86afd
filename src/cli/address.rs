//! Conversations as they are written on the command line.

use std::str::FromStr;

use turnwire_client::proto::ConversationName;

/// A conversation, written `CHANNEL/ID`.
///
/// A channel's id holds no slash, so the first one ends it, and the conversation's id may hold
/// any number of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address(pub(super) ConversationName);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((channel, conversation)) if !channel.is_empty() && !conversation.is_empty() => {
                Ok(Self(ConversationName::new(channel, conversation)))
            }
            _ => Err("expected CHANNEL/ID, for example `dev/c-1`".to_owned()),
        }
    }
}

/// A conversation as [`Address`] reads it. Not yet safe to print.
pub(super) fn text(name: &ConversationName) -> String {
    format!("{}/{}", name.channel_id, name.conversation_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_slash_ends_the_channel() {
        assert_eq!(
            "dev/a/b".parse(),
            Ok(Address(ConversationName::new("dev", "a/b")))
        );
    }

    #[test]
    fn an_address_has_both_parts() {
        for text in ["", "dev", "dev/", "/c-1", "/"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_given_again() {
        let name = ConversationName::new("dev", "19:x@thread/1");
        assert_eq!(text(&name).parse(), Ok(Address(name)));
    }
}
