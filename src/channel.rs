//! Channels: the rules of the outside protocols that users come in by, without their sockets.

pub mod direct_line;
