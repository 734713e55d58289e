//! What a request must look like before it is proposed: etcd's checks, in etcd's order.
//!
//! They need no state, so the API makes them before anything goes through the log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::request::{DeleteRequest, Op, PutRequest, RangeRequest, SortTarget, TxnRequest};
use crate::{
    error::Refusal,
    types::{KeyRange, RangeEnd},
};

/// A range names a key, and a sort target that exists: an unknown one takes etcd 3.5 down, 3.6 refuses it.
pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    require_key(&request.range.start)?;
    match request.sort_target {
        SortTarget::Unknown => Err(Refusal::InvalidSortOption),
        SortTarget::Key | SortTarget::Version | SortTarget::Create | SortTarget::Mod | SortTarget::Value => {
            Ok(())
        }
    }
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
    branch(&request.success)?;
    branch(&request.failure)?;
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

/// The keys that a branch writes.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Intervals<'a>,
}

/// Refuses a branch in which a key is put twice, or put and deleted; gives what it writes.
fn branch(ops: &[Op]) -> Result<Written<'_>, Refusal> {
    let mut written = Written::default();
    for op in ops {
        if let Op::Delete(delete) = op {
            written.deletes.insert(&delete.range);
        }
    }
    for op in ops {
        if let Op::Txn(txn) = op {
            nested(&mut written, txn)?;
        }
    }
    for op in ops {
        if let Op::Put(put) = op
            && (written.deletes.contains(&put.key) || !written.puts.insert(&put.key))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(written)
}

/// Adds what a nested transaction writes. Of its branches one runs, so they may write the same keys.
fn nested<'a>(written: &mut Written<'a>, txn: &'a TxnRequest) -> Result<(), Refusal> {
    let success = branch(&txn.success)?;
    let failure = branch(&txn.failure)?;
    for key in success.puts.iter().chain(&failure.puts) {
        if written.puts.contains(key) || written.deletes.contains(key) {
            return Err(Refusal::DuplicateKey);
        }
    }
    written.puts.extend(success.puts);
    written.puts.extend(failure.puts);
    written.deletes.merge(success.deletes);
    written.deletes.merge(failure.deletes);
    Ok(())
}

/// Where an interval ends: before a key, or with it. In this order, `(k, false)` ends below `(k, true)`.
type End<'a> = (&'a [u8], bool);

/// A set of intervals of keys that do not overlap, by their starts.
#[derive(Default)]
struct Intervals<'a> {
    ends: BTreeMap<&'a [u8], End<'a>>,
}

impl<'a> Intervals<'a> {
    /// Adds a range. An open end holds nothing here: etcd takes its zero byte for a key, so that it lets a
    /// transaction put what it deletes "from a key on" (seen on 3.5.1); clients clear a range and fill it so.
    fn insert(&mut self, range: &'a KeyRange) {
        let start = range.start.as_ref();
        match &range.end {
            RangeEnd::Single => self.add(start, (start, true)),
            RangeEnd::Before(end) if start < end.as_ref() => self.add(start, (end, false)),
            RangeEnd::Before(_) | RangeEnd::Unbounded => {}
        }
    }

    fn add(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        if let Some((&before, &its_end)) = self.ends.range(..=start).next_back()
            && covers(its_end, start)
        {
            start = before;
            end = end.max(its_end);
        }
        while let Some((&next, &its_end)) = self.ends.range(start..).next()
            && covers(end, next)
        {
            self.ends.remove(next);
            end = end.max(its_end);
        }
        self.ends.insert(start, end);
    }

    fn merge(&mut self, other: Self) {
        for (start, end) in other.ends {
            self.add(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.ends.range(..=key).next_back().is_some_and(|(_, end)| covers(*end, key))
    }
}

/// Whether what ends with `end` and starts at or before `key` holds `key`.
fn covers(end: End<'_>, key: &[u8]) -> bool {
    key < end.0 || (end.1 && key == end.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The merged intervals hold what any of the added ones holds, an open end aside.
        #[test]
        fn intervals_are_their_union(
            added in proptest::collection::vec(("[a-d]{1,2}", "[a-d]{0,2}|\\x00"), 0..12),
            key in "[a-d]{1,3}",
        ) {
            let ranges: Vec<_> =
                added.into_iter().map(|(start, end)| KeyRange::from_wire(start.into(), end.into())).collect();
            let mut set = Intervals::default();
            for range in &ranges {
                set.insert(range);
            }
            let bounded = |range: &&KeyRange| range.end != RangeEnd::Unbounded;
            let held = ranges.iter().filter(bounded).any(|range| range.contains(key.as_bytes()));
            prop_assert_eq!(set.contains(key.as_bytes()), held);
        }
    }
}
