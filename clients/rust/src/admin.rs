//! Looking after a gateway: needs the role `admin`.

use prost::bytes::Bytes;

use crate::proto::backup_response::Part;
use crate::proto::{
    BackupRequest, BackupResponse, BackupSummary, ConversationName, DropDeadLettersRequest,
    DropDeadLettersResponse, EraseUserRequest, EraseUserResponse, ListDeadLettersRequest,
    ListDeadLettersResponse, ListSessionsRequest, ListSessionsResponse, ReplayDeadLettersRequest,
    ReplayDeadLettersResponse,
};
use crate::{Client, Error};

/// The calls of `AdminService`. Each fails as the service lists it.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Client {
    /// Looks after the gateway.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin {
            client: self.clone(),
        }
    }
}

impl Admin {
    /// Begins a backup.
    ///
    /// # Errors
    ///
    /// As `Backup` lists them.
    pub async fn backup(&self) -> Result<Backup, Error> {
        let begun = self.client.admin_service().backup(BackupRequest {}).await;
        let stream = begun.map_err(|status| self.client.error(status))?;
        Ok(Backup {
            client: self.client.clone(),
            stream: stream.into_inner(),
            summary: None,
        })
    }

    /// A page of dead letters.
    ///
    /// # Errors
    ///
    /// As `ListDeadLetters` lists them.
    pub async fn dead_letters_page(
        &self,
        request: ListDeadLettersRequest,
    ) -> Result<ListDeadLettersResponse, Error> {
        let page = self.client.admin_service().list_dead_letters(request).await;
        let page = page.map_err(|status| self.client.error(status))?;
        Ok(page.into_inner())
    }

    /// Hands dead letters over again: those at `sequences`, or all of them.
    ///
    /// # Errors
    ///
    /// As `ReplayDeadLetters` lists them. Trying again is safe.
    pub async fn replay_dead_letters(
        &self,
        conversation: ConversationName,
        bot_id: impl Into<String>,
        sequences: Vec<u64>,
    ) -> Result<ReplayDeadLettersResponse, Error> {
        let request = ReplayDeadLettersRequest {
            conversation: Some(conversation),
            bot_id: bot_id.into(),
            sequences,
        };
        let mut service = self.client.admin_service();
        let replayed = service.replay_dead_letters(request).await;
        let replayed = replayed.map_err(|status| self.client.error(status))?;
        Ok(replayed.into_inner())
    }

    /// Removes dead letters: those at `sequences`, or all of them.
    ///
    /// # Errors
    ///
    /// As `DropDeadLetters` lists them. Trying again is safe.
    pub async fn drop_dead_letters(
        &self,
        conversation: ConversationName,
        bot_id: impl Into<String>,
        sequences: Vec<u64>,
    ) -> Result<DropDeadLettersResponse, Error> {
        let request = DropDeadLettersRequest {
            conversation: Some(conversation),
            bot_id: bot_id.into(),
            sequences,
        };
        let dropped = self.client.admin_service().drop_dead_letters(request).await;
        let dropped = dropped.map_err(|status| self.client.error(status))?;
        Ok(dropped.into_inner())
    }

    /// The sessions of bots and adapters.
    ///
    /// # Errors
    ///
    /// As `ListSessions` lists them.
    pub async fn sessions(&self) -> Result<ListSessionsResponse, Error> {
        let mut service = self.client.admin_service();
        let sessions = service.list_sessions(ListSessionsRequest {}).await;
        let sessions = sessions.map_err(|status| self.client.error(status))?;
        Ok(sessions.into_inner())
    }

    /// Erases a user of a channel, or some of them: to be called again until `done`.
    ///
    /// # Errors
    ///
    /// As `EraseUser` lists them. Trying again goes on where it was.
    pub async fn erase_user(
        &self,
        channel_id: impl Into<String>,
        user_id: impl Into<String>,
    ) -> Result<EraseUserResponse, Error> {
        let request = EraseUserRequest {
            channel_id: channel_id.into(),
            user_id: user_id.into(),
        };
        let erased = self.client.admin_service().erase_user(request).await;
        let erased = erased.map_err(|status| self.client.error(status))?;
        Ok(erased.into_inner())
    }
}

/// A backup on its way.
#[derive(Debug)]
pub struct Backup {
    client: Client,
    stream: tonic::Streaming<BackupResponse>,
    summary: Option<BackupSummary>,
}

impl Backup {
    /// The next bytes of the file; `None` once it is whole, and [`summary`](Self::summary) is there.
    ///
    /// # Errors
    ///
    /// As `Backup` lists them; [`Error::Protocol`] when it ends without being whole. What came until then
    /// is of no use.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.summary.is_none() {
            let response = self.stream.message().await;
            let response = response.map_err(|status| self.client.error(status))?;
            let response = response.ok_or(Error::Protocol("a backup without its summary"))?;
            match response.part {
                Some(Part::Chunk(chunk)) => return Ok(Some(chunk)),
                Some(Part::Summary(summary)) => self.summary = Some(summary),
                // Of a newer gateway.
                None => {}
            }
        }
        Ok(None)
    }

    /// What was in it, once all of it was read.
    #[must_use]
    pub fn summary(&self) -> Option<&BackupSummary> {
        self.summary.as_ref()
    }
}
