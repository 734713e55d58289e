//! What each call needs, and by which state its member decides whether that is permitted.

use bytes::Bytes;
use kontiki::wire::etcdserverpb::{self as pb, request_op::Request};

use super::{kv::Span, request::txn_is_serializable, rights::Need};
use crate::history::Call;

/// By which state it is decided whether a call is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The newest: it goes through the log, or reads behind a barrier.
    Newest,
    /// What its member has applied.
    Applied,
}

fn read(key: &Bytes, end: &Bytes) -> Need {
    Need::Read(Span::new(key, end))
}

fn put(request: &pb::PutRequest) -> Vec<Need> {
    let mut needs = vec![Need::Write(Span::one(&request.key))];
    if request.lease != 0 {
        needs.push(Need::WriteLeased(request.lease));
    }
    if request.prev_kv {
        needs.push(Need::Read(Span::one(&request.key)));
    }
    needs
}

fn delete(request: &pb::DeleteRangeRequest) -> Vec<Need> {
    let mut needs = vec![Need::Write(Span::new(&request.key, &request.range_end))];
    if request.prev_kv {
        needs.push(read(&request.key, &request.range_end));
    }
    needs
}

/// Both branches count, whichever is taken.
fn txn(request: &pb::TxnRequest) -> Vec<Need> {
    let compares = request.compare.iter().map(|compare| read(&compare.key, &compare.range_end));
    let mut needs: Vec<Need> = compares.collect();
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => needs.push(read(&range.key, &range.range_end)),
            Some(Request::RequestPut(request)) => needs.extend(put(request)),
            Some(Request::RequestDeleteRange(request)) => needs.extend(delete(request)),
            Some(Request::RequestTxn(nested)) => needs.extend(txn(nested)),
            None => {}
        }
    }
    needs
}

const fn unless_serializable(serializable: bool) -> By {
    if serializable { By::Applied } else { By::Newest }
}

/// What a call needs, and by which state that is decided; none for calls that are not judged.
pub(super) fn judged_by(call: &Call) -> Option<(By, Vec<Need>)> {
    Some(match call {
        Call::Range(range) => {
            (unless_serializable(range.serializable), vec![read(&range.key, &range.range_end)])
        }
        Call::Put(request) => (By::Newest, put(request)),
        Call::DeleteRange(request) => (By::Newest, delete(request)),
        Call::Txn(request) => (unless_serializable(txn_is_serializable(request)), txn(request)),
        Call::LeaseLeases(_) => (By::Applied, vec![Need::User, Need::ReadAllLeased]),
        Call::LeaseRevoke(pb::LeaseRevokeRequest { id })
        | Call::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }) => {
            (By::Applied, vec![Need::User, Need::WriteLeased(*id)])
        }
        Call::LeaseTimeToLive(asked) if asked.keys => {
            (By::Applied, vec![Need::User, Need::ReadLeased(asked.id)])
        }
        Call::UserGet(request) => (By::Newest, vec![Need::SameUser(request.name.clone())]),
        Call::RoleGet(request) => (By::Newest, vec![Need::OwnRole(request.role.clone())]),
        Call::LeaseTimeToLive(_)
        | Call::LeaseGrant(_)
        | Call::Status(_)
        | Call::MemberList(_)
        | Call::Alarm(_) => (By::Applied, vec![Need::User]),
        Call::Compact(_)
        | Call::MemberAdd(_)
        | Call::MemberRemove(_)
        | Call::MemberUpdate(_)
        | Call::MemberPromote(_)
        | Call::Defragment(_)
        | Call::Hash(_)
        | Call::HashKv(_)
        | Call::MoveLeader(_)
        | Call::Downgrade(_) => (By::Applied, vec![Need::Root]),
        Call::AuthEnable(_)
        | Call::AuthDisable(_)
        | Call::AuthStatus(_)
        | Call::UserAdd(_)
        | Call::UserList(_)
        | Call::UserDelete(_)
        | Call::UserChangePassword(_)
        | Call::UserGrantRole(_)
        | Call::UserRevokeRole(_)
        | Call::RoleAdd(_)
        | Call::RoleList(_)
        | Call::RoleDelete(_)
        | Call::RoleGrantPermission(_)
        | Call::RoleRevokePermission(_) => (By::Newest, vec![Need::Root]),
        Call::Lock(_)
        | Call::Unlock(_)
        | Call::Campaign(_)
        | Call::Proclaim(_)
        | Call::Leader(_)
        | Call::Resign(_)
        | Call::Authenticate(_) => return None,
    })
}
