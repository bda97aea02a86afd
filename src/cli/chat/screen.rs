//! What the user sees.

use std::io::{self, IsTerminal};

use turnwire_client::proto::{ConversationName, LogEntry};

use crate::cli::output::{self, Palette};
use crate::cli::{address, escape, json, show};

/// Goes to the start of the line and clears it: takes the prompt away.
const CLEAR_LINE: &str = "\r\x1b[K";

/// Stdout, with a prompt when somebody types and somebody reads.
pub(super) struct Screen {
    json: bool,
    prompts: bool,
    palette: Palette,
}

impl Screen {
    pub(super) fn new(json: bool, typing: bool) -> Self {
        Self {
            json,
            prompts: typing && !json && io::stdout().is_terminal(),
            palette: Palette::of_stdout(),
        }
    }

    /// Says where the user is, and how to leave.
    pub(super) fn begin(&self, conversation: &ConversationName) -> anyhow::Result<()> {
        if !self.prompts {
            return Ok(());
        }
        let conversation = address::text(conversation);
        let line = format!("{}, Ctrl-D leaves", escape::line(&conversation));
        output::line(&self.palette.dim(&line))
    }

    pub(super) fn prompt(&self) -> anyhow::Result<()> {
        if self.prompts {
            output::write(&self.palette.user("> "))?;
        }
        Ok(())
    }

    /// Shows what somebody else did, above the prompt.
    pub(super) fn show(&self, entry: &LogEntry) -> anyhow::Result<()> {
        let Some(activity) = &entry.activity else {
            return Ok(());
        };
        if self.json {
            return output::json(&json::encode(activity));
        }
        let who = show::who(activity);
        let indent = " ".repeat(who.chars().count() + 2);
        let what = show::what_in_lines(activity, &indent);
        let line = format!("{}: {what}", self.palette.bot(&who));
        if self.prompts {
            output::write(CLEAR_LINE)?;
        }
        output::line(&line)?;
        self.prompt()
    }

    /// Leaves the shell's prompt a line of its own.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        if self.prompts {
            output::line("")?;
        }
        Ok(())
    }
}
