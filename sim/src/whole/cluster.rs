//! A simulated cluster: members on addresses of their own, each with a disk and tables that outlive it.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use kontiki::{
    server::{self, Handle, Options},
    storage::{Backend, MemBackend, MemDisk},
    table::{Batch, Scan, Table, Tables},
};
use madsim::{
    rand::{Rng, thread_rng},
    task::NodeId,
};
use tokio::sync::{oneshot, watch};

use super::runtime::SimRuntime;

/// A cluster of simulated members, numbered from 1.
pub struct Cluster {
    members: Vec<Member>,
    urls: BTreeMap<String, Vec<String>>,
}

struct Member {
    name: String,
    node: NodeId,
    disk: MemDisk,
    backend: MemBackend,
    /// Keeps the incarnation that runs alive; None while it is down.
    running: Option<Incarnation>,
}

struct Incarnation {
    handle: Handle<SimRuntime>,
    _stop: oneshot::Sender<()>,
    exited: watch::Receiver<Option<String>>,
}

fn url(number: usize) -> String {
    format!("http://10.0.0.{number}:2380")
}

impl Cluster {
    /// Starts `count` members of a new cluster.
    pub async fn start(count: usize) -> Self {
        let urls = (1..=count).map(|n| (format!("m{n}"), vec![url(n)])).collect();
        let members = (1..=count)
            .map(|n| Member {
                name: format!("m{n}"),
                node: madsim::runtime::Handle::current()
                    .create_node()
                    .name(format!("m{n}"))
                    .ip([10, 0, 0, n as u8].into())
                    .build()
                    .id(),
                disk: MemDisk::new(),
                backend: MemBackend::new(),
                running: None,
            })
            .collect();
        let mut cluster = Self { members, urls };
        for number in 1..=count {
            cluster.restart(number).await;
        }
        cluster
    }

    /// The numbers of all members.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.members.len()
    }

    /// A member that runs.
    ///
    /// # Panics
    /// If it is down.
    pub fn handle(&self, number: usize) -> &Handle<SimRuntime> {
        let running = self.members[number - 1].running.as_ref();
        &running.expect("the member is up").handle
    }

    /// Why a member stopped by itself; None if it runs, or was crashed.
    pub fn exited(&self, number: usize) -> Option<String> {
        self.members[number - 1].running.as_ref()?.exited.borrow().clone()
    }

    /// Crashes a member: what its disk had not made durable is lost in part, and its tables keep a prefix of what
    /// they had not flushed.
    pub fn crash(&mut self, number: usize) {
        let member = &mut self.members[number - 1];
        madsim::runtime::Handle::current().kill(member.node);
        member.running = None;
        member.disk.crash(|choices| thread_rng().gen_range(0..choices));
        let keep = thread_rng().gen_range(0..=member.backend.unflushed());
        member.backend = member.backend.crash(keep);
    }

    /// Takes the oldest key-value from the tables of a member that is down, as a broken disk might.
    ///
    /// # Panics
    /// If it has none.
    pub fn spoil(&mut self, number: usize) {
        let backend = &self.members[number - 1].backend;
        let mut oldest = None;
        let look = &mut |key: &[u8], _: &[u8]| {
            oldest = Some(Bytes::copy_from_slice(key));
            Scan::Stop
        };
        backend.scan(Table::Rev, b"", None, look).expect("tables in memory can be read");
        let mut batch = Batch::default();
        batch.delete(Table::Rev, oldest.expect("it holds a key-value"));
        backend.write(batch).expect("tables in memory can be written");
    }

    /// Starts a member that is down.
    ///
    /// # Panics
    /// If what its disk holds does not let it start: the disk loses nothing that was synced.
    pub async fn restart(&mut self, number: usize) {
        let member = &mut self.members[number - 1];
        let madsim = madsim::runtime::Handle::current();
        madsim.restart(member.node);
        // A handle from before the restart spawns onto what was killed.
        let node = madsim.get_node(member.node).expect("nodes are never removed");
        let runtime = SimRuntime::new(member.disk.clone(), member.backend.clone());
        let options = Options {
            peer_urls: vec![url(number)],
            client_urls: vec![format!("http://10.0.0.{number}:2379")],
            cluster: self.urls.clone(),
            snapshot_entries: 50,
            catchup_entries: 20,
            ..Options::new(&member.name, PathBuf::from("/data"))
        };
        let (started, incarnation) = oneshot::channel();
        node.spawn(async move {
            let mut running = server::start(runtime, options).await.expect("the member starts");
            let (stop, stopped) = oneshot::channel();
            let (exits, exited) = watch::channel(None);
            let handle = running.handle.clone();
            drop(started.send(Incarnation { handle, _stop: stop, exited }));
            tokio::select! {
                biased;
                exit = running.exit() => drop(exits.send(Some(format!("{exit:?}")))),
                _ = stopped => {}
            }
        });
        member.running = Some(incarnation.await.expect("a member that starts says so"));
    }
}
