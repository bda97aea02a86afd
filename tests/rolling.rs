//! Rolling restarts: of the replicas of a bot, and of the gateway, while users talk and wait for
//! answers. Nothing is lost, nothing is answered twice, the order is kept, and nobody waits long.
#![cfg(unix)]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use turnwire_client::backoff::Backoff;
use turnwire_client::bot::{Bot, Turn, TurnError};
use turnwire_client::conversations::{Start, WatchStep};
use turnwire_client::proto::{Activity, ChannelAccount, ConversationName, ReadOrder};
use turnwire_client::{Client, ClientOptions, Error};

const CONFIG: &str = r#"
[[bots]]
id = "echo"
[[channels]]
id = "web"
kind = "grpc"
bot = "echo"
outbound = "watch"
"#;

const USERS: usize = 12;
const REPLICAS: usize = 3;

/// Whatever is waited for comes within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What users are promised. A machine that is busy with other things may take longer, up to `BUSY`.
const PROMISED_PAUSE: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(8);

async fn within<T>(what: &str, waited: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(came) => came,
        Err(_) => panic!("{what} did not come in time"),
    }
}

struct Gateway {
    process: Child,
    endpoint: String,
}

impl Gateway {
    /// Starts the program; on a port that is free when there was none before.
    async fn start(folder: &Path, address: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_turnwire"))
            .args(["serve", "--listen", address, "--config"])
            .arg(folder.join("turnwire.toml"))
            .arg("--data")
            .arg(folder.join("data"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let said = process.stdout.take().expect("it was piped");
        let mut said = BufReader::new(said).lines();
        let line = within("where it listens", said.next_line()).await;
        let line = line.expect("a text").expect("it listens");
        let endpoint = line.strip_prefix("listening on ").expect("where");
        let endpoint = endpoint.trim().to_owned();
        Self { process, endpoint }
    }

    /// Stops it as an operator would, and starts it again on the same port.
    async fn restart(mut self, folder: &Path) -> Self {
        self.stop().await;
        let address = self.endpoint.strip_prefix("http://").expect("an address");
        Self::start(folder, address).await
    }

    async fn stop(&mut self) {
        let id = self.process.id().expect("it runs");
        let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
        kill_process(id, Signal::TERM).expect("it is there");
        let ended = within("its end", self.process.wait()).await;
        assert!(ended.expect("it ends").success());
    }
}

struct Replica {
    stop: oneshot::Sender<()>,
    bot: JoinHandle<Result<(), Error>>,
}

impl Replica {
    fn start(client: &Client) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let bot = Bot::builder("echo").build(client);
        let shutdown = async {
            let _ = stopped.await;
        };
        let bot = tokio::spawn(bot.run_until(shutdown, answer));
        Self { stop, bot }
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        let ended = within("the bot's end", self.bot).await;
        ended.expect("it does not panic").expect("it was let in");
    }
}

/// Takes a moment, so that a restart always finds turns in work.
async fn answer(turn: Turn) -> Result<String, TurnError> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let attempt = turn.attempt();
    Ok(format!("{} at attempt {attempt}", turn.text()))
}

/// Waits for the answer to each message before it says the next, until it is told to stop; returns how
/// much was said, and the longest wait.
async fn talk(client: Client, conversation: String, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let name = ConversationName::new("web", &conversation);
    let mut said = 0;
    let mut longest = Duration::ZERO;
    let mut watched = None;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        post(&client, &conversation, said).await;
        let watch = watched.get_or_insert_with(|| {
            let watch = client.conversations().watch(name.clone(), Start::Beginning);
            Box::pin(watch)
        });
        let awaited = format!("{said} at attempt ");
        loop {
            let step = within("an answer", watch.next()).await;
            let step = step.expect("the watch goes on").expect("it may be watched");
            if let WatchStep::Entry(entry) = step
                && let Some(activity) = entry.activity
                && activity.text().starts_with(&awaited)
            {
                break;
            }
        }
        longest = longest.max(asked.elapsed());
        said += 1;
    }
    (said, longest)
}

