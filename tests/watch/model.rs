//! A store that keeps everything, as naive as can be: what watches are compared with.

use std::collections::BTreeMap;

use bytes::Bytes;
use kontiki::{
    error::Fault,
    mvcc::{Event, KvBytes},
    types::{KeyRange, KeyValue, Revision, SubRevision},
    watch::{Chunk, History},
};

/// One change of a request.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

/// Every event there ever was. Compaction only moves the mark: reads below it are then refused.
#[derive(Default)]
pub struct Model {
    pub events: Vec<Event>,
    current: BTreeMap<Bytes, KeyValue>,
    revision: i64,
    pub compacted: i64,
}

impl Model {
    pub fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// Makes the changes in one revision; deletions of absent keys do nothing.
    pub fn write(&mut self, changes: &[Change]) -> Vec<Event> {
        let main = Revision(self.revision + 1);
        let mut made = Vec::new();
        for change in changes {
            let at = SubRevision { main, sub: made.len() as i64 };
            let (key, kv, deleted) = match change {
                Change::Put(key, value) => {
                    let old = self.current.get(key);
                    let kv = KeyValue {
                        key: key.clone(),
                        created: old.map_or(main, |old| old.created),
                        modified: main,
                        version: old.map_or(1, |old| old.version + 1),
                        value: value.clone(),
                        ..KeyValue::default()
                    };
                    self.current.insert(key.clone(), kv.clone());
                    (key, kv, false)
                }
                Change::Delete(key) if self.current.remove(key).is_some() => {
                    (key, KeyValue { key: key.clone(), modified: main, ..KeyValue::default() }, true)
                }
                Change::Delete(_) => continue,
            };
            made.push(Event { key: key.clone(), deleted, at, kv: KvBytes::encode(&kv) });
        }
        if !made.is_empty() {
            self.revision += 1;
            self.events.extend(made.iter().cloned());
        }
        made
    }

    /// What a watch of `range` is to hear of revisions `from ..= to`.
    pub fn wanted(&self, range: &KeyRange, from: Revision, to: Revision) -> impl Iterator<Item = &Event> {
        let range = range.clone();
        self.events
            .iter()
            .filter(move |event| event.at.main >= from && event.at.main <= to && range.contains(&event.key))
    }

    /// What `key` was before `before`, whether or not that is compacted.
    pub fn before(&self, key: &[u8], before: Revision) -> Option<KvBytes> {
        let event = self.events.iter().rev().find(|event| event.key == key && event.at.main < before)?;
        (!event.deleted).then(|| event.kv.clone())
    }
}

impl History for Model {
    fn compacted(&self) -> Revision {
        Revision(self.compacted)
    }

    fn events(
        &self,
        from: Revision,
        to: Revision,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Chunk>, Fault> {
        assert!(from <= to && to.0 <= self.revision, "{from}..={to} of {}", self.revision);
        if from.0 < self.compacted {
            return Ok(None);
        }
        let (mut events, mut bytes): (Vec<Event>, usize) = (Vec::new(), 0);
        for revision in from.0..=to.0 {
            if revision - from.0 >= revisions_max as i64 || bytes >= bytes_max {
                return Ok(Some(Chunk { events, through: Revision(revision - 1) }));
            }
            for event in self.events.iter().filter(|event| event.at.main.0 == revision) {
                bytes += event.kv.0.len();
                events.push(event.clone());
            }
        }
        Ok(Some(Chunk { events, through: to }))
    }

    fn prev_kv(&self, key: &Bytes, before: Revision) -> Result<Option<KvBytes>, Fault> {
        Ok(if before.0 - 1 < self.compacted { None } else { self.before(key, before) })
    }
}
