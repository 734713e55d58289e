//! The single writer: what committed entries do to keys.
//!
//! It fills a batch and changes the index at once; readers see nothing of it until the batch has been
//! written and [`Store::publish`] was called. Everything it decides depends on its own state alone, so that
//! each replica fills the same batches.

use bytes::Bytes;

use super::{
    Error, Leases, Store,
    index::Head,
    range::Run,
    request::{
        DeleteRequest, DeleteResponse, Event, KvBytes, Op, OpResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, TxnRequest, TxnResponse,
    },
    store::{SCHEDULED, View, Writing, decode},
    txn::{Path, check_lease, no_path, taken},
    values::{KvRef, tombstone},
};
use crate::{
    error::{Fault, Refusal},
    table::{Batch, Table, Tables},
    types::{KeyRange, LeaseId, Revision, SubRevision},
};

/// Applies writes in order; sees its own before they are published. It holds no lock between calls.
pub struct Writer<'s, T: Tables> {
    pub(super) store: &'s Store<T>,
}

/// One request that is being applied.
struct Request<'a> {
    leases: &'a mut dyn Leases,
    batch: &'a mut Batch,
    events: &'a mut Vec<Event>,
    /// The revision before it.
    begin: Revision,
    /// How many changes it has made.
    changes: u32,
}

impl Request<'_> {
    /// The newest revision that its next operation sees.
    fn now(&self) -> Revision {
        if self.changes == 0 { self.begin } else { self.begin.next() }
    }

    /// The place of its next change.
    fn next(&mut self) -> Result<(Revision, u32), Fault> {
        let sub = self.changes;
        let full = || Fault::Refused("one request changes more than 4294967295 keys".into());
        self.changes = sub.checked_add(1).ok_or_else(full)?;
        Ok((self.begin.next(), sub))
    }
}

