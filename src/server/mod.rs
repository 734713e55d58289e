//! The shells: what moves values between clients, peers, disks and the pure machines.

mod handle;

pub use handle::*;
