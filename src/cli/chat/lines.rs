//! Lines from stdin.

use std::io::{self, BufRead, IsTerminal};

use tokio::sync::mpsc;

/// Lines that may wait to be sent; more make the reading wait.
const UNSENT: usize = 64;

/// The lines of stdin, read by a thread of their own.
///
/// A read of a terminal cannot be given up. A thread that nobody waits for ends with the process,
/// where the runtime would wait for its own before it stops.
pub(super) struct Lines {
    lines: mpsc::Receiver<io::Result<String>>,
    is_terminal: bool,
}

impl Lines {
    pub(super) fn of_stdin() -> Self {
        let (sender, lines) = mpsc::channel(UNSENT);
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            lines,
            is_terminal: io::stdin().is_terminal(),
        }
    }

    /// Whether somebody is typing.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The next line; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<io::Result<String>> {
        self.lines.recv().await
    }
}
