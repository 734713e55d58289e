//! Leases: they never end early, they do end, and what has ended stays so.
//!
//! A lease lives from its grant on, and each renewal answered with a TTL shows that it lived then and would for that long,
//! counted from when the renewal was asked for; less the drift of clocks, and what the settings allow besides. It has
//! ended when a revision deleted its keys that nothing but its end explains, or when the cluster says that it is not
//! there. Who may have revoked it is excused.
//!
//! ```text
//! grant 2 s        renew            seen gone
//! ──●──────────────●────────────────✗──────────┤ not before: start of the renewal + 2 s
//! ```
//!
//! That a revoked lease has no keys is checked in the replay. Left out: what a member says of leases it hears of late (`LeaseLeases`, and that there is no such lease), but for
//! leases that should have ended long ago.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kontiki::error::Refusal;

use super::{
    Violation,
    kv::Span,
    linear::{LISTED_MAX, Owner, Timeline, violation},
    request::{Writes, describe},
};
use crate::history::{Call, Fact, History, Micros, Op, Outcome, Reply};

/// What calls say of one lease.
#[derive(Default)]
struct Life<'a> {
    /// Grants answered, with their TTLs.
    grants: Vec<(&'a Op, Micros)>,
    /// Grants that may have been done.
    open_grants: Vec<&'a Op>,
    /// Renewals answered with a TTL.
    renewals: Vec<(&'a Op, Micros)>,
    /// Renewals without an answer.
    open_renewals: Vec<&'a Op>,
    /// Revocations that may have been done.
    revocations: Vec<&'a Op>,
    /// Calls whose answer shows that it was not there.
    missed: Vec<&'a Op>,
    /// Revisions at which it ended.
    ends: Vec<i64>,
    /// Puts on it that were answered, by revision.
    puts: Vec<(i64, &'a Op)>,
    /// Questions for it that were answered.
    questions: Vec<&'a Op>,
}

/// A key that was on a lease, until what took it off.
struct Attached<'a> {
    key: &'a Bytes,
    until: i64,
}

fn leads(fact: &Fact) -> bool {
    matches!(fact, Fact::Heartbeat { .. } | Fact::Append { .. })
}

/// From when on a leader counts the time of all leases: in the calm, its own election's, if messages were recorded.
fn led_since(history: &History) -> Option<Micros> {
    let calm = history.settings.calm_from?;
    let leading = history.messages.iter().filter(|message| leads(&message.fact));
    match leading.clone().map(|message| message.term).max() {
        Some(term) => {
            let first = leading.filter(|message| message.term == term).map(|message| message.at).min()?;
            Some(first.max(calm))
        }
        None => Some(calm.after(history.settings.settle_max)),
    }
}

struct Leases<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    lives: BTreeMap<i64, Life<'a>>,
    attached: BTreeMap<i64, Vec<Attached<'a>>>,
    /// Calls without an answer that may have deleted keys.
    open_deletions: Vec<(&'a Op, Vec<Span>)>,
    /// Lists of all leases.
    lists: Vec<&'a Op>,
    /// The last answered read or write to begin.
    latest: Option<&'a Op>,
    /// Whether a grant without an answer left its id to the cluster.
    nameless: bool,
    /// From when on a leader counts their time in the calm.
    led_since: Option<Micros>,
    found: Vec<Violation>,
}

const fn seconds(ttl: i64) -> Micros {
    Micros((if ttl < 0 { 0 } else { ttl as u64 }).saturating_mul(1_000_000))
}

impl<'a> Leases<'a> {
    fn of(history: &'a History, timeline: &'a Timeline) -> Self {
        let (lives, attached, open_deletions, lists, latest, found) = Default::default();
        let (nameless, led_since) = (false, led_since(history));
        let mut leases = Self {
            history,
            timeline,
            lives,
            attached,
            open_deletions,
            lists,
            latest,
            nameless,
            led_since,
            found,
        };
        for op in &history.ops {
            leases.take(op);
            leases.take_other(op);
        }
        for (number, owner) in timeline.owners.iter().enumerate() {
            if let Owner::LeaseEnd(lease) = owner {
                let revision = history.settings.first_revision + 1 + number as i64;
                leases.lives.entry(*lease).or_default().ends.push(revision);
            }
        }
        for (key, versions) in timeline.model.histories() {
            for (at, kv) in versions.iter().enumerate().filter(|(_, kv)| kv.lease != 0) {
                let until = versions.get(at + 1).map_or(i64::MAX, |next| next.mod_revision);
                leases.attached.entry(kv.lease).or_default().push(Attached { key, until });
            }
        }
        leases
    }

    fn take(&mut self, op: &'a Op) {
        match (&op.call, &op.outcome) {
            (_, Outcome::Ok(Reply::LeaseGrant(reply))) => {
                self.lives.entry(reply.id).or_default().grants.push((op, seconds(reply.ttl)));
            }
            (Call::LeaseGrant(request), Outcome::Unknown(_)) if request.id == 0 => self.nameless = true,
            (Call::LeaseGrant(request), Outcome::Unknown(_)) => {
                self.lives.entry(request.id).or_default().open_grants.push(op);
            }
            (Call::LeaseKeepAlive(request), Outcome::Ok(Reply::LeaseKeepAlive(reply))) => {
                let life = self.lives.entry(request.id).or_default();
                if reply.ttl > 0 {
                    life.renewals.push((op, seconds(reply.ttl)));
                } else {
                    life.missed.push(op);
                }
            }
            (Call::LeaseKeepAlive(request), Outcome::Unknown(_)) => {
                self.lives.entry(request.id).or_default().open_renewals.push(op);
            }
            (Call::LeaseRevoke(request), Outcome::Ok(_) | Outcome::Unknown(_)) => {
                self.lives.entry(request.id).or_default().revocations.push(op);
            }
            (Call::LeaseRevoke(request), Outcome::Refused { message, .. })
                if *message == Refusal::LeaseNotFound.to_string() =>
            {
                self.lives.entry(request.id).or_default().missed.push(op);
            }
            (Call::Put(request), Outcome::Refused { message, .. })
                if request.lease != 0 && *message == Refusal::LeaseNotFound.to_string() =>
            {
                self.lives.entry(request.lease).or_default().missed.push(op);
            }
            (Call::Put(request), Outcome::Ok(Reply::Put(reply))) if request.lease != 0 => {
                let revision = reply.header.as_ref().map_or(0, |header| header.revision);
                self.lives.entry(request.lease).or_default().puts.push((revision, op));
            }
            _ => {}
        }
    }

    /// Calls that are not of one lease.
    fn take_other(&mut self, op: &'a Op) {
        if op.outcome.is_unknown() {
            let deletes = Writes::of(&op.call).deletes;
            if !deletes.is_empty() {
                self.open_deletions.push((op, deletes));
            }
        }
        match (&op.call, op.outcome.reply()) {
            (Call::LeaseTimeToLive(request), Some(_)) => {
                self.lives.entry(request.id).or_default().questions.push(op);
            }
            (_, Some(Reply::LeaseLeases(_))) => self.lists.push(op),
            (_, Some(Reply::Range(_) | Reply::Put(_) | Reply::Txn(_)))
                if self.latest.is_none_or(|latest| latest.start < op.start) =>
            {
                self.latest = Some(op);
            }
            _ => {}
        }
    }

    fn tell(&mut self, rule: &'static str, text: String, ops: &[&Op]) {
        if self.found.len() < LISTED_MAX {
            self.found.push(violation(rule, text, ops));
        }
    }

    /// Until when a lease that was granted or renewed by `op` may not end.
    fn certain(&self, op: &Op, ttl: Micros) -> Micros {
        let settings = &self.history.settings;
        let drift = ttl.0 / 1_000_000 * settings.clock_drift_ppm;
        Micros((op.start.0 + ttl.0).saturating_sub(drift + settings.lease_early_max.0))
    }

    /// The grant or renewal that shows that the lease, gone at `gone`, should have lived: one that was over when
    /// `asked` began.
    fn alive(&self, life: &Life<'a>, asked: Micros, gone: Micros) -> Option<(&'a Op, Micros)> {
        if life.revocations.iter().any(|revoke| revoke.start <= gone) {
            return None;
        }
        let shown = life.grants.iter().chain(&life.renewals).copied();
        let shown =
            shown.filter(|(op, ttl)| op.end.is_some_and(|end| end < asked) && self.certain(op, *ttl) > gone);
        shown.max_by_key(|(op, ttl)| self.certain(op, *ttl))
    }

    fn never_early(&mut self, lease: i64, life: &Life<'a>) {
        for revision in life.ends.iter().filter(|revision| **revision <= self.timeline.sound_until) {
            let Some(gone) = self.timeline.seen.first(*revision) else { continue };
            if self.deleted_otherwise(lease, *revision, gone) {
                continue;
            }
            if let Some((shown, ttl)) = self.alive(life, gone, gone) {
                let text = format!(
                    "lease {lease:x} ended at revision {revision}, seen at {gone}, and {} at {} gave it {ttl} more",
                    describe(shown),
                    shown.start
                );
                self.tell("lease/early", text, &[shown]);
            }
        }
        for op in &life.missed {
            let Some(end) = op.end else { continue };
            // A grant of the same id in between would be another lease.
            if let Some((shown, ttl)) = self.alive(life, op.start, end) {
                let text = format!(
                    "{} found no lease at {end}, and {} at {} gave it {ttl} more",
                    describe(op),
                    describe(shown),
                    shown.start
                );
                self.tell("lease/early", text, &[shown, op]);
            }
        }
        for (grant, _) in &life.grants {
            let Some(end) = grant.end else { continue };
            if let Some((shown, ttl)) = self.alive(life, grant.start, end) {
                let text = format!(
                    "{} was answered, though {} at {} had given it {ttl} more",
                    describe(grant),
                    describe(shown),
                    shown.start
                );
                self.tell("lease/early", text, &[shown, grant]);
            }
        }
    }

    /// Whether an open call may have deleted the lease's keys instead of its end.
    fn deleted_otherwise(&self, lease: i64, revision: i64, gone: Micros) -> bool {
        let gone_keys: Vec<&Bytes> = self
            .attached
            .get(&lease)
            .into_iter()
            .flatten()
            .filter(|attached| attached.until == revision)
            .map(|attached| attached.key)
            .collect();
        let deletes =
            |spans: &[Span]| gone_keys.iter().all(|key| spans.iter().any(|span| span.contains(key)));
        self.open_deletions.iter().any(|(op, spans)| op.start <= gone && deletes(spans))
    }

    /// The first time that the lease was certainly gone for good: its end was seen, or its revocation was answered.
    fn gone(&self, lease: i64, life: &Life<'a>) -> Option<Micros> {
        let sound = life.ends.iter().filter(|revision| **revision <= self.timeline.sound_until);
        let seen = sound.filter_map(|revision| Some((*revision, self.timeline.seen.first(*revision)?)));
        let ends = seen.filter(|(revision, gone)| !self.deleted_otherwise(lease, *revision, *gone));
        let ended = ends.map(|(_, gone)| gone).min();
        let revoked =
            life.revocations.iter().filter(|op| op.outcome.reply().is_some()).filter_map(|op| op.end).min();
        [ended, revoked].into_iter().flatten().min()
    }

    /// Whether the lease may have been granted once more after `at`.
    fn granted_again(&self, life: &Life<'a>, at: Micros) -> bool {
        let after = |op: &&Op| op.end.is_none_or(|end| end >= at) || op.outcome.is_unknown();
        life.grants.iter().map(|(op, _)| *op).chain(life.open_grants.iter().copied()).any(|op| after(&op))
            || life.grants.len() + life.open_grants.len() > 1
    }

    fn stays_gone(&mut self, lease: i64, life: &Life<'a>) {
        if let Some(gone) = self.gone(lease, life).filter(|gone| !self.granted_again(life, *gone)) {
            for (op, _) in life.renewals.iter().filter(|(op, _)| op.start > gone) {
                let text =
                    format!("{} was answered with a TTL, and the lease had ended by {gone}", describe(op));
                self.tell("lease/renewed-after-end", text, &[op]);
            }
            for (_, op) in life.puts.iter().filter(|(_, op)| op.start > gone) {
                let text =
                    format!("{} was taken on lease {lease:x}, which had ended by {gone}", describe(op));
                self.tell("lease/phantom", text, &[op]);
            }
        }
        let never = life.grants.is_empty() && life.open_grants.is_empty() && !self.nameless;
        if let (Some((_, op)), true) = (life.puts.first(), never) {
            let text = format!("{} was taken on lease {lease:x}, which was never granted", describe(op));
            self.tell("lease/phantom", text, &[op]);
        }
    }

    /// In the calm, a lease that nobody renews ends.
    fn ends(&mut self, lease: i64, life: &Life<'a>) {
        let settings = &self.history.settings;
        let Some(calm) = self.led_since else { return };
        let Some(ttl) = life.grants.iter().chain(&life.renewals).map(|(_, ttl)| *ttl).max() else { return };
        if !life.open_grants.is_empty() || !life.ends.is_empty() {
            return;
        }
        let grants = life.grants.iter().map(|(op, _)| *op);
        let renewals = life.renewals.iter().map(|(op, _)| *op).chain(life.open_renewals.iter().copied());
        // One without an answer may still be under way when its client gives up.
        let latest = |op: &Op| op.end.map_or(settings.ended, |end| end);
        let Some(last) = grants.chain(renewals).map(latest).max() else { return };
        let drift = Micros(ttl.0 / 1_000_000 * settings.clock_drift_ppm);
        let due = last.max(calm).after(ttl).after(drift).after(settings.lease_late_max);
        let left =
            |op: &&&Op| matches!(op.outcome.reply(), Some(Reply::LeaseTimeToLive(reply)) if reply.ttl > 0);
        let lists = |op: &&&Op| matches!(op.outcome.reply(), Some(Reply::LeaseLeases(reply)) if reply.leases.iter().any(|l| l.id == lease));
        let asked = life.questions.iter().filter(left).chain(self.lists.iter().filter(lists)).copied();
        let keys = self.latest.filter(|_| self.holds_keys(lease));
        if let Some(op) = asked.chain(keys).find(|op| op.start > due) {
            let text = format!("{} finds lease {lease:x}, which should have ended by {due}", describe(op));
            self.tell("lease/immortal", text, &[op]);
        }
    }

    /// Whether the lease has keys to the end.
    fn holds_keys(&self, lease: i64) -> bool {
        self.timeline.whole && self.timeline.model.leased(lease).is_some()
    }

    /// In the calm, a change of the leader gives a lease no more time than has passed since the log was told of it.
    fn goes_on(&mut self, lease: i64, life: &Life<'a>) {
        let settings = &self.history.settings;
        let (Some(calm), Some(interval)) = (settings.calm_from, settings.lease_checkpoint) else { return };
        let ([(grant, ttl)], true) = (&life.grants[..], life.renewals.is_empty()) else { return };
        let Some(granted) = grant.end.filter(|_| grant.start >= calm.after(settings.settle_max)) else {
            return;
        };
        if !life.open_renewals.is_empty() || !life.open_grants.is_empty() {
            return;
        }
        let drift = |span: Micros| span.0 / 1_000_000 * settings.clock_drift_ppm;
        let more = (interval.0 + drift(interval)) as i64 / 1_000_000 + EXTENDED_MAX + CHECKPOINT_LATE_MAX;
        for op in &life.questions {
            let (Some(Reply::LeaseTimeToLive(reply)), Some(end)) = (op.outcome.reply(), op.end) else {
                continue;
            };
            let led = |at: Micros| grant.start <= at && at <= end;
            let terms: BTreeSet<u64> = self
                .history
                .messages
                .iter()
                .filter(|message| led(message.at) && leads(&message.fact))
                .map(|message| message.term)
                .collect();
            let passed = op.start.since(granted);
            let passed = Micros(passed.0.saturating_sub(drift(passed)));
            let left = ((ttl.0 - passed.0.min(ttl.0)) / 1_000_000) as i64 + 1;
            let most = left + more * (terms.len() as i64 - 1).max(0);
            if reply.ttl > most {
                let text = format!(
                    "{} at {} was answered with {}, at most {most} s are left of lease {lease:x}, granted at {granted}",
                    describe(op),
                    op.start,
                    reply.ttl
                );
                self.tell("lease/starts-anew", text, &[grant, op]);
                return;
            }
        }
    }

    /// The numbers in answers.
    fn numbers(&mut self, lease: i64, life: &Life<'a>) {
        let Some((first, ttl)) = life.grants.first().copied() else { return };
        for (grant, ttl) in &life.grants {
            let Call::LeaseGrant(request) = &grant.call else { continue };
            if *ttl < seconds(request.ttl) || request.id != 0 && request.id != lease {
                let text = format!("{} was answered with lease {lease:x} for {ttl}", describe(grant));
                self.tell("lease/grant", text, &[grant]);
            }
        }
        if life.grants.len() > 1 || !life.open_grants.is_empty() {
            return;
        }
        for (op, renewed) in &life.renewals {
            if *renewed != ttl {
                let text =
                    format!("{} gave {renewed}, and {} had given {ttl}", describe(op), describe(first));
                self.tell("lease/ttl", text, &[first, op]);
            }
        }
        for op in &life.questions {
            let Some(Reply::LeaseTimeToLive(reply)) = op.outcome.reply() else { continue };
            let there = reply.ttl >= 0;
            if there && (seconds(reply.granted_ttl) != ttl || reply.ttl > reply.granted_ttl + EXTENDED_MAX) {
                let text = format!(
                    "{} was answered with {} of {} s, and it was granted for {ttl}",
                    describe(op),
                    reply.ttl,
                    reply.granted_ttl
                );
                self.tell("lease/ttl", text, &[first, op]);
            }
        }
    }
}

/// How many seconds a new leader may add to what a lease has left: an election's time-out.
const EXTENDED_MAX: i64 = 2;

/// How many seconds a checkpoint may be late, and what it is rounded up by.
const CHECKPOINT_LATE_MAX: i64 = 3;

/// Keys that a question for a lease listed: they were on it, at some moment after its grant.
fn listed(history: &History, leases: &Leases<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !leases.timeline.whole {
        return violations;
    }
    for op in &history.ops {
        let (Call::LeaseTimeToLive(request), Some(Reply::LeaseTimeToLive(reply))) =
            (&op.call, op.outcome.reply())
        else {
            continue;
        };
        let attached = leases.attached.get(&request.id);
        let was = |key: &Bytes| attached.into_iter().flatten().any(|attached| attached.key == key);
        let stray = reply.keys.iter().find(|key| !was(key));
        // etcd lists them in any order.
        let twice = reply.keys.iter().collect::<BTreeSet<_>>().len() < reply.keys.len();
        if stray.is_some() || twice {
            let text = format!("{} listed keys that never were on it, or one twice", describe(op));
            violations.push(violation("lease/keys", text, &[op]));
        }
    }
    violations
}

/// Checks leases.
pub fn check_with(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut leases = Leases::of(history, timeline);
    let lives = std::mem::take(&mut leases.lives);
    for (lease, life) in &lives {
        leases.never_early(*lease, life);
        leases.stays_gone(*lease, life);
        leases.ends(*lease, life);
        leases.goes_on(*lease, life);
        leases.numbers(*lease, life);
    }
    let listed = listed(history, &leases);
    let mut found = leases.found;
    found.extend(listed);
    found
}

/// Checks leases.
pub fn check(history: &History) -> Vec<Violation> {
    check_with(history, &super::linear::timeline(history))
}
