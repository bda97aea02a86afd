//! An attachment: posts that wait for their results, and what bots say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::Posted;
use super::creation::{self, Creations};
use super::outbound::Outbounds;
use super::stream::{ChannelReceiver, ChannelSender, ChannelStream};
use crate::proto::attach_response::Frame as GatewayFrame;
use crate::proto::conversation_created::Result as CreationResult;
use crate::proto::{
    Activity, AdapterHeartbeat, AttachHello, ChannelCapabilities, ConversationName,
    CreateConversation, Ephemeral, Outbound, Post, PostResult, Refused, RetryLater, StreamStopped,
};
use crate::{Client, Error};

/// How to attach.
#[derive(Clone, Debug)]
pub struct AttachmentOptions {
    /// The channel, of kind `grpc`.
    pub channel_id: String,
    /// This process of the adapter: stable while it runs, at most 128 bytes. A second attachment
    /// with the same name takes over.
    pub instance_id: String,
    /// What the channel can do.
    pub capabilities: ChannelCapabilities,
    /// Most outbound activities without an outcome at one time, 1 to 100,000. Default 1,000.
    pub max_outstanding: u32,
    /// Most posts without a result at one time; more wait. Default 1,000.
    pub max_posts: usize,
    /// Where to hand what is seen now or never: that the bot is typing, and replies while they are made,
    /// as far as the capabilities say so. What finds no room is dropped. Default: nowhere.
    pub ephemerals: Option<mpsc::Sender<Ephemeral>>,
}

impl AttachmentOptions {
    /// The defaults for a channel, with an instance id made up at random.
    #[must_use]
    pub fn new(channel_id: impl Into<String>) -> Self {
        Self {
            channel_id: channel_id.into(),
            instance_id: crate::random::instance_id(),
            capabilities: ChannelCapabilities::default(),
            max_outstanding: 1_000,
            max_posts: 1_000,
            ephemerals: None,
        }
    }
}

/// An adapter's hold on its channel. Clones share it; it ends when its [`Outbounds`] is dropped, or
/// when the gateway ends it.
#[derive(Clone, Debug)]
pub struct Attachment {
    sender: ChannelSender,
    posts: Posts,
    room: Arc<Semaphore>,
}

impl Attachment {
    /// Attaches. What bots say comes by the [`Outbounds`]; heartbeats go by themselves.
    ///
    /// The attachment does not come back when it is lost: what was posted without a result can be
    /// posted again under the same activity id, and only the adapter knows it.
    ///
    /// # Errors
    ///
    /// Why the gateway did not let the adapter in, as `ChannelService.Attach` lists it.
    pub async fn open(
        client: &Client,
        options: AttachmentOptions,
    ) -> Result<(Self, Outbounds), Error> {
        let max_outstanding = options.max_outstanding.clamp(1, 100_000);
        let creates = options.capabilities.create;
        let hello = AttachHello {
            channel_id: options.channel_id,
            instance_id: options.instance_id,
            capabilities: Some(options.capabilities),
            max_outstanding,
        };
        let (welcome, sender, receiver) = ChannelStream::open(client, hello).await?.split();
        let interval = welcome
            .heartbeat_interval
            .and_then(|interval| Duration::try_from(interval).ok())
            .filter(|interval| !interval.is_zero())
            .unwrap_or(Duration::from_secs(20));
        // One more than the gateway sends without an outcome: the reason of the end.
        let (outbounds, queue) = mpsc::channel(max_outstanding as usize + 1);
        let (creations, asked) = mpsc::channel(creation::WAITING);
        let posts = Posts::default();
        let reader = Reader {
            receiver,
            sender: sender.clone(),
            posts: posts.clone(),
            outbounds,
            ephemerals: options.ephemerals,
            creations,
            interval,
        };
        tokio::spawn(reader.run());
        let attachment = Self {
            sender: sender.clone(),
            posts,
            room: Arc::new(Semaphore::new(
                options.max_posts.clamp(1, Semaphore::MAX_PERMITS),
            )),
        };
        // Of an adapter that does not create the queue is closed, and so requests are refused.
        let creations = creates.then(|| Creations {
            queue: asked,
            sender: sender.clone(),
        });
        let outbounds = Outbounds {
            queue,
            sender,
            creations,
        };
        Ok((attachment, outbounds))
    }

    /// Appends an activity that a user, or the channel itself, made, and waits until it is durable.
    ///
    /// Posts of one task are appended in its order. To have many under way without a task each,
    /// use [`begin_post`](Self::begin_post).
    ///
    /// # Errors
    ///
    /// As `ChannelService.PostActivity` lists them; [`Error::Ended`] when the attachment is over,
    /// and then it may have been appended.
    pub async fn post(&self, activity: Activity) -> Result<Posted, Error> {
        self.begin_post(activity)
            .await?
            .await
            .map_err(|_| Error::Ended)?
    }

    /// Says that a streamed reply is not to go on: its user, or the channel, has stopped it. All replies
    /// of the conversation when the id is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over.
    pub async fn stop_stream(
        &self,
        conversation: ConversationName,
        stream_id: impl Into<String>,
    ) -> Result<(), Error> {
        let stopped = StreamStopped {
            conversation: Some(conversation),
            stream_id: stream_id.into(),
        };
        self.sender.send(stopped).await
    }

