//! Who calls: every call of every service passes here before anything else.

use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::{Request, Response, Status};

use crate::auth::{self, Authenticator, Principal};
use crate::engine::Engine;
use crate::status::Failure;

/// Names the caller of each request, or refuses it.
#[derive(Clone)]
pub(super) struct Check {
    engine: Engine,
    authenticator: Arc<Authenticator>,
}

impl Check {
    pub(super) fn new(engine: Engine, authenticator: Arc<Authenticator>) -> Self {
        Self {
            engine,
            authenticator,
        }
    }

    fn principal(&self, request: &Request<()>) -> Result<Arc<Principal>, Failure> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization
            .map(|value| value.to_str().map_err(|_| auth::Error::TokenUnknown))
            .transpose()?;
        Ok(self.authenticator.authenticate(authorization)?)
    }
}

impl Interceptor for Check {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let principal = refused(&self.engine, self.principal(&request))?;
        request.extensions_mut().insert(principal);
        Ok(request)
    }
}

/// The caller of a request that has passed the check.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Arc<Principal>, Failure> {
    let principal = request.extensions().get::<Arc<Principal>>();
    // Absent only if a service was mounted without the check: then nobody may call it.
    principal
        .cloned()
        .ok_or(Failure::Auth(auth::Error::TokenMissing))
}

/// Refuses a caller without one of the roles it `needs`.
pub(super) fn require(allowed: bool, principal: &Principal, needs: &str) -> Result<(), Failure> {
    if allowed {
        return Ok(());
    }
    Err(Failure::RoleMissing {
        principal: principal.name().to_owned(),
        needs: needs.to_owned(),
    })
}

/// Ends a call, and counts it if it was refused.
pub(super) fn answered<T>(
    engine: &Engine,
    answer: Result<T, Failure>,
) -> Result<Response<T>, Status> {
    refused(engine, answer).map(Response::new)
}

/// Counts a refusal.
fn refused<T>(engine: &Engine, result: Result<T, Failure>) -> Result<T, Status> {
    result.map_err(|failure| {
        engine.metrics().rpc_error(failure.row().reason);
        failure.into()
    })
}
