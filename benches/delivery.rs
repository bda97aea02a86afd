//! The delivery state machine by itself: what a shard pays for it with each activity, beside the
//! write.
//!
//! Each run goes through a log's activities with one subscription, as a shard drives it, and an item
//! is an activity that is finished. `tests/model.rs` checks what the machine does; here it is only
//! timed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, Divan, black_box};
use turnwire::clock::Timestamp;
use turnwire::engine::delivery::{Cursor, Return, Subscription, WAITING_ENTRIES};
use turnwire::engine::log::{Author, Entry};
use turnwire::engine::session::Number;
use turnwire::id::{DeliveryId, Sequence};

/// Activities in a run: one, as many as wait in memory, and more than that.
const ACTIVITIES: [u64; 3] = [1, 32, 256];

/// Bytes of an activity: what `turnwire bench` sends, as it is stored.
const ACTIVITY_BYTES: usize = 600;

const SESSION: Number = Number(1);
const OTHER_SESSION: Number = Number(2);
const NOW: Timestamp = Timestamp(1_790_000_000_000);
const DEADLINE: Duration = Duration::from_secs(30);
const CEILING: Duration = Duration::from_secs(300);

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each takes microseconds at most: a hundred samples, which is the usual, would be over too soon to
/// say anything.
const MIN_TIME: Duration = Duration::from_millis(100);

fn main() {
    Divan::default()
        .min_time(MIN_TIME)
        .config_with_args()
        .main();
}

/// The common case: each activity is handed over as it comes, and finished before the next.
#[divan::bench(args = ACTIVITIES)]
fn turns(bencher: Bencher<'_, '_>, activities: u64) {
    run(bencher, activities, |log| {
        let mut machine = Machine::new(Sequence::START);
        for entry in log {
            machine.subscription.learn(entry, true);
            machine.hand_over(SESSION);
            machine.subscription.finish(NOW);
            machine.subscription.settle(entry.sequence);
        }
        machine
    });
}

/// A bot is away meanwhile: activities wait, in memory as far as they may, and are read again.
#[divan::bench(args = ACTIVITIES)]
fn backlog(bencher: Bencher<'_, '_>, activities: u64) {
    run(bencher, activities, |log| {
        let last = Sequence(log.len() as u64);
        let mut machine = Machine::new(last);
        while machine.subscription.settle(last) {
            machine.read_on(log);
            machine.hand_over(SESSION);
            machine.subscription.finish(NOW);
        }
        machine
    });
}

/// Activities that are not for the subscriber, which its cursor goes over.
#[divan::bench(args = ACTIVITIES)]
fn not_for_it(bencher: Bencher<'_, '_>, activities: u64) {
    run(bencher, activities, |log| {
        let mut machine = Machine::new(Sequence::START);
        for entry in log {
            machine.subscription.learn(entry, false);
        }
        machine
    });
}

/// Every activity is nacked once, rests, and is finished at the second attempt.
#[divan::bench(args = ACTIVITIES)]
fn nacks(bencher: Bencher<'_, '_>, activities: u64) {
    run(bencher, activities, |log| {
        let last = Sequence(log.len() as u64);
        let mut machine = Machine::new(last);
        while machine.subscription.settle(last) {
            machine.read_on(log);
            machine.hand_over(SESSION);
            let until = NOW.after(Duration::from_secs(1));
            machine.subscription.give_back(0, Return::Retry { until });
            assert_eq!(machine.subscription.wakes_at(), Some(until));
            machine.subscription.rested();
            machine.hand_over(SESSION);
            machine.subscription.finish(NOW);
        }
        machine
    });
}

/// Every activity's deadline is extended and passes all the same; another session finishes it.
#[divan::bench(args = ACTIVITIES)]
fn expiries(bencher: Bencher<'_, '_>, activities: u64) {
    run(bencher, activities, |log| {
        let last = Sequence(log.len() as u64);
        let mut machine = Machine::new(last);
        while machine.subscription.settle(last) {
            machine.read_on(log);
            machine.hand_over(SESSION);
            let extended = NOW.after(2 * DEADLINE);
            let id = DeliveryId(machine.deliveries);
            machine.subscription.extend(id, extended, CEILING);
            assert_eq!(machine.subscription.wakes_at(), Some(extended));
            machine.subscription.give_back(0, Return::Lost);
            machine.hand_over(OTHER_SESSION);
            machine.subscription.finish(NOW);
        }
        machine
    });
}

/// Every activity is lost at its last attempt, and parked.
#[divan::bench(args = ACTIVITIES)]
fn dead_letters(bencher: Bencher<'_, '_>, activities: u64) {
    run(bencher, activities, |log| {
        let last = Sequence(log.len() as u64);
        let mut machine = Machine::new(last);
        while machine.subscription.settle(last) {
            machine.read_on(log);
            machine.hand_over(SESSION);
            machine.subscription.give_back(0, Return::Lost);
            machine.subscription.skip();
        }
        machine
    });
}

/// Times a run through a log, which must come to its end.
fn run(bencher: Bencher<'_, '_>, activities: u64, through: impl Fn(&[Arc<Entry>]) -> Machine) {
    let log = log(activities);
    let finished = through(&log).subscription.cursor().finished;
    assert_eq!(finished, Sequence(activities), "a run ends with the log");
    bencher
        .counter(ItemsCount::new(activities))
        .bench_local(|| through(&log));
}

/// A subscription, and the part of a shard that gives deliveries their ids.
struct Machine {
    subscription: Subscription,
    deliveries: u64,
}

impl Machine {
    /// Has finished nothing of a log that ends at `last`.
    fn new(last: Sequence) -> Self {
        Self {
            subscription: Subscription::new(Cursor::default(), last, VecDeque::new()),
            deliveries: 0,
        }
    }

    fn hand_over(&mut self, session: Number) {
        self.deliveries += 1;
        let id = DeliveryId(self.deliveries);
        let deadline = Some(NOW.after(DEADLINE));
        black_box(self.subscription.hand_over(session, id, NOW, deadline));
    }

    /// Looks at the log where it must, and learns as much as it takes.
    fn read_on(&mut self, log: &[Arc<Entry>]) {
        let last = Sequence(log.len() as u64);
        let Some(Sequence(known)) = self.subscription.must_read_after(last) else {
            return;
        };
        // The sequence of an entry is its index and one.
        for entry in log.iter().skip(known as usize).take(WAITING_ENTRIES) {
            self.subscription.learn(entry, true);
        }
    }
}

fn log(activities: u64) -> Vec<Arc<Entry>> {
    let activity = Bytes::from(vec![b'x'; ACTIVITY_BYTES]);
    let entry = |sequence| Entry {
        sequence: Sequence(sequence),
        append_time: NOW,
        author: Author::Channel,
        activity_id: format!("conversation-1|{sequence:07}").into(),
        activity: activity.clone(),
        bot_run: 0,
    };
    (1..=activities).map(entry).map(Arc::new).collect()
}
