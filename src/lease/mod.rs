//! Leases: a time to live that keys can be attached to; when it is over, they are deleted in one revision.
//!
//! Two parts, both pure:
//!
//! - [`Book`] is replicated: which leases there are, their TTLs, what is attached to them. Only committed
//!   entries change it, so it is the same on each member, and no clock is in it.
//! - [`Expirer`] is the leader's alone and volatile: when each lease is over by the leader's clock. It never
//!   ends a lease; it names those whose revocation is to be proposed. A new leader builds one from the book as
//!   soon as it has applied an entry of its term, and gives each lease its whole (or checkpointed) TTL and an
//!   election timeout more, since it can't know when the one before it renewed last: a lease may live longer
//!   than asked for, never shorter.
//!
//! ```text
//!   entries ─► Book ── Applied.leases ─► Expirer ◄── renewals, time
//!     ▲                                     │
//!     └────────── LeaseRevoke ◄── due ──────┘
//! ```
//!
//! A renewal costs no log entry. That it is right rests on its caller: a renewal is answered only when the
//! member still was leader after it came in (a read barrier), so that no other leader can have revoked before.
//!
//! The minimum of a TTL depends on the proposer's election timeout ([`ttl_min`]); whoever proposes a grant
//! raises the TTL to it, so that each member applies the same. Left out: permission, the id that replaces 0.

mod book;
pub(crate) mod codec;
mod expirer;

pub use book::{Book, Lease};
pub use expirer::{Expirer, ExpirerConfig, Renewal};

/// The largest TTL in seconds; etcd's.
pub const TTL_MAX: i64 = 9_000_000_000;

/// The least TTL in whole seconds for an election timeout in milliseconds: one and a half of them, rounded up.
pub const fn ttl_min(election_timeout_ms: u64) -> i64 {
    (election_timeout_ms * 3).div_ceil(2).div_ceil(1000) as i64
}
