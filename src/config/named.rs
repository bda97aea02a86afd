//! Things with a name of their own: told apart by it, and found by it.

use crate::config::file::{Value, quoted};
use crate::config::nearest::nearest;

/// Longest name that people read, in bytes.
pub(super) const LABEL_BYTES: usize = 128;

/// All things of one sort.
pub(super) struct Named<T> {
    sort: &'static str,
    /// Those that were read without a problem in their name.
    pub(super) values: Vec<T>,
    /// Every name that was claimed and its line, so that one thing's other problems are not
    /// reported again wherever it is named.
    claimed: Vec<(String, usize)>,
}

impl<T> Named<T> {
    /// None yet of what problems call a `sort`.
    pub(super) fn new(sort: &'static str) -> Self {
        Self {
            sort,
            values: Vec::new(),
            claimed: Vec::new(),
        }
    }

    /// Takes a name for one thing, if it passes `check` and is nobody else's.
    pub(super) fn claim<'f>(
        &mut self,
        value: Option<Value<'f>>,
        check: impl Fn(&Value<'f>, &str) -> bool,
    ) -> Option<&'f str> {
        let value = value?;
        let name = value.text()?;
        if !check(&value, name) {
            return None;
        }
        if let Some((_, line)) = self.claimed.iter().find(|(claimed, _)| claimed == name) {
            value.refuse(format!(
                "another {} is called `{name}`, on line {line}: choose a different one",
                self.sort
            ));
            return None;
        }
        self.claimed.push((name.to_owned(), value.line()));
        Some(name)
    }

    /// Whether a name that `value` mentions is claimed; reports it when it is not.
    pub(super) fn resolve(&self, value: &Value<'_>, name: &str) -> bool {
        let names: Vec<&str> = self.claimed.iter().map(|(name, _)| name.as_str()).collect();
        let sort = self.sort;
        let known = names.contains(&name);
        if !known {
            let hint = match nearest(name, names.iter().copied()) {
                _ if names.is_empty() => format!("none is registered: add a `[[{sort}s]]` table"),
                Some(meant) if names.len() > 1 => {
                    format!("did you mean `{meant}`? registered are {}", quoted(&names))
                }
                _ => format!("registered are {}", quoted(&names)),
            };
            value.refuse(format!("no {sort} `{name}` is registered; {hint}"));
        }
        known
    }
}
