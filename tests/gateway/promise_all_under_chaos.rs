//! All promises at once: three replicas of a bot that crash, stall, give back and reconnect while
//! 50,000 activities of 500 conversations go through.
//!
//! One seed decides what the replicas do; the network decides when. What must hold, holds for every
//! interleaving.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use turnwire::proto::v1;
use turnwire::proto::v1::AckOutcome;
use turnwire::proto::v1::subscribe_request::Frame as Asked;
use turnwire::proto::v1::subscribe_response::Frame;

use crate::harness::{Bot, Gateway, duration, message, place_of, said, seconds, text};

const SEED: u64 = 20_260_102;
const CONVERSATIONS: usize = 500;
const ACTIVITIES: u64 = 100;
const REPLICAS: u64 = 3;

/// Deliveries between two seconds of the gateway's time.
const DELIVERIES_PER_SECOND: u64 = 20;

/// One activity: its conversation and its sequence there.
type Place = (String, u64);

/// What the replicas have found out together.
#[derive(Default)]
struct Seen {
    /// Every delivery of a conversation: its id, sequence and fence.
    deliveries: HashMap<String, Vec<(u64, u64, u64)>>,
    delivered: u64,
    /// Activities whose commit got OK, and by which delivery.
    finished: HashMap<Place, u64>,
    /// Where the replies were appended of the commits that got OK.
    replies: HashSet<Place>,
    /// Commits of which no answer came before the crash: they may or may not have happened.
    unanswered: HashSet<Place>,
    stale: u64,
    crashes: u64,
    wrong: Vec<String>,
}

/// One replica: lives, crashes and comes back until all is done.
struct Replica {
    number: u64,
    random: SmallRng,
    gateway: Arc<Gateway>,
    seen: Arc<Mutex<Seen>>,
    /// Commits on the way, by delivery.
    underway: HashMap<u64, Place>,
    /// Deliveries that are held and not answered in time, if ever.
    stalled: Vec<v1::Delivery>,
}

impl Replica {
    async fn run(mut self, mut done: watch::Receiver<bool>) {
        let instance = format!("replica-{}", self.number);
        loop {
            let opening = self.gateway.bot("echo").instance(&instance);
            let mut bot = opening.credit(200, 64 << 20).attach().await;
            for _ in 0..self.random.random_range(1_000..6_000) {
                let frame = tokio::select! {
                    biased;
                    _ = done.wait_for(|done| *done) => return self.crash(),
                    frame = bot.read() => frame.expect("no replica is sent away").expect("a frame"),
                };
                self.handle(&bot, frame);
            }
            self.crash();
            match self.random.random_range(0..3) {
                0 => drop(bot),
                1 => {
                    bot.finish();
                    bot.end().await;
                }
                _ => {
                    // The next session of the same name takes over.
                    let opening = self.gateway.bot("echo").instance(&instance);
                    opening.credit(0, 0).attach().await.barrier().await;
                }
            }
        }
    }

    fn crash(&mut self) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.crashes += 1;
        seen.unanswered
            .extend(self.underway.drain().map(|(_, place)| place));
        self.stalled.clear();
    }

    fn handle(&mut self, bot: &Bot, frame: Frame) {
        match frame {
            Frame::Delivery(delivery) => self.take(bot, delivery),
            Frame::AckResult(result) => {
                for result in result.results {
                    self.answered(&result);
                }
            }
            // A conversation goes elsewhere when its deadline has passed here, or it was given back.
            Frame::Heartbeat(_) | Frame::Revoked(_) => {}
            other => self.wrong(format!("{other:?}")),
        }
    }

    fn take(&mut self, bot: &Bot, delivery: v1::Delivery) {
        bot.write(Asked::Credit(v1::Credit {
            deliveries: 1,
            bytes: 0,
        }));
        let place = (place_of(&delivery), delivery.sequence);
        {
            let mut seen = self.seen.lock().expect("nobody panics with it");
            seen.delivered += 1;
            if seen.delivered.is_multiple_of(DELIVERIES_PER_SECOND) {
                self.gateway.clock.advance(seconds(1));
            }
            // One that was handed over before it was finished may well be read after.
            let id = delivery.delivery_id;
            if seen
                .finished
                .get(&place)
                .is_some_and(|finished| id > *finished)
            {
                seen.wrong
                    .push(format!("{place:?} comes again after its ack"));
            }
            let of_conversation = seen.deliveries.entry(place.0).or_default();
            of_conversation.push((id, delivery.sequence, delivery.fence));
        }
        match self.random.random_range(0..100) {
            0..2 => self.stalled.push(delivery),
            2..5 => bot.write(Asked::Nack(v1::Nack {
                delivery_ids: vec![delivery.delivery_id],
                mode: v1::NackMode::Retry as i32,
                delay: Some(duration(Duration::from_millis(
                    self.random.random_range(0..20_000),
                ))),
                ..Default::default()
            })),
            5..7 => {
                bot.write(Asked::Nack(v1::Nack {
                    delivery_ids: vec![delivery.delivery_id],
                    mode: v1::NackMode::Release as i32,
                    ..Default::default()
                }));
                // What was given back is no longer its own.
                self.commit(bot, &delivery);
            }
            _ => self.commit(bot, &delivery),
        }
        // A zombie wakes up: its delivery may long be someone else's.
        if self.stalled.len() > 15 {
            let zombie = self.random.random_range(0..self.stalled.len());
            let zombie = self.stalled.swap_remove(zombie);
            self.commit(bot, &zombie);
        }
    }

    fn commit(&mut self, bot: &Bot, delivery: &v1::Delivery) {
        let place = (place_of(delivery), delivery.sequence);
        let reply = message(&format!("re: {}", said(delivery)));
        self.underway.insert(delivery.delivery_id, place);
        bot.commit_all(delivery.delivery_id, vec![reply]);
    }

    fn answered(&mut self, result: &v1::DeliveryResult) {
        let Some(place) = self.underway.remove(&result.delivery_id) else {
            return self.wrong(format!("an answer to no commit: {result:?}"));
        };
        let mut seen = self.seen.lock().expect("nobody panics with it");
        match result.outcome() {
            AckOutcome::Ok => {
                let replies = result
                    .appended
                    .iter()
                    .map(|a| (place.0.clone(), a.sequence));
                seen.replies.extend(replies);
                if seen.finished.insert(place, result.delivery_id).is_some() {
                    seen.wrong
                        .push(format!("{result:?} finishes what was finished"));
                }
            }
            AckOutcome::Stale => seen.stale += 1,
            other => seen.wrong.push(format!("{place:?}: {other:?}")),
        }
    }

    fn wrong(&self, what: String) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.wrong.push(what);
    }
}

