//! Transactions: which branches are taken, and whether what they ask can be done.
//!
//! All compares, nested ones too, are made against the state before the transaction's first write; then
//! every operation of the branches taken is checked; only then is anything done. So a transaction happens
//! whole or not at all.

use super::{
    Error, Leases, Store,
    request::{
        Compare, CompareResult, CompareTarget, Op, OpResponse, PutRequest, RangeRequest, TxnRequest,
        TxnResponse,
    },
    store::{Found, View},
    values::KvRef,
};
use crate::{
    error::{Fault, Refusal},
    table::Tables,
    types::{RangeEnd, Revision},
};

/// Which branch a transaction takes, and those of the transactions nested in that branch, in order.
pub(super) struct Path {
    pub(super) succeeded: bool,
    pub(super) nested: Vec<Path>,
}

/// The operations of the branch that `path` takes.
pub(super) fn taken<'r>(request: &'r TxnRequest, path: &Path) -> &'r [Op] {
    if path.succeeded { &request.success } else { &request.failure }
}

/// The operations of the branches taken, in the order they run in, without the nested transactions.
fn flatten<'r>(request: &'r TxnRequest, path: &Path, out: &mut Vec<&'r Op>) {
    let mut nested = path.nested.iter();
    for op in taken(request, path) {
        match op {
            Op::Txn(inner) => {
                if let Some(path) = nested.next() {
                    flatten(inner, path, out);
                }
            }
            Op::Range(_) | Op::Put(_) | Op::Delete(_) | Op::Missing => out.push(op),
        }
    }
}

impl<T: Tables> Store<T> {
    /// A transaction of compares and ranges, at the published revision.
    pub fn txn_readonly(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let (view, _pin) = {
            let index = self.index();
            let view = Self::published_view(&index);
            // It may read as far back as there is anything.
            (view, self.pin(&index, view.compacted))
        };
        let path = self.path(request, &view)?;
        self.check_ranges(request, &path, &view)?;
        self.read_ops(request, &path, &view)
    }

    fn read_ops(&self, request: &TxnRequest, path: &Path, view: &View<'_>) -> Result<TxnResponse, Error> {
        let mut responses = Vec::new();
        let mut nested = path.nested.iter();
        for op in taken(request, path) {
            responses.push(match op {
                Op::Range(range) => OpResponse::Range(self.range_in(range, view)?),
                Op::Txn(inner) => {
                    let path = nested.next().ok_or_else(no_path)?;
                    OpResponse::Txn(self.read_ops(inner, path, view)?)
                }
                Op::Put(_) | Op::Delete(_) => {
                    let text =
                        "a transaction with writes was taken for a read; this is a bug: please report it";
                    return Err(Fault::Refused(text.into()).into());
                }
                Op::Missing => return Err(Refusal::KeyNotFound.into()),
            });
        }
        Ok(TxnResponse { revision: view.now, succeeded: path.succeeded, responses })
    }

    /// Makes the compares of a transaction, and of those nested in the branch it takes.
    pub(super) fn path(&self, request: &TxnRequest, view: &View<'_>) -> Result<Path, Error> {
        let mut path = Path { succeeded: true, nested: Vec::new() };
        for compare in &request.compare {
            if !self.holds(compare, view)? {
                path.succeeded = false;
                break;
            }
        }
        for op in taken(request, &path) {
            if let Op::Txn(nested) = op {
                path.nested.push(self.path(nested, view)?);
            }
        }
        Ok(path)
    }

    /// Whether a compare holds for every key of its range.
    fn holds(&self, compare: &Compare, view: &View<'_>) -> Result<bool, Error> {
        let by_value = matches!(compare.target, CompareTarget::Value(_));
        if compare.range.end == RangeEnd::Single {
            let Some(found) = self.find(&compare.range.start, view.now, view)? else {
                return Ok(holds_for_none(compare));
            };
            if by_value {
                let bytes = self.bytes_of(&found, view)?;
                return Ok(holds_for(compare, super::store::decode(&bytes.0, found.at)?));
            }
            let Found { at, created, version, lease, .. } = found;
            return Ok(holds_for(
                compare,
                KvRef { created, modified: at.main, version, lease, ..KvRef::default() },
            ));
        }
        let mut request = RangeRequest::of(compare.range.clone());
        request.keys_only = !by_value;
        let mut run = super::range::Run::new(&request, view)?;
        let mut empty = true;
        while let Some(chunk) = run.next_chunk(self, view)? {
            for kv in &chunk.kvs {
                empty = false;
                let kv = KvRef::decode(&kv.0).map_err(|error| Fault::corrupt(error.to_string()))?;
                if !holds_for(compare, kv) {
                    return Ok(false);
                }
            }
        }
        Ok(if empty { holds_for_none(compare) } else { true })
    }

    /// Whether the puts of the branches taken can be done, in the state before the transaction.
    pub(super) fn check_puts(
        &self,
        request: &TxnRequest,
        path: &Path,
        leases: &dyn Leases,
        view: &View<'_>,
    ) -> Result<(), Error> {
        let mut ops = Vec::new();
        flatten(request, path, &mut ops);
        for op in ops {
            match op {
                Op::Put(put) => {
                    self.check_keeps(put, view)?;
                    check_lease(put, leases)?;
                }
                Op::Missing => return Err(Refusal::KeyNotFound.into()),
                Op::Range(_) | Op::Delete(_) | Op::Txn(_) => {}
            }
        }
        Ok(())
    }

    /// A put that keeps a value or a lease needs a key that has them.
    pub(super) fn check_keeps(&self, put: &PutRequest, view: &View<'_>) -> Result<(), Error> {
        if (put.ignore_value || put.ignore_lease) && self.find(&put.key, view.now, view)?.is_none() {
            return Err(Refusal::KeyNotFound.into());
        }
        Ok(())
    }

    /// Whether the revisions that the branches taken read can be read, in the state before the transaction.
    pub(super) fn check_ranges(
        &self,
        request: &TxnRequest,
        path: &Path,
        view: &View<'_>,
    ) -> Result<(), Refusal> {
        let mut ops = Vec::new();
        flatten(request, path, &mut ops);
        for op in ops {
            match op {
                Op::Range(range) if range.revision == Revision(0) => {}
                Op::Range(range) if range.revision > view.now => return Err(Refusal::FutureRevision),
                // A negative revision means "now" to a range by itself; etcd's transactions refuse it here.
                Op::Range(range) if range.revision < view.compacted => return Err(Refusal::Compacted),
                Op::Range(_) | Op::Put(_) | Op::Delete(_) | Op::Txn(_) | Op::Missing => {}
            }
        }
        Ok(())
    }
}

/// A put's lease is one that exists.
pub(super) fn check_lease(put: &PutRequest, leases: &dyn Leases) -> Result<(), Refusal> {
    if put.lease.0 != 0 && !leases.exists(put.lease) { Err(Refusal::LeaseNotFound) } else { Ok(()) }
}

pub(super) fn no_path() -> Error {
    Fault::Refused("a nested transaction was not compared; this is a bug: please report it".into()).into()
}

/// A missing key has zeros, but no value: not even another one than asked for.
fn holds_for_none(compare: &Compare) -> bool {
    !matches!(compare.target, CompareTarget::Value(_)) && holds_for(compare, KvRef::default())
}

fn holds_for(compare: &Compare, kv: KvRef<'_>) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::Create(revision) => kv.created.cmp(revision),
        CompareTarget::Mod(revision) => kv.modified.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value.as_ref()),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
        CompareTarget::Unknown => std::cmp::Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Unknown => true,
    }
}
