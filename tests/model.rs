//! The delivery state machine against a simpler model: a list of activities, each finished or not.
//!
//! The model knows the whole log and forgets nothing. The machine holds a window of it and a cursor,
//! and is driven here as the shard drives it: it learns of appends, reads on when it must, and is
//! made anew from its cursor when its conversation comes back into memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use turnwire::clock::Timestamp;
use turnwire::engine::delivery::{
    Cursor, Held, Lease, Return, State, Subscription, WAITING_BYTES, WAITING_ENTRIES,
};
use turnwire::engine::log::{Author, Entry};
use turnwire::engine::session::Number;
use turnwire::id::{DeliveryId, Fence, Sequence};

/// Longest time a delivery may be held in all, whatever the extensions.
const CEILING: Duration = Duration::from_millis(500);

/// What happens to a subscription. Whatever makes no sense at the time is left out.
#[derive(Clone, Debug)]
enum Step {
    /// Activities are appended: whether each is for the subscriber, and how large they are.
    Append { for_it: Vec<bool>, bytes: usize },
    /// The shard reads the log for a ready subscription, so many entries at a time.
    Fill { page: usize },
    /// A session takes what is ready.
    HandOver { session: u64, deadline: Option<u64> },
    /// The session acks.
    Finish,
    /// The session is lost, or its deadline has passed.
    Lose,
    /// The session wants another attempt after so many milliseconds.
    Retry { after: u64 },
    /// The session does not want it.
    Release,
    /// The activity is parked.
    Skip,
    /// The session asks for more time.
    Extend { by: u64 },
    /// Time goes on, and ends what rests long enough.
    Wait { by: u64 },
    /// Retention removes so many activities, but none that is held.
    Forget { count: usize },
    /// The round was written: what is now is what comes back after a failure.
    Persist,
    /// The round failed: everything since the last one that was written never happened.
    Fail,
    /// The conversation leaves memory and comes back, as at a restart.
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![
        8 => Just(10),
        1 => Just(WAITING_BYTES / 3),
        1 => Just(WAITING_BYTES + 1),
    ];
    let few = prop::collection::vec(any::<bool>(), 1..4);
    let many = prop::collection::vec(prop::bool::weighted(0.8), 1..2 * WAITING_ENTRIES);
    let append = |for_it: BoxedStrategy<Vec<bool>>, bytes: BoxedStrategy<usize>| {
        (for_it, bytes).prop_map(|(for_it, bytes)| Step::Append { for_it, bytes })
    };
    prop_oneof![
        8 => append(few.boxed(), sizes.boxed()),
        1 => append(many.boxed(), Just(1).boxed()),
        6 => (1_usize..5).prop_map(|page| Step::Fill { page }),
        10 => (0_u64..3, prop::option::of(0_u64..300))
            .prop_map(|(session, deadline)| Step::HandOver { session, deadline }),
        10 => Just(Step::Finish),
        2 => Just(Step::Lose),
        2 => (0_u64..200).prop_map(|after| Step::Retry { after }),
        2 => Just(Step::Release),
        2 => Just(Step::Skip),
        2 => (0_u64..600).prop_map(|by| Step::Extend { by }),
        3 => (1_u64..200).prop_map(|by| Step::Wait { by }),
        2 => (1_usize..6).prop_map(|count| Step::Forget { count }),
        3 => Just(Step::Persist),
        1 => Just(Step::Fail),
        2 => Just(Step::Reload),
    ]
}

/// What the subscriber is promised, with nothing left out.
#[derive(Clone, Debug)]
struct Model {
    /// Sequence 1 is the first.
    log: Vec<Logged>,
    /// The oldest that is kept.
    first: u64,
    /// How often the oldest open activity was handed out.
    attempts: u32,
    /// Something was skipped or removed since the last ack.
    gap: bool,
    doing: Doing,
    lease: Option<Lease>,
}

#[derive(Clone, Debug)]
struct Logged {
    entry: Arc<Entry>,
    for_it: bool,
    /// Finished, parked or removed: never to be handed over again.
    closed: bool,
}

/// What the model says of the oldest open activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Held(Held),
    Resting(Timestamp),
}

impl Model {
    fn new() -> Self {
        Self {
            log: Vec::new(),
            first: 1,
            attempts: 0,
            gap: false,
            doing: Doing::Nothing,
            lease: None,
        }
    }

