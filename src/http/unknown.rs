//! Paths that are not served.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Answers each caller in the terms of its protocol: gRPC expects HTTP status 200 and a code of its
/// own in a header, everyone else a 404.
pub(super) async fn path(request: Request) -> Response {
    const UNIMPLEMENTED: &str = "12";
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let speaks_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if content_type.is_some_and(speaks_grpc) {
        let headers = [
            ("content-type", "application/grpc"),
            ("grpc-status", UNIMPLEMENTED),
        ];
        return headers.into_response();
    }
    (StatusCode::NOT_FOUND, "no such path\n").into_response()
}
