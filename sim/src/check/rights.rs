//! What users and roles may have been at any time, from the calls that changed them.
//!
//! Each fact is a register. Of a call that was answered it is known that it wrote between its start and its end; of
//! one that was not, that it wrote after its start, if ever. A value may be there in a span if its write may have come
//! before the span's end, and was not certainly replaced before the span's start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use kontiki::error::Refusal;

use super::{
    Violation,
    cover::{bounds, cover},
    kv::{Span, show},
    linear::violation,
    request::describe,
};
use crate::history::{Call, History, Micros, Op, Outcome, Reply};

/// The user, and the role, that may do everything.
pub(super) const ROOT: &str = "root";

const NEVER: Micros = Micros(u64::MAX);

/// What whoever calls must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// To be a user.
    User,
    /// To have the role root.
    Root,
    /// To be this user, or to have the role root.
    SameUser(String),
    /// To have this role, or the role root.
    OwnRole(String),
    Read(Span),
    Write(Span),
    /// To read the keys of a lease, of all leases, and to write them.
    ReadLeased(i64),
    ReadAllLeased,
    WriteLeased(i64),
}

impl Need {
    /// The lease whose keys are written.
    pub(super) fn lease_to_write(&self) -> Option<i64> {
        match self {
            Self::WriteLeased(lease) => Some(*lease),
            Self::User
            | Self::Root
            | Self::SameUser(_)
            | Self::OwnRole(_)
            | Self::Read(_)
            | Self::Write(_)
            | Self::ReadLeased(_)
            | Self::ReadAllLeased => None,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |span: &Span| match span.end.as_ref() {
            [] => show(&span.key),
            [0] => format!("{} and all behind it", show(&span.key)),
            end => format!("{} to {}", show(&span.key), show(end)),
        };
        match self {
            Self::User => f.write_str("to be served at all"),
            Self::Root => f.write_str("to act as root"),
            Self::SameUser(user) => write!(f, "to know of user {user}"),
            Self::OwnRole(role) => write!(f, "to know of role {role}"),
            Self::Read(span) => write!(f, "to read {}", range(span)),
            Self::Write(span) => write!(f, "to write {}", range(span)),
            Self::ReadLeased(lease) => write!(f, "to read the keys of lease {lease:x}"),
            Self::ReadAllLeased => f.write_str("to read the keys of all leases"),
            Self::WriteLeased(lease) => write!(f, "to write the keys of lease {lease:x}"),
        }
    }
}

/// Something that is so, or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    /// Authorization is on.
    On,
    User(String),
    /// A user's password.
    Password(String),
    /// A user has a role.
    Has(String, String),
    Role(String),
    /// A role may do something with keys, from the first to before the second.
    May(String, Bytes, Bytes),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Is(bool),
    Word(String),
    /// 0 to read, 1 to write, 2 for both.
    Access(Option<i32>),
}

/// A call that changed something, or may have.
#[derive(Clone, Debug)]
struct Change {
    from: Micros,
    until: Micros,
    /// By how much the authorization revision goes up if it is done, at least and at most.
    moves: (u64, u64),
    writes: Vec<(Fact, Value)>,
    ends_tokens: Option<Option<String>>,
}

#[derive(Clone, Debug)]
struct Write {
    from: Micros,
    until: Micros,
    value: Value,
}

/// All facts.
pub(super) struct Facts {
    registers: BTreeMap<Fact, Vec<Write>>,
    /// The ranges that each role was ever given.
    ranges: BTreeMap<String, BTreeSet<(Bytes, Bytes)>>,
    users: BTreeSet<String>,
    roles: BTreeSet<String>,
    changes: Vec<Change>,
    found: Vec<Violation>,
}

/// The names that calls use.
#[derive(Default)]
struct Names {
    users: BTreeSet<String>,
    roles: BTreeSet<String>,
    ranges: BTreeMap<String, BTreeSet<(Bytes, Bytes)>>,
}

impl Names {
    fn of(history: &History) -> Self {
        let mut names = Self::default();
        names.roles.insert(ROOT.to_owned());
        for op in &history.ops {
            match &op.call {
                Call::UserAdd(request) => drop(names.users.insert(request.name.clone())),
                Call::RoleAdd(request) => drop(names.roles.insert(request.name.clone())),
                Call::RoleGrantPermission(request) => {
                    if let Some(perm) = &request.perm {
                        let ranges = names.ranges.entry(request.name.clone()).or_default();
                        ranges.insert((perm.key.clone(), perm.range_end.clone()));
                    }
                }
                _ => {}
            }
        }
        names
    }

