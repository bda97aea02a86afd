//! What the gateway promised and what was seen of it, over all its lives; and whether that fits
//! together with what it stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_stream::StreamExt;
use turnwire_client::Client;
use turnwire_client::proto::{Appended, Author, ConversationName, Delivery, LogEntry, ReadOrder};

use crate::gateway::CHANNEL;

/// One conversation's part.
#[derive(Default)]
pub(crate) struct Book {
    /// Posts by activity id, with their position once it was answered.
    posts: HashMap<String, Option<u64>>,
    /// Sends with a key, by text, with their position once it was answered.
    sends: HashMap<String, Option<u64>>,
    /// Commits by delivery.
    commits: HashMap<u64, Commit>,
    /// What the bot was handed, by sequence.
    turns: BTreeMap<u64, Turn>,
    newest_delivery: u64,
    newest_fence: u64,
    /// What the adapter was handed: sequence, attempt.
    outbound: Option<(u64, u32)>,
    shown: BTreeSet<u64>,
    /// What a watcher saw: the activity's id by sequence, from 1.
    watched: Vec<String>,
}

#[derive(Debug, Default)]
struct Turn {
    attempt: u32,
    /// The bot has sent what may have finished it.
    answered: bool,
    /// The gateway said that it is finished.
    finished: bool,
}

struct Commit {
    question: String,
    replies: usize,
    /// Where its replies are, once it was taken.
    taken: Option<Vec<Appended>>,
}

/// How strictly a log is compared with what was promised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing that was answered may be missing.
    Kill,
    /// The end of the journal was cut off: what is missing is missing from the end.
    Cut,
}

pub(crate) struct Ledger {
    books: Vec<Mutex<Book>>,
    prefix: String,
    broken: Mutex<Vec<String>>,
}

impl Ledger {
    pub(crate) fn new(conversations: usize, prefix: &str) -> Self {
        Self {
            books: (0..conversations).map(|_| Mutex::default()).collect(),
            prefix: prefix.to_owned(),
            broken: Mutex::default(),
        }
    }

    pub(crate) fn conversations(&self) -> usize {
        self.books.len()
    }

    pub(crate) fn conversation_id(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }

    pub(crate) fn name(&self, number: usize) -> ConversationName {
        ConversationName::new(CHANNEL, self.conversation_id(number))
    }

    /// The number of a conversation; `None` for one of another ledger.
    pub(crate) fn number(&self, name: Option<&ConversationName>) -> Option<usize> {
        let id = name?.conversation_id.strip_prefix(&self.prefix)?;
        id.parse().ok()
    }

