//! A member's decisions: raft, who waits for what, when to snapshot, which leases end, what is too much.
//!
//! [`Node`] is a pure machine: [`Node::step`] takes an [`Event`] with the time in it, [`Node::poll`] hands out
//! [`Effect`]s. A driver only carries: log writes to the disk and their completion back, committed entries to
//! the applier and its report back, messages to peers, answers to clients.
//!
//! ```text
//!   clients ── Propose, Read, RenewLease ──▶ ┌──────┐ ── Persist ──▶ log      ── Persisted ──┐
//!   peers ──── Message ────────────────────▶ │ Node │ ── Apply ────▶ applier  ── Applied ────┤
//!   clock ──── Tick ───────────────────────▶ │ raft │ ── Send ─────▶ peers                   │
//!                                            └──▲───┘ ── Answer ───▶ clients                 │
//!                                               └────────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - An entry is handed to the applier only when it is committed and this member's log has it durable, so the
//!   backend never outruns the log.
//! - A snapshot is installed only after the log names it; entries behind it come after the installation.
//! - A waiter gets exactly one answer: its reply, a refusal, or a time-out.
//! - A read is answered only when the applied index has reached the index that the leader confirmed after the
//!   read had come in.
//! - A lease is renewed only by a leader that has confirmed its leadership after the renewal came in, and only
//!   when everything committed up to then has been applied here: a renewal after a revocation fails.
//! - A renewal is answered only when the log says nothing of less time left, so what a client is told outlives the
//!   leader that told it.
//! - Members whose state differs are found by the leader, from the hashes that heartbeats carry; a quorum decides
//!   whose state is the cluster's, and the others get etcd's alarm.
//!
//! What it leaves out: what entries mean (`state`), bytes (`wire`), files (`storage`), time and links (`runtime`).

mod compactor;
mod core;
mod effect;
mod event;
mod leases;
mod limits;
mod marks;
mod policy;
mod waiters;

pub use self::{
    compactor::{Compactor, Retention},
    core::{Node, Start},
    effect::*,
    event::*,
    limits::Config,
};
