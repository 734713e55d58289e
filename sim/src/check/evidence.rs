//! What others saw of revisions that no answered call owns.
//!
//! A call whose outcome is unknown may own one of them. A watch that covers such a revision tells exactly what it
//! changed within its range; a range's answer, and what a write found before itself, tell a key-value that it made.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kontiki::wire::{
    RawKeyValue,
    etcdserverpb::{self as pb, request_op::Request, response_op::Response},
    mvccpb::event::EventType,
};

use super::{
    kv::{Kv, Span, show_kv},
    model::Change,
};
use crate::history::{Call, History, Outcome, Reply, WatchLog};

/// What a watch without filters can testify to.
#[derive(Clone, Debug)]
struct Witness {
    watch: u64,
    span: Span,
    /// It has told all within these revisions.
    from: i64,
    to: i64,
    /// What it saw at the revisions in question.
    events: BTreeMap<i64, Vec<Kv>>,
}

/// What is known of the revisions in question.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    puts: BTreeMap<i64, BTreeMap<Bytes, Kv>>,
    deletions: BTreeMap<i64, BTreeSet<Bytes>>,
    witnesses: Vec<Witness>,
    watches: BTreeMap<i64, BTreeSet<u64>>,
    /// Revisions that may have been compacted to: whoever comes late sees only the last change of each key there.
    compacted: BTreeSet<i64>,
}

/// The revisions that a watch has told all of: from its first one to the last that it is done with.
pub fn covered(watch: &WatchLog) -> Option<(i64, i64)> {
    let created = watch.responses.iter().find(|(_, response)| response.created)?;
    let start = watch.create.start_revision;
    if created.1.canceled || start < 0 {
        return None;
    }
    let from = if start > 0 { start } else { created.1.header.as_ref()?.revision + 1 };
    let mut to = from - 1;
    for (_, response) in &watch.responses {
        if response.canceled {
            break;
        }
        let last = response.events.last().and_then(|event| Kv::from_raw(event.kv.as_ref()?));
        if let (Some(kv), false) = (&last, response.fragment) {
            to = to.max(kv.mod_revision);
        } else if last.is_none() && !response.created {
            to = to.max(response.header.as_ref().map_or(0, |header| header.revision));
        }
    }
    Some((from, to))
}

impl Evidence {
    /// Of `revisions`, which are sorted.
    pub fn collect(history: &History, revisions: &[i64]) -> Self {
        let mut evidence = Self::default();
        if revisions.is_empty() {
            return evidence;
        }
        for op in &history.ops {
            if let (Call::Compact(request), Outcome::Ok(_) | Outcome::Unknown(_)) = (&op.call, &op.outcome) {
                evidence.compacted.insert(request.revision);
            }
            if let Outcome::Ok(reply) = &op.outcome {
                evidence.answer(&op.call, reply, revisions);
            }
        }
        for watch in &history.watches {
            evidence.watch(watch, revisions);
        }
        evidence
    }

    fn key_value(&mut self, raw: &RawKeyValue, revisions: &[i64]) {
        let Some(kv) = Kv::from_raw(raw) else { return };
        if revisions.binary_search(&kv.mod_revision).is_ok() {
            self.puts.entry(kv.mod_revision).or_default().insert(kv.key.clone(), kv);
        }
    }

    fn range(&mut self, request: &pb::RangeRequest, response: &pb::RangeResponse, revisions: &[i64]) {
        // A key without its value would pass for one with an empty value.
        if !request.keys_only {
            response.kvs.iter().for_each(|kv| self.key_value(kv, revisions));
        }
    }

    fn answer(&mut self, call: &Call, reply: &Reply, revisions: &[i64]) {
        match (call, reply) {
            (Call::Range(request), Reply::Range(response)) => self.range(request, response, revisions),
            (_, Reply::Put(response)) => {
                response.prev_kv.iter().for_each(|kv| self.key_value(kv, revisions));
            }
            (_, Reply::DeleteRange(response)) => {
                response.prev_kvs.iter().for_each(|kv| self.key_value(kv, revisions));
            }
            (Call::Txn(request), Reply::Txn(response)) => self.txn(request, response, revisions),
            _ => {}
        }
    }

