//! The users on JetStream: one task for each connection.

use std::pin::pin;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::Link;
use crate::cli::bench::load::{Clock, Load, Measured};
use crate::cli::bench::message::Writer;
use crate::cli::bench::schedule::Pacer;

pub(in crate::cli::bench) struct User {
    link: Link,
    load: Load,
    stream: usize,
    writer: Writer,
    measured: Measured,
}

impl User {
    pub(super) fn new(link: Link, load: &Load, stream: usize) -> anyhow::Result<Self> {
        Ok(Self {
            link,
            load: load.clone(),
            stream,
            writer: Writer::new(load.level.size),
            measured: Measured::new()?,
        })
    }

    /// Begins this stream's turns, and goes on until those of all streams are over.
    pub(in crate::cli::bench) async fn run(mut self, clock: Clock) -> anyhow::Result<Measured> {
        let load = self.load.clone();
        if load.schedule().is_none() {
            for conversation in load.conversations_of(self.stream) {
                let turn = load.begin(conversation, Instant::now());
                self.ask(conversation, turn).await?;
            }
        }
        let mut pacer = Pacer::new(&load, self.stream, clock)?;
        let mut over = pin!(load.over(clock));
        loop {
            tokio::select! {
                biased;
                conversation = pacer.due() => {
                    let conversation = conversation?;
                    if let Some(turn) = load.begin_due(conversation, Instant::now()) {
                        self.ask(conversation, turn).await?;
                    }
                }
                // Before the answers: a question is acknowledged before it is answered, and to take
                // it so leaves nothing behind.
                ack = self.link.acks.next() => {
                    self.link.acknowledged(&ack.context("the connection has ended")?)?;
                }
                message = self.link.messages.next() => {
                    let answer = message.context("the consumer has ended")??;
                    self.receive(answer, &clock).await?;
                }
                () = &mut over => return Ok(self.measured),
            }
        }
    }

    async fn ask(&self, conversation: usize, turn: u64) -> anyhow::Result<()> {
        let question = self.writer.question(conversation, turn);
        self.link.publish(conversation, question.into_bytes()).await
    }

    async fn receive(&mut self, answer: jetstream::Message, clock: &Clock) -> anyhow::Result<()> {
        let now = Instant::now();
        answer.ack().await.map_err(anyhow::Error::from_boxed)?;
        let conversation = self.link.conversation(&answer)?;
        let turn = self.load.current_turn(conversation);
        let text = std::str::from_utf8(&answer.payload).context("an answer in no text")?;
        ensure!(
            self.writer.is_answer(text, conversation, turn),
            "turn {turn} of conversation {conversation} got the wrong answer"
        );
        let next = self
            .load
            .answered(conversation, clock, now, &mut self.measured)?;
        match next {
            Some(next) => self.ask(conversation, next).await,
            None => Ok(()),
        }
    }
}
