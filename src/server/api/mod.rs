//! etcd's gRPC API: thin async handlers between tonic and a running member.
//!
//! A handler checks what can be checked without state, in etcd's order, turns the message into our own
//! types, asks the [`Member`], and turns the answer back. It decides nothing that replicas must agree on.
//!
//! ```text
//!   bytes ──tonic──► admit (learner, hasleader) ──► check (keys, sizes, duplicates) ──► Member ──► message
//!                         └────────────── Refusal ──► status (error.rs, the only place) ◄──┘
//! ```
//!
//! Invariants:
//! - a refusal becomes a gRPC status in `error.rs` alone, with etcd's code and text;
//! - what a handler does for a client it does through a [`client::Client`], which knows who asks: nothing reaches
//!   the member around the checks of `auth`;
//! - stored key-values go into responses as the bytes they are;
//! - no lock is held across an await, and a stream that its client dropped ends its work.
//!
//! Left out: TLS and the listeners, which the boot code owns.

mod admit;
mod auth;
mod budget;
mod client;
mod cluster;
mod convert;
#[cfg(not(madsim))]
mod edge;
mod election;
mod error;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod member;
mod quota;
mod turns;
mod urls;
mod version;
mod watch;

pub use budget::Charge;
pub use client::CommonName;
#[cfg(not(madsim))]
pub use edge::*;
pub use member::*;
pub use watch::*;

use std::sync::Arc;

use budget::Budget;

/// All of etcd's services, for one member.
#[derive(Clone, Debug)]
pub struct Api<M> {
    member: M,
    budget: Arc<Budget>,
}

impl<M: Member> Api<M> {
    /// The services of `member`.
    pub fn new(member: M) -> Self {
        let budget = Budget::new(member.limits().range_bytes_max);
        Self { member, budget }
    }
}
