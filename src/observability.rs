//! What the gateway tells its operators: logs on standard error, and metrics to be scraped.
//!
//! Ids, counts and times only: never the text of a message, never a token.

pub mod logs;
pub mod metrics;
