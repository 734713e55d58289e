//! The whole server on madsim: its tasks, time and network, our disk and backend.
//!
//! A member's messages travel encoded, as they do in production. What its disk had not made durable may be lost
//! when it crashes, and its backend keeps a prefix of its batches.

mod cluster;
mod net;
mod runtime;

pub use cluster::Cluster;
pub use net::SimPeers;
pub use runtime::{SimClock, SimEntropy, SimRuntime};
