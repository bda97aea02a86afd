//! Users, backends, bots, an adapter and watchers, who go on over all lives of a gateway: whatever
//! got no answer is asked again under the same id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use turnwire_client::bot::{BotSender, BotStream, GatewayFrame};
use turnwire_client::channel::{Attachment, AttachmentOptions, Outbounds, Posted};
use turnwire_client::conversations::{Sending, Start, WatchStep};
use turnwire_client::proto::{
    Ack, AckOutcome, Activity, BotHeartbeat, ChannelAccount, Commit, Credit, Delivery, Hello, Nack,
    NackMode, Send, SendActivityRequest,
};
use turnwire_client::{Client, Error};

use crate::gateway::{BOT, CHANNEL, Gateway};
use crate::ledger::{Ledger, Reply};

/// Posts of a conversation that the bot may not have seen yet.
const POSTS_AHEAD: usize = 6;
/// Sends of a conversation's backend that the adapter may not have seen yet.
const SENDS_AHEAD: usize = 2;
/// Number of the last question of every conversation.
const LAST: usize = 600_000;
/// One post in so many is larger than a disk's block, and than the store's buffers.
const LARGE_EVERY: usize = 16;
const LARGE_BYTES: usize = 40 * 1024;
/// How long what must happen may take, with everything else that the machine does.
const PATIENCE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_secs(10);

/// One life of a gateway, as those see it who call it.
struct Life {
    number: usize,
    client: Client,
    attachment: Attachment,
}

struct Shared {
    ledger: Arc<Ledger>,
    life: watch::Receiver<Option<Arc<Life>>>,
    stop: watch::Receiver<bool>,
    posts_ahead: Vec<Semaphore>,
    sends_ahead: Vec<Semaphore>,
    /// Conversations whose last answer has come.
    ended: Semaphore,
}

/// Everyone.
pub(crate) struct Load {
    // The tasks come first, so that they are gone before what they wait for.
    /// Those who try again until they are answered.
    lasting: JoinSet<()>,
    /// Those whose stream ends with the gateway.
    attached: JoinSet<()>,
    /// Those who would follow the gateway for ever.
    watching: JoinSet<()>,
    shared: Arc<Shared>,
    life: watch::Sender<Option<Arc<Life>>>,
    stop: watch::Sender<bool>,
    lives: usize,
}

impl Load {
    /// Users who wait for a gateway.
    pub(crate) fn new(ledger: &Arc<Ledger>, seed: u64) -> Self {
        let (life, life_receiver) = watch::channel(None);
        let (stop, stop_receiver) = watch::channel(false);
        let room = |most| {
            (0..ledger.conversations())
                .map(|_| Semaphore::new(most))
                .collect()
        };
        let shared = Arc::new(Shared {
            ledger: Arc::clone(ledger),
            life: life_receiver,
            stop: stop_receiver,
            posts_ahead: room(POSTS_AHEAD),
            sends_ahead: room(SENDS_AHEAD),
            ended: Semaphore::new(0),
        });
        let mut lasting = JoinSet::new();
        for number in 0..ledger.conversations() {
            let random = StdRng::seed_from_u64(seed ^ number as u64);
            lasting.spawn(Arc::clone(&shared).user(number, random));
        }
        Self {
            shared,
            life,
            stop,
            lives: 0,
            lasting,
            attached: JoinSet::new(),
            watching: JoinSet::new(),
        }
    }

    /// Everyone goes to a gateway.
    pub(crate) async fn begin(&mut self, gateway: &Gateway) {
        self.lives += 1;
        let client = gateway.connect().await;
        let options = AttachmentOptions {
            instance_id: "adapter".to_owned(),
            // Few, so that there is often no room.
            max_outstanding: 20,
            ..AttachmentOptions::new(CHANNEL)
        };
        let (attachment, outbounds) = Attachment::open(&client, options)
            .await
            .expect("the adapter is let in");
        let shared = || Arc::clone(&self.shared);
        self.attached.spawn(shared().adapter(outbounds));
        for instance in ["one", "two"] {
            // Connections of their own, as bots have.
            let client = gateway.connect().await;
            self.attached.spawn(shared().bot(client, instance));
        }
        for number in (0..self.shared.ledger.conversations()).step_by(7) {
            if self.shared.ledger.is_started(number) {
                self.watching
                    .spawn(shared().watcher(client.clone(), number));
            }
        }
        self.life.send_replace(Some(Arc::new(Life {
            number: self.lives,
            client,
            attachment,
        })));
    }

