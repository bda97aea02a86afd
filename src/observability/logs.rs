//! Logs, on standard error: standard output is for what a command was asked for.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Format, Log};

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one. Never for that of a checked configuration.
    #[error("`{filter}` is no log filter: {source}")]
    Filter {
        /// What was asked for.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logging has begun already in this process.
    #[error("logging was already set up: {0}")]
    Twice(#[from] TryInitError),
}

/// Begins to log, once for the whole process.
///
/// # Errors
///
/// When the filter cannot be parsed, or when logging has begun already.
pub fn init(log: &Log) -> Result<(), Error> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .map_err(|source| Error::Filter {
            filter: log.filter.clone(),
            source,
        })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    match log.format {
        // Colours for people only; a file or a collector gets plain text.
        Format::Text => builder
            .with_ansi(stderr().is_terminal())
            .finish()
            .try_init()?,
        Format::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_refused_by_name() {
        let log = Log {
            filter: "turnwire=loud".to_owned(),
            ..Log::default()
        };
        let error = init(&log).expect_err("no such level");
        assert!(
            error
                .to_string()
                .starts_with("`turnwire=loud` is no log filter")
        );
    }
}