    fn txn(&mut self, request: &pb::TxnRequest, response: &pb::TxnResponse, revisions: &[i64]) {
        let ops = if response.succeeded { &request.success } else { &request.failure };
        for (op, response) in ops.iter().zip(&response.responses) {
            match (&op.request, &response.response) {
                (Some(Request::RequestRange(request)), Some(Response::ResponseRange(response))) => {
                    self.range(request, response, revisions);
                }
                (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(response))) => {
                    self.txn(request, response, revisions);
                }
                (_, Some(Response::ResponsePut(response))) => {
                    response.prev_kv.iter().for_each(|kv| self.key_value(kv, revisions));
                }
                (_, Some(Response::ResponseDeleteRange(response))) => {
                    response.prev_kvs.iter().for_each(|kv| self.key_value(kv, revisions));
                }
                _ => {}
            }
        }
    }

    fn watch(&mut self, watch: &WatchLog, revisions: &[i64]) {
        let mut events: BTreeMap<i64, Vec<Kv>> = BTreeMap::new();
        for event in watch.responses.iter().flat_map(|(_, response)| &response.events) {
            let Some(kv) = event.kv.as_ref().and_then(Kv::from_raw) else { continue };
            let revision = kv.mod_revision;
            if revisions.binary_search(&revision).is_err() {
                continue;
            }
            self.watches.entry(revision).or_default().insert(watch.id);
            if event.r#type == EventType::Delete as i32 {
                self.deletions.entry(revision).or_default().insert(kv.key.clone());
            } else {
                self.puts.entry(revision).or_default().insert(kv.key.clone(), kv.clone());
            }
            let at = events.entry(revision).or_default();
            // One that came twice is for the watches' oracle.
            if !at.contains(&kv) {
                at.push(kv);
            }
        }
        if let (Some((from, to)), true) = (covered(watch), watch.create.filters.is_empty()) {
            let span = Span::of_watch(&watch.create.key, &watch.create.range_end);
            self.witnesses.push(Witness { watch: watch.id, span, from, to, events });
        }
    }

    /// Some key-value that the revision made, if one is known.
    pub fn a_put(&self, revision: i64) -> Option<&Kv> {
        self.puts.get(&revision)?.values().next()
    }

    /// All key-values that the revision is known to have made.
    pub fn puts(&self, revision: i64) -> impl Iterator<Item = &Kv> {
        self.puts.get(&revision).into_iter().flat_map(BTreeMap::values)
    }

    /// Some key that the revision deleted, if one is known.
    pub fn a_deletion(&self, revision: i64) -> Option<&Bytes> {
        self.deletions.get(&revision)?.first()
    }

    /// All that is known to have changed: puts, and deletions as tombstones.
    pub fn known(&self, revision: i64) -> Vec<Kv> {
        let deleted = self.deletions.get(&revision).into_iter().flatten();
        let gone = deleted.map(|key| Kv { key: key.clone(), mod_revision: revision, ..Kv::default() });
        // A transaction that does both to a key puts it first.
        self.puts(revision).cloned().chain(gone).collect()
    }

    /// Watches that saw events of the revision.
    pub fn watches(&self, revision: i64) -> Vec<u64> {
        self.watches.get(&revision).into_iter().flatten().copied().collect()
    }

    /// What contradicts that the revision changed just this; none if nothing does.
    pub fn against(&self, revision: i64, changes: &[Change]) -> Option<String> {
        let made = |wanted: &Kv| changes.iter().any(|change| change.kv == *wanted);
        for kv in self.known(revision) {
            if !made(&kv) {
                return Some(format!("{} was seen", show_kv(&kv)));
            }
        }
        for witness in self.witnesses.iter().filter(|w| (w.from..=w.to).contains(&revision)) {
            // A key that is deleted, put and deleted has two changes that look alike; what was seen has them once.
            let mut within: Vec<&Kv> = Vec::new();
            for kv in changes.iter().map(|change| &change.kv).filter(|kv| witness.span.contains(&kv.key)) {
                if !within.contains(&kv) {
                    within.push(kv);
                }
            }
            let seen: Vec<&Kv> = witness.events.get(&revision).into_iter().flatten().collect();
            let thinned = self.compacted.contains(&revision) && seen.len() < within.len();
            if thinned && seen.iter().all(|kv| within.contains(kv)) {
                continue;
            }
            if within.len() != seen.len() || within.iter().any(|kv| !seen.contains(kv)) {
                return Some(format!("watch {} saw {} events in its range", witness.watch, seen.len()));
            }
        }
        None
    }
}
