//! The processes of a bot, started and killed by the measurement.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::cli::connection::Connection;

/// What a process prints once it is attached.
pub(super) const ATTACHED: &str = "attached";

/// Between the number of the process that answers and what it answers.
pub(super) const NUMBER_SEPARATOR: char = '>';

/// How long a process may take to attach.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// An attached process of the bot.
pub(super) struct Process {
    child: Child,
    pub(super) number: usize,
}

impl Process {
    /// Starts one, and waits until it is attached.
    pub(super) async fn start(
        gateway: &str,
        connection: &Connection,
        bot: &str,
        number: usize,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["bench", "bot-process", "--gateway", gateway, "--bot", bot])
            .args(["--number", &number.to_string()])
            // It ends when this end of the pipe does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(token) = connection.token() {
            // Not as an argument, which everybody on the machine can read.
            command.env("TURNWIRE_TOKEN", token);
        }
        let mut child = command.spawn().context("cannot start a bot")?;
        let stdout = child.stdout.take().context("the bot has no stdout")?;
        tokio::time::timeout(ATTACH_TIMEOUT, attached(stdout))
            .await
            .context("a bot did not attach in time")??;
        Ok(Self { child, number })
    }

    /// Kills it, as a crash would.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("a bot has stopped by itself: {status}");
        }
        self.child.kill().await.context("cannot kill a bot")
    }
}

async fn attached(stdout: ChildStdout) -> anyhow::Result<()> {
    let mut lines = BufReader::new(stdout).lines();
    match lines.next_line().await? {
        Some(line) if line == ATTACHED => Ok(()),
        _ => bail!("a bot has stopped before it attached"),
    }
}
