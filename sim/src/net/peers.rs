//! A member's end of the network.

use std::{collections::BTreeMap, path::PathBuf, sync::MutexGuard};

use kontiki::{
    error::Refusal,
    raft::Message,
    runtime::{Clock, PeerAnswer, PeerEvent, PeerNet, Question},
    storage::{Disk, DiskFile, MemDisk, OpenMode},
    types::{Instant, NodeId},
    wire,
};

use super::{Address, Net, Peers, address_of};
use crate::{clock::SimClock, host::Host, lock::lock};

/// One member's links.
#[derive(Clone)]
pub struct SimPeers<H: Host> {
    pub(super) net: Net<H>,
    pub(super) me: Address,
    pub(super) disk: MemDisk,
    pub(super) clock: SimClock<H>,
    pub(super) peers: Peers,
}

impl<H: Host> SimPeers<H> {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Address>> {
        lock(&self.peers)
    }

    fn address(&self, id: NodeId) -> Option<Address> {
        self.peers().get(&id).copied()
    }
}

impl<H: Host> PeerNet for SimPeers<H> {
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            if let Some(to) = self.address(message.to) {
                let bytes = wire::raft::encode_message(&message);
                self.net.send(self.me, to, &message, bytes);
            }
        }
    }

    fn add_peer(&self, id: NodeId, urls: Vec<String>) {
        if let Some(address) = urls.iter().find_map(|url| address_of(url)) {
            self.peers().insert(id, address);
        }
    }

    fn remove_peer(&self, id: NodeId) {
        self.peers().remove(&id);
    }

    fn send_snapshot(&self, to: NodeId, message: Message, body: PathBuf) {
        let Some(address) = self.address(to) else {
            return self.net.tell(self.me, PeerEvent::SnapshotSent { to, ok: false });
        };
        let read = || {
            let file = self.disk.open(&body, OpenMode::Read).ok()?;
            let mut contents = vec![0; file.len().ok()? as usize];
            file.read_at(0, &mut contents).ok()?;
            Some(contents)
        };
        self.net.send_snapshot(self.me, address, message, read());
    }

    fn active_since(&self, id: NodeId) -> Option<Instant> {
        let peer = self.address(id)?;
        let inner = self.net.lock();
        let endpoint = inner.endpoints.get(&peer).filter(|endpoint| endpoint.id == id)?;
        let mut since = endpoint.since;
        for ends in [(self.me, peer), (peer, self.me)] {
            if inner.links.get(&ends).unwrap_or(&inner.usual).cut {
                return None;
            }
            since = since.max(inner.healed.get(&ends).copied().unwrap_or(0));
        }
        Some(self.clock.at(since).min(self.clock.now()))
    }

    async fn ask(&self, id: NodeId, question: Question) -> Option<Result<PeerAnswer, Refusal>> {
        let to = self.address(id)?;
        self.net.ask(self.me, to, question).await
    }
}
