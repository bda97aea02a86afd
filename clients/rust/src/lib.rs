//! The Rust client of the Turnwire conversation gateway.

pub mod proto;
