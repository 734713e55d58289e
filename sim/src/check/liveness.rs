//! Once the faults are over and a quorum is healthy, calls are answered in time, and members come to the same state.

use std::collections::BTreeMap;

use super::{
    Violation,
    linear::{LISTED_MAX, violation},
    request::describe,
};
use crate::history::{History, Micros, Op, Outcome};
use kontiki::error::Refusal;

/// Messages of a run: many times what any has whose members have nothing wrong.
const MESSAGES_MAX: usize = 2_000_000;

/// What one has applied so long before the end the others have applied by then.
const CONVERGES_WITHIN: Micros = Micros::from_secs(1);

/// Members come to rest: how many messages they have sent so far.
pub fn rest(messages: usize) -> Option<String> {
    (messages > MESSAGES_MAX)
        .then(|| format!("liveness/rest: members have sent {messages} messages and go on"))
}

/// A member that is counted on answers a write and a read, `since` the last fault.
pub fn serves(member: u32, outcome: &Outcome, since: Micros) -> Option<String> {
    let seconds = since.0 / 1_000_000;
    (!matches!(outcome, Outcome::Ok(_)))
        .then(|| format!("liveness: {seconds} s after the last fault member {member} answers {outcome:?}"))
}

fn refused_by_learner(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown(text) if *text == Refusal::NotSupportedForLearner.to_string())
}

fn gave_up(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown(text) if text == Outcome::NO_ANSWER)
}

fn calls(history: &History) -> Vec<Violation> {
    let settings = &history.settings;
    let Some(calm) = settings.calm_from else { return Vec::new() };
    let from = calm.after(settings.settle_max);
    let due = |op: &&Op| {
        let lives = settings.calm_members.is_empty() || settings.calm_members.contains(&op.member);
        lives && op.start >= from && op.start.after(settings.calm_op_max) <= settings.ended
    };
    let mut violations = Vec::new();
    for op in history.ops.iter().filter(due) {
        let took = op.end.map(|end| end.since(op.start));
        let text = match took {
            // What a learner refuses was asked of the wrong one; who goes away early is not answered.
            Some(_) if refused_by_learner(&op.outcome) => continue,
            Some(took) if gave_up(&op.outcome) && took < settings.calm_op_max => continue,
            Some(took) if op.outcome.is_unknown() => format!("failed after {took}: {:?}", op.outcome),
            Some(took) if took > settings.calm_op_max => format!("took {took}"),
            Some(_) => continue,
            None => "was never answered".to_owned(),
        };
        let text = format!("{} {text}, though the cluster was healthy since {calm}", describe(op));
        violations.push(violation("liveness/calls", text, &[op]));
    }
    violations
}

fn convergence(history: &History) -> Vec<Violation> {
    let settings = &history.settings;
    if settings.calm_from.is_none_or(|calm| calm.after(settings.settle_max) > settings.ended) {
        return Vec::new();
    }
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut due: BTreeMap<u64, u64> = BTreeMap::new();
    for applied in &history.applied {
        // A restart replays; what it has come to counts.
        last.insert(applied.node, applied.index);
        if applied.at.after(CONVERGES_WITHIN) <= settings.ended {
            due.insert(applied.node, applied.index);
        }
    }
    if last.is_empty() {
        return Vec::new();
    }
    let newest = settings.calm_nodes.iter().filter_map(|node| due.get(node)).max().copied().unwrap_or(0);
    // One of whom no batch was recorded was not watched.
    let behind = |node: &&u64| last.get(node).is_some_and(|index| index + settings.lag_max < newest);
    let tell = |node: &u64| {
        let index = last.get(node).copied().unwrap_or(0);
        let text = format!("{node:x} has applied up to {index} at the end, and others up to {newest}");
        let (ops, watches) = (Vec::new(), Vec::new());
        Violation { rule: "liveness/converge", text, ops, watches, at: settings.ended }
    };
    settings.calm_nodes.iter().filter(behind).map(tell).collect()
}

/// Checks the calm.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = calls(history);
    violations.extend(convergence(history));
    violations.truncate(LISTED_MAX);
    violations
}
