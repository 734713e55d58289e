//! What can be said of a request by itself: what it may write, whether it is one at all, how to name it.

use std::collections::BTreeSet;

use bytes::Bytes;
use kontiki::{
    error::Refusal,
    wire::etcdserverpb::{
        self as pb,
        compare::{CompareResult, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
};

use super::kv::{Span, show};
use crate::history::{Call, Op};

/// Whether a request is well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is.
    Fine,
    /// It has to be refused, with this among other possible texts.
    Wrong(Refusal),
    /// etcd's versions differ, or the rules are not written down.
    Open,
}

fn key(key: &Bytes) -> Validity {
    if key.is_empty() { Validity::Wrong(Refusal::EmptyKey) } else { Validity::Fine }
}

fn range(request: &pb::RangeRequest) -> Validity {
    let known =
        SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    match key(&request.key) {
        Validity::Fine if !known => Validity::Open,
        validity => validity,
    }
}

fn put(request: &pb::PutRequest) -> Validity {
    if request.ignore_value && !request.value.is_empty() && !request.key.is_empty() {
        return Validity::Wrong(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 && !request.key.is_empty() {
        return Validity::Wrong(Refusal::LeaseProvided);
    }
    key(&request.key)
}

fn operations(request: &pb::TxnRequest, left: usize) -> Vec<Validity> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > left {
        return vec![Validity::Wrong(Refusal::TooManyOps)];
    }
    let mut all: Vec<Validity> = request.compare.iter().map(|compare| key(&compare.key)).collect();
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => all.push(range(request)),
            Some(Request::RequestPut(request)) => all.push(put(request)),
            Some(Request::RequestDeleteRange(request)) => all.push(key(&request.key)),
            Some(Request::RequestTxn(request)) => all.extend(operations(request, left - most)),
            None => all.push(Validity::Wrong(Refusal::KeyNotFound)),
        }
    }
    all
}

/// What a branch writes, with its nested branches; none if it may write a key twice.
fn written(ops: &[pb::RequestOp]) -> Option<(BTreeSet<Bytes>, Vec<Span>)> {
    let (mut puts, mut deletes) = (BTreeSet::new(), Vec::new());
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            deletes.push(Span::new(&request.key, &request.range_end));
        }
    }
    let deleted = |deletes: &[Span], key: &Bytes| deletes.iter().any(|span| span.contains(key));
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let (success, failure) = (written(&nested.success)?, written(&nested.failure)?);
        let both: BTreeSet<Bytes> = success.0.union(&failure.0).cloned().collect();
        if both.iter().any(|key| puts.contains(key) || deleted(&deletes, key)) {
            return None;
        }
        puts.extend(both);
        deletes.extend(success.1.into_iter().chain(failure.1));
    }
    for op in ops {
        let Some(Request::RequestPut(request)) = &op.request else { continue };
        if deleted(&deletes, &request.key) || !puts.insert(request.key.clone()) {
            return None;
        }
    }
    Some((puts, deletes))
}

/// Deletions whose range is open or upside down are not judged among puts.
fn odd_deletes(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Request::RequestDeleteRange(request)) => {
            !request.range_end.is_empty() && request.range_end <= request.key
        }
        Some(Request::RequestTxn(nested)) => odd_deletes(nested),
        Some(Request::RequestPut(_) | Request::RequestRange(_)) | None => false,
    })
}

fn txn(request: &pb::TxnRequest, ops_max: usize) -> Validity {
    let all = operations(request, ops_max);
    if let Some(wrong) = all.iter().find(|validity| matches!(validity, Validity::Wrong(_))) {
        return *wrong;
    }
    if all.contains(&Validity::Open) || odd_deletes(request) {
        return Validity::Open;
    }
    if written(&request.success).is_none() || written(&request.failure).is_none() {
        return Validity::Wrong(Refusal::DuplicateKey);
    }
    Validity::Fine
}

/// Whether a call is well formed, whatever is stored. Calls of other services than KV are open.
pub fn validity(call: &Call, txn_ops_max: usize) -> Validity {
    match call {
        Call::Range(request) => range(request),
        Call::Put(request) => put(request),
        Call::DeleteRange(request) => key(&request.key),
        Call::Txn(request) => txn(request, txn_ops_max),
        _ => Validity::Open,
    }
}

/// What a call may write, whichever branches it takes: the keys that it may put with their literal values, and the
/// ranges that it may delete.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Key, and value unless the old one is kept.
    pub puts: Vec<(Bytes, Option<Bytes>)>,
    /// Ranges.
    pub deletes: Vec<Span>,
    /// What it looks at to decide.
    pub guards: Vec<Span>,
}

impl Writes {
    /// Of a call; empty for calls that write no keys.
    pub fn of(call: &Call) -> Self {
        let mut writes = Self::default();
        match call {
            Call::Put(request) => writes.put(request),
            Call::DeleteRange(request) => writes.deletes.push(Span::new(&request.key, &request.range_end)),
            Call::Txn(request) => writes.txn(request),
            _ => {}
        }
        writes
    }

    fn put(&mut self, request: &pb::PutRequest) {
        self.puts.push((request.key.clone(), (!request.ignore_value).then(|| request.value.clone())));
    }

    fn txn(&mut self, request: &pb::TxnRequest) {
        self.guards.extend(request.compare.iter().map(|compare| Span::new(&compare.key, &compare.range_end)));
        for op in request.success.iter().chain(&request.failure) {
            match &op.request {
                Some(Request::RequestPut(request)) => self.put(request),
                Some(Request::RequestDeleteRange(request)) => {
                    self.deletes.push(Span::new(&request.key, &request.range_end));
                }
                Some(Request::RequestTxn(nested)) => self.txn(nested),
                Some(Request::RequestRange(_)) | None => {}
            }
        }
    }

