//! The way between raft's types and etcd's encoding of them, which log, snapshots and peer links share.
//!
//! Encoding is total. Decoding takes bytes from a disk or a peer and refuses what raft could not work with: unknown
//! kinds, numbers so large that the next one would overflow, entries that do not follow each other.
//! What etcd writes for an entry, a hard state or a change comes out byte for byte the same.
//!
//! Left out: fields of raft 3.6 (`vote`, `responses`), which only local messages use, and the empty snapshot that
//! etcd 3.5 writes into every message: its readers, like this one, take an absent one for it.

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::{raftpb, walpb};
use crate::{
    membership::{Change, ChangeKind, ChangeStep, Transition},
    raft::{Body, ConfState, Entry, HardState, LogId, Message, Payload, Snapshot, SnapshotMeta, StateMark},
    types::{Index, NodeId, Term},
};

/// Terms and indices above this are refused, so that counting on from one never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// They are no protobuf message of the kind.
    #[error("malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A kind that nothing here knows.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What kind of kind.
        what: &'static str,
        /// Its number.
        value: u64,
    },
    /// A message that a member only ever sends to itself; etcd drops it silently when it comes from a peer.
    #[error("message of local kind {0}")]
    Local(u64),
    /// A term or index above [`NUMBER_MAX`].
    #[error("{what} {value} is out of range")]
    OutOfRange {
        /// Term or index.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Entries of an append that do not follow `prev` and each other.
    #[error("entry {found} where {expected} should be")]
    Gap {
        /// The index that was due.
        expected: Index,
        /// The index that was there.
        found: Index,
    },
    /// A part without which the message means nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
}

const ENTRY_NORMAL: u64 = raftpb::EntryType::EntryNormal as u64;
const ENTRY_CHANGE: u64 = raftpb::EntryType::EntryConfChange as u64;
const ENTRY_CHANGE_V2: u64 = raftpb::EntryType::EntryConfChangeV2 as u64;

/// A vote's context after a leader has handed over; the same text as etcd's.
const CONTEXT_TRANSFER: &[u8] = b"CampaignTransfer";

fn term(value: u64) -> Result<Term, WireError> {
    if value > NUMBER_MAX {
        return Err(WireError::OutOfRange { what: "term", value });
    }
    Ok(Term(value))
}

fn index(value: u64) -> Result<Index, WireError> {
    if value > NUMBER_MAX {
        return Err(WireError::OutOfRange { what: "index", value });
    }
    Ok(Index(value))
}

/// etcd leaves a bytes field out when it holds nothing.
fn optional(bytes: &Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then(|| bytes.clone())
}

/// A payload's type and data fields.
fn payload_to_wire(payload: &Payload) -> (u64, Option<Bytes>) {
    match payload {
        Payload::Empty => (ENTRY_NORMAL, None),
        Payload::Command(data) => (ENTRY_NORMAL, optional(data)),
        Payload::Change(change) => {
            let (kind, data) = encode_change(change);
            (kind, optional(&data))
        }
    }
}

fn payload_from_wire(kind: u64, data: Option<Bytes>) -> Result<Payload, WireError> {
    let data = data.unwrap_or_default();
    match kind {
        ENTRY_NORMAL if data.is_empty() => Ok(Payload::Empty),
        ENTRY_NORMAL => Ok(Payload::Command(data)),
        ENTRY_CHANGE | ENTRY_CHANGE_V2 => Ok(Payload::Change(decode_change(kind, data)?)),
        value => Err(WireError::Unknown { what: "entry type", value }),
    }
}

fn kind_to_wire(kind: ChangeKind) -> u64 {
    match kind {
        ChangeKind::AddVoter => 0,
        ChangeKind::Remove => 1,
        ChangeKind::Update => 2,
        ChangeKind::AddLearner => 3,
    }
}

fn step_from_wire(kind: u64, node: u64) -> Result<ChangeStep, WireError> {
    let kind = match kind {
        0 => ChangeKind::AddVoter,
        1 => ChangeKind::Remove,
        2 => ChangeKind::Update,
        3 => ChangeKind::AddLearner,
        value => return Err(WireError::Unknown { what: "change type", value }),
    };
    Ok(ChangeStep { kind, node: NodeId(node) })
}

/// A change's entry type (1 or 2) and its encoding as `ConfChange` or `ConfChangeV2`.
pub fn encode_change(change: &Change) -> (u64, Bytes) {
    match change {
        Change::Single { id, step, context } => {
            let wire = raftpb::ConfChange {
                id: *id,
                r#type: kind_to_wire(step.kind),
                node_id: step.node.0,
                context: optional(context),
            };
            (ENTRY_CHANGE, wire.encode_to_vec().into())
        }
        Change::Joint { transition, steps, context } => {
            let transition = match transition {
                Transition::Auto => 0,
                Transition::JointImplicit => 1,
                Transition::JointExplicit => 2,
            };
            let changes = steps.iter().map(|step| raftpb::ConfChangeSingle {
                r#type: kind_to_wire(step.kind),
                node_id: step.node.0,
            });
            let wire = raftpb::ConfChangeV2 {
                transition: Some(transition),
                changes: changes.collect(),
                context: optional(context),
            };
            (ENTRY_CHANGE_V2, wire.encode_to_vec().into())
        }
    }
}

