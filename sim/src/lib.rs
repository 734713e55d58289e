//! Kontiki's simulator: the shipped server under seeded time, network, disks and crashes.
//!
//! ```text
//!   seed ─▶ swarm ─▶ Plan ─▶ run ─▶ History, trace ─▶ check ─▶ Verdict
//!                             │
//!              nemesis, workload ─▶ World: members, disks, clocks, Net
//!                                     │
//!                                   Host: storm (an event loop of our own) or whole (madsim)
//! ```
//!
//! Invariant: a run is a function of its plan. What could leak into it from outside is listed in [`leaks`].

pub mod backend;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod coverage;
pub mod history;
pub mod host;
pub mod leaks;
pub mod lock;
pub mod moments;
pub mod mood;
pub mod nemesis;
pub mod net;
pub mod panics;
pub mod plan;
pub mod probe;
pub mod report;
pub mod rng;
pub mod rule;
pub mod run;
pub mod runtime;
pub mod rush;
pub mod sessions;
pub mod shrink;
pub mod storm;
pub mod stream;
pub mod swarm;
#[cfg(madsim)]
pub mod whole;
pub mod workload;
pub mod world;
pub mod zoo;
