//! The bot on JetStream: one task for each connection.

use std::collections::VecDeque;

use anyhow::Context;
use async_nats::jetstream;
use futures_util::StreamExt;

use super::Link;
use crate::cli::bench::message;

pub(super) struct Bot {
    link: Link,
    /// Questions whose answers are not acknowledged yet, for each conversation: hardly ever more than
    /// one, as the user has an answer before its acknowledgement is here only by chance.
    answered: Vec<VecDeque<jetstream::Message>>,
}

impl Bot {
    pub(super) fn new(link: Link) -> Self {
        Self {
            answered: vec![VecDeque::new(); link.subjects.len()],
            link,
        }
    }

    /// Answers until something is wrong; the level's end drops it.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                ack = self.link.acks.next() => {
                    let conversation = self.link.acknowledged(&ack.context("the connection has ended")?)?;
                    let question = self.answered[conversation].pop_front();
                    let question = question.context("an acknowledgement of nothing")?;
                    question.ack().await.map_err(anyhow::Error::from_boxed)?;
                }
                message = self.link.messages.next() => {
                    let question = message.context("the consumer has ended")??;
                    self.answer(question).await?;
                }
            }
        }
    }

    async fn answer(&mut self, question: jetstream::Message) -> anyhow::Result<()> {
        let conversation = self.link.conversation(&question)?;
        let text = String::from_utf8(question.payload.to_vec()).context("a question in no text")?;
        let answer = message::answer(text).context("a question that is none")?;
        self.answered[conversation].push_back(question);
        self.link.publish(conversation, answer.into_bytes()).await
    }
}
