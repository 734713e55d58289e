//! Values of Kontiki's types from a fuzzer's bytes: small numbers and few keys, so that they meet.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use kontiki::{
    membership::{Change, ChangeKind, ChangeStep, Transition},
    mvcc::{
        Compare, CompareResult, CompareTarget, DeleteRequest, Op, PutRequest, RangeRequest, SortOrder,
        SortTarget, TxnRequest,
    },
    raft::{Body, ConfState, Entry, LogId, Message, Payload, Snapshot, SnapshotMeta, StateMark},
    state::{Alarm, AlarmAction, AlarmKind, Command},
    types::{Index, KeyRange, LeaseId, NodeId, Revision, Term},
};

pub type Source<'a> = Unstructured<'a>;

/// A number of `0 ..= max`.
pub fn upto(u: &mut Source<'_>, max: u64) -> Result<u64> {
    u.int_in_range(0..=max)
}

/// One of `items`.
pub fn one<T: Clone>(u: &mut Source<'_>, items: &[T]) -> Result<T> {
    u.choose(items).cloned()
}

/// Up to `max` items.
pub fn list<T>(
    u: &mut Source<'_>,
    max: u64,
    mut item: impl FnMut(&mut Source<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..upto(u, max)?).map(|_| item(u)).collect()
}

/// Any bytes, at most `max`.
pub fn bytes(u: &mut Source<'_>, max: u64) -> Result<Bytes> {
    let len = upto(u, max)?.min(u.len() as u64) as usize;
    Ok(Bytes::copy_from_slice(u.bytes(len)?))
}

/// A text of up to `max` characters, most of them those that parsers look at.
pub fn text(u: &mut Source<'_>, max: u64) -> Result<String> {
    const CHARACTERS: &[char] = &[
        'a', 'b', 'h', 's', 'm', '0', '1', '9', ':', '/', '=', ',', '.', '-', '+', '[', ']', '%', '@', '?',
        '#', ' ', '"', '\'', '\\', '&', '<', '\u{7f}', '\n', 'µ', '\u{2028}',
    ];
    Ok(list(u, max, |u| one(u, CHARACTERS))?.into_iter().collect())
}

pub fn key(u: &mut Source<'_>) -> Result<Bytes> {
    Ok(Bytes::from(vec![b'a' + upto(u, 7)? as u8]))
}

pub fn range(u: &mut Source<'_>) -> Result<KeyRange> {
    let start = key(u)?;
    let end = match upto(u, 3)? {
        0 | 1 => Bytes::new(),
        2 => Bytes::from_static(b"\0"),
        _ => key(u)?,
    };
    Ok(KeyRange::from_wire(start, end))
}

/// A put that the API would let through.
pub fn put(u: &mut Source<'_>) -> Result<PutRequest> {
    let (key, size, ignore) = (key(u)?, upto(u, 4)?, upto(u, 7)?);
    let lease = one(u, &[0, 0, 0, 0, 1, 2, 9])?;
    Ok(PutRequest {
        key,
        value: if ignore == 1 { Bytes::new() } else { Bytes::from(vec![b'0' + size as u8; size as usize]) },
        lease: LeaseId(if ignore == 2 { 0 } else { lease }),
        prev_kv: u.arbitrary()?,
        ignore_value: ignore == 1,
        ignore_lease: ignore == 2,
    })
}

pub fn delete(u: &mut Source<'_>) -> Result<DeleteRequest> {
    Ok(DeleteRequest { range: range(u)?, prev_kv: u.arbitrary()? })
}

pub fn read(u: &mut Source<'_>) -> Result<RangeRequest> {
    let mut request = RangeRequest::of(range(u)?);
    request.limit = upto(u, 5)? as i64 - 1;
    request.revision = Revision(one(u, &[0, 0, 0, -2, -1, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20])?);
    request.sort_order = one(u, &[SortOrder::None, SortOrder::Ascend, SortOrder::Descend])?;
    let targets = [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
        SortTarget::Unknown,
    ];
    request.sort_target = one(u, &targets)?;
    let flags: u8 = u.arbitrary()?;
    request.keys_only = flags & 1 != 0;
    request.count_only = flags & 14 == 14;
    if flags & 48 == 48 {
        let mut bound = || -> Result<Revision> { Ok(Revision(one(u, &[0, 0, 1, 2, 3, 5, 8, 13])?)) };
        request.min_mod_revision = bound()?;
        request.max_mod_revision = bound()?;
        request.min_create_revision = bound()?;
        request.max_create_revision = bound()?;
    }
    Ok(request)
}

