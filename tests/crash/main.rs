//! The real gateway, killed under load at moments that a seed decides, and what is left of its
//! promises when it comes back.
//!
//! `TURNWIRE_KILLS` says how often it is killed, `TURNWIRE_SEED` which moments it is killed at;
//! `TURNWIRE_LONG` kills it ten times as often.

mod gateway;
mod ledger;
mod load;

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use turnwire_client::proto::{Activity, ChannelAccount};

use gateway::{CHANNEL, Gateway, Home, Refusal};
use ledger::{After, Ledger};
use load::Load;

const CONVERSATIONS: usize = 50;
/// Conversations that are looked at after every kill; all are at the end.
const SAMPLE: usize = 5;
/// How long a gateway lives, in milliseconds.
const LIFE_MS: std::ops::Range<u64> = 5..500;

fn kills() -> usize {
    let kills = std::env::var("TURNWIRE_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok());
    let long = std::env::var_os("TURNWIRE_LONG").is_some();
    kills.unwrap_or(if long { 300 } else { 30 })
}

fn seed() -> u64 {
    let seed = std::env::var("TURNWIRE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(7);
    println!("seed {seed}");
    seed
}

/// Lets a gateway work for a random while, and kills it in the middle of it.
async fn live(gateway: Gateway, load: &mut Load, random: &mut StdRng) {
    load.begin(&gateway).await;
    tokio::time::sleep(Duration::from_millis(random.random_range(LIFE_MS))).await;
    gateway.kill().await;
    load.end().await;
}

async fn audit(
    gateway: &Gateway,
    ledger: &Ledger,
    numbers: impl Iterator<Item = usize>,
    after: After,
) {
    let client = gateway.connect().await;
    for number in numbers {
        ledger.audit(&client, number, after).await;
    }
    ledger.assert_whole();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_or_doubled_however_often_the_gateway_is_killed() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let ledger = Arc::new(Ledger::new(CONVERSATIONS, "talk-"));
    let mut load = Load::new(&ledger, seed);
    let mut numbers: Vec<usize> = (0..CONVERSATIONS).collect();
    for _ in 0..kills() {
        let gateway = home.run().await;
        numbers.shuffle(&mut random);
        audit(
            &gateway,
            &ledger,
            numbers.iter().copied().take(SAMPLE),
            After::Kill,
        )
        .await;
        live(gateway, &mut load, &mut random).await;
        ledger.assert_whole();
    }
    let gateway = home.run().await;
    audit(&gateway, &ledger, 0..CONVERSATIONS, After::Kill).await;
    load.begin(&gateway).await;
    load.finish().await;
    let client = gateway.connect().await;
    for number in 0..CONVERSATIONS {
        ledger.audit_end(&client, number).await;
    }
    ledger.assert_whole();
    println!("{} activities were promised", ledger.promised());
    assert!(
        ledger.promised() > CONVERSATIONS * kills(),
        "there was load"
    );
    gateway.kill().await;
}

/// What a machine that goes down may make of the end of a journal.
#[derive(Clone, Copy, Debug)]
enum Tear {
    /// Bytes that are no batch follow the last one.
    Garbage,
    /// The last batch ends early, and so does the file.
    Short,
    /// Nothing but zeros is left of the end of the last batch.
    Zeros,
    /// The last half of what was written in this life is gone.
    Half,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_journal_loses_whole_batches_from_its_end_and_nothing_else() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let tears = [Tear::Garbage, Tear::Short, Tear::Zeros, Tear::Half];
    for (round, tear) in tears.into_iter().cycle().take(8).enumerate() {
        // What is lost was promised, so each round has promises of its own.
        let ledger = Arc::new(Ledger::new(10, &format!("torn{round}-")));
        let mut load = Load::new(&ledger, seed);
        let gateway = home.run().await;
        let before = written(&home.newest_journal());
        live(gateway, &mut load, &mut random).await;
        let gateway = home.run().await;
        live(gateway, &mut load, &mut random).await;
        ledger.assert_whole();
        tear_off(&home.newest_journal(), tear, before, &mut random);
        let gateway = home.run().await;
        let after = match tear {
            Tear::Garbage => After::Kill,
            Tear::Short | Tear::Zeros | Tear::Half => After::Cut,
        };
        audit(&gateway, &ledger, 0..10, after).await;
        gateway.kill().await;
    }
    // And what is left of it works.
    let ledger = Arc::new(Ledger::new(10, "whole-"));
    let mut load = Load::new(&ledger, seed);
    for _ in 0..3 {
        live(home.run().await, &mut load, &mut random).await;
    }
    let gateway = home.run().await;
    load.begin(&gateway).await;
    load.finish().await;
    let client = gateway.connect().await;
    for number in 0..10 {
        ledger.audit_end(&client, number).await;
    }
    ledger.assert_whole();
    gateway.kill().await;
}

/// Where the last byte of a journal is that was written: journals are allocated as zeros.
fn written(journal: &Path) -> u64 {
    let bytes = fs::read(journal).expect("a readable journal");
    let end = bytes.iter().rposition(|byte| *byte != 0);
    end.map_or(0, |end| end as u64 + 1)
}

fn tear_off(journal: &Path, tear: Tear, begun: u64, random: &mut StdRng) {
    let end = written(journal);
    let mut file = OpenOptions::new()
        .write(true)
        .open(journal)
        .expect("a writable journal");
    let mut write = |at: u64, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at)).expect("a place in it");
        file.write_all(bytes).expect("room");
    };
    match tear {
        Tear::Garbage => write(
            end,
            &(0..100)
                .map(|_| random.random_range(1..=255))
                .collect::<Vec<u8>>(),
        ),
        Tear::Short => {
            // Nothing is smaller than its end marker and checksum.
            let cut = end - random.random_range(1..12);
            file.set_len(cut).expect("it is cut");
        }
        Tear::Zeros => {
            let cut = end - random.random_range(1..12);
            file.set_len(cut).expect("it is cut");
            file.set_len(end + 64 * 1024).expect("it is long again");
        }
        Tear::Half => {
            let begun = begun.min(end);
            file.set_len(end - (end - begun) / 2).expect("it is cut");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_the_same_folder_says_that_it_is_in_use_and_harms_nothing() {
    let mut home = Home::new();
    let first = home.run().await;
    let client = first.connect().await;
    let post = |id: &str| {
        Activity::message("hello")
            .with_id(id)
            .from_account(ChannelAccount::with_id("user"))
            .in_conversation("one")
    };
    client
        .post_activity(CHANNEL, post("1"))
        .await
        .expect("it is taken");
    let Err(Refusal { status, log }) = home.start().await else {
        panic!("two gateways have one folder");
    };
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("in use by another process"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let posted = client
        .post_activity(CHANNEL, post("2"))
        .await
        .expect("it is taken");
    assert_eq!(posted.appended.sequence, 2);
    first.kill().await;
    // The lock went with the process.
    let second = home.run().await;
    let again = second
        .connect()
        .await
        .post_activity(CHANNEL, post("2"))
        .await
        .expect("it is taken");
    assert!(again.repeated);
    second.kill().await;
}

/// What happens to a file that a disk, or a person, has damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Emptied,
    Halved,
    Overwritten,
    Flipped,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_an_error_in_words_or_does_no_harm() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let ledger = Arc::new(Ledger::new(5, "talk-"));
    let mut load = Load::new(&ledger, seed);
    for _ in 0..2 {
        live(home.run().await, &mut load, &mut random).await;
    }
    let whole = home.data();
    let all = [
        Damage::Emptied,
        Damage::Halved,
        Damage::Overwritten,
        Damage::Flipped,
    ];
    for file in home.files() {
        let name = file
            .strip_prefix(&whole)
            .expect("it is in the folder")
            .to_owned();
        for damage in all {
            let mut copy = home.copy();
            spoil(&copy.data().join(&name), damage, &mut random);
            let what = format!("{} {damage:?}", name.display());
            match copy.start().await {
                Ok(gateway) => {
                    println!("{what}: opened");
                    let cut = name.extension().is_some_and(|extension| extension == "jnl");
                    let after = if cut { After::Cut } else { After::Kill };
                    audit(&gateway, &ledger, 0..5, after).await;
                    gateway.kill().await;
                }
                Err(Refusal { status, log }) => {
                    println!("{what}: {}", log.lines().last().unwrap_or_default());
                    assert_eq!(status.code(), Some(1), "{what}: {log}");
                    assert!(!log.contains("panicked"), "{what}: {log}");
                    let error = log
                        .lines()
                        .any(|line| line.starts_with("error: cannot open the store: "));
                    assert!(error, "{what}: {log}");
                }
            }
        }
    }
}

fn spoil(path: &Path, damage: Damage, random: &mut StdRng) {
    let mut bytes = fs::read(path).expect("a readable file");
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |end| end + 1);
    match damage {
        Damage::Emptied => bytes.clear(),
        Damage::Halved => bytes.truncate(written / 2),
        Damage::Overwritten => bytes[..written].fill_with(|| random.random()),
        Damage::Flipped if written == 0 => return,
        Damage::Flipped => bytes[random.random_range(0..written)] ^= 1 << random.random_range(0..8),
    }
    fs::write(path, bytes).expect("it is written");
}
