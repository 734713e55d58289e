//! Kontiki's simulator: the shipped machines under seeded time, network, disk and crashes.
//!
//! So far it boots the whole server on madsim ([`whole`]); the event loop for the bulk of the seeds, the
//! nemesis, the workloads and the oracles come on top of the same seams.

pub mod check;
pub mod history;
#[cfg(madsim)]
pub mod whole;
