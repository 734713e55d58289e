//! Raft as a pure state machine.

mod api;
mod core;
mod message;

pub use self::core::Raft;
pub use api::*;
pub use message::*;
