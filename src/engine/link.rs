//! What a stream holds of the engine: its session, and the frames it may send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::activity;
use crate::engine::Engine;
use crate::engine::command::{
    Acknowledge, Append, Command, Commit, From, Keyed, Nack, Partial, Reply,
};
use crate::engine::create::Answer;
use crate::engine::error::Error;
use crate::engine::receipt::Said;
use crate::engine::session::{Credit, Event, Refused, Session, Subscriber};
use crate::engine::state;
use crate::engine::stream::Piece;
use crate::id::{ConversationKey, DeliveryId};
use crate::proto::v1;

/// An attached session. Dropping it detaches: what the session holds goes to others, at once, or when
/// its client has not come back in time.
///
/// Frames are handled in the order of the calls. Results come as [`Event`]s; an error that a method
/// returns means that the frame did nothing, and is for the caller to report.
pub struct Link {
    engine: Engine,
    session: Arc<Session>,
    leaves: AtomicBool,
}

impl Link {
    pub(super) fn new(engine: Engine, session: Arc<Session>) -> Self {
        let leaves = AtomicBool::new(false);
        Self {
            engine,
            session,
            leaves,
        }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Adds to the session's credit.
    ///
    /// # Errors
    ///
    /// [`Error::CreditOutOfRange`]: the balance stays.
    pub async fn grant(&self, credit: Credit) -> Result<(), Error> {
        self.session.grant(credit, &self.engine.limits())?;
        self.engine
            .command_all(|| Command::Granted(Arc::clone(&self.session)))
            .await
    }

    /// Gets nothing more. The stream ends when the session has finished what it holds.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn drain(&self) -> Result<(), Error> {
        self.leave();
        self.session.drain(self.engine.shards());
        self.engine
            .command_all(|| Command::DrainSession(self.session.number))
            .await
    }

