//! Which gateway, and as whom.

use std::fmt;

use turnwire_client::{Client, ClientOptions};

/// Where a gateway listens unless it is told otherwise.
pub(super) const DEFAULT_GATEWAY: &str = "http://127.0.0.1:7878";

#[derive(clap::Args)]
pub(super) struct Connection {
    /// The gateway to talk to [default: http://127.0.0.1:7878]
    #[arg(long, global = true, value_name = "URL", env = "TURNWIRE_GATEWAY")]
    pub(super) gateway: Option<String>,
    /// The token that says who is calling
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "TURNWIRE_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl Connection {
    /// Connects to the gateway that was named, or to the default one.
    pub(super) async fn open(&self) -> Result<Client, turnwire_client::Error> {
        let gateway = self.gateway.as_deref().unwrap_or(DEFAULT_GATEWAY);
        Client::connect(gateway, self.options()).await
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            token: self.token.clone().map(Into::into),
            ..ClientOptions::default()
        }
    }
}

impl fmt::Debug for Connection {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}