    fn book(&self, number: usize) -> MutexGuard<'_, Book> {
        lock(&self.books[number])
    }

    /// Notes that something is not as promised.
    pub(crate) fn broken(&self, what: String) {
        lock(&self.broken).push(what);
    }

    fn check(&self, number: usize, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(format!("{}: {}", self.conversation_id(number), what()));
        }
    }

    /// Panics when something was not as promised.
    pub(crate) fn assert_whole(&self) {
        let broken = lock(&self.broken);
        assert!(broken.is_empty(), "{:#?}", &broken[..broken.len().min(20)]);
    }

    pub(crate) fn begin_post(&self, number: usize, id: &str) {
        self.book(number).posts.entry(id.to_owned()).or_default();
    }

    pub(crate) fn posted(&self, number: usize, id: &str, appended: &Appended) {
        self.check(number, appended.activity_id == id, || {
            format!("post {id} became {appended:?}")
        });
        let mut book = self.book(number);
        let before = book.posts.insert(id.to_owned(), Some(appended.sequence));
        let same = before.flatten().is_none_or(|s| s == appended.sequence);
        self.check(number, same, || {
            format!("post {id} was at {before:?} and is at {appended:?}")
        });
    }

    /// Whether the conversation was started for sure.
    pub(crate) fn is_started(&self, number: usize) -> bool {
        self.book(number).posts.values().any(Option::is_some)
    }

    pub(crate) fn begin_send(&self, number: usize, text: &str) {
        self.book(number).sends.entry(text.to_owned()).or_default();
    }

    pub(crate) fn sent(&self, number: usize, text: &str, sequence: u64) {
        let before = self
            .book(number)
            .sends
            .insert(text.to_owned(), Some(sequence));
        let same = before.flatten().is_none_or(|before| before == sequence);
        self.check(number, same, || {
            format!("send `{text}` was at {before:?} and is at {sequence}")
        });
    }

    /// The bot is handed something. Returns whether it is the first time.
    pub(crate) fn delivered(&self, number: usize, delivery: &Delivery) -> bool {
        let mut book = self.book(number);
        let Delivery {
            delivery_id,
            sequence,
            attempt,
            fence,
            ..
        } = *delivery;
        let newest = book
            .turns
            .last_key_value()
            .map(|(sequence, turn)| (*sequence, turn.answered));
        let in_order = match newest {
            Some((newest, answered)) => sequence == newest || sequence > newest && answered,
            None => true,
        };
        self.check(number, in_order, || {
            format!("delivery of {sequence} after {newest:?}")
        });
        self.check(number, delivery_id > book.newest_delivery, || {
            format!("delivery {delivery_id} after {}", book.newest_delivery)
        });
        self.check(
            number,
            fence >= book.newest_fence && fence <= delivery_id,
            || format!("fence {fence} after {}", book.newest_fence),
        );
        self.check(number, !delivery.after_gap, || {
            format!("a gap before {sequence}")
        });
        book.newest_delivery = delivery_id;
        book.newest_fence = fence;
        let turn = book.turns.entry(sequence).or_default();
        self.check(number, !turn.finished, || {
            format!("{sequence} was finished and comes again, attempt {attempt}")
        });
        self.check(number, attempt > turn.attempt, || {
            format!("attempt {attempt} of {sequence} after {}", turn.attempt)
        });
        let is_first = turn.attempt == 0;
        turn.attempt = attempt;
        is_first
    }

    /// The bot is about to answer a delivery.
    pub(crate) fn answer(&self, number: usize, sequence: u64) {
        if let Some(turn) = self.book(number).turns.get_mut(&sequence) {
            turn.answered = true;
        }
    }

    pub(crate) fn commit(&self, number: usize, delivery: u64, question: &str, replies: usize) {
        let commit = Commit {
            question: question.to_owned(),
            replies,
            taken: None,
        };
        self.book(number).commits.insert(delivery, commit);
    }

    /// The gateway says that a delivery is finished, and by what.
    pub(crate) fn finished(
        &self,
        number: usize,
        sequence: u64,
        delivery: u64,
        appended: Vec<Appended>,
    ) {
        let mut book = self.book(number);
        if let Some(turn) = book.turns.get_mut(&sequence) {
            turn.finished = true;
        }
        if let Some(commit) = book.commits.get_mut(&delivery) {
            let whole = commit.replies == appended.len();
            commit.taken = Some(appended);
            self.check(number, whole, || {
                format!("the commit of {delivery} was taken in part")
            });
        }
    }

    /// The adapter is handed something. Returns whether it is the first time.
    pub(crate) fn outbound(&self, number: usize, sequence: u64, attempt: u32) -> bool {
        let mut book = self.book(number);
        let before = book.outbound.replace((sequence, attempt));
        let in_order = before
            .is_none_or(|(newest, last)| sequence > newest || sequence == newest && attempt > last);
        self.check(number, in_order, || {
            format!("outbound {sequence}, attempt {attempt}, after {before:?}")
        });
        book.shown.insert(sequence)
    }

    /// How far the watcher has come.
    pub(crate) fn watched_to(&self, number: usize) -> u64 {
        self.book(number).watched.len() as u64
    }

    pub(crate) fn watched(&self, number: usize, entry: &LogEntry) {
        let mut book = self.book(number);
        let next = book.watched.len() as u64 + 1;
        self.check(number, entry.sequence == next, || {
            format!(
                "the watcher was shown {} in place of {next}",
                entry.sequence
            )
        });
        book.watched.push(id(entry).to_owned());
    }

    /// Compares a conversation's log with all that was promised of it.
    pub(crate) async fn audit(&self, client: &Client, number: usize, after: After) {
        if !self.is_started(number) {
            return;
        }
        let log = match read(client, self.name(number)).await {
            Ok(log) => log,
            Err(error) => {
                let gone = after == After::Cut && error.reason() == Some("CONVERSATION_UNKNOWN");
                self.check(number, gone, || format!("cannot be read: {error}"));
                return;
            }
        };
        let conversation = client.conversations().get(self.name(number)).await;
        match conversation {
            Ok(conversation) => {
                let (first, last) = (conversation.first_sequence, conversation.last_sequence);
                self.check(number, (first, last) == (1, log.len() as u64), || {
                    format!("the head says {first}..={last}, the log has {}", log.len())
                });
            }
            Err(error) => self.broken(format!("{}: {error}", self.conversation_id(number))),
        }
        let gapless = log
            .iter()
            .zip(1..)
            .all(|(entry, sequence)| entry.sequence == sequence);
        self.check(number, gapless, || "the log has a gap".to_owned());
        let book = self.book(number);
        self.audit_posts(number, &book, &log, after);
        self.audit_sends(number, &book, &log, after);
        self.audit_commits(number, &book, &log, after);
        let watched = book.watched.iter().map(String::as_str);
        let same =
            after == After::Cut || watched.clone().eq(log.iter().map(id).take(watched.len()));
        self.check(number, same, || {
            "the watcher was shown another log".to_owned()
        });
    }

    fn audit_posts(&self, number: usize, book: &Book, log: &[LogEntry], after: After) {
        let mut found = HashMap::new();
        for entry in log.iter().filter(|entry| entry.author() == Author::Channel) {
            self.check(number, book.posts.contains_key(id(entry)), || {
                format!("nobody posted {}", id(entry))
            });
            let twice = found.insert(id(entry), entry.sequence);
            self.check(number, twice.is_none(), || {
                format!(
                    "post {} is at {twice:?} and at {}",
                    id(entry),
                    entry.sequence
                )
            });
        }
        let all = book.posts.iter().map(|(id, at)| (id.as_str(), *at));
        self.audit_positions(number, all, &found, log, after);
    }

    fn audit_sends(&self, number: usize, book: &Book, log: &[LogEntry], after: After) {
        let mut found = HashMap::new();
        let others = log.iter().filter(|entry| entry.author() != Author::Channel);
        for entry in others.filter(|entry| Reply::parse(text(entry)).is_none()) {
            self.check(number, book.sends.contains_key(text(entry)), || {
                format!("nobody sent `{}`", text(entry))
            });
            let twice = found.insert(text(entry), entry.sequence);
            self.check(number, twice.is_none(), || {
                format!(
                    "`{}` is at {twice:?} and at {}",
                    text(entry),
                    entry.sequence
                )
            });
        }
        let all = book.sends.iter().map(|(text, at)| (text.as_str(), *at));
        self.audit_positions(number, all, &found, log, after);
    }

    /// Whatever was answered is where the answer said.
    fn audit_positions<'a>(
        &self,
        number: usize,
        answered: impl Iterator<Item = (&'a str, Option<u64>)>,
        found: &HashMap<&str, u64>,
        log: &[LogEntry],
        after: After,
    ) {
        for (what, answered) in answered {
            let Some(sequence) = answered else { continue };
            let cut_off = after == After::Cut && sequence > log.len() as u64;
            let found = found.get(what).copied();
            self.check(number, cut_off || found == answered, || {
                format!("`{what}` was answered at {sequence} and is at {found:?}")
            });
        }
    }

    fn audit_commits(&self, number: usize, book: &Book, log: &[LogEntry], after: After) {
        // By question: the delivery that answered it, and how many of its replies were seen.
        let mut answers: HashMap<&str, (u64, usize)> = HashMap::new();
        for entry in log.iter().filter(|entry| entry.author() == Author::Bot) {
            let Some(reply) = Reply::parse(text(entry)) else {
                continue;
            };
            let (delivery, seen) = answers.entry(reply.question).or_insert((reply.delivery, 0));
            self.check(number, *delivery == reply.delivery, || {
                format!(
                    "{} was answered by deliveries {delivery} and {}",
                    reply.question, reply.delivery
                )
            });
            self.check(number, reply.index == *seen, || {
                format!(
                    "reply {} of {} is not in order",
                    reply.index, reply.question
                )
            });
            *seen += 1;
            let cited = entry
                .activity
                .as_ref()
                .and_then(|activity| activity.reply_to_id.as_deref());
            self.check(number, cited == Some(reply.question), || {
                format!("an answer to {} cites {cited:?}", reply.question)
            });
        }
        for (question, (delivery, seen)) in &answers {
            let whole = book
                .commits
                .get(delivery)
                .is_some_and(|c| c.replies == *seen && c.question == *question);
            self.check(number, whole, || {
                format!("{seen} replies of the commit of {delivery} are there")
            });
        }
        for (delivery, commit) in &book.commits {
            for appended in commit.taken.iter().flatten() {
                let entry = log.get(appended.sequence as usize - 1);
                let cut_off = after == After::Cut && entry.is_none();
                let there = entry.is_some_and(|entry| {
                    id(entry) == appended.activity_id
                        && Reply::parse(text(entry))
                            .is_some_and(|reply| reply.delivery == *delivery)
                });
                self.check(number, cut_off || there, || {
                    format!("the commit of {delivery} was taken and {appended:?} is not there")
                });
            }
        }
    }

    /// Checks, when all work is done, that nothing was left out.
    pub(crate) async fn audit_end(&self, client: &Client, number: usize) {
        self.audit(client, number, After::Kill).await;
        let log = read(client, self.name(number)).await.unwrap_or_default();
        let book = self.book(number);
        for (id, at) in &book.posts {
            self.check(number, at.is_some(), || format!("post {id} has no answer"));
        }
        for entry in &log {
            if entry.author() == Author::Channel {
                let turn = book.turns.get(&entry.sequence);
                self.check(number, turn.is_some_and(|turn| turn.answered), || {
                    format!("the bot was not handed {}", entry.sequence)
                });
            } else {
                self.check(number, book.shown.contains(&entry.sequence), || {
                    format!("the adapter was not handed {}", entry.sequence)
                });
            }
        }
        let posts = log
            .iter()
            .filter(|entry| entry.author() == Author::Channel)
            .count();
        self.check(number, posts == book.turns.len(), || {
            let last = book.turns.last_key_value();
            format!(
                "{posts} posts, {} turns, the last {last:?}",
                book.turns.len()
            )
        });
    }

    /// Activities in all logs that were promised to be there, for the record.
    pub(crate) fn promised(&self) -> usize {
        let books = (0..self.books.len()).map(|number| self.book(number));
        let promised = books.map(|book| {
            let taken = book
                .commits
                .values()
                .filter_map(|commit| commit.taken.as_ref());
            book.posts.values().flatten().count()
                + book.sends.values().flatten().count()
                + taken.map(Vec::len).sum::<usize>()
        });
        promised.sum()
    }
}

