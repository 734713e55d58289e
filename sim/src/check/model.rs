//! etcd's store, as simple as it can be said: every key with all that ever happened to it.
//!
//! It is written from etcd's documents, and shares no code with the store under test. Nothing is ever forgotten, so it
//! can answer for any revision, and be taken back to one. Leases are what keys say of them.
//!
//! ```text
//! keys:    a ─ [put@2 v1] [put@5 v2] [deleted@7]        get(a, at 6) = put@5
//!          b ─ [put@5 v1]
//! changes: 2 [a]   5 [a, b]   7 [a]                     in the order of each request's operations
//! ```
//!
//! A transaction may put a key in one nested transaction and delete it in a later one: then one revision changes the key
//! twice, and what was there before is what was there before the revision.
//!
//! Left out: compaction and lease time, which change nothing that is stored here; both have oracles of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use kontiki::wire::etcdserverpb::{self as pb, request_op::Request, response_op::Response};

use super::{
    compare,
    kv::{Kv, Span},
};

/// Why a request can't be done in the state as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `ignore_value` or `ignore_lease` of a key that is not there.
    KeyNotFound,
    /// A range within it asks for a revision that is not yet.
    FutureRevision,
    /// An operation of a transaction without a request.
    NoRequest,
}

/// A change of one key by one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key-value that it made, or the deletion.
    pub kv: Kv,
    /// What was there before.
    pub prev: Option<Kv>,
}

/// The store.
#[derive(Clone, Debug)]
pub struct Model {
    first: i64,
    revision: i64,
    keys: BTreeMap<Bytes, Vec<Kv>>,
    /// What each revision after `first` changed: keys, with the place of the change in the key's history.
    changes: Vec<Vec<(Bytes, usize)>>,
    leased: BTreeMap<i64, BTreeSet<Bytes>>,
    /// What the request under way has changed.
    open: Vec<(Bytes, usize)>,
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

impl Model {
    /// An empty store at revision `first`.
    pub fn new(first: i64) -> Self {
        let (keys, changes, leased, open) = Default::default();
        Self { first, revision: first, keys, changes, leased, open }
    }

    /// The current revision.
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// What a key was at a revision.
    pub fn get(&self, key: &[u8], at: i64) -> Option<&Kv> {
        Self::visible(self.keys.get(key)?, at)
    }

    fn visible(versions: &[Kv], at: i64) -> Option<&Kv> {
        let end = versions.partition_point(|kv| kv.mod_revision <= at);
        versions[..end].last().filter(|kv| !kv.is_deletion())
    }

    /// All key-values of a range at a revision, by key.
    pub fn scan<'a>(&'a self, span: &'a Span, at: i64) -> impl Iterator<Item = &'a Kv> {
        let backwards = !span.is_open() && !span.is_one() && span.end < span.key;
        let last = match span.end.as_ref() {
            [] => Bound::Included(&span.key),
            [0] => Bound::Unbounded,
            _ if backwards => Bound::Excluded(&span.key),
            _ => Bound::Excluded(&span.end),
        };
        // An excluded bound that is equal to an included one is legal; both excluded would not be.
        let keys = self.keys.range::<Bytes, _>((Bound::Included(&span.key), last));
        keys.filter_map(move |(_, versions)| Self::visible(versions, at))
    }

    /// What a revision changed, in the order of the request's operations.
    pub fn changes(&self, revision: i64) -> Vec<Change> {
        let changed = self.changes.get((revision - self.first - 1) as usize).into_iter().flatten();
        let change = |(key, at): &(Bytes, usize)| {
            let (kv, prev) = Self::pair(&self.keys[key], *at);
            Change { kv: kv.clone(), prev: prev.cloned() }
        };
        changed.map(change).collect()
    }

    /// A change, and what was there before its revision.
    fn pair(versions: &[Kv], at: usize) -> (&Kv, Option<&Kv>) {
        let kv = &versions[at];
        let before = versions[..at].iter().rev().find(|before| before.mod_revision < kv.mod_revision);
        (kv, before.filter(|before| !before.is_deletion()))
    }

