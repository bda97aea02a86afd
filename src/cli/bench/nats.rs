//! The same turn on NATS JetStream, for who would use a broker directly.
//!
//! A user's message is published to a stream, with an acknowledgement; a bot gets it from a pull
//! consumer, publishes its answer to another stream and, when that is acknowledged, acknowledges
//! the message; the user gets the answer from another pull consumer, acknowledges it, and publishes
//! the next. All streams are in files, and conversations are subjects.
//!
//! It is meant to do its best. Nobody waits for an acknowledgement before going on with another
//! conversation; acknowledgements come by one subscription instead of a future each, which serves
//! more turns; questions and answers are in streams of their own, and in several pairs if that is
//! asked for, which the server writes and syncs side by side. It promises less than Turnwire does:
//! two messages of a conversation may be worked on at once, nothing is repeated without harm, and an
//! answer and its acknowledgement are two writes.

mod bot;
mod user;

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::{Client, ConnectOptions, Message, ServerAddr, Subject};
use futures_util::stream::{SelectAll, select_all};
use tokio::task::JoinSet;

use super::load::Load;

pub(super) use user::User;

/// How long the server may take for a request, such as to make a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a message may stay unacknowledged before it comes again: longer than a level may take,
/// so that a slow disk costs time and no work done twice.
const ACK_WAIT: Duration = Duration::from_secs(600);

/// Messages that may wait for a connection or for a reader, beyond some for each conversation. A
/// reader that falls behind further loses messages.
const SPARE_MESSAGES: usize = 65_536;

/// Messages that are asked for at a time. The next request goes out when half have come.
const PULL_MESSAGES: usize = 1_000;

/// A server.
pub(super) struct Peer {
    address: ServerAddr,
    /// Streams for questions, and as many for answers, over which conversations are spread. The
    /// server writes and syncs each by itself.
    pairs: usize,
    version: String,
}

/// The streams and consumers of one level.
pub(super) struct Queues<'a> {
    peer: &'a Peer,
    context: jetstream::Context,
    questions: Vec<Queue>,
    answers: Vec<Queue>,
}

/// The name of a stream and of its consumer, and what its subjects have before the number of the
/// conversation.
struct Queue(String);

impl Peer {
    /// Looks whether it is there, before anything is measured.
    pub(super) async fn open(url: &str, pairs: usize) -> anyhow::Result<Self> {
        let address = url
            .parse()
            .context("`--vs-nats` wants a server's address")?;
        let mut peer = Self {
            address,
            pairs,
            version: String::new(),
        };
        let client = peer.connect(0).await?;
        peer.version = client.server_info().version;
        Ok(peer)
    }

    /// What it is, for the facts.
    pub(super) fn description(&self) -> String {
        format!("{}, version {}", self.name(), self.version)
    }

    /// Without what might be secret in its address.
    pub(super) fn name(&self) -> String {
        format!("nats {}:{}", self.address.host(), self.address.port())
    }

    /// Makes the streams and consumers of a level.
    pub(super) async fn create(&self, load: &Load) -> anyhow::Result<Queues<'_>> {
        let client = self.connect(load.level.conversations).await?;
        let mut context = jetstream::new(client);
        context.set_timeout(REQUEST_TIMEOUT);
        let queues = |what: &str| {
            let queue = |pair| format!("{}{what}-{pair}", load.prefix);
            let queues = (0..self.pairs).map(queue);
            queues.map(Queue).collect::<Vec<_>>()
        };
        let queues = Queues {
            peer: self,
            context,
            questions: queues("questions"),
            answers: queues("answers"),
        };
        for queue in queues.all() {
            if let Err(error) = queues.make(queue, load).await {
                // What there is of them; the first error says more than what comes of this.
                let _ = queues.remove().await;
                return Err(error);
            }
        }
        Ok(queues)
    }

    /// A connection of its own.
    async fn connect(&self, conversations: usize) -> anyhow::Result<Client> {
        let room = SPARE_MESSAGES + 4 * conversations;
        ConnectOptions::new()
            .client_capacity(room)
            .subscription_capacity(room)
            .read_buffer_capacity(u16::MAX)
            .skip_subject_validation(true)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connect(self.address.clone())
            .await
            .with_context(|| format!("cannot connect to {}", self.name()))
    }
}

