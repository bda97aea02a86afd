//! A gateway of the measurement's own: the same program, as a child.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};

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

/// What `serve` prints before the address it listens on.
const LISTENING: &str = "listening on ";

/// How long a gateway may take to open an empty store and listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Child {
    // Before the folder, so that it is killed before its data is removed.
    process: tokio::process::Child,
    gateway: String,
    scratch: Scratch,
}

impl Child {
    /// Starts a gateway with an empty store in a fresh folder of `parent`.
    pub(super) async fn start(parent: Option<&Path>) -> anyhow::Result<Self> {
        let scratch = Scratch::new(parent, "bench")?;
        let config = scratch.path().join("turnwire.toml");
        std::fs::write(&config, CONFIG).context("cannot write the gateway's configuration")?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut process = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(scratch.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a gateway")?;
        let stdout = process.stdout.take().context("the gateway has no stdout")?;
        let gateway = tokio::time::timeout(START_TIMEOUT, address(stdout))
            .await
            .context("the gateway did not listen in time")??;
        Ok(Self {
            process,
            gateway,
            scratch,
        })
    }

    pub(super) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The folder its data is in.
    pub(super) fn data(&self) -> &Path {
        self.scratch.path()
    }

    /// Kills it: there is nothing that it should keep.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the gateway has stopped by itself: {status}");
        }
        self.process.kill().await.context("cannot stop the gateway")
    }
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
    bail!("the gateway has stopped before it listened")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Outbound, Overrides};

    #[test]
    fn the_configuration_is_one_whose_adapter_gets_the_answers() -> anyhow::Result<()> {
        let config = Config::parse(CONFIG, "bench", &|_| None, &Overrides::default())?;
        assert_eq!(config.bots[0].id.as_str(), BOT);
        assert_eq!(config.channels[0].id.as_str(), CHANNEL);
        assert_eq!(config.channels[0].outbound, Outbound::Queue);
        Ok(())
    }
}
