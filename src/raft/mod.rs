//! Raft as a pure state machine: inputs in, a [`Ready`] out, no clock, no disk, no network.
//!
//! ```text
//!   Tick, Receive, Propose, Read, ...          Persisted(id)      Applied(i), ApplyChange
//!          │                                        ▲                     ▲
//!          ▼                                        │                     │
//!     Raft::step ──► Raft::poll_ready ──► entries, hard, snapshot    committed entries
//!                            │             (disk, in the order           (applier)
//!                            ▼              of the Readys)
//!                 messages, reads: at once
//! ```
//!
//! ```
//! # use kontiki::raft::*;
//! # fn drive(raft: &mut Raft) -> Result<(), StepError> {
//! raft.step(Input::Tick)?;
//! while let Some(ready) = raft.poll_ready() {
//!     // Hand ready.messages to the network, ready.entries and ready.hard to the disk's queue,
//!     // ready.committed to the applier. None of them has to wait for another.
//!     if let Some(id) = ready.persist {
//!         // Whenever the disk is done, at once or much later:
//!         raft.step(Input::Persisted(id))?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Names are those of the Raft paper and of Ongaro's thesis; messages mean what they mean to etcd's raft 3.5.
//!
//! Invariants, beside those of the paper (figure 3):
//! - A promise is made only after it is durable. Votes given, appends accepted, and a candidate's requests wait
//!   inside until the write that they rest on is acknowledged; a leader's own log counts towards a commit only as
//!   far as it is durable. All that [`Ready::messages`] holds may be sent at once.
//! - An acknowledgement never vouches for entries that were overwritten after the write was handed out.
//! - A member applies only what is both committed and durable here: its state machine never outruns its log, so
//!   whatever survives of the one after a crash is explained by the other.
//! - A commit index goes up only to where the log is known to be the leader's, and nothing at or below it is ever
//!   replaced; a message that would is [`StepError::Diverged`].
//! - A member whose disk does not answer neither leads nor campaigns, but goes on following and answering.
//! - The configuration is that of the changes applied. So nobody campaigns who has committed changes to apply, a
//!   leader proposes no change before it has applied the one before and committed an entry of its own term, and a
//!   member that restarts takes the changes before the last one in its log for committed.
//! - Reads are answered with the commit index that the leader had when the read's round began, once a quorum has
//!   confirmed that it still led then.
//!
//! Everything that grows has a limit in [`Config`]. Left out: storing and encoding anything (`storage`, `wire`),
//! building and shipping snapshots' bodies, deciding when to compact (`node`), leases of the leader for reads.

mod api;
mod candidate;
mod check;
mod core;
mod follower;
mod leader;
mod log;
mod message;
mod progress;
mod reads;

pub use self::core::Raft;
pub use api::*;
pub use message::*;
