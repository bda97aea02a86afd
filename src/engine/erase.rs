//! Removing what a person said, and the person: conversation by conversation, page by page.
//!
//! Logs keep their sequences: what was said there becomes a tombstone. Only the shard that owns a
//! conversation changes its log, a page in a round, so that nobody waits longer for it than for a page.
//! What is to be changed is looked for here, on the caller's task.
//!
//! In each conversation documents and files go first, then the log, and last, in one write with the account, the place in
//! the list of the user's conversations. So whatever interrupts it, the same call again finds what is left.

use tokio::sync::oneshot;
use tracing::info;

use crate::activity::erase;
use crate::engine::command::{Command, Erase};
use crate::engine::log::{self, Entry, Page};
use crate::engine::state::Scope;
use crate::engine::{Engine, Error, Filter, ListPosition};
use crate::files::{FileId, Files};
use crate::id::{ChannelId, ConversationKey, Sequence};
use crate::store::{self, Order};

/// Entries of a log looked at, and changed, at a time.
const PAGE_ENTRIES: usize = 256;
/// The same in bytes; one is taken whatever its size.
const PAGE_BYTES: usize = 1024 * 1024;
/// How often the end of a log is looked for that goes on meanwhile.
const END_ATTEMPTS: usize = 64;

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Conversations that have nothing more of the user.
    pub conversations: u64,
    /// Activities that are tombstones now.
    pub activities: u64,
    /// Activities of others that named the user's account, and keep its id.
    pub named: u64,
    /// Uploaded files that are gone.
    pub files: u64,
    /// Documents about the user that bots kept.
    pub documents: u64,
    /// Nothing is left to do.
    pub done: bool,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErasedPage {
    pub(crate) activities: u64,
    pub(crate) named: u64,
    /// The account and the place in the list are gone, too.
    pub(crate) is_last: bool,
}

impl Engine {
    /// Erases a user of a channel from up to `most` conversations that the user is or was a member of,
    /// durably. Repeating is safe; [`Erased::done`] says whether there is need to.
    ///
    /// What others wrote stays, also where it speaks of the user; of accounts an id stays. What a session
    /// holds stays as it was until it is finished.
    ///
    /// # Errors
    ///
    /// [`Error::StoreFailed`], also when files cannot be removed; [`Error::ShuttingDown`]. What was erased
    /// until then is.
    pub async fn erase_user(
        &self,
        files: &Files,
        channel: &ChannelId,
        user: &str,
        most: usize,
    ) -> Result<Erased, Error> {
        let filter = Filter::User(channel.clone(), user.to_owned());
        let mut erased = Erased::default();
        let mut after: Option<ListPosition> = None;
        let mut unfinished = 0;
        // One by one: the list may be long, and shrinks as it is worked on.
        for _ in 0..most {
            let Some(listed) = self.conversations(&filter, after.as_ref(), 1)?.pop() else {
                erased.done = unfinished == 0;
                break;
            };
            let key = &listed.conversation;
            if !self.erase_in(files, key, user, &mut erased).await? {
                unfinished += 1;
            }
            after = Some(listed);
        }
        if erased.done {
            let user = Scope::User(channel.clone(), user.to_owned());
            erased.documents += self.remove_documents(&user).await?;
        }
        info!(
            channel.id = %channel, erased.conversations, erased.activities, erased.files,
            erased.documents, "a user was erased"
        );
        Ok(erased)
    }

    /// Returns whether there is nothing left of the user there.
    async fn erase_in(
        &self,
        files: &Files,
        key: &ConversationKey,
        user: &str,
        erased: &mut Erased,
    ) -> Result<bool, Error> {
        let stored = self.conversation(key)?;
        // Before the place in the list, too. Where there is nobody else, what a bot keeps about the
        // conversation is about the user.
        let own = Scope::ConversationUser(key.clone(), user.to_owned());
        let private = (!stored.is_group).then(|| Scope::Conversation(key.clone()));
        for scope in std::iter::once(own).chain(private) {
            erased.documents += self.remove_documents(&scope).await?;
        }
        let mut after = stored.first.previous();
        let page = Page {
            entries: PAGE_ENTRIES,
            bytes: PAGE_BYTES,
        };
        let mut ends = 0;
        while ends < END_ATTEMPTS {
            let (from, to) = (after.next(), Sequence(u64::MAX));
            let entries = log::read(
                self.store(),
                stored.number,
                from,
                to,
                Order::Ascending,
                page,
            )?;
            // First the files: once the log does not name them any more, nobody would find them.
            let sent = entries.iter().map(|entry| files_of(entry, user));
            let sent: Vec<_> = sent.collect::<Result<Vec<_>, _>>()?.concat();
            let removed = files.remove(sent).await;
            erased.files += removed.map_err(|source| store::Error::Failed {
                place: "the uploaded files".to_owned(),
                source: std::sync::Arc::new(source),
            })?;

            let through = entries.last().map_or(after, |entry| entry.sequence);
            // A page may be short for its bytes: the end is where there is no other.
            ends += usize::from(entries.is_empty());
            let (reply, page) = oneshot::channel();
            let command = Command::Erase(Box::new(Erase {
                conversation: key.clone(),
                user: user.to_owned(),
                after,
                through,
                at_end: entries.is_empty(),
                reply,
            }));
            self.command(self.shard(key), command).await?;
            let page = page.await.map_err(|_| Error::ShuttingDown)??;
            erased.activities += page.activities;
            erased.named += page.named;
            if page.is_last {
                erased.conversations += 1;
                return Ok(true);
            }
            after = through;
        }
        Ok(false)
    }
}

/// The files that a user has sent with an entry.
fn files_of(entry: &Entry, user: &str) -> Result<Vec<FileId>, Error> {
    if entry.author.bot().is_some() {
        return Ok(Vec::new());
    }
    let urls = erase::files_of(&entry.activity, user).map_err(|_| store::Error::Corrupt {
        what: format!("activity {} of a log", entry.sequence),
    })?;
    // A URL of ours has the id as one of its parts, and nothing else looks like one.
    let id = |url: &String| url.split(['/', '?']).find_map(|part| part.parse().ok());
    Ok(urls.iter().filter_map(id).collect())
}
