//! Linearizability of keys and transactions, with the revisions as witness.
//!
//! An answered write names its revision, and an answered read the one that it saw, so the order that the store claims
//! is known. Three things are left to check:
//!
//! 1. the claim agrees with real time: what starts after a revision was seen is not before it (a write is behind it);
//! 2. replayed in that order through the [`Model`], each call has just the answer that it got;
//! 3. every revision up to the newest seen has an owner: an answered write, a call whose outcome is unknown, or the
//!    end of a lease ([`super::replay`] searches).
//!
//! Then the order is a linearization: reads sit behind the revision that they saw. Serializable reads are free of the
//! first rule, but what they saw must have been the whole store at some revision that existed.
//!
//! ```text
//! put a=1 ──OK@2    put a=2 ──(no answer)        get a ──2@3
//! revisions:   2: put a=1   3: nobody answered; put a=2 fits and had started   reads at 3: a=2 ✓
//! ```

use std::collections::BTreeMap;

use super::{
    Violation,
    kv::{Kv, Span},
    model::Model,
    order::{By, Seen},
    replay::Replay,
    request::{self, Validity, Writes},
};
use crate::history::{Call, History, Op, Outcome, Reply};

/// At most this many violations of one kind are listed: they tend to follow from the first.
pub(super) const LISTED_MAX: usize = 10;

/// Who made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A call, by its place in the history.
    Op(usize),
    /// The end of a lease, revoked or expired.
    LeaseEnd(i64),
    /// Nobody that is known.
    Unexplained,
}

/// The order that the history claims, replayed.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The store at all revisions.
    pub model: Model,
    /// Who made each revision after the first.
    pub owners: Vec<Owner>,
    /// What had been seen when.
    pub seen: Seen,
    /// What can't be.
    pub violations: Vec<Violation>,
    /// What the search gave up on.
    pub undecided: Vec<String>,
    /// Up to here the model is what the store was; behind, it is a guess, or ends where a search was given up.
    pub sound_until: i64,
    /// It is so to the end.
    pub whole: bool,
}

impl Timeline {
    /// Who made `revision`.
    pub fn owner(&self, history: &History, revision: i64) -> Option<Owner> {
        let at = usize::try_from(revision - history.settings.first_revision - 1).ok()?;
        self.owners.get(at).copied()
    }
}

/// Where an answered call claims to stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub op: usize,
    pub revision: i64,
    /// It made the revision; else it saw the store at it.
    pub wrote: bool,
    /// It may have been answered from an old state.
    pub serializable: bool,
}

fn claim(at: usize, op: &Op) -> Option<Claim> {
    let revision = op.outcome.reply()?.header()?.revision;
    let (wrote, serializable) = match (&op.call, op.outcome.reply()?) {
        (Call::Range(request), Reply::Range(_)) => (false, request.serializable),
        (_, Reply::Put(_)) => (true, false),
        (_, Reply::DeleteRange(response)) => (response.deleted > 0, false),
        (Call::Txn(request), Reply::Txn(response)) => {
            (request::txn_wrote(response), request::txn_is_serializable(request))
        }
        _ => return None,
    };
    Some(Claim { op: at, revision, wrote, serializable })
}

/// What the history claims, checked against real time.
pub(super) struct Claims {
    /// The write that owns each revision that has one.
    pub writes: BTreeMap<i64, Claim>,
    /// Reads by revision.
    pub reads: Vec<Claim>,
    /// Calls that may have written: their outcome is unknown.
    pub open: Vec<(usize, Writes)>,
}

