//! Members that have applied the same entries have the same state: equal hashes and revisions at each applied index,
//! by what their backends took and what their heartbeats said, and equal `HashKV` at equal revisions.

use std::collections::BTreeMap;

use super::{
    Violation,
    linear::{LISTED_MAX, violation},
};
use crate::history::{Call, Fact, History, MarkFact, Micros, Op, Reply};

struct Mark {
    at: Micros,
    node: u64,
    index: u64,
    hash: u64,
}

fn marks(history: &History) -> Vec<Mark> {
    let mut marks = Vec::new();
    for applied in &history.applied {
        if let Some(hash) = applied.hash {
            marks.push(Mark { at: applied.at, node: applied.node, index: applied.index, hash });
        }
    }
    for message in &history.messages {
        if let Fact::Heartbeat { mark: Some(mark), .. } | Fact::HeartbeatReply { mark: Some(mark) } =
            &message.fact
        {
            let MarkFact { index, hash } = *mark;
            marks.push(Mark { at: message.at, node: message.from, index, hash });
        }
    }
    marks.sort_by_key(|mark| mark.at);
    marks
}

fn seen(rule: &'static str, at: Micros, text: String) -> Violation {
    Violation { rule, text, ops: Vec::new(), watches: Vec::new(), at }
}

fn states(history: &History) -> Vec<Violation> {
    let mut first: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut violations = Vec::new();
    for mark in marks(history) {
        let (hash, node) = *first.entry(mark.index).or_insert((mark.hash, mark.node));
        if hash != mark.hash {
            let text = format!(
                "at index {} the state of {:x} has the hash {:016x}, and that of {node:x} has {hash:016x}",
                mark.index, mark.node, mark.hash
            );
            violations.push(seen("state/hash", mark.at, text));
        }
    }
    violations
}

fn revisions(history: &History) -> Vec<Violation> {
    let mut first: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    let mut violations = Vec::new();
    for applied in &history.applied {
        let Some(revision) = applied.revision else { continue };
        let (known, node) = *first.entry(applied.index).or_insert((revision, applied.node));
        if known != revision {
            let text = format!(
                "at index {} the store of {:x} is at revision {revision}, and that of {node:x} at {known}",
                applied.index, applied.node
            );
            violations.push(seen("state/revision", applied.at, text));
        }
    }
    let mut before = 0;
    for (index, (revision, node)) in first {
        if revision < before {
            let text =
                format!("at index {index} the store of {node:x} is at revision {revision}, after {before}");
            violations.push(seen("state/revision", Micros(0), text));
        }
        before = before.max(revision);
    }
    violations
}

fn hash_kv(history: &History) -> Vec<Violation> {
    let mut first: BTreeMap<(i64, i64), (u32, &Op)> = BTreeMap::new();
    let mut violations = Vec::new();
    for op in &history.ops {
        let (Call::HashKv(request), Some(Reply::HashKv(reply))) = (&op.call, op.outcome.reply()) else {
            continue;
        };
        // etcd 3.5 does not name the revision that it hashed.
        let at = if reply.hash_revision > 0 { reply.hash_revision } else { request.revision };
        if at <= 0 {
            continue;
        }
        let (hash, other) = *first.entry((at, reply.compact_revision)).or_insert((reply.hash, op));
        if hash != reply.hash {
            let text = format!(
                "the keys of members {} and {} have the hashes {:08x} and {hash:08x} at revision {at}",
                op.member, other.member, reply.hash
            );
            violations.push(violation("state/hash-kv", text, &[other, op]));
        }
    }
    violations
}

/// All hashes but one member's agree, and a quorum has told of it: the ids that the CORRUPT alarm then names, if they are
/// not this one's alone.
pub fn blame(apart: u64, accused: &[u64]) -> Option<String> {
    (accused != [apart]).then(|| {
        format!(
            "state/blame: member {apart:x} has another state than the others, and those accused are {accused:x?}"
        )
    })
}

/// An entry was committed that does what this version does not know: of each member that has it, whether it still runs.
/// Nobody may go on behind it; some may not have come to it yet.
pub fn behind_the_unknown(run: &[bool]) -> Option<String> {
    let all = run.iter().all(|runs| *runs);
    all.then(|| "state/unknown-operation: members went on behind an entry that they do not know".to_owned())
}

/// Checks that members agree.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = states(history);
    violations.extend(revisions(history));
    violations.extend(hash_kv(history));
    violations.truncate(LISTED_MAX);
    violations
}
