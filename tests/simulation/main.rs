//! The world, by seed: the engine, its store, its clock and everyone who talks to it, on one thread,
//! with everything that can go wrong going wrong.
//!
//! A run takes all its chance from its seed, so that one that fails fails again. The streams are those
//! of the engine; there are no sockets, no other threads and no time but the run's own. What a run
//! promises is in `oracle`, as it goes, and in `audit`, when it has ended.

mod act;
mod attend;
mod audit;
mod client;
mod clock;
mod gateway;
mod look;
mod oracle;
mod talk;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Things that happen in a run before everyone behaves.
const STEPS: usize = 500;
/// Seeds of a usual run, and of a long one.
const SEEDS: u64 = 1_000;
const LONG_SEEDS: u64 = 100_000;

/// Runs a seed, and says what happened.
fn run(seed: u64, aloud: bool) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new(seed, aloud);
        for _ in 0..STEPS {
            world.step().await;
        }
        world.end().await;
        world.trace.end()
    })
}

fn the_seed() -> Option<u64> {
    let seed = std::env::var("TURNWIRE_SEED").ok()?;
    Some(seed.parse().expect("TURNWIRE_SEED is a number"))
}

/// Runs seeds on all cores. Panics with those that fail, and goes on to the last.
fn run_all(seeds: u64) {
    let next = AtomicU64::new(0);
    let events = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    // Nothing of a run outlives it.
                    match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
                        Ok((count, _)) => drop(events.fetch_add(count, Ordering::Relaxed)),
                        Err(_) => failed.lock().expect("no panic").push(seed),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_unstable();
    println!("{seeds} seeds, {} events", events.into_inner());
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds fail: {failed:?}; for the first in words: \
         TURNWIRE_SEED={} cargo test --test simulation -- --nocapture whatever",
        failed.len(),
        failed[0]
    );
}

#[test]
fn whatever_happens_all_promises_hold() {
    match the_seed() {
        Some(seed) => {
            let (count, hash) = run(seed, true);
            println!("seed {seed}: {count} events, {hash:016x}");
        }
        None if std::env::var_os("TURNWIRE_LONG").is_some() => run_all(LONG_SEEDS),
        None => run_all(SEEDS),
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in the_seed().map_or(0..16, |seed| seed..seed + 1) {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
    assert_ne!(run(1, false), run(2, false), "another seed is another run");
}
