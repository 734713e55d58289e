//! Who votes, who learns, and what a quorum of them is.

mod change;
mod config;
mod quorum;
mod roster;

pub use change::*;
pub use config::*;
pub use quorum::*;
pub use roster::*;
