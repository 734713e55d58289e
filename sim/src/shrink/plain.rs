//! Making what is left of a plan plain: knobs as anybody would set them, steps without their options.

use kontiki::server::Tuning;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{net::Link, plan::Knobs};

/// Something to try on the knobs.
pub type Change = fn(&mut Knobs);

/// Makes one knob plain each, the most telling first.
pub const CHANGES: [(&str, Change); 25] = [
    ("1 member", |knobs| knobs.members = 1),
    ("3 members", |knobs| knobs.members = knobs.members.min(3)),
    ("5 members", |knobs| knobs.members = knobs.members.min(5)),
    ("true clocks", |knobs| knobs.drift_ppm = 0),
    ("tasks in their order", |knobs| knobs.drawn_order = false),
    ("a usual network", |knobs| knobs.link = Link::default()),
    ("a usual disk", |knobs| knobs.sync = (500, 2_000)),
    ("etcd's ticks", |knobs| (knobs.tick_ms, knobs.election_ticks) = (100, 10)),
    ("pre-votes", |knobs| knobs.pre_vote = true),
    ("strict changes of members", |knobs| knobs.strict_reconfig_check = true),
    ("rare snapshots", |knobs| knobs.snapshot_entries = 10_000),
    ("a long tail behind snapshots", |knobs| knobs.catchup_entries = 5_000),
    ("large segments", |knobs| knobs.segment_bytes = 1 << 20),
    ("many segments kept", |knobs| knobs.wals_max = 5),
    ("many snapshots kept", |knobs| knobs.snapshots_max = 5),
    ("large batches of compaction", |knobs| knobs.compaction_batch = 1_000),
    ("steady compaction", |knobs| knobs.compaction_pause_ms = 10),
    ("long queues of watches", |knobs| knobs.watch_queue_max = 256),
    ("etcd's largest request", |knobs| knobs.request_bytes_max = 1_572_864),
    ("nobody is a user", |knobs| knobs.auth = false),
    ("simple tokens", |knobs| knobs.signed_tokens = false),
    ("rare progress", |knobs| knobs.watch_progress_ms = 60_000),
    ("etcd's smallest lease", |knobs| knobs.lease_ttl_min = 1),
    ("etcd's pace of lease checkpoints", |knobs| knobs.lease_checkpoint_ms = 300_000),
    ("production's limits", |knobs| knobs.tuning = Tuning::default()),
];

/// Things like `thing` with one thing less each: an option that is off, a list without one of its items.
pub fn simpler<T: Serialize + DeserializeOwned + PartialEq>(thing: &T) -> Vec<T> {
    let Ok(value) = serde_json::to_value(thing) else { return Vec::new() };
    let mut tries = Vec::new();
    simpler_values(&value, &mut |value| tries.push(value));
    tries.into_iter().filter_map(|value| serde_json::from_value(value).ok()).filter(|t| t != thing).collect()
}

/// Calls `found` with each value that is simpler in one place.
fn simpler_values(value: &Value, found: &mut dyn FnMut(Value)) {
    match value {
        Value::Bool(true) => found(Value::Bool(false)),
        Value::Number(number) if number.as_i64().is_some_and(|n| n > 1) => found(Value::from(1)),
        Value::Array(items) => {
            for at in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(at);
                found(Value::Array(fewer));
            }
            for (at, item) in items.iter().enumerate() {
                simpler_values(item, &mut |simple| {
                    let mut changed = items.clone();
                    changed[at] = simple;
                    found(Value::Array(changed));
                });
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                // Times hold a run together, and a bit pattern is as plain as any.
                if matches!(
                    name.as_str(),
                    "at" | "wait" | "span" | "down" | "sync" | "delay" | "echo_after" | "span_micros"
                ) {
                    continue;
                }
                let mut change = |simple| {
                    let mut changed = fields.clone();
                    changed.insert(name.clone(), simple);
                    found(Value::Object(changed));
                };
                // What is optional can be none; elsewhere that is no plan, and is passed over.
                if !field.is_null() {
                    change(Value::Null);
                }
                simpler_values(field, &mut change);
            }
        }
        Value::Null | Value::Bool(false) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, OpStep, PutStep, Step, TxnStep};

    #[test]
    fn a_step_loses_one_thing_at_a_time() {
        let put = PutStep {
            key: 1,
            size: 1,
            lease: Some(1),
            prev_kv: true,
            ignore_value: false,
            ignore_lease: false,
        };
        let txn = TxnStep { compares: vec![], success: vec![OpStep::Put(put.clone())], failure: vec![] };
        let step = Step { wait: 5, action: Action::Txn(txn) };
        let tries = simpler(&step);
        let with = |put: PutStep| {
            let txn = TxnStep { success: vec![OpStep::Put(put)], ..TxnStep::default() };
            Step { wait: 5, action: Action::Txn(txn) }
        };
        let empty = Step { wait: 5, action: Action::Txn(TxnStep::default()) };
        for due in [
            empty,
            with(PutStep { lease: None, ..put.clone() }),
            with(PutStep { prev_kv: false, ..put.clone() }),
        ] {
            assert!(tries.contains(&due), "{due:?} is not among {tries:?}");
        }
        assert!(!tries.contains(&step));
    }
}
