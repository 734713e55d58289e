//! Headers: one cluster, a member that is somebody, and revisions and terms of one member that never go back while it
//! lives. A restart may bring it behind what it had applied, since it replays.

use std::collections::BTreeMap;

use super::{
    Violation,
    linear::{LISTED_MAX, violation},
    request::describe,
};
use crate::history::{Call, History, Micros, Op};

/// Which start of `node` an answer at `at` came from; none if starts were not recorded, or one fell into the call.
fn incarnation(history: &History, node: u64, op: &Op) -> Option<usize> {
    let end = op.end?;
    let boots: Vec<Micros> =
        history.boots.iter().filter(|boot| boot.node == node).map(|boot| boot.at).collect();
    let (before, after) =
        (boots.iter().filter(|at| **at <= op.start).count(), boots.iter().filter(|at| **at <= end).count());
    (before > 0 && before == after).then_some(before)
}

/// Answers whose header says less than they know: the cluster service's have no revision, and those of calls that are
/// forwarded may be another member's.
const fn partial(call: &Call) -> bool {
    matches!(
        call,
        Call::MemberAdd(_)
            | Call::MemberRemove(_)
            | Call::MemberUpdate(_)
            | Call::MemberList(_)
            | Call::MemberPromote(_)
            | Call::Defragment(_)
            | Call::MoveLeader(_)
            | Call::LeaseKeepAlive(_)
            | Call::LeaseTimeToLive(_)
            | Call::LeaseLeases(_)
    )
}

/// Checks headers.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut cluster: Option<(u64, &Op)> = None;
    let mut by_member: BTreeMap<(u64, usize), Vec<&Op>> = BTreeMap::new();
    for op in &history.ops {
        let Some(header) = op.outcome.reply().and_then(|reply| reply.header()) else { continue };
        if partial(&op.call) {
            continue;
        }
        let (id, other) = *cluster.get_or_insert((header.cluster_id, op));
        if id != header.cluster_id || header.member_id == 0 || header.revision <= 0 {
            let text = format!(
                "{} was answered with cluster {:x}, member {:x}, revision {}, term {}; the cluster is {id:x}",
                describe(op),
                header.cluster_id,
                header.member_id,
                header.revision,
                header.raft_term
            );
            violations.push(violation("header/sane", text, &[other, op]));
        }
        if let Some(number) = incarnation(history, header.member_id, op) {
            by_member.entry((header.member_id, number)).or_default().push(op);
        }
    }
    for ((member, _), ops) in by_member {
        violations.extend(backwards(member, ops));
    }
    violations.truncate(LISTED_MAX);
    violations
}

/// The revision and term of an answer.
fn numbers(op: &Op) -> (i64, u64) {
    let header = op.outcome.reply().and_then(|reply| reply.header());
    header.map_or((0, 0), |header| (header.revision, header.raft_term))
}

/// Calls of one member's life, each against those that ended before it started.
fn backwards(member: u64, mut ops: Vec<&Op>) -> Vec<Violation> {
    let mut by_end = ops.clone();
    by_end.sort_by_key(|op| op.end);
    ops.sort_by_key(|op| op.start);
    let mut ended = by_end.into_iter().peekable();
    let (mut revision, mut term): (Option<&Op>, Option<&Op>) = (None, None);
    let mut violations = Vec::new();
    for op in ops {
        while let Some(before) = ended.next_if(|before| before.end < Some(op.start)) {
            revision = revision.filter(|newest| numbers(newest).0 >= numbers(before).0).or(Some(before));
            term = term.filter(|newest| numbers(newest).1 >= numbers(before).1).or(Some(before));
        }
        for (what, newest) in [("revision", revision), ("term", term)] {
            let Some(newest) = newest else { continue };
            let (was, is) = match what {
                "revision" => (numbers(newest).0, numbers(op).0),
                _ => (numbers(newest).1 as i64, numbers(op).1 as i64),
            };
            if is < was {
                let text =
                    format!("{} was answered by {member:x} at {what} {is}, after {what} {was}", describe(op));
                violations.push(violation("header/monotonic", text, &[newest, op]));
            }
        }
    }
    violations
}
