//! What an activity is: the rules over the protobuf model.
//!
//! The generated [`Activity`](crate::proto::v1::Activity) is the model, there is no second one. JSON
//! becomes an activity in [`json`]; an activity that is to be appended passes [`validate`] and
//! becomes a [`Draft`]; the log's writer turns that into bytes, which are handed on as they are.

pub mod kind;

pub mod json;
pub mod timestamp;

pub mod draft;
pub mod erase;
pub mod validate;

pub mod streaminfo;

pub mod outline;
pub mod reference;

pub use draft::{Draft, Stamp, inbound, outbound};
pub use kind::Kind;
pub use outline::Outline;
pub use streaminfo::StreamInfo;
pub use validate::{Error, Invalid};