impl Claims {
    pub fn of(history: &History) -> (Self, Vec<Violation>) {
        let mut claims = Self { writes: BTreeMap::new(), reads: Vec::new(), open: Vec::new() };
        let mut violations = Vec::new();
        for (at, op) in history.ops.iter().enumerate() {
            if op.outcome.is_unknown() {
                let writes = Writes::of(&op.call);
                if !writes.is_empty() {
                    claims.open.push((at, writes));
                }
            }
            let Some(claim) = claim(at, op) else { continue };
            if !claim.wrote {
                claims.reads.push(claim);
            } else if let Some(other) = claims.writes.insert(claim.revision, claim) {
                let other = &history.ops[other.op];
                let text = format!(
                    "{} and {} were both answered as the write of revision {}",
                    request::describe(other),
                    request::describe(op),
                    claim.revision
                );
                violations.push(violation("linear/one-write-a-revision", text, &[other, op]));
            }
        }
        claims.reads.extend(revocations(history));
        claims.reads.sort_by_key(|claim| claim.revision);
        claims.open.sort_by_key(|(at, _)| history.ops[*at].start);
        (claims, violations)
    }
}

/// Revocations that were answered, of leases that were granted once: at the revision that they name, no key is on them.
fn revocations(history: &History) -> Vec<Claim> {
    let mut grants: BTreeMap<i64, usize> = BTreeMap::new();
    let mut claims = Vec::new();
    for (at, op) in history.ops.iter().enumerate() {
        match (&op.call, op.outcome.reply()) {
            (_, Some(Reply::LeaseGrant(reply))) => *grants.entry(reply.id).or_default() += 1,
            // Ids that the cluster draws don't come twice.
            (Call::LeaseGrant(request), None) => *grants.entry(request.id).or_default() += 1,
            (Call::LeaseRevoke(request), Some(reply)) => {
                let revision = reply.header().map_or(0, |header| header.revision);
                claims.push((request.id, Claim { op: at, revision, wrote: false, serializable: true }));
            }
            _ => {}
        }
    }
    claims.into_iter().filter(|(lease, _)| grants.get(lease) == Some(&1)).map(|(_, claim)| claim).collect()
}

pub(super) fn violation(rule: &'static str, text: String, ops: &[&Op]) -> Violation {
    let at = ops.iter().map(|op| op.end.unwrap_or(op.start)).max().unwrap_or_default();
    Violation { rule, text, ops: ops.iter().map(|op| op.id).collect(), watches: Vec::new(), at }
}

/// The first rule: what starts after a revision was seen is not before it.
fn real_time(history: &History, seen: &Seen) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (at, op) in history.ops.iter().enumerate() {
        let through_log = matches!(
            op.outcome.reply(),
            Some(Reply::LeaseGrant(_) | Reply::LeaseRevoke(_) | Reply::Compact(_))
        );
        let Some(revision) = op.outcome.reply().and_then(Reply::header).map(|header| header.revision) else {
            continue;
        };
        let (wrote, serializable) = match claim(at, op) {
            Some(claim) => (claim.wrote, claim.serializable),
            None if through_log => (false, false),
            None => continue,
        };
        let Some((floor, by)) = seen.before(op.start) else { continue };
        if serializable || revision > floor || (revision == floor && !wrote) {
            continue;
        }
        let who = match by {
            By::Op(id) => format!("call {id}"),
            By::Watch(id) => format!("watch {id}"),
        };
        let did = if wrote { "was answered as the write of" } else { "saw" };
        let text = format!(
            "{} {did} revision {revision}, though {who} had seen revision {floor} before it started",
            request::describe(op)
        );
        let rule = if wrote { "linear/write-in-the-past" } else { "linear/stale" };
        let mut found = violation(rule, text, &[op]);
        match by {
            By::Op(id) => found.ops.push(id),
            By::Watch(id) => found.watches.push(id),
        }
        violations.push(found);
    }
    violations.sort_by_key(|violation| violation.at);
    violations.truncate(LISTED_MAX);
    violations
}

const MALFORMED_TEXTS: [kontiki::error::Refusal; 5] = [
    kontiki::error::Refusal::EmptyKey,
    kontiki::error::Refusal::ValueProvided,
    kontiki::error::Refusal::LeaseProvided,
    kontiki::error::Refusal::TooManyOps,
    kontiki::error::Refusal::DuplicateKey,
];

