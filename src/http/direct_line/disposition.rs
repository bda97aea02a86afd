//! `Content-Disposition`: what a file is called, read and written.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What RFC 8187 leaves as it is.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The file name in a header. Those of the documented single form begin with a parameter and not with
/// a kind (reference, section 2.7), and browsers write names as UTF-8 (HTML, "multipart form data").
pub(crate) fn file_name(header: &[u8]) -> Option<String> {
    let header = String::from_utf8_lossy(header);
    let mut plain = None;
    for (name, value) in parameters(&header) {
        if name.eq_ignore_ascii_case("filename*") {
            // RFC 8187: charset, language and text. What cannot be read is passed over.
            let mut parts = value.splitn(3, '\'');
            let charset = parts.next().unwrap_or_default();
            let text = parts.nth(1).unwrap_or_default();
            let text = percent_decode_str(text).decode_utf8();
            if let (true, Ok(text)) = (charset.eq_ignore_ascii_case("utf-8"), text) {
                return Some(text.into_owned());
            }
        } else if name.eq_ignore_ascii_case("filename") && plain.is_none() {
            plain = Some(value.replace("%22", "\""));
        }
    }
    plain
}

/// Every parameter, without the quotes of its value.
fn parameters(header: &str) -> Vec<(&str, String)> {
    let mut parameters = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let end = rest.find([';', '=']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        rest = &rest[end..];
        let Some(after) = rest.strip_prefix('=') else {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        parameters.push((name, value));
        let next = left.find(';').map_or(left.len(), |at| at + 1);
        rest = &left[next..];
    }
    parameters
}

/// The text up to the closing quote, and what is after it. A backslash is one unless it escapes: old
/// browsers write whole Windows paths.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => match chars.peek() {
                Some((_, next @ ('"' | '\\'))) => {
                    value.push(*next);
                    chars.next();
                }
                _ => value.push(c),
            },
            _ => value.push(c),
        }
    }
    (value, "")
}

/// How a file is to be shown: in the page, or as a download.
pub(crate) fn written(is_inline: bool, name: Option<&str>) -> String {
    let kind = if is_inline { "inline" } else { "attachment" };
    match name {
        Some(name) => {
            let name = utf8_percent_encode(name, ATTRIBUTE);
            format!("{kind}; filename*=UTF-8''{name}")
        }
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_clients_write_it() {
        for (header, name) in [
            (
                r#"form-data; name="activity"; filename="blob""#,
                Some("blob"),
            ),
            (r#"name="file"; filename="x.jpg""#, Some("x.jpg")),
            ("attachment; filename=x.jpg; size=1", Some("x.jpg")),
            (
                r#"form-data; filename="a;b=\"c\".txt"; name=f"#,
                Some(r#"a;b="c".txt"#),
            ),
            (
                r#"form-data; filename="C:\dir\a.txt""#,
                Some(r"C:\dir\a.txt"),
            ),
            (r#"form-data; filename="a%22b.txt""#, Some(r#"a"b.txt"#)),
            ("form-data; filename=\"März.pdf\"", Some("März.pdf")),
            (
                "attachment; filename=\"M.pdf\"; filename*=UTF-8''M%C3%A4rz.pdf",
                Some("März.pdf"),
            ),
            ("attachment; filename*=latin1''x; filename=y", Some("y")),
            (r#"form-data; filename="cut"#, Some("cut")),
            ("form-data; name=\"filename\"", None),
            ("form-data; filename", None),
            ("=;==;\"", None),
            ("", None),
        ] {
            assert_eq!(file_name(header.as_bytes()).as_deref(), name, "{header}");
        }
        assert!(file_name(b"filename=\"\xff\"").is_some());
    }

    #[test]
    fn a_written_name_is_read_again_and_stays_one_parameter() {
        for name in ["a.png", "März \"1\"; x=y\r\nZ: z'%.pdf", "文書.pdf"] {
            let header = written(false, Some(name));
            assert!(header.bytes().all(|b| matches!(b, b' '..=b'~')), "{header}");
            assert_eq!(file_name(header.as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(written(true, None), "inline");
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_read_as_it_was_written(name in "\\PC*", is_inline: bool) {
            let header = written(is_inline, Some(&name));
            proptest::prop_assert_eq!(file_name(header.as_bytes()), Some(name));
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, text in r#"[a-z*;=" \\%'ä]*"#) {
            file_name(&bytes);
            file_name(text.as_bytes());
        }
    }
}
