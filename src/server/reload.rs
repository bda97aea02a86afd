//! Another configuration for a gateway that runs: all of it, or nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::{settings, sites};
use crate::auth::Authenticator;
use crate::capacity::Capacity;
use crate::channel::direct_line::DirectLine;
use crate::config::{self, Changes, Config, Overrides, Setting};
use crate::engine::{self, Engine};
use crate::files::Files;
use crate::store;

/// Problems of a file that are logged one by one.
const PROBLEMS: usize = 32;

/// Why a configuration was not put in force. The one that was in force still is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read, or is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// It changes what only a restart can.
    #[error("{}", NeedsRestart(.0))]
    Fixed(Vec<Setting>),
    /// The store could not be read or written.
    #[error("cannot open the store")]
    Store(#[from] store::Error),
    /// The gateway is going down.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// Puts other configurations in force. Cheap to clone.
#[derive(Clone)]
pub struct Reloader {
    inner: Arc<Inner>,
}

/// What of a gateway goes by its configuration.
struct Inner {
    engine: Engine,
    line: DirectLine,
    files: Files,
    authenticator: Arc<Authenticator>,
    connections: Capacity,
    address: SocketAddr,
    /// What is in force. Held while it is replaced: one at a time.
    config: Mutex<Config>,
}

/// The parts that a configuration is put in force in.
pub(super) struct Parts {
    pub(super) engine: Engine,
    pub(super) line: DirectLine,
    pub(super) files: Files,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) connections: Capacity,
    pub(super) address: SocketAddr,
}

impl Reloader {
    pub(super) fn new(parts: Parts, config: Config) -> Self {
        let Parts {
            engine,
            line,
            files,
            authenticator,
            connections,
            address,
        } = parts;
        let inner = Inner {
            engine,
            line,
            files,
            authenticator,
            connections,
            address,
            config: Mutex::new(config),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Reads a file again, as at start, and puts it in force; says in the log what came of it.
    ///
    /// # Errors
    ///
    /// As [`reload`](Self::reload), and [`Error::Config`].
    pub async fn reload_file(&self, path: &Path, overrides: &Overrides) -> Result<Changes, Error> {
        let (path, overrides) = (path.to_owned(), overrides.clone());
        // A file that does not come, as on a network, is not waited for on a worker.
        let loaded = tokio::task::spawn_blocking(move || Config::load(&path, &overrides)).await;
        let loaded = loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        match loaded {
            Ok(config) => self.reload(config).await,
            Err(error) => Err(self.refused(error.into())),
        }
    }

    /// Puts a configuration in force, and says in the log what came of it.
    ///
    /// When it returns, every later call is decided by it; sessions and watchers that it does not allow
    /// have been told to end.
    ///
    /// # Errors
    ///
    /// [`Error::Fixed`] when it changes what only a restart can, [`Error::Store`]: nothing has changed.
    /// [`Error::Engine`] when the gateway is going down.
    pub async fn reload(&self, config: Config) -> Result<Changes, Error> {
        let this = self.clone();
        // On a task of its own: one who waits no longer must not leave it half done.
        let applied = tokio::spawn(async move { this.apply(config).await }).await;
        let applied = applied.unwrap_or_else(|gone| std::panic::resume_unwind(gone.into_panic()));
        let changes = applied.map_err(|error| self.refused(error))?;
        self.inner.engine.metrics().reloads.applied.inc();
        info!(%changes, "the configuration was read again and is in force");
        Ok(changes)
    }

    async fn apply(&self, config: Config) -> Result<Changes, Error> {
        let inner = &*self.inner;
        let mut in_force = inner.config.lock().await;
        let changes = Changes::between(&in_force, &config);
        if !changes.fixed.is_empty() {
            return Err(Error::Fixed(changes.fixed));
        }
        let serving = inner.line.prepare(sites(&config, inner.address))?;

        // Nothing below fails, but for a gateway that is going down. What ends comes first: it must
        // not wait for shards that are busy.
        let was_open = inner.authenticator.is_open();
        inner.authenticator.replace(&config.principals);
        inner.line.put_in_force(serving, &config.limits);
        inner.connections.resize(config.limits.connections);
        inner.files.keep_for(config.limits.attachment_retention);
        let (shards, seed) = {
            let settings = inner.engine.settings().look();
            (settings.shards, settings.seed)
        };
        let reloaded = inner.engine.reload(settings(&config, shards, seed)).await;
        if inner.authenticator.is_open() && !was_open {
            super::warn_that_it_is_open(inner.address);
        }
        *in_force = config;
        reloaded?;
        Ok(changes)
    }

    /// Says why nothing has changed, and counts it.
    fn refused(&self, error: Error) -> Error {
        self.inner.engine.metrics().reloads.refused.inc();
        let problems = match &error {
            Error::Config(error) => error.problems(),
            Error::Fixed(_) | Error::Store(_) | Error::Engine(_) => &[],
        };
        for problem in problems.iter().take(PROBLEMS) {
            error!(%problem, "the configuration is wrong");
        }
        let more = problems.len().saturating_sub(PROBLEMS);
        if more > 0 {
            warn!(more, "there are more problems: `turnwire check` shows them");
        }
        if problems.is_empty() {
            error!(%error, "the configuration was not put in force: the one before still is");
        } else {
            error!("the configuration was not put in force: the one before still is");
        }
        error
    }
}

struct NeedsRestart<'s>(&'s [Setting]);

impl std::fmt::Display for NeedsRestart<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, setting) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{setting} needs a restart")?;
        }
        Ok(())
    }
}
