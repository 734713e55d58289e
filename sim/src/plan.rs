//! A run as data: the cluster, its knobs, the faults and what the clients do, all drawn from the seed beforehand.
//!
//! What only the run can know (who leads, what revision a client has seen) is named, not drawn: so a plan from which
//! steps were cut still means something, which is what `shrink` lives on.

mod fault;

use kontiki::server::Tuning;
use serde::{Deserialize, Serialize};

use crate::{
    host::Micros,
    net::{Address, Link},
};

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where all draws during the run come from.
    pub seed: u64,
    /// The cluster and its knobs.
    pub knobs: Knobs,
    /// Faults, by time.
    pub faults: Vec<Timed<Fault>>,
    /// What each client does, one step after the other.
    pub clients: Vec<Vec<Step>>,
    /// When the faults end.
    pub calm_from: Micros,
}

impl Plan {
    /// Whether members come or go.
    pub fn changes_members(&self) -> bool {
        // Whoever's disk is damaged is replaced.
        let changes = |fault: &Fault| {
            matches!(
                fault,
                Fault::Replace { .. }
                    | Fault::Join { .. }
                    | Fault::Leave { .. }
                    | Fault::Rot { .. }
                    | Fault::Misdirect { .. }
            )
        };
        self.faults.iter().any(|fault| changes(&fault.what))
    }
}

/// The cluster and its knobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Knobs {
    /// Members at the start.
    pub members: u32,
    pub tick_ms: u64,
    pub election_ticks: u64,
    pub pre_vote: bool,
    pub strict_reconfig_check: bool,
    pub snapshot_entries: u64,
    pub catchup_entries: u64,
    pub segment_bytes: u64,
    pub wals_max: usize,
    pub snapshots_max: usize,
    pub compaction_batch: usize,
    pub compaction_pause_ms: u64,
    pub watch_progress_ms: u64,
    /// How many responses of a stream may wait in a member before its watches fall behind.
    pub watch_queue_max: usize,
    /// The smallest gRPC message that a watch response is split at, less etcd's overhead.
    pub request_bytes_max: usize,
    pub lease_ttl_min: i64,
    /// How often the log is told how long leases still last.
    pub lease_checkpoint_ms: u64,
    /// Whether clients are users, some of them, and change what those may do.
    pub auth: bool,
    /// Whether tokens name their user and revision themselves, so that no member need remember them.
    pub signed_tokens: bool,
    /// What a log write takes, from and to.
    pub sync: (Micros, Micros),
    /// How links usually are.
    pub link: Link,
    /// Whether tasks run in a drawn order.
    pub drawn_order: bool,
    /// How far apart the members' clocks run, in parts per million.
    pub drift_ppm: u64,
    /// What a job of the keeper (flushes, snapshots) takes, from and to.
    pub keeper: (Micros, Micros),
    /// How far applying lags behind raft, and telling watches behind that, from and to.
    pub lag: (Micros, Micros),
    /// How long a client waits for an answer.
    pub patience: Micros,
    /// Whether operators wait for each other's changes of the members.
    pub one_operator: bool,
    /// What no flag of a server sets.
    #[serde(default)]
    pub tuning: Tuning,
}

/// Something at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// When.
    pub at: Micros,
    /// What.
    #[serde(flatten)]
    pub what: T,
}

/// Which member: by place, or by what it is when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// At this address.
    At(Address),
    /// The leader, or any.
    Leader,
    /// One that does not lead.
    Follower,
    /// The one at which the moment came that was waited for.
    Struck,
    /// The one that joined last.
    Newest,
}

/// Something that happens to a member, as it can be seen from outside: where two steps have to be one, what comes right
/// behind the first tells whether they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// It asks for votes.
    Campaigns,
    /// It gives its vote.
    Votes,
    /// It takes itself for the leader.
    Leads,
    /// It tells another to take over.
    HandsOver,
    /// It has applied a change of the members.
    Changes,
    /// So has the leader.
    LeaderChanges,
    /// It sends a snapshot.
    SendsSnapshot,
    /// A snapshot has come in.
    GetsSnapshot,
    /// Its tables were replaced by a snapshot.
    Installs,
    /// Its tables were flushed.
    Flushes,
    /// It has removed old revisions.
    Compacts,
    /// An operator asks that it be promoted or removed.
    Asked,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Campaigns,
        Self::Votes,
        Self::Leads,
        Self::HandsOver,
        Self::Changes,
        Self::LeaderChanges,
        Self::SendsSnapshot,
        Self::GetsSnapshot,
        Self::Installs,
        Self::Flushes,
        Self::Compacts,
        Self::Asked,
    ];
}