    /// The gateway has been killed. Returns when all that it said was heard.
    pub(crate) async fn end(&mut self) {
        self.life.send_replace(None);
        self.watching.shutdown().await;
        join(&mut self.attached).await;
    }

    /// Lets everyone finish, and asks a last question in every conversation: its answer is the last
    /// thing that its bot and its adapter have to do.
    pub(crate) async fn finish(&mut self) {
        self.stop.send_replace(true);
        join(&mut self.lasting).await;
        let ledger = &self.shared.ledger;
        for number in 0..ledger.conversations() {
            let id = format!("{}-{LAST}", ledger.conversation_id(number));
            self.lasting.spawn({
                let shared = Arc::clone(&self.shared);
                async move { drop(shared.post(number, &id).await) }
            });
        }
        join(&mut self.lasting).await;
        let all = self
            .shared
            .ended
            .acquire_many(ledger.conversations() as u32);
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(ended) => ended.expect("it is not closed").forget(),
            Err(_) => ledger.broken(format!(
                "the last answers of {} of {} conversations came in time",
                self.shared.ended.available_permits(),
                ledger.conversations()
            )),
        }
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no task panics");
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all end in time");
}

impl Shared {
    /// The gateway's present life; waits for one.
    async fn life(&self) -> Arc<Life> {
        let mut life = self.life.clone();
        let present = life.wait_for(Option::is_some).await;
        if let Some(life) = present.ok().and_then(|life| life.clone()) {
            return life;
        }
        // The test is over, and with it this task.
        std::future::pending().await
    }

    /// Waits until a life is over that ended a call. A call that ended without is a mistake.
    async fn over(&self, ended: &Life, what: &str, error: &Error) {
        if error.reason().is_some() || !error.is_retryable() {
            self.ledger.broken(format!("{what}: {error:?}"));
        }
        let mut life = self.life.clone();
        // An error means that the test is over.
        let _ = life
            .wait_for(|life| life.as_ref().is_none_or(|life| life.number != ended.number))
            .await;
    }