/// The text of a reply in a commit: which question, by which delivery, and which reply it is.
pub(crate) struct Reply<'t> {
    pub(crate) question: &'t str,
    pub(crate) delivery: u64,
    pub(crate) index: usize,
}

impl<'t> Reply<'t> {
    pub(crate) fn text(&self) -> String {
        format!("reply {} {} {}", self.question, self.delivery, self.index)
    }

    fn parse(text: &'t str) -> Option<Self> {
        let mut words = text.strip_prefix("reply ")?.split(' ');
        Some(Self {
            question: words.next()?,
            delivery: words.next()?.parse().ok()?,
            index: words.next()?.parse().ok()?,
        })
    }
}

async fn read(
    client: &Client,
    name: ConversationName,
) -> Result<Vec<LogEntry>, turnwire_client::Error> {
    let conversations = client.conversations();
    let mut entries = std::pin::pin!(conversations.activities(name, ReadOrder::OldestFirst));
    let mut log = Vec::new();
    while let Some(entry) = entries.next().await {
        log.push(entry?);
    }
    Ok(log)
}

fn id(entry: &LogEntry) -> &str {
    let id = entry
        .activity
        .as_ref()
        .and_then(|activity| activity.id.as_deref());
    id.unwrap_or_default()
}

fn text(entry: &LogEntry) -> &str {
    let text = entry
        .activity
        .as_ref()
        .and_then(|activity| activity.text.as_deref());
    text.unwrap_or_default()
}

/// What a task left behind that panicked with the lock held is looked at all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
