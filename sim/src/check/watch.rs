//! Watches: ordered, unique, atomic, reliable, resumable, bookmarkable, and true to the store.
//!
//! A watch claims to tell every change of its range from its first revision on. The oracle walks along with it: behind
//! each revision that it tells, and each progress notice, nothing that it has passed over may be left.
//!
//! ```text
//! created@5   events 6, 8   progress@9   events 9 ✗ told after its bookmark
//!             └ 7 changed nothing in the range, or it is missing ✗
//! ```
//!
//! Until the replayed order is no longer sound, events are compared with the model's; order, uniqueness and atomicity
//! are judged from the watch alone. Left out: whether a start that the client chose to resume at was a good one.

use std::collections::{BTreeMap, BTreeSet};

use kontiki::wire::{etcdserverpb as pb, mvccpb::event::EventType};

use super::{
    Violation,
    kv::{Kv, Span, show, show_kv},
    linear::{LISTED_MAX, Timeline},
    order::Seen,
};
use crate::history::{Call, History, Micros, Outcome, Settings, WatchLog};

/// An event as it came.
struct Event {
    kv: Kv,
    deletes: bool,
    prev: Option<Kv>,
}

fn event(event: &kontiki::wire::mvccpb::Event) -> Option<Event> {
    let kv = Kv::from_raw(event.kv.as_ref()?)?;
    let prev = event.prev_kv.as_ref().map(Kv::from_raw);
    let deletes = event.r#type == EventType::Delete as i32;
    Some(Event { kv, deletes, prev: prev.unwrap_or_default() })
}

/// Compactions that may have been done: revision and start.
fn compactions(history: &History) -> Vec<(i64, Micros)> {
    let done = |outcome: &Outcome| !matches!(outcome, Outcome::Refused { .. });
    let ops = history.ops.iter().filter(|op| done(&op.outcome));
    ops.filter_map(|op| if let Call::Compact(c) = &op.call { Some((c.revision, op.start)) } else { None })
        .collect()
}

/// One watch on its way.
struct Walk<'a> {
    log: &'a WatchLog,
    timeline: &'a Timeline,
    compactions: &'a [(i64, Micros)],
    span: Span,
    /// The next revision that it has to tell of; none before it was created.
    next: Option<i64>,
    /// The last revision that came, and its events so far.
    revision: i64,
    events: Vec<Event>,
    /// Whether it is taken to be complete.
    closed: bool,
    /// Whether more of the last response is to come.
    fragment: bool,
    /// The newest bookmark.
    bookmark: i64,
    canceled: bool,
    /// Whether that was said once more, to its client who had asked for it.
    twice: bool,
    at: Micros,
    violations: Vec<Violation>,
}

