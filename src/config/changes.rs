//! What differs between two configurations: what changes while a gateway runs, and what cannot.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::limits::Limits;

/// Limits that size what is made at start, or that what is stored depends on.
const FIXED_LIMITS: [&str; 6] = [
    "frame_bytes",
    "shard_commands",
    "idempotency_retention",
    "delivery_waiters",
    "creations",
    "backups",
];

/// What differs between two configurations. Prints as one line, and never shows a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What cannot change while the gateway runs.
    pub fixed: Vec<Setting>,
    /// Bots, by id.
    pub bots: Names,
    /// Channels, by id.
    pub channels: Names,
    /// Principals, by name.
    pub principals: Names,
    /// Limits.
    pub limits: Vec<Setting>,
}

/// Things that have names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Those that were not there before.
    pub added: Vec<String>,
    /// Those that are no longer there.
    pub removed: Vec<String>,
    /// Those of which anything is different.
    pub changed: Vec<String>,
}

/// A single value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, as in the file.
    pub key: String,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

impl Changes {
    /// What is different in `new`.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let Config {
            listen,
            data_dir,
            limits,
            bots,
            channels,
            principals,
            log,
            dev: _,
        } = old;
        let (mut fixed, limits) = limits_between(limits, &new.limits);
        let mut differs = |key: &str, from: String, to: String| {
            if from != to {
                let key = key.to_owned();
                fixed.push(Setting { key, from, to });
            }
        };
        differs("listen", listen.to_string(), new.listen.to_string());
        let dirs = [data_dir, &new.data_dir].map(|dir| dir.display().to_string());
        let [from, to] = dirs;
        differs("data_dir", from, to);
        let logs = [log, &new.log];
        let [from, to] = logs.map(|log| log.filter.clone());
        differs("log.filter", from, to);
        let [from, to] = logs.map(|log| format!("{:?}", log.format).to_lowercase());
        differs("log.format", from, to);
        Self {
            fixed,
            bots: Names::between(bots, &new.bots, |bot| bot.id.as_str()),
            channels: Names::between(channels, &new.channels, |channel| channel.id.as_str()),
            principals: Names::between(principals, &new.principals, |one| &one.name),
            limits,
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Names {
    fn between<T: PartialEq>(old: &[T], new: &[T], name: impl Fn(&T) -> &str) -> Self {
        let by_name = |of: &'_ [T]| -> HashMap<String, usize> {
            let named = of.iter().enumerate();
            named.map(|(at, one)| (name(one).to_owned(), at)).collect()
        };
        let (before, after) = (by_name(old), by_name(new));
        let names = |of: &[T], wanted: &dyn Fn(&T) -> bool| {
            let wanted = of.iter().filter(|one| wanted(one));
            wanted.map(|one| name(one).to_owned()).collect()
        };
        Self {
            added: names(new, &|one| !before.contains_key(name(one))),
            removed: names(old, &|one| !after.contains_key(name(one))),
            changed: names(new, &|one| {
                let at = before.get(name(one));
                at.is_some_and(|at| old[*at] != *one)
            }),
        }
    }
}

/// Those that cannot change, and those that can.
fn limits_between(old: &Limits, new: &Limits) -> (Vec<Setting>, Vec<Setting>) {
    // By their names in the file, which are those of the fields: none can be forgotten here.
    let table = |limits| match serde_json::to_value(limits) {
        Ok(Value::Object(table)) => table,
        _ => unreachable!("limits are a table of numbers and times"),
    };
    let (old, new) = (table(old), table(new));
    let changed = new.iter().filter_map(|(name, to)| {
        let from = old.get(name).filter(|from| *from != to)?;
        Some(Setting {
            key: format!("limits.{name}"),
            from: shown(from),
            to: shown(to),
        })
    });
    let is_fixed = |setting: &Setting| {
        let name = setting.key.trim_start_matches("limits.");
        FIXED_LIMITS.contains(&name)
    };
    changed.partition(is_fixed)
}