    /// What becomes of a role that is made or taken away.
    fn role(&self, role: &str, there: bool) -> Vec<(Fact, Value)> {
        let mut writes = vec![(Fact::Role(role.to_owned()), Value::Is(there))];
        for (key, end) in self.ranges.get(role).into_iter().flatten() {
            let may = Fact::May(role.to_owned(), key.clone(), end.clone());
            writes.push((may, Value::Access(None)));
        }
        if !there {
            let has = |user: &String| (Fact::Has(user.clone(), role.to_owned()), Value::Is(false));
            writes.extend(self.users.iter().map(has));
        }
        writes
    }

    /// What becomes of a user who is made, with a password, or taken away.
    fn user(&self, user: &str, password: Option<&str>) -> Vec<(Fact, Value)> {
        let mut writes = vec![(Fact::User(user.to_owned()), Value::Is(password.is_some()))];
        let word = Value::Word(password.unwrap_or_default().to_owned());
        writes.push((Fact::Password(user.to_owned()), word));
        let has = |role: &String| (Fact::Has(user.to_owned(), role.clone()), Value::Is(false));
        writes.extend(self.roles.iter().map(has));
        writes
    }

    /// What a call does if it is done; none if it changes nothing.
    fn change(&self, op: &Op) -> Option<Change> {
        let mut ends_tokens = None;
        let (moves, writes) = match &op.call {
            // etcd counts neither what is on already nor, in most versions, the turning on.
            Call::AuthEnable(_) => ((0, 1), vec![(Fact::On, Value::Is(true))]),
            Call::AuthDisable(_) => {
                ends_tokens = Some(None);
                ((0, 1), vec![(Fact::On, Value::Is(false))])
            }
            Call::UserAdd(request) => ((1, 1), self.user(&request.name, Some(&request.password))),
            Call::UserDelete(request) => {
                ends_tokens = Some(Some(request.name.clone()));
                ((1, 1), self.user(&request.name, None))
            }
            Call::UserChangePassword(request) => {
                ends_tokens = Some(Some(request.name.clone()));
                let word = Value::Word(request.password.clone());
                ((1, 1), vec![(Fact::Password(request.name.clone()), word)])
            }
            Call::UserGrantRole(request) => {
                let has = Fact::Has(request.user.clone(), request.role.clone());
                ((0, 1), vec![(has, Value::Is(true))])
            }
            Call::UserRevokeRole(request) => {
                let has = Fact::Has(request.name.clone(), request.role.clone());
                ((1, 1), vec![(has, Value::Is(false))])
            }
            Call::RoleAdd(request) => ((1, 1), self.role(&request.name, true)),
            Call::RoleDelete(request) => ((1, 1), self.role(&request.role, false)),
            Call::RoleGrantPermission(request) => {
                let perm = request.perm.clone().unwrap_or_default();
                let may = Fact::May(request.name.clone(), perm.key, perm.range_end);
                ((1, 1), vec![(may, Value::Access(Some(perm.perm_type)))])
            }
            Call::RoleRevokePermission(request) => {
                let may = Fact::May(request.role.clone(), request.key.clone(), request.range_end.clone());
                ((1, 1), vec![(may, Value::Access(None))])
            }
            _ => return None,
        };
        let until = match &op.outcome {
            Outcome::Ok(_) => op.end.unwrap_or(NEVER),
            Outcome::Unknown(_) => NEVER,
            Outcome::Refused { .. } => return None,
        };
        Some(Change { from: op.start, until, moves, writes, ends_tokens })
    }
}

impl Facts {
    /// What the calls of a history made so.
    pub fn of(history: &History) -> Self {
        let names = Names::of(history);
        let changes = history.ops.iter().filter_map(|op| names.change(op)).collect();
        let Names { users, roles, ranges } = names;
        let (registers, found) = (BTreeMap::new(), Vec::new());
        let mut facts = Self { registers, ranges, users, roles, changes, found };
        if history.settings.first_revision == 1 {
            facts.count(history);
        }
        for change in facts.changes.clone() {
            for (fact, value) in change.writes {
                let first = match value {
                    Value::Is(_) => Value::Is(false),
                    Value::Word(_) => Value::Word(String::new()),
                    Value::Access(_) => Value::Access(None),
                };
                let begin = || vec![Write { from: Micros(0), until: Micros(0), value: first }];
                let writes = facts.registers.entry(fact).or_insert_with(begin);
                writes.push(Write { from: change.from, until: change.until, value });
            }
        }
        facts
    }

