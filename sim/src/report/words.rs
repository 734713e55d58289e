//! Calls, watches and knobs in a few words.

use kontiki::wire::etcdserverpb as pb;

use super::data::How;
use crate::{
    check::{
        kv::{Kv, Span, show, show_kv},
        request,
    },
    history::{Op, Outcome, Reply, WatchLog},
    plan::Knobs,
};

/// How much of a request or an answer is shown.
const FULL_MAX: usize = 1_200;

/// How many keys are listed.
const KEYS_MAX: usize = 3;

/// At most so many bytes of a text, and a sign if there is more.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What a call asks.
pub fn asks(op: &Op) -> String {
    let all = request::describe(op);
    let all = all.strip_prefix(&format!("client {}'s ", op.client)).unwrap_or(&all);
    cut(all.split(" (call ").next().unwrap_or(all).to_owned(), 200)
}

/// What came of it.
pub fn got(op: &Op) -> (How, String) {
    match &op.outcome {
        Outcome::Ok(reply) => {
            let revision = reply.header().map_or(0, |header| header.revision);
            let what = match reply {
                Reply::Range(range) => format!(", {}", found(range)),
                Reply::Txn(txn) => {
                    format!(", {}", if txn.succeeded { "its guards held" } else { "its guards failed" })
                }
                Reply::DeleteRange(deleted) => format!(", {} deleted", deleted.deleted),
                Reply::LeaseGrant(lease) => format!(", lease {:x} for {} s", lease.id, lease.ttl),
                Reply::LeaseKeepAlive(lease) => format!(", {} s to live", lease.ttl),
                Reply::LeaseTimeToLive(lease) => format!(", {} s to live", lease.ttl),
                _ => String::new(),
            };
            (How::Ok, cut(format!("ok at revision {revision}{what}"), 300))
        }
        Outcome::Refused { message, .. } => (How::Refused, format!("refused: {message}")),
        Outcome::Unknown(why) => (How::Unknown, format!("outcome unknown: {why}")),
    }
}

fn found(range: &pb::RangeResponse) -> String {
    if range.kvs.is_empty() {
        return format!("no key of {} shown", range.count);
    }
    let kvs = range.kvs.iter().filter_map(Kv::from_raw).take(KEYS_MAX);
    let shown: Vec<String> = kvs.map(|kv| show_kv(&kv)).collect();
    let more = if range.kvs.len() > KEYS_MAX { ", …" } else { "" };
    format!("{} of {} keys: {}{more}", range.kvs.len(), range.count, shown.join(", "))
}

/// Request and answer in full.
pub fn full(op: &Op) -> String {
    format!("{}\n{}", cut(format!("{:?}", op.call), FULL_MAX), cut(format!("{:?}", op.outcome), FULL_MAX))
}

/// What a watch asks.
pub fn watches(watch: &WatchLog) -> String {
    let create = &watch.create;
    let span = Span::of_watch(&create.key, &create.range_end);
    let keys =
        if span.is_one() { show(&span.key) } else { format!("{}…{}", show(&span.key), show(&span.end)) };
    let from = match create.start_revision {
        0 => "now".to_owned(),
        revision => format!("revision {revision}"),
    };
    let mut text = format!("watch of {keys} from {from}");
    for (set, what) in
        [(create.prev_kv, "prev_kv"), (create.fragment, "fragments"), (create.progress_notify, "progress")]
    {
        if set {
            text.push_str(", ");
            text.push_str(what);
        }
    }
    text
}

/// What a watch hears.
pub fn hears(response: &pb::WatchResponse) -> String {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if response.created && !response.canceled {
        return format!("created at revision {revision}");
    }
    if response.canceled {
        let why = match response.compact_revision {
            0 => response.cancel_reason.clone(),
            compacted => format!("compacted to {compacted}"),
        };
        return format!("canceled: {why}");
    }
    if response.events.is_empty() {
        return format!("progress: nothing more up to revision {revision}");
    }
    let kvs = response.events.iter().filter_map(|event| Kv::from_raw(event.kv.as_ref()?)).take(KEYS_MAX);
    let shown: Vec<String> = kvs.map(|kv| show_kv(&kv)).collect();
    let more = if response.events.len() > KEYS_MAX { ", …" } else { "" };
    cut(format!("{} events: {}{more}", response.events.len(), shown.join(", ")), 400)
}

/// The knobs that a reader may want to know.
pub fn knobs(knobs: &Knobs) -> Vec<(String, String)> {
    [
        ("members", knobs.members.to_string()),
        (
            "election timeout",
            format!(
                "{}–{} ms",
                knobs.tick_ms * knobs.election_ticks,
                2 * knobs.tick_ms * knobs.election_ticks
            ),
        ),
        ("heartbeat", format!("{} ms", knobs.tick_ms)),
        ("pre-vote", knobs.pre_vote.to_string()),
        ("snapshot after", format!("{} entries", knobs.snapshot_entries)),
        ("kept behind a snapshot", format!("{} entries", knobs.catchup_entries)),
        ("log segment", format!("{} B", knobs.segment_bytes)),
        ("a log write takes", format!("{}–{} µs", knobs.sync.0, knobs.sync.1)),
        ("a message takes", format!("{}–{} µs", knobs.link.delay.0, knobs.link.delay.1)),
        ("clocks drift", format!("{} ppm", knobs.drift_ppm)),
        ("task order", if knobs.drawn_order { "drawn" } else { "in turn" }.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
