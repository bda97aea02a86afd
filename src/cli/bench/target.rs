//! The gateway that is measured: one of the benchmark's own, or one that it was pointed at.

use std::path::{Path, PathBuf};

use turnwire_client::{Client, ClientOptions};

use super::child::{self, Child};
use crate::cli::connection::Connection;

/// What every benchmark of a gateway can be told.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Threads of the load generator, which shares the machine with a gateway of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) threads: u16,
    /// Where the gateway of its own keeps its data [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", conflicts_with = "gateway")]
    pub(super) data: Option<PathBuf>,
    /// The channel, of kind `grpc` and with queued outbound, of the gateway named by --gateway
    #[arg(long, default_value = child::CHANNEL)]
    pub(super) channel: String,
    /// The bot that the channel is routed to
    #[arg(long, default_value = child::BOT)]
    pub(super) bot: String,
}

/// Where to connect, and as whom.
pub(super) struct Target {
    pub(super) gateway: String,
    pub(super) options: ClientOptions,
    /// The gateway of its own. `None` when the benchmark was pointed at one.
    pub(super) child: Option<Child>,
}

impl Target {
    /// Starts a gateway with its data in a folder of `parent`, unless one was named.
    pub(super) async fn open(
        parent: Option<&Path>,
        connection: &Connection,
        options: &child::Options,
    ) -> anyhow::Result<Self> {
        if let Some(gateway) = &connection.gateway {
            return Ok(Self {
                gateway: gateway.clone(),
                options: connection.options(),
                child: None,
            });
        }
        let child = Child::start(parent, options).await?;
        Ok(Self {
            gateway: child.gateway().to_owned(),
            options: ClientOptions::default(),
            child: Some(child),
        })
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Client, turnwire_client::Error> {
        Client::connect(&self.gateway, self.options.clone()).await
    }

    /// The folder that the data of a gateway of its own is in.
    pub(super) fn data(&self) -> Option<&Path> {
        self.child.as_ref().map(Child::data)
    }

    /// What a gateway of its own has in memory, in MiB.
    pub(super) fn resident_mib(&self) -> Option<f64> {
        let bytes = self.child.as_ref()?.resident_bytes()?;
        Some(bytes as f64 / f64::from(1 << 20))
    }

    /// Ends the gateway of its own. Fails if it has ended by itself.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self.child {
            Some(child) => child.stop().await,
            None => Ok(()),
        }
    }
}
