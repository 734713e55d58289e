//! The shells: what moves values between clients, peers, disks and the pure machines.
//!
//! [`start`] boots a member on any [`Runtime`](crate::runtime::Runtime) and hands out its [`Handle`]. Around it, in
//! production, [`serve`] puts listeners, links and signals.
//!
//! ```text
//!            api, http, peer port ── Handle ──▶ driver ── node
//!                    ▲                 ▲          │  │
//!        frames      │      replies    │          │  └▶ log worker ── WAL, snapshot files
//!          hub ◀─────┼──── events ── applier ◀────┘
//!                    └──── reads ──▶ store           keeper: flushes, snapshots, backups
//! ```
//!
//! Invariants: a worker that met a fault does nothing more and the member stops; nothing here decides what another
//! replica would have to decide alike.

pub mod api;
mod applier;
mod boot;
pub mod config;
mod driver;
mod duties;
mod exit;
mod frames_file;
pub mod go_duration;
mod handle;
mod hub;
mod index_file;
mod keeper;
mod log;
mod member;
mod options;
mod paths;
mod run;
mod sessions;
mod shared;
mod snapshot;
// Only production shows what is counted.
#[cfg_attr(any(madsim, fuzzing), allow(dead_code))]
mod stats;
mod tuning;

#[cfg(not(madsim))]
#[doc(hidden)]
pub use authority::repair_authority;
pub use exit::Exit;
pub use handle::*;
pub use member::Handle;
pub use options::Options;
pub use paths::Paths;
pub use run::{Running, start};
pub use sessions::{Bcrypt, PasswordHasher, TokenSigner};
pub use tuning::Tuning;

#[cfg(not(madsim))]
mod authority;
#[cfg(not(any(madsim, fuzzing)))]
mod feed;
#[cfg(not(madsim))]
pub mod http;
#[cfg(not(any(madsim, fuzzing)))]
mod jwt;
#[cfg(not(madsim))]
pub mod listen;
#[cfg(not(madsim))]
pub mod metrics;
#[cfg(not(madsim))]
pub mod peer;
#[cfg(not(any(madsim, fuzzing)))]
mod serve;
#[cfg(not(any(madsim, fuzzing)))]
mod services;

#[cfg(not(any(madsim, fuzzing)))]
pub use serve::{Ended, serve};
