//! What can be told of a request without any state, in the order in which etcd tells it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::Refusal,
    wire::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request::SortTarget,
        request_op,
    },
};

/// A range needs a key and a sort target that exists. An unknown order is none, as in etcd 3.5; an unknown
/// target is refused as in 3.6, since it takes 3.5 down.
pub(super) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortTarget::try_from(request.sort_target).is_err() {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// A put needs a key, and neither a value nor a lease that it says to ignore.
pub(super) fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// A deletion needs a key.
pub(super) fn delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// A transaction needs sound operations, not too many of them, and no key written twice in one branch.
pub(super) fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    ops(request, ops_max)?;
    branch(&request.success)?;
    branch(&request.failure)?;
    Ok(())
}

/// The longest list of a level counts against the budget, and what is left of it is the nested levels' own.
fn ops(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = ops_max.checked_sub(longest) else {
        return Err(Refusal::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(request_op::Request::RequestRange(request)) => range(request)?,
            Some(request_op::Request::RequestPut(request)) => put(request)?,
            Some(request_op::Request::RequestDeleteRange(request)) => delete(request)?,
            Some(request_op::Request::RequestTxn(request)) => ops(request, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// The keys that a branch writes.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

/// Refuses a branch in which a key is put twice, or put and deleted; gives what it writes.
fn branch(ops: &[RequestOp]) -> Result<Written<'_>, Refusal> {
    let mut written = Written::default();
    for op in ops {
        if let Some(request_op::Request::RequestDeleteRange(delete)) = &op.request {
            written.deletes.insert(&delete.key, &delete.range_end);
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestTxn(txn)) = &op.request {
            nested(&mut written, txn)?;
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestPut(put)) = &op.request
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
    /// Adds `[key, range_end)`, or the one key. An open end holds nothing here: etcd takes its zero byte for a
    /// key, so that it lets a transaction write what it deletes "from a key on" (seen on 3.5.1).
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.add(key, (key, true));
        } else if key < range_end {
            self.add(key, (range_end, false));
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

    fn op(request: request_op::Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_of(key: &str) -> RequestOp {
        op(request_op::Request::RequestPut(PutRequest { key: key.to_owned().into(), ..Default::default() }))
    }

    fn delete_of(key: &str, end: &str) -> RequestOp {
        op(request_op::Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            prev_kv: false,
        }))
    }

    fn nested_of(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(request_op::Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    fn check(success: Vec<RequestOp>) -> Result<(), Refusal> {
        txn(&TxnRequest { compare: vec![], success, failure: vec![] }, 128)
    }

    const DUPLICATE: Result<(), Refusal> = Err(Refusal::DuplicateKey);

    #[test]
    fn a_key_is_written_once_in_a_branch() {
        assert_eq!(check(vec![put_of("d"), put_of("d")]), DUPLICATE);
        assert_eq!(check(vec![put_of("d"), delete_of("d", "")]), DUPLICATE);
        assert_eq!(check(vec![delete_of("d", ""), put_of("d")]), DUPLICATE);
        assert_eq!(check(vec![put_of("d1"), delete_of("d", "e")]), DUPLICATE);
        assert_eq!(check(vec![put_of("e"), delete_of("d", "e")]), Ok(()));
        assert_eq!(check(vec![delete_of("d", ""), delete_of("d", "")]), Ok(()));
    }

    #[test]
    fn nested_branches_count_together_but_exclude_each_other() {
        let (then, other) = (|| vec![put_of("n")], || vec![put_of("n")]);
        assert_eq!(check(vec![nested_of(then(), other())]), Ok(()));
        assert_eq!(check(vec![nested_of(then(), vec![]), put_of("n")]), DUPLICATE);
        assert_eq!(check(vec![nested_of(then(), vec![]), nested_of(vec![], other())]), DUPLICATE);
        assert_eq!(check(vec![nested_of(then(), vec![]), delete_of("n", "")]), DUPLICATE);
        assert_eq!(check(vec![put_of("n"), nested_of(vec![], vec![delete_of("n", "")])]), DUPLICATE);
        assert_eq!(
            check(vec![nested_of(vec![delete_of("n", "")], vec![]), nested_of(then(), vec![])]),
            DUPLICATE
        );
        assert_eq!(check(vec![nested_of(then(), vec![delete_of("n", "")])]), Ok(()));
    }

    #[test]
    fn what_etcd_lets_pass_passes() {
        assert_eq!(check(vec![put_of("q"), delete_of("a", "\0")]), Ok(()));
        assert_eq!(check(vec![put_of("q"), delete_of("z", "a")]), Ok(()));
        assert_eq!(check(vec![put_of("q"), delete_of("q", "q")]), Ok(()));
        let (put, delete) =
            (nested_of(vec![put_of("w")], vec![]), nested_of(vec![delete_of("w", "")], vec![]));
        assert_eq!(check(vec![put, delete]), Ok(()));
    }

    #[test]
    fn nested_levels_share_what_the_outer_leaves() {
        let puts = |n: usize| (0..n).map(|i| put_of(&format!("k{i}"))).collect::<Vec<_>>();
        assert_eq!(check(puts(128)), Ok(()));
        assert_eq!(check(puts(129)), Err(Refusal::TooManyOps));
        assert_eq!(check(vec![nested_of(puts(127), vec![])]), Ok(()));
        assert_eq!(check(vec![nested_of(puts(128), vec![])]), Err(Refusal::TooManyOps));
    }

    #[test]
    fn an_operation_needs_a_request_and_a_key() {
        assert_eq!(check(vec![RequestOp { request: None }]), Err(Refusal::KeyNotFound));
        assert_eq!(check(vec![put_of("")]), Err(Refusal::EmptyKey));
        assert_eq!(check(vec![delete_of("", "\0")]), Err(Refusal::EmptyKey));
    }

    proptest! {
        /// The merged intervals hold what any of the added ones holds.
        #[test]
        fn intervals_are_their_union(
            added in proptest::collection::vec(("[a-d]{1,2}", "[a-d]{0,2}"), 0..12),
            key in "[a-d]{1,3}",
        ) {
            let mut set = Intervals::default();
            for (start, end) in &added {
                set.insert(start.as_bytes(), end.as_bytes());
            }
            let held = added.iter().any(|(start, end)| match end.as_str() {
                "" => &key == start,
                _ => &key >= start && &key < end,
            });
            prop_assert_eq!(set.contains(key.as_bytes()), held);
        }
    }
}
