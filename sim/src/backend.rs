//! Tables in memory that show each batch to the probe.

use std::sync::Arc;

use bytes::Bytes;
use kontiki::{
    error::Fault,
    storage::{Backend, MemBackend},
    table::{Batch, Scan, Table, Tables, Write},
};

/// What a batch brings the tables to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// The applied index.
    pub index: u64,
    /// The term of the entry there.
    pub term: u64,
    /// The state hash there.
    pub hash: Option<u64>,
    /// The configuration, as its row has it, if it changed.
    pub config: Option<Bytes>,
}

/// What happens to tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They took the batch of an applied index.
    Brought(Brought),
    /// Old revisions went.
    Compacted,
    /// They were flushed.
    Flushed,
    /// They were replaced.
    Replaced,
}

/// Hears of each change of the tables.
pub type OnBatch = Arc<dyn Fn(Change) + Send + Sync>;

/// One incarnation's tables.
#[derive(Clone)]
pub struct SimBackend {
    tables: MemBackend,
    on_batch: OnBatch,
}

impl SimBackend {
    /// Shows the batches that `tables` take to `on_batch`.
    pub fn new(tables: MemBackend, on_batch: OnBatch) -> Self {
        Self { tables, on_batch }
    }
}

impl Tables for SimBackend {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.tables.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        self.tables.scan(table, start, end, row)
    }
}

impl Backend for SimBackend {
    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let row = |wanted: &[u8]| {
            batch.writes.iter().rev().find_map(|write| match write {
                Write::Put(Table::Meta, key, value) if key == wanted => Some(value.clone()),
                Write::Put(..) | Write::Delete(..) | Write::DeleteRange(..) => None,
            })
        };
        let number = |wanted| row(wanted)?.as_ref().try_into().ok().map(u64::from_be_bytes);
        let brought = number(b"consistent_index").map(|index| Brought {
            index,
            term: number(b"term").unwrap_or(0),
            hash: number(b"kontiki_state_hash"),
            config: row(b"confState"),
        });
        let gone = |write: &Write| {
            matches!(write, Write::Delete(Table::Rev, _) | Write::DeleteRange(Table::Rev, ..))
        };
        let compacted = batch.writes.iter().any(gone);
        self.tables.write(batch)?;
        if let Some(brought) = brought {
            (self.on_batch)(Change::Brought(brought));
        }
        if compacted {
            (self.on_batch)(Change::Compacted);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.tables.flush()?;
        (self.on_batch)(Change::Flushed);
        Ok(())
    }

    fn snapshot(&self) -> Result<impl Tables, Fault> {
        self.tables.snapshot()
    }

    fn replace(&self, batches: &mut dyn Iterator<Item = Result<Batch, Fault>>) -> Result<(), Fault> {
        self.tables.replace(batches)?;
        (self.on_batch)(Change::Replaced);
        Ok(())
    }

    fn size(&self) -> Result<u64, Fault> {
        self.tables.size()
    }

    fn size_in_use(&self) -> Result<u64, Fault> {
        self.tables.size_in_use()
    }

    fn defragment(&self) -> Result<(), Fault> {
        self.tables.defragment()
    }
}
