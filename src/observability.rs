//! What the gateway tells its operators beside `metrics`: logs on standard error.
//!
//! Ids, counts and times only: never the text of a message, never a token.

pub mod logs;
