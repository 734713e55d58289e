//! What committed entries do.

mod command;

pub use command::*;
