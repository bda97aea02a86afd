//! Turnwire, a self-hosted conversation gateway: the map of its modules, in reading order.
//!
//! Dependencies point upwards in this list only; `tests/layers.rs` checks it.

pub mod proto;

pub mod capacity;
pub mod clock;
pub mod id;
pub mod limits;
pub mod metrics;
pub mod random;

pub mod activity;
pub mod files;
pub mod store;

pub mod backup;
pub mod engine;

pub mod auth;
pub mod channel;
pub mod status;

pub mod grpc;
pub mod http;

pub mod config;
pub mod observability;
pub mod server;

pub mod cli;
