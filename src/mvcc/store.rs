//! The store as its readers see it.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Error, Writer,
    request::{Event, KvBytes, RangeRequest, RangeResponse, TxnRequest, TxnResponse},
};
use crate::{
    error::Fault,
    table::{Batch, Tables},
    types::{LeaseId, Revision},
};

/// How much a store holds and hands out at once.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of current values kept in memory; the rest are read from the tables.
    pub cache_bytes_max: usize,
    /// Keys that are visited while the index is locked.
    pub chunk_keys_max: usize,
    /// Bytes after which a chunk of a range ends; one key-value may pass it.
    pub chunk_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_bytes_max: 256 << 20, chunk_keys_max: 1024, chunk_bytes_max: 1 << 20 }
    }
}

/// etcd's `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// CRC-32C of the revisions.
    pub hash: u32,
    /// To which revision the store was compacted; -1 for never.
    pub compacted: Revision,
    /// Up to which revision it was taken.
    pub revision: Revision,
    /// The store's revision then.
    pub current: Revision,
}

/// A run of past changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The changes, in order; a revision is in it whole or not at all.
    pub events: Vec<Event>,
    /// The first revision that was not read; `to` + 1 if all were.
    pub next: Revision,
}

/// Part of a range's result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeChunk {
    /// The next key-values, encoded.
    pub kvs: Vec<KvBytes>,
    /// What comes with the last chunk.
    pub tail: Option<RangeTail>,
}

/// What is known when a range has been read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeTail {
    /// The store's revision when the range began.
    pub revision: Revision,
    /// Whether the limit cut it short.
    pub more: bool,
    /// How many keys the range holds.
    pub count: i64,
}

/// Keys and values by revision, over `T`. Share it in an [`Arc`].
pub struct Store<T: Tables> {
    pub(super) tables: T,
}

/// A range that is read chunk by chunk, all of one moment.
pub struct RangeCursor<T: Tables> {
    _store: Arc<Store<T>>,
}

impl<T: Tables> RangeCursor<T> {
    /// The next chunk; none after the one with the tail.
    pub fn next_chunk(&mut self) -> Result<Option<RangeChunk>, Error> {
        unimplemented!()
    }
}

#[allow(unused_variables)]
impl<T: Tables> Store<T> {
    /// Reads the index from the tables.
    pub fn open(tables: T, config: Config) -> Result<Self, Fault> {
        unimplemented!()
    }

    /// Reads the index again, after a snapshot replaced the tables.
    pub fn reload(&self) -> Result<(), Fault> {
        unimplemented!()
    }

    /// The newest published revision.
    pub fn revision(&self) -> Revision {
        unimplemented!()
    }

    /// The revision compacted to, as published; -1 for never.
    pub fn compacted(&self) -> Revision {
        unimplemented!()
    }

    /// Reads a range at the published revision, or an older one that is asked for.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        unimplemented!()
    }

    /// The same in chunks.
    pub fn range_cursor(self: &Arc<Self>, request: &RangeRequest) -> Result<RangeCursor<T>, Error> {
        unimplemented!()
    }

    /// A transaction of compares and ranges, at the published revision.
    pub fn txn_readonly(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        unimplemented!()
    }

    /// The changes of `[from, to]`, up to what is published, whole revisions, until `revisions_max` or
    /// `bytes_max` is reached.
    pub fn events(
        &self,
        from: Revision,
        to: Revision,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<History, Error> {
        unimplemented!()
    }

    /// What `key` was just before revision `before`; none if it was absent or that is compacted.
    pub fn prev_kv(&self, key: &[u8], before: Revision) -> Result<Option<KvBytes>, Fault> {
        unimplemented!()
    }

    /// etcd's `HashKV` at `revision`; 0 or less for the newest.
    pub fn hash_kv(&self, revision: Revision) -> Result<Hash, Error> {
        unimplemented!()
    }

    /// Calls `each` with every current key that is attached to a lease, in key order.
    pub fn leased(&self, each: &mut dyn FnMut(LeaseId, Bytes)) {
        unimplemented!()
    }

    /// The single writer's view.
    pub fn writer(&self) -> Writer<'_, T> {
        unimplemented!()
    }

    /// Shows readers all that the writer has done; its batches have been written.
    pub fn publish(&self) {
        unimplemented!()
    }

    /// The next deletions of a compaction, to be written by the caller: at most `revisions_max` and the
    /// finished mark. None if nothing is to be done now.
    pub fn compact_step(&self, revisions_max: usize) -> Result<Option<Batch>, Fault> {
        unimplemented!()
    }

    /// The last compaction of which all batches have been handed out; -1 for none.
    pub fn compaction_finished(&self) -> Revision {
        unimplemented!()
    }
}
