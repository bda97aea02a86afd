//! The one harness: a real gateway on a port of its own, and words for what users, bots and channel
//! adapters do.
//!
//! Nothing here sleeps. Whoever waits, waits for an answer, and a watchdog says what did not come.
//! A test that gets an Error frame it did not ask for fails.

mod activities;
mod adapter;
mod bot;
mod direct_line;
mod http;
mod logs;
mod membership;
mod state;
mod store;
mod user;
mod watcher;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use turnwire::clock::{Clock, Manual, Timestamp};
use turnwire::config::{Changes, Config, Overrides};
use turnwire::limits::Limits;
use turnwire::proto::v1;
use turnwire::server::{Parts, ReloadError, Reloader, Server};
use turnwire::store::{KeyRange, Memory, Order, Store};

pub(crate) use activities::{info, message, padded, text, typing};
pub(crate) use adapter::Adapter;
pub(crate) use bot::{Bot, place_of, said};
pub(crate) use direct_line::{Answer, Chat, Frame, Line, says};
pub(crate) use logs::Logs;
pub(crate) use membership::{added_to, handover, kind_of, removed_from};
pub(crate) use state::{content, put};
pub(crate) use store::Kept;
pub(crate) use user::User;
pub(crate) use watcher::Watcher;
pub(crate) use wire::{Wire, refused};

/// How long anything may take. A limit for a broken gateway, not a measure of a good one.
const PATIENCE: Duration = Duration::from_secs(20);

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The gateway of a test that does not say otherwise.
const CONFIG: &str = r#"
listen = "127.0.0.1:0"
[[bots]]
id = "echo"
name = "Echo"
[[bots]]
id = "other"
[[bots]]
id = "probe"
[[channels]]
id = "web"
kind = "grpc"
bot = "echo"
outbound = "watch"
[[channels]]
id = "queue"
kind = "grpc"
bot = "echo"
service_url = "https://adapter.example.org/"
[[channels]]
id = "party"
kind = "grpc"
bot = "echo"
outbound = "watch"
capabilities = ["groups"]
[[channels]]
id = "second"
kind = "grpc"
bot = "other"
outbound = "watch"
# The secrets are `site-one` and `site-two`, and otherwise the channel's id.
[[channels]]
id = "site"
kind = "direct_line"
bot = "echo"
secrets_sha256 = [
    "c3587bab2324533079bf7be7254df8a5c50a5de28c72ab0fb49ea379d8103036",
    "9990f7b036e7c751cd1ba092b85255cb931dce1ed6999f3771ebc156d4021c97",
]
[[channels]]
id = "elsewhere"
kind = "direct_line"
bot = "echo"
secrets_sha256 = "7b1b763ee8f62eb88e4742a760f912d0b19bcd58b2b948999784bacc15a7f4d7"
[[channels]]
id = "trusting"
kind = "direct_line"
bot = "echo"
secrets_sha256 = "e86ebbf95af68f4d6fc2349be3d7855b23d8832809a1240eb9da5ff8d30a33ee"
trusted_origins = ["https://www.example.org", "http://localhost:*"]
[[channels]]
id = "enhanced"
kind = "direct_line"
bot = "echo"
secrets_sha256 = "aedbe9f5f1f5eaec316afa9e400027799b2451dcad28b6fd6cb7552fea2264a7"
enhanced_authentication = true
"#;

/// Waits for something, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// What a gateway is started with.
pub(crate) struct Setup {
    config: Config,
    on_disk: bool,
    data: Option<PathBuf>,
    logs: Option<Logs>,
}

impl Setup {
    /// Changes the configuration.
    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Adds to the configuration's text.
    pub(crate) fn and(self, text: &str) -> Self {
        self.rewritten(|config| format!("{config}\n{text}"))
    }

    /// Changes the configuration's text; limits stay.
    pub(crate) fn rewritten(mut self, change: impl FnOnce(&str) -> String) -> Self {
        let limits = self.config.limits.clone();
        self.config = parse(&change(CONFIG));
        self.config.limits = limits;
        self
    }

