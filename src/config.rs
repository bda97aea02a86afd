//! The configuration: one TOML file, and flags over it, checked whole before anything starts.
//!
//! Everything that is wrong is reported at once, each with its file, line and key. A [`Config`]
//! that exists has been checked: bots that are named are registered, ids are well-formed and
//! unique, limits are in their ranges. Values may come from the environment: `${NAME}`,
//! `${NAME:-default}`, and `$$` for a dollar. `turnwire.example.toml` shows every key.

mod bot;
mod changes;
mod channel;
mod direct_line;
mod environment;
mod file;
mod limits;
mod listen;
mod log;
mod named;
mod nearest;
mod principal;
mod problem;
mod unit;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::auth::Credentials;
use crate::limits::Limits;

pub use bot::{Bot, Hears, OnPoison};
pub use changes::{Changes, Names, Setting};
pub use channel::{Channel, Kind, Outbound};
pub use log::{Format, Log};
pub use problem::{Error, Place, Problem};
pub(crate) use unit::parse_duration;

/// A gateway in development: one bot, and one channel whose users read by watching.
const DEV: &str = include_str!("config/dev.toml");

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the one listener binds. Default 127.0.0.1:7878. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of the store, made when it is absent. A relative one is relative to where the
    /// gateway is started. Default `turnwire-data`.
    pub data_dir: PathBuf,
    /// The gateway's limits.
    pub limits: Limits,
    /// The registered bots, in the file's order, ids unique.
    pub bots: Vec<Bot>,
    /// The channels, in the file's order, ids unique.
    pub channels: Vec<Channel>,
    /// Who may call. None: everyone may do everything, on a loopback address only.
    pub principals: Vec<Credentials>,
    /// What is logged, and how.
    pub log: Log,
    /// Whether it is one to try things with: the chat page is served at `/`. Never said in a file.
    pub dev: bool,
}

/// What flags say over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--data`.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads and checks a file, with the process's environment.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or anything in it is wrong.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path.display().to_string();
        Self::parse(&text, &name, &|name| std::env::var(name).ok(), overrides)
    }

    /// Checks a text; `name` is what its problems call it, `env` where its variables come from.
    ///
    /// Flags come in here and not afterwards, because what they change must be checked with the
    /// rest: an address is refused or not depending on the principals.
    ///
    /// # Errors
    ///
    /// When anything in it is wrong: variables first, then TOML's grammar, then what it says; each
    /// of these reports all it finds.
    pub fn parse(
        text: &str,
        name: &str,
        env: &dyn Fn(&str) -> Option<String>,
        overrides: &Overrides,
    ) -> Result<Self, Error> {
        let expanded = environment::Expanded::new(text, env).map_err(|faults| {
            let problems = faults
                .into_iter()
                .map(|fault| Problem::at(name, text, fault.offset, "", fault.message));
            Error::Invalid(problems.collect())
        })?;
        let report = file::Report::new(name, text, &expanded);

        let (document, errors) = DeTable::parse_recoverable(&expanded.text);
        let read = errors.is_empty().then(|| {
            let table = file::Table::root(&report, &document);
            read(table, &report, overrides)
        });
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            report.add(offset, "", error.message());
        }
        match (read, report.into_problems()) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Error::Invalid(problems)),
        }
    }

    /// A configuration to try things with: the bot `echo`, and the `grpc` channel `dev` that is
    /// routed to it, can do groups and typing, and whose users read by watching.
    ///
    /// # Errors
    ///
    /// When `overrides` ask for an address other machines can reach.
    pub fn dev(overrides: &Overrides) -> Result<Self, Error> {
        let config = Self::parse(DEV, "dev.toml", &|_| None, overrides)?;
        Ok(Self {
            dev: true,
            ..config
        })
    }
}

fn read(mut root: file::Table<'_>, report: &file::Report<'_>, overrides: &Overrides) -> Config {
    let listen = root.take("listen");
    let data_dir = root.take("data_dir");
    let limits = match root.take("limits").and_then(|value| value.table()) {
        Some(table) => limits::read(table),
        None => Limits::default(),
    };
    let log = match root.take("log").and_then(|value| value.table()) {
        Some(table) => log::read(table),
        None => Log::default(),
    };
    let bots = bot::read_all(root.tables("bots"), &limits);
    let channels = channel::read_all(root.tables("channels"), &bots, limits.conversation_bots);
    let tables = root.tables("principals");
    let open = tables.is_empty();
    let principals = principal::read_all(tables, &bots, &channels);
    root.finish();

    Config {
        listen: listen::read(listen, overrides.listen, open, report),
        data_dir: data_dir_of(data_dir.as_ref(), overrides.data_dir.as_deref()),
        limits,
        bots: bots.values,
        channels: channels.values,
        principals,
        log,
        dev: false,
    }
}

fn data_dir_of(value: Option<&file::Value<'_>>, flag: Option<&Path>) -> PathBuf {
    const DEFAULT: &str = "turnwire-data";
    const PATH_BYTES: usize = 4_096;
    let written = value.and_then(|value| value.label(PATH_BYTES));
    match (flag, written) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) => path.into(),
        (None, None) => DEFAULT.into(),
    }
}

#[cfg(test)]
mod tests;
