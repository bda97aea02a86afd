//! What a refusal looks like: `{"error":{"code","message"}}`, always (section 2).

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::activity::{self, validate};
use crate::channel::direct_line::{DirectLine, Error};
use crate::engine;
use crate::proto::v1;
use crate::status::Failure;

/// The stable reason of a refusal, for those that count.
#[derive(Clone, Copy, Debug)]
struct Reason(&'static str);

/// Counts refusals.
pub(crate) async fn count(
    State(line): State<DirectLine>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if let Some(Reason(reason)) = response.extensions().get() {
        line.engine().metrics().direct_line_error(reason);
    }
    response
}

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Problem(Error);

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
        let code = code(&self.0);
        // What follows on this connection is the rest of the body.
        let leaves_body = matches!(self.0, Error::BodyTooLarge { .. } | Error::BodyTimeout(_));
        let failure = Failure::DirectLine(self.0);
        failure.note();
        let row = failure.row();
        let status = StatusCode::from_u16(row.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({"error": {"code": code, "message": failure.message()}});
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(Reason(row.reason));
        if leaves_body {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if row.retry == v1::Retry::Later {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

/// The documented code (section 7). Those are few, and clients look at the status only; the message
/// says which rule it is.
fn code(error: &Error) -> &'static str {
    match error {
        Error::CredentialMissing => "Unauthorized",
        Error::TokenExpired => "TokenExpired",
        Error::CredentialUnknown
        | Error::SecretNeeded
        | Error::TokenNeeded
        | Error::ConversationForeign
        | Error::OriginUntrusted
        | Error::StreamUrlExpired => "Forbidden",
        Error::PropertyMissing(_) => "MissingProperty",
        Error::SyntaxBad(_) => "BadSyntax",
        Error::ArgumentBad { .. } | Error::KindRefused(_) | Error::MediaTypeUnsupported(_) => {
            "BadArgument"
        }
        Error::BodyTooLarge { .. } => "MessageSizeTooBig",
        Error::BodyTimeout(_) => "RequestTimeout",
        Error::AttachmentUnknown | Error::OperationUnknown => "NotFound",
        Error::MethodUnknown => "MethodNotAllowed",
        Error::Busy | Error::AttachmentsFailed(_) | Error::TooManyWatchers { .. } => "ServiceError",
        Error::Engine(error) => engine_code(error),
    }
}

fn engine_code(error: &engine::Error) -> &'static str {
    match error {
        engine::Error::Activity(activity::Error::Invalid(invalid)) => match invalid.problem {
            validate::Problem::Missing | validate::Problem::Empty => "MissingProperty",
            _ => "BadArgument",
        },
        engine::Error::Activity(activity::Error::TooLarge { .. }) => "MessageSizeTooBig",
        engine::Error::ConversationUnknown(_) => "NotFound",
        other if crate::status::row(other).http < 500 => "BadArgument",
        _ => "ServiceError",
    }
}

/// A path under the base that is none of the protocol's.
pub(crate) async fn unknown_operation() -> Problem {
    Error::OperationUnknown.into()
}

/// A path of the protocol's with another method.
pub(crate) async fn unknown_method() -> Problem {
    Error::MethodUnknown.into()
}