/// Requests that are wrong in themselves are refused, and others are not refused for that.
fn well_formed(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for op in &history.ops {
        let validity = request::validity(&op.call, history.settings.txn_ops_max);
        let text = match (&op.outcome, validity) {
            (Outcome::Ok(_), Validity::Wrong(refusal)) => {
                format!("{} was answered, though it has to be refused: {refusal}", request::describe(op))
            }
            (Outcome::Refused { message, .. }, Validity::Fine)
                if MALFORMED_TEXTS.iter().any(|text| text.to_string() == *message) =>
            {
                format!("{} was refused as malformed ({message}), which it is not", request::describe(op))
            }
            _ => continue,
        };
        violations.push(violation("linear/well-formed", text, &[op]));
    }
    violations.truncate(LISTED_MAX);
    violations
}

/// A put that keeps the old value or lease is refused only if its key may have been absent while it ran.
fn absent_keys(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = Vec::new();
    for op in &history.ops {
        let (Call::Put(request), Outcome::Refused { message, .. }) = (&op.call, &op.outcome) else {
            continue;
        };
        if *message != kontiki::error::Refusal::KeyNotFound.to_string() {
            continue;
        }
        let first = timeline.seen.floor(op.start).max(history.settings.first_revision);
        let versions = timeline.model.versions(&request.key);
        let ended = op.end.unwrap_or(op.start);
        let present = timeline.model.get(&request.key, first).is_some();
        // It was not deleted at any revision that could have been while the call ran.
        let deleted = versions.iter().any(|kv| {
            kv.is_deletion()
                && kv.mod_revision > first
                && started_before(history, timeline, kv.mod_revision, ended)
        });
        let sound = first <= timeline.sound_until && timeline.whole;
        if present && !deleted && sound {
            let text = format!(
                "{} was refused since its key is not there, which it was at revision {first} and after",
                request::describe(op)
            );
            violations.push(violation("linear/refused", text, &[op]));
        }
    }
    violations
}

/// Whether the call that made `revision` had started at `at`; leases may end at any time.
fn started_before(history: &History, timeline: &Timeline, revision: i64, at: crate::history::Micros) -> bool {
    match timeline.owner(history, revision) {
        Some(Owner::Op(op)) => history.ops[op].start <= at,
        Some(Owner::LeaseEnd(_) | Owner::Unexplained) | None => true,
    }
}

/// Replays the history.
pub fn timeline(history: &History) -> Timeline {
    let seen = Seen::of(history);
    let (claims, mut violations) = Claims::of(history);
    violations.extend(real_time(history, &seen));
    violations.extend(well_formed(history));
    let mut timeline = Replay::new(history, seen, claims).run();
    violations.append(&mut timeline.violations);
    timeline.violations = violations;
    let refused = absent_keys(history, &timeline);
    timeline.violations.extend(refused);
    timeline
}

/// Checks keys and transactions.
pub fn check(history: &History) -> Vec<Violation> {
    timeline(history).violations
}

/// The keys that an answer depends on.
pub(super) fn footprint(call: &Call) -> Vec<Span> {
    match call {
        Call::Range(request) => vec![Span::new(&request.key, &request.range_end)],
        Call::Txn(request) => {
            let mut spans = Writes::of(call).spans();
            ranges(request, &mut spans);
            spans
        }
        other => Writes::of(other).spans(),
    }
}

fn ranges(request: &kontiki::wire::etcdserverpb::TxnRequest, spans: &mut Vec<Span>) {
    use kontiki::wire::etcdserverpb::request_op::Request;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => spans.push(Span::new(&range.key, &range.range_end)),
            Some(Request::RequestTxn(nested)) => ranges(nested, spans),
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
}

/// The keys of key-values, as spans.
pub(super) fn keys_of<'a>(kvs: impl IntoIterator<Item = &'a Kv>) -> Vec<Span> {
    kvs.into_iter().map(|kv| Span::one(&kv.key)).collect()
}