/// A fault. Each ends by itself, so that any can be left out of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Fault {
    /// A process dies and comes back; with its machine, what was not synced is lost in part.
    Crash { who: Who, power: bool, down: Micros },
    /// The power goes in one of the disk's next operations.
    CrashInDisk { who: Who, operation: u64, down: Micros },
    /// All members crash at once.
    CrashAll { power: bool, down: Micros },
    /// A process stands still and knows nothing of it.
    Pause { who: Who, span: Micros },
    /// A member can't be reached, can't reach others, or both.
    Isolate { who: Who, inbound: bool, outbound: bool, span: Micros },
    /// The members fall into two parts: those of `side`, by address, and the others.
    Split { side: Vec<Address>, span: Micros },
    /// Whoever leads is cut off, in a minority, time after time: each leader has entries that the next does not know.
    /// Or leadership goes back to whoever had it, to be cut off anew.
    Seesaw {
        rounds: u8,
        span: Micros,
        #[serde(default)]
        back: bool,
    },
    /// One link is cut, in one direction.
    CutLink { from: Address, to: Address, span: Micros },
    /// What a member sends or is sent stays on its way, also snapshots (`bulk`), and comes in when this ends, in any
    /// order, within `spread`.
    Hold {
        who: Who,
        inbound: bool,
        outbound: bool,
        span: Micros,
        #[serde(default)]
        bulk: bool,
        #[serde(default)]
        spread: Micros,
    },
    /// All links behave like this.
    Weather { link: Link, span: Micros },
    /// The links of one member behave like this.
    Lag { who: Who, inbound: bool, outbound: bool, link: Link, span: Micros },
    /// A disk answers nothing.
    Stall { who: Who, span: Micros },
    /// One of the disk's next operations fails.
    DiskError { who: Who, operation: u64, errno: i32, down: Micros },
    /// A disk is slow.
    SlowDisk { who: Who, sync: (Micros, Micros), span: Micros },
    /// A byte of the log or a snapshot file rots while the member is down, where that may be.
    Rot { who: Who, file: u64, offset: u64, mask: u8, down: Micros },
    /// A sector of the log turns out to have been written over another one; the member is down meanwhile.
    Misdirect { who: Who, from: u64, to: u64, down: Micros },
    /// A clock runs at another rate.
    ClockRate { who: Who, rate: u64, span: Micros },
    /// A wall clock jumps.
    WallJump { who: Who, by_ms: i64 },
    /// Leadership is handed over.
    MoveLeader { to: Address },
    /// A member is taken out of the cluster, its disk is wiped, and it joins again: as a learner that is promoted, or
    /// as a voter at once.
    Replace { who: Who, learner: bool, down: Micros },
    /// A member joins at a new address, as a learner that is promoted or as a voter.
    Join { learner: bool, promote: bool },
    /// A member is taken out for good. Its process may go on for so long, until it hears of it.
    Leave {
        who: Who,
        #[serde(default)]
        linger: Micros,
    },
    /// A member's peer URLs are set to what they are.
    Update { who: Who },
    /// No fault, but what makes one felt: clients press on at a member and elsewhere, and wait for nothing.
    /// Some look at that member for what others were told to be written elsewhere; or they renew a lease above all.
    Rush {
        who: Who,
        pause: Micros,
        span: Micros,
        #[serde(default)]
        looks: bool,
        #[serde(default)]
        leases: bool,
    },
    /// A fault that comes right behind the next moment of a kind, but for the first `skip`.
    Trap { on: Moment, skip: u64, after: Micros, what: Box<Fault> },
}

/// What a client does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long it waits before.
    pub wait: Micros,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

/// Keys: a small universe, so that clients meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// One key.
    Key(u8),
    /// From the first key to before the second.
    Between(u8, u8),
    /// From a key on.
    From(u8),
    /// Everything.
    All,
}

/// A revision, as a client can name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rev {
    /// None: 0.
    Now,
    /// So far behind the newest that this client has seen.
    Back(i64),
    /// So far beyond it.
    Ahead(i64),
    /// This one.
    Exactly(i64),
}

/// A range request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RangeStep {
    pub span: Span,
    pub rev: Rev,
    pub limit: i64,
    /// etcd's sort order and target.
    pub sort: (i32, i32),
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    /// Bounds: min and max mod revision, min and max create revision.
    pub bounds: [Option<Rev>; 4],
}

