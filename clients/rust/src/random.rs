//! Chance: what spreads clients over time and tells their processes apart. Nothing is decided by
//! it that a test would want to repeat.
#![expect(
    clippy::disallowed_methods,
    reason = "a client runs in its user's process, where there is nothing to hand randomness in"
)]

/// A number from 0 to 1.
pub(crate) fn fraction() -> f64 {
    rand::random()
}

/// An id for this process of a bot or an adapter.
pub(crate) fn instance_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}
