//! What production and the simulator do differently, as one trait of five seams.
//!
//! Production: tokio, real files, RocksDB, HTTP between peers. Simulation: madsim's tasks and time, a
//! simulated disk and backend, encoded messages over a simulated network. All else is the same code.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    error::{Fault, Refusal},
    membership::Member,
    raft::{Message, Snapshot},
    storage::{Backend, Disk},
    types::{ClusterId, Instant, LeaseId, NodeId},
};

#[cfg(not(any(madsim, fuzzing)))]
mod production;
mod task;

#[cfg(not(any(madsim, fuzzing)))]
pub use production::Production;
pub use task::Task;

/// Who this member is, for its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where bodies of received snapshots are put.
    pub snap_dir: PathBuf,
}

/// The seams.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Time.
    type Clock: Clock;
    /// Randomness.
    type Entropy: Entropy;
    /// Links to the other members.
    type PeerNet: PeerNet;
    /// Files.
    type Disk: Disk;
    /// Tables.
    type Backend: Backend;

    /// The clock.
    fn clock(&self) -> Self::Clock;

    /// The source of randomness.
    fn entropy(&self) -> Self::Entropy;

    /// The disk.
    fn disk(&self) -> Self::Disk;

    /// Opens the tables in a directory, or makes them.
    fn open_backend(&self, dir: &Path) -> Result<Self::Backend, Fault>;

    /// Links for the member `local`; what comes in over them goes to `inbox`.
    fn open_peers(&self, local: &Local, inbox: mpsc::Sender<PeerEvent>) -> Result<Self::PeerNet, Fault>;

    /// Asks the members at some peer URLs for their cluster and its members. `None` if none of them answers.
    fn fetch_cluster(
        &self,
        urls: Vec<String>,
    ) -> impl Future<Output = Option<(ClusterId, Vec<Member>)>> + Send;

    /// Starts a task that goes on by itself until it is done, or the member's process ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Starts a worker that may block: a thread in production, a task in the simulator. It takes what has
    /// come in since its last call, in order, at most `batch_max` at a time, until all senders are gone.
    fn spawn_worker<T: Send + 'static>(
        &self,
        name: &str,
        inbox: mpsc::UnboundedReceiver<T>,
        batch_max: usize,
        work: impl FnMut(Vec<T>) + Send + 'static,
    );
}

/// Time.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Monotonic, since some start.
    fn now(&self) -> Instant;

    /// The same in microseconds, for measures of how long things took: nothing is decided by it.
    fn micros(&self) -> u64 {
        self.now().0 * 1000
    }

    /// Wall-clock milliseconds since 1970, for ids and texts only: nothing is decided by it.
    fn unix_millis(&self) -> u64;

    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// Randomness.
pub trait Entropy: Clone + Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// Links to the other members. Sending never blocks: each peer's queue is bounded and drops.
pub trait PeerNet: Clone + Send + Sync + 'static {
    /// Queues messages, which are lost if the link is down or its queue full.
    fn send(&self, messages: Vec<Message>);

    /// Starts links to a member, or points them to its new URLs.
    fn add_peer(&self, id: NodeId, urls: Vec<String>);

    /// Ends the links to a member.
    fn remove_peer(&self, id: NodeId);

    /// Sends a snapshot with its body, a file that the node wrote; reports back as [`PeerEvent::SnapshotSent`].
    fn send_snapshot(&self, to: NodeId, message: Message, body: PathBuf);

    /// Since when each peer is connected; None for one that is not.
    fn active_since(&self, id: NodeId) -> Option<Instant>;

    /// Asks a peer for what only a leader can do. None if no answer came.
    fn ask(
        &self,
        id: NodeId,
        question: Question,
    ) -> impl Future<Output = Option<Result<PeerAnswer, Refusal>>> + Send;
}

/// What a member asks the leader to do for its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Renew a lease.
    RenewLease(LeaseId),
    /// Tell a lease's remaining time, and its keys if so.
    LeaseInfo(LeaseId, bool),
    /// Make a learner a voter.
    Promote(NodeId),
}

/// What a leader answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// The seconds that the renewed lease has; None if it is not there.
    Renewed(Option<i64>),
    /// The lease; None if it is not there.
    Lease(Option<LeaseInfo>),
    /// All members after the promotion.
    Members(Vec<Member>),
}

/// A lease's time to live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds left.
    pub ttl: i64,
    /// Seconds granted.
    pub granted: i64,
    /// The keys attached, sorted, if asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// What comes in from the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A message.
    Message(Message),
    /// A message could not be sent: the link is down.
    Unreachable(NodeId),
    /// A snapshot went out whole, or did not.
    SnapshotSent {
        /// To whom.
        to: NodeId,
        /// Whether the other end took it.
        ok: bool,
    },
    /// A snapshot came in; its body is durable in a file.
    SnapshotReceived {
        /// Who sent it.
        from: NodeId,
        /// Its term.
        term: crate::types::Term,
        /// What raft is to know of it.
        snapshot: Snapshot,
        /// The body.
        body: PathBuf,
    },
    /// This member was removed: a peer says so.
    Removed,
}
