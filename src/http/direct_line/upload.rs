//! `POST /conversations/{id}/upload?userId=`: files, as one body or in parts (section 2.7).

mod source;

use std::future::Future;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::{Value, json};

use super::call::{Call, ConversationId, Query, text};
use super::disposition;
use super::problem::Problem;
use crate::channel::direct_line::{DirectLine, Error, Upload};

use source::Source;

/// What boundaries and headers of a part may have at most, in bytes.
const PART_BYTES: usize = 16 << 10;

/// How the files come.
enum Form {
    /// In parts, between which this stands.
    Parts { boundary: String },
    /// As the body itself.
    Single { content_type: String },
}

/// Takes files and the activity that they belong to. Who calls, and to which conversation, is looked
/// at before the first byte is read.
pub(crate) async fn upload(
    State(line): State<DirectLine>,
    call: Call,
    ConversationId(id): ConversationId,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let upload = line.begin_upload(&call.caller, &id, &call.base);
    let mut upload = upload.await?;
    let form = form(&headers)?;
    let user_id = query.get("userId");
    let source = Source::new(body);
    let taken = match check_size(&line, &headers, &form) {
        Ok(()) => match &form {
            Form::Parts { boundary } => parts(&line, &mut upload, &source, boundary).await,
            Form::Single { content_type } => {
                single(&line, &mut upload, &source, &headers, content_type).await
            }
        },
        Err(error) => Err(error),
    };
    if let Err(error) = taken {
        drop(upload);
        // One who is still sending does not hear the answer. Who asked first has sent nothing.
        let goes_on = !matches!(error, Error::BodyTimeout(_));
        if goes_on && !headers.contains_key(header::EXPECT) {
            let rest = source.drain(line.engine().limits().attachment_bytes);
            // Whatever comes of it, this is the answer.
            let _ = in_time(&line, rest).await;
        }
        return Err(error.into());
    }
    let id = upload.finish(user_id).await?;
    Ok(Json(json!({ "id": id })))
}

/// Which form it is, by `Content-Type`.
fn form(headers: &HeaderMap) -> Result<Form, Error> {
    const REFUSED: [&str; 2] = [
        // An activity alone has no files, and goes to `activities`.
        "application/vnd.microsoft.activity",
        // What tools say that were not told.
        "application/x-www-form-urlencoded",
    ];
    let wrong = || {
        Error::MediaTypeUnsupported("send `multipart/form-data`, or one file with the type it has")
    };
    let content_type = text(headers, header::CONTENT_TYPE).ok_or_else(wrong)?;
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    if essence == "multipart/form-data" {
        let boundary = multer::parse_boundary(content_type);
        let boundary = boundary.map_err(|_| bad("has no boundary in its `Content-Type`"))?;
        return Ok(Form::Parts { boundary });
    }
    let is_type = essence
        .split_once('/')
        .is_some_and(|(main, sub)| !main.is_empty() && !sub.is_empty() && main != "multipart");
    if !is_type || REFUSED.contains(&essence.as_str()) {
        return Err(wrong());
    }
    Ok(Form::Single {
        content_type: content_type.to_owned(),
    })
}

/// Refuses at once what says that it is too large.
fn check_size(line: &DirectLine, headers: &HeaderMap, form: &Form) -> Result<(), Error> {
    let allowed = line.engine().limits().attachment_bytes;
    let most = match form {
        Form::Parts { .. } => whole(line),
        Form::Single { .. } => allowed as u64,
    };
    let length = text(headers, header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(too_large(allowed));
    }
    Ok(())
}

/// The most bytes of an upload in parts, with all that is not file.
fn whole(line: &DirectLine) -> u64 {
    let limits = line.engine().limits();
    let parts = (limits.attachment_files + 2).saturating_mul(PART_BYTES);
    let bytes = limits
        .attachment_bytes
        .saturating_add(limits.activity_bytes);
    bytes.saturating_add(parts) as u64
}

async fn single(
    line: &DirectLine,
    upload: &mut Upload<'_>,
    source: &Source,
    headers: &HeaderMap,
    content_type: &str,
) -> Result<(), Error> {
    let mut body = source.stream();
    let mut is_begun = false;
    while let Some(data) = in_time(line, body.next()).await? {
        let data = data.map_err(broken_off)?;
        source.taken();
        if data.is_empty() {
            continue;
        }
        if !is_begun {
            let name = headers.get(header::CONTENT_DISPOSITION);
            let name = name.and_then(|name| disposition::file_name(name.as_bytes()));
            upload
                .begin_part(Some(content_type), name.as_deref())
                .await?;
            is_begun = true;
        }
        upload.write(&data).await?;
    }
    if !is_begun {
        return Err(bad("is empty"));
    }
    upload.end_part().await
}

async fn parts(
    line: &DirectLine,
    upload: &mut Upload<'_>,
    source: &Source,
    boundary: &str,
) -> Result<(), Error> {
    let limit = SizeLimit::new().whole_stream(whole(line));
    let constraints = Constraints::new().size_limit(limit);
    let mut parts = Multipart::with_constraints(source.stream(), boundary, constraints);
    while let Some(part) = in_time(line, parts.next_field())
        .await?
        .map_err(|e| refused(line, e))?
    {
        source.taken();
        take_part(line, upload, source, part).await?;
    }
    drop(parts);
    // What stands behind the last part says nothing, and its connection can go on.
    let rest = source.drain(PART_BYTES);
    in_time(line, rest).await
}

async fn take_part(
    line: &DirectLine,
    upload: &mut Upload<'_>,
    source: &Source,
    mut part: Field<'_>,
) -> Result<(), Error> {
    let content_type = text(part.headers(), header::CONTENT_TYPE);
    let name = part.headers().get(header::CONTENT_DISPOSITION);
    let name = name.and_then(|name| disposition::file_name(name.as_bytes()));
    upload.begin_part(content_type, name.as_deref()).await?;
    while let Some(data) = in_time(line, part.chunk())
        .await?
        .map_err(|e| refused(line, e))?
    {
        source.taken();
        upload.write(&data).await?;
    }
    upload.end_part().await
}

/// Waits for the client, but not for ever.
async fn in_time<T>(line: &DirectLine, future: impl Future<Output = T>) -> Result<T, Error> {
    let clock = line.engine().clock();
    let timeout = line.engine().limits().body_timeout;
    tokio::select! {
        biased;
        done = future => Ok(done),
        () = clock.sleep_until(clock.now().after(timeout)) => Err(Error::BodyTimeout(timeout)),
    }
}

fn refused(line: &DirectLine, error: multer::Error) -> Error {
    match error {
        multer::Error::StreamSizeExceeded { .. } => {
            too_large(line.engine().limits().attachment_bytes)
        }
        multer::Error::StreamReadFailed(error) => broken_off(error),
        other => bad(format!("cannot be read: {other}")),
    }
}

fn too_large(allowed: usize) -> Error {
    Error::BodyTooLarge {
        limit: "attachment_bytes",
        allowed,
    }
}

fn broken_off(error: impl std::fmt::Display) -> Error {
    bad(format!("broke off: {error}"))
}

fn bad(problem: impl Into<String>) -> Error {
    Error::bad("upload", problem.into())
}
