//! The server's seams on a simulated host.

use std::{
    future::Future,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use kontiki::{
    error::Fault,
    membership::Member,
    runtime::{Entropy, Local, PeerEvent, Runtime},
    storage::MemDisk,
    types::ClusterId,
};
use tokio::sync::mpsc;

use crate::{
    backend::SimBackend,
    clock::SimClock,
    host::{Host, Micros, Process},
    lock::lock,
    net::{Address, Net, SimPeers},
    plan::Knobs,
    rng::Rng,
};

/// Whose time it is that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// Writes the log.
    Log,
    /// Flushes and makes snapshots.
    Keeper,
    /// Works in memory.
    Other,
    /// Nobody's.
    Fast,
}

/// How fast a member's disk and workers are. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Mutex<PaceState>>);

#[derive(Clone, Debug)]
struct PaceState {
    /// What a write with its sync takes, from and to.
    sync: (Micros, Micros),
    /// What a job of the keeper takes at least, from and to.
    keeper: (Micros, Micros),
    /// How long those take who only work in memory.
    lag: (Micros, Micros),
    /// Nothing comes back before this.
    stalled_until: Micros,
}

impl Pace {
    /// A disk and workers as fast as a run's knobs say.
    pub fn new(knobs: &Knobs) -> Self {
        let Knobs { sync, keeper, lag, .. } = *knobs;
        Self(Arc::new(Mutex::new(PaceState { sync, keeper, lag, stalled_until: 0 })))
    }

    /// How long a worker takes for what lies before it, from and to, and the moment before which nothing comes of it;
    /// none if it takes no time.
    fn of(&self, worker: Worker) -> Option<(Micros, Micros, Micros)> {
        let PaceState { sync, keeper, lag, stalled_until } = self.lock().clone();
        match worker {
            Worker::Log => Some((sync.0, sync.1, stalled_until)),
            Worker::Keeper => Some((keeper.0.max(sync.0), keeper.1.max(sync.1), stalled_until)),
            Worker::Other => (lag.1 > 0).then_some((lag.0, lag.1, 0)),
            Worker::Fast => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PaceState> {
        lock(&self.0)
    }

    /// Syncs take so long from now on, from and to.
    pub fn set_sync(&self, sync: (Micros, Micros)) {
        self.lock().sync = sync;
    }

    /// Nothing comes back from the disk before a moment.
    pub fn stall(&self, until: Micros) {
        self.lock().stalled_until = until;
    }
}

/// One incarnation of one simulated member.
#[derive(Clone)]
pub struct SimRuntime<H: Host> {
    /// What runs it.
    pub host: H,
    /// Its process.
    pub process: Process,
    /// Where it is.
    pub address: Address,
    /// Its disk, which outlives it.
    pub disk: MemDisk,
    /// Its tables.
    pub backend: SimBackend,
    /// Its clock.
    pub clock: SimClock<H>,
    /// Its disk's speed.
    pub pace: Pace,
    /// The network.
    pub net: Net<H>,
    /// Its randomness.
    pub rng: Rng,
}

impl<H: Host> Runtime for SimRuntime<H> {
    type Clock = SimClock<H>;
    type Entropy = SimEntropy;
    type PeerNet = SimPeers<H>;
    type Disk = MemDisk;
    type Backend = SimBackend;

    fn clock(&self) -> SimClock<H> {
        self.clock.clone()
    }

    fn entropy(&self) -> SimEntropy {
        SimEntropy(self.rng.clone())
    }

    fn disk(&self) -> MemDisk {
        self.disk.clone()
    }

    fn open_backend(&self, _dir: &Path) -> Result<SimBackend, Fault> {
        Ok(self.backend.clone())
    }

    fn open_peers(&self, local: &Local, inbox: mpsc::Sender<PeerEvent>) -> Result<SimPeers<H>, Fault> {
        let (disk, clock) = (self.disk.clone(), self.clock.clone());
        Ok(self.net.open(self.address, self.process, local, inbox, disk, clock))
    }

    async fn fetch_cluster(&self, urls: Vec<String>) -> Option<(ClusterId, Vec<Member>)> {
        self.net.fetch_cluster(self.address, urls).await
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.host.spawn(self.process, Box::pin(task));
    }

    fn spawn_worker<T: Send + 'static>(
        &self,
        name: &str,
        mut inbox: mpsc::UnboundedReceiver<T>,
        batch_max: usize,
        mut work: impl FnMut(Vec<T>) + Send + 'static,
    ) {
        let worker = match name {
            "log" => Worker::Log,
            "keeper" => Worker::Keeper,
            "applier" | "watch" => Worker::Other,
            _ => Worker::Fast,
        };
        let (host, pace, rng) = (self.host.clone(), self.pace.clone(), self.rng.clone());
        self.spawn(async move {
            let mut batch = Vec::new();
            while inbox.recv_many(&mut batch, batch_max).await > 0 {
                // What a job takes passes before its effects: nobody sees them earlier either way.
                if let Some((low, high, not_before)) = pace.of(worker) {
                    let done = host.now() + rng.between(low, high);
                    host.sleep_until(done.max(not_before)).await;
                }
                work(std::mem::take(&mut batch));
            }
        });
    }
}

/// A member's randomness, from the seed.
#[derive(Clone, Debug)]
pub struct SimEntropy(Rng);

impl Entropy for SimEntropy {
    fn next_u64(&self) -> u64 {
        self.0.bits()
    }
}
