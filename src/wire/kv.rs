//! The way between the requests of etcd's KV and Watch services and our own, and from watch frames to responses.
//!
//! Requests go both ways, since the log holds them too. A number that etcd's enums do not have is read as etcd
//! treats it: an unknown order as none, an unknown sort target as
//! [`SortTarget::Unknown`], an unknown comparison as [`CompareResult::Unknown`].

use super::{
    RawKeyValue,
    etcdserverpb::{self as pb, compare, range_request, request_op, watch_create_request, watch_request},
    mvccpb,
};
use crate::{
    mvcc::{
        Compare, CompareResult, CompareTarget, DeleteRequest, Op, PutRequest, RangeRequest, SortOrder,
        SortTarget, TxnRequest,
    },
    types::{KeyRange, LeaseId, Revision},
    watch::{Create, Frame, WatchEvent, WatchId, WatchRequest},
};

/// A comparison, its target or a sort target that etcd does not know.
const UNKNOWN: i32 = 99;

/// A range, as ours.
pub fn range(request: pb::RangeRequest) -> RangeRequest {
    let sort_order = match request.sort_order() {
        range_request::SortOrder::None => SortOrder::None,
        range_request::SortOrder::Ascend => SortOrder::Ascend,
        range_request::SortOrder::Descend => SortOrder::Descend,
    };
    let sort_target = match range_request::SortTarget::try_from(request.sort_target) {
        Ok(range_request::SortTarget::Key) => SortTarget::Key,
        Ok(range_request::SortTarget::Version) => SortTarget::Version,
        Ok(range_request::SortTarget::Create) => SortTarget::Create,
        Ok(range_request::SortTarget::Mod) => SortTarget::Mod,
        Ok(range_request::SortTarget::Value) => SortTarget::Value,
        Err(_) => SortTarget::Unknown,
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

/// A range, as etcd's.
pub fn range_to_wire(request: &RangeRequest) -> pb::RangeRequest {
    let sort_order = match request.sort_order {
        SortOrder::None => range_request::SortOrder::None,
        SortOrder::Ascend => range_request::SortOrder::Ascend,
        SortOrder::Descend => range_request::SortOrder::Descend,
    };
    let sort_target = match request.sort_target {
        SortTarget::Key => range_request::SortTarget::Key.into(),
        SortTarget::Version => range_request::SortTarget::Version.into(),
        SortTarget::Create => range_request::SortTarget::Create.into(),
        SortTarget::Mod => range_request::SortTarget::Mod.into(),
        SortTarget::Value => range_request::SortTarget::Value.into(),
        SortTarget::Unknown => UNKNOWN,
    };
    pb::RangeRequest {
        key: request.range.start.clone(),
        range_end: request.range.wire_end(),
        limit: request.limit,
        revision: request.revision.0,
        sort_order: sort_order.into(),
        sort_target,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision.0,
        max_mod_revision: request.max_mod_revision.0,
        min_create_revision: request.min_create_revision.0,
        max_create_revision: request.max_create_revision.0,
    }
}

/// A put, as ours.
pub fn put(request: pb::PutRequest) -> PutRequest {
    PutRequest {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A put, as etcd's.
pub fn put_to_wire(request: &PutRequest) -> pb::PutRequest {
    pb::PutRequest {
        key: request.key.clone(),
        value: request.value.clone(),
        lease: request.lease.0,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A deletion, as ours.
pub fn delete(request: pb::DeleteRangeRequest) -> DeleteRequest {
    DeleteRequest { range: KeyRange::from_wire(request.key, request.range_end), prev_kv: request.prev_kv }
}

/// A deletion, as etcd's.
pub fn delete_to_wire(request: &DeleteRequest) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: request.range.start.clone(),
        range_end: request.range.wire_end(),
        prev_kv: request.prev_kv,
    }
}

/// A transaction, as ours.
pub fn txn(request: pb::TxnRequest) -> TxnRequest {
    TxnRequest {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(op).collect(),
        failure: request.failure.into_iter().map(op).collect(),
    }
}

/// A transaction, as etcd's.
pub fn txn_to_wire(request: &TxnRequest) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: request.compare.iter().map(compare_to_wire).collect(),
        success: request.success.iter().map(op_to_wire).collect(),
        failure: request.failure.iter().map(op_to_wire).collect(),
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

fn op_to_wire(op: &Op) -> pb::RequestOp {
    let request = match op {
        Op::Range(request) => Some(request_op::Request::RequestRange(range_to_wire(request))),
        Op::Put(request) => Some(request_op::Request::RequestPut(put_to_wire(request))),
        Op::Delete(request) => Some(request_op::Request::RequestDeleteRange(delete_to_wire(request))),
        Op::Txn(request) => Some(request_op::Request::RequestTxn(txn_to_wire(request))),
        Op::Missing => None,
    };
    pb::RequestOp { request }
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

fn compare_to_wire(compare: &Compare) -> pb::Compare {
    use compare::{CompareTarget as Target, TargetUnion as Union};
    let result = match compare.result {
        CompareResult::Equal => compare::CompareResult::Equal.into(),
        CompareResult::Greater => compare::CompareResult::Greater.into(),
        CompareResult::Less => compare::CompareResult::Less.into(),
        CompareResult::NotEqual => compare::CompareResult::NotEqual.into(),
        CompareResult::Unknown => UNKNOWN,
    };
    let (target, target_union) = match &compare.target {
        CompareTarget::Version(n) => (Target::Version.into(), Some(Union::Version(*n))),
        CompareTarget::Create(revision) => (Target::Create.into(), Some(Union::CreateRevision(revision.0))),
        CompareTarget::Mod(revision) => (Target::Mod.into(), Some(Union::ModRevision(revision.0))),
        CompareTarget::Value(bytes) => (Target::Value.into(), Some(Union::Value(bytes.clone()))),
        CompareTarget::Lease(lease) => (Target::Lease.into(), Some(Union::Lease(lease.0))),
        CompareTarget::Unknown => (UNKNOWN, None),
    };
    pb::Compare {
        result,
        target,
        key: compare.range.start.clone(),
        range_end: compare.range.wire_end(),
        target_union,
    }
}

/// What a client asks of its stream of watches; None for an empty request, which etcd ignores.
pub fn watch_request(request: pb::WatchRequest) -> Option<WatchRequest> {
    Some(match request.request_union? {
        watch_request::RequestUnion::CreateRequest(request) => WatchRequest::Create(watch_create(request)),
        watch_request::RequestUnion::CancelRequest(request) => {
            WatchRequest::Cancel { id: WatchId(request.watch_id) }
        }
        watch_request::RequestUnion::ProgressRequest(_) => WatchRequest::Progress,
    })
}

fn watch_create(request: pb::WatchCreateRequest) -> Create {
    let filtered = |kind| request.filters().any(|filter| filter == kind);
    let (no_put, no_delete) = (
        filtered(watch_create_request::FilterType::Noput),
        filtered(watch_create_request::FilterType::Nodelete),
    );
    // An empty key stands for the least one, also where the range's end decides whether it is empty.
    let key = if request.key.is_empty() { bytes::Bytes::from_static(&[0]) } else { request.key };
    Create {
        range: KeyRange::from_wire(key, request.range_end),
        start: Revision(request.start_revision),
        progress_notify: request.progress_notify,
        no_put,
        no_delete,
        prev_kv: request.prev_kv,
        watch_id: WatchId(request.watch_id),
        fragment: request.fragment,
    }
}

/// A frame as a response; `header`'s revision is the frame's.
pub fn watch_response(frame: Frame, header: pb::ResponseHeader) -> pb::WatchResponse {
    pb::WatchResponse {
        header: Some(pb::ResponseHeader { revision: frame.revision.0, ..header }),
        watch_id: frame.watch_id.0,
        created: frame.created,
        canceled: frame.canceled,
        compact_revision: frame.compact_revision.0,
        cancel_reason: frame.cancel_reason.into_owned(),
        fragment: frame.fragment,
        events: frame.events.into_iter().map(event).collect(),
    }
}

fn event(event: WatchEvent) -> mvccpb::Event {
    let kind = if event.deleted { mvccpb::event::EventType::Delete } else { mvccpb::event::EventType::Put };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(RawKeyValue(event.kv.0)),
        prev_kv: event.prev_kv.map(|kv| RawKeyValue(kv.0)),
    }
}
