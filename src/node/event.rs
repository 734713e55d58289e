//! What a node is told.

use bytes::Bytes;

use crate::{
    error::Refusal,
    membership::Change,
    raft::{Message, PersistId, Snapshot, StateMark},
    state::{LeaseChange, Reply},
    types::{Index, Instant, LeaseId, NodeId, Term},
};

/// What a node is told. `W` is whoever waits for an answer: opaque, handed back with it.
#[derive(Debug)]
pub enum Event<W> {
    /// Time has passed; comes once a tick.
    Tick(Instant),
    /// A peer's message.
    Message(Message),
    /// A peer's link is down: a message to it was dropped.
    Unreachable(NodeId),
    /// A snapshot went out whole, or did not.
    SnapshotSent {
        /// To whom.
        to: NodeId,
        /// Whether the other end took it.
        ok: bool,
    },
    /// A snapshot came in, and its body is being looked at, which may take long. [`Event::SnapshotReceived`] or
    /// [`Event::SnapshotUnfit`] follows.
    SnapshotArrived,
    /// A snapshot that came in is of no use.
    SnapshotUnfit,
    /// A snapshot came in with its body, which is durable and whole.
    SnapshotReceived {
        /// Who sent it.
        from: NodeId,
        /// Its term.
        term: Term,
        /// What raft is to know of it.
        snapshot: Snapshot,
    },
    /// The snapshot that [`super::Effect::BuildSnapshot`] asked for; None if it could not be made.
    SnapshotBuilt {
        /// For whom.
        to: NodeId,
        /// It.
        snapshot: Option<Snapshot>,
    },
    /// The log has this write, and all before it, durable.
    Persisted(PersistId),
    /// The applier did something.
    Applied(Report),
    /// A client's.
    Request(Request<W>),
}

/// What a client wants of the node.
#[derive(Debug)]
pub enum Request<W> {
    /// Puts a command into the log and waits for its reply.
    Propose {
        /// The command's id, which is also in its bytes.
        id: u64,
        /// The encoded command.
        payload: Bytes,
        /// Who waits.
        waiter: W,
    },
    /// Puts a command of the leader's own into the log, if this member still leads in `term`: a follower's would be
    /// forwarded, and end a lease that its new leader has renewed.
    AsLeader {
        /// The term in which the leader found it due.
        term: Term,
        /// The encoded command.
        payload: Bytes,
    },
    /// Puts a configuration change into the log and waits for its reply.
    Change {
        /// The change's id.
        id: u64,
        /// The change.
        change: Change,
        /// Who waits.
        waiter: W,
    },
    /// Waits until what this member has applied is not older than the request.
    Read {
        /// Who waits.
        waiter: W,
    },
    /// Renews leases; only a leader can.
    RenewLeases {
        /// Which.
        leases: Vec<LeaseId>,
        /// Who waits.
        waiter: W,
    },
    /// Asks for a lease's remaining seconds; only a leader knows.
    LeaseRemaining {
        /// Which.
        lease: LeaseId,
        /// Who waits.
        waiter: W,
    },
    /// Asks in which order the leases end; only a leader knows.
    LeaseOrder {
        /// Who waits.
        waiter: W,
    },
    /// Asks how far each member has come; only a leader knows.
    Progress {
        /// Who waits.
        waiter: W,
    },
    /// Hands leadership over; only a leader can.
    Transfer {
        /// To whom.
        to: NodeId,
        /// Who waits.
        waiter: W,
    },
}

/// What the applier did with a run of entries, or a snapshot.
#[derive(Debug, Default)]
pub struct Report {
    /// The last entry applied.
    pub index: Index,
    /// The state hash there.
    pub mark: Option<StateMark>,
    /// The state hashes on the way there at which members' marks meet.
    pub marks: Vec<StateMark>,
    /// Replies by request id.
    pub replies: Vec<(u64, Result<Reply, Refusal>)>,
    /// What became of leases.
    pub leases: Vec<LeaseChange>,
    /// The configuration changes among the entries, in order, made void where the roster refused them.
    pub changes: Vec<(Index, Change)>,
    /// All leases with TTL and remaining seconds, when a snapshot replaced them.
    pub leases_replaced: Option<Vec<(LeaseId, i64, i64)>>,
    /// The index up to which the backend has been flushed, when it has been.
    pub flushed: Option<Index>,
}
