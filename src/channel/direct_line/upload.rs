//! Uploads: files that come with an activity, and how clients read them again (reference, sections 2.7
//! and 9).

mod attachments;

use std::io;

use serde_json::{Value, json};

use super::inbound;
use super::{Caller, DirectLine, Error};
use crate::engine;
use crate::files::{About, FileId, Found, Incoming};
use crate::id::ConversationKey;

/// The type of the part that is the activity, whatever the part is called.
const ACTIVITY: &str = "application/vnd.microsoft.activity";
/// After how many bytes it is looked again whether the disk has room.
const CHECK_BYTES: usize = 4 << 20;

/// An upload that is coming in, part by part. Dropped, nothing of it is left.
#[derive(Debug)]
pub struct Upload<'a> {
    line: &'a DirectLine,
    caller: &'a Caller,
    base: &'a str,
    conversation: &'a str,
    key: ConversationKey,
    incoming: Incoming,
    /// The names of the files as they were sent.
    names: Vec<Option<String>>,
    activity: Option<Vec<u8>>,
    /// Of all files so far.
    bytes: usize,
    /// Since it was last looked whether the disk has room.
    unchecked: usize,
    part: Part,
}

/// What is coming in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    None,
    Activity,
    File,
}

impl DirectLine {
    /// Begins an upload to a conversation, which is looked at before anything is written.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationForeign`]; the engine's when there is no such conversation, when it has
    /// ended, and when the disk has no room.
    pub async fn begin_upload<'a>(
        &'a self,
        caller: &'a Caller,
        id: &'a str,
        base: &'a str,
    ) -> Result<Upload<'a>, Error> {
        let key = self.place(caller, id)?;
        match self.engine().conversation(&key) {
            Ok(stored) if stored.ended => return Err(engine::Error::ConversationEnded(key).into()),
            Ok(_) => {}
            // Posting with the token will start it.
            Err(engine::Error::ConversationUnknown(_)) if !caller.has_secret() => {}
            Err(error) => return Err(error.into()),
        }
        self.check_room().await?;
        Ok(Upload {
            line: self,
            caller,
            base,
            conversation: id,
            key,
            incoming: self.inner.files.begin(),
            names: Vec::new(),
            activity: None,
            bytes: 0,
            unchecked: 0,
            part: Part::None,
        })
    }

    /// Finds what was uploaded. The id is all there is to show: browsers send no headers for images.
    ///
    /// # Errors
    ///
    /// [`Error::AttachmentUnknown`], [`Error::AttachmentsFailed`].
    pub async fn attachment(&self, id: &str) -> Result<Found, Error> {
        let id: FileId = id.parse().map_err(|_| Error::AttachmentUnknown)?;
        let found = self.inner.files.find(&id).await;
        let found = found.map_err(Error::AttachmentsFailed)?;
        found.ok_or(Error::AttachmentUnknown)
    }

    /// Refuses files while the disk has less room than the reserve, as activities are.
    async fn check_room(&self) -> Result<(), Error> {
        let reserve_bytes = self.engine().limits().disk_reserve_bytes;
        let engine = self.engine().clone();
        let free = tokio::task::spawn_blocking(move || engine.store().free_bytes()).await;
        let free = free.map_err(|error| Error::AttachmentsFailed(io::Error::other(error)))?;
        if free.map_err(engine::Error::from)? < reserve_bytes {
            return Err(engine::Error::StoreFull { reserve_bytes }.into());
        }
        Ok(())
    }
}

