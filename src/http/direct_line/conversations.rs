//! Starting a conversation, and coming back to it (sections 2.3 and 2.4).

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;

use super::body;
use super::call::{Call, ConversationId, Query};
use super::problem::Problem;
use crate::channel::direct_line::{Conversation, DirectLine, Parameters};

/// `POST /conversations`: 201 when it was started now, 200 when it had been.
pub(crate) async fn start(
    State(line): State<DirectLine>,
    call: Call,
    body: Body,
) -> Result<(StatusCode, Json<Conversation>), Problem> {
    let parameters = Parameters::read(&body::read(&line, body).await?.bytes)?;
    let (is_new, conversation) = line.start(&call.caller, &parameters, &call.base).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(conversation)))
}

/// `GET /conversations/{id}?watermark=`: a token and a stream to go on with.
pub(crate) async fn reconnect(
    State(line): State<DirectLine>,
    call: Call,
    ConversationId(id): ConversationId,
    query: Query,
) -> Result<Json<Conversation>, Problem> {
    let watermark = query.get("watermark");
    let conversation = line
        .reconnect(&call.caller, &id, watermark, &call.base)
        .await?;
    Ok(Json(conversation))
}
