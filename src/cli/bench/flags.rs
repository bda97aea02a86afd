//! What benchmarks that load a gateway with turns can be told.

use std::time::Duration;

use super::facts::Facts;
use super::load::Level;
use super::nats::Peer;
use super::target::{self, Target};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// How long each level is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,
    /// How long each runs before that
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(super) warmup: u64,
    /// Bytes of text in a message and in its answer
    #[arg(long, value_name = "BYTES", default_value_t = 450, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    pub(super) size: u32,
    /// Streams of the adapter, and as many of the bot, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) streams: u16,
    /// Do the same turn on NATS JetStream, too, level by level; may be given more than once
    #[arg(long, value_name = "URL")]
    vs_nats: Vec<String>,
    /// Pairs of JetStream's streams, one for questions and one for answers, that its conversations
    /// are spread over: it syncs each by itself
    #[arg(long, value_name = "N", default_value_t = 1, requires = "vs_nats", value_parser = clap::value_parser!(u16).range(1..=256))]
    nats_pairs: u16,
    /// Leave out what the machine could do at most, which is measured of a gateway of its own
    #[arg(long)]
    no_ceilings: bool,
    #[command(flatten)]
    pub(super) target: target::Flags,
}

impl Flags {
    pub(super) fn threads(&self) -> usize {
        self.target.threads.into()
    }

    /// The peers that were named, all of which are there.
    pub(super) async fn peers(&self) -> anyhow::Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for url in &self.vs_nats {
            peers.push(Peer::open(url, self.nats_pairs.into()).await?);
        }
        Ok(peers)
    }

    /// Ceilings are this machine's, and say nothing about a gateway elsewhere.
    pub(super) fn wants_ceilings(&self, target: &Target) -> bool {
        !self.no_ceilings && target.child.is_some()
    }

    pub(super) fn level(&self, conversations: u32, rate: Option<f64>) -> Level {
        Level {
            conversations: conversations as usize,
            streams: self.streams.into(),
            size: self.size as usize,
            warmup: Duration::from_secs(self.warmup),
            measured: Duration::from_secs(self.seconds),
            channel: self.target.channel.clone(),
            bot: self.target.bot.clone(),
            rate,
        }
    }

    pub(super) fn facts(&self, target: &Target, peers: &[Peer]) -> Facts {
        let facts = Facts::gather(target.data())
            .setting("bytes", self.size)
            .setting("seconds", self.seconds)
            .setting("warmupSeconds", self.warmup)
            .setting("streams", self.streams)
            .setting("threads", self.target.threads);
        if peers.is_empty() {
            return facts;
        }
        let peers: Vec<_> = peers.iter().map(Peer::description).collect();
        facts
            .setting("peers", peers)
            .setting("natsPairs", self.nats_pairs)
    }
}
