//! Snapshots on their way: what raft is to know of them, with their bodies beside it.

use kontiki::{
    raft::{Body, Message},
    runtime::PeerEvent,
    server::Paths,
    storage::{Disk, DiskFile, OpenMode},
};

use super::{Address, Net};
use crate::{host::Host, plan::Moment};

/// Bytes of a snapshot that travel in a microsecond.
const BYTES_PER_MICRO: u64 = 100;

impl<H: Host> Net<H> {
    pub(super) fn send_snapshot(&self, from: Address, to: Address, message: Message, body: Option<Vec<u8>>) {
        let link = self.link(from, to);
        let number = self.probe.sent(from, to, &message);
        (self.on_message)(&message);
        self.moments.come(Moment::SendsSnapshot, from);
        let size = body.as_ref().map_or(0, |body| body.len() as u64);
        let sent = self.host.now();
        let arrives = || sent + self.delay(link) + size / BYTES_PER_MICRO;
        let at = arrives();
        let lost = link.cut || self.rng.chance(link.loss);
        // One whose sender takes it for lost comes again.
        if let Some(body) = body.clone().filter(|_| !lost && self.rng.chance(link.twice)) {
            let (net, message) = (self.clone(), message.clone());
            let again = move || {
                if !net.lock().has_lost(from, to, sent) {
                    net.take_snapshot(to, &message, &body);
                }
            };
            self.host.at(arrives(), Box::new(again));
        }
        let net = self.clone();
        let act = move || {
            let lost = lost || net.lock().has_lost(from, to, sent);
            let taken = !lost && body.is_some_and(|body| net.take_snapshot(to, &message, &body));
            if taken {
                net.probe.delivered(number, to, &[])
            } else {
                net.probe.lost(number)
            }
            // The answer may get lost where the snapshot did not.
            let back = net.link(to, from);
            let ok = taken && !back.cut && !net.rng.chance(back.loss);
            net.tell(from, PeerEvent::SnapshotSent { to: message.to, ok });
        };
        self.host.at(at, Box::new(act));
    }

    /// Puts a snapshot's body on the receiver's disk, durably, and tells it.
    fn take_snapshot(&self, to: Address, message: &Message, body: &[u8]) -> bool {
        let place = {
            let inner = self.lock();
            let endpoint = inner.endpoints.get(&to).filter(|endpoint| endpoint.id == message.to);
            endpoint.map(|endpoint| (endpoint.disk.clone(), endpoint.snap_dir.clone()))
        };
        let Some((disk, dir)) = place else { return false };
        let Body::Snapshot(snapshot) = &message.body else { return false };
        let path = Paths::received_in(&dir, snapshot.meta.last.index);
        let written = (|| {
            let mut file = disk.open(&path, OpenMode::Truncate)?;
            file.write_at(0, body)?;
            file.sync()?;
            disk.sync_dir(&dir)
        })();
        if written.is_err() {
            return false;
        }
        let Message { from, term, .. } = *message;
        self.moments.come(Moment::GetsSnapshot, to);
        self.tell(to, PeerEvent::SnapshotReceived { from, term, snapshot: snapshot.clone(), body: path });
        true
    }
}
