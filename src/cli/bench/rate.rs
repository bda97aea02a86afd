//! `turnwire bench rate`: how long a durable turn takes when turns come at a fixed rate.
//!
//! The turns of [`turns`](super::turns), but each begins at a time that is fixed beforehand, and its
//! latency counts from there: also when the conversation's turn before is not answered and it has to
//! wait, or the load generator itself is late. Otherwise a system that stops for a moment would stop
//! its measurement, too, and look well.

use anyhow::Context;

use super::ceiling::{self, Ceilings};
use super::child;
use super::flags::Flags;
use super::load::Load;
use super::run::System;
use super::sheet::Sheet;
use super::target::Target;
use crate::cli::connection::Connection;

/// Of the peak, unless something else is asked for.
const DEFAULT_SHARE: f64 = 0.7;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Conversations that take turns
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    conversations: u32,
    /// Turns that begin in a second, one measurement for each number
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = positive)]
    rate: Vec<f64>,
    /// The same, as a share of the peak, which is measured first [default: 0.7]
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',', value_parser = positive, conflicts_with = "rate")]
    share: Vec<f64>,
    #[command(flatten)]
    flags: Flags,
}

impl Args {
    pub(super) fn threads(&self) -> usize {
        self.flags.threads()
    }
}

/// More turns a second, or more than the peak, than anybody could want: what is above is a mistake.
const MOST: f64 = 10_000_000.0;

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= MOST => Ok(number),
        _ => Err(format!("not a number above 0 and up to {MOST}")),
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
    let mut sheet = Sheet::begin("rate", &facts, true, json)?;
    let unpaced = flags.level(args.conversations, None);
    if wants_ceilings {
        sheet.ceilings(&unpaced, &Ceilings::measure(&unpaced, flags).await?)?;
    }
    let systems = System::all(target, peers);
    let mut rates = args.rate;
    if rates.is_empty() {
        let load = Load::new(unpaced.clone());
        let peak = systems[0].run(&load).await.context("the peak")?;
        sheet.outcome("turnwire, peak", true, &unpaced, &peak)?;
        let peak = peak.measured.latencies.per_second(unpaced.measured);
        let shares = match args.share.as_slice() {
            [] => &[DEFAULT_SHARE],
            shares => shares,
        };
        rates.extend(shares.iter().map(|share| share * peak));
    }
    for rate in rates {
        let level = flags.level(args.conversations, Some(rate));
        for system in &systems {
            let load = Load::new(level.clone());
            let outcome = system.run(&load).await;
            let outcome =
                outcome.with_context(|| format!("{}, {rate} turns a second", system.name()))?;
            sheet.outcome(&system.name(), system.is_turnwire(), &level, &outcome)?;
        }
    }
    sheet.end()?;
    System::close_all(systems).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_above_nothing() {
        assert_eq!(positive("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "1e9", "many"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
