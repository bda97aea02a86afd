//! What is said of a file by who sent it, made harmless.

use std::io;

use serde::{Deserialize, Serialize};

/// What a file is of when nothing better is said.
const BYTES: &str = "application/octet-stream";
/// The longest type and the longest name that are kept, in bytes.
const TYPE_BYTES: usize = 255;
const NAME_BYTES: usize = 200;
/// The longest ending of a name that a cut leaves in place.
const ENDING_BYTES: usize = 16;

/// Type, name and size of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Its media type, a header's value: printable ASCII.
    pub content_type: String,
    /// Its name, without folders. `None` when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its size, in bytes.
    pub size: u64,
}

impl About {
    /// Takes what was said, as far as it can be used.
    #[must_use]
    pub fn new(content_type: Option<&str>, name: Option<&str>) -> Self {
        let content_type = content_type.map(str::trim);
        let content_type = content_type.filter(|text| is_media_type(text));
        Self {
            content_type: content_type.unwrap_or(BYTES).to_owned(),
            name: name.and_then(clean_name),
            size: 0,
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let about: Self = serde_json::from_slice(bytes)?;
        if !is_media_type(&about.content_type) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(about)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b);
        !part.is_empty() && part.bytes().all(is_part)
    };
    text.len() <= TYPE_BYTES
        && text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && essence
            .split_once('/')
            .is_some_and(|(main, sub)| is_token(main) && is_token(sub))
}

/// A file's name without its folders, and without what would hide what it is or cannot be shown.
#[must_use]
pub fn clean_name(said: &str) -> Option<String> {
    let name = said.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name: String = name.chars().filter(|c| !is_hidden(*c)).collect();
    name.truncate(name.trim_end_matches([' ', '.']).len());
    let name = name.trim_start();
    if name.is_empty() {
        return None;
    }
    Some(shorten(name))
}

/// Control characters, and those that turn the direction of writing: `exe.gpj` must not read `jpg.exe`.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Cuts what stands before the ending.
fn shorten(name: &str) -> String {
    if name.len() <= NAME_BYTES {
        return name.to_owned();
    }
    let ending = name.rfind('.').map_or("", |dot| &name[dot..]);
    let ending = if ending.len() <= ENDING_BYTES {
        ending
    } else {
        ""
    };
    let mut cut = NAME_BYTES - ending.len();
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{ending}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_folder_and_nothing_that_cannot_be_seen() {
        for (said, kept) in [
            ("a.png", Some("a.png")),
            ("Bericht für März.pdf", Some("Bericht für März.pdf")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\Users\\me\\a.txt", Some("a.txt")),
            ("a\r\nX: y\0.txt", Some("aX: y.txt")),
            ("invoice\u{202e}fdp.exe", Some("invoicefdp.exe")),
            (" .a. ", Some(".a")),
            ("..", None),
            ("a/", None),
            ("", None),
        ] {
            assert_eq!(clean_name(said).as_deref(), kept, "{said:?}");
        }
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        let name = clean_name(&format!("{}.jpeg", "ä".repeat(300))).expect("a name");
        assert!(
            name.len() <= NAME_BYTES && name.ends_with("ä.jpeg"),
            "{name}"
        );
        let name = clean_name(&format!("a.{}", "ä".repeat(300))).expect("a name");
        assert!(name.len() <= NAME_BYTES, "{name}");
    }

    #[test]
    fn what_is_no_media_type_becomes_bytes() {
        for good in ["image/png", "text/plain; charset=utf-8", "image/svg+xml"] {
            assert_eq!(About::new(Some(good), None).content_type, good);
        }
        for bad in [
            "",
            "png",
            "a/",
            "/b",
            "a/b\r\nX: y",
            "a b/c",
            "ä/b",
            "a/b/c",
        ] {
            assert_eq!(About::new(Some(bad), None).content_type, BYTES, "{bad:?}");
        }
        let long = format!("a/{}", "b".repeat(300));
        assert_eq!(About::new(Some(&long), None).content_type, BYTES);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_said_becomes_harmless(said: String, content_type: String) {
            let about = About::new(Some(&content_type), Some(&said));
            proptest::prop_assert!(is_media_type(&about.content_type));
            let name = about.name.clone().unwrap_or_else(|| "a".to_owned());
            let is_bad = |c: char| is_hidden(c) || matches!(c, '/' | '\\');
            proptest::prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES);
            proptest::prop_assert!(!name.chars().any(is_bad) && name != "..");
            proptest::prop_assert_eq!(About::from_bytes(&about.to_bytes()).expect("read"), about);
        }
    }
}