fn compare(u: &mut Source<'_>) -> Result<Compare> {
    let results = [
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
        CompareResult::Unknown,
    ];
    let number = upto(u, 6)? as i64;
    let target = match upto(u, 5)? {
        0 => CompareTarget::Version(number),
        1 => CompareTarget::Create(Revision(number)),
        2 => CompareTarget::Mod(Revision(number)),
        3 => CompareTarget::Value(Bytes::from(vec![b'0' + number as u8; number as usize])),
        4 => CompareTarget::Lease(LeaseId(number)),
        _ => CompareTarget::Unknown,
    };
    Ok(Compare { range: range(u)?, target, result: one(u, &results)? })
}

/// A transaction with others in it, up to `depth` deep.
pub fn txn(u: &mut Source<'_>, depth: u32) -> Result<TxnRequest> {
    let op = |u: &mut Source<'_>| {
        Ok(match upto(u, if depth > 0 { 3 } else { 2 })? {
            0 => Op::Put(put(u)?),
            1 => Op::Delete(delete(u)?),
            2 => Op::Range(read(u)?),
            _ => Op::Txn(txn(u, depth - 1)?),
        })
    };
    Ok(TxnRequest { compare: list(u, 2, compare)?, success: list(u, 3, op)?, failure: list(u, 2, op)? })
}

/// A command that the API would let into the log, or a peer's.
pub fn command(u: &mut Source<'_>) -> Result<Command> {
    let lease = |u: &mut Source<'_>| Ok(LeaseId(upto(u, 3)? as i64));
    Ok(match upto(u, 15)? {
        0..=3 => Command::Put(put(u)?),
        4 => Command::Delete(delete(u)?),
        5 | 6 => Command::Txn(txn(u, 2)?),
        7 => Command::Range(read(u)?),
        8 => Command::Compact { revision: Revision(one(u, &[-1, 0, 1, 2, 3, 4, 6, 9, 14, 40])?) },
        9 => Command::LeaseGrant { id: lease(u)?, ttl: one(u, &[-1, 0, 5, 60, i64::MAX])? },
        10 => Command::LeaseRevoke { id: lease(u)? },
        11 => Command::LeaseCheckpoint(list(u, 2, |u| Ok((lease(u)?, one(u, &[-1, 0, 3, 70, i64::MAX])?)))?),
        12 => {
            let kind = one(u, &[AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt])?;
            let actions =
                [AlarmAction::Get, AlarmAction::Activate, AlarmAction::Deactivate, AlarmAction::Deactivate];
            let alarm = Alarm { member: NodeId(upto(u, 2)?), kind };
            Command::Alarm { action: one(u, &actions)?, alarm }
        }
        13 => Command::SetClusterVersion(text(u, 6)?),
        14 => Command::SetMemberAttributes {
            id: NodeId(upto(u, 4)?),
            name: text(u, 3)?,
            client_urls: list(u, 2, |u| text(u, 3))?,
        },
        _ if u.arbitrary()? => Command::SetDowngrade { enabled: u.arbitrary()?, version: text(u, 4)? },
        _ => Command::Nothing,
    })
}

fn step(u: &mut Source<'_>) -> Result<ChangeStep> {
    let kinds = [ChangeKind::AddVoter, ChangeKind::AddLearner, ChangeKind::Remove, ChangeKind::Update];
    Ok(ChangeStep { kind: one(u, &kinds)?, node: NodeId(upto(u, 5)?) })
}

pub fn change(u: &mut Source<'_>) -> Result<Change> {
    let context = bytes(u, 4)?;
    if u.arbitrary()? {
        return Ok(Change::Single { id: upto(u, 300)?, step: step(u)?, context });
    }
    let transitions = [Transition::Auto, Transition::JointImplicit, Transition::JointExplicit];
    Ok(Change::Joint { transition: one(u, &transitions)?, steps: list(u, 3, step)?, context })
}

