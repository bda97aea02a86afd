//! The gateway, everyone around it, and what they know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turnwire::clock::{Clock, Timestamp};
use turnwire::engine::Follower;
use turnwire::engine::session::{Credit, Delivery};
use turnwire::id::{ConversationKey, DeliveryId, Sequence};
use turnwire::proto::v1;

use crate::client::{Client, Role, Stream};
use crate::gateway::{Failure, Gateway, ROUTES};
use crate::oracle::{Harm, Seat};
use crate::trace::Trace;

/// Conversations of each channel.
pub(crate) const CONVERSATIONS: usize = 2;
pub(crate) const PLENTY: Credit = Credit {
    deliveries: 10_000,
    bytes: 10 << 20,
};

/// One conversation as the world outside the gateway knows it.
#[derive(Default)]
pub(crate) struct Book {
    /// By activity id.
    pub(crate) posts: BTreeMap<String, Post>,
    /// By text, which is also the key: where it is, once that was answered.
    pub(crate) sends: BTreeMap<String, Option<Sequence>>,
    pub(crate) commits: BTreeMap<DeliveryId, Commit>,
    /// The bot's place, and the adapter's.
    pub(crate) bot: Seat,
    pub(crate) egress: Seat,
    /// Ids that followers were shown.
    pub(crate) followed: BTreeMap<Sequence, Arc<str>>,
    pub(crate) position: Sequence,
}

impl Book {
    pub(crate) fn seat(&mut self, is_egress: bool) -> &mut Seat {
        match is_egress {
            true => &mut self.egress,
            false => &mut self.bot,
        }
    }
}

pub(crate) struct Post {
    /// When it was first tried.
    pub(crate) since: Timestamp,
    /// Of which type.
    pub(crate) kind: &'static str,
    /// Where it is, once that was answered.
    pub(crate) at: Option<Sequence>,
}

pub(crate) struct Commit {
    pub(crate) question: Sequence,
    pub(crate) replies: usize,
    pub(crate) fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody was told.
    Unknown,
    Taken,
    /// It was stale, or out of order: nothing was written.
    Refused,
}

/// What a client has asked for, by delivery, that is not answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Done,
    GiveBack,
    Poison,
}

/// Where a delivery belongs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) key: ConversationKey,
    pub(crate) sequence: u64,
    pub(crate) is_egress: bool,
}

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) trace: Trace,
    pub(crate) random: StdRng,
    pub(crate) books: BTreeMap<ConversationKey, Book>,
    pub(crate) clients: Vec<Client>,
    /// Streams whose session was taken over, and who do not know.
    pub(crate) zombies: Vec<(Stream, Vec<Delivery>, bool)>,
    pub(crate) followers: BTreeMap<ConversationKey, Follower>,
    pub(crate) places: BTreeMap<DeliveryId, Place>,
    pub(crate) asked: BTreeMap<DeliveryId, Asked>,
    pub(crate) harm: Harm,
    pub(crate) latest: Timestamp,
    pub(crate) choosy: bool,
    pub(crate) epoch: u32,
    frame: u64,
    pub(crate) posts: usize,
    jumps: usize,
}

impl World {
    pub(crate) fn new(seed: u64, aloud: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shards = random.random_range(1..=3);
        let mut clients = Vec::new();
        for (channel, bot) in ROUTES {
            clients.extend(["one", "two"].map(|name| Client::new(Role::Bot(bot), name)));
            if channel != "help" {
                clients.push(Client::new(Role::Adapter(channel), "one"));
            }
        }
        let gateway = Gateway::new(seed, shards);
        let latest = gateway.clock.now();
        Self {
            gateway,
            trace: Trace::new(aloud),
            random,
            books: BTreeMap::new(),
            clients,
            zombies: Vec::new(),
            followers: BTreeMap::new(),
            places: BTreeMap::new(),
            asked: BTreeMap::new(),
            harm: Harm::default(),
            latest,
            choosy: false,
            epoch: 1,
            frame: 1,
            posts: 0,
            jumps: 0,
        }
    }

    pub(crate) fn frame(&mut self) -> u64 {
        self.frame += 1;
        self.frame
    }

    pub(crate) fn any_conversation(&mut self) -> ConversationKey {
        let (channel, _) = ROUTES[self.random.random_range(0..ROUTES.len())];
        ConversationKey {
            channel: channel.into(),
            conversation: self
                .random
                .random_range(0..CONVERSATIONS)
                .to_string()
                .into(),
        }
    }

    /// A conversation that is known to be there.
    pub(crate) fn started(&mut self) -> Option<ConversationKey> {
        let is_started = |book: &Book| book.posts.values().any(|post| post.at.is_some());
        let started = self.books.iter().filter(|(_, book)| is_started(book));
        let mut started: Vec<_> = started.map(|(key, _)| key.clone()).collect();
        if started.is_empty() {
            return None;
        }
        Some(started.swap_remove(self.random.random_range(0..started.len())))
    }

