//! What production and the simulator do differently, as one trait of five seams.
//!
//! Production: tokio, real files, RocksDB, HTTP between peers. Simulation: madsim's tasks and time, a
//! simulated disk and backend, encoded messages over a simulated network. All else is the same code.

use std::{future::Future, time::Duration};

use tokio::sync::mpsc;

use crate::{
    raft::{Message, Snapshot},
    storage::{Backend, Disk},
    types::{Instant, NodeId},
};

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
    fn send_snapshot(&self, to: NodeId, message: Message, body: std::path::PathBuf);

    /// Since when each peer is connected; None for one that is not.
    fn active_since(&self, id: NodeId) -> Option<Instant>;
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
        body: std::path::PathBuf,
    },
    /// This member was removed: a peer says so.
    Removed,
}