/// Ten users post at the same time, each in fifty conversations.
fn post_everything(gateway: &Arc<Gateway>) {
    for part in 0..10 {
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move {
            for number in 1..=ACTIVITIES {
                let own = (0..CONVERSATIONS).filter(|conversation| conversation % 10 == part);
                let posts = own.map(|conversation| {
                    let user = gateway.user(&format!("c{conversation}"));
                    async move { user.says(&format!("m{number}")).await }
                });
                futures_util::future::join_all(posts).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_fail_in_every_way_lose_nothing_double_nothing_and_keep_the_order() {
    let setup = Gateway::setup().config(|config| config.limits.delivery_attempts = 1_000_000);
    let gateway = Arc::new(setup.start().await);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (finish, done) = watch::channel(false);
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        let replica = Replica {
            number,
            random: SmallRng::seed_from_u64(random.random()),
            gateway: Arc::clone(&gateway),
            seen: Arc::clone(&seen),
            underway: HashMap::new(),
            stalled: Vec::new(),
        };
        replicas.push(tokio::spawn(replica.run(done.clone())));
    }
    post_everything(&gateway);

    // Each activity gets one reply, with its ack: all is done when there are as many.
    let series = "turnwire_activities_appended_total{author=\"bot\"}";
    let mut delivered = 0;
    while gateway.metric(series).await < (CONVERSATIONS as u64 * ACTIVITIES) as f64 {
        assert!(
            !replicas.iter().any(JoinHandle::is_finished),
            "a replica has failed"
        );
        gateway.settle().await;
        // While deliveries go on, they move the time. When all that is left stalls or rests, it is
        // moved from here.
        let now = seen.lock().expect("nobody panics with it").delivered;
        if std::mem::replace(&mut delivered, now) == now {
            gateway.clock.advance(seconds(2));
        }
    }
    finish.send(true).expect("they listen");
    for replica in replicas {
        replica.await.expect("no replica panics");
    }

    let seen = std::mem::take(&mut *seen.lock().expect("nobody panics with it"));
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    // Otherwise this has tested nothing.
    assert!(seen.crashes >= 6, "{}", seen.crashes);
    assert!(seen.stale >= 100, "{}", seen.stale);
    for conversation in 0..CONVERSATIONS {
        check(&gateway, &seen, &format!("c{conversation}")).await;
    }
    // Nothing comes to those who come late.
    let mut late = gateway.bot("echo").instance("late").attach().await;
    gateway.pass(seconds(3_600)).await;
    late.expect_nothing().await;
}

async fn check(gateway: &Gateway, seen: &Seen, conversation: &str) {
    let log = gateway.log(conversation).await;
    let (posts, replies): (Vec<_>, Vec<_>) = log
        .iter()
        .partition(|entry| entry.author() == v1::Author::Channel);

    let wanted: Vec<_> = (1..=ACTIVITIES)
        .map(|number| format!("m{number}"))
        .collect();
    let posted: Vec<_> = posts.iter().map(|entry| text(&entry.activity)).collect();
    assert_eq!(posted, wanted, "{conversation}: what was posted");
    let wanted: Vec<_> = wanted.iter().map(|text| format!("re: {text}")).collect();
    let replied: Vec<_> = replies.iter().map(|entry| text(&entry.activity)).collect();
    assert_eq!(
        replied, wanted,
        "{conversation}: each is answered once, and in order"
    );

    // Every reply in the log is one that got OK, or would have, had its replica lived to read it.
    for (post, reply) in posts.iter().zip(&replies) {
        let known = seen
            .replies
            .contains(&(conversation.to_owned(), reply.sequence));
        let lost = seen
            .unanswered
            .contains(&(conversation.to_owned(), post.sequence));
        assert!(
            known || lost,
            "{conversation}: {} was fenced out",
            reply.sequence
        );
    }
    let kept: HashSet<_> = replies.iter().map(|entry| entry.sequence).collect();
    let said_ok = seen
        .replies
        .iter()
        .filter(|(place, _)| place == conversation);
    for (_, sequence) in said_ok {
        assert!(
            kept.contains(sequence),
            "{conversation}: {sequence} got OK and is not there"
        );
    }

    // In the order in which they were handed over, neither sequences nor fences go back.
    let mut deliveries = seen.deliveries[conversation].clone();
    deliveries.sort_unstable();
    assert!(
        deliveries.is_sorted_by_key(|(_, sequence, _)| *sequence),
        "{conversation}"
    );
    assert!(
        deliveries.is_sorted_by_key(|(_, _, fence)| *fence),
        "{conversation}"
    );
}
