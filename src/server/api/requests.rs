//! Requests as ours.

use crate::{
    mvcc::{
        Compare, CompareResult, CompareTarget, DeleteRequest, Op, PutRequest, RangeRequest, SortOrder,
        SortTarget, TxnRequest,
    },
    types::{KeyRange, LeaseId, Revision},
    wire::etcdserverpb::{self as pb, compare, range_request, request_op},
};

pub(super) fn range(request: pb::RangeRequest) -> RangeRequest {
    let sort_order = match request.sort_order() {
        range_request::SortOrder::None => SortOrder::None,
        range_request::SortOrder::Ascend => SortOrder::Ascend,
        range_request::SortOrder::Descend => SortOrder::Descend,
    };
    let sort_target = match request.sort_target() {
        range_request::SortTarget::Key => SortTarget::Key,
        range_request::SortTarget::Version => SortTarget::Version,
        range_request::SortTarget::Create => SortTarget::Create,
        range_request::SortTarget::Mod => SortTarget::Mod,
        range_request::SortTarget::Value => SortTarget::Value,
    };
    RangeRequest {
        range: KeyRange::from_wire(request.key, request.range_end),
        limit: request.limit,
        revision: Revision(request.revision),
        sort_order,
        sort_target,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: Revision(request.min_mod_revision),
        max_mod_revision: Revision(request.max_mod_revision),
        min_create_revision: Revision(request.min_create_revision),
        max_create_revision: Revision(request.max_create_revision),
    }
}

pub(super) fn put(request: pb::PutRequest) -> PutRequest {
    PutRequest {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete(request: pb::DeleteRangeRequest) -> DeleteRequest {
    DeleteRequest { range: KeyRange::from_wire(request.key, request.range_end), prev_kv: request.prev_kv }
}

pub(super) fn txn(request: pb::TxnRequest) -> TxnRequest {
    TxnRequest {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(op).collect(),
        failure: request.failure.into_iter().map(op).collect(),
    }
}

fn op(op: pb::RequestOp) -> Op {
    match op.request {
        Some(request_op::Request::RequestRange(request)) => Op::Range(range(request)),
        Some(request_op::Request::RequestPut(request)) => Op::Put(put(request)),
        Some(request_op::Request::RequestDeleteRange(request)) => Op::Delete(delete(request)),
        Some(request_op::Request::RequestTxn(request)) => Op::Txn(txn(request)),
        None => Op::Missing,
    }
}

fn compare(compare: pb::Compare) -> Compare {
    let result = match compare::CompareResult::try_from(compare.result) {
        Ok(compare::CompareResult::Equal) => CompareResult::Equal,
        Ok(compare::CompareResult::Greater) => CompareResult::Greater,
        Ok(compare::CompareResult::Less) => CompareResult::Less,
        Ok(compare::CompareResult::NotEqual) => CompareResult::NotEqual,
        Err(_) => CompareResult::Unknown,
    };
    let target = compare::CompareTarget::try_from(compare.target);
    Compare {
        range: KeyRange::from_wire(compare.key, compare.range_end),
        target: operand(target.ok(), compare.target_union),
        result,
    }
}

/// An operand of another kind than the target counts as 0 or empty.
fn operand(target: Option<compare::CompareTarget>, union: Option<compare::TargetUnion>) -> CompareTarget {
    use compare::{CompareTarget as Target, TargetUnion as Union};
    match (target, union) {
        (Some(Target::Version), Some(Union::Version(n))) => CompareTarget::Version(n),
        (Some(Target::Version), _) => CompareTarget::Version(0),
        (Some(Target::Create), Some(Union::CreateRevision(n))) => CompareTarget::Create(Revision(n)),
        (Some(Target::Create), _) => CompareTarget::Create(Revision(0)),
        (Some(Target::Mod), Some(Union::ModRevision(n))) => CompareTarget::Mod(Revision(n)),
        (Some(Target::Mod), _) => CompareTarget::Mod(Revision(0)),
        (Some(Target::Value), Some(Union::Value(bytes))) => CompareTarget::Value(bytes),
        (Some(Target::Value), _) => CompareTarget::Value(bytes::Bytes::new()),
        (Some(Target::Lease), Some(Union::Lease(n))) => CompareTarget::Lease(LeaseId(n)),
        (Some(Target::Lease), _) => CompareTarget::Lease(LeaseId(0)),
        (None, _) => CompareTarget::Unknown,
    }
}