fn shown(value: &Value) -> String {
    match Duration::deserialize(value) {
        Ok(time) => format!("{time:?}"),
        Err(_) => value.to_string(),
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        for (kind, names) in [
            ("bots", &self.bots),
            ("channels", &self.channels),
            ("principals", &self.principals),
        ] {
            let changes = [
                ("added", &names.added),
                ("removed", &names.removed),
                ("changed", &names.changed),
            ];
            for (what, names) in changes {
                if !names.is_empty() {
                    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                    said.push(format!("{kind} {what}: {}", names.join(", ")));
                }
            }
        }
        let settings = self.limits.iter().chain(&self.fixed);
        said.extend(settings.map(Setting::to_string));
        if said.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&said.join("; "))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to } = self;
        write!(f, "`{key}` from {from} to {to}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const TOKEN: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn config(text: &str) -> Config {
        Config::parse(text, "test.toml", &|_| None, &Overrides::default()).expect("a good config")
    }

    fn between(old: &str, new: &str) -> Changes {
        Changes::between(&config(old), &config(new))
    }

    #[test]
    fn the_same_twice_differs_in_nothing() {
        let text = include_str!("../../turnwire.example.toml");
        let env = |name: &str| name.ends_with("SHA256").then(|| TOKEN.to_owned());
        let parse = || Config::parse(text, "example", &env, &Overrides::default());
        let (one, other) = (parse().expect("good"), parse().expect("good"));
        let changes = Changes::between(&one, &other);
        assert!(changes.is_empty(), "{changes}");
        assert_eq!(changes.to_string(), "nothing");
    }

    #[test]
    fn what_is_added_removed_and_changed_is_named_and_no_secret_is_shown() {
        let old = format!(
            r#"
            [limits]
            delivery_deadline = "30s"
            page = 10
            [[bots]]
            id = "gone"
            [[bots]]
            id = "kept"
            [[channels]]
            id = "web"
            kind = "grpc"
            bot = "gone"
            [[principals]]
            name = "ops"
            token_sha256 = "{TOKEN}"
            roles = ["admin"]
            "#
        );
        let new = format!(
            r#"
            [limits]
            delivery_deadline = "1m"
            page = 20
            [[bots]]
            id = "kept"
            name = "Kept"
            [[bots]]
            id = "new"
            [[channels]]
            id = "web"
            kind = "grpc"
            bot = "new"
            [[principals]]
            name = "ops"
            token_sha256 = "{}"
            roles = ["admin"]
            "#,
            TOKEN.replace("ba78", "0000")
        );
        let said = between(&old, &new).to_string();
        assert_eq!(
            said,
            "bots added: `new`; bots removed: `gone`; bots changed: `kept`; channels changed: `web`; \
             principals changed: `ops`; `limits.page` from 10 to 20; `limits.delivery_deadline` from \
             30s to 60s"
        );
        assert!(!said.contains("ba78") && !said.contains("0000"));
    }

    #[test]
    fn what_cannot_change_is_told_apart() {
        let changes = between(
            "",
            r#"
            listen = "127.0.0.1:1"
            data_dir = "elsewhere"
            [log]
            filter = "debug"
            format = "json"
            [limits]
            frame_bytes = "1MiB"
            shard_commands = 16
            idempotency_retention = "1h"
            sessions = 7
            "#,
        );
        let keys: Vec<_> = changes.fixed.iter().map(|fixed| &*fixed.key).collect();
        assert_eq!(
            keys,
            [
                "limits.frame_bytes",
                "limits.shard_commands",
                "limits.idempotency_retention",
                "listen",
                "data_dir",
                "log.filter",
                "log.format",
            ]
        );
        let listen = &changes.fixed[3];
        assert_eq!(
            listen.to_string(),
            "`listen` from 127.0.0.1:7878 to 127.0.0.1:1"
        );
        let limits: Vec<_> = changes.limits.iter().map(|limit| &*limit.key).collect();
        assert_eq!(limits, ["limits.sessions"]);
    }

    #[test]
    fn a_limit_that_is_fixed_is_one() {
        let limits = serde_json::to_value(Limits::default()).expect("numbers and times");
        for name in FIXED_LIMITS {
            assert!(limits.get(name).is_some(), "{name}");
        }
    }
}