    /// Keeps everything in a folder, with the store that a gateway has in production.
    pub(crate) fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// Keeps everything in this folder, uploaded files as well.
    pub(crate) fn in_folder(mut self, data: &Path) -> Self {
        self.config.data_dir = data.to_owned();
        self.data = Some(data.to_owned());
        self
    }

    /// Writes all that it logs to where a test reads it.
    pub(crate) fn logged(mut self, logs: &Logs) -> Self {
        self.logs = Some(logs.clone());
        self
    }

    pub(crate) async fn start(self) -> Gateway {
        let kept = match self.data {
            Some(data) => Kept::at(&data),
            None if self.on_disk => Kept::folder(),
            None => Kept::memory(),
        };
        // Some day in 2026, at no round number.
        let clock = Arc::new(Manual::new(Timestamp(1_767_312_345_678)));
        let mut gateway = Gateway {
            running: None,
            clock,
            config: self.config,
            kept,
            logs: self.logs,
        };
        gateway.start_again().await;
        gateway
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, "test.toml", &|_| None, &Overrides::default()).expect("a good config")
}

/// A gateway that runs.
pub(crate) struct Gateway {
    running: Option<Running>,
    pub(crate) clock: Arc<Manual>,
    config: Config,
    kept: Kept,
    logs: Option<Logs>,
}

struct Running {
    address: SocketAddr,
    /// The gateway has a runtime of its own, so that all of it can be killed at one moment.
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
    plug: store::Handle,
    reloader: Option<Reloader>,
    /// A session that is never handed anything: for barriers.
    probe: Mutex<Option<Bot>>,
    wire: Wire,
}

impl Gateway {
    /// A gateway to be changed before it starts: no heartbeat and no Hello is late however far a test moves
    /// the clock, and shutdown waits for nobody.
    pub(crate) fn setup() -> Setup {
        let mut config = parse(CONFIG);
        config.limits.heartbeat_interval = YEAR;
        config.limits.hello_timeout = YEAR;
        config.limits.shutdown_grace = Duration::ZERO;
        Setup {
            config,
            on_disk: false,
            data: None,
            logs: None,
        }
    }

    /// The gateway of a test that needs nothing special.
    pub(crate) async fn start() -> Self {
        Self::setup().start().await
    }

