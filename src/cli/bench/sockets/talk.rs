//! Who says what when, and what of it has come down the sockets.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::user::Said;
use crate::cli::bench::load::{Clock, Load, Measured};
use crate::cli::bench::message::Writer;
use crate::cli::bench::schedule::Pacer;

/// A talker's turns, each given when it is to be posted.
pub(super) type Turns = mpsc::UnboundedReceiver<u64>;

/// The turns of all talkers: conversations of a [`Load`] by the numbers of their users.
pub(super) struct Talk {
    load: Load,
    writer: Writer,
    /// Set when it begins.
    clock: OnceLock<Clock>,
    /// Never more than one turn in each: the next begins when it was answered.
    posts: Vec<mpsc::UnboundedSender<u64>>,
    all: Mutex<All>,
}

struct All {
    echoes: Came,
    answers: Came,
    conversations: Vec<Conversation>,
}

/// What came of a conversation.
#[derive(Clone, Default)]
struct Conversation {
    /// The newest turn whose own activity has come.
    echoed: u64,
    /// The id of that activity.
    echo: String,
    /// The newest turn whose answer has come.
    answered: u64,
}

/// What came down the sockets.
pub(super) struct Heard {
    /// Users' own activities.
    pub(super) echoes: Came,
    /// The bot's answers.
    pub(super) answers: Came,
}

#[derive(Clone)]
pub(super) struct Came {
    /// From when a post was due until it, or its answer, came.
    pub(super) measured: Measured,
    /// What never came. It is among the latencies, with how long it was waited for.
    pub(super) lost: u64,
    /// What came again.
    pub(super) doubled: u64,
}

impl Came {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            measured: Measured::new()?,
            lost: 0,
            doubled: 0,
        })
    }
}

impl Talk {
    /// Also the turns of each talker; `None` when nobody talks.
    pub(super) fn new(load: Load) -> anyhow::Result<(Self, Option<Vec<Turns>>)> {
        let talking = load.level.conversations;
        let (posts, turns): (Vec<_>, Vec<_>) =
            (0..talking).map(|_| mpsc::unbounded_channel()).unzip();
        let all = All {
            echoes: Came::new()?,
            answers: Came::new()?,
            conversations: vec![Conversation::default(); talking],
        };
        let talk = Self {
            writer: Writer::new(load.level.size),
            load,
            clock: OnceLock::new(),
            posts,
            all: Mutex::new(all),
        };
        Ok((talk, (talking > 0).then_some(turns)))
    }

    pub(super) fn question(&self, conversation: usize, turn: u64) -> String {
        self.writer.question(conversation, turn)
    }

    /// Begins each turn when it is due.
    pub(super) fn pace(
        self: Arc<Self>,
        clock: Clock,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let mut pacer = Pacer::new(&self.load, 0, clock)?;
        // Nothing else sets it.
        let _ = self.clock.set(clock);
        Ok(async move {
            loop {
                let conversation = pacer.due().await?;
                if let Some(turn) = self.load.begin_due(conversation, Instant::now()) {
                    self.begin(conversation, turn)?;
                }
            }
        })
    }

    fn begin(&self, conversation: usize, turn: u64) -> anyhow::Result<()> {
        let sent = self.posts[conversation].send(turn);
        sent.ok().context("nobody posts any more")
    }

    /// Takes what came down a user's socket: the user's own activity, then its answer, each once.
    pub(super) fn hear(&self, user: usize, said: &Said<'_>) -> anyhow::Result<()> {
        let now = Instant::now();
        let clock = self.clock.get().filter(|_| user < self.posts.len());
        let clock = clock.context("a socket got something that nobody has said")?;
        let mut all = self.lock();
        let All {
            echoes,
            answers,
            conversations,
        } = &mut *all;
        let conversation = &mut conversations[user];
        if said.from.role == "user" {
            let turn = conversation.echoed + 1;
            if !self.writer.is_question(&said.text, user, turn) {
                let is_of = |turn| self.writer.is_question(&said.text, user, turn);
                ensure!((1..turn).any(is_of), "user {user} got what it has not said");
                echoes.doubled += 1;
                return Ok(());
            }
            conversation.echoed = turn;
            conversation.echo.replace_range(.., &said.id);
            self.load.note(user, turn, clock, now, &mut echoes.measured);
            return Ok(());
        }
        let turn = conversation.answered + 1;
        if !self.writer.is_answer(&said.text, user, turn) {
            let is_of = |turn| self.writer.is_answer(&said.text, user, turn);
            ensure!((1..turn).any(is_of), "user {user} got a wrong answer");
            answers.doubled += 1;
            return Ok(());
        }
        if conversation.echoed != turn {
            bail!("user {user} got the answer to what it has not seen itself say");
        }
        ensure!(
            said.reply_to_id.as_deref() == Some(&*conversation.echo),
            "the answer to turn {turn} of user {user} replies to another activity"
        );
        conversation.answered = turn;
        let next = self
            .load
            .answered(user, clock, now, &mut answers.measured)?;
        match next {
            Some(next) => self.begin(user, next),
            None => Ok(()),
        }
    }

