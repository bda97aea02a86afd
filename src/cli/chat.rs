//! `turnwire chat`: is a user in the terminal.

mod lines;
mod screen;

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use turnwire_client::backoff::Backoff;
use turnwire_client::conversations::{Start, WatchStep};
use turnwire_client::proto::{Activity, Author, ChannelAccount, ConversationName, LogEntry};
use turnwire_client::{Client, Code};

use super::connection::Connection;
use super::{escape, fresh};
use lines::Lines;
use screen::Screen;

/// How long to wait for more when every line is answered: an answer may have several parts,
/// which are appended together.
const AFTERTHOUGHT: Duration = Duration::from_millis(150);

/// How often a message is posted while the gateway does not answer: for about a minute.
const POST_ATTEMPTS: u32 = 12;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The channel, of kind `grpc`
    #[arg(long, default_value = "dev")]
    channel: String,
    /// Who to be
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        default_value = "user",
        hide_env = true
    )]
    user: String,
    /// The conversation to go on with, or to begin, as ID or as CHANNEL/ID [default: a new one]
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// When stdin is not a terminal: how many seconds without a word from the bot to wait for
    /// answers
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    wait: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0 to 86400".to_owned()),
    }
}

pub(super) async fn run(args: Args, connection: &Connection, json: bool) -> anyhow::Result<()> {
    let client = connection.open().await?;
    // As the other commands print it: the channel's own name in front is no part of the id.
    let prefix = format!("{}/", args.channel);
    let conversation_id = match args.conversation {
        Some(given) => given
            .strip_prefix(&prefix)
            .map(str::to_owned)
            .unwrap_or(given),
        None => format!("chat-{}", fresh::id()),
    };
    let user = User {
        client,
        conversation: ConversationName::new(args.channel, conversation_id),
        name: args.user,
        // Ids tell this run's posts from those of another that goes on with the conversation.
        run: fresh::id(),
        posted: 0,
    };
    let mut lines = Lines::of_stdin();
    let screen = Screen::new(json, lines.is_terminal());
    user.chat(&mut lines, screen, Duration::from_secs_f64(args.wait))
        .await
}

/// A user in a conversation.
struct User {
    client: Client,
    conversation: ConversationName,
    name: String,
    run: String,
    posted: u64,
}

impl User {
    async fn chat(
        mut self,
        lines: &mut Lines,
        screen: Screen,
        wait: Duration,
    ) -> anyhow::Result<()> {
        let start = self.enter().await?;
        screen.begin(&self.conversation)?;
        let conversations = self.client.conversations();
        let mut steps = pin!(conversations.watch(self.conversation.clone(), start));
        let mut unanswered = HashSet::new();
        let mut spoken = false;
        let mut reading = true;
        let mut quiet_since = Instant::now();
        screen.prompt()?;
        loop {
            let patience = if spoken && unanswered.is_empty() {
                AFTERTHOUGHT.min(wait)
            } else {
                wait
            };
            tokio::select! {
                line = lines.next(), if reading => match line {
                    Some(line) => {
                        let line = line.context("cannot read stdin")?;
                        if !line.trim().is_empty() {
                            unanswered.insert(self.say(&line).await?);
                            spoken = true;
                            quiet_since = Instant::now();
                        }
                        screen.prompt()?;
                    }
                    // On a terminal the user has left; piped, the answers are what was wanted.
                    None if lines.is_terminal() => return screen.end(),
                    None => {
                        reading = false;
                        quiet_since = Instant::now();
                    }
                },
                step = steps.next() => match step {
                    Some(Ok(WatchStep::Entry(entry))) => {
                        if !self.is_own(&entry) {
                            if let Some(activity) = &entry.activity {
                                unanswered.remove(activity.reply_to_id());
                            }
                            screen.show(&entry)?;
                            quiet_since = Instant::now();
                        }
                    }
                    // It asks for nothing else.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(quiet_since + patience), if !reading => {
                    let silent = unanswered.len();
                    anyhow::ensure!(
                        silent == 0,
                        "no answer to {silent} message(s) within {} s: is a bot attached?",
                        wait.as_secs_f64()
                    );
                    return Ok(());
                }
            }
        }
    }

    /// Begins the conversation, if it is new, and says from where to follow it.
    async fn enter(&mut self) -> anyhow::Result<Start> {
        let conversations = self.client.conversations();
        match conversations.get(self.conversation.clone()).await {
            Ok(known) => Ok(Start::After(known.last_sequence)),
            Err(error) if error.code() == Some(Code::NotFound) => {
                let arrival = Activity {
                    members_added: vec![self.account()],
                    ..Activity::of_type("conversationUpdate")
                };
                self.post(arrival).await?;
                Ok(Start::Beginning)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn say(&mut self, text: &str) -> anyhow::Result<String> {
        self.post(Activity::message(text)).await
    }

    /// Posts an activity and returns its id.
    async fn post(&mut self, activity: Activity) -> anyhow::Result<String> {
        self.posted += 1;
        let id = format!("{}-{}", self.run, self.posted);
        let activity = activity
            .with_id(&id)
            .from_account(self.account())
            .in_conversation(&self.conversation.conversation_id);
        let mut backoff = Backoff::default();
        for attempt in 1.. {
            let channel = &self.conversation.channel_id;
            match self.client.post_activity(channel, activity.clone()).await {
                Ok(_) => break,
                // The id makes it safe to say the same again.
                Err(error) if error.is_retryable() && attempt < POST_ATTEMPTS => {
                    if attempt == 1 {
                        eprintln!(
                            "not sent yet: {}; trying again",
                            escape::line(&error.to_string())
                        );
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(id)
    }

    fn account(&self) -> ChannelAccount {
        ChannelAccount {
            name: Some(self.name.clone()),
            ..ChannelAccount::with_id(&self.name)
        }
    }

    /// Whether this user did it: nothing that needs to be shown again. Or bots among themselves: nothing
    /// that is for users.
    fn is_own(&self, entry: &LogEntry) -> bool {
        let activity = entry.activity.as_ref();
        let from = activity.and_then(|activity| activity.from.as_ref());
        let is_handover = activity.is_some_and(|activity| activity.name() == "handoff.initiate");
        let is_of_user = from.is_some_and(|from| from.id() == self.name);
        entry.author() == Author::Channel && (is_of_user || is_handover)
    }
}
