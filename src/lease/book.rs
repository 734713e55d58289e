//! The replicated part: leases and what is attached to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{TTL_MAX, codec};
use crate::{
    error::{Fault, Refusal},
    mvcc::Leases,
    table::{Batch, Scan, Table, Tables},
    types::LeaseId,
};

/// A lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The TTL that was granted, in seconds.
    pub ttl: i64,
    /// How many seconds were left when the leader said so last; 0 for all of them.
    pub remaining: i64,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// What a new leader gives it, in seconds.
    pub fn left(&self) -> i64 {
        if self.remaining > 0 { self.remaining } else { self.ttl }
    }

    /// The keys attached to it, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter()
    }
}

/// All leases. Every change goes into a batch as well, so that [`Book::load`] gives the same but for the keys,
/// which the key-values themselves name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Book {
    /// The leases of the tables, without their keys: [`Book::bind`] each current key that names a lease.
    pub fn load(tables: &impl Tables) -> Result<Self, Fault> {
        let mut book = Self::default();
        let mut broken = None;
        tables.scan(Table::Lease, b"", None, &mut |key, value| match (
            codec::parse_key(key),
            codec::decode(value),
        ) {
            (Some(id), Some((same, ttl, remaining))) if id == same && id != LeaseId(0) => {
                book.leases.insert(id, Lease { ttl, remaining, keys: BTreeSet::new() });
                Scan::Continue
            }
            _ => {
                broken = Some(Bytes::copy_from_slice(key));
                Scan::Stop
            }
        })?;
        match broken {
            None => Ok(book),
            Some(key) => Err(Fault::corrupt(format!(
                "the table {} holds a lease that can't be read, under {key:?}: take the tables away, so that they \
                 are rebuilt from the log or from the other members",
                Table::Lease.name()
            ))),
        }
    }

    /// A current key names `lease`. One that is not there is ignored, as in etcd.
    pub fn bind(&mut self, lease: LeaseId, key: Bytes) {
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(key);
        }
    }

    /// Grants a lease. The TTL is taken as it is, but for one below 1, which counts as 1.
    pub fn grant(&mut self, id: LeaseId, ttl: i64, batch: &mut Batch) -> Result<i64, Refusal> {
        if id == LeaseId(0) {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl > TTL_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(1);
        self.leases.insert(id, Lease { ttl, ..Lease::default() });
        batch.put(Table::Lease, codec::key(id).to_vec(), codec::encode(id, ttl, 0));
        Ok(ttl)
    }

    /// Takes a lease away, and returns the keys that go with it, in order. They are the caller's to delete.
    pub fn revoke(&mut self, id: LeaseId, batch: &mut Batch) -> Result<Vec<Bytes>, Refusal> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        batch.delete(Table::Lease, codec::key(id).to_vec());
        Ok(lease.keys.into_iter().collect())
    }

    /// Notes how many seconds a lease has left; 0 for all. False, and nothing happens, if it is not there.
    pub fn checkpoint(&mut self, id: LeaseId, remaining: i64, batch: &mut Batch) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        lease.remaining = remaining.clamp(0, lease.ttl);
        batch.put(Table::Lease, codec::key(id).to_vec(), codec::encode(id, lease.ttl, lease.remaining));
        true
    }

    /// A lease.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All leases by id.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// All leases with the seconds granted and those left at the last checkpoint: what an
    /// [`Expirer`](super::Expirer) starts from.
    pub fn seconds(&self) -> impl Iterator<Item = (LeaseId, i64, i64)> {
        self.leases.iter().map(|(&id, lease)| (id, lease.ttl, lease.remaining))
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

impl Leases for Book {
    fn exists(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    fn attach(&mut self, lease: LeaseId, key: &Bytes) {
        let lease = self.leases.get_mut(&lease).expect("the writer attaches to leases that exist");
        // A copy: the key may be a slice of a whole request.
        lease.keys.insert(Bytes::copy_from_slice(key));
    }

    fn detach(&mut self, lease: LeaseId, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.remove(key);
        }
    }
}
