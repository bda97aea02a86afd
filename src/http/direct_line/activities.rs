//! Reading a conversation page by page, and posting to it (sections 2.5 and 2.6).

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde_json::{Value, json};

use super::body;
use super::call::{Call, ConversationId, Query};
use super::problem::Problem;
use crate::channel::direct_line::{ActivitySet, DirectLine, Error};

/// `GET /conversations/{id}/activities?watermark=`: what came after the watermark.
pub(crate) async fn history(
    State(line): State<DirectLine>,
    call: Call,
    ConversationId(id): ConversationId,
    query: Query,
) -> Result<Json<ActivitySet>, Problem> {
    let watermark = query.get("watermark");
    Ok(Json(line.history(&call.caller, &id, watermark).await?))
}

/// `POST /conversations/{id}/activities`: answered as soon as the activity is stored.
pub(crate) async fn post(
    State(line): State<DirectLine>,
    call: Call,
    ConversationId(id): ConversationId,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let body = body::read(&line, body).await?;
    let activity: Value =
        serde_json::from_slice(&body.bytes).map_err(|error| Error::SyntaxBad(error.to_string()))?;
    let id = line.post(&call.caller, &id, activity).await?;
    Ok(Json(json!({ "id": id })))
}
