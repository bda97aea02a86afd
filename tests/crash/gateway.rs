//! The gateway as its own process, on a folder that outlives it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use turnwire_client::{Client, ClientOptions};

pub(crate) const BOT: &str = "echo";
pub(crate) const CHANNEL: &str = "chat";

/// So many attempts that no kill parks an activity: every one must be finished in the end.
const CONFIG: &str = r#"
[log]
filter = "warn"

[[bots]]
id = "echo"
delivery_attempts = 1000

[[channels]]
id = "chat"
kind = "grpc"
bot = "echo"
"#;

/// How long a gateway may take to open a store and listen, or to give up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration and a data folder, and the logs of all who ran on it.
pub(crate) struct Home {
    folder: TempDir,
    runs: usize,
}

/// A gateway that answers.
pub(crate) struct Gateway {
    process: Child,
    endpoint: String,
    log: PathBuf,
}

/// How a gateway ended that did not come to listen.
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        fs::write(folder.path().join("turnwire.toml"), CONFIG).expect("the configuration");
        Self { folder, runs: 0 }
    }

    /// The same configuration on a copy of the data.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_folder(&self.data(), &copy.data());
        copy
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The newest journal: the one that is written to.
    pub(crate) fn newest_journal(&self) -> PathBuf {
        let journals = self
            .files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "jnl"));
        let number = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            stem.and_then(|stem| stem.parse::<u64>().ok())
        };
        journals.max_by_key(number).expect("a journal")
    }

    /// All files of the data folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.data()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a readable folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// Starts a gateway, which either listens or ends.
    pub(crate) async fn start(&mut self) -> Result<Gateway, Refusal> {
        self.runs += 1;
        let log = self.folder.path().join(format!("run-{}.log", self.runs));
        let stderr = File::create(&log).expect("a log file");
        let mut process = Command::new(env!("CARGO_BIN_EXE_turnwire"))
            .arg("serve")
            .arg("--config")
            .arg(self.folder.path().join("turnwire.toml"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let stdout = process.stdout.take().expect("it was piped");
        let listening = tokio::time::timeout(START_TIMEOUT, endpoint(stdout)).await;
        match listening.expect("the gateway listens or ends in time") {
            Some(endpoint) => Ok(Gateway {
                process,
                endpoint,
                log,
            }),
            None => {
                let status = tokio::time::timeout(START_TIMEOUT, process.wait()).await;
                Err(Refusal {
                    status: status.expect("it ends in time").expect("its status"),
                    log: fs::read_to_string(log).expect("its log"),
                })
            }
        }
    }

    /// Starts a gateway that must come to listen.
    pub(crate) async fn run(&mut self) -> Gateway {
        match self.start().await {
            Ok(gateway) => gateway,
            Err(Refusal { status, log }) => panic!("the gateway ended with {status}: {log}"),
        }
    }
}

impl Gateway {
    pub(crate) async fn connect(&self) -> Client {
        let client = Client::connect(&*self.endpoint, ClientOptions::default()).await;
        client.expect("the gateway answers")
    }

    /// Kills it, as `kill -9` does. It must have been running, and without a panic.
    pub(crate) async fn kill(mut self) {
        let ended = self.process.try_wait().expect("its status");
        let log = || fs::read_to_string(&self.log).expect("its log");
        assert!(ended.is_none(), "it ended by itself, {ended:?}: {}", log());
        self.process.kill().await.expect("it is killed");
        let log = log();
        assert!(
            !log.contains("panicked") && !log.contains(" ERROR "),
            "{log}"
        );
    }
}

/// Reads up to the line with the address; the rest is read and dropped. `None` when there is none.
async fn endpoint(stdout: ChildStdout) -> Option<String> {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(endpoint) = line.strip_prefix("listening on ") {
            let endpoint = endpoint.trim().to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(endpoint);
        }
    }
    None
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a readable folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
