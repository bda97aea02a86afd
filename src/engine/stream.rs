//! A streamed reply while it is made: what its text is so far, and when it is shown again.
//!
//! Pure: it is told what came and when. The shard that owns the conversation keeps it, shows it and
//! ends it: see `shard/stream`.

mod room;

use std::sync::Arc;
use std::time::Duration;

use crate::activity::streaminfo::{Part, StreamInfo};
use crate::activity::validate;
use crate::clock::Timestamp;
use crate::limits::Limits;
use crate::proto::v1;

pub(crate) use room::{TextRoom, Texts};

/// What ends the text of a reply that broke off.
const ELLIPSIS: char = '…';

/// A piece of a reply.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Goes to the end of the text.
    Append(String),
    /// Takes the place of the text.
    Replace(String),
    /// A status line until there is text again.
    Informative(String),
}

/// Shows what may be logged: never what was said.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Append(_) => "Append",
            Self::Replace(_) => "Replace",
            Self::Informative(_) => "Informative",
        };
        write!(f, "{name}({} bytes)", self.len())
    }
}

impl Piece {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        let (Self::Append(text) | Self::Replace(text) | Self::Informative(text)) = self;
        text.len()
    }

    /// Refuses a piece that is longer than any reply.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), validate::Error> {
        fits(self.len(), limits)
    }
}

fn fits(bytes: usize, limits: &Limits) -> Result<(), validate::Error> {
    let allowed = limits.activity_bytes;
    if bytes > allowed {
        return Err(validate::Error::TooLarge {
            limit: "activity_bytes",
            allowed,
            actual: bytes,
        });
    }
    Ok(())
}

/// A reply that is being made.
#[derive(Debug)]
pub(crate) struct Stream {
    id: Arc<str>,
    text: String,
    /// The status line, while it is newer than the text.
    status: Option<String>,
    /// Snapshots that were taken.
    sequence: u32,
    /// When the last one was.
    shown: Timestamp,
    /// There is something that was not shown.
    changed: bool,
    /// A piece is missing: what is appended makes no sense.
    is_broken: bool,
    /// Nothing of it is shown any more.
    is_stopped: bool,
}

