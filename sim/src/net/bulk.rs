//! Snapshots on their way: what raft is to know of them, with their bodies beside it.

use std::sync::Arc;

use kontiki::{
    raft::{Body, Message},
    runtime::PeerEvent,
    server::Paths,
    storage::StagedFile,
};

use super::{Address, Held, Net};
use crate::{
    host::{Host, Micros},
    plan::Moment,
};

/// Bytes of a snapshot that travel in a microsecond.
const BYTES_PER_MICRO: u64 = 100;

/// A body comes in pieces of so many bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// A snapshot on its way.
#[derive(Clone)]
pub(super) struct Transfer {
    from: Address,
    to: Address,
    number: u64,
    message: Message,
    body: Arc<[u8]>,
    lost: bool,
}

impl Transfer {
    /// How long it is on its way for its size alone.
    fn span(&self) -> Micros {
        self.body.len() as u64 / BYTES_PER_MICRO
    }
}

impl<H: Host> Net<H> {
    pub(super) fn send_snapshot(&self, from: Address, to: Address, message: Message, body: Option<Vec<u8>>) {
        let link = self.link(from, to);
        let number = self.probe.sent(from, to, &message);
        (self.on_message)(&message);
        self.moments.come(Moment::SendsSnapshot, from);
        let delay = self.delay(link);
        let lost = link.cut || self.rng.chance(link.loss) || body.is_none();
        let transfer = Transfer { from, to, number, message, body: body.unwrap_or_default().into(), lost };
        if !lost {
            let again = transfer.clone();
            self.echo(link, move |net| _ = net.take_snapshot(&again));
        }
        // One whose sender takes it for lost comes again.
        if !lost && self.rng.chance(link.twice) {
            let (net, sent, again) = (self.clone(), self.host.now(), transfer.clone());
            let at = sent + self.delay(link) + transfer.span();
            let arrive = move || {
                if !net.lock().has_lost(from, to, sent) {
                    net.take_snapshot(&again);
                }
            };
            self.host.at(at, Box::new(arrive));
        }
        if link.held && link.bulk && !lost {
            self.lock().held.entry((from, to)).or_default().push(Held::Bulk(transfer));
        } else {
            self.carry_bulk(transfer, delay);
        }
    }

    /// It comes in, and its sender hears of that, or that it was lost.
    pub(super) fn carry_bulk(&self, transfer: Transfer, delay: Micros) {
        let (net, sent) = (self.clone(), self.host.now());
        let at = sent + delay + transfer.span();
        let act = move || {
            let Transfer { from, to, number, .. } = transfer;
            let lost = transfer.lost || net.lock().has_lost(from, to, sent);
            let taken = !lost && net.take_snapshot(&transfer);
            if taken {
                net.probe.delivered(number, to, &[])
            } else {
                net.probe.lost(number)
            }
            // The answer may get lost where the snapshot did not.
            let back = net.link(to, from);
            let ok = taken && !back.cut && !net.rng.chance(back.loss);
            net.tell(from, PeerEvent::SnapshotSent { to: transfer.message.to, ok });
        };
        self.host.at(at, Box::new(act));
    }

    /// Puts a snapshot's body on the receiver's disk, durably, and tells it.
    fn take_snapshot(&self, transfer: &Transfer) -> bool {
        let Transfer { to, message, body, .. } = transfer;
        let place = {
            let inner = self.lock();
            let endpoint = inner.endpoints.get(to).filter(|endpoint| endpoint.id == message.to);
            endpoint.map(|endpoint| (endpoint.disk.clone(), endpoint.snap_dir.clone()))
        };
        let Some((disk, dir)) = place else { return false };
        let Body::Snapshot(snapshot) = &message.body else { return false };
        let name = Paths::received_name(snapshot.meta.last.index);
        let write = || {
            let mut file = StagedFile::create(disk, &dir, &name, transfer.number)?;
            body.chunks(CHUNK_BYTES).try_for_each(|piece| file.write(piece))?;
            file.sync()?;
            file.keep()
        };
        let Ok(path) = write() else { return false };
        let Message { from, term, .. } = *message;
        self.moments.come(Moment::GetsSnapshot, *to);
        self.tell(*to, PeerEvent::SnapshotReceived { from, term, snapshot: snapshot.clone(), body: path });
        true
    }
}
