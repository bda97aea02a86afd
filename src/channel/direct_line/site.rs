//! A site: what one channel of this kind is configured with.

use std::time::Duration;

use super::origin::Origins;
use crate::auth::secret::Digest;

/// How a channel lets clients in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// SHA-256 of its secrets: two while one is being replaced. A token is good for as long as the
    /// secret that it was made with is listed.
    pub secrets: Vec<Digest>,
    /// The web pages that may use it. None: any may.
    pub origins: Origins,
    /// How long a token is good. Default 30 minutes, from one minute to a day.
    pub token_lifetime: Duration,
    /// Whether tokens must name a user whose id begins with `dl_`, and callers a trusted origin.
    /// Default false.
    pub enhanced_authentication: bool,
    /// Where clients reach the gateway, without a slash at the end, when that is not what they write
    /// in `Host`: behind a proxy that ends TLS, for example.
    pub public_url: Option<String>,
}
