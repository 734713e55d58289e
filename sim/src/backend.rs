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

/// Hears of each batch that tables took.
pub type OnBatch = Arc<dyn Fn(Brought) + Send + Sync>;

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
        self.tables.write(batch)?;
        if let Some(brought) = brought {
            (self.on_batch)(brought);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.tables.flush()
    }

    fn snapshot(&self) -> Result<impl Tables, Fault> {
        self.tables.snapshot()
    }

    fn replace(&self, batches: &mut dyn Iterator<Item = Result<Batch, Fault>>) -> Result<(), Fault> {
        self.tables.replace(batches)
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
