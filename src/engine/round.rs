//! A round: what a shard decides together, makes durable with one write, and only then tells.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::engine::command::{Dealt, Followed, Reply};
use crate::engine::create::Created;
use crate::engine::erase::ErasedPage;
use crate::engine::error::Error;
use crate::engine::feed::{Ephemeral, Feed};
use crate::engine::log::Entry;
use crate::engine::receipt::Receipted;
use crate::engine::schedule::Answer;
use crate::engine::session::{
    self, Acked, Appended, Event, Outcome, Posted, Refused, Sent, Session,
};
use crate::engine::shard::once::Kept;
use crate::engine::shard::schedule::End;
use crate::engine::shard::stream::Live;
use crate::id::{ConversationNumber, DeliveryId, Etag, Sequence};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::proto::storage;
use crate::store::keys::{Key, OnceDigest};
use crate::store::{Batch, Durability, record};

/// The work of one round.
pub(crate) struct Round {
    pub(crate) now: Timestamp,
    pub(crate) batch: Batch,
    pub(crate) durability: Durability,
    /// Conversations whose head has changed.
    pub(crate) dirty: Vec<usize>,
    /// Subscribers for whom there may be something to hand over.
    pub(crate) pump: Vec<usize>,
    /// Commands decided.
    pub(crate) decided: usize,
    /// Deliveries handed over.
    pub(crate) handed_over: usize,
    /// Encoded keys of members who were removed and are still in the store.
    pub(crate) removed_members: HashSet<Vec<u8>>,
    /// Encoded keys of dead letters that were removed and are still in the store.
    pub(crate) removed_letters: HashSet<Vec<u8>>,
    /// Conversations with dead letters that are not in the store yet.
    pub(crate) parked: HashSet<ConversationNumber>,
    /// Results of keyed appends that are not in the store yet.
    pub(crate) results: HashMap<OnceDigest, Kept>,
    /// Streamed replies that have ended, which they have not if the round is not written.
    pub(crate) ended: Vec<Live>,
    /// Draining sessions that hold nothing of this shard's any more.
    pub(crate) drained: Vec<Arc<Session>>,
    /// Encoded keys of the documents that it writes, one for each write.
    pub(crate) documents: Vec<Vec<u8>>,
    /// Ends of scheduled sends that are not in the store yet.
    pub(crate) ends: HashMap<OnceDigest, End>,
    /// Channels have said what became of activities.
    pub(crate) has_outcomes: bool,
    /// Receipts that are not in the store yet, oldest first. Few are ever looked up.
    pub(crate) receipts: Vec<((ConversationNumber, Sequence), storage::Receipt)>,
    effects: Vec<Effect>,
    /// Which effect has the results of a session's acknowledgements: they are told together, since
    /// they become durable together, and a frame costs more than a result in it.
    acked: HashMap<session::Number, usize>,
}

/// What is told when the round is durable, in the order in which it was decided.
enum Effect {
    Reply(Reply, Result<Appended, Error>),
    Created(
        oneshot::Sender<Result<Created, Error>>,
        Result<Created, Error>,
    ),
    Tell(Arc<Session>, Event),
    /// Each with the frame that asked.
    Acked(Arc<Session>, Vec<(u64, Acked)>),
    Publish(Arc<Feed>, Arc<Entry>),
    /// Ephemeral: dropped for whoever is behind. In its place between the others, so that a snapshot of
    /// a reply is never shown after its end.
    Show(Arc<Feed>, Arc<Ephemeral>),
    Whisper(Arc<Session>, Event),
    Answer(Answer),
    /// Everything up to there has a receipt.
    Settled(Arc<Feed>, Sequence),
    Receipt(Arc<Session>, Box<Receipted>),
    Followed(
        oneshot::Sender<Result<Followed, Error>>,
        Result<Followed, Error>,
    ),
    Resumed(oneshot::Sender<Vec<DeliveryId>>, Vec<DeliveryId>),
    Dealt(oneshot::Sender<Result<Dealt, Error>>, Result<Dealt, Error>),
    Written(
        oneshot::Sender<Result<Option<Etag>, Error>>,
        Result<Option<Etag>, Error>,
    ),
    Erased(
        oneshot::Sender<Result<ErasedPage, Error>>,
        Result<ErasedPage, Error>,
    ),
}