impl Walk<'_> {
    fn tell(&mut self, rule: &'static str, text: String) {
        if self.violations.len() < LISTED_MAX {
            let text = format!(
                "client {}'s watch {} (member {}) {text}",
                self.log.client, self.log.id, self.log.member
            );
            let (ops, watches) = (Vec::new(), vec![self.log.id]);
            self.violations.push(Violation { rule, text, ops, watches, at: self.at });
        }
    }

    fn response(&mut self, response: &pb::WatchResponse) {
        if self.canceled {
            // A compaction and its client may both have ended it.
            if response.canceled && self.log.cancel.is_some() && !std::mem::replace(&mut self.twice, true) {
                return;
            }
            return self.tell("watch/after-cancel", "was answered after it had been canceled".to_owned());
        }
        let stream_wide = response.watch_id == -1 && !response.created;
        if self.next.is_none() && !response.created && !stream_wide {
            return self.tell("watch/created-first", "was answered before it was created".to_owned());
        }
        if response.created {
            return self.created(response);
        }
        if response.canceled {
            return self.cancel(response);
        }
        let Some(next) = self.next else { return };
        if response.fragment && !self.log.create.fragment {
            self.tell("watch/fragment", "got a fragment that it did not ask for".to_owned());
        }
        if response.events.is_empty() {
            self.progress(next, response);
        } else {
            self.told(response);
        }
    }

    fn created(&mut self, response: &pb::WatchResponse) {
        if self.next.is_some() {
            return self.tell("watch/created-first", "was created twice".to_owned());
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let start = self.log.create.start_revision;
        self.next = Some(match start {
            0 => revision + 1,
            // It has nothing to tell, ever.
            i64::MIN..0 => i64::MAX,
            _ => start,
        });
        self.canceled = response.canceled;
        let wanted = self.log.create.watch_id;
        if wanted != 0 && response.watch_id != wanted && !response.canceled {
            self.tell("watch/id", format!("got the id {} and had asked for {wanted}", response.watch_id));
        }
        if response.canceled && response.cancel_reason.is_empty() && response.compact_revision == 0 {
            self.tell("watch/canceled", "was refused without a reason".to_owned());
        }
    }

    fn progress(&mut self, next: i64, response: &pb::WatchResponse) {
        if self.fragment {
            self.tell("watch/fragment", "got a progress notice in the middle of a response".to_owned());
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if revision < next {
            // All that it says is that nothing is due.
            self.bookmark = self.bookmark.max(revision);
            return;
        }
        self.nothing_between(next, revision, "was told that all was told up to");
        self.bookmark = self.bookmark.max(revision);
        self.next = Some(revision + 1);
    }

    /// Nothing that it should have been told lies between.
    fn nothing_between(&mut self, from: i64, to: i64, said: &str) {
        let to_sound = to.min(self.timeline.sound_until);
        let due = |kv: &Kv| wanted(&self.log.create, kv) && !self.may_be_gone(kv);
        let missed = self.timeline.model.within(&self.span, from, to_sound).find(|(kv, _)| due(kv));
        if let Some((kv, _)) = missed {
            let text = format!("{said} {to}, but never of {}", show_kv(kv));
            self.tell("watch/reliable", text);
        }
    }

    /// Whether a compaction may have dropped a change that the watch has not heard of: of the revision compacted to
    /// only the last change of each key stays.
    fn may_be_gone(&self, change: &Kv) -> bool {
        let revision = change.mod_revision;
        let versions = self.timeline.model.versions(&change.key).iter();
        let last = versions.rev().find(|kv| kv.mod_revision == revision);
        last.is_some_and(|last| last != change)
            && self.compactions.iter().any(|(to, start)| *to >= revision && *start <= self.at)
    }

    fn told(&mut self, response: &pb::WatchResponse) {
        for (number, raw) in response.events.iter().enumerate() {
            let Some(event) = event(raw) else {
                self.tell("watch/event", "got an event that does not decode".to_owned());
                continue;
            };
            self.one(event, number == 0 && !self.fragment);
        }
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        if header < self.revision {
            let text = format!("got revision {} under a header of revision {header}", self.revision);
            self.tell("watch/header", text);
        }
        self.fragment = response.fragment;
        if !self.fragment {
            self.close();
        }
    }

    /// An event. `fresh`: it begins a response that does not carry on another.
    fn one(&mut self, event: Event, fresh: bool) {
        let revision = event.kv.mod_revision;
        if revision <= self.bookmark && revision > self.revision {
            let text = format!("got {} after its bookmark {}", show_kv(&event.kv), self.bookmark);
            self.tell("watch/bookmark", text);
        }
        // A transaction may delete, put and delete a key: it comes as often as that. Where nobody knows what it did, each
        // time undoes the one before.
        let same = |kv: &Kv, deletes| (&kv.key, deletes) == (&event.kv.key, event.deletes);
        let again = |events: &[Event]| {
            if revision > self.timeline.sound_until {
                let before = events.iter().rfind(|before| before.kv.key == event.kv.key);
                let all = self.log.create.filters.is_empty();
                return all && before.is_some_and(|before| before.deletes == event.deletes);
            }
            let came = events.iter().filter(|other| same(&other.kv, other.deletes)).count();
            let model = &self.timeline.model;
            let did = model.within(&self.span, revision, revision);
            came > 0 && came >= did.filter(|(kv, _)| same(kv, kv.is_deletion())).count()
        };
        if revision < self.revision {
            let text = format!("got {} after revision {}", show_kv(&event.kv), self.revision);
            return self.tell("watch/ordered", text);
        }
        if revision == self.revision {
            if again(&self.events) {
                return self.tell("watch/unique", format!("got {} twice", show_kv(&event.kv)));
            }
            if fresh {
                let text =
                    format!("got revision {revision} in two responses without being told that more comes");
                self.tell("watch/atomic", text);
            }
            return self.events.push(event);
        }
        self.close();
        (self.revision, self.events, self.closed) = (revision, vec![event], false);
    }

    /// The revision under way is complete: it is what the store did.
    fn close(&mut self) {
        let (Some(next), revision) = (self.next, self.revision) else { return };
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if revision < next {
            // One behind a bookmark has been told already.
            if revision > self.bookmark {
                self.tell("watch/start", format!("got revision {revision}, and begins at {next}"));
            }
            return;
        }
        self.nothing_between(next, revision - 1, "passed over revision");
        self.next = Some(revision + 1);
        if revision <= self.timeline.sound_until {
            self.compare(revision);
        }
    }

    fn compare(&mut self, revision: i64) {
        let create = &self.log.create;
        let expected: Vec<(Kv, Option<Kv>)> = self
            .timeline
            .model
            .within(&self.span, revision, revision)
            .filter(|(kv, _)| wanted(create, kv))
            .map(|(kv, prev)| (kv.clone(), prev.cloned()))
            .collect();
        let seen = &self.events;
        let compacted = self.compactions.iter().any(|(to, start)| *to >= revision && *start <= self.at);
        // What was dropped need not be seen.
        let mut told: Vec<&(Kv, Option<Kv>)> = Vec::new();
        for change in &expected {
            let (kv, next) = (&change.0, seen.get(told.len()));
            let same = next.is_some_and(|next| *kv == next.kv && kv.is_deletion() == next.deletes);
            if same || !self.may_be_gone(kv) {
                told.push(change);
            }
        }
        let differs = told.len() != seen.len()
            || told
                .iter()
                .zip(seen)
                .any(|((kv, _), seen)| *kv != seen.kv || kv.is_deletion() != seen.deletes);
        if differs {
            let list = |kvs: Vec<&Kv>| kvs.into_iter().take(4).map(show_kv).collect::<Vec<_>>().join(", ");
            let (saw, did) = (
                list(seen.iter().map(|event| &event.kv).collect()),
                list(expected.iter().map(|(kv, _)| kv).collect()),
            );
            return self
                .tell("watch/events", format!("got [{saw}] at revision {revision}, which did [{did}]"));
        }
        let told: Vec<(Kv, Option<Kv>)> = told.into_iter().cloned().collect();
        for (number, (kv, prev)) in told.iter().enumerate() {
            let seen = self.events[number].prev.clone();
            let due = if create.prev_kv { prev.clone() } else { None };
            if seen != due && !(seen.is_none() && compacted) {
                let or_nothing = |kv: &Option<Kv>| kv.as_ref().map_or("nothing".to_owned(), show_kv);
                let (key, seen, due) = (show(&kv.key), or_nothing(&seen), or_nothing(&due));
                let text = format!("got {seen} as what {key} was before revision {revision}, not {due}");
                self.tell("watch/prev-kv", text);
            }
        }
    }

    fn cancel(&mut self, response: &pb::WatchResponse) {
        self.canceled = true;
        let compacted = response.compact_revision;
        if compacted == 0 {
            if self.log.cancel.is_none() && response.cancel_reason.is_empty() {
                self.tell("watch/canceled", "was canceled without a reason".to_owned());
            }
            return;
        }
        if !self.compactions.iter().any(|(to, start)| *to == compacted && *start <= self.at) {
            self.tell(
                "watch/compacted",
                format!("was canceled for a compaction to {compacted} that nobody asked for"),
            );
        }
        let next = self.next.unwrap_or(i64::MAX);
        if next >= compacted && self.log.create.start_revision >= 0 {
            let text = format!(
                "was canceled for a compaction to {compacted}, and wants only what is from {next} on"
            );
            self.tell("watch/compacted", text);
        }
    }

    /// A question for the progress, or a wish to be canceled, that was never answered in the calm.
    fn unanswered(&mut self, settings: &Settings, calm: Micros, ahead: &BTreeSet<u64>) {
        let due = |asked: Micros| asked.max(calm).after(settings.calm_op_max) < settings.ended;
        self.at = settings.ended;
        if let Some(asked) = self.log.cancel.filter(|asked| due(*asked)) {
            let text = format!("was to be canceled at {asked}, and was never told that it is");
            return self.tell("watch/canceled", text);
        }
        let last = self
            .log
            .responses
            .iter()
            .rev()
            .find(|(_, response)| response.events.is_empty() && !response.created && !response.canceled);
        let last = last.map_or(self.log.start, |(at, _)| *at);
        // An earlier one may have been passed over for another watch of the stream that was behind.
        let asked = self.log.asked.iter().find(|asked| **asked >= calm && **asked > last && due(**asked));
        if let (Some(asked), false) = (asked, ahead.contains(&self.log.stream)) {
            let text = format!("asked for its progress at {asked}, and got none to the end");
            self.tell("watch/progress", text);
        }
    }

    /// What the calm owes a watch that is open to the end. `ahead`: the streams with watches that have not begun.
    fn late(&mut self, history: &History, ahead: &BTreeSet<u64>) {
        let settings = &history.settings;
        let (Some(calm), Some(next)) = (settings.calm_from, self.next) else { return };
        let member =
            self.log.responses.iter().find_map(|(_, response)| response.header.as_ref()).map(|h| h.member_id);
        let lives =
            settings.calm_nodes.is_empty() || member.is_some_and(|id| settings.calm_nodes.contains(&id));
        if self.canceled || self.log.ended.is_some() || !lives {
            return;
        }
        self.unanswered(settings, calm.after(settings.settle_max), ahead);
        if self.log.cancel.is_some() || next == i64::MAX {
            return;
        }
        let Some(due) = due(&self.timeline.seen, settings.ended, settings.calm_op_max) else { return };
        if settings.ended < calm.after(settings.settle_max).after(settings.calm_op_max) {
            return;
        }
        self.at = settings.ended;
        let to = due.min(self.timeline.sound_until);
        let late =
            self.timeline.model.within(&self.span, next, to).find(|(kv, _)| wanted(&self.log.create, kv));
        if let Some((kv, _)) = late {
            let text = format!("is open to the end and was never told of {}", show_kv(kv));
            self.tell("watch/late", text);
        }
        let Some(progress) = settings.progress_max.filter(|_| self.log.create.progress_notify) else {
            return;
        };
        if self.log.create.start_revision > self.timeline.seen.floor(settings.ended) {
            // A watch that has not begun yet has no progress.
            return;
        }
        let calm = calm.after(settings.settle_max).max(self.log.start);
        let last = self.log.responses.iter().map(|(at, _)| *at).max().unwrap_or(self.log.start).max(calm);
        if settings.ended.since(last) > progress {
            let text = format!("got no progress notice from {last} to the end at {}", settings.ended);
            self.tell("watch/progress", text);
        }
    }
}

/// The streams with a watch that waits for a revision which has not come.
fn ahead(history: &History, seen: &Seen) -> BTreeSet<u64> {
    let newest = seen.floor(history.settings.ended);
    let waits = |log: &&WatchLog| log.create.start_revision < 0 || log.create.start_revision > newest;
    history.watches.iter().filter(waits).map(|log| log.stream).collect()
}

/// The newest revision that had been seen `span` before the end.
fn due(seen: &Seen, ended: Micros, span: Micros) -> Option<i64> {
    (ended.0 > span.0).then(|| seen.floor(ended.since(span)))
}

/// Whether the watch's filters let it through.
fn wanted(create: &pb::WatchCreateRequest, kv: &Kv) -> bool {
    use pb::watch_create_request::FilterType;
    let dropped = if kv.is_deletion() { FilterType::Nodelete } else { FilterType::Noput };
    !create.filters.contains(&(dropped as i32))
}

/// Two watches of a stream don't share an id.
fn ids(history: &History) -> Vec<Violation> {
    let mut taken: BTreeMap<(u64, i64), &WatchLog> = BTreeMap::new();
    let mut violations = Vec::new();
    for log in &history.watches {
        let Some((at, created)) = log.responses.iter().find(|(_, response)| response.created) else {
            continue;
        };
        if created.canceled {
            continue;
        }
        let Some(other) = taken.insert((log.stream, created.watch_id), log) else { continue };
        let over = other.responses.iter().any(|(end, response)| response.canceled && end <= at);
        if !over {
            let text = format!(
                "watches {} and {} of one stream both have the id {}",
                other.id, log.id, created.watch_id
            );
            let watches = vec![other.id, log.id];
            violations.push(Violation { rule: "watch/id", text, ops: Vec::new(), watches, at: *at });
        }
    }
    violations
}

/// Checks all watches.
pub fn check_with(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let (compactions, ahead) = (compactions(history), ahead(history, &timeline.seen));
    let mut violations = ids(history);
    for log in &history.watches {
        let mut walk = Walk {
            log,
            timeline,
            compactions: &compactions,
            span: Span::of_watch(&log.create.key, &log.create.range_end),
            next: None,
            revision: 0,
            events: Vec::new(),
            closed: true,
            fragment: false,
            bookmark: 0,
            canceled: false,
            twice: false,
            at: log.start,
            violations: Vec::new(),
        };
        for (at, response) in &log.responses {
            walk.at = *at;
            walk.response(response);
        }
        walk.late(history, &ahead);
        violations.append(&mut walk.violations);
    }
    violations
}

/// Checks all watches.
pub fn check(history: &History) -> Vec<Violation> {
    check_with(history, &super::linear::timeline(history))
}
