//! The runtime seams on madsim.

use std::{
    future::Future,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kontiki::{
    error::Fault,
    membership::Member,
    runtime::{Clock, Entropy, Local, PeerEvent, Runtime},
    storage::{MemBackend, MemDisk},
    types::{ClusterId, Instant},
};
use madsim::rand::{Rng, thread_rng};
use tokio::sync::mpsc;

use super::net::SimPeers;

/// How long a job of a worker takes: what an fsync or a flush costs on a good disk.
const WORK: Duration = Duration::from_micros(500);

/// One incarnation of one simulated member.
#[derive(Clone)]
pub struct SimRuntime {
    disk: MemDisk,
    backend: Arc<Mutex<MemBackend>>,
}

impl SimRuntime {
    /// On a disk and tables that outlive it.
    pub fn new(disk: MemDisk, backend: MemBackend) -> Self {
        Self { disk, backend: Arc::new(Mutex::new(backend)) }
    }
}

impl Runtime for SimRuntime {
    type Clock = SimClock;
    type Entropy = SimEntropy;
    type PeerNet = SimPeers;
    type Disk = MemDisk;
    type Backend = MemBackend;

    fn clock(&self) -> SimClock {
        SimClock
    }

    fn entropy(&self) -> SimEntropy {
        SimEntropy
    }

    fn disk(&self) -> MemDisk {
        self.disk.clone()
    }

    fn open_backend(&self, _dir: &Path) -> Result<MemBackend, Fault> {
        Ok(self.backend.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn open_peers(&self, local: &Local, inbox: mpsc::Sender<PeerEvent>) -> Result<SimPeers, Fault> {
        Ok(SimPeers::start(local, inbox, self.disk.clone()))
    }

    async fn fetch_cluster(&self, _urls: Vec<String>) -> Option<(ClusterId, Vec<Member>)> {
        None
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn spawn_worker<T: Send + 'static>(
        &self,
        _name: &str,
        mut inbox: mpsc::UnboundedReceiver<T>,
        batch_max: usize,
        mut work: impl FnMut(Vec<T>) + Send + 'static,
    ) {
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while inbox.recv_many(&mut batch, batch_max).await > 0 {
                madsim::time::sleep(WORK).await;
                work(std::mem::take(&mut batch));
            }
        });
    }
}

/// madsim's virtual time.
#[derive(Clone, Copy, Debug)]
pub struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant(madsim::time::TimeHandle::current().elapsed().as_millis() as u64)
    }

    fn unix_millis(&self) -> u64 {
        let since = madsim::time::TimeHandle::current().now_time().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| d.as_millis() as u64)
    }

    async fn sleep(&self, duration: Duration) {
        madsim::time::sleep(duration).await;
    }
}

/// madsim's seeded randomness.
#[derive(Clone, Copy, Debug)]
pub struct SimEntropy;

impl Entropy for SimEntropy {
    fn next_u64(&self) -> u64 {
        thread_rng().r#gen()
    }
}
