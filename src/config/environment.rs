//! Environment variables in the text: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar.
//!
//! Replaced before the text is parsed, so that any value can come from the environment, and with
//! an eye on TOML's strings, so that a value can never end the string it stands in.

use std::ops::Range;

/// The text with every variable replaced, and the way back to the original.
pub(super) struct Expanded {
    pub(super) text: String,
    /// Where the texts differ, in order: a range of the expanded text, one of the original.
    edits: Vec<(Range<usize>, Range<usize>)>,
}

/// What is wrong at an offset of the original text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) message: String,
}

/// Where in a TOML document a character stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Bare,
    Comment,
    /// `"..."` or `"""..."""`, by the length of its quotes.
    Basic(usize),
    /// `'...'` or `'''...'''`.
    Literal(usize),
}

impl Expanded {
    /// Replaces every variable, or says everything that is wrong with them.
    pub(super) fn new(
        original: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        let mut expanded = Self {
            text: String::with_capacity(original.len()),
            edits: Vec::new(),
        };
        let mut faults = Vec::new();
        let mut context = Context::Bare;
        let mut at = 0;
        while let Some(next) = original[at..].chars().next() {
            let rest = &original[at..];
            if context != Context::Comment && rest.starts_with('$') {
                match Reference::parse(rest) {
                    Ok(None) => {
                        expanded.text.push('$');
                        at += 1;
                    }
                    Ok(Some(reference)) => {
                        match reference.value(env).and_then(|value| fit(value, context)) {
                            Ok(value) => expanded.replace(at..at + reference.length, &value),
                            Err(message) => faults.push(Fault {
                                offset: at,
                                message: format!("`{}` {message}", reference.name),
                            }),
                        }
                        at += reference.length;
                    }
                    Err(message) => {
                        faults.push(Fault {
                            offset: at,
                            message,
                        });
                        at += 1;
                    }
                }
                continue;
            }
            let (length, then) = step(rest, next, context);
            expanded.text.push_str(&rest[..length]);
            at += length;
            context = then;
        }
        if faults.is_empty() {
            Ok(expanded)
        } else {
            Err(faults)
        }
    }

    /// The offset in the original text that an offset in the expanded one came from. Inside of a
    /// value it is where its variable begins.
    pub(super) fn original_offset(&self, offset: usize) -> usize {
        let before = self.edits.partition_point(|(to, _)| to.start <= offset);
        match before.checked_sub(1).and_then(|last| self.edits.get(last)) {
            None => offset,
            Some((to, from)) if offset < to.end => from.start,
            Some((to, from)) => from.end + (offset - to.end),
        }
    }

    fn replace(&mut self, original: Range<usize>, value: &str) {
        let start = self.text.len();
        self.text.push_str(value);
        self.edits.push((start..self.text.len(), original));
    }
}

/// One `$...` of the text.
struct Reference<'t> {
    name: &'t str,
    default: Option<&'t str>,
    length: usize,
}

