//! A true history, made wrong in one place: the oracles must object.

use bytes::Bytes;
use kontiki::wire::{RawKeyValue, etcdserverpb as pb};

use crate::{
    check,
    history::{Call, History, Micros, Op, Outcome, Reply},
};

type Doctor = fn(&mut History);

/// Which rule has to object to what.
const DOCTORS: [(&str, &str, Doctor); 6] = [
    ("a watch that misses an event", "watch/", miss),
    ("an event that comes twice", "watch/", repeat),
    ("a read that finds another value", "linear/read", falsify),
    ("a read of the past", "linear/stale", age),
    ("a write that nobody asked for", "linear/unexplained-revision", disown),
    ("a lease that is gone while it was kept", "lease/early", expire),
];

/// Tries them all.
pub fn try_all(history: &History) {
    for (what, rule, doctor) in DOCTORS {
        let mut wrong = history.clone();
        doctor(&mut wrong);
        let report = check::all(&wrong);
        let rules: Vec<_> = report.violations.iter().map(|violation| violation.rule).collect();
        assert!(rules.iter().any(|found| found.starts_with(rule)), "{what}: {rules:?}");
    }
}

/// The responses with events of the watch that got most of them.
fn told(history: &mut History) -> Vec<&mut pb::WatchResponse> {
    let logs = history.watches.iter_mut();
    let log = logs.max_by_key(|log| log.responses.len()).expect("there are watches");
    let responses = log.responses.iter_mut().map(|(_, response)| response);
    responses.filter(|response| !response.events.is_empty()).collect()
}

fn miss(history: &mut History) {
    let mut told = told(history);
    let middle = told.len() / 2;
    told[middle].events.clear();
}

fn repeat(history: &mut History) {
    let mut told = told(history);
    let middle = told.len() / 2;
    let again = told[middle].events.last().cloned().expect("it has events");
    told[middle].events.push(again);
}

/// A linearizable read of one key, now, that found it; the last one.
fn a_read(history: &mut History) -> &mut Op {
    let reads = history.ops.iter_mut().rev();
    let plain = |op: &Op| {
        let Call::Range(request) = &op.call else { return false };
        let found = matches!(op.outcome.reply(), Some(Reply::Range(range)) if !range.kvs.is_empty());
        found && !request.serializable && request.revision == 0 && request.range_end.is_empty()
    };
    let mut reads = reads.filter(|op| plain(op));
    reads.next().expect("there are reads that find something")
}

fn falsify(history: &mut History) {
    if let Outcome::Ok(Reply::Range(range)) = &mut a_read(history).outcome {
        let mut kv = range.kvs[0].decode_kv().expect("a key-value decodes");
        kv.value = Bytes::from_static(b"never written");
        range.kvs[0] = RawKeyValue::encode(&kv);
    }
}

/// The read comes later by a revision and more, and still finds what was.
fn age(history: &mut History) {
    let ended = history.settings.ended;
    let read = a_read(history);
    (read.start, read.end) = (ended, Some(ended.after(Micros(1))));
}

/// The record of an answered put is lost; what it wrote is not.
fn disown(history: &mut History) {
    let put = |op: &Op| matches!(op.outcome.reply(), Some(Reply::Put(_)));
    let puts: Vec<usize> = (0..history.ops.len()).filter(|at| put(&history.ops[*at])).collect();
    history.ops.remove(puts[puts.len() / 2]);
}

/// A renewal finds no lease, just after it was granted.
fn expire(history: &mut History) {
    let grants = history.ops.iter().filter_map(|op| match op.outcome.reply() {
        Some(Reply::LeaseGrant(reply)) => Some((reply.id, op.clone())),
        _ => None,
    });
    let (id, mut op) = grants.last().expect("leases were granted");
    let end = op.end.expect("it was answered");
    (op.id, op.start, op.end) = (history.ops.len() as u64, end.after(Micros(1)), Some(end.after(Micros(2))));
    op.call = pb::LeaseKeepAliveRequest { id }.into();
    op.outcome = Outcome::Ok(pb::LeaseKeepAliveResponse { header: None, id, ttl: 0 }.into());
    history.ops.push(op);
}
