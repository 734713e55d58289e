//! The words that every layer shares: ids, terms, indices, revisions, ranges of keys.
//!
//! Each is a newtype, so that a function never takes two bare integers.

use std::fmt;

use bytes::Bytes;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A raft term. Term 0 is before the first election.
    Term(u64)
);
number!(
    /// A position in the raft log, from 1. Index 0 is before the first entry.
    Index(u64)
);

impl Index {
    /// The index after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

hex_id!(
    /// A member of a cluster; written in lowercase hex without padding. 0 is nobody.
    NodeId
);
hex_id!(
    /// A cluster; written in lowercase hex without padding.
    ClusterId
);

number!(
    /// A lease's id; any number but 0, which means "no lease". Negative ones are legal.
    LeaseId(i64)
);
number!(
    /// A revision of the whole store: the count of effective write requests. A fresh store is at 1.
    Revision(i64)
);

impl Revision {
    /// The revision after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One change within a revision: `sub` counts the changes of one request from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubRevision {
    /// The request's revision.
    pub main: Revision,
    /// The change's place within the request.
    pub sub: i64,
}

impl SubRevision {
    /// etcd's key of the revision table: main as 8 bytes big endian, `_`, sub as 8 bytes big endian,
    /// and a `t` behind it for a tombstone.
    pub fn to_key(self, tombstone: bool) -> Vec<u8> {
        let mut key = Vec::with_capacity(18);
        key.extend_from_slice(&self.main.0.to_be_bytes());
        key.push(b'_');
        key.extend_from_slice(&self.sub.to_be_bytes());
        if tombstone {
            key.push(b't');
        }
        key
    }

    /// Reads [`SubRevision::to_key`] back, with whether it was a tombstone. None if it is not such a key.
    pub fn from_key(key: &[u8]) -> Option<(Self, bool)> {
        let tombstone = match key.len() {
            17 => false,
            18 if key[17] == b't' => true,
            _ => return None,
        };
        if key[8] != b'_' {
            return None;
        }
        let main = Revision(i64::from_be_bytes(key[..8].try_into().ok()?));
        let sub = i64::from_be_bytes(key[9..17].try_into().ok()?);
        Some((Self { main, sub }, tombstone))
    }
}

/// Where a range of keys ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RangeEnd {
    /// It holds its start alone.
    Single,
    /// It holds what is below this key.
    Before(Bytes),
    /// It holds all keys from its start on.
    Unbounded,
}

/// A range of keys, as etcd's `key` and `range_end` name one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// etcd's rules: no `range_end` is the one key; a `range_end` of one zero byte is all from `key` on;
    /// any other is `[key, range_end)`, which is empty if it ends before it starts.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// One key.
    pub fn single(key: Bytes) -> Self {
        Self { start: key, end: RangeEnd::Single }
    }

    /// The `range_end` that names this range on the wire.
    pub fn wire_end(&self) -> Bytes {
        match &self.end {
            RangeEnd::Single => Bytes::new(),
            RangeEnd::Before(end) => end.clone(),
            RangeEnd::Unbounded => Bytes::from_static(&[0]),
        }
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
            RangeEnd::Unbounded => key >= self.start.as_ref(),
        }
    }

    /// Whether it can hold no key.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if end <= &self.start)
    }
}

/// A key's state at one revision (`mvccpb.KeyValue`). A tombstone has its key and `modified` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision that made the key after it was absent.
    pub created: Revision,
    /// The revision of this change.
    pub modified: Revision,
    /// How many puts since `created`, from 1.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease that it is attached to; 0 for none.
    pub lease: LeaseId,
}

/// Milliseconds since some start; only ever goes up on one node and means nothing to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// The milliseconds from `earlier` to this one; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and `ms` milliseconds.
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0 + ms)
    }
}
