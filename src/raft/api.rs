//! What goes into [`Raft`](super::Raft) and what comes out of it.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{ConfState, Entry, HardState, Message, Payload, Snapshot, SnapshotMeta, StateMark};
use crate::{
    membership::{Change, ConfigError},
    types::{Index, NodeId, Term},
};

/// How a member behaves. Times are in ticks, sizes in bytes of payload.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Who this member is; not 0.
    pub id: NodeId,
    /// A follower campaigns after this many ticks without a leader, up to twice as many by chance.
    pub election_ticks: u64,
    /// A leader sends heartbeats this often; less than `election_ticks`.
    pub heartbeat_ticks: u64,
    /// Seeds the election jitter and the ids of forwarded reads. It must differ between incarnations of a
    /// member, or a late answer to the last one's read could be taken for an answer to this one's.
    pub seed: u64,
    /// An append carries entries of at most this size, or one entry.
    pub append_bytes_max: usize,
    /// At most this many appends with entries are under way to one peer.
    pub inflight_max: usize,
    /// At most this size of entries is under way to one peer, or one append.
    pub inflight_bytes_max: usize,
    /// A leader refuses proposals while entries of this size are not committed.
    pub uncommitted_bytes_max: usize,
    /// One [`Ready`] hands out committed entries of at most this size, or one entry.
    pub committed_bytes_max: usize,
    /// At most this many reads wait for their index.
    pub reads_max: usize,
    /// Ask whether an election could be won before the term goes up (thesis section 9.6).
    pub pre_vote: bool,
    /// A leader that hears from no quorum for an election timeout steps down, and members that hear from a
    /// leader ignore candidates (thesis sections 6.2 and 4.2.3).
    pub check_quorum: bool,
    /// A leader steps down, and nobody campaigns, while a log write has been outstanding for more ticks.
    pub persist_ticks_max: u64,
    /// A snapshot whose sending is not reported after this many ticks counts as lost.
    pub snapshot_ticks_max: u64,
}

impl Config {
    /// The defaults for member `id`, at etcd's ten ticks an election.
    pub fn new(id: NodeId, seed: u64) -> Self {
        Self {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            seed,
            append_bytes_max: 512 * 1024,
            inflight_max: 512,
            inflight_bytes_max: 64 << 20,
            uncommitted_bytes_max: 256 << 20,
            committed_bytes_max: 16 << 20,
            reads_max: 65_536,
            pre_vote: true,
            check_quorum: true,
            persist_ticks_max: 10,
            snapshot_ticks_max: 6_000,
        }
    }
}

/// What a member has on its disk when it starts. All of it counts as durable.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last hard state.
    pub hard: HardState,
    /// The base of the log.
    pub snapshot: SnapshotMeta,
    /// The log after the base, without a gap.
    pub entries: Vec<Entry>,
    /// The newest entry that the state machine has durably; not before the base, nor after the log's end.
    pub applied: Index,
    /// The configuration there.
    pub config: ConfState,
}

/// Why stored state can't be started from. It is corruption: a short log may not vote.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The log has a gap, or terms that go down.
    #[error("the log is not one log at index {0}")]
    Log(Index),
    /// The log ends before what is known to be committed.
    #[error("the log ends at index {last}, before {what} at index {index}")]
    Short {
        /// Where it ends.
        last: Index,
        /// What needs more.
        what: &'static str,
        /// How far it goes.
        index: Index,
    },
    /// The state machine is behind the log's base.
    #[error("the state machine is at index {applied}, before the log's base at index {base}")]
    Gap {
        /// Where the state machine is.
        applied: Index,
        /// Where the log begins.
        base: Index,
    },
    /// The stored configuration contradicts itself.
    #[error("the stored configuration is not one: {0}")]
    Configuration(#[from] ConfigError),
}

/// The caller's id of a read; not used twice in one incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Names one log write. Ids go up; the acknowledgement of one acknowledges all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistId(pub u64);

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum Input {
    /// A tick of the clock. Never withheld because a disk or a state machine is busy.
    Tick,
    /// A message came. Errors are of interest to a log only, but for [`StepError::Diverged`].
    Receive(Message),
    /// A client proposes. Either all payloads enter the log (or go to the leader) or none.
    Propose(Vec<Payload>),
    /// A client wants to read: [`Ready::reads`] gives the index to wait for, or [`Ready::reads_dropped`].
    Read(ReadId),
    /// The write named so, and all before it, is durable.
    Persisted(PersistId),
    /// The state machine has applied up to here.
    Applied(Index),
    /// The state machine applies this committed change of the configuration (before `Applied` of its index).
    /// One that it refused comes neutralised: its steps name node 0. Ignored if the configuration of a snapshot
    /// that was received meanwhile is newer.
    ApplyChange {
        /// The index of its entry.
        index: Index,
        /// It.
        change: Change,
    },
    /// Campaign now, if allowed.
    Campaign,
    /// Hand leadership to this voter.
    Transfer(NodeId),
    /// Messages to this peer get lost.
    Unreachable(NodeId),
    /// The snapshot that [`Ready::need_snapshot`] asked for: of the applied state, not before the log's base.
    SnapshotBuilt {
        /// For whom.
        to: NodeId,
        /// It.
        snapshot: Snapshot,
    },
    /// A snapshot's body has been sent (`ok`), or could not be built or sent.
    SnapshotSent {
        /// To whom.
        to: NodeId,
        /// Whether all of it was.
        ok: bool,
    },
    /// Drop entries up to here from memory; they are applied, and in a durable snapshot or flush.
    Compact(Index),
    /// The state hash that heartbeats are to carry from now on.
    Mark(StateMark),
}

