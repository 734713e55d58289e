//! A member that has links alone, and a client that speaks HTTP/1.1 by hand.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use kontiki::{
    error::Refusal,
    membership::Member,
    raft::Message,
    runtime::{PeerEvent, PeerNet},
    server::{
        LeaseInfo,
        http::Versions,
        listen::{ServeOptions, serve},
        metrics::Metrics,
        peer::{HashKv, HttpPeers, Local, PeerService, peer_router},
    },
    types::{ClusterId, Instant, LeaseId, NodeId, Revision},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub const CLUSTER: ClusterId = ClusterId(0xc1);
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What members ask each other, answered from constants.
pub struct Answers;

#[tonic::async_trait]
impl PeerService for Answers {
    fn versions(&self) -> Versions {
        Versions { server: "3.5.1".into(), cluster: Some("3.5.0".into()), storage: None }
    }

    fn members(&self) -> Vec<Member> {
        let member = |id: u64, learner| Member {
            id: NodeId(id),
            name: format!("n{id}"),
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            client_urls: vec![],
            learner,
        };
        vec![member(9, true), member(4, false)]
    }

    async fn promote(&self, id: NodeId) -> Result<Vec<Member>, Refusal> {
        match id.0 {
            9 => Ok(self.members()),
            4 => Err(Refusal::MemberNotLearner),
            5 => Err(Refusal::LearnerNotReady),
            6 => Err(Refusal::NoLeader),
            _ => Err(Refusal::MemberNotFound),
        }
    }

    async fn renew_leases(&self, ids: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Refusal> {
        if ids.contains(&LeaseId(6)) {
            std::future::pending::<()>().await;
        }
        Ok(ids.into_iter().map(|id| (id.0 < 0).then_some(72 - id.0)).collect())
    }

    async fn lease_info(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, Refusal> {
        match id.0 {
            -5 => Ok(LeaseInfo { ttl: 3, granted: 10, keys: if keys { vec!["a".into()] } else { vec![] } }),
            _ => Err(Refusal::LeaseNotFound),
        }
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Refusal> {
        match revision.0 {
            9 => Err(Refusal::FutureRevision),
            _ => Ok(HashKv { hash: 12, revision: Revision(7), compact_revision: revision }),
        }
    }

    async fn downgrade_enabled(&self) -> Result<bool, Refusal> {
        Ok(false)
    }
}

/// A member's links, its port and what came in.
pub struct Node {
    pub peers: HttpPeers,
    pub events: mpsc::Receiver<PeerEvent>,
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

pub async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free")
}

impl Node {
    /// Port 0 is any.
    pub async fn start(id: u64, cluster: ClusterId, port: u16, dir: &Path) -> Self {
        Self::start_with(id, cluster, port, dir, Duration::from_secs(5)).await
    }

    /// `link` is how long a silent link is waited for.
    pub async fn start_with(id: u64, cluster: ClusterId, port: u16, dir: &Path, link: Duration) -> Self {
        let listener = listen(port).await;
        let address = listener.local_addr().expect("it is bound");
        let start = StdInstant::now();
        let local = Local {
            id: NodeId(id),
            cluster,
            peer_urls: vec![format!("http://{address}")],
            server_version: "3.5.1".into(),
            dial_timeout: Duration::from_secs(2),
            link_timeout: link,
            snapshot_dir: dir.to_owned(),
            takes_etcd_snapshots: false,
            now: Arc::new(move || Instant(1 + start.elapsed().as_millis() as u64)),
        };
        let (sender, events) = mpsc::channel(4096);
        let metrics = Arc::new(Metrics::new(NodeId(id), "3.5.1", false));
        let peers = HttpPeers::new(local, sender, Arc::clone(&metrics));
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions {
            write_timeout: Some(Duration::from_secs(5)),
            grace: Duration::from_millis(10),
            ..Default::default()
        };
        let router = peer_router(&peers, Arc::new(Answers));
        let serving = tokio::spawn(serve(listener, router, options, async { drop(stopped.await) }));
        Self { peers, events, address, metrics, stop, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it; its port is free afterwards.
    pub async fn end(self) {
        self.peers.stop();
        let _ = self.stop.send(());
        self.serving.await.expect("it serves without a panic");
    }

    /// The next event that is no report of trouble.
    pub async fn event(&mut self) -> PeerEvent {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event comes");
            match event.expect("the links live") {
                PeerEvent::Unreachable(_) => {}
                event => return event,
            }
        }
    }

    /// The next message.
    pub async fn message(&mut self) -> Message {
        match self.event().await {
            PeerEvent::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    pub async fn connected(&self, id: u64) {
        eventually("connected", || self.peers.active_since(NodeId(id)).is_some()).await;
    }
}

/// Waits for a condition that nothing announces.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An answer, with its head's lines as they came.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn has(&self, line: &str) -> bool {
        self.head.lines().any(|head| head == line)
    }
}

/// Sends `head` lines and a body over a connection of its own and reads the whole answer.
pub async fn raw(address: SocketAddr, start: &str, headers: &[(&str, &str)], body: &str) -> Raw {
    raw_bytes(address, start, headers, body.as_bytes()).await
}

/// [`raw`] with a body that is no text.
pub async fn raw_bytes(address: SocketAddr, start: &str, headers: &[(&str, &str)], body: &[u8]) -> Raw {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut text = format!("{start} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let bytes = [text.as_bytes(), body].concat();
    stream.write_all(&bytes).await.expect("it reads");
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    tokio::time::timeout(PATIENCE, reading).await.expect("it answers").expect("it answers whole");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Raw { status, head: head.to_owned(), body: body.to_owned() }
}
