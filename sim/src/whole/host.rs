//! madsim as a host: a node for each address.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use kontiki::{
    server::api::{Api, Member},
    wire::etcdserverpb as pb,
};
use madsim::{
    Config,
    runtime::{Handle, NodeHandle, Runtime},
    time::TimeHandle,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::grpc;
use crate::{
    history::{Call, Reply},
    host::{Host, Micros, Process, Work},
    lock::lock,
    net::Address,
};

/// Runs `main` on a runtime of its own, in this thread.
pub fn run<T>(seed: u64, main: impl Future<Output = T>) -> T {
    Runtime::with_seed_and_config(seed, Config::default()).block_on(main)
}

/// madsim's runtime. Clones are the same one.
#[derive(Clone)]
pub struct MadsimHost {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    world: NodeHandle,
    /// Each address has one node, which is restarted for each process.
    nodes: BTreeMap<Address, NodeHandle>,
    /// Where the processes are that have not ended.
    processes: BTreeMap<Process, Address>,
    next: u32,
}

fn node(name: &str, ip: [u8; 4]) -> NodeHandle {
    Handle::current().create_node().name(name).ip(ip.into()).build()
}

impl Default for MadsimHost {
    fn default() -> Self {
        Self::new()
    }
}

impl MadsimHost {
    /// In the runtime that this is called in.
    pub fn new() -> Self {
        let inner = Inner {
            world: node("clients", [10, 0, 1, 1]),
            nodes: BTreeMap::new(),
            processes: BTreeMap::new(),
            next: 1,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    fn node_of(&self, process: Process) -> Option<NodeHandle> {
        let inner = self.lock();
        let address = inner.processes.get(&process)?;
        inner.nodes.get(address).cloned()
    }
}

impl Host for MadsimHost {
    fn now(&self) -> Micros {
        TimeHandle::current().elapsed().as_micros() as Micros
    }

    #[allow(clippy::manual_async_fn, reason = "an async fn would borrow the host for as long")]
    fn sleep_until(&self, at: Micros) -> impl Future<Output = ()> + Send + 'static {
        async move {
            let now = TimeHandle::current().elapsed().as_micros() as Micros;
            if at > now {
                madsim::time::sleep(Duration::from_micros(at - now)).await;
            }
        }
    }

    fn at(&self, at: Micros, act: Box<dyn FnOnce() + Send>) {
        let sleep = self.sleep_until(at);
        self.spawn(
            Process::WORLD,
            Box::pin(async move {
                sleep.await;
                act();
            }),
        );
    }

    fn start(&self, address: Address) -> Process {
        let mut inner = self.lock();
        let process = Process(inner.next);
        inner.next += 1;
        let known = inner.nodes.get(&address).map(NodeHandle::id);
        let fresh = match known {
            // A handle from before the restart spawns onto what was killed.
            Some(id) => {
                Handle::current().kill(id);
                Handle::current().restart(id);
                Handle::current().get_node(id).expect("nodes are never removed")
            }
            None => node(&format!("m{address}"), [10, 0, 0, address as u8]),
        };
        inner.nodes.insert(address, fresh);
        inner.processes.insert(process, address);
        process
    }

    fn spawn(&self, process: Process, work: Work) {
        let node =
            if process == Process::WORLD { Some(self.lock().world.clone()) } else { self.node_of(process) };
        if let Some(node) = node {
            drop(node.spawn(work));
        }
    }

    fn kill(&self, process: Process) {
        if let Some(node) = self.node_of(process) {
            self.lock().processes.remove(&process);
            Handle::current().kill(node.id());
        }
    }

    fn pause(&self, process: Process, paused: bool) {
        if let Some(node) = self.node_of(process) {
            let runtime = Handle::current();
            if paused { runtime.pause(node.id()) } else { runtime.resume(node.id()) }
        }
    }

    fn serve<M: Member>(&self, process: Process, address: Address, api: Api<M>) {
        self.spawn(process, Box::pin(grpc::serve(address, api)));
    }

    async fn call<M: Member>(
        &self,
        _process: Process,
        address: Address,
        _api: Api<M>,
        call: Call,
        token: Option<String>,
    ) -> Result<Reply, Status> {
        grpc::call(address, call, token).await
    }

    fn watch<M: Member>(
        &self,
        _process: Process,
        address: Address,
        _api: Api<M>,
        token: Option<String>,
        requests: mpsc::UnboundedReceiver<pb::WatchRequest>,
        responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    ) {
        self.spawn(Process::WORLD, Box::pin(grpc::watch(address, token, requests, responses)));
    }
}