impl<'t> Reference<'t> {
    /// Reads what begins with a dollar; `None` when that is only a dollar.
    fn parse(text: &'t str) -> Result<Option<Self>, String> {
        if text.starts_with("$$") {
            return Ok(Some(Self {
                name: "$",
                default: None,
                length: 2,
            }));
        }
        let Some(body) = text.strip_prefix("${") else {
            return Ok(None);
        };
        let line = body.lines().next().unwrap_or_default();
        let Some(end) = line.find('}') else {
            return Err(
                "`${` is never closed: write `${NAME}`, or `$$` for a plain dollar".to_owned(),
            );
        };
        let (name, default) = match line[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&line[..end], None),
        };
        if !is_name(name) {
            return Err(format!(
                "`{name}` is no variable's name: write `${{NAME}}` or `${{NAME:-default}}`, or \
                 `$$` for a plain dollar"
            ));
        }
        Ok(Some(Self {
            name,
            default,
            length: "${".len() + end + "}".len(),
        }))
    }

    /// As in a shell, `:-` stands in for an empty variable too.
    fn value(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        if self.name == "$" {
            return Ok("$".to_owned());
        }
        match (env(self.name), self.default) {
            (Some(value), _) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (Some(empty), None) => Ok(empty),
            (None, None) => Err(format!(
                "is not set in the environment: set it, or write `${{{}:-default}}`",
                self.name
            )),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Writes a value so that it is only a value where it stands. Values are never quoted in what
/// this says: they may be secrets.
fn fit(value: String, context: Context) -> Result<String, String> {
    match context {
        Context::Basic(_) => Ok(escape(&value)),
        Context::Literal(_) if value.contains(|c: char| c == '\'' || c.is_control()) => Err(
            "holds a quote or a control character: put it in \"double quotes\", where it is escaped"
                .to_owned(),
        ),
        Context::Bare if value.contains(|c: char| !is_bare(c)) => {
            Err("is more than a plain number or word: put it in \"double quotes\"".to_owned())
        }
        Context::Bare | Context::Literal(_) | Context::Comment => Ok(value),
    }
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-_.:$".contains(c)
}

/// Escapes for a basic string (TOML 1.0, "String").
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// How much of the text to take as it is, and where that leads.
fn step(rest: &str, next: char, context: Context) -> (usize, Context) {
    let quotes = |quote: &str| match rest.starts_with(&quote.repeat(3)) {
        true => 3,
        false => usize::from(rest.starts_with(quote)),
    };
    let one = next.len_utf8();
    match context {
        Context::Comment if next == '\n' => (one, Context::Bare),
        Context::Bare if next == '#' => (one, Context::Comment),
        Context::Bare => match (quotes("\""), quotes("'")) {
            (0, 0) => (one, Context::Bare),
            // An empty string, not the beginning of one.
            (1, _) if rest.starts_with("\"\"") => (2, Context::Bare),
            (_, 1) if rest.starts_with("''") => (2, Context::Bare),
            (0, length) => (length, Context::Literal(length)),
            (length, _) => (length, Context::Basic(length)),
        },
        // A backslash keeps the next character from ending the string.
        Context::Basic(_) if next == '\\' => {
            let escaped = rest[one..].chars().next().map_or(0, char::len_utf8);
            // Not a dollar's: `\$` is no escape in TOML, so the dollar is one.
            let escaped = if rest[one..].starts_with('$') {
                0
            } else {
                escaped
            };
            (one + escaped, context)
        }
        Context::Basic(length) | Context::Literal(length) => {
            let quote = match context {
                Context::Basic(_) => "\"",
                _ => "'",
            };
            if rest.starts_with(&quote.repeat(length)) {
                // Up to two quotes more belong to the content, at its end.
                let run = rest.len() - rest.trim_start_matches(quote).len();
                let closing = if length == 3 { run.min(5) } else { 1 };
                (closing, Context::Bare)
            } else if length == 1 && next == '\n' {
                // Never closed: the parser says so.
                (one, Context::Bare)
            } else {
                (one, context)
            }
        }
        Context::Comment => (one, context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "NAME" => Some("echo".to_owned()),
            "NASTY" => Some("a\"b\\c\nlisten = 'x'".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn expanded(text: &str) -> String {
        Expanded::new(text, &env).expect(text).text
    }

    fn fault(text: &str) -> Fault {
        let mut faults = Expanded::new(text, &env).err().expect(text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.remove(0)
    }

    #[test]
    fn variables_are_replaced_in_strings_and_for_plain_values() {
        assert_eq!(expanded(r#"id = "${NAME}-1""#), r#"id = "echo-1""#);
        assert_eq!(expanded("id = '${NAME}'"), "id = 'echo'");
        assert_eq!(expanded("page = ${PAGE:-100}"), "page = 100");
        assert_eq!(expanded(r#"a = """x ${NAME}""""#), r#"a = """x echo""""#);
    }

    #[test]
    fn a_default_stands_in_for_what_is_unset_or_empty_and_for_nothing_else() {
        assert_eq!(expanded(r#"a = "${UNSET:-x}""#), r#"a = "x""#);
        assert_eq!(expanded(r#"a = "${EMPTY:-x}""#), r#"a = "x""#);
        assert_eq!(expanded(r#"a = "${UNSET:-}""#), r#"a = """#);
        assert_eq!(expanded(r#"a = "${EMPTY}""#), r#"a = """#);
        assert_eq!(expanded(r#"a = "${NAME:-x}""#), r#"a = "echo""#);
    }

    #[test]
    fn what_is_unset_without_default_is_a_fault_at_its_place() {
        let fault = fault("# one\na = \"${UNSET}\"");
        assert_eq!(fault.offset, 11);
        assert!(fault.message.starts_with("`UNSET` is not set"), "{fault:?}");
    }

    #[test]
    fn a_value_cannot_break_out_of_its_string() {
        let text = expanded(r#"a = "${NASTY}""#);
        assert_eq!(text.lines().count(), 1);
        let table: toml::Table = text.parse().expect("valid TOML");
        assert_eq!(table["a"].as_str(), env("NASTY").as_deref());
        assert_eq!(table.len(), 1);
        assert!(fault("a = '${NASTY}'").message.contains("double quotes"));
        assert!(fault("a = ${NASTY}").message.contains("double quotes"));
    }

    #[test]
    fn dollars_and_comments_stay() {
        assert_eq!(expanded(r#"a = "$$x $5 $""#), r#"a = "$x $5 $""#);
        assert_eq!(expanded(r#"a = "$${NAME}""#), r#"a = "${NAME}""#);
        assert_eq!(expanded("# ${UNSET} $$\na = 1"), "# ${UNSET} $$\na = 1");
        assert_eq!(
            expanded("a = \"# \\\" ${NAME}\" # ${UNSET}"),
            "a = \"# \\\" echo\" # ${UNSET}"
        );
    }

    #[test]
    fn strings_end_where_toml_says_they_do() {
        for (text, becomes) in [
            ("a = \"\" # ${UNSET}", "a = \"\" # ${UNSET}"),
            ("a = '' # ${UNSET}", "a = '' # ${UNSET}"),
            ("a = '\\' # ${UNSET}", "a = '\\' # ${UNSET}"),
            (
                "a = \"\"\"\n\"x\"\"\"\"# ${UNSET}",
                "a = \"\"\"\n\"x\"\"\"\"# ${UNSET}",
            ),
            ("a = '''\n# ${NAME}'''", "a = '''\n# echo'''"),
            ("a = \"\"\"\n# ${NAME}\"\"\"", "a = \"\"\"\n# echo\"\"\""),
            ("\"a#b\" = \"${NAME}\"", "\"a#b\" = \"echo\""),
        ] {
            assert_eq!(expanded(text), becomes);
        }
    }

    #[test]
    fn what_is_no_variable_is_a_fault() {
        assert!(fault("a = \"${NAME\"").message.contains("never closed"));
        for text in [
            "a = \"${}\"",
            "a = \"${1A}\"",
            "a = \"${A-B}\"",
            "a = \"${A B:-x}\"",
        ] {
            assert!(fault(text).message.contains("no variable's name"), "{text}");
        }
    }

    #[test]
    fn offsets_lead_back_to_the_original() {
        let original = r#"a = "${NAME}", b = "${UNSET:-looooong}", c"#;
        let expanded = Expanded::new(original, &env).expect(original);
        for c in ["a =", "b =", ", c"] {
            let offset = expanded.text.find(c).expect(c);
            let back = expanded.original_offset(offset);
            assert!(original[back..].starts_with(c), "{c}: {back}");
        }
        let inside = expanded.text.find("cho").expect("the value");
        assert!(original[expanded.original_offset(inside)..].starts_with("${NAME}"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_value_is_it_is_what_the_string_holds(value in "(?s).*") {
            for quote in ["\"", "\"\"\""] {
                let text = format!("# ${{A}}\na = {quote}x${{A}}y{quote}\nb = 1");
                let env = |_: &str| Some(value.clone());
                let expanded = Expanded::new(&text, &env).expect("set");
                let table: toml::Table = expanded.text.parse().expect("valid TOML");
                let held = table["a"].as_str().map(str::to_owned);
                proptest::prop_assert_eq!(held, Some(format!("x{value}y")));
                let after = expanded.text.rfind("b = 1").expect("kept");
                proptest::prop_assert_eq!(Some(expanded.original_offset(after)), text.rfind("b = 1"));
                proptest::prop_assert_eq!(expanded.text.matches('\n').count(), 2);
            }
        }

        #[test]
        fn no_text_panics(text in "[\"'#$\\\\{}A:\n ü=-]{0,40}") {
            let _ = crate::config::Config::parse(&text, "t", &env, &Default::default());
        }
    }
}
