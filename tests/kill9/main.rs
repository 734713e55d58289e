//! Three members on one machine, killed with `SIGKILL` at any moment, under clients that write through all of them.
//!
//! What must hold: each acknowledged write is there, at its revision; the members agree; a watch from the first
//! revision on, resumed after each crash, sees each event once and in order; leases that are kept alive stay, others
//! end. Short by default; `KONTIKI_KILL9_SECONDS` makes each storm longer, `KONTIKI_KILL9_SEED` repeats its draws, and
//! `KONTIKI_KILL9_PORTS` says where its ports begin.

// These are processes, clocks and files in earnest.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, missing_docs)]

mod clients;
mod cluster;
mod members;
mod seen;
mod storm;
mod verify;