/// Says it until the gateway has it. The activity's id makes that safe.
async fn post(client: &Client, conversation: &str, number: usize) {
    let mut waits = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
    let until = Instant::now() + PATIENCE;
    loop {
        let mut activity = Activity::message(number.to_string())
            .from_account(ChannelAccount::with_id("ann"))
            .in_conversation(conversation);
        activity.id = Some(format!("{conversation}-{number}"));
        match client.post_activity("web", activity).await {
            Ok(_) => return,
            Err(error) if error.is_retryable() && Instant::now() < until => {
                tokio::time::sleep(waits.next_delay()).await;
            }
            Err(error) => panic!("it was not taken: {error}"),
        }
    }
}

/// The texts of a conversation.
async fn texts(client: &Client, conversation: &str) -> Vec<String> {
    let name = ConversationName::new("web", conversation);
    let entries = client
        .conversations()
        .activities(name, ReadOrder::OldestFirst);
    let texts = entries.map(|entry| {
        let activity = entry.expect("it is read").activity.expect("an activity");
        activity.text().to_owned()
    });
    within("the transcript", texts.collect()).await
}

struct Users {
    stop: Arc<AtomicBool>,
    users: Vec<JoinHandle<(usize, Duration)>>,
}

impl Users {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let talk = |user| talk(client.clone(), format!("c{user}"), Arc::clone(&stop));
        let users = (0..USERS).map(|user| tokio::spawn(talk(user))).collect();
        Self { stop, users }
    }

    /// Ends the talk and looks at what was said. Returns the attempts that were more than the first.
    async fn end(self, what: &str, client: &Client) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (mut turns, mut longest, mut repeated) = (0, Duration::ZERO, 0);
        for (user, talked) in self.users.into_iter().enumerate() {
            let (said, pause) = within("a user's end", talked).await.expect("no panic");
            turns += said;
            longest = longest.max(pause);
            // A message, its answer, the next message: nothing twice, nothing missing, nothing overtaken.
            let texts = texts(client, &format!("c{user}")).await;
            assert_eq!(texts.len(), 2 * said, "{texts:?}");
            for (number, pair) in texts.chunks(2).enumerate() {
                assert_eq!(pair[0], number.to_string());
                let attempt = pair[1].strip_prefix(&format!("{number} at attempt "));
                let attempt = attempt.unwrap_or_else(|| panic!("{pair:?} is {number}"));
                repeated += usize::from(attempt != "1");
            }
        }
        println!(
            "{what}: {turns} turns, the longest took {longest:?} (promised {PROMISED_PAUSE:?})"
        );
        assert!(turns > USERS, "they talked");
        assert!(longest < BUSY, "somebody waited for {longest:?}");
        repeated
    }
}

/// Lets the users go on talking for a while.
async fn load() {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

async fn connect(gateway: &Gateway) -> Client {
    let client = Client::connect(&*gateway.endpoint, ClientOptions::default()).await;
    client.expect("it answers")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("turnwire.toml"), CONFIG).expect("a file");
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_a_bot_restart_one_after_another_and_users_notice_nothing() {
    let folder = folder();
    let mut gateway = Gateway::start(folder.path(), "127.0.0.1:0").await;
    let client = connect(&gateway).await;
    let mut replicas: Vec<Replica> = (0..REPLICAS).map(|_| Replica::start(&client)).collect();
    let users = Users::start(&client);
    for _ in 0..2 * REPLICAS {
        load().await;
        replicas.remove(0).stop().await;
        replicas.push(Replica::start(&client));
    }
    load().await;
    let repeated = users.end("replicas of a bot", &client).await;
    assert_eq!(
        repeated, 0,
        "what is given back does not count as an attempt"
    );
    for replica in replicas {
        replica.stop().await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_restarts_and_its_bots_and_users_go_on() {
    let folder = folder();
    let mut gateway = Gateway::start(folder.path(), "127.0.0.1:0").await;
    let client = connect(&gateway).await;
    let replicas: Vec<Replica> = (0..REPLICAS).map(|_| Replica::start(&client)).collect();
    let users = Users::start(&client);
    for _ in 0..3 {
        load().await;
        gateway = gateway.restart(folder.path()).await;
    }
    load().await;
    users.end("the gateway", &client).await;
    for replica in replicas {
        replica.stop().await;
    }
    gateway.stop().await;
}
