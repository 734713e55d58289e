//! The seam below the state machine: RocksDB, or tables in memory.

use crate::{
    error::Fault,
    table::{Batch, Tables},
};

/// Ordered tables with atomic batches.
///
/// The prefix contract: batches are atomic; after a crash some prefix of the batches written survives, at
/// least up to the last finished [`Backend::flush`]. The backend has no log of its own: raft's log replays
/// what was lost.
pub trait Backend: Tables + Clone + 'static {
    /// Applies a batch; reads see it when this returns. It is durable only after a flush.
    fn write(&self, batch: Batch) -> Result<(), Fault>;

    /// Makes all batches written before the call durable. Writes may go on meanwhile.
    fn flush(&self) -> Result<(), Fault>;

    /// A view of one moment, for long reads such as snapshots. It borrows from its backend, so a reader on
    /// another thread takes a clone of the backend along; while it lives, what it sees takes space.
    fn snapshot(&self) -> Result<impl Tables, Fault>;

    /// Empties all tables and then applies the batches of `batches`. Durable on return.
    ///
    /// A crash in the middle is noticed by the missing applied index: the tables are durably empty before the
    /// first batch is taken, and of the batches only the last may put the applied index. So too when `batches`
    /// ends in a fault, which is handed on. Reads meanwhile see any prefix.
    fn replace(&self, batches: &mut dyn Iterator<Item = Result<Batch, Fault>>) -> Result<(), Fault>;

    /// Bytes on disk (or in memory), the quota's measure.
    fn size(&self) -> Result<u64, Fault>;

    /// Bytes of it in use.
    fn size_in_use(&self) -> Result<u64, Fault>;

    /// Compacts in the background; returns when it has been started.
    fn defragment(&self) -> Result<(), Fault>;
}
