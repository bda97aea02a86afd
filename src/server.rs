//! The one meeting place: a configuration becomes parts, parts become a running gateway.
//!
//! [`Server::bind`] opens the store, starts the engine and binds the listener; [`Server::run`] serves
//! until it is told to stop, and then drains: sessions are told, work in flight is waited for, the
//! store is synced.

mod connections;
mod reload;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::auth::Authenticator;
use crate::capacity::Capacity;
use crate::channel::direct_line::{DirectLine, Served};
use crate::clock::{Clock, System};
use crate::config::{self, Config};
use crate::engine::{self, Engine, settings};
use crate::files::{self, Files};
use crate::metrics::Metrics;
use crate::proto::v1;
use crate::store::{self, Embedded, embedded};
use crate::{grpc, http};

pub use reload::{Error as ReloadError, Reloader};

/// How long streams are given to end, however short the grace is.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look for uploaded files that are kept no longer.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened.
    #[error("cannot open the store")]
    Store(#[from] store::Error),
    /// The engine could not start.
    #[error("cannot start the engine")]
    Engine(#[from] engine::Error),
    /// The folder of uploaded files cannot be read or written.
    #[error("cannot read or write the folder of attachments")]
    Files(#[source] io::Error),
    /// The listener could not be bound.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A part of the engine failed while it ran: a bug. What is stored is whole.
    #[error("the engine failed, which is a bug; what is stored is whole, start the gateway again")]
    EngineFailed,
    /// Reflection could not be set up: a broken build.
    #[error("cannot serve reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What a gateway is made of beside its configuration: handed in, so that tests have their own.
pub struct Parts {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The store, and for the how-manieth time it is open. `None`: the one in the data folder.
    pub store: Option<(Arc<dyn store::Store>, u32)>,
    /// Seed of ids and jitter.
    pub seed: u64,
}

impl Default for Parts {
    /// The machine's clock, the store in the data folder, and a seed from the machine's randomness.
    fn default() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the randomness that is handed in"
        )]
        let seed = rand::random();
        Self {
            clock: Arc::new(System),
            store: None,
            seed,
        }
    }
}

/// A gateway that is bound and not yet serving.
pub struct Server {
    engine: Engine,
    line: DirectLine,
    files: Files,
    reloader: Reloader,
    connections: Capacity,
    listener: TcpListener,
    address: SocketAddr,
    router: axum::Router,
}

impl Server {
    /// Opens, joins and binds.
    ///
    /// # Errors
    ///
    /// See [`Error`]. Nothing is left behind but the store's folder.
    pub async fn bind(config: &Config, parts: Parts) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::new());
        let (store, epoch) = match parts.store {
            Some(store) => store,
            None => {
                let store = Embedded::open(&config.data_dir, &embedded::Options::default())?;
                let epoch = store.epoch();
                (Arc::new(store) as Arc<dyn store::Store>, epoch)
            }
        };
        // Bound before the engine starts: a taken port is the usual mistake, and cheap to undo.
        let listen = |source| Error::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let settings = settings(config, shards(), parts.seed);
        let engine = Engine::open(store, epoch, parts.clock, settings, metrics)?;
        let folder = config.data_dir.join(files::FOLDER);
        let retention = config.limits.attachment_retention;
        let files = Files::new(folder, retention, Arc::clone(engine.clock()));
        files.remove_leftovers().await.map_err(Error::Files)?;
        let authenticator = Arc::new(Authenticator::new(&config.principals));
        if authenticator.is_open() {
            warn_that_it_is_open(address);
        }
        let grpc = grpc::routes(&engine, &files, Arc::clone(&authenticator)).await?;
        let line = DirectLine::new(
            engine.clone(),
            sites(config, address),
            format!("http://{address}"),
            files.clone(),
        )?;
        let grpc = grpc.prepare().into_axum_router();
        let router = http::routes(engine.clone(), line.clone(), grpc, config.dev);
        let connections = Capacity::new(config.limits.connections);
        let parts = reload::Parts {
            engine: engine.clone(),
            line: line.clone(),
            files: files.clone(),
            authenticator,
            connections: connections.clone(),
            address,
        };
        Ok(Self {
            reloader: Reloader::new(parts, config.clone()),
            engine,
            line,
            files,
            connections,
            listener,
            address,
            router,
        })
    }

    /// What puts other configurations in force while the gateway runs.
    #[must_use]
    pub fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for tests and for tools in the same process.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Serves until `stop` completes, then drains and stops.
    ///
    /// # Errors
    ///
    /// [`Error::EngineFailed`], after stopping what still runs.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            engine,
            line,
            files,
            reloader: _,
            connections,
            listener,
            address,
            router,
        } = self;
        info!(%address, "listening");
        let sweeping = tokio::spawn(sweep(files, Arc::clone(engine.clock())));
        let mut failed = false;
        let connections = connections::Connections::new(router, connections);
        let told = async {
            tokio::select! {
                () = stop => {}
                () = engine.failed() => failed = true,
            }
        };
        let connections = connections.accept(listener, told).await;
        if !failed {
            info!("draining");
            engine.drain().await;
        }
        let grace = engine.limits().shutdown_grace.max(CLOSE_TIMEOUT);
        // Sockets are no connections of the listener any more.
        if tokio::time::timeout(grace, line.close()).await.is_err() {
            warn!("some streams of Direct Line did not end in time");
        }
        engine.stop().await;
        sweeping.abort();
        connections.close(engine.limits().shutdown_grace).await;
        info!("stopped");
        if failed {
            Err(Error::EngineFailed)
        } else {
            Ok(())
        }
    }
}

