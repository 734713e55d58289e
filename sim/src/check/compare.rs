//! Comparisons: of a transaction's guards, of sorted key-values, and of an answer with the model's.

use std::cmp::Ordering;

use kontiki::wire::{
    RawKeyValue,
    etcdserverpb::{
        self as pb,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
};

use super::kv::{Kv, show_kv};

fn numbers(result: i32, ordering: Ordering) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => ordering == Ordering::Equal,
        Ok(CompareResult::NotEqual) => ordering != Ordering::Equal,
        Ok(CompareResult::Greater) => ordering == Ordering::Greater,
        Ok(CompareResult::Less) => ordering == Ordering::Less,
        // etcd takes a comparison that it does not know for one that holds.
        Err(_) => true,
    }
}

/// Whether a guard holds for a key-value. An operand of another kind than the target counts as 0 or empty.
pub fn holds(compare: &pb::Compare, kv: &Kv) -> bool {
    let union = compare.target_union.as_ref();
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            kv.version.cmp(&union.map_or(0, |u| if let TargetUnion::Version(n) = u { *n } else { 0 }))
        }
        Ok(CompareTarget::Create) => kv
            .create_revision
            .cmp(&union.map_or(0, |u| if let TargetUnion::CreateRevision(n) = u { *n } else { 0 })),
        Ok(CompareTarget::Mod) => kv
            .mod_revision
            .cmp(&union.map_or(0, |u| if let TargetUnion::ModRevision(n) = u { *n } else { 0 })),
        Ok(CompareTarget::Lease) => {
            kv.lease.cmp(&union.map_or(0, |u| if let TargetUnion::Lease(n) = u { *n } else { 0 }))
        }
        Ok(CompareTarget::Value) => match union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.as_ref().cmp(b"".as_slice()),
        },
        // An unknown target compares as equal.
        Err(_) => Ordering::Equal,
    };
    numbers(compare.result, ordering)
}

/// Whether a guard holds for a key that is not there: its numbers are 0, and no comparison of its value holds.
pub fn holds_for_absent(compare: &pb::Compare) -> bool {
    if compare.target == CompareTarget::Value as i32 {
        return false;
    }
    holds(compare, &Kv::default())
}

/// How two key-values compare for a range's sort target; none for as they are stored, by key.
fn sorting(request: &pb::RangeRequest) -> Option<(SortTarget, bool)> {
    let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
    let target = SortTarget::try_from(request.sort_target).ok()?;
    match (order, target) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => None,
        (SortOrder::None | SortOrder::Ascend, _) => Some((target, false)),
        (SortOrder::Descend, _) => Some((target, true)),
    }
}

fn by(target: SortTarget, a: &Kv, b: &Kv) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

/// Sorts as the request wants; ties stay by key.
pub fn sort(kvs: &mut [&Kv], request: &pb::RangeRequest) {
    if let Some((target, descend)) = sorting(request) {
        kvs.sort_by(|a, b| if descend { by(target, b, a) } else { by(target, a, b) });
    }
}

fn list(kvs: &[RawKeyValue]) -> String {
    const SHOWN: usize = 4;
    let show = |raw: &RawKeyValue| Kv::from_raw(raw).map_or("(broken bytes)".to_owned(), |kv| show_kv(&kv));
    let mut text = kvs.iter().take(SHOWN).map(show).collect::<Vec<_>>().join(", ");
    if kvs.len() > SHOWN {
        text += &format!(", … {} in all", kvs.len());
    }
    format!("[{text}]")
}

fn decoded(kvs: &[RawKeyValue]) -> Option<Vec<Kv>> {
    kvs.iter().map(Kv::from_raw).collect()
}

/// How two lists of key-values differ; none if they hold the same.
fn lists(what: &str, expected: &[RawKeyValue], seen: &[RawKeyValue]) -> Option<String> {
    if expected == seen || decoded(expected) == decoded(seen) {
        return None;
    }
    let at = expected.iter().zip(seen).take_while(|(a, b)| Kv::from_raw(a) == Kv::from_raw(b)).count();
    let place = if at > 0 { format!(" from number {at} on") } else { String::new() };
    Some(format!("{what}{place} is {}, not {}", list(&seen[at..]), list(&expected[at..])))
}