impl Upload<'_> {
    /// Begins the next part: the activity by its type, a file by any other.
    ///
    /// # Errors
    ///
    /// [`Error::ArgumentBad`] of a second activity, and of more files than `attachment_files`; when the
    /// disk has no room.
    pub async fn begin_part(
        &mut self,
        content_type: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), Error> {
        if content_type.is_some_and(is_activity) {
            if self.activity.is_some() {
                return Err(Error::bad("upload", "has more than one activity"));
            }
            self.activity = Some(Vec::new());
            self.part = Part::Activity;
            return Ok(());
        }
        let allowed = self.line.engine().limits().attachment_files;
        if self.names.len() == allowed {
            let problem = format!("has more than the {allowed} files of `attachment_files`");
            return Err(Error::bad("upload", problem));
        }
        self.line.check_room().await?;
        let about = About::new(content_type, name);
        let started = self.incoming.start(about).await;
        started.map_err(|error| self.failed(error))?;
        self.names.push(name.map(str::to_owned));
        self.part = Part::File;
        Ok(())
    }

    /// Takes more of the part that was begun.
    ///
    /// # Errors
    ///
    /// [`Error::BodyTooLarge`]; when the disk fails or has no room.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let limits = self.line.engine().limits();
        if self.part == Part::Activity {
            let activity = self.activity.get_or_insert_default();
            let (limit, allowed) = ("activity_bytes", limits.activity_bytes);
            if activity.len() + bytes.len() > allowed {
                return Err(Error::BodyTooLarge { limit, allowed });
            }
            activity.extend_from_slice(bytes);
            return Ok(());
        }
        let (limit, allowed) = ("attachment_bytes", limits.attachment_bytes);
        if self.bytes + bytes.len() > allowed {
            return Err(Error::BodyTooLarge { limit, allowed });
        }
        self.bytes += bytes.len();
        self.unchecked += bytes.len();
        if self.unchecked >= CHECK_BYTES {
            self.unchecked = 0;
            self.line.check_room().await?;
        }
        let written = self.incoming.write(bytes).await;
        written.map_err(|error| self.failed(error))
    }

    /// Ends the part.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn end_part(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.part, Part::None) == Part::File {
            let ended = self.incoming.end().await;
            ended.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Posts the activity with its files, both durable then, and returns its id. Without an activity
    /// of its own, or one that says who it is from, it is from `user_id`; a token's user is before both.
    ///
    /// # Errors
    ///
    /// [`Error::ArgumentBad`] when there are no files, [`Error::PropertyMissing`] when nobody says who
    /// it is from; those of [`DirectLine::post`]. Unless the engine's says otherwise, nothing is left.
    pub async fn finish(mut self, user_id: Option<&str>) -> Result<String, Error> {
        if self.names.is_empty() {
            return Err(Error::bad("upload", "has no files"));
        }
        let activity = self.activity.take();
        let activity = self.activity_of(activity, user_id)?;
        let bound = self.caller.user();
        let service_url = self.line.service_url(self.caller);
        let posted = inbound::read(&activity, bound.as_ref(), self.conversation, service_url)?;
        // The files come first: nobody is to be told of one that is not there.
        let published = match self.incoming.publish().await {
            Ok(published) => published,
            Err(error) => return Err(failed(self.line, error)),
        };
        // Whoever stops waiting does not stop the append.
        let (line, caller) = (self.line.clone(), self.caller.clone());
        let key = self.key;
        let posting = tokio::spawn(async move {
            let said = line.say(&caller, &key, posted).await;
            match &said {
                // The activity has the files of the first time.
                Ok(appended) if appended.repeated => drop(published),
                // It may have been appended.
                Ok(_) | Err(Error::Engine(engine::Error::StoreFailed(_))) => published.keep(),
                Err(_) => drop(published),
            }
            said
        });
        let posted = posting.await.map_err(io::Error::other);
        let posted = posted.map_err(Error::AttachmentsFailed)?;
        Ok(posted?.activity_id.to_string())
    }

    /// The activity, with its files among its attachments.
    fn activity_of(&self, sent: Option<Vec<u8>>, user_id: Option<&str>) -> Result<Value, Error> {
        let user_id = user_id.filter(|id| !id.is_empty());
        let mut activity = match sent {
            Some(sent) => serde_json::from_slice(&sent)
                .map_err(|error| Error::SyntaxBad(error.to_string()))?,
            None if user_id.is_none() && self.caller.user().is_none() => {
                return Err(Error::PropertyMissing("userId"));
            }
            None => json!({"type": "message"}),
        };
        let Some(members) = activity.as_object_mut() else {
            return Err(Error::bad("activity", "must be one object"));
        };
        if let Some(user_id) = user_id {
            let from = members.entry("from").or_insert(Value::Null);
            if from.is_null() {
                *from = json!({});
            }
            if let Some(from) = from.as_object_mut() {
                let id = from.entry("id").or_insert(Value::Null);
                if id.is_null() || id == "" {
                    *id = user_id.into();
                }
            }
        }
        let files = self.incoming.written().zip(&self.names);
        let files = files.map(|((id, about), sent_name)| attachments::File {
            content_type: about.content_type.clone(),
            content_url: attachments::url(self.base, id, about),
            name: about.name.clone(),
            sent_name: sent_name.clone(),
        });
        attachments::attach(members, files.collect())?;
        Ok(activity)
    }

    fn failed(&self, error: io::Error) -> Error {
        failed(self.line, error)
    }
}

fn failed(line: &DirectLine, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let reserve_bytes = line.engine().limits().disk_reserve_bytes;
            engine::Error::StoreFull { reserve_bytes }.into()
        }
        _ => Error::AttachmentsFailed(error),
    }
}

fn is_activity(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(ACTIVITY)
}
