//! How a session comes back when its stream is lost: for how long, and how often it is tried.

use std::time::Duration;

use tokio::time::Instant;

use super::ending::duration;
use super::stream::BotStream;
use crate::backoff::Backoff;
use crate::proto::{Hello, Resume, Welcome};
use crate::{Client, Error};

/// A stream that lasted this long was a success, and its loss is a first one again.
const STEADY: Duration = Duration::from_secs(2);

/// For this long after a loss the waits stay short: a gateway that restarts is back by then, and its
/// users wait.
const HURRY: Duration = Duration::from_secs(5);

/// The waits of that time: short enough not to be noticed, and not all at once.
const HURRIED_FIRST: Duration = Duration::from_millis(25);
const HURRIED_CEILING: Duration = Duration::from_millis(250);

/// How long the gateway may take to answer a Hello.
const OPENING: Duration = Duration::from_secs(10);

/// The waits between one stream and the next.
pub(super) struct Waits {
    hurried: Backoff,
    patient: Backoff,
    hurry_until: Instant,
}

impl Waits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            hurried: Backoff::new(HURRIED_FIRST, HURRIED_CEILING),
            patient: Backoff::default(),
            hurry_until: now + HURRY,
        }
    }

    /// Notes that a stream has ended which was opened at `opened`.
    ///
    /// One that did not last does not bring the short waits back: a gateway that ends every stream at once
    /// would be asked several times a second by all of its bots, for good.
    pub(super) fn ended(&mut self, opened: Instant, now: Instant) {
        if now - opened >= STEADY {
            *self = Self::new(now);
        }
    }

    /// How long to wait now, and at least for what the gateway `asked`.
    pub(super) fn next(&mut self, now: Instant, asked: Option<Duration>) -> Duration {
        let backoff = if now < self.hurry_until {
            &mut self.hurried
        } else {
            &mut self.patient
        };
        backoff.next_delay().max(asked.unwrap_or_default())
    }
}

/// The session that a lost stream has left, as long as it can be resumed.
pub(super) struct Past {
    session_id: String,
    token: String,
    /// From then on the gateway gives away what the session holds.
    pub(super) until: Instant,
}

impl Past {
    /// What a stream with this Welcome leaves when it is lost now; `None` when it cannot be resumed.
    pub(super) fn of(welcome: &Welcome, within: Duration, now: Instant) -> Option<Self> {
        let can_be_resumed = !welcome.resume_token.is_empty() && !within.is_zero();
        can_be_resumed.then(|| Self {
            session_id: welcome.session_id.clone(),
            token: welcome.resume_token.clone(),
            until: now + duration(welcome.resume_grace, within).min(within),
        })
    }
}

/// What a Hello asks for: that the session can be resumed, and to go on with an earlier one. `None` when
/// it is to end with its stream.
pub(super) fn resume(past: Option<&Past>, held: Vec<u64>, within: Duration) -> Option<Resume> {
    if within.is_zero() {
        return None;
    }
    let grace = within.try_into().ok();
    Some(match past {
        Some(past) => Resume {
            session_id: past.session_id.clone(),
            token: past.token.clone(),
            delivery_ids: held,
            grace,
        },
        None => Resume {
            grace,
            ..Resume::default()
        },
    })
}

/// Opens a stream after a wait.
pub(super) async fn open(client: Client, hello: Hello, wait: Duration) -> Result<BotStream, Error> {
    tokio::time::sleep(wait).await;
    let opened = tokio::time::timeout(OPENING, BotStream::open(&client, hello)).await;
    opened.unwrap_or(Err(Error::Silent(OPENING)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn welcome() -> Welcome {
        Welcome {
            session_id: "s1".into(),
            resume_token: "t1".into(),
            resume_grace: (3 * SECOND).try_into().ok(),
            ..Welcome::default()
        }
    }

    #[test]
    fn waits_are_short_at_first_and_grow_when_the_gateway_stays_away() {
        let start = Instant::now();
        let mut waits = Waits::new(start);
        for _ in 0..100 {
            assert!(waits.next(start, None) <= HURRIED_CEILING);
        }
        let later = start + HURRY;
        let longest = (0..10).map(|_| waits.next(later, None)).max();
        assert!(longest > Some(4 * SECOND));
    }

    #[test]
    fn only_a_stream_that_lasted_brings_the_short_waits_back() {
        let start = Instant::now();
        let mut waits = Waits::new(start);
        let later = start + HURRY;
        for _ in 0..10 {
            waits.next(later, None);
        }
        waits.ended(later, later + STEADY / 2);
        assert!(waits.next(later, None) > SECOND);
        waits.ended(later, later + STEADY);
        assert!(waits.next(later + STEADY, None) <= HURRIED_FIRST);
    }

    #[test]
    fn the_gateway_may_ask_for_a_longer_wait() {
        let start = Instant::now();
        assert_eq!(Waits::new(start).next(start, Some(9 * SECOND)), 9 * SECOND);
    }

    #[test]
    fn a_session_is_tried_for_no_longer_than_either_side_grants() {
        let now = Instant::now();
        let until = |within| Past::of(&welcome(), within, now).map(|past| past.until - now);
        assert_eq!(until(10 * SECOND), Some(3 * SECOND));
        assert_eq!(until(SECOND), Some(SECOND));
        assert_eq!(until(Duration::ZERO), None);
        let mut without = welcome();
        without.resume_token.clear();
        assert!(Past::of(&without, SECOND, now).is_none());
    }

    #[test]
    fn a_hello_names_the_session_and_what_is_held_of_it() {
        let past = Past::of(&welcome(), SECOND, Instant::now());
        let named = resume(past.as_ref(), vec![4, 5], SECOND).unwrap_or_default();
        assert_eq!(
            (named.session_id.as_str(), named.token.as_str()),
            ("s1", "t1")
        );
        assert_eq!(named.delivery_ids, [4, 5]);
        let first = resume(None, Vec::new(), SECOND).unwrap_or_default();
        assert_eq!(
            (first.session_id.as_str(), first.grace),
            ("", SECOND.try_into().ok())
        );
        assert_eq!(resume(past.as_ref(), vec![4], Duration::ZERO), None);
    }
}
