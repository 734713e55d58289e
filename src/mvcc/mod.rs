//! Multi-version keys and values: every change of every key since the last compaction, by revision.
//!
//! ```text
//!  committed entries                                  readers
//!        │ Writer: put, delete, txn, compact             ▲ range, txn_readonly, events, hash_kv
//!        ▼                                               │ at or below the published revision
//!   index (key ─► newest state, older revisions) ────────┤
//!        │ Batch                                         │ bytes that are not in memory
//!        ▼                                               │
//!   table `Rev` (revision ─► encoded key-value) ─────────┘
//!        ▲
//!        └ compact_step: deletions
//! ```
//!
//! A group of entries is applied, its batch written, then [`Store::publish`] called. What holds:
//!
//! - A reader sees whole revisions, and only published ones; what it reads is of one moment, although it
//!   holds the index's lock for one chunk at a time.
//! - A request takes effect whole or not at all, and then adds exactly one revision.
//! - The same entries fill the same batches on every member: nothing here looks at clocks, caches, pins or how
//!   far the physical compaction is to decide what an entry does.
//! - Reads at or above the revision compacted to see what they saw before the compaction.
//! - Stored bytes are copied into responses as they are.
//! - The index is a function of the table and the two compaction marks; a checkpoint of it only saves the reading.
//!   Revisions never go back.
//!
//! Not here: who may read or write (`auth`), lease lifetimes (`lease`), who hears of events (`watch`), when to
//! compact, and the quota.

mod check;
mod checkpoint;
mod compact;
mod hash;
mod history;
mod index;
mod range;
mod request;
mod store;
mod txn;
mod values;
mod write;

use bytes::Bytes;

use crate::{
    error::{Fault, Refusal},
    types::LeaseId,
};

pub use check::{check_delete, check_put, check_range, check_txn};
pub use checkpoint::{CHECKPOINT_KEY, CheckpointName, Cut, Overtaken, Unusable};
pub use hash::Hash;
pub use history::History;
pub use range::{RangeChunk, RangeCursor, RangeTail};
pub use request::*;
pub use store::{Config, Store};
pub use values::{KvRef, Malformed};
pub use write::Writer;

/// Why an operation gave no answer: the two kinds stay apart, since one is a reply and one stops the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A deterministic refusal, which is the reply.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The node must stop.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Error {
    /// Takes a result apart: a refusal becomes part of the answer, a fault stays an error.
    pub fn split<V>(result: Result<V, Self>) -> Result<Result<V, Refusal>, Fault> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(Self::Refused(refusal)) => Ok(Err(refusal)),
            Err(Self::Fault(fault)) => Err(fault),
        }
    }
}

/// What writes ask of the leases.
pub trait Leases {
    /// Whether the lease has been granted and not revoked.
    fn exists(&self, lease: LeaseId) -> bool;

    /// `key` now belongs to `lease`, which exists.
    fn attach(&mut self, lease: LeaseId, key: &Bytes);

    /// `key` no longer belongs to `lease`, which may be gone already.
    fn detach(&mut self, lease: LeaseId, key: &Bytes);
}