    /// Learns from those who were told the authorization revision how many open changes had been made.
    fn count(&mut self, history: &History) {
        let told = history.ops.iter().filter_map(|op| match op.outcome.reply() {
            Some(Reply::AuthStatus(reply)) => Some((op, reply.auth_revision)),
            _ => None,
        });
        let mut told: Vec<(&Op, u64)> = told.collect();
        told.sort_by_key(|(op, _)| op.end);
        for (op, revision) in told {
            let (start, end) = (op.start, op.end.unwrap_or(op.start));
            let (mut least, mut most) = (1, 1);
            for change in &self.changes {
                if change.until < start {
                    least += change.moves.0;
                }
                if change.from <= end {
                    most += change.moves.1;
                }
            }
            if !(least..=most).contains(&revision) {
                let text = format!(
                    "{} was told revision {revision}, and the changes that were made make it {least} to {most}",
                    describe(op)
                );
                self.found.push(violation("authz/revision", text, &[op]));
            }
            // Whether authorization was turned on does not show in the revision.
            let counted = |change: &&mut Change| change.writes.iter().all(|(fact, _)| *fact != Fact::On);
            for change in self.changes.iter_mut().filter(counted) {
                if revision == least && change.until >= start {
                    change.from = change.from.max(start);
                }
                if revision == most && change.from <= end {
                    change.until = change.until.min(end);
                }
            }
        }
    }

    /// What a fact may have been at some moment of a span.
    fn values(&self, fact: &Fact, from: Micros, to: Micros) -> BTreeSet<Value> {
        let none = match fact {
            Fact::Password(_) => Value::Word(String::new()),
            Fact::May(..) => Value::Access(None),
            Fact::On | Fact::User(_) | Fact::Has(..) | Fact::Role(_) => Value::Is(false),
        };
        let Some(writes) = self.registers.get(fact) else { return BTreeSet::from([none]) };
        // Two ranges from one key on: etcd may keep a permission beside the one that was to replace it.
        let beside = match fact {
            Fact::May(role, key, _) => self
                .ranges
                .get(role)
                .is_some_and(|ranges| ranges.iter().filter(|(other, _)| other == key).count() > 1),
            _ => false,
        };
        let replaces = |write: &&Write| write.until < from && !(beside && write.value != none);
        // Whatever was certainly written before this was replaced.
        let replaced = writes.iter().filter(replaces).map(|write| write.from).max();
        let there = writes
            .iter()
            .filter(|write| write.from <= to && replaced.is_none_or(|replaced| write.until >= replaced));
        there.map(|write| write.value.clone()).collect()
    }

    fn may_be(&self, fact: &Fact, is: bool, from: Micros, to: Micros) -> bool {
        self.values(fact, from, to).contains(&Value::Is(is))
    }

    /// Whether authorization may have been on.
    pub fn may_be_on(&self, from: Micros, to: Micros) -> bool {
        self.may_be(&Fact::On, true, from, to)
    }

    /// Whether it may have been off.
    pub fn may_be_off(&self, from: Micros, to: Micros) -> bool {
        self.may_be(&Fact::On, false, from, to)
    }

    /// Whether this may have been a user's password.
    pub fn may_be_password(&self, user: &str, word: &str, from: Micros, to: Micros) -> bool {
        self.may_be(&Fact::User(user.to_owned()), true, from, to)
            && self.values(&Fact::Password(user.to_owned()), from, to).contains(&Value::Word(word.to_owned()))
    }

    /// Whether it may not have been.
    pub fn may_not_be_password(&self, user: &str, word: &str, from: Micros, to: Micros) -> bool {
        let words = self.values(&Fact::Password(user.to_owned()), from, to);
        self.may_be(&Fact::User(user.to_owned()), false, from, to)
            || words.iter().any(|value| *value != Value::Word(word.to_owned()))
    }

    /// Whether a user's tokens may have ended after `from`.
    pub fn may_end_tokens(&self, user: &str, from: Micros, to: Micros) -> bool {
        let within = self.changes.iter().filter(|change| change.from <= to && change.until >= from);
        let mut ends = within.filter_map(|change| change.ends_tokens.as_ref());
        ends.any(|whose| whose.as_ref().is_none_or(|whose| whose == user))
    }

    /// Whether anything may have changed before a moment.
    pub fn may_have_changed(&self, to: Micros) -> bool {
        self.changes.iter().any(|change| change.from <= to)
    }

    fn has(&self, user: &str, role: &str, is: bool, from: Micros, to: Micros) -> bool {
        self.may_be(&Fact::Has(user.to_owned(), role.to_owned()), is, from, to)
    }

