//! `turnwire serve`: runs a gateway; and what `dev` and `check` share with it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{interrupt, output};

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
    let config = load(&args.config, &overrides)?;
    serve(config, interrupt::interrupted(), |address| {
        output::line(&format!("listening on http://{address}"))
    })
    .await
}

/// What flags say over the file. To be `crate::config::Overrides`.
#[derive(Clone, Debug, Default)]
#[expect(dead_code, reason = "read by the gateway")]
pub(super) struct Overrides {
    pub(super) listen: Option<SocketAddr>,
    pub(super) data_dir: Option<PathBuf>,
}

/// A checked configuration. To be `crate::config::Config`.
#[derive(Debug)]
pub(super) struct Config {}

/// Reads and checks a configuration. To be `Ok(Config::load(path, overrides)?)`.
pub(super) fn load(path: &Path, _overrides: &Overrides) -> anyhow::Result<Config> {
    anyhow::bail!("cannot read `{}`: {NOT_BUILT_IN}", path.display())
}

/// The configuration of `turnwire dev`: the bot `echo` and the channel `dev`. To be
/// `Ok(Config::dev(overrides)?)`.
pub(super) fn dev_config(_overrides: &Overrides) -> anyhow::Result<Config> {
    anyhow::bail!(NOT_BUILT_IN)
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