    /// Starts on what was kept.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let (store, epoch, plug) = self.kept.open().expect("the store opens");
        let parts = Parts {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            store: Some((store, epoch)),
            seed: 7,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(logs::capture(self.logs.as_ref()))
            .build()
            .expect("a runtime");
        let config = self.config.clone();
        let bound = runtime.spawn(async move { Server::bind(&config, parts).await });
        let server = within("bind", bound)
            .await
            .expect("it does not panic")
            .expect("it binds");
        let address = server.address();
        let reloader = server.reloader().clone();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            // Dropped without a word, it means to go on until killed.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = runtime.spawn(async move {
            server.run(stopped).await.expect("the engine does not fail");
        });
        let wire = wire::connect(address, None).await;
        self.running = Some(Running {
            address,
            runtime: Some(runtime),
            stop: Some(stop),
            ended,
            plug,
            reloader: Some(reloader),
            probe: Mutex::new(None),
            wire,
        });
    }

    /// Stops as on SIGTERM.
    pub(crate) async fn stop(&mut self) {
        let mut running = self.running.take().expect("it runs");
        let stop = running.stop.take().expect("it was not told to stop yet");
        stop.send(()).expect("it listens");
        within("shutdown", &mut running.ended)
            .await
            .expect("it does not panic");
        running.end().await;
    }

    /// Tells the gateway to stop, and leaves it to it.
    pub(crate) fn begin_stop(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        let stop = running.stop.take().expect("it was not told to stop yet");
        stop.send(()).expect("it listens");
    }

    /// Waits for the end of what [`begin_stop`](Self::begin_stop) began.
    pub(crate) async fn stopped(&mut self) {
        let mut running = self.running.take().expect("it runs");
        within("shutdown", &mut running.ended)
            .await
            .expect("it does not panic");
        running.end().await;
    }

    /// Stops and starts again on the same store.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Ends as with SIGKILL and a machine that goes down: nothing more is written, and what was not
    /// synced is lost when the store is in memory.
    pub(crate) async fn kill(&mut self) {
        let running = self.running.take().expect("it runs");
        running.plug.pull();
        running.end().await;
        self.kept.crash();
    }

    /// Changes the configuration that it starts with the next time; limits stay.
    pub(crate) fn rewrite(&mut self, change: impl FnOnce(&str) -> String) {
        let limits = self.config.limits.clone();
        self.config = parse(&change(CONFIG));
        self.config.limits = limits;
    }

    /// Changes the configuration in force, and what it starts with the next time; limits stay.
    pub(crate) async fn reload(
        &mut self,
        change: impl FnOnce(&str) -> String,
    ) -> Result<Changes, ReloadError> {
        let mut config = parse(&change(CONFIG));
        config.limits = self.config.limits.clone();
        self.reload_to(config).await
    }

    /// The same for its limits alone.
    pub(crate) async fn relimit(
        &mut self,
        change: impl FnOnce(&mut Limits),
    ) -> Result<Changes, ReloadError> {
        let mut config = self.config.clone();
        change(&mut config.limits);
        self.reload_to(config).await
    }

    async fn reload_to(&mut self, config: Config) -> Result<Changes, ReloadError> {
        let (reloader, next) = (self.reloader(), config.clone());
        // Where the gateway's log is.
        let runtime = self.running().runtime.as_ref().expect("it has a runtime");
        let reloaded = runtime.spawn(async move { reloader.reload(next).await });
        let reloaded = within("a reload", reloaded).await;
        let reloaded = reloaded.expect("it does not panic");
        if reloaded.is_ok() {
            self.config = config;
        }
        reloaded
    }

    /// What puts other configurations in force.
    pub(crate) fn reloader(&self) -> Reloader {
        let reloader = self.running().reloader.as_ref();
        reloader.expect("it runs").clone()
    }

    /// Kills and starts again on what was synced.
    pub(crate) async fn crash(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// The store, when it is in memory.
    pub(crate) fn memory(&self) -> &Memory {
        self.kept.in_memory()
    }

    /// Whether some record of a store in memory has this text in it.
    pub(crate) fn stores(&self, text: &str) -> bool {
        let mut found = false;
        let all = KeyRange::everything();
        let scanned = self
            .memory()
            .scan(&all, Order::Ascending, &mut |key, value| {
                let has = |bytes: &[u8]| bytes.windows(text.len()).any(|at| at == text.as_bytes());
                found |= has(key) || has(&value);
                ControlFlow::Continue(())
            });
        scanned.expect("it can be read");
        found
    }

    /// Where everything is kept.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().address
    }

    /// Clients on the harness's own connection, without a token.
    pub(crate) fn wire(&self) -> Wire {
        self.running().wire.clone()
    }

    /// Clients on a connection of their own, with a token.
    pub(crate) async fn wire_with(&self, token: &str) -> Wire {
        wire::connect(self.address(), Some(token)).await
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    /// The user of a conversation on channel `web`.
    pub(crate) fn user(&self, conversation: &str) -> User {
        User::new(self.wire(), conversation)
    }

    /// Someone who calls Direct Line, with a secret or token.
    pub(crate) fn line(&self, credential: &str) -> Line {
        Line::new(self.address(), Some(credential))
    }

    /// Starts a conversation of Direct Line on channel `site`, with user `ann`.
    pub(crate) async fn chat(&self) -> Chat {
        Chat::start(&self.line("site-one"), "ann").await
    }

    /// A bot's session to be opened.
    pub(crate) fn bot(&self, bot: &str) -> bot::Opening {
        bot::Opening::new(self.address(), bot)
    }

    /// A channel adapter's stream to be opened.
    pub(crate) fn adapter(&self, channel: &str) -> adapter::Opening {
        adapter::Opening::new(self.address(), channel)
    }

    /// Moves time on, and waits until the gateway has done what was due.
    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.settle().await;
    }

    /// The same, in steps of one second: what the gateway does little by little needs them.
    pub(crate) async fn pass_slowly(&self, seconds: u64) {
        for _ in 0..seconds {
            self.pass(Duration::from_secs(1)).await;
        }
    }

    /// Loses the stream of a bot that can resume, and waits until the gateway knows.
    pub(crate) async fn cut(&self, bot: Bot) {
        const AWAY: &str = "turnwire_sessions_away";
        let before = self.metric(AWAY).await;
        bot.cut();
        let noticed = async {
            while self.metric(AWAY).await <= before {
                self.settle().await;
            }
        };
        within("a stream that is lost", noticed).await;
        self.settle().await;
    }

    /// Waits until the gateway has done all that it was told so far.
    pub(crate) async fn settle(&self) {
        let mut probe = self.running().probe.lock().await;
        if probe.is_none() {
            *probe = Some(self.bot("probe").credit(0, 0).attach().await);
        }
        if let Some(probe) = &mut *probe {
            probe.barrier().await;
        }
    }

    /// The whole log of a conversation on `web`.
    pub(crate) async fn log(&self, conversation: &str) -> Vec<v1::LogEntry> {
        self.log_on("web", conversation).await
    }

    /// The whole log of a conversation.
    pub(crate) async fn log_on(&self, channel: &str, conversation: &str) -> Vec<v1::LogEntry> {
        let mut entries = Vec::new();
        let mut request = v1::ListActivitiesRequest {
            conversation: Some(name(channel, conversation)),
            page_size: 1_000,
            ..Default::default()
        };
        loop {
            let mut client = self.wire().conversations();
            let page = within("a page", client.list_activities(request.clone())).await;
            let page = page.expect("a page of the log").into_inner();
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return entries;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// What was said in a conversation on `web`, in order.
    pub(crate) async fn texts(&self, conversation: &str) -> Vec<String> {
        let log = self.log(conversation).await;
        log.iter().map(|entry| text(&entry.activity)).collect()
    }

    /// Follows a conversation on `web`.
    pub(crate) async fn watch(&self, conversation: &str, after: u64) -> Watcher {
        let start = v1::watch_conversation_request::Start::AfterSequence(after);
        let watcher = Watcher::start(&self.wire(), conversation, Some(start)).await;
        watcher.expect("it may watch")
    }

    /// Follows a conversation on `web` from its end on, with what is ephemeral.
    pub(crate) async fn watch_live(&self, conversation: &str) -> Watcher {
        Watcher::live(&self.wire(), "web", conversation).await
    }

    /// What the gateway knows of a conversation on `web`.
    pub(crate) async fn conversation(&self, conversation: &str) -> v1::Conversation {
        let request = v1::GetConversationRequest {
            conversation: Some(name("web", conversation)),
        };
        let mut client = self.wire().conversations();
        let got = within("a conversation", client.get_conversation(request)).await;
        let got = got.expect("it is known").into_inner();
        got.conversation.expect("a conversation")
    }

    /// A series of the metrics.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let value = self.try_metric(series).await;
        value.unwrap_or_else(|| panic!("no `{series}` in the metrics"))
    }

    /// A series of the metrics, if it was counted already.
    pub(crate) async fn try_metric(&self, series: &str) -> Option<f64> {
        let (_, body) = http::get(self.address(), "/metrics").await;
        let value = body.lines().find_map(|line| line.strip_prefix(series))?;
        Some(value.trim().parse().expect("a number"))
    }

    /// An answer over HTTP/1.1.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        http::get(self.address(), path).await
    }
}

impl Running {
    /// Waits until nothing of the gateway is left.
    async fn end(mut self) {
        drop(self.probe.get_mut().take());
        drop(self.reloader.take());
        let runtime = self.runtime.take().expect("it has a runtime");
        let shut = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE));
        within("the runtime's end", shut)
            .await
            .expect("it does not panic");
        within("the store's end", self.plug.gone()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A conversation's name.
pub(crate) fn name(channel: &str, conversation: &str) -> v1::ConversationName {
    v1::ConversationName {
        channel_id: channel.to_owned(),
        conversation_id: conversation.to_owned(),
    }
}

/// A time in the API.
pub(crate) fn duration(time: Duration) -> prost_types::Duration {
    time.try_into().expect("a time in range")
}

/// So many seconds.
pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
