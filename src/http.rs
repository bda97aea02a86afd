//! The HTTP paths beside gRPC, on the same listener.

mod direct_line;
mod ops;
mod page;
mod unknown;

use axum::Router;
use axum::middleware;
use axum::routing::{any, get, post};

use crate::channel::direct_line::{BASE, DirectLine};
use crate::engine::Engine;

/// Every path on one page: these, and whatever `grpc` serves. The chat page is only for a gateway to
/// try things with.
pub fn routes(engine: Engine, line: DirectLine, grpc: Router, has_page: bool) -> Router {
    let http = Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .with_state(engine);
    let page = if has_page {
        page::routes()
    } else {
        Router::new()
    };
    let base = any(direct_line::problem::unknown_operation).layer(direct_line::cors());
    http.nest(BASE, direct_line(line))
        // The one path below the base that is not nested with it.
        .route(&format!("{BASE}/"), base)
        .merge(page)
        .merge(grpc)
        .fallback(unknown::path)
}

/// The operations of Direct Line 3.0, under its base.
fn direct_line(line: DirectLine) -> Router {
    use direct_line::{
        activities, attachments, body, conversations, problem, session, stream, tokens, upload,
    };
    Router::new()
        .route("/tokens/generate", post(tokens::generate))
        .route("/tokens/refresh", post(tokens::refresh))
        .route("/conversations", post(conversations::start))
        .route("/conversations/{id}", get(conversations::reconnect))
        .route(
            "/conversations/{id}/activities",
            get(activities::history).post(activities::post),
        )
        .route("/conversations/{id}/upload", post(upload::upload))
        .route("/conversations/{id}/stream", get(stream::open))
        .route("/attachments/{id}/{name}", get(attachments::read))
        .route("/session/getsessionid", get(session::id))
        .fallback(problem::unknown_operation)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(middleware::from_fn_with_state(line.clone(), body::hold))
        .layer(middleware::from_fn_with_state(line.clone(), problem::count))
        .layer(direct_line::cors())
        .with_state(line)
}
