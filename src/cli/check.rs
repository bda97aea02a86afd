//! `turnwire check`: says whether a configuration can be used.

use serde_json::json;

use super::serve::ConfigFile;
use super::{escape, output};
use crate::config::{Config, Overrides};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    Config::load(&args.file.config, &Overrides::default())?;
    let path = args.file.config.display().to_string();
    if json {
        output::json(&json!({ "config": path, "ok": true }))
    } else {
        output::line(&format!("`{}` is fine", escape::line(&path)))
    }
}
