//! Durations and sizes as people write them: `10m`, `64KiB`.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60 * 1_000),
    ("h", 60 * 60 * 1_000),
    ("d", 24 * 60 * 60 * 1_000),
];
const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads a whole number with its unit: `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// Reads a whole number with its unit: `B`, `KiB`, `MiB` or `GiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Writes a duration in the largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATIONS, "s")
}

/// Writes a size in the largest unit that divides it.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES, "B")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    let whole = units
        .iter()
        .rev()
        .find(|(_, factor)| value.is_multiple_of(*factor));
    match whole {
        Some((unit, factor)) if value > 0 => format!("`{}{unit}`", value / factor),
        _ => format!("`{value}{of_zero}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("60s", 60_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)));
        }
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5 s",
            "5S",
            "1h30m",
            "99999999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_a_number_and_a_binary_unit() {
        assert_eq!(parse_size("512B"), Some(512));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("1MiB"), Some(1 << 20));
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
        for text in [
            "",
            "64",
            "KiB",
            "64KB",
            "64kib",
            "-1KiB",
            "18446744073709551615GiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_shown_in_their_largest_whole_unit() {
        assert_eq!(show_duration(Duration::from_secs(90)), "`90s`");
        assert_eq!(show_duration(Duration::from_secs(600)), "`10m`");
        assert_eq!(show_duration(Duration::ZERO), "`0s`");
        assert_eq!(show_size(65_536), "`64KiB`");
        assert_eq!(show_size(1_000), "`1000B`");
    }
}
