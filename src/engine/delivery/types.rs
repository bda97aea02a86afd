//! What the delivery state machine is made of and speaks in.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::engine::log::Entry;
use crate::engine::session;
use crate::id::{DeliveryId, Fence, Sequence};

/// The part of a subscription that is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything up to here is finished, or not for this subscriber.
    pub finished: Sequence,
    /// How often the activity after `finished` was handed out.
    pub attempts: u32,
    /// An activity was skipped since the last one that was acked.
    pub after_gap: bool,
    /// The activity after `finished` is a dead letter that holds up those behind it.
    pub blocked: bool,
    /// Dead letters are to be handed over again.
    pub replays: bool,
    /// The same as `attempts`, of activities further on that were given back one by one; mostly none.
    pub later_attempts: Vec<(Sequence, u32)>,
}

/// A delivery that a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The delivery.
    pub id: DeliveryId,
    /// Who has it.
    pub session: session::Number,
    /// When it is taken back; `None` while the session lives.
    pub deadline: Option<Timestamp>,
    /// When it was handed over; extensions are bounded from here.
    pub since: Timestamp,
    /// It is a dead letter that is handed over again.
    pub replay: bool,
}

/// A session's hold on a conversation, which outlives single deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has it.
    pub session: session::Number,
    /// Grows with every new lease of the conversation.
    pub fence: Fence,
    /// When the session last got or finished something under it.
    pub used: Timestamp,
}

/// Why a delivery came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Its session is gone, or its deadline has passed: ready at once.
    Lost,
    /// The session never got it: ready at once, the attempt does not count.
    Unseen,
    /// The session asked for another attempt then.
    Retry {
        /// When it is ready again.
        until: Timestamp,
    },
    /// The session does not want it: ready at once, the attempt does not count, the lease ends.
    Release,
}

/// What is handed to a session.
#[derive(Debug)]
pub struct HandedOver<'a> {
    /// The activity.
    pub entry: &'a Arc<Entry>,
    /// The lease's fence.
    pub fence: Fence,
    /// Which attempt it is, from 1.
    pub attempt: u32,
}
