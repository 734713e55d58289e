//! The shells: what moves values between clients, peers, disks and the pure machines.

pub mod api;
mod handle;

pub use handle::*;
