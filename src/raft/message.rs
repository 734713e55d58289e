//! What raft's members say to each other, and what their log holds.
//!
//! These are raft's own types; `wire::raft` gives them etcd's encoding, which log, snapshots and peer
//! links share.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    membership::{Change, ConfigError, Configuration},
    types::{Index, NodeId, Term},
};

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Empty,
    /// A command for the state machine; raft does not look into it.
    Command(Bytes),
    /// A change of the configuration.
    Change(Change),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its place.
    pub index: Index,
    /// What it asks for.
    pub payload: Payload,
}

/// The last entry of something, for comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// Its term, which compares first (Raft section 5.4.1).
    pub term: Term,
    /// Its index.
    pub index: Index,
}

/// What must be durable before a member answers in a term (Raft figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Who got this member's vote in that term.
    pub vote: Option<NodeId>,
    /// The newest index known committed. It may lag: losing it loses nothing.
    pub commit: Index,
}

/// A configuration as snapshots carry it (`raftpb.ConfState`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters of the incoming half.
    pub voters: BTreeSet<NodeId>,
    /// Voters of the outgoing half; empty unless joint.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Learners.
    pub learners: BTreeSet<NodeId>,
    /// Voters of the outgoing half that become learners when it is left.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// Where a snapshot stands and who was in the cluster there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub last: LogId,
    /// The configuration there.
    pub config: ConfState,
}

/// A snapshot as raft knows it: its body is elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it stands.
    pub meta: SnapshotMeta,
    /// Opaque to raft; etcd's JSON of the members.
    pub data: Bytes,
}

/// A message between members, with the sender's term (0 where the kind travels without one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: NodeId,
    /// Who is to have it.
    pub to: NodeId,
    /// The sender's term; a pre-vote's is the one it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A follower's clients' proposals, for the leader. Travels with term 0.
    Propose {
        /// Entries without term and index.
        payloads: Vec<Payload>,
    },
    /// Entries behind `prev` (AppendEntries).
    Append {
        /// The entry before the first.
        prev: LogId,
        /// The entries.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The log holds the leader's entries up to `matched`.
    AppendAccepted {
        /// The last index that is the leader's and durable.
        matched: Index,
    },
    /// The log does not hold the append's `prev`.
    AppendRejected {
        /// The append's `prev` index, so that the leader knows which one it was.
        prev: Index,
        /// Where the follower's log may agree with the leader's, by term.
        hint: LogId,
    },
    /// Asks for a vote, or whether one would be given.
    Vote {
        /// Whether it only asks (section 9.6 of the thesis).
        pre: bool,
        /// The candidate's last entry.
        last: LogId,
        /// Whether the leader itself handed over, so that stickiness does not apply.
        transfer: bool,
    },
    /// The answer to it.
    VoteReply {
        /// Whether the question was only asked.
        pre: bool,
        /// Whether the vote was given.
        granted: bool,
    },
    /// A snapshot instead of entries; its body travels beside it.
    Snapshot(Snapshot),
    /// The leader is there.
    Heartbeat {
        /// The commit index, no further than what the follower is known to hold.
        commit: Index,
        /// The read round that it confirms; empty for none.
        context: Bytes,
        /// The sender's newest applied index and the state hash there.
        state: Option<StateMark>,
    },
    /// The follower is there.
    HeartbeatReply {
        /// The heartbeat's read round.
        context: Bytes,
        /// The follower's newest applied index and the state hash there.
        state: Option<StateMark>,
    },
    /// Asks the leader to hand leadership to `target`, which the wire carries as the sender.
    TransferLeader {
        /// Who is to lead.
        target: NodeId,
    },
    /// Campaign now, whatever the timer says.
    TimeoutNow,
    /// A follower's question for a read index. Travels with term 0.
    ReadIndex {
        /// The follower's id of the question.
        context: Bytes,
    },
    /// The answer to it.
    ReadIndexReply {
        /// The index that reads must have been applied to.
        index: Index,
        /// The question's id.
        context: Bytes,
    },
}

/// A state machine's applied index and its state hash there; equal indices must have equal hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMark {
    /// The applied index.
    pub index: Index,
    /// The rolling hash of all write batches up to it.
    pub hash: u64,
}

impl From<&Configuration> for ConfState {
    fn from(config: &Configuration) -> Self {
        Self {
            voters: config.incoming().clone(),
            voters_outgoing: config.outgoing().clone(),
            learners: config.learners().clone(),
            learners_next: config.learners_next().clone(),
            auto_leave: config.auto_leave(),
        }
    }
}

impl TryFrom<&ConfState> for Configuration {
    type Error = ConfigError;

    fn try_from(state: &ConfState) -> Result<Self, ConfigError> {
        Self::new(
            state.voters.clone(),
            state.voters_outgoing.clone(),
            state.learners.clone(),
            state.learners_next.clone(),
            state.auto_leave,
        )
    }
}