impl Stream {
    /// A reply that has no text yet. Its first snapshot is the activity `id`.
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            text: String::new(),
            status: None,
            sequence: 0,
            shown: Timestamp::default(),
            changed: false,
            is_broken: false,
            is_stopped: false,
        }
    }

    /// What clients know it by.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What it would take with a piece.
    ///
    /// # Errors
    ///
    /// The text would be larger than an activity.
    pub(crate) fn bytes_with(
        &self,
        piece: &Piece,
        limits: &Limits,
    ) -> Result<usize, validate::Error> {
        let bytes = match piece {
            Piece::Append(more) => self.text.len() + more.len(),
            Piece::Replace(text) => text.len(),
            Piece::Informative(status) => {
                fits(status.len(), limits)?;
                self.text.len() + status.len()
            }
        };
        if !matches!(piece, Piece::Informative(_)) {
            fits(bytes, limits)?;
        }
        Ok(bytes)
    }

    /// Whether a piece makes sense: after a gap what is appended does not, until the whole is replaced.
    pub(crate) fn wants(&self, piece: &Piece) -> bool {
        !(self.is_broken && matches!(piece, Piece::Append(_)))
    }

    /// Takes a piece.
    pub(crate) fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Append(more) => {
                self.text.push_str(&more);
                self.status = None;
            }
            Piece::Replace(text) => {
                self.text = text;
                self.status = None;
                self.is_broken = false;
            }
            Piece::Informative(status) => self.status = Some(status),
        }
        self.changed = true;
    }

    /// Notes that a piece was not taken.
    pub(crate) fn lose(&mut self, piece: &Piece) {
        self.is_broken |= matches!(piece, Piece::Append(_));
    }

    /// Begins anew, for another attempt: with its id, and with snapshots that go on growing.
    pub(crate) fn begin_again(&mut self) {
        self.text.clear();
        self.status = None;
        self.changed = false;
        self.is_broken = false;
        self.is_stopped = false;
    }

    /// Shows nothing of it any more.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Whether nothing of it is shown any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether users have seen something of it.
    pub(crate) fn was_shown(&self) -> bool {
        self.sequence > 0
    }

    /// When it is to be shown, if there is something new.
    pub(crate) fn due(&self, interval: Duration) -> Option<Timestamp> {
        let is_news = self.changed && !self.is_stopped;
        is_news.then(|| match self.sequence {
            0 => self.shown,
            _ => self.shown.after(interval),
        })
    }

    /// How far it is.
    pub(crate) fn snapshot(&mut self, now: Timestamp) -> v1::Activity {
        self.sequence = self.sequence.saturating_add(1);
        self.shown = now;
        self.changed = false;
        let (part, text) = match &self.status {
            Some(status) => (Part::Informative, status),
            None => (Part::Streaming, &self.text),
        };
        self.info(part).activity(text.clone())
    }

    /// The entity of the message that is the whole of it.
    pub(crate) fn whole(&self) -> prost_types::Struct {
        self.info(Part::Final).entity()
    }

    /// Its end when it broke off.
    pub(crate) fn broken_off(&self) -> v1::Activity {
        let mut text = self.text.clone();
        if !text.is_empty() {
            text.push(ELLIPSIS);
        }
        self.info(Part::BrokenOff).activity(text)
    }

    fn info(&self, part: Part) -> StreamInfo<'_> {
        StreamInfo {
            id: &self.id,
            part,
            sequence: self.sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);
    const INTERVAL: Duration = Duration::from_millis(250);

    fn append(text: &str) -> Piece {
        Piece::Append(text.to_owned())
    }

    fn text(activity: &v1::Activity) -> &str {
        activity.text.as_deref().expect("a text")
    }

    #[test]
    fn snapshots_have_all_of_the_text_so_far() {
        let mut stream = Stream::new("s".into());
        stream.take(append("Hel"));
        assert_eq!(text(&stream.snapshot(NOW)), "Hel");
        stream.take(append("lo"));
        assert_eq!(text(&stream.snapshot(NOW)), "Hello");
        stream.take(Piece::Replace("Bye".to_owned()));
        assert_eq!(text(&stream.snapshot(NOW)), "Bye");
    }

    #[test]
    fn a_status_stands_until_there_is_text_again() {
        let mut stream = Stream::new("s".into());
        stream.take(append("a"));
        stream.take(Piece::Informative("Searching…".to_owned()));
        assert_eq!(text(&stream.snapshot(NOW)), "Searching…");
        stream.take(append("b"));
        assert_eq!(text(&stream.snapshot(NOW)), "ab");
    }

    #[test]
    fn the_first_is_shown_at_once_and_the_next_after_the_interval() {
        let mut stream = Stream::new("s".into());
        assert_eq!(stream.due(INTERVAL), None);
        stream.take(append("a"));
        assert!(stream.due(INTERVAL).is_some_and(|due| due <= NOW));
        stream.snapshot(NOW);
        assert_eq!(stream.due(INTERVAL), None, "there is nothing new");
        stream.take(append("b"));
        assert_eq!(stream.due(INTERVAL), Some(NOW.after(INTERVAL)));
    }

    #[test]
    fn nothing_is_due_of_what_was_stopped() {
        let mut stream = Stream::new("s".into());
        stream.take(append("a"));
        stream.stop();
        assert_eq!(stream.due(INTERVAL), None);
    }

    #[test]
    fn after_a_gap_only_the_whole_is_taken() {
        let mut stream = Stream::new("s".into());
        stream.take(append("a"));
        stream.lose(&append("b"));
        assert!(!stream.wants(&append("c")));
        let whole = Piece::Replace("abc".to_owned());
        assert!(stream.wants(&whole));
        stream.take(whole);
        assert!(stream.wants(&append("d")));
        stream.take(append("d"));
        assert_eq!(text(&stream.snapshot(NOW)), "abcd");
    }

    #[test]
    fn another_attempt_begins_with_no_text_and_goes_on_counting() {
        let mut stream = Stream::new("s".into());
        stream.take(append("first"));
        stream.snapshot(NOW);
        stream.begin_again();
        assert_eq!((stream.due(INTERVAL), stream.was_shown()), (None, true));
        stream.take(append("second"));
        let again = stream.snapshot(NOW);
        assert_eq!(text(&again), "second");
        assert_eq!(
            again.entities,
            [StreamInfo {
                id: "s",
                part: Part::Streaming,
                sequence: 2
            }
            .entity()]
        );
    }

    #[test]
    fn what_broke_off_says_so_unless_there_was_no_text() {
        let mut stream = Stream::new("s".into());
        stream.take(Piece::Informative("Searching…".to_owned()));
        assert_eq!(text(&stream.broken_off()), "");
        stream.take(append("The answer"));
        assert_eq!(text(&stream.broken_off()), "The answer…");
    }

    #[test]
    fn no_text_is_larger_than_an_activity() {
        let limits = Limits {
            activity_bytes: 4,
            ..Limits::default()
        };
        let mut stream = Stream::new("s".into());
        stream.take(append("abc"));
        assert_eq!(stream.bytes_with(&append("d"), &limits), Ok(4));
        assert!(stream.bytes_with(&append("de"), &limits).is_err());
        assert_eq!(
            stream.bytes_with(&Piece::Replace("x".to_owned()), &limits),
            Ok(1)
        );
        let status = Piece::Informative("1234".to_owned());
        assert_eq!(stream.bytes_with(&status, &limits), Ok(7));
    }
}
