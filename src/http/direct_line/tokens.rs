//! Making tokens, and making them good for longer (sections 2.1 and 2.2).

use axum::Json;
use axum::body::Body;
use axum::extract::State;

use super::body;
use super::call::Call;
use super::problem::Problem;
use crate::channel::direct_line::{DirectLine, Grant, Parameters};

/// `POST /tokens/generate`: a token for a conversation that is not started yet.
pub(crate) async fn generate(
    State(line): State<DirectLine>,
    call: Call,
    body: Body,
) -> Result<Json<Grant>, Problem> {
    let parameters = Parameters::read(&body::read(&line, body).await?.bytes)?;
    Ok(Json(line.generate(&call.caller, &parameters)?))
}

/// `POST /tokens/refresh`: the same for longer. A body says nothing, and is not read.
pub(crate) async fn refresh(
    State(line): State<DirectLine>,
    call: Call,
) -> Result<Json<Grant>, Problem> {
    Ok(Json(line.refresh(&call.caller)?))
}
