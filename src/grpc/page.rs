//! Page sizes and page tokens. A token is opaque to callers: the place of the last item, in base64.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::engine::ListPosition;
use crate::id::{ConversationKey, ScheduleId, Sequence};
use crate::status::Failure;

/// Items of a page when the caller does not say.
const USUAL: usize = 100;

/// The size of a page, from what was asked for and the limit.
pub(super) fn size(asked: i32, limit: usize) -> Result<usize, Failure> {
    match usize::try_from(asked) {
        Ok(0) => Ok(USUAL.min(limit)),
        Ok(asked) => Ok(asked.min(limit)),
        Err(_) => Err(Failure::RequestInvalid {
            field: "page_size",
            problem: "must not be negative".to_owned(),
        }),
    }
}

/// What is left of a page's bytes. The first item is taken whatever its size.
pub(super) struct Room {
    bytes: usize,
    is_empty: bool,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            is_empty: true,
        }
    }

    /// Whether an item of `bytes` still fits.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.is_empty || bytes <= self.bytes;
        self.is_empty = false;
        self.bytes = self.bytes.saturating_sub(bytes);
        fits
    }
}

/// What a page token says.
pub(super) trait Token: Sized {
    fn to_text(&self) -> String;
    fn from_text(text: &str) -> Option<Self>;
}

/// The token of the page after `last`.
pub(super) fn token(last: &impl Token) -> String {
    URL_SAFE_NO_PAD.encode(last.to_text())
}

/// Reads a page token; `None` for the first page.
pub(super) fn after<T: Token>(token: &str) -> Result<Option<T>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let after = text.and_then(|text| T::from_text(&text));
    after.map(Some).ok_or_else(|| Failure::RequestInvalid {
        field: "page_token",
        problem: "is not one that this gateway gave".to_owned(),
    })
}

impl Token for Sequence {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl Token for ScheduleId {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// A place in the store, which may be any bytes: in hexadecimal digits.
impl Token for Vec<u8> {
    fn to_text(&self) -> String {
        self.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_text(text: &str) -> Option<Self> {
        let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        (0..text.len()).step_by(2).map(pair).collect()
    }
}

impl Token for String {
    fn to_text(&self) -> String {
        self.clone()
    }

    fn from_text(text: &str) -> Option<Self> {
        // Ids are parts of keys, where NUL ends a part.
        (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
    }
}

impl Token for ListPosition {
    fn to_text(&self) -> String {
        let ConversationKey {
            channel,
            conversation,
        } = &self.conversation;
        format!("{}\0{channel}\0{conversation}", self.start.0)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split('\0');
        let (start, channel, conversation) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            start: Timestamp(start.parse().ok()?),
            conversation: ConversationKey {
                channel: channel.into(),
                conversation: conversation.into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were_and_others_are_refused() {
        let position = ListPosition {
            start: Timestamp(17),
            conversation: ConversationKey {
                channel: "web".into(),
                conversation: "a|b".into(),
            },
        };
        assert_eq!(after(&token(&position)).unwrap(), Some(position));
        assert_eq!(after(&token(&Sequence(9))).unwrap(), Some(Sequence(9)));
        assert_eq!(after::<Sequence>("").unwrap(), None);
        for forged in ["!", "x", &token(&"no number".to_owned())] {
            assert!(after::<Sequence>(forged).is_err(), "{forged}");
            assert!(after::<ListPosition>(forged).is_err(), "{forged}");
        }
    }

    #[test]
    fn sizes_are_cut_to_the_limit_and_negative_ones_refused() {
        assert_eq!(size(0, 1_000).unwrap(), 100);
        assert_eq!(size(5_000, 1_000).unwrap(), 1_000);
        assert!(size(-1, 1_000).is_err());
    }
}