/// Decodes the data of an entry of type 1 or 2.
pub fn decode_change(entry_type: u64, data: Bytes) -> Result<Change, WireError> {
    if entry_type == ENTRY_CHANGE {
        let wire = raftpb::ConfChange::decode(data)?;
        let step = step_from_wire(wire.r#type, wire.node_id)?;
        return Ok(Change::Single { id: wire.id, step, context: wire.context.unwrap_or_default() });
    }
    let wire = raftpb::ConfChangeV2::decode(data)?;
    let transition = match wire.transition.unwrap_or_default() {
        0 => Transition::Auto,
        1 => Transition::JointImplicit,
        2 => Transition::JointExplicit,
        value => return Err(WireError::Unknown { what: "transition", value }),
    };
    let steps = wire.changes.iter().map(|step| step_from_wire(step.r#type, step.node_id));
    Ok(Change::Joint {
        transition,
        steps: steps.collect::<Result<_, _>>()?,
        context: wire.context.unwrap_or_default(),
    })
}

impl From<&Entry> for raftpb::Entry {
    fn from(entry: &Entry) -> Self {
        let (kind, data) = payload_to_wire(&entry.payload);
        Self { r#type: kind, term: entry.term.0, index: entry.index.0, data }
    }
}

impl TryFrom<raftpb::Entry> for Entry {
    type Error = WireError;

    fn try_from(wire: raftpb::Entry) -> Result<Self, WireError> {
        Ok(Self {
            term: term(wire.term)?,
            index: index(wire.index)?,
            payload: payload_from_wire(wire.r#type, wire.data)?,
        })
    }
}

impl From<&HardState> for raftpb::HardState {
    fn from(hard: &HardState) -> Self {
        Self { term: hard.term.0, vote: hard.vote.unwrap_or_default().0, commit: hard.commit.0 }
    }
}

impl TryFrom<raftpb::HardState> for HardState {
    type Error = WireError;

    fn try_from(wire: raftpb::HardState) -> Result<Self, WireError> {
        let vote = (wire.vote != 0).then_some(NodeId(wire.vote));
        Ok(Self { term: term(wire.term)?, vote, commit: index(wire.commit)? })
    }
}

/// prost makes a `ConfState` for each package; they are the same message.
macro_rules! conf_state {
    ($wire:ident) => {
        impl From<&ConfState> for $wire::ConfState {
            fn from(config: &ConfState) -> Self {
                Self {
                    voters: config.voters.iter().map(|id| id.0).collect(),
                    learners: config.learners.iter().map(|id| id.0).collect(),
                    voters_outgoing: config.voters_outgoing.iter().map(|id| id.0).collect(),
                    learners_next: config.learners_next.iter().map(|id| id.0).collect(),
                    auto_leave: config.auto_leave,
                }
            }
        }

        impl From<$wire::ConfState> for ConfState {
            fn from(wire: $wire::ConfState) -> Self {
                Self {
                    voters: wire.voters.into_iter().map(NodeId).collect(),
                    voters_outgoing: wire.voters_outgoing.into_iter().map(NodeId).collect(),
                    learners: wire.learners.into_iter().map(NodeId).collect(),
                    learners_next: wire.learners_next.into_iter().map(NodeId).collect(),
                    auto_leave: wire.auto_leave,
                }
            }
        }
    };
}

conf_state!(raftpb);
conf_state!(walpb);

impl From<&SnapshotMeta> for raftpb::SnapshotMetadata {
    fn from(meta: &SnapshotMeta) -> Self {
        Self { conf_state: (&meta.config).into(), index: meta.last.index.0, term: meta.last.term.0 }
    }
}

impl TryFrom<raftpb::SnapshotMetadata> for SnapshotMeta {
    type Error = WireError;

    fn try_from(wire: raftpb::SnapshotMetadata) -> Result<Self, WireError> {
        let last = LogId { term: term(wire.term)?, index: index(wire.index)? };
        Ok(Self { last, config: wire.conf_state.into() })
    }
}

impl From<&Snapshot> for raftpb::Snapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self { data: optional(&snapshot.data), metadata: (&snapshot.meta).into() }
    }
}

impl TryFrom<raftpb::Snapshot> for Snapshot {
    type Error = WireError;

    fn try_from(wire: raftpb::Snapshot) -> Result<Self, WireError> {
        Ok(Self { meta: wire.metadata.try_into()?, data: wire.data.unwrap_or_default() })
    }
}

/// A log record's snapshot mark. The mark before the first entry has no configuration, as etcd writes it.
impl From<&SnapshotMeta> for walpb::Snapshot {
    fn from(meta: &SnapshotMeta) -> Self {
        let first = meta.last.index.0 == 0;
        Self {
            index: meta.last.index.0,
            term: meta.last.term.0,
            conf_state: (!first).then(|| (&meta.config).into()),
        }
    }
}

/// A mark of etcd before 3.5 has no configuration; it comes out as an empty one.
impl TryFrom<walpb::Snapshot> for SnapshotMeta {
    type Error = WireError;

    fn try_from(wire: walpb::Snapshot) -> Result<Self, WireError> {
        let last = LogId { term: term(wire.term)?, index: index(wire.index)? };
        Ok(Self { last, config: wire.conf_state.unwrap_or_default().into() })
    }
}

/// Encodes an entry, as the log and the short frames of peer streams hold it.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    raftpb::Entry::from(entry).encode_to_vec()
}

/// Decodes an entry. From `Bytes` its command shares the buffer.
pub fn decode_entry(bytes: impl bytes::Buf) -> Result<Entry, WireError> {
    raftpb::Entry::decode(bytes)?.try_into()
}

/// Encodes a message as peers exchange it.
pub fn encode_message(message: &Message) -> Vec<u8> {
    raftpb::Message::from(message).encode_to_vec()
}

/// Decodes a message from a peer. [`WireError::Local`] and [`WireError::Unknown`] are to be ignored, the others are
/// a peer's fault.
pub fn decode_message(bytes: impl bytes::Buf) -> Result<Message, WireError> {
    raftpb::Message::decode(bytes)?.try_into()
}

impl From<&Message> for raftpb::Message {
    fn from(message: &Message) -> Self {
        let base = Self { to: message.to.0, from: message.from.0, term: message.term.0, ..Self::default() };
        body_to_wire(&message.body, base)
    }
}

/// Fills `wire` with what the body says.
fn body_to_wire(body: &Body, wire: raftpb::Message) -> raftpb::Message {
    use raftpb::MessageType as T;
    let of = |kind: T| raftpb::Message { r#type: kind as u64, ..wire };
    match body {
        Body::Propose { payloads } => {
            let entries = payloads.iter().map(|payload| {
                let (kind, data) = payload_to_wire(payload);
                raftpb::Entry { r#type: kind, data, ..Default::default() }
            });
            raftpb::Message { entries: entries.collect(), ..of(T::MsgProp) }
        }
        Body::Append { prev, entries, commit } => raftpb::Message {
            log_term: prev.term.0,
            index: prev.index.0,
            entries: entries.iter().map(Into::into).collect(),
            commit: commit.0,
            ..of(T::MsgApp)
        },
        Body::AppendAccepted { matched } => raftpb::Message { index: matched.0, ..of(T::MsgAppResp) },
        Body::AppendRejected { prev, hint } => raftpb::Message {
            index: prev.0,
            reject: true,
            reject_hint: hint.index.0,
            log_term: hint.term.0,
            ..of(T::MsgAppResp)
        },
        Body::Vote { pre, last, transfer } => raftpb::Message {
            log_term: last.term.0,
            index: last.index.0,
            context: transfer.then(|| Bytes::from_static(CONTEXT_TRANSFER)),
            ..of(if *pre { T::MsgPreVote } else { T::MsgVote })
        },
        Body::VoteReply { pre, granted } => {
            raftpb::Message { reject: !granted, ..of(if *pre { T::MsgPreVoteResp } else { T::MsgVoteResp }) }
        }
        Body::Snapshot(snapshot) => raftpb::Message { snapshot: Some(snapshot.into()), ..of(T::MsgSnap) },
        Body::Heartbeat { commit, context, state } => raftpb::Message {
            commit: commit.0,
            context: optional(context),
            state_index: state.map(|mark| mark.index.0),
            state_hash: state.map(|mark| mark.hash),
            ..of(T::MsgHeartbeat)
        },
        Body::HeartbeatReply { context, state } => raftpb::Message {
            context: optional(context),
            state_index: state.map(|mark| mark.index.0),
            state_hash: state.map(|mark| mark.hash),
            ..of(T::MsgHeartbeatResp)
        },
        Body::TransferLeader { target } => raftpb::Message { from: target.0, ..of(T::MsgTransferLeader) },
        Body::TimeoutNow => of(T::MsgTimeoutNow),
        Body::ReadIndex { context } => {
            raftpb::Message { entries: vec![context_entry(context)], ..of(T::MsgReadIndex) }
        }
        Body::ReadIndexReply { index, context } => raftpb::Message {
            index: index.0,
            entries: vec![context_entry(context)],
            ..of(T::MsgReadIndexResp)
        },
    }
}

/// Read-index questions and answers carry their id as the data of an entry.
fn context_entry(context: &Bytes) -> raftpb::Entry {
    raftpb::Entry { data: optional(context), ..Default::default() }
}

impl TryFrom<raftpb::Message> for Message {
    type Error = WireError;

    fn try_from(wire: raftpb::Message) -> Result<Self, WireError> {
        Ok(Self {
            from: NodeId(wire.from),
            to: NodeId(wire.to),
            term: term(wire.term)?,
            body: body_from_wire(wire)?,
        })
    }
}

fn body_from_wire(wire: raftpb::Message) -> Result<Body, WireError> {
    use raftpb::MessageType as T;
    let unknown = WireError::Unknown { what: "message type", value: wire.r#type };
    // raft 3.6 numbers its storage threads' messages 19 to 22.
    if (19..=22).contains(&wire.r#type) {
        return Err(WireError::Local(wire.r#type));
    }
    let number = i32::try_from(wire.r#type).map_err(|_| unknown.clone())?;
    let kind = T::try_from(number).map_err(|_| unknown)?;
    let at = LogId { term: term(wire.log_term)?, index: index(wire.index)? };
    match kind {
        T::MsgHup | T::MsgBeat | T::MsgUnreachable | T::MsgSnapStatus | T::MsgCheckQuorum => {
            Err(WireError::Local(wire.r#type))
        }
        T::MsgProp => {
            let payloads = wire.entries.into_iter().map(|entry| payload_from_wire(entry.r#type, entry.data));
            Ok(Body::Propose { payloads: payloads.collect::<Result<_, _>>()? })
        }
        T::MsgApp => {
            let entries = following(at.index, wire.entries)?;
            Ok(Body::Append { prev: at, entries, commit: index(wire.commit)? })
        }
        T::MsgAppResp if wire.reject => {
            let hint = LogId { term: at.term, index: index(wire.reject_hint)? };
            Ok(Body::AppendRejected { prev: at.index, hint })
        }
        T::MsgAppResp => Ok(Body::AppendAccepted { matched: at.index }),
        T::MsgVote | T::MsgPreVote => Ok(Body::Vote {
            pre: kind == T::MsgPreVote,
            last: at,
            transfer: wire.context.is_some_and(|context| context == CONTEXT_TRANSFER),
        }),
        T::MsgVoteResp | T::MsgPreVoteResp => {
            Ok(Body::VoteReply { pre: kind == T::MsgPreVoteResp, granted: !wire.reject })
        }
        T::MsgSnap => {
            let snapshot = wire.snapshot.ok_or(WireError::Missing("the snapshot"))?;
            if snapshot.metadata.index == 0 {
                return Err(WireError::Missing("the snapshot"));
            }
            Ok(Body::Snapshot(snapshot.try_into()?))
        }
        T::MsgHeartbeat => Ok(Body::Heartbeat {
            commit: index(wire.commit)?,
            state: state_mark(&wire)?,
            context: wire.context.unwrap_or_default(),
        }),
        T::MsgHeartbeatResp => {
            Ok(Body::HeartbeatReply { state: state_mark(&wire)?, context: wire.context.unwrap_or_default() })
        }
        T::MsgTransferLeader => Ok(Body::TransferLeader { target: NodeId(wire.from) }),
        T::MsgTimeoutNow => Ok(Body::TimeoutNow),
        T::MsgReadIndex => Ok(Body::ReadIndex { context: context_of(wire.entries) }),
        T::MsgReadIndexResp => {
            Ok(Body::ReadIndexReply { index: at.index, context: context_of(wire.entries) })
        }
    }
}

/// The entries of an append, which have to follow `prev` one by one.
fn following(prev: Index, entries: Vec<raftpb::Entry>) -> Result<Vec<Entry>, WireError> {
    let mut expected = prev;
    let mut out = Vec::with_capacity(entries.len());
    for wire in entries {
        expected = expected.next();
        let entry = Entry::try_from(wire)?;
        if entry.index != expected {
            return Err(WireError::Gap { expected, found: entry.index });
        }
        out.push(entry);
    }
    Ok(out)
}

fn context_of(entries: Vec<raftpb::Entry>) -> Bytes {
    entries.into_iter().next().and_then(|entry| entry.data).unwrap_or_default()
}

fn state_mark(wire: &raftpb::Message) -> Result<Option<StateMark>, WireError> {
    match (wire.state_index, wire.state_hash) {
        (Some(at), Some(hash)) => Ok(Some(StateMark { index: index(at)?, hash })),
        (None, _) | (_, None) => Ok(None),
    }
}

#[cfg(test)]
#[path = "raft_tests.rs"]
mod tests;
