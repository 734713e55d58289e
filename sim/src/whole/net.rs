//! Links between simulated members: encoded messages as datagrams, snapshots with their bodies beside them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kontiki::{
    error::Refusal,
    raft::{Body, Message},
    runtime::{Clock, Local, PeerAnswer, PeerEvent, PeerNet, Question},
    storage::{Disk, DiskFile, MemDisk, OpenMode},
    types::{Instant, NodeId},
    wire,
};
use madsim::net::Endpoint;
use tokio::sync::mpsc;

use super::runtime::SimClock;

/// Datagrams' tags.
const MESSAGE: u64 = 1;
const SNAPSHOT: u64 = 2;

/// One member's links.
#[derive(Clone)]
pub struct SimPeers {
    inner: Arc<Inner>,
}

struct Inner {
    disk: MemDisk,
    outbox: mpsc::UnboundedSender<Out>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

struct Peer {
    addr: SocketAddr,
    since: Instant,
}

/// What the sending task sends.
enum Out {
    Messages(Vec<(SocketAddr, Vec<u8>)>),
    Snapshot(NodeId, SocketAddr, Vec<u8>),
    /// Nothing: the snapshot for this peer can't be sent.
    NoSnapshot(NodeId),
}

/// The address in a peer URL such as `http://10.0.0.1:2380`.
fn address(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("http://")?.parse().ok()
}

impl SimPeers {
    /// Binds the member's own address and starts the tasks that send and receive.
    pub fn start(local: &Local, inbox: mpsc::Sender<PeerEvent>, disk: MemDisk) -> Self {
        let addr =
            local.peer_urls.iter().find_map(|url| address(url)).expect("a simulated member has an address");
        let (outbox, out) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner { disk: disk.clone(), outbox, peers: Mutex::default() });
        tokio::spawn(run(addr, out, inbox, disk, local.snap_dir.clone()));
        Self { inner }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peer>> {
        self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(
    addr: SocketAddr,
    mut out: mpsc::UnboundedReceiver<Out>,
    inbox: mpsc::Sender<PeerEvent>,
    disk: MemDisk,
    snap_dir: PathBuf,
) {
    let endpoint = Endpoint::bind(addr).await.expect("a simulated address is free after its node was killed");
    let receiver = endpoint.clone();
    let messages = inbox.clone();
    tokio::spawn(async move {
        while let Some(bytes) = receive(&receiver, MESSAGE).await {
            // What can't be decoded is dropped, as a real link drops it.
            if let Ok(message) = wire::raft::decode_message(&*bytes) {
                let _ = messages.send(PeerEvent::Message(message)).await;
            }
        }
    });
    let receiver = endpoint.clone();
    let snapshots = inbox.clone();
    tokio::spawn(async move {
        while let Some(bytes) = receive(&receiver, SNAPSHOT).await {
            if let Some(event) = take_snapshot(&disk, &snap_dir, &bytes) {
                let _ = snapshots.send(event).await;
            }
        }
    });
    while let Some(next) = out.recv().await {
        match next {
            Out::Messages(messages) => {
                for (to, bytes) in messages {
                    let _ = endpoint.send_to_raw(to, MESSAGE, Box::new(bytes)).await;
                }
            }
            Out::NoSnapshot(to) => {
                let _ = inbox.send(PeerEvent::SnapshotSent { to, ok: false }).await;
            }
            Out::Snapshot(to, addr, bytes) => {
                let ok = endpoint.send_to_raw(addr, SNAPSHOT, Box::new(bytes)).await.is_ok();
                let _ = inbox.send(PeerEvent::SnapshotSent { to, ok }).await;
            }
        }
    }
}

/// The next datagram's bytes; None once the endpoint is gone.
async fn receive(endpoint: &Endpoint, tag: u64) -> Option<Vec<u8>> {
    let (payload, _) = endpoint.recv_from_raw(tag).await.ok()?;
    // Only `run` sends here.
    payload.downcast::<Vec<u8>>().ok().map(|bytes| *bytes)
}

/// Puts a snapshot's body on the disk, durably, and tells of it.
fn take_snapshot(disk: &MemDisk, dir: &std::path::Path, bytes: &[u8]) -> Option<PeerEvent> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (message, body) = rest.split_at_checked(u64::from_be_bytes(*len) as usize)?;
    let Message { from, term, body: Body::Snapshot(snapshot), .. } =
        wire::raft::decode_message(message).ok()?
    else {
        return None;
    };
    let path = kontiki::server::Paths::received_in(dir, snapshot.meta.last.index);
    let mut file = disk.open(&path, OpenMode::Truncate).ok()?;
    file.write_at(0, body).ok()?;
    file.sync().ok()?;
    disk.sync_dir(dir).ok()?;
    Some(PeerEvent::SnapshotReceived { from, term, snapshot, body: path })
}

impl PeerNet for SimPeers {
    fn send(&self, messages: Vec<Message>) {
        let peers = self.peers();
        let encoded = messages
            .iter()
            .filter_map(|m| peers.get(&m.to).map(|peer| (peer.addr, wire::raft::encode_message(m))))
            .collect();
        let _ = self.inner.outbox.send(Out::Messages(encoded));
    }

    fn add_peer(&self, id: NodeId, urls: Vec<String>) {
        if let Some(addr) = urls.iter().find_map(|url| address(url)) {
            self.peers().insert(id, Peer { addr, since: SimClock.now() });
        }
    }

    fn remove_peer(&self, id: NodeId) {
        self.peers().remove(&id);
    }

    fn send_snapshot(&self, to: NodeId, message: Message, body: PathBuf) {
        let addr = self.peers().get(&to).map(|peer| peer.addr);
        let bytes = addr.and_then(|_| {
            let file = self.inner.disk.open(&body, OpenMode::Read).ok()?;
            let mut contents = vec![0; file.len().ok()? as usize];
            file.read_at(0, &mut contents).ok()?;
            let message = wire::raft::encode_message(&message);
            Some([&(message.len() as u64).to_be_bytes()[..], &message, &contents].concat())
        });
        match addr.zip(bytes) {
            Some((addr, bytes)) => drop(self.inner.outbox.send(Out::Snapshot(to, addr, bytes))),
            None => drop(self.inner.outbox.send(Out::NoSnapshot(to))),
        }
    }

    fn active_since(&self, id: NodeId) -> Option<Instant> {
        self.peers().get(&id).map(|peer| peer.since)
    }

    async fn ask(&self, _id: NodeId, _question: Question) -> Option<Result<PeerAnswer, Refusal>> {
        // Questions travel over gRPC's port in production; simulated clients ask the leader themselves.
        None
    }
}
