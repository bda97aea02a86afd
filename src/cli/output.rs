//! What goes to stdout.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::escape;

/// Whoever read stdout has gone.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub(super) struct OutputClosed;

/// Prints a line, made of parts that are safe to print.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    write(&format!("{text}\n"))
}

/// Prints a JSON document on a line.
pub(super) fn json(value: &serde_json::Value) -> anyhow::Result<()> {
    line(&escape::json(&value.to_string()))
}

/// Prints text that does not end a line, such as a prompt.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        Err(error) => Err(anyhow::Error::from(error).context("cannot write to stdout")),
    }
}

/// Colours, where they help: on a terminal, unless `NO_COLOR` says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    on: bool,
}

impl Palette {
    /// For stdout as it is.
    pub(super) fn of_stdout() -> Self {
        // https://no-color.org: set and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            on: io::stdout().is_terminal() && !unwanted,
        }
    }

    /// For what matters less.
    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For what a bot says.
    pub(super) fn bot(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// For what a user says.
    pub(super) fn user(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For headings, and for what to type.
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
