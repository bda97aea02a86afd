//! The real program, and a real signal.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};
use turnwire_client::proto::{Activity, ChannelAccount};
use turnwire_client::{Client, ClientOptions};

use crate::harness::within;

const CONFIG: &str = r#"
[[bots]]
id = "echo"
[[channels]]
id = "web"
kind = "grpc"
bot = "echo"
outbound = "watch"
"#;

struct Program {
    process: Child,
    log: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    endpoint: String,
}

impl Program {
    async fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_turnwire"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(folder.join("turnwire.toml"))
            .arg("--data")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let said = process.stdout.take().expect("it was piped");
        let mut said = BufReader::new(said).lines();
        let line = within("where it listens", said.next_line()).await;
        let line = line.expect("a text").expect("it listens");
        let endpoint = line.strip_prefix("listening on ").expect("where");
        let log: Box<dyn AsyncRead + Send + Unpin> =
            Box::new(process.stderr.take().expect("it was piped"));
        Self {
            endpoint: endpoint.to_owned(),
            log: BufReader::new(log).lines(),
            process,
        }
    }

    fn hang_up(&self) {
        let id = self.process.id().expect("it runs");
        let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
        kill_process(id, Signal::HUP).expect("it is there");
    }

    /// The next line of the log that has this in it.
    async fn logs(&mut self, part: &str) -> String {
        loop {
            let line = within(part, self.log.next_line()).await;
            let line = line.expect("a text").expect("it goes on");
            if line.contains(part) {
                return line;
            }
        }
    }
}

#[tokio::test]
async fn the_program_reads_its_configuration_again_on_sighup() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| fs::write(folder.path().join("turnwire.toml"), text).expect("a file");
    write(CONFIG);
    let mut program = Program::start(folder.path()).await;
    let endpoint = program.endpoint.clone();
    let post = |channel: &'static str| {
        let endpoint = endpoint.clone();
        async move {
            let client = Client::connect(endpoint, ClientOptions::default()).await;
            let said = Activity::message("hi")
                .from_account(ChannelAccount::with_id("ann"))
                .in_conversation("c1");
            client
                .expect("it answers")
                .post_activity(channel, said)
                .await
        }
    };
    assert!(post("web").await.is_ok());
    assert!(post("kiosk").await.is_err());

    write(&format!(
        "{CONFIG}[[channels]]\nid = \"kiosk\"\nkind = \"grpc\"\nbot = \"echo\"\n[limits]\npage = 7\n"
    ));
    program.hang_up();
    let line = program.logs("is in force").await;
    assert!(line.contains("channels added: `kiosk`"), "{line}");
    assert!(line.contains("`limits.page` from 1000 to 7"), "{line}");
    assert!(post("kiosk").await.is_ok());

    write("[[bots]]\nid = \"echo\"\nid = 7\n");
    program.hang_up();
    let line = program.logs("the configuration is wrong").await;
    assert!(line.contains("turnwire.toml:3:"), "{line}");
    program.logs("the one before still is").await;
    assert!(post("kiosk").await.is_ok());

    let id = program.process.id().expect("it runs");
    let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
    kill_process(id, Signal::TERM).expect("it is there");
    let ended = within("its end", program.process.wait()).await;
    assert!(ended.expect("it ends").success());
}
