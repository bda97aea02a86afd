//! `turnwire serve`: runs a gateway; and what `dev` and `check` share with it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use tracing::debug;

use super::{descriptors, hangup, interrupt, output};
use crate::config::{Config, Overrides};
use crate::observability::logs;
use crate::server::{Parts, Reloader, Server};

/// Which configuration is meant.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// The configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "turnwire.toml",
        env = "TURNWIRE_CONFIG"
    )]
    pub(super) config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// Listen here instead of where the configuration says; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Keep the data in this folder instead of where the configuration says
    #[arg(long, visible_alias = "data-dir", value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Prints `listening on http://ADDR` once the gateway answers there; whoever starts it as a child
/// reads the address from that line.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let overrides = Overrides {
        listen: args.listen,
        data_dir: args.data,
    };
    let config = Config::load(&args.file.config, &overrides)?;
    logs::init(&config.log)?;
    serve(&config, interrupt::interrupted(), |address, reloader| {
        hangup::reload_on(reloader.clone(), args.file.config, overrides)?;
        output::line(&format!("listening on http://{address}"))
    })
    .await
}

/// Runs a gateway, with as many connections as the system lets it have, until `shutdown` completes and it has drained; calls `bound` when it listens.
pub(super) async fn serve(
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
    bound: impl FnOnce(SocketAddr, &Reloader) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let descriptors = descriptors::raise();
    debug!(
        descriptors.from = descriptors.from,
        descriptors.to = descriptors.to,
        "as many file descriptors as this process may have"
    );
    let server = Server::bind(config, Parts::default()).await?;
    bound(server.address(), server.reloader())?;
    Ok(server.run(shutdown).await?)
}
