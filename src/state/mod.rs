//! What committed entries do: the replicated state machine, pure.
//!
//! [`Machine`] is handed runs of committed entries, in order, and gives back one [`Batch`](crate::table::Batch)
//! for each run and what else came of it ([`Applied`]). The caller writes the batch, then calls
//! [`Machine::publish`], then sends the replies and hands on the events:
//!
//! ```text
//!   entries ─► apply ─► batch ─► backend.write ─► publish ─► replies, events, conf changes
//! ```
//!
//! Invariants:
//!
//! - The same entries do the same on every member, whatever runs they come in: what is in the batches, the
//!   replies, the state hash. Nothing of the member itself (its clock, its name, its disk) is asked.
//! - Exactly once: the batch holds the index of the run's last entry, so entries that a restart hands in again
//!   are skipped, and those that a crash took from the backend are done again.
//! - A refused command changes nothing but the index.
//! - While authorization is on, each command is checked here, by what is replicated alone: the user and the
//!   authorization revision in the entry, users, roles and leases as of the entry's place.
//! - Committed bytes never panic. What can't be read, or isn't known, stops the node ([`Fault`]): another member
//!   may have done something there.
//!
//! [`Fault`]: crate::error::Fault
//!
//! Meta rows are etcd's: `consistent_index`, `term`, `confState`; and one of our own, the state hash, which
//! chains each entry's index, term and writes. It is not known after another program's data were taken over,
//! until a snapshot of a member that knows it replaces them.
//!
//! Left out: compaction's deletions (the store hands them out at its own pace; they are no part of the logical
//! state).

mod alarms;
mod command;
mod machine;
mod meta;
mod snapshot;

pub use alarms::Alarms;
pub use command::*;
pub use machine::{Config, Machine};
pub use snapshot::{Rows, SNAPSHOT_MAGIC, decode_rows, encode_rows, index_in, position};
