//! The messages and client stubs of `turnwire.v1`, generated from `proto/turnwire/v1`.
#![allow(missing_docs, clippy::all, rustdoc::all, unreachable_pub)]

tonic::include_proto!("turnwire.v1");
