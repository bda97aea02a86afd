//! The generated code, included once.
//!
//! The messages of `turnwire.v1` are those of `turnwire-client`, so that the gateway, the command
//! line and users hold the same types. What the gateway adds is in [`server`] and [`storage`].

pub mod codec;

pub use turnwire_client::proto as v1;

/// Server stubs of `turnwire.v1`, and the responses that carry activities in encoded form.
#[allow(missing_docs, clippy::all, rustdoc::all, unreachable_pub)]
pub mod server {
    tonic::include_proto!("turnwire.v1");
}

/// The stored records of `turnwire.storage.v1`.
#[allow(missing_docs, clippy::all, rustdoc::all, unreachable_pub)]
pub mod storage {
    tonic::include_proto!("turnwire.storage.v1");
}

/// The encoded `FileDescriptorSet` of `turnwire.v1`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/turnwire_v1.fds"));
