//! Bots: programs that receive what users say and answer.
//!
//! [`Bot`] does all of the work over a stream: it runs a handler for each delivery, commits the
//! answers, keeps the session alive and goes on with it when its stream is lost. [`BotStream`] is the stream
//! itself, frame by frame.

mod builder;
mod comeback;
mod credit;
mod early;
mod ending;
mod link;
mod outbox;
mod session;
mod stream;
mod streaming;
mod turn;
mod work;

#[cfg(test)]
mod tests;

pub use builder::{Bot, BotBuilder};
pub use stream::{BotReceiver, BotSender, BotStream};
pub use streaming::ReplyStream;
pub use turn::{Reply, Turn, TurnError};

pub use crate::proto::subscribe_request::Frame as BotFrame;
pub use crate::proto::subscribe_response::Frame as GatewayFrame;
