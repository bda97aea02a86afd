//! What subscribers ask for when they attach.

use std::cell::OnceCell;
use std::time::Duration;

use crate::activity::Outline;
use crate::engine::log::Entry;
use crate::engine::session::Credit;
use crate::id::{ChannelId, DeliveryId};

/// What a subscriber asks for when it attaches.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The process, as it names itself: a second session of the same one replaces the first, or goes on
    /// with it.
    pub instance: String,
    /// The first grant.
    pub credit: Credit,
    /// Deliveries of one conversation at a time; 0 is read as 1.
    pub window: usize,
    /// What the session takes: what any of them matches. Without any: everything.
    pub selectors: Vec<Selector>,
    /// To go on with an earlier session, or to be able to. Without it the session ends with its stream.
    pub resume: Option<Resume>,
}

impl Terms {
    /// The terms of a session that takes everything, one delivery of a conversation at a time, and ends
    /// with its stream.
    #[must_use]
    pub fn new(instance: impl Into<String>, credit: Credit) -> Self {
        Self {
            instance: instance.into(),
            credit,
            ..Self::default()
        }
    }
}

/// Activities that a session takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Of these channels; empty: of all.
    pub channels: Vec<ChannelId>,
    /// Of these types, as `message`; empty: of all.
    pub types: Vec<String>,
}

/// An earlier session that a client wants to go on with.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Its id; empty when there is none yet.
    pub session_id: String,
    /// What its Welcome said.
    pub token: String,
    /// The deliveries that the client still has in work.
    pub held: Vec<DeliveryId>,
    /// How long the session is to outlive its stream; the limit when it says nothing.
    pub grace: Option<Duration>,
}

/// What became of a wish to resume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Whether it is the earlier session.
    pub same: bool,
    /// Of the deliveries that the client has in work, those that the session does not hold any more.
    pub lost: Vec<DeliveryId>,
}

impl Selector {
    /// Whether it matches.
    pub(crate) fn matches(&self, said: &Said<'_>) -> bool {
        let is_any = |list: &[String]| list.is_empty();
        (self.channels.is_empty() || self.channels.contains(said.channel))
            && (is_any(&self.types)
                || self
                    .types
                    .iter()
                    .any(|kind| kind.eq_ignore_ascii_case(said.kind())))
    }
}

/// An activity that selectors are held against. Its type is read when one asks for it, and once.
pub(crate) struct Said<'a> {
    channel: &'a ChannelId,
    entry: &'a Entry,
    kind: OnceCell<String>,
}

impl<'a> Said<'a> {
    pub(crate) fn new(channel: &'a ChannelId, entry: &'a Entry) -> Self {
        Self {
            channel,
            entry,
            kind: OnceCell::new(),
        }
    }

    fn kind(&self) -> &str {
        let read = || Outline::of(&self.entry.activity).r#type;
        self.kind.get_or_init(|| read().unwrap_or_default())
    }
}
