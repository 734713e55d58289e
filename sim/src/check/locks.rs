//! Locks and elections, as a client library knows them: at most one holds at a time.
//!
//! A holder holds from the answer that said so until it begins to let go, and no longer than its lease is certain to
//! live, than someone revoked it, or than someone else deleted its key. It became the holder only after every older key
//! under the name was gone.

use std::collections::BTreeMap;

use super::{
    Violation,
    kv::{Kv, Span, show, show_kv},
    linear::{LISTED_MAX, Owner, Timeline, violation},
    request::{Writes, describe},
};
use crate::history::{Call, Held, History, Micros, Op, Outcome, Reply};

/// The calls that grant, renew or revoke each lease.
fn by_lease(history: &History) -> BTreeMap<i64, Vec<&Op>> {
    let mut calls: BTreeMap<i64, Vec<&Op>> = BTreeMap::new();
    for op in &history.ops {
        let lease = match (&op.call, op.outcome.reply()) {
            (_, Some(Reply::LeaseGrant(reply))) => reply.id,
            (Call::LeaseKeepAlive(request), Some(_)) => request.id,
            (Call::LeaseRevoke(request), _) => request.id,
            _ => continue,
        };
        calls.entry(lease).or_default().push(op);
    }
    calls
}

/// When a holder's right certainly went on until.
fn until(
    held: &Held,
    calls: &[&Op],
    open: &[(&Op, Vec<Span>)],
    history: &History,
    timeline: &Timeline,
) -> Micros {
    let settings = &history.settings;
    let mut until = held.until.unwrap_or(settings.ended);
    let mut lives = Micros(0);
    for op in calls {
        let ttl = match (&op.call, &op.outcome) {
            (_, Outcome::Ok(Reply::LeaseGrant(reply))) => reply.ttl,
            // One that finds no lease shows no life.
            (_, Outcome::Ok(Reply::LeaseKeepAlive(reply))) if reply.ttl > 0 => reply.ttl,
            (Call::LeaseRevoke(_), Outcome::Ok(_) | Outcome::Unknown(_)) => {
                until = until.min(op.start);
                continue;
            }
            _ => continue,
        };
        let ttl = u64::try_from(ttl).unwrap_or(0);
        let less = ttl * settings.clock_drift_ppm + settings.lease_early_max.0;
        lives = lives.max(Micros((op.start.0 + ttl * 1_000_000).saturating_sub(less)));
    }
    if held.lease != 0 {
        until = until.min(lives);
    }
    // Whoever deletes a holder's key takes it away.
    let deleted = timeline.model.versions(held.key.as_bytes()).iter();
    let deleted = deleted.filter(|kv| kv.is_deletion() && kv.mod_revision > held.created);
    for kv in deleted {
        if let Some(Owner::Op(op)) = timeline.owner(history, kv.mod_revision) {
            until = until.min(history.ops[op].start);
        }
    }
    // So does who only may have.
    for (op, spans) in open {
        if spans.iter().any(|span| span.contains(held.key.as_bytes())) {
            until = until.min(op.start);
        }
    }
    until
}

/// Calls without an answer that may have deleted keys.
fn open_deletions(history: &History) -> Vec<(&Op, Vec<Span>)> {
    let open = history.ops.iter().filter(|op| op.outcome.is_unknown());
    open.map(|op| (op, Writes::of(&op.call).deletes)).filter(|(_, spans)| !spans.is_empty()).collect()
}

/// The newest revision that may have been when `at` came: behind it all owners had still to start.
fn newest(history: &History, timeline: &Timeline, at: Micros) -> i64 {
    let first = history.settings.first_revision;
    let started = |owner: &Owner| match owner {
        Owner::Op(op) => history.ops[*op].start <= at,
        Owner::LeaseEnd(_) | Owner::Unexplained => true,
    };
    match timeline.owners.iter().position(|owner| !started(owner)) {
        Some(behind) => first + behind as i64,
        None if timeline.whole => first + timeline.owners.len() as i64,
        // There may be more than was found out.
        None => i64::MAX,
    }
}

