//! What the streams of bots and of channel adapters have in common: a Hello first, then frames both
//! ways, heartbeats, and an end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::convert;
use crate::clock::{Sleep, Timestamp};
use crate::engine::session::{Event, Events, Refused, Session};
use crate::engine::{Engine, Error, FrameError, Link};
use crate::id::DeliveryId;
use crate::proto::v1;
use crate::status::{self, Failure};

/// Heartbeats that may be missed before a stream is dead.
const MISSED_HEARTBEATS: u32 = 2;

/// How one kind of stream speaks.
pub(super) trait Dialect: Send + Sync + 'static {
    /// A frame from the client.
    type Request: Send + 'static;
    /// A frame to the client.
    type Response: Send + 'static;

    /// Opens the session that the first frame asks for.
    fn open(
        &self,
        first: Self::Request,
    ) -> impl Future<Output = Result<Opened<Self>, Failure>> + Send;

    /// Does what a later frame asks for.
    fn handle(
        &self,
        link: &Link,
        frame: u64,
        request: Self::Request,
    ) -> impl Future<Output = Result<(), Rejected>> + Send;

    /// Says an event. `None` for events that the dialect has no word for.
    fn say(event: Event) -> Option<Self::Response>;

    /// Says a heartbeat.
    fn beat(heartbeat: v1::GatewayHeartbeat) -> Self::Response;
}

/// A session that was opened.
pub(super) struct Opened<D: Dialect + ?Sized> {
    pub(super) link: Link,
    pub(super) events: Events,
    pub(super) welcome: D::Response,
}

/// Why a frame was refused, and what it was about.
pub(super) struct Rejected {
    error: Error,
    client_id: String,
    delivery: Option<DeliveryId>,
}

impl<E: Into<Error>> From<E> for Rejected {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            client_id: String::new(),
            delivery: None,
        }
    }
}

/// Says what a refused frame was about.
pub(super) trait About<T> {
    fn about(self, client_id: &str, delivery: Option<DeliveryId>) -> Result<T, Rejected>;
}

impl<T, E: Into<Error>> About<T> for Result<T, E> {
    fn about(self, client_id: &str, delivery: Option<DeliveryId>) -> Result<T, Rejected> {
        self.map_err(|error| Rejected {
            error: error.into(),
            client_id: client_id.to_owned(),
            delivery,
        })
    }
}

/// The frame that says which frame was refused, and why.
pub(super) fn refusal(refused: Refused) -> v1::Error {
    let Refused {
        frame,
        error,
        client_id,
        delivery,
    } = refused;
    Failure::from(error).to_frame(frame, client_id, delivery.map_or(0, |id| id.0))
}

/// Ids of a frame, if there are not too many.
pub(super) fn ids(ids: Vec<u64>, limit: usize) -> Result<Vec<DeliveryId>, FrameError> {
    let count = ids.len();
    if count > limit {
        return Err(FrameError::TooManyIds { count, limit });
    }
    Ok(ids.into_iter().map(DeliveryId).collect())
}

