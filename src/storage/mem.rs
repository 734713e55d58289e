//! Tables in memory: the simulator's backend, and the model that RocksDB is compared with.
//!
//! It keeps two moments: what reads see, and what was flushed last; between them the batches since. A crash
//! picks how many of those batches survive, which is all that the prefix contract leaves open.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::Backend;
use crate::{
    error::Fault,
    table::{Batch, Scan, Table, Tables, Write},
};

type Rows = BTreeMap<Bytes, Bytes>;
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Ordered tables in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemBackend {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    visible: Contents,
    durable: Contents,
    /// What was done since the last flush, in order.
    pending: VecDeque<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Batch(Batch),
    Clear,
}

/// All tables at one moment. A copy shares their rows until one of the two is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    tables: BTreeMap<Table, Arc<Rows>>,
    /// Bytes of all keys and values.
    size: u64,
}

impl MemBackend {
    /// Empty tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many batches a crash now could lose.
    pub fn unflushed(&self) -> usize {
        self.lock().pending.len()
    }

    /// What a process that starts after a crash finds: all that was flushed, and the first `keep` batches of
    /// those since (all, if there are fewer). It shares nothing with this one, whose late writers, tasks of the
    /// crashed process, go on into nowhere.
    pub fn crash(&self, keep: usize) -> Self {
        let state = self.lock();
        let mut survivor = state.durable.clone();
        for pending in state.pending.iter().take(keep) {
            survivor.apply(pending.clone());
        }
        let state = State { visible: survivor.clone(), durable: survivor, pending: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder stops the process or fails the test; the tables are whole between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> Contents {
        self.lock().visible.clone()
    }
}

impl State {
    fn apply(&mut self, pending: Pending) {
        self.visible.apply(pending.clone());
        self.pending.push_back(pending);
    }

    fn flush(&mut self) {
        while let Some(pending) = self.pending.pop_front() {
            self.durable.apply(pending);
        }
        assert_eq!(self.durable.size, self.visible.size, "after a flush both moments are one");
    }
}

impl Contents {
    fn apply(&mut self, pending: Pending) {
        match pending {
            Pending::Batch(batch) => {
                for write in batch.writes {
                    self.write(write);
                }
            }
            Pending::Clear => *self = Self::default(),
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Put(table, key, value) => {
                let added = row_size(&key, &value);
                let key_size = key.len() as u64;
                let old = self.rows(table).insert(key, value);
                self.size += added;
                if let Some(old) = old {
                    self.size -= key_size + old.len() as u64;
                }
            }
            Write::Delete(table, key) => {
                if let Some(old) = self.rows(table).remove(&key) {
                    self.size -= row_size(&key, &old);
                }
            }
            Write::DeleteRange(table, start, end) => {
                let Some(bounds) = bounds(&start, Some(&end)) else { return };
                let rows = self.rows(table);
                let keys: Vec<Bytes> = rows.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    self.write(Write::Delete(table, key));
                }
            }
        }
    }

    fn rows(&mut self, table: Table) -> &mut Rows {
        Arc::make_mut(self.tables.entry(table).or_default())
    }
}

fn row_size(key: &Bytes, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64
}

/// `[start, end)` as bounds of a map; None if it is empty, which a map's `range` would not take.
fn bounds<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> Option<Bounds<'a>> {
    match end {
        Some(end) if start >= end => None,
        Some(end) => Some((Bound::Included(start), Bound::Excluded(end))),
        None => Some((Bound::Included(start), Bound::Unbounded)),
    }
}

impl Tables for Contents {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        let (Some(rows), Some(bounds)) = (self.tables.get(&table), bounds(start, end)) else { return Ok(()) };
        for (key, value) in rows.range::<[u8], _>(bounds) {
            match row(key, value) {
                Scan::Continue => {}
                Scan::Stop => break,
            }
        }
        Ok(())
    }
}

impl Tables for MemBackend {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.lock().visible.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        // Without the lock, so that `row` may call the backend.
        self.view().scan(table, start, end, row)
    }
}

impl Backend for MemBackend {
    fn write(&self, batch: Batch) -> Result<(), Fault> {
        self.lock().apply(Pending::Batch(batch));
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.lock().flush();
        Ok(())
    }

    fn snapshot(&self) -> Result<impl Tables, Fault> {
        Ok(self.view())
    }

    fn replace(&self, batches: &mut dyn Iterator<Item = Result<Batch, Fault>>) -> Result<(), Fault> {
        {
            let mut state = self.lock();
            state.apply(Pending::Clear);
            state.flush();
        }
        for batch in batches {
            self.write(batch?)?;
        }
        self.flush()
    }

    fn size(&self) -> Result<u64, Fault> {
        Ok(self.lock().visible.size)
    }

    fn size_in_use(&self) -> Result<u64, Fault> {
        self.size()
    }

    fn defragment(&self) -> Result<(), Fault> {
        Ok(())
    }
}
