//! Links to the other members over etcd's peer protocol (`contract/disk.md`, section 6).
//!
//! Each member dials two long GETs to every other, and what the other has to say comes down them: appends on
//! one, all else on the other, so that a heartbeat never waits behind entries. What a member has to say goes
//! into the response bodies of the GETs that the others dialled to it, or, while there is none, out by POST.
//! A snapshot has a POST and a connection of its own.
//!
//! ```text
//!              GET /raft/stream/message/A  ◀──────── dialled by A (receive.rs)
//!   member B   GET /raft/stream/msgapp/A   ◀────────                           member A
//!   serve.rs ──┐
//!   link.rs    └─ lane ▷▷▷ frames ▷▷▷ response body ─────────────────────────▶ frames ▷ PeerEvent
//!   post.rs    ── POST /raft (no stream up) ──────────────────────────────────▶
//!   snapshot.rs ─ POST /raft/snapshot ────────────────────────────────────────▶ file ▷ PeerEvent
//!   renew.rs ──── POST /leases ───────────────────────────────────────────────▶ the leader's clock
//! ```
//!
//! Invariants: sending never blocks; a queue is bounded by messages and by bytes, and what it has no room
//! for is dropped and reported as [`PeerEvent::Unreachable`]; no more than one stream of a kind is up per
//! peer, the newest; nothing of another cluster or of a removed member comes through; a received snapshot is
//! durable under its final name before anyone hears of it.
//!
//! Left out: TLS, and etcd's snapshots without a body (v2 store).

mod client;
mod dial;
mod frames;
mod link;
mod post;
mod receive;
mod renew;
mod serve;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

pub use client::{ClientError, ClusterView, Renewer, cluster_members, lease_info_on, promote_on, version_of};
pub use frames::{FRAME_BYTES_MAX, Frame, FrameError, FrameReader, FrameWriter, StreamKind};
use link::Peer;
pub use serve::{HashKv, PeerService, peer_router};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    error::Refusal,
    raft::{Body, Message},
    runtime::{PeerAnswer, PeerEvent, PeerNet, Question},
    server::metrics::Metrics,
    types::{ClusterId, Instant, NodeId},
};

/// The most unknown senders that are answered while this member catches up with the roster.
const REMOTES_MAX: usize = 16;

/// The most snapshots received at once.
const SNAPSHOT_RECEIVES_MAX: usize = 2;

/// This member, for its links.
#[derive(Clone)]
pub struct Local {
    /// Its id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Where its peers reach it (`--initial-advertise-peer-urls`).
    pub peer_urls: Vec<String>,
    /// The version of etcd that it stands for, `3.5.21` form.
    pub server_version: String,
    /// How long opening a connection may take: a second and an election timeout, as in etcd.
    pub dial_timeout: Duration,
    /// How long a link's read or write waits at most: etcd's `--raft-read-timeout`, 5 s and no less, since the
    /// other end says only every 5 s / 3 that it lives.
    pub link_timeout: Duration,
    /// Where received snapshots' bodies are kept; it exists.
    pub snapshot_dir: PathBuf,
    /// Whether a body that etcd sends (a bbolt file) is taken too, as `INDEX.snap.db`; else it is refused.
    pub takes_etcd_snapshots: bool,
    /// The node's clock.
    pub now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

/// Whom this member knows.
#[derive(Default)]
struct Table {
    peers: BTreeMap<NodeId, Arc<Peer>>,
    /// Senders that are not of the roster (yet); they are answered by POST.
    remotes: BTreeMap<NodeId, Arc<Peer>>,
    removed: BTreeSet<NodeId>,
}

pub(super) struct Shared {
    local: Local,
    events: mpsc::Sender<PeerEvent>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    table: RwLock<Table>,
    receives: tokio::sync::Semaphore,
}

impl Shared {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.read().removed.contains(&id)
    }

    fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.read().peers.get(&id).cloned()
    }

    /// A peer, or a sender that is none yet.
    fn target(&self, id: NodeId) -> Option<Arc<Peer>> {
        let table = self.read();
        table.peers.get(&id).or_else(|| table.remotes.get(&id)).cloned()
    }

    /// Remembers an unknown sender by the URLs that it shows, so that it can be answered.
    fn add_remote(self: &Arc<Self>, id: NodeId, urls: &str) {
        let urls: Vec<String> = urls.split(',').filter(|url| !url.is_empty()).map(Into::into).collect();
        let mut table = self.write();
        let known = id.0 == 0
            || id == self.local.id
            || table.peers.contains_key(&id)
            || table.remotes.contains_key(&id)
            || table.removed.contains(&id);
        if known || urls.is_empty() || table.remotes.len() >= REMOTES_MAX {
            return;
        }
        tracing::info!(%id, ?urls, "an unknown sender shows its URLs; it is answered until the roster has it");
        table.remotes.insert(id, Peer::start(self, id, urls, false));
    }

    /// Reports what may be lost: a report that finds no room is one of many.
    fn report(&self, event: PeerEvent) {
        drop(self.events.try_send(event));
    }

    /// Reports what must not be lost; waits for room.
    async fn deliver(&self, event: PeerEvent) {
        drop(self.events.send(event).await);
    }
}

/// The links. Cheap to clone.
#[derive(Clone)]
pub struct HttpPeers {
    shared: Arc<Shared>,
}

