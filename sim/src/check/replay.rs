//! Replays the claimed order, and searches where it is open.
//!
//! A revision without an answered write is a gap. Its causes are tried in turn: calls whose outcome is unknown and
//! that had started before the revision was seen, and ends of leases. Each has to agree with what watches and reads
//! saw of the revision ([`super::evidence`]), which as a rule leaves one. Where several are left, the first is taken, and
//! a later answer that does not fit sends the search back to the newest gap that could have to do with it: one whose
//! causes touch the same keys, directly or through other gaps (Wing and Gong's search, with the partition by keys
//! found where it is needed).
//!
//! An answer that does not fit and that no gap can have to do with is a violation; the replay goes on with what the
//! model says. When a search has failed, the state is anyone's guess, and the replay ends.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    Violation, compare,
    evidence::Evidence,
    kv::{Span, show, show_kv},
    linear::{Claim, Claims, LISTED_MAX, Owner, Timeline, footprint, keys_of, violation},
    model::{Model, Refused},
    order::Seen,
    request::{Writes, describe},
};
use crate::history::{Call, History, Micros, Op, Outcome, Reply};

/// How many revisions and reads a search may do over before it gives up.
const REDONE_MAX: usize = 400_000;

/// How many causes of one gap are tried.
const CAUSES_MAX: usize = 4_096;

/// With more causes left, a gap counts as ambiguous without a look at each.
const COMPARED_MAX: usize = 64;

/// Something that does not fit, and the keys that it has to do with.
struct Mismatch {
    violation: Violation,
    keys: Vec<Span>,
}

/// A gap with the cause taken for it.
struct Choice {
    revision: i64,
    taken: Owner,
    left: Vec<Owner>,
    /// The keys that its causes touch.
    spans: Vec<Span>,
    /// The keys of what failed behind it.
    failed: Vec<Span>,
    /// Whether another cause agrees with what was seen as well, and would have changed something else.
    ambiguous: bool,
}

/// The replay of one history.
pub(super) struct Replay<'a> {
    history: &'a History,
    seen: Seen,
    claims: Claims,
    evidence: Evidence,
    /// Of the calls in `claims.open`: those that put a key, and those that delete.
    putters: BTreeMap<Bytes, Vec<usize>>,
    deleters: Vec<usize>,
    /// Calls that alone can have made what was seen of a gap.
    reserved: BTreeMap<usize, i64>,
    used: BTreeSet<usize>,
    choices: Vec<Choice>,
    model: Model,
    owners: Vec<Owner>,
    last: i64,
    redone: usize,
    furthest: Option<(i64, Mismatch)>,
    told: BTreeSet<(&'static str, u64)>,
    violations: Vec<Violation>,
    undecided: Vec<String>,
    sound_until: i64,
}

fn meets(a: &[Span], b: &[Span]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.meets(b)))
}

fn everything() -> Vec<Span> {
    vec![Span::new(&Bytes::new(), &Bytes::from_static(&[0]))]
}

impl<'a> Replay<'a> {
    pub fn new(history: &'a History, seen: Seen, claims: Claims) -> Self {
        let first = history.settings.first_revision;
        let answered = claims.writes.len();
        let leases = history.ops.iter().filter(|op| matches!(op.call, Call::LeaseGrant(_))).count();
        let possible = first + (answered + claims.open.len() + leases) as i64;
        // Behind what is possible at all, one gap is as good as many.
        let last = seen.last().min(possible + 1);
        let gaps: Vec<i64> =
            (first + 1..=last).filter(|revision| !claims.writes.contains_key(revision)).collect();
        let evidence = Evidence::collect(history, &gaps);
        let mut replay = Self {
            history,
            seen,
            claims,
            evidence,
            putters: BTreeMap::new(),
            deleters: Vec::new(),
            reserved: BTreeMap::new(),
            used: BTreeSet::new(),
            choices: Vec::new(),
            model: Model::new(first),
            owners: Vec::new(),
            last,
            redone: 0,
            furthest: None,
            told: BTreeSet::new(),
            violations: Vec::new(),
            undecided: Vec::new(),
            sound_until: i64::MAX,
        };
        replay.index();
        replay.reserve(&gaps);
        replay
    }

