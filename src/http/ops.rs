//! What operators ask. Open to everyone who reaches the listener: it says nothing about
//! conversations.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use crate::engine::Engine;
use crate::metrics::CONTENT_TYPE;

/// `GET /healthz`: the process runs. Always 200.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 while the gateway takes work; 503 when the store failed its last write, or a
/// shutdown has begun.
pub(super) async fn readyz(State(engine): State<Engine>) -> (StatusCode, &'static str) {
    if engine.is_ready() {
        (StatusCode::OK, "ready\n")
    } else if engine.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store failed its last write; see the log\n",
        )
    }
}

/// `GET /metrics`: OpenMetrics text.
pub(super) async fn metrics(State(engine): State<Engine>) -> impl IntoResponse {
    engine.gauge();
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        engine.metrics().encode(),
    )
}
