//! Authorization: what is answered was permitted, and what is denied was not, at some moment of the call.
//!
//! Users, roles and permissions are facts, each a register that calls write. What a register may have held while a call
//! ran follows from the spans of the calls that wrote it, and calls that were not answered may have been done at any
//! time from their start on. The authorization revision, which each change moves by one, tells more: who was told
//! one knows how many of the open changes had been made.
//!
//! ```text
//! permit r1 k ──OK         u1 put k ──OK ✓    may have been permitted
//!        u1 put k ──denied ✓      forbid r1 k ──OK     u1 put k ──OK ✗
//! ```
//!
//! What goes through the log, or reads behind a barrier, is judged by the moments of its own span. What a member decides
//! by what it has applied may be as old as the token that it was shown. Denials of an old authorization revision are
//! always believed: a member that lags gives them. Left out: certificates, and that tokens end after some time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kontiki::error::Refusal;

use super::{
    Violation,
    kv::Span,
    linear::{LISTED_MAX, Owner, Timeline, violation},
    needed::{By, judged_by},
    request::describe,
    rights::{Facts, Need},
};
use crate::history::{Call, Fact, History, Micros, Op, Outcome, Reply, WatchLog};

/// Tokens that idle for this long may have been forgotten.
const TOKEN_LIVES: Micros = Micros::from_secs(200);

/// A token: the call that gave it.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    op: &'a Op,
    /// The index of the entry that gave it, by which each member that knows it has come so far; none for a signed one.
    index: Option<u64>,
}

/// The index in a simple token: letters, a dot, the index.
fn index_of(token: &str) -> Option<u64> {
    let (letters, index) = token.split_once('.')?;
    (letters.len() == 16 && letters.bytes().all(|b| b.is_ascii_alphabetic())).then(|| index.parse().ok())?
}

/// A key on a lease: from one revision until another.
struct Attached<'a> {
    key: &'a Bytes,
    from: i64,
    until: i64,
}

struct Judge<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    facts: Facts,
    /// Those that each client was given, by user, in order of their ends.
    tokens: BTreeMap<(u32, &'a str), Vec<Token<'a>>>,
    attached: BTreeMap<i64, Vec<Attached<'a>>>,
    /// Leases that a call without an answer may have attached a key to.
    open_leases: BTreeSet<i64>,
    /// Who was at each address: those who said so, and those who are known to have been.
    nodes: BTreeMap<u32, BTreeSet<u64>>,
    /// The latest start of the owners of revisions up to each.
    started: Vec<Micros>,
    /// How far anybody had applied, from when on.
    newest_applied: Progress,
    /// How far each had, by node; 0 from a start on.
    applied: BTreeMap<u64, Progress>,
    found: Vec<Violation>,
}

/// Up to which index somebody had applied, from when on.
type Progress = Vec<(Micros, u64)>;

/// How far anybody, and how far each node, had applied at what time.
fn progress(history: &History) -> (Progress, BTreeMap<u64, Progress>) {
    let mut applied: BTreeMap<u64, Progress> = BTreeMap::new();
    let mut newest = Progress::new();
    for one in &history.applied {
        applied.entry(one.node).or_default().push((one.at, one.index));
        newest.push((one.at, one.index));
    }
    for boot in &history.boots {
        applied.entry(boot.node).or_default().push((boot.at, 0));
    }
    applied.values_mut().for_each(|of| of.sort_unstable());
    newest.sort_unstable();
    let mut most = 0;
    newest.retain(|(_, index)| {
        let more = *index > most;
        most = most.max(*index);
        more
    });
    (newest, applied)
}

