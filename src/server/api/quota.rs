//! Refuses writes before they reach the log when the store has grown to its quota.

use super::Member;
use crate::{
    auth::Who,
    error::Refusal,
    mvcc,
    state::{Alarm, AlarmAction, AlarmKind, Command},
    wire::etcdserverpb::{PutRequest, TxnRequest, request_op},
};

/// What a put takes besides its key and value.
const PUT_OVERHEAD_BYTES: u64 = 256;

/// What a lease takes.
pub(super) const LEASE_BYTES: u64 = 64;

/// What a put takes.
pub(super) fn put(request: &PutRequest) -> u64 {
    put_bytes(&request.key, &request.value)
}

/// The same of one of our own.
pub(super) fn put_of(request: &mvcc::PutRequest) -> u64 {
    put_bytes(&request.key, &request.value)
}

fn put_bytes(key: &[u8], value: &[u8]) -> u64 {
    PUT_OVERHEAD_BYTES + key.len() as u64 + value.len() as u64
}

/// What the dearer branch of a transaction takes, nested ones aside, which etcd does not count; None if
/// neither branch puts.
pub(super) fn txn(request: &TxnRequest) -> Option<u64> {
    let cost = |ops: &[crate::wire::etcdserverpb::RequestOp]| {
        ops.iter()
            .map(|op| match &op.request {
                Some(request_op::Request::RequestPut(request)) => put(request),
                Some(request_op::Request::RequestRange(_))
                | Some(request_op::Request::RequestDeleteRange(_))
                | Some(request_op::Request::RequestTxn(_))
                | None => 0,
            })
            .sum::<u64>()
    };
    let dearer = cost(&request.success).max(cost(&request.failure));
    (dearer > 0).then_some(dearer)
}

/// Refuses what would take the store to its quota, and raises this member's alarm if it is not raised yet.
pub(super) async fn check<M: Member>(member: &M, cost: u64) -> Result<(), Refusal> {
    if member.db_size().saturating_add(cost) < member.limits().quota_bytes_max {
        return Ok(());
    }
    let alarm = Alarm { member: member.header().member, kind: AlarmKind::NoSpace };
    if !member.status().alarms.contains(&alarm) {
        // Refused either way: the alarm tells the other members, and the next write raises it again.
        let _ = member.propose(Who::default(), Command::Alarm { action: AlarmAction::Activate, alarm }).await;
    }
    Err(Refusal::NoSpace)
}
