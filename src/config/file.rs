//! The file as it is written: tables, keys and values that know where they stand.
//!
//! Values are taken out of the parsed document one by one instead of by `serde`, which stops at the
//! first value it cannot use and does not say whose key that was.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::environment::Expanded;
use crate::config::nearest::nearest;
use crate::config::problem::{Place, Problem, line_and_column};
use crate::config::unit;

/// All problems found so far, and the text they are in.
pub(super) struct Report<'t> {
    name: &'t str,
    original: &'t str,
    expanded: &'t Expanded,
    found: RefCell<Vec<(usize, Problem)>>,
}

impl<'t> Report<'t> {
    /// Nothing found yet in the file called `name`.
    pub(super) fn new(name: &'t str, original: &'t str, expanded: &'t Expanded) -> Self {
        Self {
            name,
            original,
            expanded,
            found: RefCell::default(),
        }
    }

    /// Adds a problem at an offset of the expanded text.
    pub(super) fn add(&self, offset: usize, key: &str, message: impl Into<String>) {
        let offset = self.expanded.original_offset(offset);
        let problem = Problem::at(self.name, self.original, offset, key, message.into());
        self.found.borrow_mut().push((offset, problem));
    }

    /// Adds a problem with what a flag said.
    pub(super) fn add_flag(&self, flag: &'static str, key: &str, message: impl Into<String>) {
        let problem = Problem {
            place: Place::Flag(flag),
            key: key.to_owned(),
            message: message.into(),
        };
        self.found.borrow_mut().push((usize::MAX, problem));
    }

    /// The problems in the order of the text, flags last.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        found.into_iter().map(|(_, problem)| problem).collect()
    }

    /// The line of an offset of the expanded text.
    fn line(&self, offset: usize) -> usize {
        line_and_column(self.original, self.expanded.original_offset(offset)).0
    }
}

/// A table being read: each key is taken once, and what was never taken is unknown.
pub(super) struct Table<'f> {
    report: &'f Report<'f>,
    path: String,
    offset: usize,
    entries: &'f DeTable<'f>,
    taken: Vec<&'static str>,
}

impl<'f> Table<'f> {
    /// The whole document.
    pub(super) fn root(report: &'f Report<'f>, document: &'f Spanned<DeTable<'f>>) -> Self {
        Self {
            report,
            path: String::new(),
            offset: document.span().start,
            entries: document.get_ref(),
            taken: Vec::new(),
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value<'f>> {
        self.taken.push(name);
        self.peek(name)
    }

    /// The value of a key that is taken elsewhere, if it is there.
    pub(super) fn peek(&self, name: &'static str) -> Option<Value<'f>> {
        let node = self.entries.get(name)?;
        Some(Value {
            report: self.report,
            key: self.key(name),
            span: node.span(),
            node: node.get_ref(),
        })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&mut self, name: &'static str) -> Option<Value<'f>> {
        let value = self.take(name);
        if value.is_none() {
            let message = format!("is missing: add `{name} = ...`");
            self.report.add(self.offset, &self.key(name), message);
        }
        value
    }

    /// The tables of a list of tables; none when the key is absent.
    pub(super) fn tables(&mut self, name: &'static str) -> Vec<Table<'f>> {
        let values = match self.take(name) {
            Some(value) => value.list().unwrap_or_default(),
            None => Vec::new(),
        };
        values.iter().filter_map(Value::table).collect()
    }

    /// Reports every key that was never taken.
    pub(super) fn finish(self) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if self.taken.contains(&name) {
                continue;
            }
            let message = match nearest(name, self.taken.iter().copied()) {
                Some(meant) => format!("no such key; did you mean `{meant}`?"),
                None => format!("no such key; known are {}", quoted(&self.taken)),
            };
            self.report.add(key.span().start, &self.key(name), message);
        }
    }

    fn key(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }
}

/// A value being read. What it is not is reported, and read as `None`.
pub(super) struct Value<'f> {
    report: &'f Report<'f>,
    key: String,
    span: Range<usize>,
    node: &'f DeValue<'f>,
}

impl<'f> Value<'f> {
    /// Reports what is wrong with it.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.report.add(self.span.start, &self.key, message);
    }

    /// The line it is on, from 1.
    pub(super) fn line(&self) -> usize {
        self.report.line(self.span.start)
    }

