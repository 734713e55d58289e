//! What the store's tests stand on: tables in ordered maps, and leases 1 and 2.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use kontiki::{
    error::Fault,
    mvcc::Leases,
    table::{Batch, Scan, Table, Tables, Write},
    types::LeaseId,
};

type Rows = BTreeMap<(Table, Vec<u8>), Bytes>;

/// Tables in memory; clones share them.
#[derive(Clone, Default)]
pub struct MapTables(Arc<RwLock<Rows>>);

impl MapTables {
    /// How many rows a table has.
    #[allow(dead_code, reason = "not every test that shares this counts")]
    pub fn rows(&self, table: Table) -> usize {
        self.0.read().expect("no test panics in here").keys().filter(|(of, _)| *of == table).count()
    }

    pub fn write(&self, batch: Batch) {
        let mut rows = self.0.write().expect("no test panics in here");
        for write in batch.writes {
            match write {
                Write::Put(table, key, value) => drop(rows.insert((table, key.to_vec()), value)),
                Write::Delete(table, key) => {
                    rows.remove(&(table, key.to_vec())).expect("compaction removes only what is there");
                }
                Write::DeleteRange(..) => panic!("the store removes no ranges"),
            }
        }
    }
}

impl Tables for MapTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.read().expect("no test panics in here").get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        let rows = self.0.read().expect("no test panics in here").clone();
        for ((_, key), value) in rows
            .range((table, start.to_vec())..)
            .take_while(|((of, key), _)| *of == table && end.is_none_or(|end| key.as_slice() < end))
        {
            if row(key, value) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// Leases 1 and 2 are granted; it knows who holds which key.
#[derive(Default)]
pub struct Granted {
    pub held: BTreeMap<Bytes, LeaseId>,
}

impl Granted {
    pub fn has(lease: LeaseId) -> bool {
        matches!(lease.0, 1 | 2)
    }
}

impl Leases for Granted {
    fn exists(&self, lease: LeaseId) -> bool {
        Self::has(lease)
    }

    fn attach(&mut self, lease: LeaseId, key: &Bytes) {
        assert!(self.held.insert(key.clone(), lease).is_none(), "it was detached first");
    }

    fn detach(&mut self, lease: LeaseId, key: &Bytes) {
        assert_eq!(self.held.remove(key), Some(lease));
    }
}
