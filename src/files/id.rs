//! Ids of files: who knows one may read the file.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use crate::random;

/// 256 bits in base64url.
const RANDOM_CHARS: usize = 43;
/// Days until the year 29,000.
const DAY_CHARS: usize = 7;

/// A file's id: the day of its folder, a dash, and 256 random bits. Letters, digits, `-` and `_`, so
/// that neither a URL nor a path makes anything else of it.
#[derive(Clone, PartialEq, Eq)]
pub struct FileId {
    day: u64,
    random: String,
}

impl FileId {
    /// A fresh one.
    pub(super) fn fresh(day: u64) -> Self {
        Self {
            day,
            random: BASE64URL.encode(random::bytes::<32>()),
        }
    }

    /// The day since 1970 in whose folder it is.
    pub(crate) fn day(&self) -> u64 {
        self.day
    }

    /// Its name in that folder.
    pub(crate) fn random(&self) -> &str {
        &self.random
    }
}

/// A text that is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the id of a file")]
pub struct Malformed;

impl FromStr for FileId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (day, random) = text.split_once('-').ok_or(Malformed)?;
        let is_day = (1..=DAY_CHARS).contains(&day.len())
            && day.bytes().all(|b| b.is_ascii_digit())
            && !(day.len() > 1 && day.starts_with('0'));
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let is_random = random.len() == RANDOM_CHARS && random.bytes().all(is_part);
        if !is_day || !is_random {
            return Err(Malformed);
        }
        Ok(Self {
            day: day.parse().map_err(|_| Malformed)?,
            random: random.to_owned(),
        })
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.day, self.random)
    }
}

/// Shows the day only: the rest is a credential.
impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({}-..)", self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = FileId::fresh(20_454);
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_ne!(id, FileId::fresh(20_454));
        assert!(!format!("{id:?}").contains(id.random()));
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_id() {
        let random = "A".repeat(43);
        let good = format!("20454-{random}");
        assert!(good.parse::<FileId>().is_ok());
        for text in [
            String::new(),
            "..".to_owned(),
            random.clone(),
            format!("-{random}"),
            format!("020454-{random}"),
            format!("12345678-{random}"),
            format!("+1-{random}"),
            format!("../1-{random}"),
            format!("{good}A"),
            format!("20454-{}", "A".repeat(42)),
            format!("20454-{}/", "A".repeat(42)),
            format!("20454-{}.json", "A".repeat(38)),
            format!("20454-../{}", "A".repeat(40)),
            format!("20454-{}\0", "A".repeat(42)),
            format!("20454-{}ä", "A".repeat(41)),
        ] {
            assert_eq!(text.parse::<FileId>(), Err(Malformed), "{text:?}");
        }
    }
}