fn warn_that_it_is_open(address: SocketAddr) {
    warn!(%address, "no principals are configured: everyone who reaches this address may do everything");
}

/// Removes files that are kept no longer, for as long as the gateway runs.
async fn sweep(files: Files, clock: Arc<dyn Clock>) {
    loop {
        match files.sweep().await {
            // Between one part and the next, others have the disk.
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => clock.sleep_until(clock.now().after(SWEEP_INTERVAL)).await,
            Err(error) => {
                warn!(%error, "attachments that are kept no longer cannot be removed");
                clock.sleep_until(clock.now().after(SWEEP_INTERVAL)).await;
            }
        }
    }
}

/// What the engine is told of a configuration.
fn settings(config: &Config, shards: usize, seed: u64) -> settings::Settings {
    let limits = &config.limits;
    let bots = config.bots.iter().map(|bot| {
        let settings = settings::Bot {
            account: v1::ChannelAccount {
                id: Some(bot.id.to_string()),
                name: Some(bot.name.clone().unwrap_or_else(|| bot.id.to_string())),
                role: Some("bot".to_owned()),
                ..Default::default()
            },
            delivery_deadline: bot.delivery_deadline.unwrap_or(limits.delivery_deadline),
            delivery_attempts: bot.delivery_attempts.unwrap_or(limits.delivery_attempts),
            on_poison: match bot.on_poison {
                config::OnPoison::Skip => settings::OnPoison::Skip,
                config::OnPoison::Block => settings::OnPoison::Block,
                config::OnPoison::Fallback => settings::OnPoison::Fallback {
                    text: bot.fallback_text.clone().unwrap_or_default(),
                },
            },
            hears: match bot.hears {
                config::Hears::Users => settings::Hears::Users,
                config::Hears::Everyone => settings::Hears::Everyone,
            },
        };
        (bot.id.clone(), settings)
    });
    let channels = config.channels.iter().map(|channel| {
        let settings = settings::Channel {
            bot: channel.bot.clone(),
            also: channel.also.clone(),
            capabilities: channel.capabilities,
            outbound: match channel.outbound {
                config::Outbound::Queue => settings::Outbound::Queue,
                config::Outbound::Watch => settings::Outbound::Watch,
            },
            service_url: channel.service_url.clone(),
            stream_interval: channel.stream_interval.unwrap_or(limits.stream_interval),
            end_closes: channel.direct_line.is_some(),
        };
        (channel.id.clone(), settings)
    });
    settings::Settings {
        limits: limits.clone(),
        bots: bots.collect::<HashMap<_, _>>(),
        channels: channels.collect::<HashMap<_, _>>(),
        shards,
        seed,
    }
}

/// The channels that speak Direct Line.
fn sites(config: &Config, address: SocketAddr) -> Vec<Served> {
    let served = |channel: &config::Channel| {
        let site = channel.direct_line.clone()?;
        let public = || site.public_url.as_ref().map(|url| format!("{url}/"));
        let service_url = channel.service_url.clone().or_else(public);
        Some(Served {
            channel: channel.id.clone(),
            service_url: service_url.unwrap_or_else(|| format!("http://{address}/")),
            site,
        })
    };
    config.channels.iter().filter_map(served).collect()
}

/// One shard for every four cores: a shard shares its machine with the sockets it serves, and all
/// shards share one journal.
fn shards() -> usize {
    const CORES_PER_SHARD: usize = 4;
    const MOST: usize = 16;
    (cores() / CORES_PER_SHARD).clamp(1, MOST)
}

/// How many workers a gateway's runtime should have: one for each core, and one for each shard,
/// since that blocks the worker it is on while the disk syncs.
#[must_use]
pub fn workers() -> usize {
    cores() + shards()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