impl Round {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            now,
            batch: Batch::default(),
            durability: Durability::Buffered,
            dirty: Vec::new(),
            pump: Vec::new(),
            decided: 0,
            handed_over: 0,
            removed_members: HashSet::new(),
            removed_letters: HashSet::new(),
            parked: HashSet::new(),
            results: HashMap::new(),
            ended: Vec::new(),
            drained: Vec::new(),
            documents: Vec::new(),
            ends: HashMap::new(),
            has_outcomes: false,
            receipts: Vec::new(),
            effects: Vec::new(),
            acked: HashMap::new(),
        }
    }

    /// Asks that the round is on disk before anything is told.
    pub(crate) fn must_be_durable(&mut self) {
        self.durability = Durability::Synced;
    }

    /// Writes an activity, with the head of its conversation if it is the newest.
    pub(crate) fn put(&mut self, conversation: ConversationNumber, entry: &Entry, head: &[u8]) {
        let sequence = entry.sequence;
        let key = Key::Activity {
            conversation,
            sequence,
        };
        record::put_activity(&mut self.batch, &key, &entry.record(head));
    }

    pub(crate) fn reply(&mut self, reply: Reply, result: Result<Appended, Error>) {
        self.effects.push(Effect::Reply(reply, result));
    }

    pub(crate) fn created(
        &mut self,
        reply: oneshot::Sender<Result<Created, Error>>,
        created: Result<Created, Error>,
    ) {
        self.effects.push(Effect::Created(reply, created));
    }

    /// Tells a session something.
    pub(crate) fn tell(&mut self, session: &Arc<Session>, event: Event) {
        self.effects.push(Effect::Tell(Arc::clone(session), event));
    }

    /// Tells a session what became of an acknowledgement, which was in one of its frames.
    pub(crate) fn acked(&mut self, session: &Arc<Session>, frame: u64, acked: Acked, most: usize) {
        if let Some(&at) = self.acked.get(&session.number)
            && let Effect::Acked(_, together) = &mut self.effects[at]
            && together.len() < most
        {
            return together.push((frame, acked));
        }
        self.acked.insert(session.number, self.effects.len());
        let session = Arc::clone(session);
        self.effects
            .push(Effect::Acked(session, vec![(frame, acked)]));
    }

    pub(crate) fn publish(&mut self, feed: Arc<Feed>, entry: &Arc<Entry>) {
        self.effects.push(Effect::Publish(feed, Arc::clone(entry)));
    }

    /// Shows something ephemeral to followers.
    pub(crate) fn show(&mut self, feed: Arc<Feed>, ephemeral: &Arc<Ephemeral>) {
        self.effects.push(Effect::Show(feed, Arc::clone(ephemeral)));
    }

    /// Tells a session something ephemeral.
    pub(crate) fn whisper(&mut self, session: &Arc<Session>, event: Event) {
        self.effects
            .push(Effect::Whisper(Arc::clone(session), event));
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.effects.push(Effect::Answer(answer));
    }

    /// Tells followers that an activity, and all before it, has what it gets of a receipt.
    pub(crate) fn settled(&mut self, feed: Arc<Feed>, sequence: Sequence) {
        self.effects.push(Effect::Settled(feed, sequence));
    }

    /// Tells a session what became of an activity, if it has room for that.
    pub(crate) fn receipted(&mut self, session: &Arc<Session>, receipted: Receipted) {
        let session = Arc::clone(session);
        self.effects
            .push(Effect::Receipt(session, Box::new(receipted)));
    }

    pub(crate) fn followed(
        &mut self,
        reply: oneshot::Sender<Result<Followed, Error>>,
        followed: Result<Followed, Error>,
    ) {
        self.effects.push(Effect::Followed(reply, followed));
    }

    pub(crate) fn resumed(
        &mut self,
        reply: oneshot::Sender<Vec<DeliveryId>>,
        lost: Vec<DeliveryId>,
    ) {
        self.effects.push(Effect::Resumed(reply, lost));
    }

    /// Removes a dead letter.
    pub(crate) fn remove_letter(&mut self, key: &Key<'_>) {
        self.batch.delete(key);
        self.removed_letters.insert(key.encode());
    }

    pub(crate) fn dealt(
        &mut self,
        reply: oneshot::Sender<Result<Dealt, Error>>,
        dealt: Result<Dealt, Error>,
    ) {
        self.effects.push(Effect::Dealt(reply, dealt));
    }

    /// Answers who wanted a document written.
    pub(crate) fn written(
        &mut self,
        reply: oneshot::Sender<Result<Option<Etag>, Error>>,
        written: Result<Option<Etag>, Error>,
    ) {
        self.effects.push(Effect::Written(reply, written));
    }

    pub(crate) fn erased(
        &mut self,
        reply: oneshot::Sender<Result<ErasedPage, Error>>,
        erased: Result<ErasedPage, Error>,
    ) {
        self.effects.push(Effect::Erased(reply, erased));
    }

    /// Tells everyone, now that the round is as durable as it asked for.
    pub(crate) fn conclude(self, limits: &Limits, metrics: &Metrics) {
        let most_receipts = limits
            .session_receipts
            .min(limits.session_backlog_frames / 2);
        for effect in self.effects {
            match effect {
                Effect::Reply(reply, result) => tell_result(reply, result),
                Effect::Tell(session, event) => session.tell(event),
                Effect::Acked(session, acked) => {
                    let acked = acked.into_iter().map(|(_, acked)| acked);
                    session.tell(Event::Acked(acked.collect()));
                }
                Effect::Publish(feed, entry) => feed.publish(&entry, limits),
                Effect::Show(feed, ephemeral) => feed.show(&ephemeral, limits),
                Effect::Whisper(session, event) => session.whisper(event, limits),
                // A caller that has gone away needs no answer, here and below.
                Effect::Resumed(reply, lost) => drop(reply.send(lost)),
                Effect::Dealt(reply, dealt) => drop(reply.send(dealt)),
                Effect::Written(reply, written) => drop(reply.send(written)),
                Effect::Erased(reply, erased) => drop(reply.send(erased)),
                Effect::Answer(answer) => answer.tell(),
                Effect::Settled(feed, sequence) => feed.settle(sequence),
                Effect::Receipt(session, receipted) => {
                    if !session.offer(Event::Receipt(receipted), most_receipts) {
                        metrics.receipts_dropped.inc();
                    }
                }
                Effect::Followed(reply, followed) => drop(reply.send(followed)),
                Effect::Created(reply, created) => drop(reply.send(created)),
            }
        }
        // Last, so that a stream that ends has said everything.
        for session in self.drained {
            session.drained();
        }
    }

    /// Tells everyone that the round was not written: successes become failures, refusals stay.
    pub(crate) fn fail(self, why: impl Fn() -> Error) {
        for effect in self.effects {
            match effect {
                Effect::Reply(reply, result) => tell_result(reply, result.and_then(|_| Err(why()))),
                Effect::Tell(session, event) => match event {
                    // An adapter's credit came back when its conversations were forgotten.
                    Event::Delivery(_) if session.is_egress() => {}
                    Event::Delivery(delivery) => session.refund(delivery.activity.len()),
                    event => session.tell(event),
                },
                Effect::Acked(session, acked) => {
                    for (frame, acked) in acked {
                        refuse(&session, frame, why(), String::new(), Some(acked.id));
                    }
                }
                Effect::Dealt(reply, dealt) => drop(reply.send(dealt.and_then(|_| Err(why())))),
                // What was forgotten with the round is found to be stale when it is cited.
                Effect::Resumed(reply, lost) => drop(reply.send(lost)),
                Effect::Written(reply, written) => {
                    drop(reply.send(written.and_then(|_| Err(why()))));
                }
                Effect::Erased(reply, erased) => {
                    drop(reply.send(erased.and_then(|_| Err(why()))));
                }
                // What was not written has not happened.
                Effect::Publish(..)
                | Effect::Show(..)
                | Effect::Whisper(..)
                | Effect::Settled(..)
                | Effect::Receipt(..) => {}
                Effect::Answer(answer) => answer.fail(&why),
                Effect::Followed(reply, followed) => {
                    drop(reply.send(followed.and_then(|_| Err(why()))));
                }
                Effect::Created(reply, created) => {
                    drop(reply.send(created.and_then(|_| Err(why()))));
                }
            }
        }
        for session in self.drained {
            session.drained();
        }
    }
}

