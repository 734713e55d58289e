//! Three members on one machine, killed with `SIGKILL` at any moment, under clients that write through all of them.
//!
//! What must hold: each acknowledged write is there, at its revision; the members agree; a watch from the first
//! revision on, resumed after each crash, sees each event once and in order; leases that are kept alive stay, others
//! end. Short by default; `KONTIKI_KILL9_SECONDS` makes each storm longer, `KONTIKI_KILL9_SEED` repeats its draws, and
//! `KONTIKI_KILL9_PORTS` says where its ports begin. The simulator's oracles judge what clients saw, too;
//! `KONTIKI_KILL9_HISTORY=PREFIX` keeps it in files for `sim check`.

// These are processes, clocks and files in earnest.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, missing_docs)]

mod chaos;
#[path = "../../sim/src/check/mod.rs"]
#[allow(dead_code, reason = "the simulator's")]
mod check;
mod clients;
mod cluster;
mod doctor;
mod faults;
#[path = "../../sim/src/history/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the simulator's")]
mod history;
mod look;
mod members;
mod net;
mod record;
mod seen;
mod storm;
mod verify;
mod work;
