//! The runtime of production: tokio, threads, real files, RocksDB, HTTP between peers.
//!
//! This is where wall clocks, threads and ambient randomness are allowed: everything else gets them from here.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::{
    future::Future,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{Clock, Entropy, Local, PeerEvent, Runtime};
use crate::{
    error::Fault,
    membership::Member,
    server::{
        config::COMPAT_VERSION,
        metrics::Metrics,
        peer::{self, HttpPeers},
    },
    storage::{OsDisk, RocksBackend},
    types::{ClusterId, Instant, NodeId},
};

/// The runtime of production.
#[derive(Clone)]
pub struct Production {
    clock: WallClock,
    election: Duration,
    extensive_metrics: bool,
    metrics: Arc<OnceLock<Arc<Metrics>>>,
}

impl Production {
    /// A runtime whose clock starts now. `election` is the election timeout, which bounds how long a peer is dialled.
    #[must_use]
    pub fn new(election: Duration, extensive_metrics: bool) -> Self {
        let clock = WallClock { start: std::time::Instant::now() };
        Self { clock, election, extensive_metrics, metrics: Arc::default() }
    }

    /// What is counted, for the member `id`; the same for all who ask.
    pub fn metrics(&self, id: NodeId) -> Arc<Metrics> {
        let new = || Arc::new(Metrics::new(id, COMPAT_VERSION, self.extensive_metrics));
        self.metrics.get_or_init(new).clone()
    }
}

impl Runtime for Production {
    type Clock = WallClock;
    type Entropy = OsEntropy;
    type PeerNet = HttpPeers;
    type Disk = OsDisk;
    type Backend = RocksBackend;

    fn clock(&self) -> WallClock {
        self.clock.clone()
    }

    fn entropy(&self) -> OsEntropy {
        OsEntropy
    }

    fn disk(&self) -> OsDisk {
        OsDisk
    }

    fn open_backend(&self, dir: &Path) -> Result<RocksBackend, Fault> {
        RocksBackend::open(dir, &Default::default())
    }

    fn open_peers(&self, local: &Local, inbox: mpsc::Sender<PeerEvent>) -> Result<HttpPeers, Fault> {
        let clock = self.clock.clone();
        let own = peer::Local {
            id: local.id,
            cluster: local.cluster,
            peer_urls: local.peer_urls.clone(),
            server_version: COMPAT_VERSION.to_owned(),
            // etcd's rule.
            dial_timeout: Duration::from_secs(1) + self.election,
            link_timeout: Duration::from_secs(5),
            snapshot_dir: local.snap_dir.clone(),
            takes_etcd_snapshots: false,
            now: Arc::new(move || clock.now()),
        };
        Ok(HttpPeers::new(own, inbox, self.metrics(local.id)))
    }

    async fn fetch_cluster(&self, urls: Vec<String>) -> Option<(ClusterId, Vec<Member>)> {
        let view = peer::cluster_members(&urls, Duration::from_secs(10)).await.ok()?;
        Some((view.cluster, view.members))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn spawn_worker<T: Send + 'static>(
        &self,
        name: &str,
        mut inbox: mpsc::UnboundedReceiver<T>,
        batch_max: usize,
        mut work: impl FnMut(Vec<T>) + Send + 'static,
    ) {
        let run = move || {
            while let Some(first) = inbox.blocking_recv() {
                let mut batch = vec![first];
                while batch.len() < batch_max
                    && let Ok(next) = inbox.try_recv()
                {
                    batch.push(next);
                }
                work(batch);
            }
        };
        std::thread::Builder::new()
            .name(name.to_string())
            .spawn(run)
            .expect("a process that can't start its few threads can't run");
    }
}

/// Time since the process started, from the system's monotonic clock.
#[derive(Clone, Debug)]
pub struct WallClock {
    start: std::time::Instant,
}

impl Clock for WallClock {
    fn now(&self) -> Instant {
        Instant(self.start.elapsed().as_millis() as u64)
    }

    fn micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn unix_millis(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| d.as_millis() as u64)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The system's randomness.
#[derive(Clone, Copy, Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
