//! `turnwire check`: says whether a configuration can be used.

use std::path::PathBuf;

use serde_json::json;

use super::{escape, output};
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
}

pub(super) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    Config::load(&args.config, &Overrides::default())?;
    let path = args.config.display().to_string();
    if json {
        output::json(&json!({ "config": path, "ok": true }))
    } else {
        output::line(&format!("`{}` is fine", escape::line(&path)))
    }
}
