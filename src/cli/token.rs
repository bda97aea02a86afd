//! `turnwire token`: makes a token.

use serde_json::json;

use super::output;
use crate::auth::secret::Token;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, json: bool) -> anyhow::Result<()> {
    let token = Token::generate();
    let (token, sha256) = (token.reveal(), token.digest().to_string());
    if json {
        return output::json(&json!({ "token": token, "sha256": sha256 }));
    }
    output::line(&format!("token   {token}"))?;
    output::line(&format!("sha256  {sha256}"))
}
