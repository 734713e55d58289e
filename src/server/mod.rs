//! The shells: what moves values between clients, peers, disks and the pure machines.

pub mod api;
pub mod config;
pub mod go_duration;
mod handle;

pub use handle::*;

#[cfg(not(madsim))]
pub mod http;
#[cfg(not(madsim))]
pub mod listen;
#[cfg(not(madsim))]
pub mod metrics;
#[cfg(not(madsim))]
pub mod peer;
