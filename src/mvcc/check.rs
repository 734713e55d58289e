//! What a request must look like before it is proposed: etcd's checks, in etcd's order.
//!
//! They need no state, so the API makes them before anything goes through the log.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::request::{DeleteRequest, Op, PutRequest, RangeRequest, TxnRequest};
use crate::{
    error::Refusal,
    types::{KeyRange, RangeEnd},
};

/// A range names a key.
pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    require_key(&request.range.start)
}

/// A put names a key, and gives no value or lease that it asks to ignore.
pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    require_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease.0 != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// A deletion names a key.
pub fn check_delete(request: &DeleteRequest) -> Result<(), Refusal> {
    require_key(&request.range.start)
}

/// Both branches of a transaction, however deep: at most `ops_max` operations, each sound by itself, and no
/// key written twice.
pub fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    check_ops(request, ops_max)?;
    writes_of(&request.success)?;
    writes_of(&request.failure)?;
    Ok(())
}

fn require_key(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// A nested transaction may have what its parent's largest list leaves of `ops_max`.
fn check_ops(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = ops_max.checked_sub(ops) else {
        return Err(Refusal::TooManyOps);
    };
    for compare in &request.compare {
        require_key(&compare.range.start)?;
    }
    for op in request.success.iter().chain(&request.failure) {
        match op {
            Op::Range(range) => check_range(range)?,
            Op::Put(put) => check_put(put)?,
            Op::Delete(delete) => check_delete(delete)?,
            Op::Txn(nested) => check_ops(nested, left)?,
            Op::Missing => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations writes, in whichever branches.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn deletes_key(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|range| forbids(range, key))
    }
}

/// Whether a deletion of `range` rules out a put of `key` beside it. etcd reads a `range_end` of one zero byte
/// as that key here, so that an unbounded deletion goes with any put; clients clear a range and fill it so.
fn forbids(range: &KeyRange, key: &Bytes) -> bool {
    match &range.end {
        RangeEnd::Single | RangeEnd::Before(_) => range.contains(key),
        RangeEnd::Unbounded => false,
    }
}

fn writes_of(ops: &[Op]) -> Result<Writes, Refusal> {
    let mut all = Writes::default();
    for op in ops {
        if let Op::Delete(delete) = op {
            all.deletes.push(delete.range.clone());
        }
    }
    for op in ops {
        if let Op::Txn(nested) = op {
            let (then, other) = (writes_of(&nested.success)?, writes_of(&nested.failure)?);
            // One nested transaction takes one branch, so its branches may write the same keys.
            for key in then.puts.union(&other.puts) {
                if all.puts.contains(key) || all.deletes_key(key) {
                    return Err(Refusal::DuplicateKey);
                }
            }
            all.puts.extend(then.puts);
            all.puts.extend(other.puts);
            all.deletes.extend(then.deletes);
            all.deletes.extend(other.deletes);
        }
    }
    for op in ops {
        if let Op::Put(put) = op
            && (all.deletes_key(&put.key) || !all.puts.insert(put.key.clone()))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(all)
}