impl<'a> Judge<'a> {
    fn new(history: &'a History, timeline: &'a Timeline) -> Self {
        let mut tokens: BTreeMap<(u32, &str), Vec<Token<'_>>> = BTreeMap::new();
        let mut nodes: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        let mut open_leases = BTreeSet::new();
        for up in &history.ups {
            nodes.entry(up.member).or_default().insert(up.node);
        }
        for op in &history.ops {
            if let Some(header) = op.outcome.reply().and_then(Reply::header) {
                nodes.entry(op.member).or_default().insert(header.member_id);
            }
            if let (Call::Authenticate(request), Some(Reply::Authenticate(reply))) =
                (&op.call, op.outcome.reply())
            {
                let token = Token { op, index: index_of(&reply.token) };
                tokens.entry((op.client, &request.name)).or_default().push(token);
            }
            if op.outcome.is_unknown() {
                let needs = judged_by(&op.call).map(|(_, needs)| needs).unwrap_or_default();
                open_leases.extend(needs.iter().filter_map(Need::lease_to_write));
            }
        }
        tokens.values_mut().for_each(|tokens| tokens.sort_by_key(|token| token.op.end));
        let mut attached: BTreeMap<i64, Vec<Attached<'_>>> = BTreeMap::new();
        for (key, versions) in timeline.model.histories() {
            for (at, kv) in versions.iter().enumerate().filter(|(_, kv)| kv.lease != 0) {
                let until = versions.get(at + 1).map_or(i64::MAX, |next| next.mod_revision);
                attached.entry(kv.lease).or_default().push(Attached { key, from: kv.mod_revision, until });
            }
        }
        let mut latest = Micros(0);
        let started = timeline.owners.iter().map(|owner| {
            if let Owner::Op(op) = owner {
                latest = latest.max(history.ops[*op].start);
            }
            latest
        });
        let started = started.collect();
        let (facts, found) = (Facts::of(history), Vec::new());
        let (newest_applied, applied) = progress(history);
        Self {
            history,
            timeline,
            facts,
            tokens,
            attached,
            open_leases,
            nodes,
            started,
            newest_applied,
            applied,
            found,
        }
    }

    fn tell(&mut self, rule: &'static str, text: String, op: &Op) {
        if self.found.len() < LISTED_MAX {
            self.found.push(violation(rule, text, &[op]));
        }
    }