    fn last(&self) -> Sequence {
        Sequence(self.log.len() as u64)
    }

    /// The activities that are still to be handed over, oldest first.
    fn open(&self) -> impl Iterator<Item = &Logged> {
        self.log
            .iter()
            .filter(|logged| logged.for_it && !logged.closed)
    }

    fn next(&self) -> Option<Sequence> {
        self.open().next().map(|logged| logged.entry.sequence)
    }

    fn held(&self) -> Option<Held> {
        match self.doing {
            Doing::Held(held) => Some(held),
            Doing::Nothing | Doing::Resting(_) => None,
        }
    }

    /// Closes the oldest open activity.
    fn close(&mut self, gap: bool) {
        let next = self.next().expect("something is open");
        self.log[next.0 as usize - 1].closed = true;
        self.attempts = 0;
        self.gap = gap;
        self.doing = Doing::Nothing;
    }
}

/// The machine, its model, and what both come back to after a failed round.
struct Run {
    machine: Subscription,
    model: Model,
    written: (Cursor, Model),
    now: Timestamp,
    deliveries: u64,
    newest_fence: Fence,
}

impl Run {
    fn new() -> Self {
        let model = Model::new();
        Self {
            machine: Subscription::new(Cursor::default(), Sequence::START),
            written: (Cursor::default(), model.clone()),
            model,
            now: Timestamp(1_000),
            deliveries: 0,
            newest_fence: Fence(0),
        }
    }

    fn take(&mut self, step: &Step) -> TestCaseResult {
        match *step {
            Step::Append { ref for_it, bytes } => {
                for &for_it in for_it {
                    self.append(for_it, bytes)?;
                }
            }
            Step::Fill { page } => self.fill(page)?,
            Step::HandOver { session, deadline } => self.hand_over(Number(session), deadline)?,
            Step::Finish if self.model.held().is_some() => {
                self.model.close(false);
                self.machine.finish();
                self.settle()?;
            }
            Step::Skip if self.model.held().is_some() => {
                self.model.close(true);
                self.machine.skip();
                self.settle()?;
            }
            Step::Lose if self.model.held().is_some() => {
                self.model.doing = Doing::Nothing;
                self.machine.give_back(Return::Lost);
            }
            Step::Retry { after } if self.model.held().is_some() => {
                let until = self.now.after(Duration::from_millis(after));
                self.model.doing = Doing::Resting(until);
                self.machine.give_back(Return::Retry { until });
            }
            Step::Release if self.model.held().is_some() => {
                self.model.doing = Doing::Nothing;
                self.model.attempts -= 1;
                self.model.lease = None;
                self.machine.give_back(Return::Release);
            }
            Step::Extend { by } => self.extend(by),
            Step::Wait { by } => {
                self.now = self.now.after(Duration::from_millis(by));
                if matches!(self.model.doing, Doing::Resting(until) if until <= self.now) {
                    self.model.doing = Doing::Nothing;
                    self.machine.rested();
                }
            }
            Step::Forget { count } => self.forget(count)?,
            Step::Persist => self.written = (self.machine.cursor(), self.model.clone()),
            Step::Fail => {
                let (cursor, model) = self.written.clone();
                self.model = model;
                self.reload(cursor);
            }
            Step::Reload => {
                self.reload(self.machine.cursor());
                self.written = (self.machine.cursor(), self.model.clone());
            }
            Step::Finish | Step::Skip | Step::Lose | Step::Retry { .. } | Step::Release => {}
        }
        self.check()
    }

    fn append(&mut self, for_it: bool, bytes: usize) -> TestCaseResult {
        static BODY: [u8; WAITING_BYTES + 1] = [0; WAITING_BYTES + 1];
        let sequence = self.model.last().next();
        let entry = Arc::new(Entry {
            sequence,
            append_time: self.now,
            author: Author::Channel,
            activity_id: sequence.to_string().into(),
            activity: Bytes::from_static(&BODY[..bytes]),
            bot_run: 0,
        });
        let was_idle = self.machine.state() == State::Idle;
        let became_ready = self.machine.learn(&entry, for_it);
        prop_assert_eq!(
            became_ready,
            was_idle && for_it,
            "who is told that there is work"
        );
        self.model.log.push(Logged {
            entry,
            for_it,
            closed: false,
        });
        Ok(())
    }

