#![doc = include_str!("../README.md")]

pub mod proto;

mod activity;
pub mod backoff;
mod connect;
mod error;
pub mod frames;
mod random;

pub mod admin;
pub mod bot;
pub mod channel;
pub mod conversations;
pub mod state;

#[cfg(test)]
mod stage;

pub use connect::{Client, ClientOptions, Token};
pub use error::{Error, Refusal};

pub use tonic::Code;
