//! What the API's handlers and the HTTP endpoints hold of the running member.

use crate::{
    state::Alarm,
    types::{ClusterId, Index, NodeId, Revision, Term},
};

pub use crate::runtime::LeaseInfo;

/// A response's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub cluster: ClusterId,
    pub member: NodeId,
    pub revision: Revision,
    pub term: Term,
}

/// How the member does.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Status {
    pub leader: Option<NodeId>,
    pub term: Term,
    pub last_index: Index,
    pub committed: Index,
    pub applied: Index,
    pub learner: bool,
    /// Bytes that the store takes, and those in use.
    pub db_size: u64,
    pub db_size_in_use: u64,
    pub alarms: Vec<Alarm>,
    /// `3.5.0` form; None until the leader has decided.
    pub cluster_version: Option<String>,
}
