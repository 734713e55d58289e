//! What the pure state machines keep: ordered tables of bytes, changed by atomic batches.
//!
//! `state` and its parts fill a [`Batch`]; a backend writes it whole. They read through [`Tables`]. The
//! names follow the buckets of etcd's database (`contract/semantics.md` section 13), and so do keys and values.

use bytes::Bytes;

use crate::error::Fault;

/// The tables, in the order of etcd's bucket names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Alarms: `AlarmMember` bytes to nothing.
    Alarm,
    /// Whether authorization is on, and its revision.
    Auth,
    /// Roles by name.
    AuthRoles,
    /// Users by name.
    AuthUsers,
    /// The cluster's version and its downgrade.
    Cluster,
    /// Revisions to key-values.
    Rev,
    /// Leases by id.
    Lease,
    /// Members by hex id.
    Members,
    /// Removed members by hex id.
    MembersRemoved,
    /// Applied index, term, compaction marks and the like.
    Meta,
}

impl Table {
    /// Every table, in order.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Rev,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// etcd's name of the bucket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Auth => "auth",
            Self::AuthRoles => "authRoles",
            Self::AuthUsers => "authUsers",
            Self::Cluster => "cluster",
            Self::Rev => "key",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Meta => "meta",
        }
    }
}

/// One change to one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Table, Bytes, Bytes),
    /// Removes a key, if it is there.
    Delete(Table, Bytes),
    /// Removes the keys of `[start, end)`.
    DeleteRange(Table, Bytes, Bytes),
}

/// Changes that happen together or not at all, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Sets `key` in `table`.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push(Write::Put(table, key.into(), value.into()));
    }

    /// Removes `key` from `table`.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.writes.push(Write::Delete(table, key.into()));
    }

    /// How many keys it removes.
    pub fn deletes(&self) -> u64 {
        self.writes.iter().filter(|write| matches!(write, Write::Delete(..))).count() as u64
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Whether a scan goes on after a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// To the next row.
    Continue,
    /// No further.
    Stop,
}

/// Reads of the tables. Each call sees all finished writes; a scan sees one moment.
pub trait Tables: Send + Sync {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Calls `row` with each key and value of `[start, end)` in order (no end: to the table's end), until it stops.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault>;
}

impl<T: Tables + ?Sized> Tables for std::sync::Arc<T> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        (**self).get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        (**self).scan(table, start, end, row)
    }
}
