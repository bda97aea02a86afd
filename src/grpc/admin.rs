//! `turnwire.v1.AdminService`: looking after a gateway.

mod backup;
mod letters;

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};
use tonic::{Request, Response, Status};

use super::access::{answered, caller, require};
use crate::activity::validate;
use crate::engine::{Deal, Engine};
use crate::files::Files;
use crate::id::ChannelId;
use crate::proto::server::ListDeadLettersResponse;
use crate::proto::server::admin_service_server::AdminService;
use crate::proto::v1;
use crate::status::Failure;

/// The service.
pub(super) struct Service {
    engine: Engine,
    files: Files,
    /// Places for backups.
    backups: Arc<Semaphore>,
    /// One user is erased at a time: shards do other work, too.
    erasing: Mutex<()>,
}

impl Service {
    pub(super) fn new(engine: Engine, files: Files) -> Self {
        let backups = Arc::new(Semaphore::new(engine.limits().backups));
        Self {
            engine,
            files,
            backups,
            erasing: Mutex::new(()),
        }
    }
}

/// Lets nobody in but those who look after the gateway.
fn admin<T>(request: &Request<T>) -> Result<(), Failure> {
    let caller = caller(request)?;
    require(caller.may_administer(), &caller, "`admin`")
}

/// Refuses what is no id.
fn check_id(field: &'static str, id: &str) -> Result<(), Failure> {
    validate::id(field, id).map_err(|problem| Failure::RequestInvalid {
        field,
        problem: format!("is invalid: {problem}"),
    })
}

#[tonic::async_trait]
impl AdminService for Service {
    type BackupStream = backup::Parts;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let answer = admin(&request).and_then(|()| self.begin_backup());
        answered(&self.engine, answer)
    }

    async fn erase_user(
        &self,
        request: Request<v1::EraseUserRequest>,
    ) -> Result<Response<v1::EraseUserResponse>, Status> {
        let answer = async {
            admin(&request)?;
            let v1::EraseUserRequest {
                channel_id,
                user_id,
            } = request.into_inner();
            check_id("channel_id", &channel_id)?;
            check_id("user_id", &user_id)?;
            let _turn = self.erasing.lock().await;
            let most = self.engine.limits().page;
            let channel = ChannelId::from(channel_id);
            let erased = self
                .engine
                .erase_user(&self.files, &channel, &user_id, most)
                .await?;
            Ok(v1::EraseUserResponse {
                done: erased.done,
                conversations: erased.conversations,
                activities: erased.activities,
                named_activities: erased.named,
                files: erased.files,
                documents: erased.documents,
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let answer = admin(&request).and_then(|()| self.letters(request.into_inner()));
        answered(&self.engine, answer)
    }

    async fn replay_dead_letters(
        &self,
        request: Request<v1::ReplayDeadLettersRequest>,
    ) -> Result<Response<v1::ReplayDeadLettersResponse>, Status> {
        let answer = async {
            admin(&request)?;
            let v1::ReplayDeadLettersRequest {
                conversation,
                bot_id,
                sequences,
            } = request.into_inner();
            let dealt = self
                .deal(conversation, bot_id, sequences, Deal::Replay)
                .await?;
            Ok(v1::ReplayDeadLettersResponse {
                count: dealt.count as u64,
                more: dealt.more,
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn drop_dead_letters(
        &self,
        request: Request<v1::DropDeadLettersRequest>,
    ) -> Result<Response<v1::DropDeadLettersResponse>, Status> {
        let answer = async {
            admin(&request)?;
            let v1::DropDeadLettersRequest {
                conversation,
                bot_id,
                sequences,
            } = request.into_inner();
            let dealt = self
                .deal(conversation, bot_id, sequences, Deal::Drop)
                .await?;
            Ok(v1::DropDeadLettersResponse {
                count: dealt.count as u64,
                more: dealt.more,
            })
        };
        answered(&self.engine, answer.await)
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let answer = async {
            admin(&request)?;
            let mut sessions = self.engine.list_sessions().await?;
            let most = self.engine.limits().page;
            let more = sessions.len() > most;
            sessions.truncate(most);
            Ok(v1::ListSessionsResponse {
                sessions: sessions.into_iter().map(letters::session).collect(),
                more,
            })
        };
        answered(&self.engine, answer.await)
    }
}
