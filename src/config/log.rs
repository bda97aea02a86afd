//! `[log]`: what is logged, and how.

use tracing_subscriber::EnvFilter;

use crate::config::file::Table;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks. Default [`Format::Text`].
    pub format: Format,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it, for example
    /// `info,turnwire::engine=debug`. Default `info`. Checked: it parses.
    pub filter: String,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: Format::default(),
            // The store's library says at info what only its authors can use.
            filter: "info,fjall=warn,lsm_tree=warn".to_owned(),
        }
    }
}

pub(super) fn read(mut table: Table<'_>) -> Log {
    let formats = [("text", Format::Text), ("json", Format::Json)];
    let mut log = Log::default();
    if let Some(format) = table
        .take("format")
        .and_then(|value| value.choice(&formats))
    {
        log.format = format;
    }
    if let Some(value) = table.take("filter")
        && let Some(text) = value.text()
    {
        match EnvFilter::builder().parse(text) {
            Ok(_) => log.filter = text.to_owned(),
            Err(error) => value.refuse(format!(
                "`{text}` is no filter: {error}; write for example `info,turnwire=debug`"
            )),
        }
    }
    table.finish();
    log
}
