//! What the API's handlers and the HTTP endpoints hold of the running member.

use std::sync::Arc;

use crate::{
    error::Refusal,
    membership::Member,
    runtime::Runtime,
    state::{Alarm, Command, Reply},
    types::{ClusterId, Index, LeaseId, NodeId, Revision, Term},
};

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

/// A lease's time to live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds left.
    pub ttl: i64,
    /// Seconds granted.
    pub granted: i64,
    /// The keys attached, sorted, if asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// A running member, for those who serve clients. Cheap to clone.
#[derive(Clone)]
pub struct Handle<R: Runtime> {
    inner: Arc<Inner<R>>,
}

struct Inner<R: Runtime> {
    runtime: R,
}