    /// Notes that the client ends the session of its own will: it is over with its stream.
    pub fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// Finishes deliveries.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn ack(
        &self,
        frame: u64,
        deliveries: Vec<DeliveryId>,
        want_result: bool,
    ) -> Result<(), Error> {
        self.acknowledge(frame, deliveries, want_result, None, Command::Ack)
            .await
    }

    /// Gives deliveries back.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn nack(
        &self,
        frame: u64,
        deliveries: Vec<DeliveryId>,
        how: Nack,
        want_result: bool,
    ) -> Result<(), Error> {
        let command = |request| Command::Nack(request, how.clone());
        self.acknowledge(frame, deliveries, want_result, None, command)
            .await
    }

    /// Notes that a channel has what it was handed, and under which id of its own.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn delivered(
        &self,
        frame: u64,
        delivery: DeliveryId,
        channel_activity_id: Option<String>,
    ) -> Result<(), Error> {
        self.acknowledge(
            frame,
            vec![delivery],
            false,
            Some(Said::Delivered(channel_activity_id.unwrap_or_default())),
            Command::Ack,
        )
        .await
    }

    /// Notes that nobody can say whether a channel has what it was handed, and why. It is not tried again.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn undetermined(
        &self,
        frame: u64,
        delivery: DeliveryId,
        reason: String,
    ) -> Result<(), Error> {
        let said = Some(Said::Undetermined(reason));
        self.acknowledge(frame, vec![delivery], false, said, Command::Ack)
            .await
    }

    async fn acknowledge(
        &self,
        frame: u64,
        deliveries: Vec<DeliveryId>,
        want_result: bool,
        said: Option<Said>,
        command: impl Fn(Acknowledge) -> Command,
    ) -> Result<(), Error> {
        for (shard, deliveries) in self.by_shard(deliveries) {
            let request = Acknowledge {
                session: Arc::clone(&self.session),
                frame,
                deliveries,
                want_result,
                said: said.clone(),
            };
            self.engine.command(shard, command(request)).await?;
        }
        Ok(())
    }

    /// Extends deliveries by a time from now, or by the bot's deadline.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn extend(
        &self,
        deliveries: Vec<DeliveryId>,
        by: Option<Duration>,
    ) -> Result<(), Error> {
        for (shard, deliveries) in self.by_shard(deliveries) {
            let session = Arc::clone(&self.session);
            self.engine
                .command(
                    shard,
                    Command::Extend {
                        session,
                        deliveries,
                        by,
                    },
                )
                .await?;
        }
        Ok(())
    }

    /// Appends an activity for the session's bot. Without a conversation, to that of the delivery it
    /// cites.
    ///
    /// # Errors
    ///
    /// [`Error::Activity`], [`Error::ShuttingDown`]; all others come as events.
    pub async fn send(
        &self,
        frame: u64,
        client_id: String,
        conversation: Option<ConversationKey>,
        cites: Option<DeliveryId>,
        mut activity: Box<v1::Activity>,
    ) -> Result<(), Error> {
        let draft = activity::outbound(&mut activity, &self.engine.limits())?;
        let session = Arc::clone(&self.session);
        let from = From::Bot {
            session: Arc::clone(&session),
            cites,
        };
        let key = Some(Keyed::new(client_id.clone(), &draft));
        let reply = Reply::Send {
            session,
            frame,
            client_id,
            cites,
        };
        let shard = match (&conversation, cites) {
            (Some(conversation), _) => self.engine.shard(conversation),
            (None, Some(cited)) => self.engine.shard_of_delivery(cited),
            (None, None) => unreachable!("the stream checks that one is given"),
        };
        let room = self.engine.room(draft.body().len()).await;
        let append = Append {
            room,
            conversation,
            draft,
            from,
            key,
            reply,
        };
        self.engine
            .command(shard, Command::Append(Box::new(append)))
            .await
    }

    /// Appends answers and finishes their delivery, all or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Activity`] for the first activity that breaks a rule, [`Error::ShuttingDown`]; all
    /// others come as events.
    pub async fn commit(
        &self,
        frame: u64,
        delivery: DeliveryId,
        activities: Vec<v1::Activity>,
    ) -> Result<(), Error> {
        let writes = Vec::new();
        self.commit_with_state(frame, delivery, activities, writes)
            .await
    }

    /// Appends answers, writes documents of the session's bot, and finishes the delivery, all or
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and [`FrameError`](crate::engine::FrameError) for writes that cannot
    /// be in one commit.
    pub async fn commit_with_state(
        &self,
        frame: u64,
        delivery: DeliveryId,
        mut activities: Vec<v1::Activity>,
        writes: Vec<state::Write>,
    ) -> Result<(), Error> {
        let limits = self.engine.limits();
        // With the room it takes and no more: a draft is large, and collecting results makes room for
        // four.
        let mut drafts = Vec::with_capacity(activities.len());
        for activity in &mut activities {
            drafts.push(activity::outbound(activity, &limits)?);
        }
        state::check(&writes, &limits)?;
        drop(limits);
        let drafted = drafts.iter().map(|draft| draft.body().len());
        let written = writes.iter().map(state::Write::bytes);
        let commit = Commit {
            room: self.engine.room(drafted.chain(written).sum()).await,
            session: Arc::clone(&self.session),
            frame,
            delivery,
            drafts,
            writes,
        };
        self.engine
            .command(
                self.engine.shard_of_delivery(delivery),
                Command::Commit(Box::new(commit)),
            )
            .await
    }

    /// Appends what the session's channel posts.
    ///
    /// # Errors
    ///
    /// [`Error::Activity`], [`Error::ShuttingDown`]; all others come as events.
    pub async fn post(
        &self,
        frame: u64,
        post_id: String,
        activity: Box<v1::Activity>,
    ) -> Result<(), Error> {
        let Subscriber::Egress(channel) = &self.session.subscriber else {
            unreachable!("only the streams of channels post");
        };
        let session = Arc::clone(&self.session);
        let reply = Reply::Post {
            session,
            frame,
            post_id,
        };
        self.engine
            .append_post(channel, activity, None, reply)
            .await
    }

    /// Shows something ephemeral of the session's bot: `activity` must be. Dropped when the gateway is
    /// busy, so that nothing that is to last waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Activity`], [`Error::ShuttingDown`]; all others come as events.
    pub async fn ephemeral(
        &self,
        frame: u64,
        conversation: Option<ConversationKey>,
        cites: Option<DeliveryId>,
        mut activity: Box<v1::Activity>,
    ) -> Result<(), Error> {
        let draft = activity::outbound(&mut activity, &self.engine.limits())?;
        debug_assert!(draft.kind.is_ephemeral());
        let shard = match (&conversation, cites) {
            (Some(conversation), _) => self.engine.shard(conversation),
            (None, Some(cited)) => self.engine.shard_of_delivery(cited),
            (None, None) => unreachable!("the stream checks that one is given"),
        };
        let Some(room) = self.engine.room_now(draft.body().len()) else {
            self.engine.metrics().ephemerals.dropped.inc();
            return Ok(());
        };
        let session = Arc::clone(&self.session);
        let append = Append {
            room,
            conversation,
            draft,
            from: From::Bot {
                session: Arc::clone(&session),
                cites,
            },
            key: None,
            reply: Reply::Refusal {
                session,
                frame,
                cites,
            },
        };
        self.engine
            .command_now(shard, Command::Append(Box::new(append)))
    }

    /// Adds a piece to a reply that the session's bot is making.
    ///
    /// # Errors
    ///
    /// [`Error::Activity`] when the piece alone is larger than an activity, [`Error::ShuttingDown`];
    /// all others come as events.
    pub async fn partial(
        &self,
        frame: u64,
        delivery: DeliveryId,
        stream: u32,
        piece: Piece,
    ) -> Result<(), Error> {
        piece.check(&self.engine.limits())?;
        let partial = Partial {
            room: self.engine.room(piece.len()).await,
            session: Arc::clone(&self.session),
            frame,
            delivery,
            stream,
            piece,
        };
        self.engine
            .command(
                self.engine.shard_of_delivery(delivery),
                Command::Partial(Box::new(partial)),
            )
            .await
    }

    /// Stops a streamed reply of a conversation of the session's channel; all of them when the id is
    /// empty.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    pub async fn stop_stream(
        &self,
        conversation: crate::id::ConversationId,
        stream_id: String,
    ) -> Result<(), Error> {
        let Subscriber::Egress(channel) = &self.session.subscriber else {
            unreachable!("only the streams of channels stop replies");
        };
        let key = ConversationKey {
            channel: channel.clone(),
            conversation,
        };
        let shard = self.engine.shard(&key);
        self.engine
            .command(shard, Command::StopStream(key, stream_id))
            .await
    }

    /// Answers a [`Event::Create`] of this session.
    ///
    /// # Errors
    ///
    /// [`Error::CreationUnknown`] when nobody waits for the answer.
    pub fn created(&self, request_id: String, answer: Answer) -> Result<(), Error> {
        self.engine
            .answer_creation(self.session.number, request_id, answer)
    }

    /// Tells the stream that one of its frames was refused.
    pub fn refuse(&self, refused: Refused) {
        self.session.tell(Event::Refused(refused));
    }

    /// Ends the session, with a reason for the stream.
    pub fn end(&self, why: Error) {
        self.session.end(why);
    }

    /// Waits until the client has read enough of what it was told.
    pub async fn has_room(&self) {
        let frames = self.engine.limits().session_backlog_frames;
        self.session.has_room(frames).await;
    }

    /// Ids by the shard that made them, in their order.
    fn by_shard(&self, deliveries: Vec<DeliveryId>) -> Vec<(usize, Vec<DeliveryId>)> {
        let mut shards: Vec<(usize, Vec<DeliveryId>)> = Vec::new();
        for id in deliveries {
            let shard = self.engine.shard_of_delivery(id);
            match shards.iter_mut().find(|(other, _)| *other == shard) {
                Some((_, ids)) => ids.push(id),
                None => shards.push((shard, vec![id])),
            }
        }
        shards
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let (engine, session) = (self.engine.clone(), Arc::clone(&self.session));
        // The shards' queues are bounded, so detaching may wait; and it must come after the frames
        // that were sent before. Without a runtime the gateway is going down anyway.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let leaves = self.leaves.load(Ordering::Relaxed) || self.session.is_closed();
            runtime.spawn(async move {
                match leaves {
                    true => engine.detach(session).await,
                    false => engine.lose(session).await,
                }
            });
        }
    }
}