    /// What a user's roles may add up to, or (`surely`) add up to at every moment of a span.
    fn covers(
        &self,
        user: &str,
        wanted: [i32; 2],
        span: &Span,
        surely: bool,
        moments: (Micros, Micros),
    ) -> bool {
        let (from, to) = moments;
        let mut ranges = Vec::new();
        for role in &self.roles {
            let has =
                self.has(user, role, true, from, to) && !(surely && self.has(user, role, false, from, to));
            if !has {
                continue;
            }
            for (key, end) in self.ranges.get(role).into_iter().flatten() {
                let values = self.values(&Fact::May(role.clone(), key.clone(), end.clone()), from, to);
                let fits =
                    |value: &Value| matches!(value, Value::Access(Some(access)) if wanted.contains(access));
                if if surely { values.iter().all(fits) } else { values.iter().any(fits) } {
                    ranges.push(bounds(&Span::new(key, end)));
                }
            }
        }
        cover(ranges, bounds(span))
    }

    /// Whether a user may have been permitted something.
    pub fn may_permit(&self, user: Option<&str>, need: &Need, from: Micros, to: Micros) -> bool {
        let Some(user) = user else { return false };
        let root = || self.has(user, ROOT, true, from, to);
        match need {
            Need::User | Need::ReadLeased(_) | Need::ReadAllLeased | Need::WriteLeased(_) => true,
            Need::Root => root(),
            Need::SameUser(name) => name == user || root(),
            Need::OwnRole(role) => self.has(user, role, true, from, to) || root(),
            Need::Read(span) => root() || self.covers(user, [0, 2], span, false, (from, to)),
            Need::Write(span) => root() || self.covers(user, [1, 2], span, false, (from, to)),
        }
    }

    /// Whether a user may have been denied something.
    pub fn may_deny(&self, user: Option<&str>, need: &Need, from: Micros, to: Micros) -> bool {
        let Some(user) = user else { return true };
        let not_root = || self.has(user, ROOT, false, from, to);
        match need {
            Need::User => false,
            Need::ReadLeased(_) | Need::ReadAllLeased | Need::WriteLeased(_) => true,
            Need::Root => not_root(),
            Need::SameUser(name) => name != user && not_root(),
            Need::OwnRole(role) => self.has(user, role, false, from, to) && not_root(),
            Need::Read(span) => not_root() && !self.covers(user, [0, 2], span, true, (from, to)),
            Need::Write(span) => not_root() && !self.covers(user, [1, 2], span, true, (from, to)),
        }
    }

    /// What was said about users and roles, and can't have been so.
    pub fn answers(&mut self, history: &History) -> Vec<Violation> {
        let mut found = std::mem::take(&mut self.found);
        for op in &history.ops {
            let wrong = match &op.outcome {
                Outcome::Ok(reply) => self.wrong_answer(op, reply),
                Outcome::Refused { message, .. } => self.wrong_refusal(op, message),
                Outcome::Unknown(_) => None,
            };
            if let Some(what) = wrong {
                found.push(violation("authz/answer", format!("{} {what}", describe(op)), &[op]));
            }
        }
        found
    }