/// A put request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PutStep {
    pub key: u8,
    /// Bytes of the value.
    pub size: u32,
    /// On one of the run's leases.
    pub lease: Option<u8>,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CompareStep {
    pub span: Span,
    /// etcd's result and target.
    pub result: i32,
    pub target: i32,
    pub number: i64,
    pub rev: Rev,
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum OpStep {
    Range(RangeStep),
    Put(PutStep),
    Delete { span: Span, prev_kv: bool },
    Txn(TxnStep),
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TxnStep {
    pub compares: Vec<CompareStep>,
    pub success: Vec<OpStep>,
    pub failure: Vec<OpStep>,
}

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WatchStep {
    /// How long after the one before it on its stream.
    pub wait: Micros,
    pub span: Span,
    pub rev: Rev,
    pub prev_kv: bool,
    pub progress: bool,
    pub fragment: bool,
    pub filters: Vec<i32>,
    /// The id that it asks for; 0 leaves it to the member.
    pub id: i64,
    /// How long after it was made it is canceled, if it is.
    pub cancel: Option<Micros>,
    /// Whether it begins anew, at what is left, when a compaction has ended it.
    pub again: bool,
}

/// A stream of watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StreamStep {
    pub watches: Vec<WatchStep>,
    /// How long it is kept, whatever happens to its member; none for to the end of the run.
    pub span_micros: Option<Micros>,
    /// How long its client takes for each response, until the calm.
    pub slow: Micros,
    /// How often it asks for its progress; 0 for never.
    pub ask_progress: Micros,
}

/// A turn at a lock or an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TurnStep {
    pub election: bool,
    pub name: u8,
    pub ttl: i64,
    /// Whether its lease is renewed as long as it waits and holds.
    pub renew: bool,
    pub hold: Micros,
    /// Whether a leader says something anew.
    pub proclaim: bool,
    /// Whether it gives the turn back.
    pub leave: bool,
    /// Whether it gives the lease back.
    pub revoke: bool,
}

/// Leases that live for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SessionsStep {
    pub count: u8,
    pub ttl: i64,
    /// The first one's key; those of the others follow.
    pub key: u8,
    /// Whether each is renewed as soon as it is granted.
    pub renew_first: bool,
    pub renewals: u8,
    /// How much of the TTL passes between renewals.
    pub renew_percent: u8,
    /// Whether they are renewed once more when they have just ended, and their revocation may be on its way.
    #[serde(default)]
    pub late: bool,
    pub revoke: bool,
}

/// Something about users and roles. User 0 and role 0 are root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum AuthStep {
    Enable,
    Disable,
    Status,
    UserAdd {
        user: u8,
    },
    UserDelete {
        user: u8,
    },
    /// Another password.
    Password {
        user: u8,
    },
    GrantRole {
        user: u8,
        role: u8,
    },
    RevokeRole {
        user: u8,
        role: u8,
    },
    UserGet {
        user: u8,
    },
    UserList,
    RoleAdd {
        role: u8,
    },
    RoleDelete {
        role: u8,
    },
    /// Grants a role keys: 0 to read, 1 to write, 2 for both.
    Permit {
        role: u8,
        span: Span,
        access: i32,
    },
    Forbid {
        role: u8,
        span: Span,
    },
    RoleGet {
        role: u8,
    },
    RoleList,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Action {
    Range(RangeStep),
    Put(PutStep),
    Delete {
        span: Span,
        prev_kv: bool,
    },
    Txn(TxnStep),
    Compact {
        rev: Rev,
        physical: bool,
        /// Whether all members are asked for their hash right behind it.
        hash: bool,
    },
    Grant {
        lease: u8,
        ttl: i64,
    },
    Revoke {
        lease: u8,
    },
    KeepAlive {
        lease: u8,
    },
    TimeToLive {
        lease: u8,
        keys: bool,
    },
    Leases,
    /// Goes on beside what follows.
    Watch(StreamStep),
    /// Takes a lock as the client library does, holds it, and gives it back.
    Lock {
        name: u8,
        ttl: i64,
        hold: Micros,
    },
    /// Waits for a lock or an election by the members' own services.
    Turn(TurnStep),
    /// Asks who leads an election.
    Leader {
        name: u8,
    },
    /// Goes on beside what follows.
    Sessions(SessionsStep),
    HashKv {
        rev: Rev,
    },
    /// Asks each member for the hash at one revision.
    HashAll {
        rev: Rev,
    },
    Auth(AuthStep),
    /// Is another user from now on, or nobody.
    Become {
        user: Option<u8>,
    },
    Defragment,
    Status,
    /// Talks to another member from now on.
    Move {
        to: Address,
    },
}
