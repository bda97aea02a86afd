//! `turnwire.v1.AdminService`: looking after a gateway.

mod backup;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::access::{answered, caller, require};
use crate::engine::Engine;
use crate::files::Files;
use crate::proto::server::admin_service_server::AdminService;
use crate::proto::v1;
use crate::status::Failure;

/// The service.
pub(super) struct Service {
    engine: Engine,
    files: Files,
    /// Places for backups.
    backups: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(engine: Engine, files: Files) -> Self {
        let backups = Arc::new(Semaphore::new(engine.limits().backups));
        Self {
            engine,
            files,
            backups,
        }
    }
}

/// Lets nobody in but those who look after the gateway.
fn admin<T>(request: &Request<T>) -> Result<(), Failure> {
    let caller = caller(request)?;
    require(caller.may_administer(), &caller, "`admin`")
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
}
