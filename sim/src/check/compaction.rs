//! Compaction: what is gone is refused, what is not gone is served, and no revision is compacted twice or in advance.
//!
//! A compaction to C was done by the end of its call, if that was answered with OK; one without an answer may have been
//! done at any time from its start on. Serializable reads may be answered by a member that has not come that far.

use kontiki::{
    error::Refusal,
    wire::etcdserverpb::{self as pb, request_op::Request},
};

use super::{
    Violation,
    linear::{LISTED_MAX, Timeline, violation},
    request::{describe, txn_is_serializable},
};
use crate::history::{Call, History, Op, Outcome};

struct Compactions<'a> {
    /// Answered with OK.
    done: Vec<(i64, &'a Op)>,
    /// Those, and the ones that may have been done.
    possible: Vec<(i64, &'a Op)>,
}

impl<'a> Compactions<'a> {
    fn of(history: &'a History) -> Self {
        let (mut done, mut possible) = (Vec::new(), Vec::new());
        for op in &history.ops {
            let Call::Compact(request) = &op.call else { continue };
            match &op.outcome {
                Outcome::Ok(_) => {
                    done.push((request.revision, op));
                    possible.push((request.revision, op));
                }
                Outcome::Unknown(_) => possible.push((request.revision, op)),
                Outcome::Refused { .. } => {}
            }
        }
        Self { done, possible }
    }

    /// A compaction that certainly was done when `op` started, and to behind `revision`.
    fn certain(&self, op: &Op, revision: i64) -> Option<&'a Op> {
        let before =
            |(to, other): &&(i64, &Op)| *to > revision && other.end.is_some_and(|end| end < op.start);
        self.done.iter().find(before).map(|(_, op)| *op)
    }

    /// Whether a compaction to `revision` or behind may have been done before `op` ended.
    fn may_be(&self, op: &Op, revision: i64) -> bool {
        self.possible.iter().any(|(to, other)| {
            *to >= revision && other.id != op.id && op.end.is_none_or(|end| other.start <= end)
        })
    }
}

/// The old revisions that a call asks for, and whether it may be answered from an old state.
fn asked(call: &Call) -> (Vec<i64>, bool) {
    match call {
        Call::Range(request) => {
            (Vec::from_iter(Some(request.revision).filter(|r| *r > 0)), request.serializable)
        }
        Call::HashKv(request) => (Vec::from_iter(Some(request.revision).filter(|r| *r > 0)), true),
        Call::Txn(request) => {
            let mut revisions = Vec::new();
            txn(request, &mut revisions);
            (revisions, txn_is_serializable(request))
        }
        _ => (Vec::new(), true),
    }
}

fn txn(request: &pb::TxnRequest, revisions: &mut Vec<i64>) {
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) if range.revision > 0 => revisions.push(range.revision),
            Some(Request::RequestTxn(nested)) => txn(nested, revisions),
            Some(Request::RequestRange(_) | Request::RequestPut(_) | Request::RequestDeleteRange(_))
            | None => {}
        }
    }
}

fn reads(op: &Op, timeline: &Timeline, compactions: &Compactions<'_>) -> Option<Violation> {
    let (revisions, serializable) = asked(&op.call);
    let (oldest, newest) = (*revisions.iter().min()?, *revisions.iter().max()?);
    match &op.outcome {
        // A transaction is answered if the branch that it took asks for nothing that is gone.
        Outcome::Ok(_) if !serializable && matches!(op.call, Call::Range(_)) => {
            let gone = compactions.certain(op, oldest)?;
            let text = format!(
                "{} was answered, though {} had been done before it started",
                describe(op),
                describe(gone)
            );
            Some(violation("compaction/gone", text, &[op, gone]))
        }
        Outcome::Refused { message, .. } if *message == Refusal::Compacted.to_string() => {
            let text = format!("{} was refused as compacted, and nobody had asked for that", describe(op));
            // etcd 3.5.1 also refuses to hash at the revision compacted to.
            let kept = if matches!(op.call, Call::HashKv(_)) { oldest } else { oldest + 1 };
            (!compactions.may_be(op, kept)).then(|| violation("compaction/refused", text, &[op]))
        }
        Outcome::Refused { message, .. } if *message == Refusal::FutureRevision.to_string() => {
            let floor = timeline.seen.floor(op.start);
            let text =
                format!("{} was refused as of the future, and revision {floor} had been seen", describe(op));
            (!serializable && newest <= floor).then(|| violation("compaction/future", text, &[op]))
        }
        Outcome::Ok(_) | Outcome::Refused { .. } | Outcome::Unknown(_) => None,
    }
}

fn compact(op: &Op, timeline: &Timeline, compactions: &Compactions<'_>) -> Option<Violation> {
    let Call::Compact(request) = &op.call else { return None };
    let to = request.revision;
    match &op.outcome {
        Outcome::Ok(reply) => {
            let revision = reply.header().map_or(0, |header| header.revision);
            if to > revision {
                let text = format!("{} was accepted at revision {revision}", describe(op));
                return Some(violation("compaction/future", text, &[op]));
            }
            let twice = compactions.done.iter().find(|(other_to, other)| {
                let before = *other_to >= to && other.end.is_some_and(|end| end < op.start);
                other.id != op.id && (before || *other_to == to)
            })?;
            let text = format!("{} was accepted, and so was {}", describe(op), describe(twice.1));
            Some(violation("compaction/twice", text, &[op, twice.1]))
        }
        Outcome::Refused { message, .. } if *message == Refusal::Compacted.to_string() => {
            let text = format!("{} was refused as done, and nobody had done it", describe(op));
            (to >= 0 && !compactions.may_be(op, to)).then(|| violation("compaction/refused", text, &[op]))
        }
        Outcome::Refused { message, .. } if *message == Refusal::FutureRevision.to_string() => {
            let floor = timeline.seen.floor(op.start);
            let text =
                format!("{} was refused as of the future, and revision {floor} had been seen", describe(op));
            (to <= floor).then(|| violation("compaction/future", text, &[op]))
        }
        Outcome::Refused { .. } | Outcome::Unknown(_) => None,
    }
}

/// Checks compactions, and reads of the past.
pub fn check_with(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let compactions = Compactions::of(history);
    let one = |op: &Op| reads(op, timeline, &compactions).or_else(|| compact(op, timeline, &compactions));
    history.ops.iter().filter_map(one).take(LISTED_MAX).collect()
}

/// Checks compactions, and reads of the past.
pub fn check(history: &History) -> Vec<Violation> {
    check_with(history, &super::linear::timeline(history))
}