impl Queues<'_> {
    fn all(&self) -> impl Iterator<Item = &Queue> {
        self.questions.iter().chain(&self.answers)
    }

    async fn make(&self, queue: &Queue, load: &Load) -> anyhow::Result<()> {
        let config = Config {
            name: queue.0.clone(),
            subjects: vec![format!("{}.*", queue.0)],
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            ..Config::default()
        };
        let stream = self.context.create_stream(config).await;
        let stream = stream.with_context(|| format!("{} makes no stream", self.peer.name()))?;
        let consumer = pull::Config {
            durable_name: Some(queue.0.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: (SPARE_MESSAGES + 4 * load.level.conversations) as i64,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(consumer).await;
        consumer.with_context(|| format!("{} makes no consumer", self.peer.name()))?;
        Ok(())
    }

    /// Opens the streams of a level: a connection for each stream of bots, and of users.
    pub(super) async fn open(
        &self,
        load: &Load,
    ) -> anyhow::Result<(JoinSet<anyhow::Result<()>>, Vec<User>)> {
        let mut bots = JoinSet::new();
        let mut users = Vec::new();
        for stream in 0..load.level.streams {
            let client = self.peer.connect(load.level.conversations).await?;
            let link = Link::open(client, &self.questions, &self.answers, load).await?;
            bots.spawn(bot::Bot::new(link).run());
            let client = self.peer.connect(load.level.conversations).await?;
            let link = Link::open(client, &self.answers, &self.questions, load).await?;
            users.push(User::new(link, load, stream)?);
        }
        Ok((bots, users))
    }

    /// Removes the streams, and with them the consumers.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        for queue in self.all() {
            let removed = self.context.delete_stream(&queue.0).await;
            removed.with_context(|| format!("{} does not remove a stream", self.peer.name()))?;
        }
        Ok(())
    }
}

/// What a bot or a user has: consumers to read from, and subjects to publish to.
struct Link {
    client: Client,
    messages: SelectAll<pull::Stream>,
    /// Acknowledgements of what was published.
    acks: async_nats::Subscriber,
    /// For each conversation, made once.
    subjects: Vec<Subject>,
    /// Where the acknowledgement of a publication of a conversation goes.
    inboxes: Vec<Subject>,
}

impl Link {
    async fn open(
        client: Client,
        from: &[Queue],
        to: &[Queue],
        load: &Load,
    ) -> anyhow::Result<Self> {
        let inbox = client.new_inbox();
        let acks = client.subscribe(format!("{inbox}.*")).await;
        let acks = acks.context("cannot subscribe")?;
        let context = jetstream::new(client.clone());
        let mut messages = Vec::new();
        for Queue(name) in from {
            let consumer: PullConsumer = context
                .get_consumer_from_stream(name, name)
                .await
                .context("cannot find the consumer")?;
            let pulled = consumer.stream().max_messages_per_batch(PULL_MESSAGES);
            let pulled = pulled.messages().await;
            messages.push(pulled.context("cannot read from the consumer")?);
        }
        // The server has the subscriptions before anything is published.
        client.flush().await.context("cannot subscribe")?;
        let conversations = 0..load.level.conversations;
        let subject = |conversation: usize| {
            let Queue(name) = &to[conversation % to.len()];
            Subject::from(format!("{name}.{conversation}"))
        };
        let reply = |conversation| Subject::from(format!("{inbox}.{conversation}"));
        Ok(Self {
            client,
            messages: select_all(messages),
            acks,
            subjects: conversations.clone().map(subject).collect(),
            inboxes: conversations.map(reply).collect(),
        })
    }

    /// Publishes without waiting for the acknowledgement.
    async fn publish(&self, conversation: usize, payload: Vec<u8>) -> anyhow::Result<()> {
        let subject = self.subjects[conversation].clone();
        let inbox = self.inboxes[conversation].clone();
        let published = self
            .client
            .publish_with_reply(subject, inbox, payload.into());
        published.await.context("cannot publish")
    }

    /// The conversation whose publication an acknowledgement is about.
    fn acknowledged(&self, ack: &Message) -> anyhow::Result<usize> {
        // `{"stream":...}`, or `{"error":...}`, or a status and nothing.
        if !ack.payload.starts_with(br#"{"stream":"#) {
            let said = String::from_utf8_lossy(&ack.payload);
            bail!("the server did not store a message: {said}");
        }
        self.conversation(ack)
    }

    /// The conversation that a message is of: the last part of its subject.
    fn conversation(&self, message: &Message) -> anyhow::Result<usize> {
        let last = message.subject.rsplit('.').next();
        last.and_then(|number| number.parse().ok())
            .filter(|number| *number < self.subjects.len())
            .context("a message of no conversation")
    }
}