    /// Whether it can write at all.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// All that it touches.
    pub fn spans(&self) -> Vec<Span> {
        let puts = self.puts.iter().map(|(key, _)| Span::one(key));
        puts.chain(self.deletes.iter().cloned()).chain(self.guards.iter().cloned()).collect()
    }
}

/// Whether an answered transaction changed anything.
pub fn txn_wrote(response: &pb::TxnResponse) -> bool {
    response.responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(done)) => done.deleted > 0,
        Some(Response::ResponseTxn(done)) => txn_wrote(done),
        Some(Response::ResponseRange(_)) | None => false,
    })
}

/// Whether a transaction may be answered from a member's own state: it holds nothing but serializable ranges.
pub fn txn_is_serializable(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_)) | None => {
            false
        }
    })
}

fn span(key: &Bytes, range_end: &Bytes) -> String {
    match range_end.as_ref() {
        [] => show(key),
        [0] => format!("{}…", show(key)),
        end => format!("{}..{}", show(key), show(end)),
    }
}

/// At most three of many, in words.
fn some<T>(all: &[T], between: &str, words: impl Fn(&T) -> String) -> String {
    const SOME_MAX: usize = 3;
    let mut text: Vec<String> = all.iter().take(SOME_MAX).map(words).collect();
    text.extend((all.len() > SOME_MAX).then(|| format!("{} more", all.len() - SOME_MAX)));
    text.join(between)
}

fn guard(compare: &pb::Compare) -> String {
    let (what, number) = match &compare.target_union {
        Some(TargetUnion::Version(version)) => ("version", version.to_string()),
        Some(TargetUnion::CreateRevision(revision)) => ("created", revision.to_string()),
        Some(TargetUnion::ModRevision(revision)) => ("modified", revision.to_string()),
        Some(TargetUnion::Value(value)) => ("value", show(value)),
        Some(TargetUnion::Lease(lease)) => ("lease", format!("{lease:x}")),
        None => ("nothing", String::new()),
    };
    let sign = match compare.result() {
        CompareResult::Equal => "=",
        CompareResult::Greater => ">",
        CompareResult::Less => "<",
        CompareResult::NotEqual => "≠",
    };
    format!("{what} of {} {sign} {number}", span(&compare.key, &compare.range_end))
}

fn branch(ops: &[pb::RequestOp]) -> String {
    if ops.is_empty() {
        return "nothing".to_owned();
    }
    some(ops, ", ", |op| match &op.request {
        Some(Request::RequestRange(request)) => format!("range {}", span(&request.key, &request.range_end)),
        Some(Request::RequestPut(request)) => format!("put {}", show(&request.key)),
        Some(Request::RequestDeleteRange(request)) => {
            format!("delete {}", span(&request.key, &request.range_end))
        }
        Some(Request::RequestTxn(request)) => transaction(request),
        None => "nothing".to_owned(),
    })
}

fn transaction(request: &pb::TxnRequest) -> String {
    let then = branch(&request.success);
    if request.compare.is_empty() {
        return format!("transaction [{then}]");
    }
    let guards = some(&request.compare, " and ", guard);
    format!("transaction [if {guards}: {then}; else: {}]", branch(&request.failure))
}

/// A call in a few words.
pub fn describe(op: &Op) -> String {
    let what = match &op.call {
        Call::Range(request) => {
            let kind = if request.serializable { "serializable range" } else { "range" };
            let at = if request.revision > 0 {
                format!(" at revision {}", request.revision)
            } else {
                String::new()
            };
            format!("{kind} of {}{at}", span(&request.key, &request.range_end))
        }
        Call::Put(request) => format!("put of {}", show(&request.key)),
        Call::DeleteRange(request) => format!("deletion of {}", span(&request.key, &request.range_end)),
        Call::Txn(request) => transaction(request),
        Call::Compact(request) => format!("compaction to {}", request.revision),
        Call::LeaseGrant(request) => format!("grant of lease {:x} for {} s", request.id, request.ttl),
        Call::LeaseRevoke(request) => format!("revocation of lease {:x}", request.id),
        Call::LeaseKeepAlive(request) => format!("renewal of lease {:x}", request.id),
        Call::LeaseTimeToLive(request) => format!("question for lease {:x}", request.id),
        other => other.name().to_owned(),
    };
    format!("client {}'s {what} (call {}, member {})", op.client, op.id, op.member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_told() {
        let compare = pb::Compare {
            result: CompareResult::Less as i32,
            key: "k".into(),
            target_union: Some(TargetUnion::ModRevision(3)),
            ..Default::default()
        };
        let put = pb::PutRequest { key: "a".into(), ..Default::default() };
        let put = pb::RequestOp { request: Some(Request::RequestPut(put)) };
        let range = pb::RangeRequest { key: "b".into(), range_end: "d".into(), ..Default::default() };
        let range = pb::RequestOp { request: Some(Request::RequestRange(range)) };
        let mut request =
            pb::TxnRequest { compare: vec![compare], success: vec![put; 5], failure: vec![range] };
        let told = "transaction [if modified of \"k\" < 3: put \"a\", put \"a\", put \"a\", 2 more; \
                    else: range \"b\"..\"d\"]";
        assert_eq!(transaction(&request), told);
        (request.compare, request.success) = (Vec::new(), Vec::new());
        assert_eq!(transaction(&request), "transaction [nothing]");
    }
}
