//! Raft as a pure state machine.

mod message;

pub use message::*;