    fn index(&mut self) {
        for (number, (_, writes)) in self.claims.open.iter().enumerate() {
            let keys: BTreeSet<&Bytes> = writes.puts.iter().map(|(key, _)| key).collect();
            for key in keys {
                self.putters.entry(key.clone()).or_default().push(number);
            }
            if !writes.deletes.is_empty() {
                self.deleters.push(number);
            }
        }
    }

    /// A call that alone can have written what was seen of one gap is no cause of another.
    fn reserve(&mut self, gaps: &[i64]) {
        for gap in gaps {
            let Some(kv) = self.evidence.a_put(*gap) else { continue };
            let value = Some(kv.value.clone());
            let wrote = |number: &&usize| {
                self.claims.open[**number]
                    .1
                    .puts
                    .iter()
                    .any(|(key, v)| *key == kv.key && (*v == value || v.is_none()))
            };
            let mut able = self.putters.get(&kv.key).into_iter().flatten().filter(wrote);
            if let (Some(only), None) = (able.next(), able.next()) {
                self.reserved.insert(*only, *gap);
            }
        }
    }

    fn op(&self, claim: &Claim) -> &'a Op {
        &self.history.ops[claim.op]
    }

    /// Replays all of it.
    pub fn run(mut self) -> Timeline {
        let mut reads = 0;
        let mut revision = self.history.settings.first_revision;
        let mut resumed = false;
        'revisions: loop {
            let first = self.history.settings.first_revision;
            let made = if revision > first && !resumed { self.make(revision) } else { Ok(()) };
            if let Err(mismatch) = made {
                match self.settle(revision, mismatch) {
                    Settled::Told => {}
                    Settled::Resume(at) => {
                        (revision, resumed) = (at, true);
                        reads = self.claims.reads.partition_point(|read| read.revision < at);
                        continue 'revisions;
                    }
                    Settled::Lost => break,
                }
            }
            resumed = false;
            while let Some(read) =
                self.claims.reads.get(reads).copied().filter(|read| read.revision <= revision)
            {
                reads += 1;
                let Some(mismatch) = self.read(&read) else { continue };
                match self.settle(revision, mismatch) {
                    Settled::Told => {}
                    Settled::Resume(at) => {
                        (revision, resumed) = (at, true);
                        reads = self.claims.reads.partition_point(|read| read.revision < at);
                        continue 'revisions;
                    }
                    Settled::Lost => break 'revisions,
                }
            }
            if revision >= self.last {
                break;
            }
            revision += 1;
        }
        let Self { model, owners, seen, violations, undecided, sound_until, choices, last, .. } = self;
        // What was chosen need not be what was.
        let chosen =
            choices.iter().find(|choice| choice.ambiguous).map_or(i64::MAX, |choice| choice.revision - 1);
        let sound_until = sound_until.min(model.revision()).min(chosen);
        let whole = sound_until >= last;
        Timeline { model, owners, seen, violations, undecided, sound_until, whole }
    }

    /// What to do about something that does not fit.
    fn settle(&mut self, revision: i64, mismatch: Mismatch) -> Settled {
        let mut keys = mismatch.keys.clone();
        if self.is_open(&keys) {
            if self.furthest.as_ref().is_none_or(|(at, _)| *at < revision) {
                self.furthest = Some((revision, mismatch));
            }
            return self.back(&mut keys);
        }
        self.tell(mismatch.violation, revision);
        self.owners.resize(
            (self.model.revision() - self.history.settings.first_revision) as usize,
            Owner::Unexplained,
        );
        Settled::Told
    }

    fn tell(&mut self, violation: Violation, revision: i64) {
        self.sound_until = self.sound_until.min(revision - 1);
        let subject = violation.ops.first().copied().unwrap_or(revision as u64);
        if self.violations.len() < LISTED_MAX && self.told.insert((violation.rule, subject)) {
            self.violations.push(violation);
        }
    }

    /// Whether another cause of some gap could change what became of `keys`.
    fn is_open(&self, keys: &[Span]) -> bool {
        let mut keys = keys.to_vec();
        for choice in self.choices.iter().rev() {
            if meets(&choice.spans, &keys) {
                if !choice.left.is_empty() {
                    return true;
                }
                keys.extend(choice.spans.iter().cloned());
            }
        }
        false
    }

    /// Goes back to the newest gap that could have to do with `keys` and takes its next cause.
    fn back(&mut self, keys: &mut Vec<Span>) -> Settled {
        while let Some(mut choice) = self.choices.pop() {
            self.release(choice.taken);
            if !meets(&choice.spans, keys) {
                continue;
            }
            self.redone += (self.model.revision() - choice.revision) as usize + 1;
            self.rewind(choice.revision - 1);
            keys.append(&mut choice.failed);
            if self.redone > REDONE_MAX {
                let text = format!(
                    "the causes of revision {} and those behind it were too many to try",
                    choice.revision
                );
                self.undecided.push(text);
                return self.lose(choice.revision);
            }
            let revision = choice.revision;
            let (left, spans) = (std::mem::take(&mut choice.left), choice.spans.clone());
            if self.take(revision, left, spans.clone(), keys.clone()) {
                return Settled::Resume(revision);
            }
            keys.extend(spans);
        }
        let (at, mismatch) = self.furthest.take().expect("a search began with a mismatch");
        self.tell(mismatch.violation, at);
        self.lose(self.model.revision() + 1)
    }

    fn lose(&mut self, revision: i64) -> Settled {
        self.sound_until = self.sound_until.min(revision - 1);
        Settled::Lost
    }

    fn release(&mut self, owner: Owner) {
        if let Owner::Op(op) = owner {
            self.used.remove(&op);
        }
    }

    fn rewind(&mut self, revision: i64) {
        self.model.undo_to(revision);
        self.owners.truncate((revision - self.history.settings.first_revision) as usize);
    }

    /// Makes the next revision.
    fn make(&mut self, revision: i64) -> Result<(), Mismatch> {
        match self.claims.writes.get(&revision).copied() {
            Some(claim) => {
                self.owners.push(Owner::Op(claim.op));
                self.write(&claim)
            }
            None => self.gap(revision),
        }
    }

    /// Runs a call on the model. What its answer should be, or why there should be none.
    fn execute(&mut self, call: &Call) -> Option<Result<Reply, Refused>> {
        Some(match call {
            Call::Put(request) => self.model.put(request).map(Reply::Put),
            Call::DeleteRange(request) => Ok(Reply::DeleteRange(self.model.delete(request))),
            Call::Txn(request) => self.model.txn(request).map(Reply::Txn),
            _ => return None,
        })
    }

    fn write(&mut self, claim: &Claim) -> Result<(), Mismatch> {
        let op = self.op(claim);
        let before = self.model.revision();
        let done = self.execute(&op.call);
        let moved = self.model.revision() > before;
        if !moved {
            self.model.skip();
        }
        let differs = match done {
            Some(Ok(expected)) if moved => differs(&op.call, &expected, op.outcome.reply()),
            Some(Ok(_)) => Some("there was nothing for it to change".to_owned()),
            Some(Err(refused)) => Some(format!("it should have been refused ({refused:?})")),
            None => None,
        };
        match differs {
            Some(text) => Err(self.mismatch(op, claim.revision, "linear/write", &text)),
            None => Ok(()),
        }
    }

    fn mismatch(&self, op: &Op, revision: i64, rule: &'static str, text: &str) -> Mismatch {
        let text =
            format!("the answer to {} at revision {revision} is not the model's: {text}", describe(op));
        Mismatch { violation: violation(rule, text, &[op]), keys: footprint(&op.call) }
    }

    /// What is wrong with a call that saw the store as it now is.
    fn read(&mut self, claim: &Claim) -> Option<Mismatch> {
        let op = self.op(claim);
        let now = self.model.revision();
        self.redone += usize::from(!self.choices.is_empty() && self.redone > 0);
        let text = if claim.revision < self.history.settings.first_revision {
            Some(format!("the recording began at revision {}", self.history.settings.first_revision))
        } else if let Call::LeaseRevoke(request) = &op.call {
            return self.revoked(op, request.id);
        } else if let (Call::Range(request), Some(Reply::Range(seen))) = (&op.call, op.outcome.reply()) {
            if request.revision > claim.revision {
                Some("it asks for a later one, and should have been refused".to_owned())
            } else {
                let at = if request.revision > 0 { request.revision } else { claim.revision };
                compare::range(request, &self.model.range(request, at), seen)
            }
        } else {
            let done = self.execute(&op.call);
            let moved = self.model.revision() > now;
            self.model.undo_to(now);
            match done {
                Some(_) if moved => Some("it should have changed something".to_owned()),
                Some(Ok(expected)) => differs(&op.call, &expected, op.outcome.reply()),
                Some(Err(refused)) => Some(format!("it should have been refused ({refused:?})")),
                None => None,
            }
        };
        let rule = if claim.serializable { "linear/serializable" } else { "linear/read" };
        text.map(|text| self.mismatch(op, claim.revision, rule, &text))
    }

    /// What is wrong with a revocation that was answered here: the lease has keys still.
    fn revoked(&self, op: &Op, lease: i64) -> Option<Mismatch> {
        let key = self.model.leased(lease)?.first()?;
        let keys = self.model.leased(lease).into_iter().flatten().map(Span::one).collect();
        let now = self.model.revision();
        let text =
            format!("{} was answered, and {} is still on it at revision {now}", describe(op), show(key));
        Some(Mismatch { violation: violation("lease/revoked", text, &[op]), keys })
    }

    /// Finds a cause for a revision that no answered write owns.
    fn gap(&mut self, revision: i64) -> Result<(), Mismatch> {
        let causes = self.causes(revision);
        let spans = causes.iter().flat_map(|cause| self.touches(*cause)).collect();
        if self.take(revision, causes, spans, Vec::new()) {
            return Ok(());
        }
        let mismatch = self.unexplained(revision);
        let known = self.evidence.known(revision);
        self.model.force(known);
        self.owners.push(Owner::Unexplained);
        Err(mismatch)
    }

    fn touches(&self, cause: Owner) -> Vec<Span> {
        match cause {
            Owner::Op(op) => footprint(&self.history.ops[op].call),
            Owner::LeaseEnd(lease) => self.model.leased(lease).into_iter().flatten().map(Span::one).collect(),
            Owner::Unexplained => Vec::new(),
        }
    }

    /// Takes the first of `causes` that agrees with what was seen.
    fn take(&mut self, revision: i64, causes: Vec<Owner>, spans: Vec<Span>, failed: Vec<Span>) -> bool {
        let mut causes = causes.into_iter();
        while let Some(cause) = causes.next() {
            self.redone += usize::from(self.redone > 0);
            if !self.try_cause(revision, cause) {
                continue;
            }
            if let Owner::Op(op) = cause {
                self.used.insert(op);
            }
            self.owners.push(cause);
            let left: Vec<Owner> = causes.collect();
            let ambiguous = self.is_ambiguous(revision, cause, &left);
            self.choices.push(Choice { revision, taken: cause, left, spans, failed, ambiguous });
            return true;
        }
        false
    }

    /// Runs a cause; whether it made the revision, and agrees with what was seen of it.
    fn try_cause(&mut self, revision: i64, cause: Owner) -> bool {
        let moved = match cause {
            Owner::Op(op) => {
                let history = self.history;
                matches!(self.execute(&history.ops[op].call), Some(Ok(_)))
            }
            Owner::LeaseEnd(lease) => self.model.end_lease(lease),
            Owner::Unexplained => false,
        };
        let made = moved && self.model.revision() == revision;
        let agrees = made && self.evidence.against(revision, &self.model.changes(revision)).is_none();
        if !agrees {
            self.model.undo_to(revision - 1);
        }
        agrees
    }

    /// Whether one of `others` would do for the revision, and change something else.
    fn is_ambiguous(&mut self, revision: i64, taken: Owner, others: &[Owner]) -> bool {
        if others.len() > COMPARED_MAX {
            return true;
        }
        let changes = self.model.changes(revision);
        self.model.undo_to(revision - 1);
        let mut other = false;
        for cause in others {
            if self.try_cause(revision, *cause) {
                other |= self.model.changes(revision) != changes;
                self.model.undo_to(revision - 1);
            }
        }
        let again = self.try_cause(revision, taken);
        assert!(again, "it did just before");
        other
    }

    /// What could have made a revision, the likeliest first.
    fn causes(&self, revision: i64) -> Vec<Owner> {
        let open = |number: &usize| {
            let (op, _) = self.claims.open[*number];
            !self.used.contains(&op) && self.seen.floor(self.history.ops[op].start) < revision
        };
        let owner = |number: usize| Owner::Op(self.claims.open[number].0);
        let elsewhere = |number: &usize| self.reserved.get(number).is_some_and(|gap| *gap != revision);
        if let Some(kv) = self.evidence.a_put(revision) {
            let mut numbers: Vec<usize> = self.putters.get(&kv.key).into_iter().flatten().copied().collect();
            numbers.retain(open);
            numbers.sort_by_key(elsewhere);
            return numbers.into_iter().map(owner).collect();
        }
        let mut leases: Vec<i64> = self.model.leases().collect();
        let mut numbers: Vec<usize> = match self.evidence.a_deletion(revision) {
            Some(key) => {
                leases.retain(|lease| self.model.leased(*lease).is_some_and(|keys| keys.contains(key)));
                let deletes = |writes: &Writes| writes.deletes.iter().any(|span| span.contains(key));
                let deleters = self.deleters.iter().copied();
                deleters.filter(|number| deletes(&self.claims.open[*number].1)).collect()
            }
            None => (0..self.claims.open.len()).collect(),
        };
        numbers.retain(open);
        numbers.sort_by_key(elsewhere);
        let ends = leases.into_iter().map(Owner::LeaseEnd);
        numbers.into_iter().map(owner).chain(ends).take(CAUSES_MAX).collect()
    }

    /// A revision that nobody asked for, as well as it can be told.
    fn unexplained(&self, revision: i64) -> Mismatch {
        let known = self.evidence.known(revision);
        let mut keys = keys_of(&known);
        let mut ops = Vec::new();
        let mut rule = "linear/unexplained-revision";
        let mut text = match known.first() {
            Some(kv) => {
                format!("revision {revision} was seen with {}, which no open call explains", show_kv(kv))
            }
            None => format!("revision {revision} was passed, and no open call or lease explains it"),
        };
        if let Some(kv) = self.evidence.a_put(revision) {
            let wrote = |op: &&Op| {
                Writes::of(&op.call).puts.iter().any(|(k, v)| *k == kv.key && v.as_ref() == Some(&kv.value))
            };
            if let Some(op) = self.history.ops.iter().find(wrote) {
                match &op.outcome {
                    Outcome::Ok(reply) => {
                        rule = "at_most_once/applied-twice";
                        let first = reply.header().map_or(0, |header| header.revision);
                        text = format!(
                            "what {} wrote at revision {first} was written again at {revision}",
                            describe(op)
                        );
                    }
                    Outcome::Refused { message, .. } => {
                        rule = "linear/refused-but-done";
                        text = format!(
                            "{} was refused ({message}), and yet is there at revision {revision}",
                            describe(op)
                        );
                    }
                    Outcome::Unknown(_) => {
                        rule = "at_most_once/applied-twice";
                        text += &format!(
                            "; {}, whose outcome is unknown, is used up or does not fit",
                            describe(op)
                        );
                    }
                }
                ops.push(op.id);
            }
        }
        if keys.is_empty() {
            keys = everything();
        }
        let at = self.seen.first(revision).unwrap_or(Micros(0));
        let watches = self.evidence.watches(revision);
        Mismatch { violation: Violation { rule, text, ops, watches, at }, keys }
    }
}

/// What is to be done after something did not fit.
enum Settled {
    /// It is a violation, and the replay goes on.
    Told,
    /// Another cause was taken for this revision's gap; the replay goes on behind it.
    Resume(i64),
    /// The state is not known any more.
    Lost,
}

/// How an answer differs from the one expected.
fn differs(call: &Call, expected: &Reply, seen: Option<&Reply>) -> Option<String> {
    match (call, expected, seen) {
        (_, Reply::Put(a), Some(Reply::Put(b))) => compare::put(a, b),
        (_, Reply::DeleteRange(a), Some(Reply::DeleteRange(b))) => compare::delete(a, b),
        (Call::Txn(request), Reply::Txn(a), Some(Reply::Txn(b))) => compare::txn(request, a, b),
        _ => Some("it is of another kind than the request".to_owned()),
    }
}
