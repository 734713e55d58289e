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

/// The largest datagram that is taken.
const DATAGRAM_BYTES_MAX: usize = 64 << 20;

/// One member's links.
#[derive(Clone)]
pub struct SimPeers {
    inner: Arc<Inner>,
}

struct Inner {
    disk: MemDisk,
    inbox: mpsc::Sender<PeerEvent>,
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
        let inner =
            Arc::new(Inner { disk: disk.clone(), inbox: inbox.clone(), outbox, peers: Mutex::default() });
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
        let mut buf = vec![0; DATAGRAM_BYTES_MAX];
        while let Ok((len, _)) = receiver.recv_from(MESSAGE, &mut buf).await {
            // What can't be decoded is dropped, as a real link drops it.
            if let Ok(message) = wire::raft::decode_message(&buf[..len]) {
                let _ = messages.send(PeerEvent::Message(message));
            }
        }
    });
    let receiver = endpoint.clone();
    let snapshots = inbox.clone();
    tokio::spawn(async move {
        let mut buf = vec![0; DATAGRAM_BYTES_MAX];
        while let Ok((len, _)) = receiver.recv_from(SNAPSHOT, &mut buf).await {
            if let Some(event) = take_snapshot(&disk, &snap_dir, &buf[..len]) {
                let _ = snapshots.send(event);
            }
        }
    });
    while let Some(next) = out.recv().await {
        match next {
            Out::Messages(messages) => {
                for (to, bytes) in messages {
                    let _ = endpoint.send_to(to, MESSAGE, &bytes).await;
                }
            }
            Out::Snapshot(to, addr, bytes) => {
                let ok = endpoint.send_to(addr, SNAPSHOT, &bytes).await.is_ok();
                let _ = inbox.send(PeerEvent::SnapshotSent { to, ok });
            }
        }
    }
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
            None => drop(self.inner.inbox.send(PeerEvent::SnapshotSent { to, ok: false })),
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
