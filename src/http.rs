//! The HTTP paths beside gRPC, on the same listener.

mod ops;

use axum::Router;
use axum::routing::get;

use crate::engine::Engine;

/// Every path on one page.
pub fn routes(engine: Engine) -> Router {
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .with_state(engine)
}