    /// Sends an activity without waiting for its result, which the receiver gets. Waits while
    /// [`max_posts`](AttachmentOptions::max_posts) have none.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when the attachment is over.
    pub async fn begin_post(
        &self,
        activity: impl Into<Box<Activity>>,
    ) -> Result<oneshot::Receiver<Result<Posted, Error>>, Error> {
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(|_| Error::Ended)?;
        let (result, posted) = oneshot::channel();
        let post_id = self.posts.begin(Waiting {
            result,
            _room: room,
        })?;
        let post = Post {
            post_id: post_id.to_string(),
            activity: Some(activity.into()),
        };
        if let Err(error) = self.sender.send(post).await {
            self.posts.take(post_id);
            return Err(error);
        }
        Ok(posted)
    }
}

/// Who waits for the result of a post; its place among `max_posts` is freed with it.
#[derive(Debug)]
struct Waiting {
    result: oneshot::Sender<Result<Posted, Error>>,
    _room: OwnedSemaphorePermit,
}

/// The posts without a result.
#[derive(Clone, Debug, Default)]
struct Posts(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    ended: bool,
    waiting: HashMap<u64, Waiting>,
}

impl Posts {
    fn begin(&self, waiting: Waiting) -> Result<u64, Error> {
        let mut open = self.lock();
        if open.ended {
            return Err(Error::Ended);
        }
        open.last_id += 1;
        let id = open.last_id;
        open.waiting.insert(id, waiting);
        Ok(id)
    }

    fn take(&self, id: u64) -> Option<Waiting> {
        self.lock().waiting.remove(&id)
    }

    /// Lets everyone who waits, now or later, know that the attachment is over.
    fn end(&self) {
        let mut open = self.lock();
        open.ended = true;
        open.waiting.clear();
    }

    fn answer(&self, post_id: &str, result: Result<Posted, Error>) {
        if let Some(waiting) = post_id.parse().ok().and_then(|id| self.take(id)) {
            // An error says that whoever posted no longer waits.
            let _ = waiting.result.send(result);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // Nothing here can panic half-way, so a poisoned map is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one task of an attachment.
struct Reader {
    receiver: ChannelReceiver,
    sender: ChannelSender,
    posts: Posts,
    outbounds: mpsc::Sender<Result<Outbound, Error>>,
    ephemerals: Option<mpsc::Sender<Ephemeral>>,
    creations: mpsc::Sender<CreateConversation>,
    interval: Duration,
}

impl Reader {
    async fn run(mut self) {
        let ended = self.read().await;
        self.posts.end();
        if let Err(error) = ended {
            // There is room for it; a full or closed queue means that nobody reads.
            let _ = self.outbounds.try_send(Err(error));
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        let mut last_heard = Instant::now();
        // Twice as often as asked for, so that one that is late is not missed.
        let mut heartbeat = tokio::time::interval(self.interval / 2);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = self.receiver.next() => {
                    let Some(frame) = frame? else {
                        return Err(Error::Ended);
                    };
                    last_heard = Instant::now();
                    self.receive(frame)?;
                }
                _ = heartbeat.tick() => {
                    if last_heard.elapsed() > self.interval * 3 {
                        return Err(Error::Silent(last_heard.elapsed()));
                    }
                    // A full queue is as good a sign of life, and waiting here would stop the
                    // reading that empties it.
                    let _ = self.sender.try_send(AdapterHeartbeat {});
                }
                () = self.outbounds.closed() => return Ok(()),
            }
        }
    }

    fn receive(&self, frame: GatewayFrame) -> Result<(), Error> {
        match frame {
            GatewayFrame::Outbound(outbound) => self
                .outbounds
                .try_send(Ok(outbound))
                .map_err(|_| Error::Protocol("more outbound activities than asked for")),
            GatewayFrame::PostResult(result) => {
                let post_id = result.post_id.clone();
                self.posts.answer(&post_id, posted(result));
                Ok(())
            }
            GatewayFrame::Error(error) => {
                if error.client_id.is_empty() {
                    tracing::warn!(reason = %error.reason, message = %error.message, "frame refused");
                }
                let post_id = error.client_id.clone();
                self.posts.answer(&post_id, Err(error.into()));
                Ok(())
            }
            GatewayFrame::CreateConversation(asked) => {
                self.asked(asked);
                Ok(())
            }
            // The stream's own end says when to come back.
            GatewayFrame::Welcome(_) | GatewayFrame::Heartbeat(_) | GatewayFrame::Drain(_) => {
                Ok(())
            }
            GatewayFrame::Ephemeral(ephemeral) => {
                if let Some(ephemerals) = &self.ephemerals {
                    // Dropped when it comes too fast, as it may be.
                    let _ = ephemerals.try_send(ephemeral);
                }
                Ok(())
            }
        }
    }
}

impl Reader {
    /// Hands a request to whoever took the creations. Nobody waits for that here: whoever is too slow, or
    /// not there, is answered for.
    fn asked(&self, asked: CreateConversation) {
        let (asked, result) = match self.creations.try_send(asked) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(asked)) => {
                (asked, CreationResult::Retry(RetryLater::default()))
            }
            Err(mpsc::error::TrySendError::Closed(asked)) => {
                let reason = "this adapter begins no conversations".to_owned();
                (asked, CreationResult::Refused(Refused { reason }))
            }
        };
        // A full queue leaves the gateway to its deadline.
        let _ = self
            .sender
            .try_send(creation::answer(asked.request_id, result));
    }
}

fn posted(result: PostResult) -> Result<Posted, Error> {
    Ok(Posted {
        appended: result
            .appended
            .ok_or(Error::Protocol("a post without its position"))?,
        repeated: result.repeated_post,
    })
}
