//! What was observed of a run, from outside: clients' calls and watches in etcd's own messages, and what members sent,
//! applied and recovered.
//!
//! A simulated run and a real cluster under `kill -9` fill the same [`History`]; the oracles in [`crate::check`] read
//! nothing else. Only `ops` and `watches` are needed; each oracle stays silent about what was not recorded.
//!
//! ```text
//!  client ── Put ──▶ member        Op { start, call }   … Op { end, outcome }
//!  client ◀─ events ─ member       WatchLog { create, responses }
//!  member ── Append ─▶ member      MessageFact, when it is sent
//!  member: backend takes a batch   Applied
//!  member: crash, boot             Crash, Boot with what the disk still had
//! ```
//!
//! Times are [`Micros`] of one clock that never goes back: the simulator's true time, or the recorder's. An oracle
//! takes two spans that touch for concurrent. Left out: what a member believed inside; oracles judge what could be seen.
//! [`jsonl`] has the format of files.

mod calls;
mod facts;
pub mod jsonl;
mod outcome;

use kontiki::wire::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

pub use self::{
    calls::{Call, Reply},
    facts::{
        Applied, Boot, Config, Crash, EntryFact, Fact, Held, HeldKind, LogFact, MarkFact, MessageFact,
        TermRun, Up,
    },
    outcome::Outcome,
};

/// Microseconds since the recording's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// From whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    /// From whole seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1_000_000)
    }

    /// This moment and `span`.
    pub const fn after(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this moment; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A client's call.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Unique in the history.
    pub id: u64,
    /// Who called; one client's calls may overlap.
    pub client: u32,
    /// Which member was called, by the recorder's number.
    pub member: u32,
    /// Who the client was logged in as; none without authentication.
    pub user: Option<String>,
    /// Not after the request was sent.
    pub start: Micros,
    /// Not before the answer was there; none if there never was one.
    pub end: Option<Micros>,
    /// What was asked. A stream of renewals is one call a renewal; a RangeStream is a Range with its parts joined.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// One watch on one stream, as long as that stream lived.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchLog {
    /// Unique among the history's watches.
    pub id: u64,
    /// Who watched.
    pub client: u32,
    /// Which member was asked, by the recorder's number.
    pub member: u32,
    /// Who the client was logged in as when it opened the stream; none without authentication.
    pub user: Option<String>,
    /// The stream; several watches may share one.
    pub stream: u64,
    /// What was asked. After a lost stream, with the `start_revision` that the client resumes at.
    pub create: pb::WatchCreateRequest,
    /// Not after the request was sent.
    pub start: Micros,
    /// What came, in order. A response to a progress request (watch id -1) goes to each watch of its stream.
    pub responses: Vec<(Micros, pb::WatchResponse)>,
    /// When the client asked for the progress of the stream, while this watch was one of its.
    pub asked: Vec<Micros>,
    /// When the client asked to cancel it.
    pub cancel: Option<Micros>,
    /// When the stream was seen to end; none if it was still open when the recording ended.
    pub ended: Option<Micros>,
    /// The watch that this one carries on.
    pub resumes: Option<u64>,
}

impl WatchLog {
    /// One that was just asked for, on a stream of its own, by nobody in particular.
    pub const fn new(
        id: u64,
        client: u32,
        member: u32,
        create: pb::WatchCreateRequest,
        start: Micros,
    ) -> Self {
        Self {
            id,
            client,
            member,
            user: None,
            stream: id,
            create,
            start,
            responses: Vec::new(),
            asked: Vec::new(),
            cancel: None,
            ended: None,
            resumes: None,
        }
    }
}

/// What the oracles must know of the run besides what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The revision that the store was at when the recording began: 1 for an empty one. It must have no keys then.
    pub first_revision: i64,
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// What the members' clocks may run apart, in parts per million of the time that passes: a lease may end sooner
    /// by that much of its TTL.
    pub clock_drift_ppm: u64,
    /// How much sooner still, whatever its TTL: jumps of clocks, and how coarse ticks are.
    pub lease_early_max: Micros,
    /// How late a lease may end while the cluster is calm.
    pub lease_late_max: Micros,
    /// How often the log is told how long leases still last; none if that is not judged.
    pub lease_checkpoint: Option<Micros>,
    /// When the faults ended for good and a quorum was healthy; none if that never came.
    pub calm_from: Option<Micros>,
    /// From `calm_from` on for this long, nothing is demanded yet.
    pub settle_max: Micros,
    /// How long a call may take after that.
    pub calm_op_max: Micros,
    /// How long a member may lag behind in what it has applied when the recording ends, in entries; only members
    /// named in `calm_nodes` are judged.
    pub lag_max: u64,
    /// The ids of the members that live to the end; the others were given up.
    pub calm_nodes: Vec<u64>,
    /// The same members by the recorder's numbers: only calls to these must be answered in the calm; all if empty.
    pub calm_members: Vec<u32>,
    /// In the calm, how long a watch with `progress_notify` may be without any response; none if that is not judged.
    pub progress_max: Option<Micros>,
    /// When the recording ended.
    pub ended: Micros,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first_revision: 1,
            txn_ops_max: 128,
            clock_drift_ppm: 0,
            lease_early_max: Micros(0),
            lease_late_max: Micros::from_secs(10),
            lease_checkpoint: None,
            calm_from: None,
            settle_max: Micros::from_secs(10),
            calm_op_max: Micros::from_secs(5),
            lag_max: 0,
            calm_nodes: Vec::new(),
            calm_members: Vec::new(),
            progress_max: None,
            ended: Micros(0),
        }
    }
}

/// All that was observed of a run. Each list may be in any order unless it says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// What must be known besides.
    pub settings: Settings,
    /// Calls.
    pub ops: Vec<Op>,
    /// Watches. One over all keys with `prev_kv` that is resumed whenever its stream breaks tells the linearizability
    /// oracle what calls with an unknown outcome did; without one it has to search.
    pub watches: Vec<WatchLog>,
    /// Locks and leaderships, as their holders believed.
    pub held: Vec<Held>,
    /// What the members' backends took, in the order of time.
    pub applied: Vec<Applied>,
    /// What members sent, in the order of time, also what got lost.
    pub messages: Vec<MessageFact>,
    /// Configurations that members took to, in the order of time.
    pub configs: Vec<Config>,
    /// Starts of members, in the order of time.
    pub boots: Vec<Boot>,
    /// Who began to serve where, in the order of time.
    pub ups: Vec<Up>,
    /// Ends of members' processes, in the order of time.
    pub crashes: Vec<Crash>,
}
