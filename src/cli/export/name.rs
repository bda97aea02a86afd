//! Names of files, made of ids that may hold anything.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The longest name, in bytes: what every file system takes, with an ending.
const NAME_BYTES: usize = 120;
/// How many bytes of a digest tell two names apart that would be one.
const DIGEST_BYTES: usize = 8;

/// A name that leads nowhere else and is nobody else's, also where upper and lower case are the same.
///
/// An id of lower-case letters, digits, `-` and `_` and dots is its own name, unless it begins with a dot. Of others
/// what is safe stays, for people, and a digest follows.
pub(super) fn safe(id: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let is_own = id.bytes().all(is_plain) && !id.starts_with('.') && !id.is_empty();
    // `~` stands in no name that is an id.
    if is_own && id.len() <= NAME_BYTES {
        return id.to_owned();
    }
    let keep = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let kept = id.chars().map(|c| if keep(c) { c } else { '_' });
    let kept: String = kept.take(NAME_BYTES - 2 * DIGEST_BYTES - 1).collect();
    let mut name = format!("{}~", kept.trim_start_matches('.'));
    for byte in Sha256::digest(id).iter().take(DIGEST_BYTES) {
        write!(name, "{byte:02x}").expect("a String grows");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_that_is_a_good_name_is_it() {
        for id in ["c1", "chat-4be749f5", "a.b_c-d"] {
            assert_eq!(safe(id), id);
        }
    }

    #[test]
    fn ids_that_differ_have_names_that_differ_in_any_case() {
        let long = "a".repeat(512);
        let ids = [
            "",
            ".",
            "..",
            "c1",
            "C1",
            "c/1",
            "c\\1",
            "c_1",
            "c:1",
            "../c1",
            ".c1",
            "c1 ",
            "ä",
            "ö",
            &long,
            &long[1..],
        ];
        let names: HashSet<_> = ids.iter().map(|id| safe(id).to_lowercase()).collect();
        assert_eq!(names.len(), ids.len());
    }

    proptest::proptest! {
        #[test]
        fn a_name_leads_nowhere_else(id: String) {
            let name = safe(&id);
            let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
            proptest::prop_assert!(name.bytes().all(is_safe), "{name}");
            proptest::prop_assert!(!name.starts_with('.') && !name.is_empty());
            proptest::prop_assert!(name.len() <= NAME_BYTES);
        }
    }
}