    /// Its text.
    pub(super) fn text(&self) -> Option<&'f str> {
        match self.node {
            DeValue::String(text) => Some(text),
            _ => self.mismatch("a text"),
        }
    }

    /// Its text, unless it is empty, long, or holds control characters.
    pub(super) fn label(&self, max_bytes: usize) -> Option<&'f str> {
        let text = self.text()?;
        if text.is_empty() || text.len() > max_bytes || text.contains(char::is_control) {
            self.refuse(format!(
                "must be 1 to {max_bytes} bytes without control characters"
            ));
            return None;
        }
        Some(text)
    }

    /// Its text, when it is one of `choices`.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.refuse(format!("no `{text}`; known are {}", quoted(&names)));
        }
        found.map(|(_, choice)| *choice)
    }

    /// The values of its list.
    pub(super) fn list(&self) -> Option<Vec<Value<'f>>> {
        let DeValue::Array(items) = self.node else {
            return self.mismatch("a list");
        };
        let items = items.iter().enumerate().map(|(index, item)| Value {
            report: self.report,
            key: format!("{}[{index}]", self.key),
            span: item.span(),
            node: item.get_ref(),
        });
        Some(items.collect())
    }

    /// How many values its list has, if it is one.
    pub(super) fn list_len(&self) -> Option<usize> {
        match self.node {
            DeValue::Array(items) => Some(items.len()),
            _ => None,
        }
    }

    /// Its list, or itself when it is none: for keys that take one or several.
    pub(super) fn one_or_several(self) -> Vec<Value<'f>> {
        match self.node {
            DeValue::Array(_) => self.list().unwrap_or_default(),
            _ => vec![self],
        }
    }

    /// Its table.
    pub(super) fn table(&self) -> Option<Table<'f>> {
        let DeValue::Table(entries) = self.node else {
            return self.mismatch("a table");
        };
        Some(Table {
            report: self.report,
            path: self.key.clone(),
            offset: self.span.start,
            entries,
            taken: Vec::new(),
        })
    }

    /// Its number, in `range`.
    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(_) = self.node else {
            return self.mismatch("a whole number");
        };
        self.in_range(self.integer(), range, |count| count.to_string())
    }

    /// Its size in bytes, in `range`: a whole number, or a text such as `64KiB`.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let bytes = match self.node {
            DeValue::Integer(_) => self.integer(),
            DeValue::String(text) => match unit::parse_size(text) {
                Some(bytes) => Some(bytes),
                None => {
                    self.refuse(format!(
                        "`{text}` is no size: write bytes, or a text such as `64KiB` or `1MiB`"
                    ));
                    return None;
                }
            },
            _ => return self.mismatch("a size such as `64KiB`"),
        };
        self.in_range(bytes, range, unit::show_size)
    }

    /// Its duration, in `range`: a text such as `60s`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let DeValue::String(text) = self.node else {
            return self.mismatch("a duration such as `500ms`, `60s`, `10m`, `1h` or `7d`");
        };
        let Some(duration) = unit::parse_duration(text) else {
            self.refuse(format!(
                "`{text}` is no duration: write `500ms`, `60s`, `10m`, `1h` or `7d`"
            ));
            return None;
        };
        self.in_range(Some(duration), range, unit::show_duration)
    }

    /// Its boolean.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.node {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.mismatch("`true` or `false`"),
        }
    }

    /// Its integer, unless that is negative or too large to be one.
    fn integer(&self) -> Option<u64> {
        let DeValue::Integer(integer) = self.node else {
            return None;
        };
        u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok()
    }

    /// A value in `range`; `None` is a number beyond any range.
    fn in_range<T: PartialOrd + Copy>(
        &self,
        value: Option<T>,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        let inside = value.filter(|value| range.contains(value));
        if inside.is_none() {
            let (least, most) = (show(*range.start()), show(*range.end()));
            self.refuse(format!("is out of range: must be from {least} to {most}"));
        }
        inside
    }

    fn mismatch<T>(&self, wanted: &str) -> Option<T> {
        let found = match self.node {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(format!("must be {wanted}, and is {found}"));
        None
    }
}

/// Names in backticks, separated by commas.
pub(super) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    names.join(", ")
}
