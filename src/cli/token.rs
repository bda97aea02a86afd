//! `turnwire token`: makes a token.

use serde_json::json;

use super::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, json: bool) -> anyhow::Result<()> {
    let (token, sha256) = generate();
    if json {
        return output::json(&json!({ "token": token, "sha256": sha256 }));
    }
    output::line(&format!("token   {token}"))?;
    output::line(&format!("sha256  {sha256}"))
}

/// A fresh token and the hash that the configuration stores. To be `crate::auth::secret`:
/// `let token = Token::generate(); (token.reveal().to_owned(), token.digest().to_string())`.
fn generate() -> (String, String) {
    use sha2::Digest;

    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let token = format!("tw_{}", hex(&rand::random::<[u8; 32]>()));
    let sha256 = hex(&sha2::Sha256::digest(token.as_bytes()));
    (token, sha256)
}
