//! The single writer.

use bytes::Bytes;

use super::{
    Error, Leases, Store,
    request::{
        DeleteRequest, DeleteResponse, Event, PutRequest, PutResponse, RangeRequest, RangeResponse,
        TxnRequest, TxnResponse,
    },
};
use crate::{
    error::Refusal,
    table::{Batch, Tables},
    types::Revision,
};

/// Applies writes in order; sees its own before they are published.
pub struct Writer<'s, T: Tables> {
    pub(super) store: &'s Store<T>,
}

#[allow(unused_variables)]
impl<T: Tables> Writer<'_, T> {
    /// The newest revision, published or not.
    pub fn revision(&self) -> Revision {
        unimplemented!()
    }

    /// The revision compacted to, published or not; -1 for never.
    pub fn compacted(&self) -> Revision {
        unimplemented!()
    }

    /// A range that went through the log.
    pub fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        unimplemented!()
    }

    /// Puts a key.
    pub fn put(
        &mut self,
        request: &PutRequest,
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<PutResponse, Error> {
        unimplemented!()
    }

    /// Deletes a range.
    pub fn delete(
        &mut self,
        request: &DeleteRequest,
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<DeleteResponse, Error> {
        unimplemented!()
    }

    /// Runs a transaction.
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<TxnResponse, Error> {
        unimplemented!()
    }

    /// Deletes the keys of a revoked lease, given in order, in one revision; how many were there.
    pub fn delete_keys(
        &mut self,
        keys: &[Bytes],
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<i64, Error> {
        unimplemented!()
    }

    /// Accepts a compaction: reads below `revision` are refused from here on.
    pub fn compact(&mut self, revision: Revision, batch: &mut Batch) -> Result<(), Refusal> {
        unimplemented!()
    }
}
