//! What a request needs, as one flat list: branches and nested transactions count, whichever would run.

use bytes::Bytes;

use super::action::Action;
use crate::{
    mvcc::{DeleteRequest, Op, PutRequest, RangeRequest, TxnRequest},
    types::{KeyRange, LeaseId},
};

/// One thing that whoever asks must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be a user at all.
    User,
    /// To have the role root.
    Root,
    /// To be this user, or to have the role root.
    SameUser(String),
    /// To have this role, or the role root.
    OwnRole(String),
    /// To read these keys.
    Read(KeyRange),
    /// To write them.
    Write(KeyRange),
    /// To read each key that is attached to a lease.
    ReadLeased(LeaseId),
    /// To write each of them.
    WriteLeased(LeaseId),
    /// To read each key that is attached to any lease.
    ReadAllLeased,
}

impl Need {
    /// Whether it takes the leases to decide it.
    pub const fn asks_leases(&self) -> bool {
        match self {
            Self::ReadLeased(_) | Self::WriteLeased(_) | Self::ReadAllLeased => true,
            Self::User
            | Self::Root
            | Self::SameUser(_)
            | Self::OwnRole(_)
            | Self::Read(_)
            | Self::Write(_) => false,
        }
    }

    /// Of a range.
    pub fn of_range(request: &RangeRequest) -> Vec<Self> {
        vec![Self::Read(request.range.clone())]
    }

    /// Of a put.
    pub fn of_put(request: &PutRequest) -> Vec<Self> {
        let mut needs = Vec::new();
        put(request, &mut needs);
        needs
    }

    /// Of a deletion.
    pub fn of_delete(request: &DeleteRequest) -> Vec<Self> {
        let mut needs = Vec::new();
        delete(request, &mut needs);
        needs
    }

    /// Of a transaction.
    pub fn of_txn(request: &TxnRequest) -> Vec<Self> {
        let mut needs = Vec::new();
        txn(request, &mut needs);
        needs
    }

    /// Of a request about users and roles.
    pub fn of_action(action: &Action) -> Vec<Self> {
        match action {
            // Whose password was right needs no more.
            Action::Authenticate { .. } => Vec::new(),
            Action::UserGet { user } => vec![Self::SameUser(user.clone())],
            Action::RoleGet { role } => vec![Self::OwnRole(role.clone())],
            Action::Enable
            | Action::Disable
            | Action::Status
            | Action::UserAdd { .. }
            | Action::UserDelete { .. }
            | Action::UserChangePassword { .. }
            | Action::UserGrantRole { .. }
            | Action::UserRevokeRole { .. }
            | Action::UserList
            | Action::RoleAdd { .. }
            | Action::RoleDelete { .. }
            | Action::RoleGrant { .. }
            | Action::RoleRevoke { .. }
            | Action::RoleList => vec![Self::Root],
        }
    }
}

fn single(key: &Bytes) -> KeyRange {
    KeyRange::single(key.clone())
}

fn put(request: &PutRequest, needs: &mut Vec<Need>) {
    needs.push(Need::Write(single(&request.key)));
    // Whoever may not revoke a lease may not hang on to it, either.
    if request.lease != LeaseId(0) {
        needs.push(Need::WriteLeased(request.lease));
    }
    if request.prev_kv {
        needs.push(Need::Read(single(&request.key)));
    }
}

fn delete(request: &DeleteRequest, needs: &mut Vec<Need>) {
    needs.push(Need::Write(request.range.clone()));
    if request.prev_kv {
        needs.push(Need::Read(request.range.clone()));
    }
}

fn txn(request: &TxnRequest, needs: &mut Vec<Need>) {
    needs.extend(request.compare.iter().map(|compare| Need::Read(compare.range.clone())));
    for op in request.success.iter().chain(&request.failure) {
        match op {
            Op::Range(request) => needs.push(Need::Read(request.range.clone())),
            Op::Put(request) => put(request, needs),
            Op::Delete(request) => delete(request, needs),
            Op::Txn(request) => txn(request, needs),
            Op::Missing => {}
        }
    }
}