fn payload(u: &mut Source<'_>) -> Result<Payload> {
    Ok(match upto(u, 5)? {
        0 => Payload::Empty,
        1 => Payload::Change(change(u)?),
        // An empty command is no command on the wire.
        _ => Payload::Command([&b"c"[..], &bytes(u, 40)?].concat().into()),
    })
}

fn nodes(u: &mut Source<'_>) -> Result<std::collections::BTreeSet<NodeId>> {
    Ok(list(u, 3, |u| Ok(NodeId(1 + upto(u, 4)?)))?.into_iter().collect())
}

fn conf_state(u: &mut Source<'_>) -> Result<ConfState> {
    Ok(ConfState {
        voters: nodes(u)?,
        voters_outgoing: nodes(u)?,
        learners: nodes(u)?,
        learners_next: nodes(u)?,
        auto_leave: u.arbitrary()?,
    })
}

/// A term or an index: mostly small, at times the largest that the wire lets through.
fn number(u: &mut Source<'_>, max: u64) -> Result<u64> {
    Ok(if max > 0 && upto(u, 40)? == 40 { max - upto(u, 1)? } else { upto(u, 12)? })
}

fn log_id(u: &mut Source<'_>, max: u64) -> Result<LogId> {
    Ok(LogId { term: Term(number(u, max)?), index: Index(number(u, max)?) })
}

pub fn snapshot(u: &mut Source<'_>, max: u64) -> Result<Snapshot> {
    let mut last = log_id(u, max)?;
    last.index = last.index.max(Index(1));
    Ok(Snapshot { meta: SnapshotMeta { last, config: conf_state(u)? }, data: bytes(u, 8)? })
}

/// The entries behind `prev`, in terms that go up.
pub fn entries(u: &mut Source<'_>, prev: LogId) -> Result<Vec<Entry>> {
    let mut last = prev;
    list(u, 4, |u| {
        last.index = last.index.next();
        last.term = Term(last.term.0 + u64::from(upto(u, 5)? == 5));
        Ok(Entry { term: last.term, index: last.index, payload: payload(u)? })
    })
}

/// What a peer can say, with terms and indices up to `max`, or small ones if that is 0.
pub fn body(u: &mut Source<'_>, max: u64) -> Result<Body> {
    let mark = |u: &mut Source<'_>| -> Result<Option<StateMark>> {
        let index = Index(number(u, max)?);
        Ok(if u.arbitrary()? { Some(StateMark { index, hash: upto(u, 300)? }) } else { None })
    };
    Ok(match upto(u, 13)? {
        0 => Body::Propose { payloads: list(u, 2, payload)? },
        1..=3 => {
            let prev = log_id(u, max.saturating_sub(8))?;
            Body::Append { prev, entries: entries(u, prev)?, commit: Index(number(u, max)?) }
        }
        4 => Body::AppendAccepted { matched: Index(number(u, max)?) },
        5 => Body::AppendRejected { prev: Index(number(u, max)?), hint: log_id(u, max)? },
        6 => Body::Vote { pre: u.arbitrary()?, last: log_id(u, max)?, transfer: u.arbitrary()? },
        7 => Body::VoteReply { pre: u.arbitrary()?, granted: u.arbitrary()? },
        8 => Body::Snapshot(snapshot(u, max)?),
        9 => Body::Heartbeat { commit: Index(number(u, max)?), context: bytes(u, 9)?, state: mark(u)? },
        10 => Body::HeartbeatReply { context: bytes(u, 9)?, state: mark(u)? },
        11 => Body::TransferLeader { target: NodeId(upto(u, 4)?) },
        12 => Body::TimeoutNow,
        _ if u.arbitrary()? => Body::ReadIndex { context: bytes(u, 9)? },
        _ => Body::ReadIndexReply { index: Index(number(u, max)?), context: bytes(u, 9)? },
    })
}

/// A message from one member to another.
pub fn message(u: &mut Source<'_>, from: NodeId, to: NodeId, max: u64) -> Result<Message> {
    let (term, body) = (Term(number(u, max)?), body(u, max)?);
    // The wire has one field for both.
    let from = if let Body::TransferLeader { target } = body { target } else { from };
    Ok(Message { from, to, term, body })
}