    /// What an answer says that can't have been so.
    fn wrong_answer(&self, op: &Op, reply: &Reply) -> Option<String> {
        let moments = (op.start, op.end.unwrap_or(op.start));
        let is = |fact: Fact, is: bool| self.may_be(&fact, is, moments.0, moments.1);
        let done = |possible: bool| (!possible).then(|| "was done, and could not be".to_owned());
        match (&op.call, reply) {
            (Call::UserAdd(request), _) => done(is(Fact::User(request.name.clone()), false)),
            (Call::UserDelete(request), _) => done(is(Fact::User(request.name.clone()), true)),
            (Call::UserChangePassword(request), _) => done(is(Fact::User(request.name.clone()), true)),
            (Call::UserGrantRole(request), _) => {
                let role = request.role == ROOT || is(Fact::Role(request.role.clone()), true);
                done(role && is(Fact::User(request.user.clone()), true))
            }
            (Call::UserRevokeRole(request), _) => {
                done(is(Fact::Has(request.name.clone(), request.role.clone()), true))
            }
            (Call::RoleAdd(request), _) => done(is(Fact::Role(request.name.clone()), false)),
            (Call::RoleDelete(request), _) => done(is(Fact::Role(request.role.clone()), true)),
            (Call::RoleGrantPermission(request), _) => done(is(Fact::Role(request.name.clone()), true)),
            (_, Reply::AuthStatus(reply)) => {
                (!is(Fact::On, reply.enabled)).then(|| format!("says that it is on: {}", reply.enabled))
            }
            (Call::UserGet(request), Reply::UserGet(reply)) => {
                let fact = |role: &String| Fact::Has(request.name.clone(), role.clone());
                self.list(&self.roles, &reply.roles, fact, moments)
            }
            (_, Reply::UserList(reply)) => {
                self.list(&self.users, &reply.users, |user| Fact::User(user.clone()), moments)
            }
            (_, Reply::RoleList(reply)) => {
                let roles = self.roles.iter().filter(|role| *role != ROOT).cloned().collect();
                self.list(&roles, &reply.roles, |role| Fact::Role(role.clone()), moments)
            }
            (Call::RoleGet(request), Reply::RoleGet(reply)) => {
                let may = |key: &Bytes, end: &Bytes| {
                    let fact = Fact::May(request.role.clone(), key.clone(), end.clone());
                    self.values(&fact, moments.0, moments.1)
                };
                for perm in &reply.perm {
                    if !may(&perm.key, &perm.range_end).contains(&Value::Access(Some(perm.perm_type))) {
                        return Some(format!(
                            "lists a permission from {} on that it had not",
                            show(&perm.key)
                        ));
                    }
                }
                let all = self.ranges.get(&request.role).into_iter().flatten();
                let there = |(key, end): &&(Bytes, Bytes)| !may(key, end).contains(&Value::Access(None));
                let listed = |(key, end): &(Bytes, Bytes)| {
                    reply.perm.iter().any(|perm| perm.key == key && perm.range_end == end)
                };
                let missing = all.filter(there).find(|range| !listed(range))?;
                Some(format!("does not list the permission from {} on", show(&missing.0)))
            }
            _ => None,
        }
    }

    /// What a list has that can't be, or lacks.
    fn list(
        &self,
        all: &BTreeSet<String>,
        listed: &[String],
        fact: impl Fn(&String) -> Fact,
        (from, to): (Micros, Micros),
    ) -> Option<String> {
        if let Some(stray) = listed.iter().find(|name| !self.may_be(&fact(name), true, from, to)) {
            return Some(format!("lists {stray}, which can't be"));
        }
        let surely = |name: &&String| !self.may_be(&fact(name), false, from, to);
        let missing = all.iter().filter(surely).find(|name| !listed.contains(name))?;
        Some(format!("does not list {missing}"))
    }

    /// Why a refusal can't be right.
    fn wrong_refusal(&self, op: &Op, message: &str) -> Option<String> {
        let (from, to) = (op.start, op.end.unwrap_or(op.start));
        let is = |fact: Fact, is: bool| self.may_be(&fact, is, from, to);
        let said = |refusal: Refusal| *message == refusal.to_string();
        let possible = match &op.call {
            Call::UserAdd(request) if said(Refusal::UserExists) => is(Fact::User(request.name.clone()), true),
            Call::UserDelete(request) if said(Refusal::UserNotFound) => {
                is(Fact::User(request.name.clone()), false)
            }
            Call::UserChangePassword(request) if said(Refusal::UserNotFound) => {
                is(Fact::User(request.name.clone()), false)
            }
            Call::UserGet(request) if said(Refusal::UserNotFound) => {
                is(Fact::User(request.name.clone()), false)
            }
            Call::UserGrantRole(request) if said(Refusal::UserNotFound) => {
                is(Fact::User(request.user.clone()), false)
            }
            Call::UserGrantRole(request) if said(Refusal::RoleNotFound) => {
                request.role != ROOT && is(Fact::Role(request.role.clone()), false)
            }
            Call::UserRevokeRole(request) if said(Refusal::RoleNotGranted) => {
                is(Fact::Has(request.name.clone(), request.role.clone()), false)
            }
            Call::RoleAdd(request) if said(Refusal::RoleExists) => is(Fact::Role(request.name.clone()), true),
            Call::RoleDelete(request) if said(Refusal::RoleNotFound) => {
                is(Fact::Role(request.role.clone()), false)
            }
            Call::RoleGet(request) if said(Refusal::RoleNotFound) => {
                is(Fact::Role(request.role.clone()), false)
            }
            Call::RoleGrantPermission(request) if said(Refusal::RoleNotFound) => {
                is(Fact::Role(request.name.clone()), false)
            }
            Call::RoleRevokePermission(request) if said(Refusal::PermissionNotGranted) => {
                let may = Fact::May(request.role.clone(), request.key.clone(), request.range_end.clone());
                self.values(&may, from, to).contains(&Value::Access(None))
            }
            _ => true,
        };
        (!possible).then(|| format!("was refused ({message}), which it can't be"))
    }
}
