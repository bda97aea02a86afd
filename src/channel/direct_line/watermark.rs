//! Watermarks: how a client says how far it has seen a conversation.

use std::fmt;

use crate::engine::Start;
use crate::id::Sequence;

/// The position of the newest activity that a client was given. Opaque text to clients; ours is the
/// sequence in digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark(pub Sequence);

impl Watermark {
    /// Reads one. Clients also send `null`, `undefined`, `-` and nothing at all where they have none
    /// (reference, section 2.5): those are none.
    #[must_use]
    pub(super) fn read(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| Self(Sequence(text.parse().unwrap_or(u64::MAX))))
    }

    /// From where on a client wants a conversation: after its watermark; from the start when it sends
    /// one that says nothing, since it was cut before its first frame, or is a page that was loaded
    /// again; only what is new when it sends none (reference, section 9).
    #[must_use]
    pub(super) fn start(text: Option<&str>) -> Start {
        match text {
            None => Start::End,
            Some(text) => Start::After(Self::read(text).map_or(Sequence::START, |mark| mark.0)),
        }
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_reads_back_as_it_prints() {
        let mark = Watermark(Sequence(42));
        assert_eq!(Watermark::read(&mark.to_string()), Some(mark));
    }

    #[test]
    fn what_is_no_watermark_is_none() {
        for text in [
            "",
            "null",
            "undefined",
            "-",
            "-1",
            "+1",
            "1.5",
            "0000a-42",
            " 1",
        ] {
            assert_eq!(Watermark::read(text), None, "{text}");
            assert_eq!(Watermark::start(Some(text)), Start::After(Sequence::START));
        }
        assert_eq!(Watermark::start(None), Start::End);
    }

    #[test]
    fn one_beyond_all_sequences_is_the_last() {
        let text = "9".repeat(40);
        assert_eq!(Watermark::read(&text), Some(Watermark(Sequence(u64::MAX))));
    }
}
