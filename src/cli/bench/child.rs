//! A gateway of the measurement's own: the same program, as a child.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};

use super::facts;
use crate::cli::scratch::Scratch;

/// The channel and the bot of [`CONFIG`].
pub(super) const CHANNEL: &str = "bench";
pub(super) const BOT: &str = "bench";

/// It logs only what is wrong: that anyone may call it is known, and nobody else learns its port.
const CONFIG: &str = r#"[log]
filter = "error"

[[bots]]
id = "bench"

[[channels]]
id = "bench"
kind = "grpc"
bot = "bench"
"#;

/// What a process prints before the address it listens on.
pub(super) const LISTENING: &str = "listening on ";

/// How long a gateway may take to open its store and listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to stop in good order.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What a benchmark wants different from the usual.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// Lines of the configuration's table `[limits]`.
    pub(super) limits: String,
    /// Tables beside those of [`CONFIG`].
    pub(super) tables: String,
}

pub(super) struct Child {
    // Before the folder, so that it is killed before its data is removed.
    process: Process,
    scratch: Scratch,
}

/// This program as another process, which listens.
pub(super) struct Process {
    process: tokio::process::Child,
    address: String,
}

impl Process {
    /// Starts one, which is killed when it is dropped.
    pub(super) async fn start<S: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start another process")?;
        let stdout = process.stdout.take().context("it has no stdout")?;
        let address = tokio::time::timeout(START_TIMEOUT, address(stdout))
            .await
            .context("the other process did not listen in time")??;
        Ok(Self { process, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Child {
    /// Starts a gateway with an empty store in a fresh folder of `parent`.
    pub(super) async fn start(parent: Option<&Path>, options: &Options) -> anyhow::Result<Self> {
        let scratch = Scratch::new(parent, "bench")?;
        std::fs::write(config_file(&scratch), config(options))
            .context("cannot write the gateway's configuration")?;
        Ok(Self {
            process: spawn(&scratch).await?,
            scratch,
        })
    }

    /// Starts it again on the data that it has. It listens elsewhere afterwards.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        self.process = spawn(&self.scratch).await?;
        Ok(())
    }

    /// Where it listens.
    pub(super) fn gateway(&self) -> &str {
        self.process.address()
    }

    /// The folder its data is in.
    pub(super) fn data(&self) -> &Path {
        self.scratch.path()
    }

    /// Its process; `None` once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.process.id()
    }

    /// What it has in memory, if the system says it: resident, file pages included.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        facts::member(&status, "VmRSS").and_then(facts::kilobytes)
    }

    /// The same, with each page divided by how many processes have it.
    pub(super) fn proportional_bytes(&self) -> Option<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()?)).ok()?;
        facts::member(&rollup, "Pss").and_then(facts::kilobytes)
    }

    /// Kills it, as a crash would; its data stays. Does nothing when it was killed before.
    ///
    /// # Errors
    ///
    /// It has ended by itself, which no benchmark may take for a success.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        let process = &mut self.process.process;
        if process.id().is_none() {
            return Ok(());
        }
        if let Some(status) = process.try_wait()? {
            bail!("the gateway has stopped by itself: {status}");
        }
        process.kill().await.context("cannot stop the gateway")
    }

    /// Asks it to stop, as an operator does, and waits until it has; its data stays.
    ///
    /// # Errors
    ///
    /// It did not stop in time, or not in good order.
    pub(super) async fn terminate(&mut self) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the gateway does not run")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .context("cannot ask the gateway to stop")?;
        let status = tokio::time::timeout(STOP_TIMEOUT, self.process.process.wait())
            .await
            .context("the gateway did not stop in time")??;
        ensure!(status.success(), "the gateway stopped with {status}");
        Ok(())
    }

    /// Kills it: there is nothing that it should keep.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.kill().await
    }
}

fn config_file(scratch: &Scratch) -> PathBuf {
    scratch.path().join("turnwire.toml")
}

fn config(options: &Options) -> String {
    let Options { limits, tables } = options;
    format!("{CONFIG}\n{tables}\n[limits]\n{limits}\n")
}

async fn spawn(scratch: &Scratch) -> anyhow::Result<Process> {
    let config = config_file(scratch);
    let data = scratch.path().join("data");
    let gateway = Process::start([
        OsStr::new("serve"),
        OsStr::new("--config"),
        config.as_os_str(),
        OsStr::new("--listen"),
        OsStr::new("127.0.0.1:0"),
        OsStr::new("--data"),
        data.as_os_str(),
    ]);
    gateway.await.context("the gateway does not start")
}

/// Reads up to the line with the address; the rest is read and dropped, so that the gateway never
/// waits for somebody to read it.
async fn address(stdout: ChildStdout) -> anyhow::Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = line.strip_prefix(LISTENING) {
            let address = address.trim().to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address);
        }
    }
    bail!("it has stopped before it listened")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Outbound, Overrides};

    #[test]
    fn the_configuration_is_one_whose_adapter_gets_the_answers() -> anyhow::Result<()> {
        let options = Options {
            limits: "sessions = 7".to_owned(),
            tables: "[[bots]]\nid = \"another\"".to_owned(),
        };
        let text = config(&options);
        let config = Config::parse(&text, "bench", &|_| None, &Overrides::default())?;
        assert_eq!(config.limits.sessions, 7);
        assert_eq!(config.bots[0].id.as_str(), BOT);
        assert_eq!(config.bots.len(), 2);
        assert_eq!(config.channels[0].id.as_str(), CHANNEL);
        assert_eq!(config.channels[0].outbound, Outbound::Queue);
        Ok(())
    }
}