/// Why an input had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// The proposal was dropped; it is not in any log.
    #[error("proposal dropped: {0}")]
    ProposalDropped(Dropped),
    /// The read was dropped.
    #[error("read dropped: {0}")]
    ReadDropped(Dropped),
    /// A change is on its way, or the leader has not yet committed an entry of its term.
    #[error("another change of the configuration may be on its way")]
    ChangePending,
    /// The change is not legal from the configuration as it is.
    #[error("illegal change: {0}")]
    ChangeIllegal(#[from] ConfigError),
    /// Leadership can't go to this member.
    #[error("{0} can't take over leadership")]
    BadTransferee(NodeId),
    /// A message that no correct member sends. It was ignored.
    #[error("malformed message from {from}: {what}")]
    Malformed {
        /// Who sent it.
        from: NodeId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A message contradicts a committed entry: this member's log or the sender's is not the cluster's. It was
    /// ignored; the node should stop.
    #[error("{from} has another entry at index {index} than the one committed here")]
    Diverged {
        /// Who sent it.
        from: NodeId,
        /// Where.
        index: Index,
    },
    /// The caller asks for what its own state rules out.
    #[error("out of order: {0}")]
    OutOfOrder(&'static str),
}

/// Why a proposal or a read was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Dropped {
    /// There is no leader that could take it.
    #[error("no leader")]
    NoLeader,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// Too much is on its way already.
    #[error("too much is on its way")]
    Overload,
}

/// A member's role, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RoleKind {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// Who leads, in which term, and what this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The term.
    pub term: Term,
    /// This member's role.
    pub role: RoleKind,
    /// The leader, if known.
    pub leader: Option<NodeId>,
}

/// What is to be done. The parts don't wait for each other but where it says so.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// To be written behind `entries`, if any.
    pub hard: Option<HardState>,
    /// To be installed as the log's new base, dropping the log before, ahead of `entries`. Its index is above
    /// all that was handed out as committed; entries handed out before may still be in the applier's queue.
    /// Entries behind it are handed out as soon as its write is acknowledged, so the state machine's part of it
    /// goes into the applier's queue before that.
    pub snapshot: Option<Snapshot>,
    /// To be appended. The first may lie before the log's end: what was from there on is replaced.
    pub entries: Vec<Entry>,
    /// To be given back as [`Input::Persisted`] once `snapshot`, `entries` and `hard` of this and all earlier
    /// ones are durable.
    pub persist: Option<PersistId>,
    /// Whether it must be synced: as `persist` is there. A hard state with nothing but a new commit index may
    /// just be written.
    pub must_sync: bool,
    /// To be sent, at once, whatever the disk does.
    pub messages: Vec<Message>,
    /// To be applied, in order: committed, and durable here, so that the state machine never outruns the log.
    pub committed: Vec<Entry>,
    /// Reads, each with the index that the state machine must have applied before it is answered.
    pub reads: Vec<(ReadId, Index)>,
    /// Reads that got no index, because the leader changed or went.
    pub reads_dropped: Vec<ReadId>,
    /// The new standing, if it changed.
    pub standing: Option<Standing>,
    /// Peers that need a snapshot: to be answered with [`Input::SnapshotBuilt`], or with
    /// [`Input::SnapshotSent`] and not `ok`.
    pub need_snapshot: Vec<NodeId>,
}

/// Where the leader stands with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The last index that the peer is known to hold durably.
    pub matched: Index,
    /// The next index to send.
    pub next: Index,
    /// How appends are sent.
    pub state: PeerState,
    /// Whether the peer was heard of since the last check of the quorum.
    pub recent_active: bool,
    /// Appends with entries that are under way.
    pub inflight: usize,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// One append at a time, until the peer's log is known.
    Probe,
    /// A pipeline of appends.
    Replicate,
    /// Nothing until a snapshot has arrived.
    Snapshot,
}

/// The leader's view of all peers, itself included.
pub type PeerStatuses = BTreeMap<NodeId, PeerStatus>;