/// Whether `seen` is sorted as wanted, with the same multiset but for what a limit cuts off among equals: etcd leaves
/// the order of equals open.
fn same_but_for_ties(
    request: &pb::RangeRequest,
    expected: &[RawKeyValue],
    seen: &[RawKeyValue],
    more: bool,
) -> bool {
    let (Some((target, _)), Some(expected), Some(seen)) =
        (sorting(request), decoded(expected), decoded(seen))
    else {
        return false;
    };
    // Without its value a key-value does not show where it stands among values.
    let hidden = request.keys_only && target == SortTarget::Value;
    let equal = |a: &Kv, b: &Kv| by(target, a, b) == Ordering::Equal;
    if expected.len() != seen.len() || (!hidden && !expected.iter().zip(&seen).all(|(a, b)| equal(a, b))) {
        return false;
    }
    let cut = |kvs: &[Kv]| -> Vec<Kv> {
        let last = kvs.last().filter(|_| more);
        let mut kept: Vec<Kv> =
            kvs.iter().filter(|kv| last.is_none_or(|last| !equal(kv, last))).cloned().collect();
        kept.sort_by(|a, b| a.key.cmp(&b.key));
        kept
    };
    cut(&expected) == cut(&seen)
}

/// How a range's answer differs from the one expected, but for the header.
pub fn range(
    request: &pb::RangeRequest,
    expected: &pb::RangeResponse,
    seen: &pb::RangeResponse,
) -> Option<String> {
    if expected.count != seen.count {
        return Some(format!("the count is {}, not {}", seen.count, expected.count));
    }
    if expected.more != seen.more {
        return Some(format!("more is {}, not {}", seen.more, expected.more));
    }
    let differs = lists("what it found", &expected.kvs, &seen.kvs)?;
    (!same_but_for_ties(request, &expected.kvs, &seen.kvs, seen.more)).then_some(differs)
}

/// How a put's answer differs.
pub fn put(expected: &pb::PutResponse, seen: &pb::PutResponse) -> Option<String> {
    let one = |kv: &Option<RawKeyValue>| kv.iter().cloned().collect::<Vec<_>>();
    lists("what was there before", &one(&expected.prev_kv), &one(&seen.prev_kv))
}

/// How a deletion's answer differs.
pub fn delete(expected: &pb::DeleteRangeResponse, seen: &pb::DeleteRangeResponse) -> Option<String> {
    if expected.deleted != seen.deleted {
        return Some(format!("it deleted {} keys, not {}", seen.deleted, expected.deleted));
    }
    lists("what was there before", &expected.prev_kvs, &seen.prev_kvs)
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// How a transaction's answer differs; the revisions of its operations count, its own does not.
pub fn txn(request: &pb::TxnRequest, expected: &pb::TxnResponse, seen: &pb::TxnResponse) -> Option<String> {
    if expected.succeeded != seen.succeeded {
        return Some(format!("its guards gave {}, not {}", seen.succeeded, expected.succeeded));
    }
    if expected.responses.len() != seen.responses.len() {
        return Some(format!("it has {} answers, not {}", seen.responses.len(), expected.responses.len()));
    }
    let ops = if expected.succeeded { &request.success } else { &request.failure };
    for (number, (op, (expected, seen))) in
        ops.iter().zip(expected.responses.iter().zip(&seen.responses)).enumerate()
    {
        if let Some(text) = operation(op, expected, seen) {
            return Some(format!("in its operation {number}, {text}"));
        }
    }
    None
}

fn operation(op: &pb::RequestOp, expected: &pb::ResponseOp, seen: &pb::ResponseOp) -> Option<String> {
    let (expected_at, seen_at, differs) = match (&op.request, &expected.response, &seen.response) {
        (
            Some(Request::RequestRange(op)),
            Some(Response::ResponseRange(a)),
            Some(Response::ResponseRange(b)),
        ) => (revision(a.header.as_ref()), revision(b.header.as_ref()), range(op, a, b)),
        (_, Some(Response::ResponsePut(a)), Some(Response::ResponsePut(b))) => {
            (revision(a.header.as_ref()), revision(b.header.as_ref()), put(a, b))
        }
        (_, Some(Response::ResponseDeleteRange(a)), Some(Response::ResponseDeleteRange(b))) => {
            (revision(a.header.as_ref()), revision(b.header.as_ref()), delete(a, b))
        }
        (Some(Request::RequestTxn(op)), Some(Response::ResponseTxn(a)), Some(Response::ResponseTxn(b))) => {
            (0, 0, txn(op, a, b))
        }
        _ => (0, 0, Some("the answer is of another kind than the request".to_owned())),
    };
    differs.or_else(|| {
        (expected_at != seen_at)
            .then(|| format!("the revision in its header is {seen_at}, not {expected_at}"))
    })
}