impl HttpPeers {
    /// Links without peers yet; to be called within a tokio runtime, which runs them. What comes in goes to
    /// `events`; while that has no room the links wait, and what the others send piles up on their side.
    pub fn new(local: Local, events: mpsc::Sender<PeerEvent>, metrics: Arc<Metrics>) -> Self {
        let shared = Shared {
            local,
            events,
            metrics,
            runtime: Handle::current(),
            table: RwLock::default(),
            receives: tokio::sync::Semaphore::new(SNAPSHOT_RECEIVES_MAX),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Names the members that were removed before: they are told so when they come.
    pub fn set_removed(&self, ids: impl IntoIterator<Item = NodeId>) {
        self.shared.write().removed.extend(ids);
    }

    /// Whether a peer takes Kontiki's snapshot bodies, as its streams say.
    pub fn takes_kontiki_snapshots(&self, id: NodeId) -> bool {
        self.shared.target(id).is_some_and(|peer| peer.is_kontiki())
    }

    /// Ends all links. Those who dial in are served until the listener ends.
    pub fn stop(&self) {
        let mut table = self.shared.write();
        let peers = std::mem::take(&mut table.peers);
        let remotes = std::mem::take(&mut table.remotes);
        drop(table);
        for peer in peers.into_values().chain(remotes.into_values()) {
            peer.stop(&self.shared);
        }
    }
}

impl PeerNet for HttpPeers {
    fn send(&self, messages: Vec<Message>) {
        let mut failed = BTreeSet::new();
        let table = self.shared.read();
        for message in newest_acknowledgements(messages) {
            let to = message.to;
            let peer = table.peers.get(&to).or_else(|| table.remotes.get(&to));
            let Some(peer) = peer else { continue };
            if !peer.offer(message) {
                peer.counters.sent_failures.inc();
                failed.insert(to);
            }
        }
        drop(table);
        for id in failed {
            self.shared.report(PeerEvent::Unreachable(id));
        }
    }

    fn add_peer(&self, id: NodeId, urls: Vec<String>) {
        if id == self.shared.local.id || urls.is_empty() {
            return;
        }
        let mut table = self.shared.write();
        if let Some(peer) = table.peers.get(&id) {
            peer.set_urls(urls);
            return;
        }
        table.removed.remove(&id);
        let remote = table.remotes.remove(&id);
        table.peers.insert(id, Peer::start(&self.shared, id, urls, true));
        drop(table);
        if let Some(remote) = remote {
            remote.stop(&self.shared);
        }
    }

    fn remove_peer(&self, id: NodeId) {
        let mut table = self.shared.write();
        table.removed.insert(id);
        let links = [table.peers.remove(&id), table.remotes.remove(&id)];
        drop(table);
        for peer in links.into_iter().flatten() {
            peer.stop(&self.shared);
        }
    }

    fn send_snapshot(&self, to: NodeId, message: Message, body: PathBuf) {
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move {
            let ok = snapshot::send(&shared, to, message, body).await;
            shared.deliver(PeerEvent::SnapshotSent { to, ok }).await;
        });
    }

    fn active_since(&self, id: NodeId) -> Option<Instant> {
        self.shared.peer(id)?.active_since()
    }

    async fn ask(&self, id: NodeId, question: Question) -> Option<Result<PeerAnswer, Refusal>> {
        let urls = self.shared.peer(id)?.urls();
        let answer = match question {
            Question::RenewLease(lease) => {
                let (waiter, renewed) = oneshot::channel();
                self.shared.peer(id)?.renewals.try_send((lease, waiter)).ok()?;
                let renewed = tokio::time::timeout(ASK_TIMEOUT, renewed).await.ok()?.ok()?;
                return Some(renewed.map(PeerAnswer::Renewed));
            }
            Question::LeaseInfo(lease, keys) => match lease_info_on(&urls, lease, keys, ASK_TIMEOUT).await {
                Err(ClientError::Refused(Refusal::LeaseNotFound)) => Ok(PeerAnswer::Lease(None)),
                info => info.map(|info| PeerAnswer::Lease(Some(info))),
            },
            Question::Promote(learner) => {
                promote_on(&urls, learner, ASK_TIMEOUT).await.map(PeerAnswer::Members)
            }
        };
        match answer {
            Ok(answer) => Some(Ok(answer)),
            Err(ClientError::Refused(refusal)) => Some(Err(refusal)),
            Err(ClientError::Unreachable { url, error }) => {
                tracing::debug!(%id, url, %error, "a peer gave no answer");
                None
            }
        }
    }
}

/// How long a peer may take to answer for the leader; the question is asked again after it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Of the acknowledgements to one peer in one term, the newest says all: the log matches up to there.
fn newest_acknowledgements(mut messages: Vec<Message>) -> Vec<Message> {
    let accepted = |message: &Message| matches!(message.body, Body::AppendAccepted { .. });
    if messages.iter().filter(|message| accepted(message)).count() < 2 {
        return messages;
    }
    let mut newest = BTreeMap::new();
    for message in &messages {
        if let Body::AppendAccepted { matched } = message.body {
            let best = newest.entry((message.to, message.term)).or_insert(matched);
            *best = matched.max(*best);
        }
    }
    messages.retain(|message| match message.body {
        Body::AppendAccepted { matched } => {
            let key = (message.to, message.term);
            // The first of equals stays.
            newest.get(&key) == Some(&matched) && newest.remove(&key).is_some()
        }
        Body::Propose { .. }
        | Body::Append { .. }
        | Body::AppendRejected { .. }
        | Body::Vote { .. }
        | Body::VoteReply { .. }
        | Body::Snapshot(_)
        | Body::Heartbeat { .. }
        | Body::HeartbeatReply { .. }
        | Body::TransferLeader { .. }
        | Body::TimeoutNow
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => true,
    });
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, Term};

    #[test]
    fn only_the_newest_acknowledgement_of_a_batch_goes_out() {
        let message = |to, term, body| Message { from: NodeId(1), to: NodeId(to), term: Term(term), body };
        let accepted = |index| Body::AppendAccepted { matched: Index(index) };
        let sent = vec![
            message(2, 1, accepted(4)),
            message(3, 1, accepted(4)),
            message(2, 1, Body::TimeoutNow),
            message(2, 1, accepted(6)),
            message(2, 2, accepted(5)),
            message(2, 1, accepted(6)),
        ];
        let kept = newest_acknowledgements(sent);
        let expected = [
            message(3, 1, accepted(4)),
            message(2, 1, Body::TimeoutNow),
            message(2, 1, accepted(6)),
            message(2, 2, accepted(5)),
        ];
        assert_eq!(kept, expected);
    }
}