/// A time of a frame, if it is in range.
pub(super) fn time(
    field: &'static str,
    time: Option<prost_types::Duration>,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, FrameError> {
    let Some(time) = time else { return Ok(None) };
    match Duration::try_from(time) {
        Ok(time) if range.contains(&time) => Ok(Some(time)),
        Ok(_) | Err(_) => Err(FrameError::Invalid {
            field,
            problem: format!("must be from {:?} to {:?}", range.start(), range.end()),
        }),
    }
}

/// Starts a stream: its frames are read by a task of their own, its responses come from what is
/// returned.
pub(super) fn start<D: Dialect>(
    dialect: D,
    engine: Engine,
    frames: Streaming<D::Request>,
) -> Responses<D> {
    let (opened, opening) = oneshot::channel();
    let reader = Reader {
        dialect,
        engine: engine.clone(),
        frames,
    };
    tokio::spawn(reader.run(opened));
    Responses {
        state: State::Opening(opening),
        engine,
    }
}

/// What the response side needs of an opened session.
struct Stage<D: Dialect> {
    events: Events,
    welcome: D::Response,
    session: Arc<Session>,
}

struct Reader<D: Dialect> {
    dialect: D,
    engine: Engine,
    frames: Streaming<D::Request>,
}

impl<D: Dialect> Reader<D> {
    async fn run(mut self, opened: oneshot::Sender<Result<Stage<D>, Failure>>) {
        match self.open().await {
            Ok(Opened {
                link,
                events,
                welcome,
            }) => {
                let session = Arc::clone(link.session());
                // If the client has gone, dropping the link detaches.
                if opened
                    .send(Ok(Stage {
                        events,
                        welcome,
                        session,
                    }))
                    .is_ok()
                {
                    self.read(&link).await;
                }
            }
            Err(failure) => drop(opened.send(Err(failure))),
        }
    }

    async fn open(&mut self) -> Result<Opened<D>, Failure> {
        let timeout = self.engine.limits().hello_timeout;
        let clock = self.engine.clock();
        let first = tokio::select! {
            biased;
            first = self.frames.message() => first.map_err(unreadable)?,
            () = clock.sleep_until(clock.now().after(timeout)) => {
                return Err(Failure::HelloTimeout(timeout));
            }
        };
        self.dialect
            .open(first.ok_or(Failure::HelloExpected)?)
            .await
    }

    /// Reads frames until the client stops, or falls silent, or the session is ended.
    async fn read(&mut self, link: &Link) {
        let silence = self.engine.limits().heartbeat_interval * MISSED_HEARTBEATS;
        let clock = Arc::clone(self.engine.clock());
        let mut heard = clock.now();
        // Armed again only when it rings, so that a frame costs no timer.
        let mut alarm = clock.sleep_until(heard.after(silence));
        let mut ended = pin!(link.session().ended());
        let mut frame = 1;
        loop {
            let next = async {
                link.has_room().await;
                self.frames.message().await
            };
            let request = tokio::select! {
                biased;
                () = &mut ended => return,
                request = next => request,
                () = &mut alarm => {
                    if clock.now() >= heard.after(silence) {
                        return link.end(Error::HeartbeatMissed(silence));
                    }
                    alarm = clock.sleep_until(heard.after(silence));
                    continue;
                }
            };
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => return link.leave(),
                Err(status) => {
                    return link.end(Error::FrameUnreadable {
                        problem: status.message().to_owned(),
                    });
                }
            };
            heard = clock.now();
            link.session().hear(heard);
            frame += 1;
            if let Err(rejected) = self.dialect.handle(link, frame, request).await {
                let Rejected {
                    error,
                    client_id,
                    delivery,
                } = rejected;
                link.refuse(Refused {
                    frame,
                    error,
                    client_id,
                    delivery,
                });
            }
        }
    }
}

fn unreadable(status: Status) -> Failure {
    Error::FrameUnreadable {
        problem: status.message().to_owned(),
    }
    .into()
}

/// The frames to the client.
pub(super) struct Responses<D: Dialect> {
    state: State<D>,
    engine: Engine,
}

enum State<D: Dialect> {
    /// No Hello was answered yet.
    Opening(oneshot::Receiver<Result<Stage<D>, Failure>>),
    /// The session goes on.
    Open {
        events: Events,
        /// Not kept alive: the events end when the session has no one left but this stream.
        session: Weak<Session>,
        beat: Sleep,
    },
    /// Nothing more will come.
    Ended,
}

impl<D: Dialect> Responses<D> {
    fn next_beat(engine: &Engine) -> Sleep {
        let next: Timestamp = engine
            .clock()
            .now()
            .after(engine.limits().heartbeat_interval);
        engine.clock().sleep_until(next)
    }

    fn fail(&mut self, failure: Failure) -> Poll<Option<Result<D::Response, Status>>> {
        self.state = State::Ended;
        self.engine.metrics().rpc_error(failure.row().reason);
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl<D: Dialect> tokio_stream::Stream for Responses<D> {
    type Item = Result<D::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Opening(opening) => {
                    let opened = ready!(Pin::new(opening).poll(cx));
                    match opened.unwrap_or(Err(Failure::HelloExpected)) {
                        Ok(Stage {
                            events,
                            welcome,
                            session,
                        }) => {
                            let beat = Self::next_beat(&this.engine);
                            this.state = State::Open {
                                events,
                                session: Arc::downgrade(&session),
                                beat,
                            };
                            return Poll::Ready(Some(Ok(welcome)));
                        }
                        Err(failure) => return this.fail(failure),
                    }
                }
                State::Open {
                    events,
                    session,
                    beat,
                } => match events.poll_next(cx) {
                    Poll::Ready(Some(Event::End(error))) => return this.fail(error.into()),
                    Poll::Ready(Some(Event::Drained)) => this.state = State::Ended,
                    Poll::Ready(Some(event)) => {
                        if let Event::Refused(Refused { error, .. }) = &event {
                            this.engine.metrics().rpc_error(status::row(error).reason);
                        }
                        if let Some(frame) = D::say(event) {
                            return Poll::Ready(Some(Ok(frame)));
                        }
                    }
                    Poll::Ready(None) => this.state = State::Ended,
                    Poll::Pending => {
                        ready!(beat.as_mut().poll(cx));
                        *beat = Self::next_beat(&this.engine);
                        let Some(session) = session.upgrade() else {
                            continue;
                        };
                        let backlog = this.engine.backlog(&session.subscriber);
                        let heartbeat = convert::heartbeat(backlog, session.credit());
                        return Poll::Ready(Some(Ok(D::beat(heartbeat))));
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}
