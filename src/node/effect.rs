//! What a node wants done.

use std::collections::BTreeMap;

use crate::{
    error::Refusal,
    raft::{Entry, HardState, Message, PersistId, Snapshot, StepError},
    state::Reply,
    types::{Index, LeaseId, NodeId, Term},
};

/// What a node wants done, in the order given.
#[derive(Debug)]
pub enum Effect<W> {
    /// Append to the log; answered by [`super::Event::Persisted`] once it is durable.
    Persist(Persist),
    /// Apply committed entries; answered by [`super::Event::Applied`].
    Apply(Vec<Entry>),
    /// Replace all state by the snapshot, whose body came with it; answered by [`super::Event::Applied`].
    Install(Snapshot),
    /// A snapshot was not wanted: its body can go.
    Discard(Index),
    /// Send messages; any may be lost.
    Send(Vec<Message>),
    /// Send a snapshot with its body; answered by [`super::Event::SnapshotSent`].
    SendSnapshot(Message),
    /// Make a snapshot of the applied state for a peer; answered by [`super::Event::SnapshotBuilt`].
    BuildSnapshot(NodeId),
    /// Flush the backend, write a snapshot file, let the log before it go; answered by a report's `flushed`.
    Checkpoint,
    /// Propose the revocation of leases that have run out in this term.
    RevokeLeases(Term, Vec<LeaseId>),
    /// Propose, in this term, how many seconds leases have left; 0 stands for all that were granted.
    CheckpointLeases(Term, Vec<(LeaseId, i64)>),
    /// Answer a client.
    Answer(W, Result<Answer, Refusal>),
    /// Who leads has changed.
    Lead(Lead),
    /// As this term's leader has found, the member's state is not the quorum's: propose etcd's CORRUPT alarm for
    /// it, unless it is raised. Comes again while that is so.
    Corrupt(Term, NodeId),
    /// Stop: another member's committed log is not this one's.
    Diverged(StepError),
}

/// A write to the log.
#[derive(Debug, Default)]
pub struct Persist {
    /// What its completion is called; None for one that nobody waits for.
    pub id: Option<PersistId>,
    /// A snapshot to name first, from a peer.
    pub snapshot: Option<Snapshot>,
    /// Entries to append, replacing those from the first one's index on.
    pub entries: Vec<Entry>,
    /// The hard state after them.
    pub hard: Option<HardState>,
    /// Whether it must be durable; a commit index alone need not be.
    pub sync: bool,
}

/// What a client gets.
#[derive(Debug)]
pub enum Answer {
    /// A command's reply.
    Applied(Reply),
    /// What is applied here is fresh.
    Fresh,
    /// A lease's seconds left; None if there is no such lease.
    Lease(Option<i64>),
    /// The seconds of each lease renewed; None for one that is not there.
    Leases(Vec<Option<i64>>),
    /// All leases, those that end first first.
    LeaseOrder(Vec<LeaseId>),
    /// The last index known to be in each member's log.
    Progress(BTreeMap<NodeId, Index>),
    /// Leadership has moved.
    Transferred,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// The term.
    pub term: Term,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
}
