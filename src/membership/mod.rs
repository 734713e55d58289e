//! Who votes, who learns, and what a quorum of them is.

mod change;
mod config;
mod quorum;
mod roster;
mod roster_json;
mod roster_v2;
pub mod urls;

pub use change::*;
pub use config::*;
pub use quorum::*;
pub use roster::*;
