//! What an activity is: the rules over the protobuf model.

pub mod json;
pub mod kind;
pub mod timestamp;

pub use kind::Kind;
