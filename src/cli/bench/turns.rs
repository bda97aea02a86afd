//! `turnwire bench turns`: how many durable turns a gateway makes in a second, and how long one
//! takes.
//!
//! A user's message is posted on an Attach stream; the gateway stores it and delivers it to a bot
//! on a Subscribe stream; the bot answers and acknowledges in one Commit; the gateway stores that
//! and hands the answer to the adapter, which says Delivered and posts the conversation's next
//! message. Every answer is checked against its question.

use anyhow::Context;

use super::ceiling::{self, Ceilings};
use super::child;
use super::flags::Flags;
use super::load::Load;
use super::run::System;
use super::sheet::Sheet;
use super::target::Target;
use crate::cli::connection::Connection;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Conversations at a time, one measurement for each number
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,64,512",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    conversations: Vec<u32>,
    #[command(flatten)]
    flags: Flags,
}

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.flags.threads()
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let flags = &args.flags;
    let peers = flags.peers().await?;
    let options = child::Options::default();
    let target = Target::open(flags.target.data.as_deref(), connection, &options).await?;
    let wants_ceilings = flags.wants_ceilings(&target);
    let mut facts = flags.facts(&target, &peers);
    if wants_ceilings {
        facts = ceiling::with_sync(facts, flags).await?;
    }
    let mut sheet = Sheet::begin("turns", &facts, false, json)?;
    let systems = System::all(target, peers);
    for conversations in &args.conversations {
        let level = flags.level(*conversations, None);
        if wants_ceilings {
            sheet.ceilings(&level, &Ceilings::measure(&level, flags).await?)?;
        }
        for system in &systems {
            let load = Load::new(level.clone());
            let outcome = system.run(&load).await;
            let outcome = outcome
                .with_context(|| format!("{}, {conversations} conversations", system.name()))?;
            sheet.outcome(&system.name(), system.is_turnwire(), &level, &outcome)?;
        }
    }
    sheet.end()?;
    System::close_all(systems).await
}
