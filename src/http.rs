//! The HTTP paths beside gRPC, on the same listener.

mod ops;
mod unknown;

use axum::Router;
use axum::routing::get;

use crate::engine::Engine;

/// Every path on one page: these, and whatever `grpc` serves.
pub fn routes(engine: Engine, grpc: Router) -> Router {
    let http = Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .with_state(engine);
    http.merge(grpc).fallback(unknown::path)
}
