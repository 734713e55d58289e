//! What committed entries ask of the state machine, and what it answers.

use crate::{
    auth::{Action, Outcome, Session},
    error::Refusal,
    membership::{Change, Member},
    mvcc::{
        DeleteRequest, DeleteResponse, Event, PutRequest, PutResponse, RangeRequest, RangeResponse,
        TxnRequest, TxnResponse,
    },
    raft::StateMark,
    types::{Index, LeaseId, NodeId, Revision, Term},
};

/// Why a member raises an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// etcd's NONE: all kinds in a query, nothing in an activation.
    None,
    /// The quota is used up.
    NoSpace,
    /// Its data differ from the quorum's.
    Corrupt,
}

/// One member's alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Whose.
    pub member: NodeId,
    /// Why.
    pub kind: AlarmKind,
}

/// What is done about an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AlarmAction {
    Get,
    Activate,
    Deactivate,
}

/// A request that went through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The proposer's id of it; its member waits for it. 0 for none.
    pub id: u64,
    /// Who asked; empty while authorization is off.
    pub user: String,
    /// The authorization revision that the asker was checked at.
    pub auth_revision: u64,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(TxnRequest),
    Compact {
        revision: Revision,
    },
    LeaseGrant {
        id: LeaseId,
        /// Seconds, as asked; the minimum is applied by who proposes.
        ttl: i64,
    },
    LeaseRevoke {
        id: LeaseId,
    },
    /// Remaining seconds of leases.
    LeaseCheckpoint(Vec<(LeaseId, i64)>),
    Alarm {
        action: AlarmAction,
        alarm: Alarm,
    },
    SetClusterVersion(String),
    SetMemberAttributes {
        id: NodeId,
        name: String,
        client_urls: Vec<String>,
    },
    SetDowngrade {
        enabled: bool,
        version: String,
    },
    /// About users and roles.
    Auth(Action),
    /// What has no effect here, though it takes an index: reads that etcd logs, upkeep of its v2 API.
    Nothing,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteResponse),
    Txn(TxnResponse),
    Compact,
    LeaseGrant { id: LeaseId, ttl: i64 },
    LeaseRevoke,
    LeaseCheckpoint,
    Alarms(Vec<Alarm>),
    Members(Vec<Member>),
    Auth(Outcome),
    Done,
}

/// What the leader's clock must know of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Granted, with its TTL in seconds.
    Granted(LeaseId, i64),
    /// Gone.
    Revoked(LeaseId),
    /// Has so many seconds left.
    Checkpointed(LeaseId, i64),
}

/// A committed change of the configuration, as raft is to apply it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// Its entry.
    pub index: Index,
    /// It; neutralised (its steps name node 0) if the roster refused it.
    pub change: Change,
}

/// How many indices apart the state hashes are that each member gives.
pub const MARK_EVERY: u64 = 64;

/// What a run of entries did. The batch has been handed out beside it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The last entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The store's revision after it.
    pub revision: Revision,
    /// The state hash there; None while it is not known, after another program's data were taken over.
    pub mark: Option<StateMark>,
    /// The state hashes at those of the entries whose index is a multiple of [`MARK_EVERY`], in order: members'
    /// runs end anywhere, and only marks at the same index can be compared.
    pub marks: Vec<StateMark>,
    /// The replies, by request id.
    pub replies: Vec<(u64, Result<Reply, Refusal>)>,
    /// The changes of keys, in order.
    pub events: Vec<Event>,
    /// The changes of leases, in order.
    pub leases: Vec<LeaseChange>,
    /// The revision that was compacted to, if any was.
    pub compacted: Option<Revision>,
    /// The changes of the configuration, in order.
    pub changes: Vec<ConfChange>,
    /// Whether the members changed, or what is known of one.
    pub members_changed: bool,
    /// Whether an alarm was raised or taken back.
    pub alarms_changed: bool,
    /// Whether users, roles, or whether authorization is on may have changed.
    pub auth_changed: bool,
    /// What becomes of tokens, in order.
    pub sessions: Vec<Session>,
}