    /// What the revisions from `from` to `to` changed within `span`: the key-value or deletion, and what was before.
    pub fn within<'a>(
        &'a self,
        span: &'a Span,
        from: i64,
        to: i64,
    ) -> Box<dyn Iterator<Item = (&'a Kv, Option<&'a Kv>)> + 'a> {
        if span.is_one() {
            let versions = self.versions(&span.key);
            let first = versions.partition_point(|kv| kv.mod_revision < from);
            let last = versions.partition_point(|kv| kv.mod_revision <= to);
            return Box::new((first..last.max(first)).map(move |at| Self::pair(versions, at)));
        }
        let revisions = from.max(self.first + 1)..=to.min(self.revision);
        Box::new(revisions.flat_map(move |revision| {
            let changed = self.changes.get((revision - self.first - 1) as usize).into_iter().flatten();
            let within = changed.filter(|(key, _)| span.contains(key));
            within.map(move |(key, at)| Self::pair(self.versions(key), *at))
        }))
    }

    /// All keys with all that happened to them.
    pub fn histories(&self) -> impl Iterator<Item = (&Bytes, &[Kv])> {
        self.keys.iter().map(|(key, versions)| (key, versions.as_slice()))
    }

    /// How often a key has been changed.
    pub fn versions(&self, key: &[u8]) -> &[Kv] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys that a lease has now.
    pub fn leased(&self, lease: i64) -> Option<&BTreeSet<Bytes>> {
        self.leased.get(&lease)
    }

    /// The leases that have keys now.
    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.leased.keys().copied()
    }

    fn push(&mut self, kv: Kv) {
        let versions = self.keys.entry(kv.key.clone()).or_default();
        self.open.push((kv.key.clone(), versions.len()));
        let before = versions.last().map_or(0, |kv| kv.lease);
        let (key, lease) = (kv.key.clone(), kv.lease);
        versions.push(kv);
        self.attach(key, before, lease);
    }

    fn pop(&mut self, key: &Bytes) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let lease = versions.pop().map_or(0, |kv| kv.lease);
        let before = versions.last().map_or(0, |kv| kv.lease);
        if versions.is_empty() {
            self.keys.remove(key);
        }
        self.attach(key.clone(), lease, before);
    }

    fn attach(&mut self, key: Bytes, from: i64, to: i64) {
        if let Some(keys) = self.leased.get_mut(&from) {
            keys.remove(&key);
            if keys.is_empty() {
                self.leased.remove(&from);
            }
        }
        if to != 0 {
            self.leased.entry(to).or_default().insert(key);
        }
    }

    /// Ends the request under way: whatever it changed is the next revision. Whether it changed anything.
    fn close(&mut self) -> bool {
        let effective = !self.open.is_empty();
        if effective {
            self.revision += 1;
            self.changes.push(std::mem::take(&mut self.open));
        }
        effective
    }

    /// A revision that changes nothing known, for a history that has one nobody can explain.
    pub fn skip(&mut self) {
        self.revision += 1;
        self.changes.push(Vec::new());
    }

    /// A revision with these changes, for a history that shows them and nobody can explain them.
    pub fn force(&mut self, kvs: impl IntoIterator<Item = Kv>) {
        for kv in kvs {
            self.push(kv);
        }
        if !self.close() {
            self.skip();
        }
    }

    /// Takes back all after `revision`.
    pub fn undo_to(&mut self, revision: i64) {
        while self.revision > revision {
            self.revision -= 1;
            for (key, _) in self.changes.pop().unwrap_or_default().iter().rev() {
                self.pop(key);
            }
        }
    }

    /// The revision that the request under way sees: the next one from its first change on.
    fn seen(&self) -> i64 {
        if self.open.is_empty() { self.revision } else { self.revision + 1 }
    }

    /// Whether a put that keeps a value or a lease has one to keep.
    fn keeps(&self, request: &pb::PutRequest) -> Result<(), Refused> {
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.get(&request.key, i64::MAX).is_none() { Err(Refused::KeyNotFound) } else { Ok(()) }
    }

    /// Looks at all puts on the way through a transaction before any of it is done: what an operation before then
    /// deletes is kept as nothing.
    fn all_keep(
        &self,
        request: &pb::TxnRequest,
        taken: &mut std::slice::Iter<'_, bool>,
    ) -> Result<(), Refused> {
        let succeeded = taken.next().copied().unwrap_or_default();
        for op in if succeeded { &request.success } else { &request.failure } {
            match &op.request {
                Some(Request::RequestPut(put)) => self.keeps(put)?,
                Some(Request::RequestTxn(nested)) => self.all_keep(nested, taken)?,
                Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn do_put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Refused> {
        let before = self.get(&request.key, i64::MAX).cloned();
        let revision = self.revision + 1;
        let mut kv = Kv {
            key: request.key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if let Some(before) = &before {
            kv.create_revision = before.create_revision;
            kv.version = before.version + 1;
            if request.ignore_value {
                kv.value = before.value.clone();
            }
            if request.ignore_lease {
                kv.lease = before.lease;
            }
        }
        self.push(kv);
        let prev_kv = before.filter(|_| request.prev_kv).map(|kv| kv.to_raw());
        Ok(pb::PutResponse { header: header(revision), prev_kv })
    }

    fn do_delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let span = Span::new(&request.key, &request.range_end);
        let gone: Vec<Kv> = self.scan(&span, i64::MAX).cloned().collect();
        for kv in &gone {
            self.push(Kv { key: kv.key.clone(), mod_revision: self.revision + 1, ..Kv::default() });
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if request.prev_kv { gone.iter().map(Kv::to_raw).collect() } else { Vec::new() };
        pb::DeleteRangeResponse { header: header(self.seen()), deleted, prev_kvs }
    }

    /// A range at the revision that it asks for, or at the newest.
    fn do_range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Refused> {
        if request.revision > self.revision {
            return Err(Refused::FutureRevision);
        }
        let at = if request.revision > 0 { request.revision } else { i64::MAX };
        Ok(pb::RangeResponse { header: header(self.seen()), ..self.range(request, at) })
    }

    /// What a range gives at revision `at`, without a header.
    pub fn range(&self, request: &pb::RangeRequest, at: i64) -> pb::RangeResponse {
        let span = Span::new(&request.key, &request.range_end);
        if request.count_only {
            return pb::RangeResponse { count: self.scan(&span, at).count() as i64, ..Default::default() };
        }
        let mut kvs: Vec<&Kv> = self.scan(&span, at).collect();
        let count = kvs.len() as i64;
        let off_or = |limit: i64, fine: bool| limit == 0 || fine;
        kvs.retain(|kv| {
            off_or(request.min_mod_revision, kv.mod_revision >= request.min_mod_revision)
                && off_or(request.max_mod_revision, kv.mod_revision <= request.max_mod_revision)
                && off_or(request.min_create_revision, kv.create_revision >= request.min_create_revision)
                && off_or(request.max_create_revision, kv.create_revision <= request.max_create_revision)
        });
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if request.sort_order == pb::range_request::SortOrder::None as i32 && bounds == [0; 4] {
            // As etcd has it: without an order the limit comes first, and what it took is sorted by the target.
            kvs.truncate(limit.saturating_add(1));
        }
        compare::sort(&mut kvs, request);
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        let raw = |kv: &&Kv| {
            if request.keys_only { Kv { value: Bytes::new(), ..(*kv).clone() }.to_raw() } else { kv.to_raw() }
        };
        pb::RangeResponse { header: None, kvs: kvs.iter().map(raw).collect(), more, count }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let span = Span::new(&compare.key, &compare.range_end);
        let mut kvs = self.scan(&span, i64::MAX).peekable();
        if kvs.peek().is_none() {
            return compare::holds_for_absent(compare);
        }
        kvs.all(|kv| compare::holds(compare, kv))
    }

    /// Which branch each transaction takes, all decided before anything is changed: this one's, then those of the
    /// nested ones in the branch, in order.
    fn decide(&self, request: &pb::TxnRequest, taken: &mut Vec<bool>) {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        taken.push(succeeded);
        for op in if succeeded { &request.success } else { &request.failure } {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                self.decide(nested, taken);
            }
        }
    }

    fn do_txn(
        &mut self,
        request: &pb::TxnRequest,
        taken: &mut std::vec::IntoIter<bool>,
    ) -> Result<pb::TxnResponse, Refused> {
        let succeeded = taken.next().unwrap_or_default();
        let mut responses = Vec::new();
        for op in if succeeded { &request.success } else { &request.failure } {
            let response = match &op.request {
                Some(Request::RequestRange(request)) => Response::ResponseRange(self.do_range(request)?),
                Some(Request::RequestPut(request)) => Response::ResponsePut(self.do_put(request)?),
                Some(Request::RequestDeleteRange(request)) => {
                    Response::ResponseDeleteRange(self.do_delete(request))
                }
                Some(Request::RequestTxn(request)) => {
                    let done = self.do_txn(request, taken)?;
                    // A nested transaction's header is there, but empty.
                    Response::ResponseTxn(pb::TxnResponse { header: header(0), ..done })
                }
                None => return Err(Refused::NoRequest),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        Ok(pb::TxnResponse { header: header(self.seen()), succeeded, responses })
    }

    /// Takes back what the request under way has changed.
    fn abandon(&mut self) {
        for (key, _) in std::mem::take(&mut self.open).iter().rev() {
            self.pop(key);
        }
    }

    /// Puts; the next revision.
    pub fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Refused> {
        self.keeps(request)?;
        let done = self.do_put(request)?;
        self.close();
        Ok(done)
    }

    /// Deletes; the next revision if anything was there.
    pub fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let done = self.do_delete(request);
        self.close();
        done
    }

    /// Runs a transaction; the next revision if it changed anything.
    pub fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Refused> {
        let mut taken = Vec::new();
        self.decide(request, &mut taken);
        self.all_keep(request, &mut taken.iter())?;
        match self.do_txn(request, &mut taken.into_iter()) {
            Ok(done) => {
                self.close();
                Ok(done)
            }
            Err(refused) => {
                self.abandon();
                Err(refused)
            }
        }
    }

    /// Deletes a lease's keys, sorted; the next revision if it has any.
    pub fn end_lease(&mut self, lease: i64) -> bool {
        let keys = self.leased.get(&lease).cloned().unwrap_or_default();
        for key in keys {
            self.push(Kv { key, mod_revision: self.revision + 1, ..Kv::default() });
        }
        self.close()
    }
}