    /// What has come, and what has not.
    pub(super) fn heard(&self, now: Instant) -> anyhow::Result<Heard> {
        let clock = self.clock.get().context("nobody has begun to talk")?;
        let all = self.lock();
        let (mut echoes, mut answers) = (all.echoes.clone(), all.answers.clone());
        for (number, conversation) in all.conversations.iter().enumerate() {
            for turn in conversation.echoed + 1..=self.load.turns_of(number) {
                self.load
                    .note(number, turn, clock, now, &mut echoes.measured);
                echoes.lost += 1;
            }
        }
        answers.lost = self
            .load
            .count_unanswered(clock, now, &mut answers.measured);
        Ok(Heard { echoes, answers })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, All> {
        // One that panicked ends the measurement.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::bench::load::Level;
    use crate::cli::bench::message;
    use crate::cli::bench::sockets::user::Speaker;

    /// One user, who posts at once and a second later.
    fn talk() -> anyhow::Result<(Arc<Talk>, Clock)> {
        let load = Load::new(Level {
            conversations: 1,
            streams: 1,
            size: 64,
            warmup: Duration::ZERO,
            measured: Duration::from_secs(2),
            channel: String::new(),
            bot: "bench".to_owned(),
            rate: Some(1.0),
        });
        let (talk, _turns) = Talk::new(load.clone())?;
        let clock = load.start();
        let _ = talk.clock.set(clock);
        load.begin_due(0, clock.start);
        Ok((Arc::new(talk), clock))
    }

    fn echo(talk: &Talk, turn: u64) -> Said<'static> {
        Said {
            id: format!("c|{turn}").into(),
            from: Speaker {
                role: "user".into(),
            },
            text: talk.question(0, turn).into(),
            reply_to_id: None,
        }
    }

    fn answer(talk: &Talk, turn: u64) -> Said<'static> {
        let text = message::answer(talk.question(0, turn)).unwrap_or_default();
        Said {
            id: format!("c|a{turn}").into(),
            from: Speaker { role: "bot".into() },
            text: text.into(),
            reply_to_id: Some(format!("c|{turn}").into()),
        }
    }

    #[test]
    fn what_comes_again_and_what_never_comes_is_counted() -> anyhow::Result<()> {
        let (talk, clock) = talk()?;
        for said in [
            echo(&talk, 1),
            echo(&talk, 1),
            answer(&talk, 1),
            answer(&talk, 1),
        ] {
            talk.hear(0, &said)?;
        }
        let heard = talk.heard(clock.give_up)?;
        for came in [heard.echoes, heard.answers] {
            assert_eq!((came.lost, came.doubled), (1, 1));
            assert_eq!(came.measured.latencies.count(), 2);
        }
        Ok(())
    }

    #[test]
    fn an_answer_comes_after_what_it_answers_and_says_so() -> anyhow::Result<()> {
        let (talk, _) = talk()?;
        assert!(talk.hear(0, &answer(&talk, 1)).is_err());
        talk.hear(0, &echo(&talk, 1))?;
        let stray = Said {
            reply_to_id: None,
            ..answer(&talk, 1)
        };
        assert!(talk.hear(0, &stray).is_err());
        assert!(talk.hear(0, &answer(&talk, 2)).is_err());
        talk.hear(0, &answer(&talk, 1))
    }

    #[test]
    fn who_says_nothing_hears_nothing() -> anyhow::Result<()> {
        let (talk, _) = talk()?;
        assert!(talk.hear(1, &echo(&talk, 1)).is_err());
        Ok(())
    }
}
