//! What was acknowledged, and what the watches saw.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use kontiki::{
    types::KeyValue,
    wire::{RawKeyValue, mvccpb},
};
use tokio::sync::watch;

use super::record::Recorder;

/// A write as its client knows it: keys with their values, or none for a deletion.
pub type Writes = Vec<(String, Option<String>)>;

/// A lease that nobody renews.
#[derive(Clone, Debug)]
pub struct Abandoned {
    pub key: String,
    pub seconds: u64,
    /// Just before it was asked for.
    pub asked: Instant,
}

/// All that clients have recorded.
pub struct Record {
    /// What was answered with OK, at the revision of the answer.
    pub acknowledged: Mutex<Vec<(i64, Writes)>>,
    pub abandoned: Mutex<Vec<Abandoned>>,
    /// All of it, for the oracles.
    pub recorder: Arc<Recorder>,
    /// Grows with each acknowledged write.
    pub count: watch::Sender<u64>,
    /// How many calls failed, for the report.
    pub failed: watch::Sender<u64>,
    /// How many reads saw what they had to.
    pub reads: watch::Sender<u64>,
}

impl Record {
    pub fn new(recorder: Arc<Recorder>) -> Self {
        let (acknowledged, abandoned, count, failed, reads) = Default::default();
        Self { acknowledged, abandoned, recorder, count, failed, reads }
    }

    pub fn acknowledge(&self, revision: i64, writes: Writes) {
        self.acknowledged.lock().expect("no client panics with it").push((revision, writes));
        self.count.send_modify(|n| *n += 1);
    }
}

/// An event and when it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kv: KeyValue,
    pub before: Option<KeyValue>,
    pub deletes: bool,
    pub at: Instant,
}

impl Seen {
    pub fn new(event: mvccpb::Event, at: Instant) -> Self {
        let decode = |kv: RawKeyValue| kv.decode_kv().expect("a key-value decodes");
        Self {
            kv: decode(event.kv.expect("an event has its key")),
            before: event.prev_kv.map(decode),
            deletes: event.r#type == mvccpb::event::EventType::Delete as i32,
            at,
        }
    }

    pub fn revision(&self) -> i64 {
        self.kv.modified.0
    }

    /// All but the time.
    pub fn same(&self, other: &Self) -> bool {
        (&self.kv, &self.before, self.deletes) == (&other.kv, &other.before, other.deletes)
    }
}

/// The store as events make it.
pub type State = BTreeMap<Bytes, KeyValue>;

/// Takes in an event, and checks all of it that the state before tells.
pub fn replay(state: &mut State, seen: &Seen) {
    let kv = &seen.kv;
    let before = state.get(&kv.key);
    assert_eq!(seen.before.as_ref(), before, "what was there before {seen:?}");
    if seen.deletes {
        assert!(before.is_some(), "a deletion of nothing: {seen:?}");
        state.remove(&kv.key);
        return;
    }
    let (created, version) = before.map_or((kv.modified, 1), |b| (b.created, b.version + 1));
    assert_eq!((kv.created, kv.version), (created, version), "{seen:?}");
    state.insert(kv.key.clone(), kv.clone());
}