fn tell_result(reply: Reply, result: Result<Appended, Error>) {
    match (reply, result) {
        (Reply::Caller(caller), result) => drop(caller.send(result)),
        (
            Reply::Send {
                session,
                frame,
                client_id,
                cites,
            },
            result,
        ) => {
            let result = match result {
                Ok(appended) => Ok(appended),
                Err(Error::DeliveryStale(_)) => Err(Outcome::Stale),
                Err(Error::DeliveryUnknown(_)) => Err(Outcome::Unknown),
                Err(error) => return refuse(&session, frame, error, client_id, cites),
            };
            session.tell(Event::Sent(Sent {
                frame,
                client_id,
                result,
            }));
        }
        // Nobody waits for what is ephemeral, and what comes late is as good as dropped.
        (
            Reply::Refusal { .. },
            Ok(_) | Err(Error::DeliveryStale(_) | Error::DeliveryUnknown(_)),
        ) => {}
        (
            Reply::Refusal {
                session,
                frame,
                cites,
            },
            Err(error),
        ) => refuse(&session, frame, error, String::new(), cites),
        (
            Reply::Post {
                session, post_id, ..
            },
            Ok(appended),
        ) => {
            session.tell(Event::Posted(Posted { post_id, appended }));
        }
        (
            Reply::Post {
                session,
                frame,
                post_id,
            },
            Err(error),
        ) => {
            refuse(&session, frame, error, post_id, None);
        }
    }
}

fn refuse(
    session: &Session,
    frame: u64,
    error: Error,
    client_id: String,
    delivery: Option<DeliveryId>,
) {
    session.tell(Event::Refused(Refused {
        frame,
        error,
        client_id,
        delivery,
    }));
}