    /// The token that a client showed: the last that it had been given as that user.
    fn token(&self, client: u32, user: Option<&str>, at: Micros) -> Option<Token<'a>> {
        let tokens = self.tokens.get(&(client, user?))?;
        tokens.iter().rev().find(|token| token.op.end.is_some_and(|end| end < at)).copied()
    }

    /// All that a call may have come with: those that were given in the very moment, too.
    fn may_come_with(&self, op: &'a Op) -> impl Iterator<Item = Token<'a>> + use<'_, 'a> {
        let user = op.user.as_deref();
        let all = user.and_then(|user| self.tokens.get(&(op.client, user))).into_iter().flatten().copied();
        let now = all.filter(|token| token.op.end == Some(op.start));
        now.chain(self.token(op.client, user, op.start))
    }

    /// From when on the state may be that a member without a barrier decided by.
    fn oldest(&self, token: Option<Token<'_>>) -> Micros {
        token.filter(|token| token.index.is_some()).map_or(Micros(0), |token| token.op.start)
    }

    /// From when on the state was that a member had at a moment, by what it had applied: it may not know yet that
    /// authorization is on, and then takes any token. Of one that was started since, up to `until`, nothing is known.
    fn known_from(&self, member: u32, at: Micros, until: Micros) -> Micros {
        // Where nobody recorded what members applied, it is not told apart.
        if self.applied.is_empty() {
            return at;
        }
        let Some(node) = self.nodes.get(&member).filter(|ids| ids.len() == 1).and_then(|ids| ids.first())
        else {
            return Micros(0);
        };
        let Some(applied) = self.applied.get(node) else { return Micros(0) };
        // What was applied last may not be shown yet; what was before a start may be gone.
        let known = &applied[..applied.partition_point(|(then, _)| *then <= at)];
        let [.., (_, before), (then, last)] = known else { return Micros(0) };
        let mut boots = self.history.boots.iter().filter(|boot| boot.node == *node);
        if boots.any(|boot| boot.at >= *then && boot.at <= until) {
            return Micros(0);
        }
        let index = before.min(last);
        let first = self.newest_applied.partition_point(|(_, most)| most <= index);
        self.newest_applied.get(first).map_or(at, |(then, _)| (*then).min(at))
    }

    /// The moments that a call is judged by.
    fn moments(&self, op: &Op, by: By) -> (Micros, Micros) {
        let end = op.end.unwrap_or(op.start);
        if by == By::Newest {
            return (op.start, end);
        }
        let mut from = self.oldest(self.token(op.client, op.user.as_deref(), op.start)).min(op.start);
        // What a read shows was there when its member looked at who may see it.
        if let (Call::Range(_) | Call::Txn(_), Some(header)) =
            (&op.call, op.outcome.reply().and_then(Reply::header))
            && let Some(Owner::Op(owner)) = self.timeline.owner(self.history, header.revision)
            && header.revision <= self.timeline.sound_until
        {
            from = from.max(self.history.ops[owner].start.min(op.start));
        }
        (from, end)
    }

    /// The newest revision that may have been at a moment.
    fn newest(&self, at: Micros) -> i64 {
        self.history.settings.first_revision + self.started.partition_point(|start| *start <= at) as i64
    }

    /// The keys that were on a lease from a moment on, which a member may have decided by, to a call's end, or to the end
    /// of the lease.
    fn kept(&self, lease: i64, op: &Op, since: Micros) -> Vec<&'a Bytes> {
        let from = self.timeline.seen.floor(since.min(op.start));
        let to = self.newest(op.end.unwrap_or(op.start));
        if from > self.timeline.sound_until || to > self.timeline.sound_until {
            return Vec::new();
        }
        let ends = |until: i64| {
            until > to || self.timeline.owner(self.history, until) == Some(Owner::LeaseEnd(lease))
        };
        let all = self.attached.get(&lease).into_iter().flatten();
        // The end of a lease by itself may be before the call.
        let revoked = matches!(op.call, Call::LeaseRevoke(_));
        let stays = |a: &&Attached<'_>| {
            a.from <= from && (a.until > to || revoked && a.until > from && ends(a.until))
        };
        all.filter(stays).map(|a| a.key).collect()
    }

    /// Why an answer should not have been given.
    fn not_permitted(&self, op: &Op, by: By, needs: &[Need]) -> Option<String> {
        let (from, to) = self.moments(op, by);
        let user = op.user.as_deref();
        let off_from = match by {
            By::Newest => from,
            By::Applied => self.known_from(op.member, op.start, op.end.unwrap_or(op.start)).min(from),
        };
        if self.facts.may_be_off(off_from, to) {
            return None;
        }
        for need in needs {
            let spans: Vec<Need> = match need {
                Need::WriteLeased(lease) => {
                    self.kept(*lease, op, from).into_iter().map(|key| Need::Write(Span::one(key))).collect()
                }
                Need::ReadLeased(_) => match op.outcome.reply() {
                    Some(Reply::LeaseTimeToLive(reply)) => {
                        reply.keys.iter().map(|key| Need::Read(Span::one(key))).collect()
                    }
                    _ => Vec::new(),
                },
                other => vec![other.clone()],
            };
            if let Some(need) = spans.iter().find(|need| !self.facts.may_permit(user, need, from, to)) {
                return Some(need.to_string());
            }
        }
        None
    }

    /// Whether a denial may have been right.
    fn may_be_denied(&self, op: &Op, by: By, needs: &[Need]) -> bool {
        let (from, to) = self.moments(op, by);
        // Some ask before the log as well, as far as their member has come.
        let from = match &op.call {
            Call::UserAdd(_) | Call::UserChangePassword(_) => {
                self.oldest(self.token(op.client, op.user.as_deref(), op.start)).min(from)
            }
            _ => from,
        };
        if !self.facts.may_be_on(from, to) {
            return false;
        }
        let user = op.user.as_deref();
        needs.iter().any(|need| match need {
            Need::ReadAllLeased => self.facts.may_deny(user, &Need::Root, from, to),
            Need::WriteLeased(lease) | Need::ReadLeased(lease) => {
                self.open_leases.contains(lease)
                    || !self.timeline.whole
                    || self.attached.get(lease).into_iter().flatten().any(|attached| {
                        let one = Span::one(attached.key);
                        let need = match need {
                            Need::ReadLeased(_) => Need::Read(one),
                            _ => Need::Write(one),
                        };
                        self.facts.may_deny(user, &need, from, to)
                    })
            }
            other => self.facts.may_deny(user, other, from, to),
        })
    }

    /// Whether a member may have forgotten a token, or never known it.
    fn may_be_unknown(&self, token: Token<'_>, op: &Op) -> bool {
        let (given, end) = (token.op.start, op.end.unwrap_or(op.start));
        let Some(_) = token.index else { return true };
        if end.since(token.op.end.unwrap_or(given)) > TOKEN_LIVES
            || self.facts.may_end_tokens(op.user.as_deref().unwrap_or_default(), given, end)
        {
            return true;
        }
        let Some(nodes) = self.nodes.get(&op.member) else { return true };
        // A restart forgets it, and so does a snapshot that has its entry in it.
        let boots = self.history.boots.iter();
        let restarted = boots.filter(|boot| nodes.contains(&boot.node)).any(|boot| boot.at >= given);
        // So does another member that takes its place.
        let ups = self.history.ups.iter().filter(|up| up.member == op.member);
        let restarted = restarted || ups.map(|up| up.at).any(|at| at >= given && at <= end);
        let messages = self.history.messages.iter().filter(|message| nodes.contains(&message.to));
        let replaced = messages
            .filter(|message| matches!(message.fact, Fact::Snapshot { .. }))
            .any(|message| message.at >= given && message.at <= end);
        restarted || replaced || self.history.applied.is_empty()
    }

    /// Whether a member is known to have come as far as a token's entry before a call.
    fn has_come(&self, token: Token<'_>, op: &Op) -> bool {
        let (Some(index), Some(nodes)) = (token.index, self.nodes.get(&op.member)) else { return false };
        if nodes.len() != 1 {
            return false;
        }
        let applied = self.history.applied.iter();
        let applied = applied.filter(|a| nodes.contains(&a.node) && a.at < op.start).map(|a| (a.at, a.index));
        let boots = self.history.boots.iter();
        let boots = boots.filter(|b| nodes.contains(&b.node) && b.at < op.start).map(|b| (b.at, b.applied));
        let last = applied.chain(boots).max_by_key(|(at, _)| *at);
        // A start in the middle of the call may be from before.
        let restarted = self
            .history
            .boots
            .iter()
            .any(|b| nodes.contains(&b.node) && b.at >= op.start && Some(b.at) <= op.end);
        !restarted && last.is_some_and(|(_, at)| at >= index)
    }

    fn call(&mut self, op: &'a Op) {
        let Some((by, needs)) = judged_by(&op.call) else { return };
        match &op.outcome {
            Outcome::Ok(_) => {
                if let Some(need) = self.not_permitted(op, by, &needs) {
                    let who = op.user.as_deref().unwrap_or("nobody");
                    let text = format!("{} was answered, and {who} was not permitted {need}", describe(op));
                    self.tell("authz/permitted", text, op);
                }
            }
            Outcome::Refused { message, .. } => self.denial(op, by, &needs, message),
            Outcome::Unknown(_) => {}
        }
    }

    fn denial(&mut self, op: &'a Op, by: By, needs: &[Need], message: &str) {
        let token = self.token(op.client, op.user.as_deref(), op.start);
        let who = op.user.as_deref().unwrap_or("nobody");
        let is = |refusal: Refusal| *message == refusal.to_string();
        let end = op.end.unwrap_or(op.start);
        if is(Refusal::PermissionDenied) && !self.may_be_denied(op, by, needs) {
            let text = format!("{} was denied, and {who} was permitted all of it all the time", describe(op));
            self.tell("authz/denied", text, op);
        }
        if is(Refusal::UserEmpty) && !is_about_names(&op.call) {
            let wrong = match (op.user.is_some(), token) {
                (false, _) => !self.facts.may_be_on(Micros(0), end),
                // Who was off when the token was given was on since.
                (true, Some(token)) => {
                    self.has_come(token, op) && !self.facts.may_be_off(token.op.start, end)
                }
                (true, None) => false,
            };
            if wrong {
                let text = format!("{} was refused as nobody's, and came from {who}", describe(op));
                self.tell("authz/nobody", text, op);
            }
        }
        if let (true, Some(token)) = (is(Refusal::InvalidAuthToken), token)
            && !self.may_come_with(op).any(|token| self.may_be_unknown(token, op))
        {
            let text = format!(
                "{} was refused for its token, which {who} had been given at {} and nothing had ended",
                describe(op),
                token.op.start
            );
            self.tell("authz/token", text, op);
        }
        if is(Refusal::AuthOldRevision) && !self.facts.may_have_changed(end) {
            let text = format!("{} was refused as of an old revision, and there was none", describe(op));
            self.tell("authz/denied", text, op);
        }
    }

    /// A watch is permitted when it is made.
    fn watch(&mut self, log: &WatchLog, opened: Micros) {
        let Some((at, created)) = log.responses.iter().find(|(_, response)| response.created) else { return };
        let user = log.user.as_deref();
        let from = self.oldest(self.token(log.client, user, opened)).min(log.start);
        let need = Need::Read(Span::of_watch(&log.create.key, &log.create.range_end));
        let who = user.unwrap_or("nobody");
        let denied =
            created.canceled && created.cancel_reason.contains(&Refusal::PermissionDenied.to_string());
        let text = if !created.canceled
            && !self.facts.may_be_off(self.known_from(log.member, opened, *at).min(from), *at)
            && !self.facts.may_permit(user, &need, from, *at)
        {
            format!("was made for {who}, who was not permitted {need}")
        } else if denied && !(self.facts.may_be_on(from, *at) && self.facts.may_deny(user, &need, from, *at))
        {
            format!("was denied to {who}, who was permitted it all the time")
        } else {
            return;
        };
        if self.found.len() < LISTED_MAX {
            let text = format!("client {}'s watch {} (member {}) {text}", log.client, log.id, log.member);
            let (ops, watches) = (Vec::new(), vec![log.id]);
            self.found.push(Violation { rule: "authz/watch", text, ops, watches, at: *at });
        }
    }

    fn authenticate(&mut self, op: &'a Op) {
        let Call::Authenticate(request) = &op.call else { return };
        let (from, to) = (op.start, op.end.unwrap_or(op.start));
        let right = self.facts.may_be_password(&request.name, &request.password, from, to);
        let wrong = self.facts.may_not_be_password(&request.name, &request.password, from, to);
        match &op.outcome {
            Outcome::Ok(_) if !right || !self.facts.may_be_on(from, to) => {
                let text = format!("{} gave {} a token for a wrong password", describe(op), request.name);
                self.tell("authz/password", text, op);
            }
            Outcome::Refused { message, .. } if *message == Refusal::AuthFailed.to_string() && !wrong => {
                let text = format!("{} refused {}'s password, which it was", describe(op), request.name);
                self.tell("authz/password", text, op);
            }
            Outcome::Refused { message, .. }
                if *message == Refusal::AuthNotEnabled.to_string() && !self.facts.may_be_off(from, to) =>
            {
                let text = format!("{} was refused as if authorization were off", describe(op));
                self.tell("authz/enabled", text, op);
            }
            Outcome::Ok(_) | Outcome::Refused { .. } | Outcome::Unknown(_) => {}
        }
    }
}

/// Calls that name a user, which is refused with the same words if it is empty.
fn is_about_names(call: &Call) -> bool {
    matches!(call, Call::UserAdd(request) if request.name.is_empty())
}

/// Checks who was let in.
pub fn check_with(history: &History, timeline: &Timeline) -> Vec<Violation> {
    if !history.ops.iter().any(|op| matches!(op.call, Call::AuthEnable(_))) {
        return Vec::new();
    }
    let mut judge = Judge::new(history, timeline);
    for op in &history.ops {
        judge.call(op);
        judge.authenticate(op);
    }
    let mut opened: BTreeMap<u64, Micros> = BTreeMap::new();
    for log in &history.watches {
        let at = opened.entry(log.stream).or_insert(log.start);
        *at = (*at).min(log.start);
    }
    for log in &history.watches {
        judge.watch(log, opened[&log.stream]);
    }
    let mut found = judge.facts.answers(history);
    found.append(&mut judge.found);
    found.truncate(LISTED_MAX);
    found
}

/// Checks who was let in.
pub fn check(history: &History) -> Vec<Violation> {
    check_with(history, &super::linear::timeline(history))
}
