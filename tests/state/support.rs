//! A replica: a machine over tables in memory, fed with entries as the log would hold them.

use std::collections::BTreeMap;

use bytes::Bytes;
use kontiki::{
    auth::Who,
    error::{Fault, Refusal},
    membership::Change,
    raft::{Entry, Payload},
    state::{Applied, Command, Config, Machine, Reply, Request},
    storage::{Backend, MemBackend},
    table::{Scan, Table, Tables},
    types::{Index, Term},
    wire::command,
};

pub struct Replica {
    pub tables: MemBackend,
    pub machine: Machine<MemBackend>,
}

impl Replica {
    pub fn new() -> Self {
        Self::open(MemBackend::new())
    }

    pub fn open(tables: MemBackend) -> Self {
        let machine = Machine::open(tables.clone(), Config::default()).unwrap();
        Self { tables, machine }
    }

    /// Applies a run of entries, as the applier does.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Applied, Fault> {
        let (batch, applied) = self.machine.apply(entries, &command::decode)?;
        self.tables.write(batch)?;
        self.machine.publish();
        Ok(applied)
    }

    /// Starts again from the tables as they are.
    pub fn restart(&mut self) {
        *self = Self::open(self.tables.clone());
    }

    /// Starts again from what survives a crash: what was flushed, and `keep` batches more.
    pub fn crash(&mut self, keep: usize) {
        *self = Self::open(self.tables.crash(keep));
    }

    /// Runs physical compaction to its end.
    pub fn compact(&mut self) {
        while let Some(batch) = self.machine.store().compact_step(2).unwrap() {
            self.tables.write(batch).unwrap();
        }
    }
}

/// All rows of all tables.
pub fn rows(tables: &impl Tables) -> BTreeMap<(Table, Bytes), Bytes> {
    let mut rows = BTreeMap::new();
    for table in Table::ALL {
        let mut row = |key: &[u8], value: &[u8]| {
            rows.insert((table, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
            Scan::Continue
        };
        tables.scan(table, b"", None, &mut row).unwrap();
    }
    rows
}

/// An entry of a command, with its index as the request's id.
pub fn command_entry(index: u64, command: Command) -> Entry {
    let user = Who::default();
    entry_of(index, user, command)
}

/// The same of somebody.
pub fn entry_of(index: u64, who: Who, command: Command) -> Entry {
    let request = Request { id: index, user: who.user, auth_revision: who.revision, command };
    let bytes = command::encode(&request);
    assert_eq!(command::decode(&bytes).unwrap(), request);
    Entry { term: Term(1), index: Index(index), payload: Payload::Command(bytes) }
}

pub fn change_entry(index: u64, change: Change) -> Entry {
    Entry { term: Term(1), index: Index(index), payload: Payload::Change(change) }
}

/// The reply to the only request of a run.
pub fn only(applied: &Applied) -> &Result<Reply, Refusal> {
    assert_eq!(applied.replies.len(), 1);
    &applied.replies[0].1
}
