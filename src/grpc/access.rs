//! Who calls: every call of every service passes here before anything else.

use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::{Request, Response, Status};

use crate::auth::{self, Authenticator, Caller, Lost, Needs, Principal, Standing};
use crate::engine::Engine;
use crate::engine::session::Subscriber;
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

    fn admit(&self, request: &Request<()>) -> Result<Admitted, Failure> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization
            .map(|value| value.to_str().map_err(|_| auth::Error::TokenUnknown))
            .transpose()?;
        Ok(Admitted {
            caller: self.authenticator.authenticate(authorization)?,
            authenticator: Arc::clone(&self.authenticator),
        })
    }
}

impl Interceptor for Check {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let admitted = refused(&self.engine, self.admit(&request))?;
        request.extensions_mut().insert(admitted);
        Ok(request)
    }
}

/// A caller that has passed the check, and who to ask whether it still would.
#[derive(Clone)]
pub(super) struct Admitted {
    caller: Caller,
    authenticator: Arc<Authenticator>,
}

impl Admitted {
    /// Who it is.
    pub(super) fn principal(&self) -> &Principal {
        &self.caller.principal
    }

    /// Lets the caller of a stream go on for as long as it may be whose session it has.
    pub(super) fn stand(&self, session: &Subscriber) -> Result<Standing, Failure> {
        self.stand_for(match session {
            Subscriber::Bot(bot) => Needs::to_be_bot(bot.clone()),
            Subscriber::Egress(channel) => Needs::to_use_channel(channel.clone()),
        })
    }

    /// Lets the caller go on for as long as it has what it needs.
    pub(super) fn stand_for(&self, needs: Needs) -> Result<Standing, Failure> {
        Ok(Standing::new(&self.authenticator, &self.caller, needs)?)
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Token(error) => Self::Auth(error),
            Lost::Role { principal, needs } => Self::RoleMissing { principal, needs },
        }
    }
}

/// The caller of a request that has passed the check.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Arc<Principal>, Failure> {
    Ok(admitted(request)?.caller.principal)
}

/// The same, of a request that goes on for longer than principals may last.
pub(super) fn admitted<T>(request: &Request<T>) -> Result<Admitted, Failure> {
    let admitted = request.extensions().get::<Admitted>();
    // Absent only if a service was mounted without the check: then nobody may call it.
    admitted
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
