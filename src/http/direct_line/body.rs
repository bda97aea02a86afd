//! Bodies, bounded in size and time, and all of them together.

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;

use super::problem::Problem;
use crate::channel::direct_line::{DirectLine, Error};

/// How much memory a request takes while it is worked on, as JSON and as an activity, for each of its
/// bytes.
const TIMES: usize = 4;
/// How much is read of a body that is too large, and forgotten: who is still sending when the
/// connection ends may not hear the answer.
const FORGOTTEN_BYTES: usize = 8 << 20;
/// Answers of less need no room: they are bounded by the connections and calls there may be.
const SMALL_BYTES: usize = 16 << 10;

/// A body that was read, and its room.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    _room: crate::capacity::Share,
}

/// Reads a body of at most as many bytes as an activity may have.
///
/// # Errors
///
/// [`Error::BodyTooLarge`]; [`Error::BodyTimeout`]; [`Error::Busy`]; [`Error::ArgumentBad`] when it
/// breaks off.
pub(crate) async fn read(line: &DirectLine, body: Body) -> Result<Read, Error> {
    let limits = line.engine().limits();
    let allowed = limits.activity_bytes;
    let too_large = || Error::BodyTooLarge {
        limit: "activity_bytes",
        allowed,
    };
    // One that does not say its length may have any.
    let most = body
        .size_hint()
        .exact()
        .map_or(allowed, |bytes| (bytes as usize).min(allowed));
    let room = line.room_to_read(most.saturating_mul(TIMES)).await?;
    let clock = line.engine().clock();
    let deadline = clock.now().after(limits.body_timeout);
    let bytes = tokio::select! {
        read = collect(body, allowed) => read?.ok_or_else(too_large)?,
        () = clock.sleep_until(deadline) => return Err(Error::BodyTimeout(limits.body_timeout)),
    };
    Ok(Read { bytes, _room: room })
}

/// `None` when there are more bytes than allowed.
async fn collect(mut body: Body, allowed: usize) -> Result<Option<Bytes>, Error> {
    let mut read = Vec::new();
    let (mut is_too_large, mut forgotten) = (body.size_hint().lower() > allowed as u64, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::bad("body", format!("broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        is_too_large |= read.len() + data.len() > allowed;
        if !is_too_large {
            read.extend_from_slice(&data);
            continue;
        }
        read = Vec::new();
        forgotten += data.len();
        if forgotten > FORGOTTEN_BYTES {
            break;
        }
    }
    Ok((!is_too_large).then(|| read.into()))
}

/// Gives a large answer room until its client has read it. And says of all that they are for their
/// caller alone, who may find a token in them.
pub(crate) async fn hold(State(line): State<DirectLine>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    // Files are not held in memory, and do not say how long they are.
    let bytes = response.body().size_hint().exact().unwrap_or_default() as usize;
    if bytes < SMALL_BYTES {
        return response;
    }
    match line.room_to_write(bytes).await {
        Ok(room) => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // It goes with the body.
                let _ = &room;
                frame
            }))
        }),
        Err(busy) => Problem::from(busy).into_response(),
    }
}
