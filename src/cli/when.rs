//! Points in time as they are written on the command line.

use std::str::FromStr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config;

/// A point in time: by the calendar, or so long after another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    At(Timestamp),
    In(Duration),
}

impl When {
    /// The point, if this counts from `start`.
    pub(super) fn from(self, start: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::In(duration) => start.after(duration),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(duration) = config::parse_duration(text) {
            return Ok(Self::In(duration));
        }
        let time = text.parse::<jiff::Timestamp>().ok();
        let millis = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        millis.map(|millis| Self::At(Timestamp(millis))).ok_or_else(|| {
            "expected a time such as `2026-11-24T09:00:00+01:00`, or a duration such as `10m`, `2h` \
             or `1d`"
                .to_owned()
        })
    }
}

/// A point in time, for a request.
pub(super) fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (time.0 / 1_000) as i64,
        nanos: (time.0 % 1_000) as i32 * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_by_the_calendar_or_so_long_after_another() {
        let start = Timestamp(1_000);
        let from = |text: &str| text.parse::<When>().map(|when| when.from(start));
        assert_eq!(from("10m"), Ok(Timestamp(601_000)));
        assert_eq!(from("0s"), Ok(start));
        let nine = Ok(Timestamp(1_795_507_200_000));
        assert_eq!(from("2026-11-24T08:00:00Z"), nine);
        assert_eq!(from("2026-11-24T09:00:00+01:00"), nine);
        assert_eq!(from("2026-11-24 09:00:00+01:00"), nine);
        for text in [
            "",
            "10",
            "-10m",
            "tomorrow",
            "2026-11-24",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
