//! Multi-version keys and values: every change of every key since the last compaction, by revision.

mod check;
mod request;
mod store;
mod values;
mod write;

use crate::{
    error::{Fault, Refusal},
    types::LeaseId,
};

pub use check::{check_delete, check_put, check_range, check_txn};
pub use request::*;
pub use store::{Config, Hash, History, RangeChunk, RangeCursor, RangeTail, Store};
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
    fn attach(&mut self, lease: LeaseId, key: &bytes::Bytes);

    /// `key` no longer belongs to `lease`, which may be gone already.
    fn detach(&mut self, lease: LeaseId, key: &bytes::Bytes);
}
