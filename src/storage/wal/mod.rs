//! The write-ahead log, in etcd's own format: what raft must not forget.
//!
//! A directory of segments, each a sequence of records under one chain of checksums that runs through all of them:
//!
//! ```text
//! 0000000000000000-0000000000000000.wal   crc  metadata  snapshot{0,0}  entry… state  entry… state …
//! 0000000000000001-0000000000000a31.wal   crc  metadata  state          entry… state … ▏zeros, preallocated
//! ```
//!
//! Invariants:
//! - what [`Wal::append`] with `sync`, [`Wal::save_snapshot_mark`] or [`Wal::sync`] returned `Ok` for is recovered,
//!   or [`Wal::open`] fails: a corrupt log never counts as a short one;
//! - what is recovered was written, in this order, with nothing between left out;
//! - what follows the log's end is zeros, durably, before anything is appended, so nothing stale is ever read;
//! - a failed write or sync poisons the log: what is durable is then unknown, and every later call fails.
//!
//! **Marks.** The first record of each batch says how many bytes of its segment were durable when it was written
//! (field 100 of the record; field 101 is that record's own checksum over place, type, chain and mark; etcd skips
//! both). Damage at or behind the furthest mark is what a crash leaves: sectors that were not synced may be lost in
//! any order, so all from the first damage on is cut off, even if later records look whole. Damage before a mark, in
//! the checksum or the metadata at the head of a segment (the state there is said in those before), or in any segment
//! but the last, is corruption. Where etcd was the last writer, there is no mark and its own rule holds: a cut record
//! or one with an empty sector is torn, all else is corrupt.
//! A batch gets its mark from the next one. Rot in the newest batch alone can't be told from a crash.
//!
//! **A batch that was half written** and never acknowledged may come back in part. If its entries have a newer term
//! than the last state, [`Recovered::hard_state`] has their term without a vote: a vote in it would have been
//! synced before.
//!
//! Left out: released segments are removed, not reused (a reused one has no zero tail); a log that etcd left in
//! the moment between a received snapshot's mark and its state, with entries behind it, is refused as having a gap.

mod frame;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;

pub use recover::{Recovered, Survey, survey};
pub use writer::Wal;

pub(super) use segment::hex;

use super::Disk;
use crate::{
    error::Fault,
    raft::LogId,
    types::{ClusterId, Index, NodeId},
};

/// Records are smaller than this: etcd 3.5.1 refuses larger ones.
pub const RECORD_MAX: u64 = 10 * 1024 * 1024;

/// Whose log it is (`etcdserverpb.Metadata`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment that has grown to this is followed by the next; also what is preallocated.
    pub segment_bytes: u64,
    /// How many segments [`Wal::purge`] leaves at least; 0 keeps all.
    pub wals_max: usize,
    /// The snapshot that recovery starts from, which has to be one of the log's marks; none for the newest.
    pub start: Option<LogId>,
    /// Where a snapshot is known to be whose mark the log should have: recovery need not read the segments before it,
    /// unless that mark, and any newer one, is missing. 0 to read all.
    pub from: Index,
}

impl Default for Options {
    /// As etcd: 64 000 000 bytes, 5 segments.
    fn default() -> Self {
        Self { segment_bytes: 64_000_000, wals_max: 5, start: None, from: Index(0) }
    }
}

/// Whether a directory holds a log: any name that ends in `.wal`.
pub fn exists<D: Disk>(disk: &D, dir: &Path) -> Result<bool, Fault> {
    match disk.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| name.ends_with(".wal"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::io(format!("listing {}", dir.display()), error)),
    }
}