    /// Reads on, as the shard does before it hands over.
    fn fill(&mut self, page: usize) -> TestCaseResult {
        if self.machine.state() != State::Ready {
            return Ok(());
        }
        let last = self.model.last();
        while let Some(after) = self.machine.must_read_after(last) {
            prop_assert!(
                self.machine.first().is_none(),
                "it reads with something at hand"
            );
            let from = after.next().0.max(self.model.first);
            let entries = self.model.log.iter().skip(from as usize - 1).take(page);
            let mut newest = after;
            for logged in entries {
                self.machine.learn(&logged.entry, logged.for_it);
                newest = logged.entry.sequence;
            }
            prop_assert!(newest > after, "it reads what retention has removed");
            if newest == last && self.machine.first().is_none() {
                self.machine.nothing_waits(last);
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, session: Number, deadline: Option<u64>) -> TestCaseResult {
        self.fill(WAITING_ENTRIES)?;
        if self.machine.state() != State::Ready {
            return Ok(());
        }
        self.deliveries += 1;
        let id = DeliveryId(self.deliveries);
        let deadline = deadline.map(|by| self.now.after(Duration::from_millis(by)));
        let (entry, fence) = self.machine.hand_over(session, id, self.now, deadline);
        prop_assert_eq!(
            Some(entry.sequence),
            self.model.next(),
            "the oldest open one goes first"
        );
        let sticks = self.model.lease.filter(|lease| lease.session == session);
        match sticks {
            Some(lease) => prop_assert_eq!(fence, lease.fence, "a lease keeps its fence"),
            None => prop_assert!(fence > self.newest_fence, "a new lease has a higher fence"),
        }
        self.newest_fence = fence;
        self.model.lease = Some(Lease { session, fence });
        self.model.attempts += 1;
        self.model.doing = Doing::Held(Held {
            id,
            session,
            deadline,
            since: self.now,
        });
        Ok(())
    }

    fn extend(&mut self, by: u64) {
        let deadline = self.now.after(Duration::from_millis(by));
        self.machine.extend(deadline, CEILING);
        if let Doing::Held(held) = &mut self.model.doing
            && held.deadline.is_some()
        {
            held.deadline = Some(deadline.min(held.since.after(CEILING)));
        }
    }

    fn forget(&mut self, count: usize) -> TestCaseResult {
        let most = match self.model.held() {
            // What is held is kept.
            Some(_) => self.model.next().expect("what is held is open").0,
            None => self.model.last().next().0,
        };
        let first = (self.model.first + count as u64).min(most);
        if first <= self.model.first {
            return Ok(());
        }
        self.model.first = first;
        let removes_open = self.model.next().is_some_and(|next| next.0 < first);
        let knows = self.machine.first().is_some()
            || self.machine.must_read_after(self.model.last()).is_none();
        let passes = self.machine.cursor().finished.next().0 < first;
        for logged in &mut self.model.log[..first as usize - 1] {
            logged.closed = true;
        }
        if removes_open || passes && !knows {
            // What it has not read may have been for it: then there is a gap as far as it knows.
            self.model.attempts = 0;
            self.model.gap = true;
            self.model.doing = Doing::Nothing;
        }
        self.machine.forget_before(Sequence(first));
        self.settle()
    }

    fn reload(&mut self, cursor: Cursor) {
        self.model.doing = Doing::Nothing;
        self.model.lease = None;
        self.machine = Subscription::new(cursor, self.model.last());
    }

    fn settle(&mut self) -> TestCaseResult {
        let more = self.machine.settle(self.model.last());
        prop_assert_eq!(more, self.machine.state() != State::Idle);
        Ok(())
    }

    /// Everything that is promised between two steps.
    fn check(&self) -> TestCaseResult {
        let (machine, model, last) = (&self.machine, &self.model, self.model.last());
        let cursor = machine.cursor();
        let next = model.next();

        prop_assert!(cursor.finished <= last, "the cursor stays within the log");
        prop_assert!(
            next.is_none_or(|next| cursor.finished < next),
            "the cursor stays before what is open"
        );
        prop_assert_eq!(cursor.attempts, model.attempts, "attempts count");
        prop_assert_eq!(
            cursor.after_gap,
            model.gap,
            "a gap is said until the next ack"
        );

        let read_on = machine.must_read_after(last);
        match machine.first() {
            Some(first) => {
                prop_assert_eq!(Some(first.sequence), next, "the oldest open one is at hand");
                prop_assert_eq!(read_on, None, "it reads on only with nothing at hand");
            }
            None => prop_assert!(
                next.is_none() || read_on.is_some(),
                "what is open and not at hand is to be read"
            ),
        }
        if let Some(after) = read_on {
            prop_assert!(after >= cursor.finished && after < last);
            prop_assert!(
                next.is_none_or(|next| after < next),
                "it reads past what is open"
            );
        }

        let is_idle = machine.state() == State::Idle;
        prop_assert!(!is_idle || next.is_none(), "idle with something open");
        prop_assert!(
            !is_idle || cursor.finished == last,
            "idle before the end of the log"
        );
        prop_assert!(
            is_idle || next.is_some() || read_on.is_some(),
            "busy with nothing open and nothing to read"
        );
        match (model.doing, machine.state()) {
            (Doing::Nothing, State::Idle | State::Ready) => {}
            (Doing::Held(held), State::Held(is)) => prop_assert_eq!(held, is),
            (Doing::Resting(until), State::Resting { until: is }) => prop_assert_eq!(until, is),
            (doing, state) => prop_assert!(false, "{:?} is not {:?}", state, doing),
        }
        prop_assert_eq!(machine.held(), model.held());
        prop_assert_eq!(machine.lease(), model.lease);
        let wakes_at = match model.doing {
            Doing::Nothing => None,
            Doing::Held(held) => held.deadline,
            Doing::Resting(until) => Some(until),
        };
        prop_assert_eq!(
            machine.wakes_at(),
            wakes_at,
            "time wakes what rests or is held"
        );

        let undelivered = machine.undelivered(last);
        prop_assert!(
            undelivered >= model.open().count() as u64,
            "nothing that waits is left out"
        );
        prop_assert!(
            undelivered <= last.0 - cursor.finished.0,
            "what is finished does not wait"
        );
        Ok(())
    }
}

fn cases() -> u32 {
    if std::env::var_os("TURNWIRE_LONG").is_some() {
        100_000
    } else {
        4_000
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        // A failure is to be kept as a test of its own, below, and not in a file of seeds.
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::with_cases(cases())
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_handed_over_and_counted_is_what_the_model_says(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step)?;
        }
    }

    #[test]
    fn every_activity_is_finished_or_parked_once_and_in_order_when_sessions_behave_at_last(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step)?;
        }
        run.take(&Step::Wait { by: 1_000 })?;
        run.take(&Step::Lose)?;
        let mut left = run.model.open().count();
        while left > 0 {
            run.take(&Step::HandOver { session: 9, deadline: None })?;
            run.take(&Step::Finish)?;
            prop_assert_eq!(run.model.open().count(), left - 1, "each goes on by one");
            left -= 1;
        }
        run.take(&Step::Fill { page: 3 })?;
        prop_assert_eq!(run.machine.state(), State::Idle);
        prop_assert_eq!(run.machine.undelivered(run.model.last()), 0);
    }
}

/// Found by the properties above.
#[test]
fn what_is_held_stays_held_when_retention_removes_what_was_not_for_its_subscriber() {
    let mut run = Run::new();
    for step in [
        Step::Append {
            for_it: vec![true, false, true],
            bytes: 1,
        },
        Step::Forget { count: 1 },
        Step::HandOver {
            session: 1,
            deadline: None,
        },
        Step::Forget { count: 1 },
        Step::Finish,
    ] {
        run.take(&step).unwrap();
    }
    assert_eq!(run.machine.state(), State::Idle);
}

/// Found by the properties above.
#[test]
fn a_cursor_passes_what_was_not_for_its_subscriber_when_retention_removes_all_that_waited() {
    let mut run = Run::new();
    for step in [
        Step::Append {
            for_it: vec![true, false],
            bytes: 1,
        },
        Step::Forget { count: 1 },
    ] {
        run.take(&step).unwrap();
    }
    assert_eq!(run.machine.cursor().finished, Sequence(2));
}