    /// Waits for room. Returns whether to go on.
    async fn goes_on(&self, room: &Semaphore) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => false,
            room = room.acquire() => {
                room.expect("it is not closed").forget();
                true
            }
        }
    }

    /// The user of a conversation, and of some a backend that speaks for the bot.
    async fn user(self: Arc<Self>, number: usize, random: StdRng) {
        self.post(
            number,
            &format!("{}-0", self.ledger.conversation_id(number)),
        )
        .await;
        if number.is_multiple_of(5) {
            tokio::join!(self.talk(number, random), self.backend(number));
        } else {
            self.talk(number, random).await;
        }
    }

    async fn talk(&self, number: usize, mut random: StdRng) {
        let mut turn = 1;
        while self.goes_on(&self.posts_ahead[number]).await {
            let id = format!("{}-{turn}", self.ledger.conversation_id(number));
            self.post(number, &id).await;
            if random.random_ratio(1, 8) {
                // As a channel does that lost the answer.
                let posted = self.post(number, &id).await;
                if !posted.is_some_and(|posted| posted.repeated) {
                    self.ledger
                        .broken(format!("post {id} was not seen to be a repeat"));
                }
            }
            turn += 1;
        }
    }

    /// Posts until it is answered.
    async fn post(&self, number: usize, id: &str) -> Option<Posted> {
        self.ledger.begin_post(number, id);
        loop {
            let life = self.life().await;
            let activity = Activity::message(question(id))
                .with_id(id)
                .from_account(ChannelAccount::with_id("user"))
                .in_conversation(self.ledger.conversation_id(number));
            // Both ways in, each with its own conversations.
            let posted = if number.is_multiple_of(2) {
                life.attachment.post(activity).await
            } else {
                life.client.post_activity(CHANNEL, activity).await
            };
            match posted {
                Ok(posted) => {
                    self.ledger.posted(number, id, &posted.appended);
                    return Some(posted);
                }
                Err(error) => self.over(&life, id, &error).await,
            }
        }
    }

    async fn backend(&self, number: usize) {
        let mut turn = 0;
        while self.goes_on(&self.sends_ahead[number]).await {
            let text = format!("backend {}-{turn}", self.ledger.conversation_id(number));
            self.ledger.begin_send(number, &text);
            while !self.send(number, &text).await {}
            turn += 1;
        }
    }

    /// Returns whether it was answered.
    async fn send(&self, number: usize, text: &str) -> bool {
        let life = self.life().await;
        let request = SendActivityRequest {
            request_id: text.to_owned(),
            target: Some(self.ledger.name(number).into()),
            bot_id: BOT.to_owned(),
            activity: Some(Activity::message(text).into()),
            ..Default::default()
        };
        match life.client.conversations().send_request(request).await {
            Ok(Sending::Later(_)) => panic!("it has no time to wait for"),
            Ok(Sending::Now(sent)) => {
                self.ledger.sent(number, text, sent.appended.sequence);
                true
            }
            Err(error) => {
                self.over(&life, text, &error).await;
                false
            }
        }
    }

    async fn adapter(self: Arc<Self>, mut outbounds: Outbounds) {
        while let Some(Ok(outbound)) = outbounds.next().await {
            let Some(number) = self.ledger.number(outbound.conversation()) else {
                drop(outbound.delivered("").await);
                continue;
            };
            let (sequence, attempt) = (outbound.sequence(), outbound.attempt());
            let text = outbound
                .activity()
                .and_then(|activity| activity.text.as_deref());
            if self.ledger.outbound(number, sequence, attempt) {
                let text = text.unwrap_or_default();
                if text.starts_with("backend ") {
                    self.sends_ahead[number].add_permits(1);
                }
                if text.split(' ').any(|word| turn_of(word) == LAST) {
                    self.ended.add_permits(1);
                }
            }
            // An error says that the gateway is gone, as the next look will.
            let _ = if sequence % 9 == 0 && attempt == 1 {
                outbound.retry(Some(Duration::ZERO)).await
            } else {
                outbound.delivered(format!("shown-{sequence}")).await
            };
        }
    }

    async fn watcher(self: Arc<Self>, client: Client, number: usize) {
        let conversations = client.conversations();
        let start = Start::After(self.ledger.watched_to(number));
        let mut steps = std::pin::pin!(conversations.watch(self.ledger.name(number), start));
        while let Some(step) = steps.next().await {
            match step {
                Ok(WatchStep::Entry(entry)) => self.ledger.watched(number, &entry),
                // It asks for nothing else.
                Ok(_) => {}
                Err(error) if error.reason().is_none() => return,
                Err(error) => return self.ledger.broken(format!("a watcher: {error:?}")),
            }
        }
    }

    async fn bot(self: Arc<Self>, client: Client, instance: &'static str) {
        let hello = Hello {
            min_protocol: 1,
            max_protocol: 1,
            bot_id: BOT.to_owned(),
            instance_id: instance.to_owned(),
            credit: Some(Credit {
                deliveries: 100,
                bytes: 64 * 1024 * 1024,
            }),
            ..Hello::default()
        };
        let stream = match BotStream::open(&client, hello).await {
            Ok(stream) => stream,
            Err(error) if error.reason().is_none() => return,
            Err(error) => return self.ledger.broken(format!("bot {instance}: {error:?}")),
        };
        let (_, sender, mut receiver) = stream.split();
        let mut held = HashMap::new();
        let mut beat = tokio::time::interval(BEAT);
        loop {
            let frame = tokio::select! {
                frame = receiver.next() => frame,
                _ = beat.tick() => {
                    let _ = sender.send(BotHeartbeat::default()).await;
                    continue;
                }
            };
            match frame {
                Ok(Some(GatewayFrame::Delivery(delivery))) => {
                    self.take(delivery, &sender, &mut held).await;
                }
                Ok(Some(GatewayFrame::AckResult(acks))) => {
                    for result in acks.results {
                        let Some((number, sequence)) = held.remove(&result.delivery_id) else {
                            self.ledger
                                .broken(format!("a result nobody asked for: {result:?}"));
                            continue;
                        };
                        if result.outcome() == AckOutcome::Ok {
                            let id = result.delivery_id;
                            self.ledger.finished(number, sequence, id, result.appended);
                        } else {
                            self.ledger
                                .broken(format!("{number}/{sequence}: {result:?}"));
                        }
                    }
                }
                Ok(Some(GatewayFrame::SendResult(sent))) => {
                    let number = number_of(&sent.client_id);
                    match sent.appended {
                        Some(at) => self.ledger.sent(number, &sent.client_id, at.sequence),
                        None => self.ledger.broken(format!("{sent:?}")),
                    }
                }
                Ok(Some(GatewayFrame::Error(error))) => self.ledger.broken(format!("{error:?}")),
                Ok(Some(GatewayFrame::Heartbeat(beat))) => println!("{instance} {beat:?}"),
                // The others ask for nothing.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Answers a delivery in one of the ways there are. The frames' errors say that the gateway is
    /// gone, as the next look will.
    async fn take(
        &self,
        delivery: Delivery,
        sender: &BotSender,
        held: &mut HashMap<u64, (usize, u64)>,
    ) {
        let Some(number) = self.ledger.number(delivery.conversation.as_ref()) else {
            let ack = Ack {
                delivery_ids: vec![delivery.delivery_id],
                want_result: false,
            };
            let _ = sender.send(ack).await;
            return;
        };
        if self.ledger.delivered(number, &delivery) {
            self.posts_ahead[number].add_permits(1);
        }
        let Delivery {
            delivery_id,
            sequence,
            attempt,
            ..
        } = delivery;
        let activity = delivery.activity.unwrap_or_default();
        let id = activity.id.clone().unwrap_or_default();
        if activity.text != Some(question(&id)) {
            self.ledger
                .broken(format!("{id} was not delivered as it was posted"));
        }
        let _ = sender
            .send(Credit {
                deliveries: 1,
                bytes: activity.encoded_len() as i64,
            })
            .await;
        let turn = turn_of(&id);
        if turn % 6 == 5 && attempt % 2 == 1 {
            let nack = Nack {
                delivery_ids: vec![delivery_id],
                mode: NackMode::Retry.into(),
                delay: Some(prost_types::Duration::default()),
                ..Nack::default()
            };
            let _ = sender.send(nack).await;
            return;
        }
        self.ledger.answer(number, sequence);
        held.insert(delivery_id, (number, sequence));
        if turn % 6 == 2 || turn % 6 == 3 {
            let text = format!("sent {id}");
            self.ledger.begin_send(number, &text);
            let send = Send {
                client_id: text.clone(),
                activity: Some(Activity::message(text).into()),
                delivery_id,
                ..Send::default()
            };
            let ack = Ack {
                delivery_ids: vec![delivery_id],
                want_result: turn % 6 == 2,
            };
            let _ = sender.send(send).await;
            let _ = sender.send(ack).await;
            return;
        }
        let replies = turn % 6 % 3;
        let text = |index| {
            Reply {
                question: &id,
                delivery: delivery_id,
                index,
            }
            .text()
        };
        // The last question must be answered, to be seen.
        let replies = if turn == LAST { 1 } else { replies };
        self.ledger.commit(number, delivery_id, &id, replies);
        let commit = Commit {
            delivery_id,
            activities: (0..replies)
                .map(|index| Activity::message(text(index)))
                .collect(),
            ..Default::default()
        };
        let _ = sender.send(commit).await;
    }
}

/// The text of a question, the same whenever it is asked.
fn question(id: &str) -> String {
    let bytes = match turn_of(id) % LARGE_EVERY {
        7 => LARGE_BYTES,
        _ => 10,
    };
    format!("{id} {}", "x".repeat(bytes))
}

/// The number of a question in its conversation: the end of its id.
fn turn_of(id: &str) -> usize {
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    number.unwrap_or_default()
}

/// The number of the conversation of a client id: ids are `prefix`, conversation, `-`, turn.
fn number_of(client_id: &str) -> usize {
    let conversation = client_id.rsplit('-').nth(1).unwrap_or_default();
    conversation.parse().unwrap_or_default()
}
