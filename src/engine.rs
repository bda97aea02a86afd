//! The engine: conversations, deliveries and sessions, without any transport.

pub mod limits;
