//! `turnwire serve`: runs a gateway.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{interrupt, output};
use crate::config::{Config, Overrides};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "turnwire.toml",
        env = "TURNWIRE_CONFIG"
    )]
    config: PathBuf,
    /// Listen here instead of where the configuration says; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Keep the data in this folder instead of where the configuration says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Prints `listening on http://ADDR` once the gateway answers there; whoever starts it as a child
/// reads the address from that line.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let overrides = Overrides {
        listen: args.listen,
        data_dir: args.data,
    };
    let config = Config::load(&args.config, &overrides)?;
    serve(config, interrupt::interrupted(), |address| {
        output::line(&format!("listening on http://{address}"))
    })
    .await
}

/// Runs a gateway until `shutdown` completes and it has drained; calls `bound` when it listens.
/// To be `crate::server::run(config, shutdown, bound)`, or bind, `bound`, and run.
///
/// An address that is taken must fail with the `io::Error` among its causes: the hint comes from it.
pub(super) async fn serve(
    _config: Config,
    _shutdown: impl Future<Output = ()> + Send + 'static,
    _bound: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    anyhow::bail!(NOT_BUILT_IN)
}

const NOT_BUILT_IN: &str = "this program was built without the gateway";