    /// One thing happens.
    pub(crate) async fn step(&mut self) {
        match self.random.random_range(0..200) {
            0..36 => self.post().await,
            36..46 => self.post_over_a_stream().await,
            46..56 => self.send().await,
            56..110 => self.act().await,
            110..134 => self.attach().await,
            134..140 => self.lose_a_stream(),
            140..143 => self.crash_a_client(),
            143..145 => self.drain_a_session().await,
            145..151 => self.grant().await,
            151..155 => self.follow().await,
            155..159 => self.deal().await,
            159..163 => self.be_a_zombie().await,
            163..184 => self.move_the_clock().await,
            184..190 => self.fail(),
            190..194 => self.gateway.memory.heal(),
            194..197 => self.restart().await,
            _ => {}
        }
        self.look().await;
    }

    /// A client that has a stream, and whatever else is asked.
    pub(crate) fn any_client(&mut self, is_meant: impl Fn(&Client) -> bool) -> Option<usize> {
        let open = |client: &Client| client.stream.is_some() && is_meant(client);
        let found: Vec<_> = (0..self.clients.len())
            .filter(|index| open(&self.clients[*index]))
            .collect();
        (!found.is_empty()).then(|| found[self.random.random_range(0..found.len())])
    }

    pub(crate) async fn move_the_clock(&mut self) {
        let by = match self.random.random_range(0..40) {
            0 if self.jumps < 3 => {
                self.jumps += 1;
                Duration::from_secs(7 * 3600)
            }
            1..4 => {
                let back = Duration::from_millis(self.random.random_range(1..1_500));
                self.gateway.clock.set_back(back);
                self.trace.note(format_args!("back by {back:?}"));
                return;
            }
            4..6 => Duration::from_secs(700),
            choice => [1, 200, 1_100, 6_000, 31_000, 61_000].map(Duration::from_millis)[choice % 6],
        };
        self.advance(by);
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.gateway.clock.advance(by);
        self.latest = self.latest.max(self.gateway.clock.now());
        self.trace.note(format_args!("on by {by:?}"));
    }

    pub(crate) fn fail(&mut self) {
        let how = [Failure::Refuse, Failure::ApplyAndFail][self.random.random_range(0..2)];
        let count = self.random.random_range(1..4);
        self.harm.faults += 1;
        self.gateway.fail_next(count, how);
        self.trace
            .note(format_args!("the next {count} fail: {how:?}"));
    }

    pub(crate) async fn restart(&mut self) {
        self.look().await;
        for client in &mut self.clients {
            client.read(usize::MAX);
            client.lose_stream();
        }
        self.zombies.clear();
        self.followers.clear();
        let keep = match self.random.random_range(0..3) {
            0 => usize::MAX,
            1 => self.random.random_range(0..5),
            _ => 0,
        };
        let lost = self.gateway.restart(keep).await;
        self.harm.faults += 1;
        self.harm.losses += u64::from(lost > 0);
        self.epoch += 1;
        self.trace.note(format_args!("restart, {lost} are lost"));
    }

    /// Sequences that a reader of a conversation was told of or that are meant for it.
    pub(crate) fn meant(&self, key: &ConversationKey, is_egress: bool) -> BTreeSet<u64> {
        let book = &self.books[key];
        let seat = match is_egress {
            true => &book.egress,
            false => &book.bot,
        };
        seat.meant.clone()
    }
}

pub(crate) fn key(channel: &str, conversation: &str) -> ConversationKey {
    ConversationKey {
        channel: channel.into(),
        conversation: conversation.into(),
    }
}

/// The bot that a conversation is routed to.
pub(crate) fn bot_of(key: &ConversationKey) -> &'static str {
    let route = ROUTES
        .iter()
        .find(|(channel, _)| *channel == key.channel.as_str());
    route.expect("a channel of ours").1
}

pub(crate) fn question(key: &ConversationKey, id: &str, kind: &str) -> v1::Activity {
    v1::Activity {
        r#type: Some(kind.to_owned()),
        id: Some(id.to_owned()),
        // An event has to have one.
        name: (kind == "event").then(|| "news".to_owned()),
        text: Some(format!("question {id}")),
        from: Some(v1::ChannelAccount {
            id: Some("user".to_owned()),
            ..Default::default()
        }),
        conversation: Some(v1::ConversationAccount {
            id: Some(key.conversation.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn message(text: &str) -> v1::Activity {
    v1::Activity {
        r#type: Some("message".to_owned()),
        text: Some(text.to_owned()),
        ..Default::default()
    }
}
