//! What an activity is: the rules over the protobuf model.
//!
//! The generated [`Activity`](crate::proto::v1::Activity) is the model, there is no second one. JSON
//! becomes an activity in [`json`]; an activity that is to be appended passes [`validate`].

pub mod kind;

pub mod json;
pub mod timestamp;

pub mod validate;

pub mod outline;
pub mod reference;

pub use kind::Kind;
pub use outline::Outline;
pub use validate::{Error, Invalid};
