//! Text from outside, made safe to print: what users and bots say must not command the terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes whatever a terminal could take for a command, line breaks included.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_unsafe(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// The same for text that may have several lines, each after the first set in by `indent`.
pub(super) fn block(text: &str, indent: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.lines().map(line).collect();
    lines.join(&format!("\n{indent}"))
}

/// The same for a JSON document, which stays one with the same meaning: outside of its strings
/// there is nothing to escape.
pub(super) fn json(document: &str) -> Cow<'_, str> {
    if !document.contains(is_unsafe) {
        return Cow::Borrowed(document);
    }
    let mut safe = String::with_capacity(document.len() + 8);
    for c in document.chars() {
        if is_unsafe(c) {
            // All of them are in the basic plane, so that one escape is enough.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// C0, DEL and C1 are commands; line separators break lines; and the bidirectional controls show
/// text in another order than it has.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_printed_as_it_is() {
        for text in ["", "Grüezi, 世界 🙂", "a\\b"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn commands_to_the_terminal_are_shown_instead_of_obeyed() {
        assert_eq!(line("\u{1b}]0;title\u{7}"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(line("a\u{9b}2Jb\u{7f}"), "a\\u{9b}2Jb\\u{7f}");
        assert_eq!(line("one\r\ntwo\t"), "one\\r\\ntwo\\t");
        assert_eq!(line("abc\u{202e}fdp"), "abc\\u{202e}fdp");
    }

    #[test]
    fn a_block_keeps_its_lines_and_nothing_else() {
        assert_eq!(
            block("one\ntw\u{1b}o\r\n\nfour", "  "),
            "one\n  tw\\u{1b}o\n  \n  four"
        );
    }

    #[test]
    fn a_json_document_keeps_its_meaning() -> serde_json::Result<()> {
        let value = serde_json::json!({ "text": "a\u{9b}b\u{202e}\u{7f}\n" });
        let text = serde_json::to_string(&value)?;
        let safe = json(&text);
        assert!(!safe.contains(is_unsafe));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe)?, value);
        Ok(())
    }
}
