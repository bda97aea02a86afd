//! The sockets of Direct Line 3.0: one file for each kind of operation. The rules are in
//! `channel/direct_line`.

pub(super) mod activities;
pub(super) mod attachments;
pub(super) mod body;
mod call;
pub(super) mod conversations;
mod disposition;
pub(super) mod problem;
pub(super) mod session;
pub(super) mod stream;
pub(super) mod tokens;
pub(super) mod upload;

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may go by a preflight's answer.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// What browsers are told (section 4). The answer is open to every page, because a preflight does not
/// say which channel is meant; whether a page is trusted is looked at with each call.
pub(super) fn cors() -> CorsLayer {
    CorsLayer::new()
        // The origin itself and not `*`: `getsessionid` is called with cookies.
        .allow_origin(AllowOrigin::mirror_request())
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::OPTIONS])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("x-ms-bot-agent"),
            HeaderName::from_static("x-requested-with"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            header::ACCEPT_RANGES,
            header::CONTENT_DISPOSITION,
            header::CONTENT_RANGE,
            header::ETAG,
        ])
        .max_age(PREFLIGHT_AGE)
}