/// A member's own lock and election services: who is told that it is its turn had a key that was, at some moment of the
/// call, there and older than all others of its line.
fn turns(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = Vec::new();
    for op in &history.ops {
        let (key, made) = match op.outcome.reply() {
            Some(Reply::Lock(reply)) => (&reply.key, None),
            Some(Reply::Campaign(reply)) => match &reply.leader {
                Some(leader) => (&leader.key, Some(leader.rev)),
                None => continue,
            },
            _ => continue,
        };
        let to = newest(history, timeline, op.end.unwrap_or(op.start));
        let Some(slash) = key.iter().rposition(|byte| *byte == b'/') else { continue };
        if to > timeline.sound_until {
            continue;
        }
        let from = timeline.seen.floor(op.start);
        let line = Span::new(&key.slice(..=slash), &[&key[..slash], b"0"].concat().into());
        // Each life of the key, with its end.
        let lives = lives(timeline, key).into_iter();
        let mut lives = lives.filter(|(created, _)| made.is_none_or(|made| made == *created));
        let others: Vec<(i64, i64)> = timeline
            .model
            .histories()
            .filter(|(other, _)| *other != key && line.contains(other))
            .flat_map(|(other, _)| self::lives(timeline, other))
            .collect();
        let was_first = lives.any(|(created, ended)| {
            let older = others.iter().filter(|(other, _)| *other < created).map(|(_, end)| *end).max();
            // From when on nobody is before it.
            let first = older.unwrap_or(0).max(created);
            first <= to && first < ended && ended > from
        });
        if !was_first {
            let text = format!(
                "{} was told that it is its turn, and its key {} was never the oldest of its line",
                describe(op),
                show(key)
            );
            violations.push(violation("locks/turn", text, &[op]));
        }
    }
    violations
}

/// The lives of a key: the revisions that made it, with those that deleted it.
fn lives(timeline: &Timeline, key: &[u8]) -> Vec<(i64, i64)> {
    let mut lives = Vec::new();
    for kv in timeline.model.versions(key) {
        match lives.last_mut() {
            Some((_, end)) if kv.is_deletion() => *end = kv.mod_revision,
            _ if kv.version == 1 => lives.push((kv.mod_revision, i64::MAX)),
            _ => {}
        }
    }
    lives
}

/// Who is said to lead an election did, at that revision.
fn leaders(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = Vec::new();
    for op in &history.ops {
        let (Call::Leader(request), Some(Reply::Leader(reply))) = (&op.call, op.outcome.reply()) else {
            continue;
        };
        let at = reply.header.as_ref().map_or(0, |header| header.revision);
        if at > timeline.sound_until {
            continue;
        }
        let name = &request.name[..];
        let line = Span::new(&[name, b"/"].concat().into(), &[name, b"0"].concat().into());
        let oldest = timeline.model.scan(&line, at).min_by_key(|kv| kv.create_revision);
        let told = reply.kv.as_ref().and_then(Kv::from_raw);
        if oldest != told.as_ref() {
            let told = told.as_ref().map_or("nobody".to_owned(), show_kv);
            let text = format!("{} was told of {told}, who did not lead at revision {at}", describe(op));
            violations.push(violation("locks/leader", text, &[op]));
        }
    }
    violations
}

/// Checks who held what.
pub fn check_with(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = turns(history, timeline);
    violations.extend(leaders(history, timeline));
    let tell = |rule, at, text| Violation { rule, text, ops: Vec::new(), watches: Vec::new(), at };
    let calls = by_lease(history);
    let open = open_deletions(history);
    let until = |held: &Held| {
        let calls = calls.get(&held.lease).map_or(&[] as &[&Op], Vec::as_slice);
        until(held, calls, &open, history, timeline)
    };
    let mut spans: Vec<(&Held, Micros)> = history.held.iter().map(|held| (held, until(held))).collect();
    spans.sort_by_key(|(held, _)| held.from);
    for (number, (held, until)) in spans.iter().enumerate() {
        for (other, _) in spans[number + 1..].iter().take_while(|(other, _)| other.from < *until) {
            if (other.kind, &other.name) == (held.kind, &held.name) && other.key != held.key {
                let text = format!(
                    "client {} held {} from {} and was sure of it until {until}, and client {} held it from {}",
                    held.client,
                    show(held.name.as_bytes()),
                    held.from,
                    other.client,
                    other.from
                );
                violations.push(tell("locks/exclusive", other.from, text));
            }
        }
        let now = newest(history, timeline, held.from);
        if now > timeline.sound_until {
            continue;
        }
        let mut end = held.name.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        let span = Span::new(&held.name.clone().into(), &end.into());
        let older = timeline.model.scan(&span, now).find(|kv| kv.create_revision < held.created);
        if let Some(kv) = older {
            let text = format!(
                "client {} held {} from {} with a key of revision {}, and {} of revision {} was there before it",
                held.client,
                show(held.name.as_bytes()),
                held.from,
                held.created,
                show(&kv.key),
                kv.create_revision
            );
            violations.push(tell("locks/in-turn", held.from, text));
        }
    }
    violations.truncate(LISTED_MAX);
    violations
}

/// Checks who held what.
pub fn check(history: &History) -> Vec<Violation> {
    check_with(history, &super::linear::timeline(history))
}
