//! Points in time as activities write them.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::clock;

/// A text that is not a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 8601 date and time such as `2026-01-31T12:00:00.000Z`")]
pub struct Error;

/// Writes a time of the gateway as `YYYY-MM-DDTHH:MM:SS.mmmZ`.
#[must_use]
pub fn format(time: clock::Timestamp) -> String {
    // Times after the year 9999 have no such form; they stop at its end.
    let time = i64::try_from(time.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}

/// Reads a date and time: seconds are optional, with 0 to 9 fraction digits; `Z`, `z`, an offset of
/// less than a day, or nothing, which means UTC (reference, section 6).
///
/// Narrower than ISO 8601, because what is accepted here goes on to bots whose SDKs answer 500 to a
/// time they cannot parse: no dates alone, no basic format, no comma, no leap second.
///
/// # Errors
///
/// Everything else, the empty text included.
pub fn parse(text: &str) -> Result<jiff::Timestamp, Error> {
    read(text).ok_or(Error)
}

fn read(text: &str) -> Option<jiff::Timestamp> {
    let mut rest = Reader(text.as_bytes());
    let year = rest.number(4)?;
    let month = rest.after(b'-')?.number(2)?;
    let day = rest.after(b'-')?.number(2)?;
    if !rest.take(b'T') && !rest.take(b't') {
        return None;
    }
    let hour = rest.number(2)?;
    let minute = rest.after(b':')?.number(2)?;
    let (mut second, mut nanos) = (0, 0);
    if rest.take(b':') {
        second = rest.number(2)?;
        if rest.take(b'.') {
            nanos = rest.fraction()?;
        }
    }
    let offset = rest.offset()?;
    if !rest.0.is_empty() {
        return None;
    }

    let small = |number: i32| i8::try_from(number).ok();
    let civil = DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        nanos,
    );
    offset.to_timestamp(civil.ok()?).ok()
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let taken = self.0.strip_prefix(&[byte]);
        self.0 = taken.unwrap_or(self.0);
        taken.is_some()
    }

    fn after(&mut self, byte: u8) -> Option<&mut Self> {
        self.take(byte).then_some(self)
    }

    fn digit(&mut self) -> Option<i32> {
        let (first, rest) = self.0.split_first()?;
        first.is_ascii_digit().then(|| {
            self.0 = rest;
            i32::from(first - b'0')
        })
    }

    /// Exactly this many digits.
    fn number(&mut self, digits: u32) -> Option<i32> {
        (0..digits).try_fold(0, |number, _| Some(number * 10 + self.digit()?))
    }

    /// 1 to 9 digits, in nanoseconds.
    fn fraction(&mut self) -> Option<i32> {
        let mut nanos = self.digit()?;
        let mut digits = 1;
        while digits < 9 {
            nanos = nanos * 10 + self.digit().unwrap_or(0);
            digits += 1;
        }
        Some(nanos)
    }

    /// `Z`, `±HH:MM`, `±HHMM`, `±HH`, or nothing.
    fn offset(&mut self) -> Option<Offset> {
        let sign = match self.0.first() {
            None => return Some(Offset::UTC),
            Some(b'Z' | b'z') => {
                self.0 = &self.0[1..];
                return Some(Offset::UTC);
            }
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.number(2)?;
        let minutes = if self.take(b':') || !self.0.is_empty() {
            self.number(2)?
        } else {
            0
        };
        if hours > 23 || minutes > 59 {
            return None;
        }
        Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: i64 = 1_769_860_800_000;

    #[test]
    fn every_accepted_form_means_the_same_time() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00z",
            "2026-01-31t12:00:00.0Z",
            "2026-01-31T12:00:00.000000000Z",
            "2026-01-31T12:00:00.0000000+00:00",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-01-31T13:30:00+01:30",
            "2026-01-31T13:30:00+0130",
            "2026-01-31T04:00:00-08",
        ] {
            let time = parse(text).map(jiff::Timestamp::as_millisecond);
            assert_eq!(time, Ok(NOON), "{text}");
        }
    }

    #[test]
    fn fractions_have_up_to_nine_digits() {
        for (fraction, nanos) in [
            ("5", 500_000_000),
            ("1234567", 123_456_700),
            ("000000001", 1),
        ] {
            let time = parse(&format!("2026-01-31T12:00:00.{fraction}Z"));
            assert_eq!(time.map(jiff::Timestamp::subsec_nanosecond), Ok(nanos));
        }
    }

    #[test]
    fn the_smallest_time_of_dotnet_is_accepted() {
        assert!(parse("0001-01-01T00:00:00+00:00").is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            " ",
            "now",
            "0",
            "2026-01-31",
            "2026-01-31T",
            "2026-01-31 12:00:00Z",
            "20260131T120000Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:60Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00.0000000001Z",
            "2026-01-31T12:00:00ZZ",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+1",
            "2026-01-31T12:00:00Z[UTC]",
            "+002026-01-31T12:00:00Z",
            "２026-01-31T12:00:00Z",
        ] {
            assert_eq!(parse(text), Err(Error), "{text}");
        }
    }

    #[test]
    fn times_are_written_with_milliseconds() {
        let at = |millis| format(clock::Timestamp(millis));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(NOON as u64 + 7), "2026-01-31T12:00:00.007Z");
        assert_eq!(at(u64::MAX), "9999-12-30T22:00:00.999Z");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0..250_000_000_000_000_u64) {
            let time = parse(&format(clock::Timestamp(millis)))?;
            prop_assert_eq!(time.as_millisecond(), millis as i64);
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn no_nearly_right_text_breaks_the_reader(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+Zz-]{0,20}") {
            let _ = parse(&text);
        }
    }
}