impl<T: Tables> Writer<'_, T> {
    /// The newest revision, published or not.
    pub fn revision(&self) -> Revision {
        self.store.writing().revision
    }

    /// The revision compacted to, published or not; -1 for never.
    pub fn compacted(&self) -> Revision {
        self.store.writing().compacted
    }

    /// A range that went through the log.
    pub fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let writing = self.store.writing();
        let view = self.view(&writing, writing.revision);
        self.store.range_in(request, &view)
    }

    /// Puts a key.
    pub fn put(
        &mut self,
        request: &PutRequest,
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<PutResponse, Error> {
        check_lease(request, leases)?;
        let mut writing = self.store.writing();
        self.store.check_keeps(request, &self.view(&writing, writing.revision))?;
        let mut applied = Request { leases, batch, events, begin: writing.revision, changes: 0 };
        let response = self.put_one(request, &mut applied, &mut writing)?;
        writing.revision = applied.now();
        Ok(response)
    }

    /// Deletes a range.
    pub fn delete(
        &mut self,
        request: &DeleteRequest,
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<DeleteResponse, Error> {
        let mut writing = self.store.writing();
        let mut applied = Request { leases, batch, events, begin: writing.revision, changes: 0 };
        let response = self.delete_range(request, &mut applied, &mut writing)?;
        writing.revision = applied.now();
        Ok(response)
    }

    /// Runs a transaction, which has passed [`super::check_txn`] at its proposer.
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<TxnResponse, Error> {
        let mut writing = self.store.writing();
        let path = {
            let view = self.view(&writing, writing.revision);
            let path = self.store.path(request, &view)?;
            self.store.check_puts(request, &path, leases, &view)?;
            self.store.check_ranges(request, &path, &view)?;
            path
        };
        let mut applied = Request { leases, batch, events, begin: writing.revision, changes: 0 };
        let response = self.run(request, &path, &mut applied, &mut writing)?;
        writing.revision = applied.now();
        Ok(response)
    }

    /// Deletes the keys of a revoked lease, given in order, in one revision; how many were there. The lease
    /// is told of each.
    pub fn delete_keys(
        &mut self,
        keys: &[Bytes],
        leases: &mut dyn Leases,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<i64, Error> {
        let mut writing = self.store.writing();
        let mut applied = Request { leases, batch, events, begin: writing.revision, changes: 0 };
        let mut deleted = 0;
        for key in keys {
            let request = DeleteRequest { range: KeyRange::single(key.clone()), prev_kv: false };
            deleted += self.delete_range(&request, &mut applied, &mut writing)?.deleted;
        }
        writing.revision = applied.now();
        Ok(deleted)
    }

    /// Accepts a compaction: reads below `revision` are refused from here on. What they would have seen is
    /// removed later, by [`Store::compact_step`].
    pub fn compact(&mut self, revision: Revision, batch: &mut Batch) -> Result<(), Refusal> {
        let mut writing = self.store.writing();
        if revision <= writing.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > writing.revision {
            return Err(Refusal::FutureRevision);
        }
        writing.compacted = revision;
        batch.put(Table::Meta, SCHEDULED, SubRevision { main: revision, sub: 0 }.to_key(false));
        Ok(())
    }

    fn view<'w>(&self, writing: &'w Writing, now: Revision) -> View<'w> {
        let generation = self.store.index().generation;
        View { now, compacted: writing.compacted, generation, pending: Some(&writing.pending) }
    }

    fn run(
        &self,
        request: &TxnRequest,
        path: &Path,
        applied: &mut Request<'_>,
        writing: &mut Writing,
    ) -> Result<TxnResponse, Error> {
        let mut responses = Vec::new();
        let mut nested = path.nested.iter();
        for op in taken(request, path) {
            responses.push(match op {
                Op::Range(range) => {
                    let view = self.view(writing, applied.now());
                    OpResponse::Range(self.store.range_in(range, &view)?)
                }
                Op::Put(put) => OpResponse::Put(self.put_one(put, applied, writing)?),
                Op::Delete(delete) => OpResponse::Delete(self.delete_range(delete, applied, writing)?),
                Op::Txn(inner) => {
                    let path = nested.next().ok_or_else(no_path)?;
                    OpResponse::Txn(self.run(inner, path, applied, writing)?)
                }
                Op::Missing => return Err(Refusal::KeyNotFound.into()),
            });
        }
        Ok(TxnResponse { revision: applied.now(), succeeded: path.succeeded, responses })
    }

    /// Puts a key that can be put. One that was to keep the value of a key which the same transaction has
    /// deleted (its check can't tell) gets an empty one; etcd would crash.
    fn put_one(
        &self,
        request: &PutRequest,
        applied: &mut Request<'_>,
        writing: &mut Writing,
    ) -> Result<PutResponse, Error> {
        let view = self.view(writing, applied.now());
        let before = self.store.find(&request.key, view.now, &view)?;
        let stored = match &before {
            Some(found) if request.prev_kv || request.ignore_value => {
                Some(self.store.bytes_of(found, &view)?)
            }
            Some(_) | None => None,
        };
        let kept = match (&stored, &before) {
            (Some(stored), Some(found)) if request.ignore_value => decode(&stored.0, found.at)?.value,
            _ => &[],
        };
        let lease_before = before.as_ref().map_or(LeaseId(0), |found| found.lease);
        let (main, sub) = applied.next()?;
        let created = before.as_ref().map_or(main, |found| found.created);
        let version = before.as_ref().map_or(0, |found| found.version) + 1;
        let lease = if request.ignore_lease { lease_before } else { request.lease };
        let kv = KvRef {
            key: &request.key,
            created,
            modified: main,
            version,
            value: if request.ignore_value { kept } else { &request.value },
            lease,
        }
        .encode();
        let head = Head { main, sub, tombstone: false, created, version, lease, bytes: Some(kv.0.clone()) };
        self.store.index_mut().push(&request.key, head);
        if lease_before != lease {
            move_lease(&request.key, lease_before, lease, applied);
        }
        let at = SubRevision { main, sub: i64::from(sub) };
        applied.batch.put(Table::Rev, at.to_key(false), kv.0.clone());
        writing.pending.insert(at, kv.0.clone());
        let key = kv.0.slice_ref(decode(&kv.0, at)?.key);
        applied.events.push(Event { key, deleted: false, at, kv });
        Ok(PutResponse { revision: main, prev_kv: if request.prev_kv { stored } else { None } })
    }

    fn delete_range(
        &self,
        request: &DeleteRequest,
        applied: &mut Request<'_>,
        writing: &mut Writing,
    ) -> Result<DeleteResponse, Error> {
        let mut doomed = Vec::new();
        let mut prev_kvs = Vec::new();
        let view = self.view(writing, applied.now());
        let mut range = RangeRequest::of(request.range.clone());
        // Leases and keys are beside the heads; values need be fetched only if they are asked for.
        range.keys_only = !request.prev_kv;
        let mut run = Run::new(&range, &view)?;
        while let Some(chunk) = run.next_chunk(self.store, &view)? {
            for kv in chunk.kvs {
                let gone = KvRef::decode(&kv.0).map_err(|error| Fault::corrupt(error.to_string()))?;
                doomed.push((kv.0.slice_ref(gone.key), gone.lease));
                if request.prev_kv {
                    prev_kvs.push(kv);
                }
            }
        }
        let deleted = i64::try_from(doomed.len()).expect("memory holds fewer keys than 2^63");
        for (key, lease) in doomed {
            self.bury(&key, lease, applied)?;
        }
        Ok(DeleteResponse { revision: applied.now(), deleted, prev_kvs })
    }

    /// Deletes a key that is there.
    fn bury(&self, key: &Bytes, lease: LeaseId, applied: &mut Request<'_>) -> Result<(), Error> {
        let (main, sub) = applied.next()?;
        let head = Head {
            main,
            sub,
            tombstone: true,
            created: Revision(0),
            version: 0,
            lease: LeaseId(0),
            bytes: None,
        };
        self.store.index_mut().push(key, head);
        move_lease(key, lease, LeaseId(0), applied);
        let at = SubRevision { main, sub: i64::from(sub) };
        applied.batch.put(Table::Rev, at.to_key(true), tombstone(key));
        applied.events.push(buried(at, key));
        Ok(())
    }
}

fn move_lease(key: &Bytes, from: LeaseId, to: LeaseId, applied: &mut Request<'_>) {
    if from != LeaseId(0) {
        applied.leases.detach(from, key);
    }
    if to != LeaseId(0) {
        applied.leases.attach(to, key);
    }
}

/// The event of a deletion: unlike the stored tombstone it says when.
pub(super) fn buried(at: SubRevision, key: &[u8]) -> Event {
    let kv = KvRef { key, modified: at.main, ..KvRef::default() }.encode();
    // Encoded keys come first, behind their tag and length.
    let key = KvRef::decode(&kv.0)
        .map_or_else(|_| Bytes::copy_from_slice(key), |kv_ref| kv.0.slice_ref(kv_ref.key));
    Event { key, deleted: true, at, kv }
}

/// Bytes of an event that count against a limit.
pub(super) fn size(event: &Event) -> usize {
    let KvBytes(bytes) = &event.kv;
    bytes.len()
}
