//! Bots and adapters: processes that hold streams, read them when they like, and crash.

use std::collections::VecDeque;
use std::fmt;

use futures_util::FutureExt;
use turnwire::engine::Link;
use turnwire::engine::session::{Credit, Delivery, Event, Events};

/// Whose a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Bot(&'static str),
    Adapter(&'static str),
}

/// One stream, and what has come over it.
pub(crate) struct Stream {
    pub(crate) link: Link,
    events: Events,
    /// All credit there was on this stream.
    pub(crate) granted: Credit,
    /// What was put on it.
    pub(crate) told: Credit,
    /// It takes messages only.
    pub(crate) choosy: bool,
    /// The end of the stream was told.
    pub(crate) ended: bool,
}

/// A client of the gateway.
pub(crate) struct Client {
    pub(crate) role: Role,
    pub(crate) instance: &'static str,
    pub(crate) stream: Option<Stream>,
    /// What resumes its session: id and token.
    pub(crate) session: Option<(String, String)>,
    /// What came over the stream and the client has not read.
    pub(crate) inbox: VecDeque<Event>,
    /// What it believes to hold.
    pub(crate) holds: Vec<Delivery>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Bot(bot) => write!(f, "{bot}/{}", self.instance),
            Role::Adapter(channel) => write!(f, "{channel}/{}", self.instance),
        }
    }
}

impl Stream {
    pub(crate) fn new(link: Link, events: Events, granted: Credit, choosy: bool) -> Self {
        Self {
            link,
            events,
            granted,
            told: Credit::default(),
            choosy,
            ended: false,
        }
    }

    /// What was put on the stream since the last look.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        let next = || tokio::task::unconstrained(self.events.next()).now_or_never();
        let events: Vec<_> = std::iter::from_fn(next).flatten().collect();
        for event in &events {
            match event {
                Event::Delivery(delivery) => {
                    self.told.deliveries += 1;
                    self.told.bytes += delivery.activity.len() as i64;
                }
                Event::End(_) => self.ended = true,
                _ => {}
            }
        }
        events
    }

    /// Credit is for what was told, and never exceeded. An adapter's comes back by itself.
    pub(crate) fn check_credit(&self, comes_back: bool) {
        let left = self.link.session().credit();
        assert!(
            left.deliveries >= 0 && left.bytes >= 0,
            "credit is exceeded: {left:?}"
        );
        let spent = Credit {
            deliveries: self.granted.deliveries - left.deliveries,
            bytes: self.granted.bytes - left.bytes,
        };
        match comes_back {
            true => assert!(
                (0..=self.told.deliveries).contains(&spent.deliveries)
                    && (0..=self.told.bytes).contains(&spent.bytes),
                "{spent:?} is used, {:?} was told",
                self.told
            ),
            false => assert_eq!(spent, self.told, "credit is for what was told"),
        }
    }
}

impl Client {
    pub(crate) fn new(role: Role, instance: &'static str) -> Self {
        Self {
            role,
            instance,
            stream: None,
            session: None,
            inbox: VecDeque::new(),
            holds: Vec::new(),
        }
    }

    /// The stream is lost, with what was on its way.
    pub(crate) fn lose_stream(&mut self) -> Option<Stream> {
        self.inbox.clear();
        self.stream.take()
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        self.lose_stream();
        self.session = None;
        self.holds.clear();
    }

    /// Reads up to `most` of what has come.
    pub(crate) fn read(&mut self, most: usize) {
        let count = most.min(self.inbox.len());
        for event in self.inbox.drain(..count) {
            if let Event::Delivery(delivery) = event {
                // What comes again replaces what it was, and what had followed it.
                self.holds.retain(|held| {
                    held.conversation != delivery.conversation
                        || held.sequence < delivery.sequence && held.fence == delivery.fence
                });
                self.holds.push(delivery);
            }
        }
    }
}
