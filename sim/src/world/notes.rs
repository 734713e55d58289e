//! What is noted of members in the history: whom they count, what their tables took, what they found at a start.

use std::{path::Path, sync::Arc};

use kontiki::{
    server::api::Member as _,
    storage::{
        snapshot_file,
        wal::{self, Wal},
    },
    table::{Table, Tables as _},
    types::{Index, NodeId},
};
use serde::Deserialize;

use super::{DATA, SimHandle, Slot, World};
use crate::{
    backend::{Brought, Change, OnBatch},
    history::{Applied, Boot, Config},
    host::Host,
    net::Address,
    plan::Moment,
};

/// The row of the tables that has the configuration, as far as it is looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigRow {
    voters: Vec<u64>,
    voters_outgoing: Vec<u64>,
    learners: Vec<u64>,
}

impl<H: Host> World<H> {
    /// Whoever founds a cluster has its members from the command line.
    pub(super) fn note_founders(&self, address: Address, handle: &SimHandle<H>) {
        let founds = self.slot(address, |slot| slot.incarnation == 0 && !slot.existing).unwrap_or(false);
        if founds {
            let mut voters: Vec<u64> = handle.members().iter().map(|member| member.id.0).collect();
            voters.sort_unstable();
            let (at, node) = (self.time(), handle.header().member.0);
            let (outgoing, learners, committed) = (vec![], vec![], Some(0));
            let config = Config { at, node, index: 0, voters, outgoing, learners, committed };
            self.record(|history| history.configs.push(config));
        }
    }

    /// Shows each batch of a member's tables.
    pub(super) fn on_batch(&self, address: Address, incarnation: u32) -> OnBatch {
        let world = self.clone();
        Arc::new(move |change| {
            let Brought { index, term, hash, config } = match change {
                Change::Brought(brought) => brought,
                Change::Compacted => return world.moments.come(Moment::Compacts, address),
                Change::Flushed => return world.moments.come(Moment::Flushes, address),
                Change::Replaced => return world.moments.come(Moment::Installs, address),
            };
            if config.is_some() {
                world.moments.come(Moment::Changes, address);
                if world.leader() == Some(address) {
                    world.moments.come(Moment::LeaderChanges, address);
                }
            }
            world.probe.applied(address, index, term, hash.unwrap_or(0));
            // Nothing is applied before a start is over.
            let Some(NodeId(node)) = world.id(address) else { return };
            let at = world.time();
            let config = config.and_then(|row| serde_json::from_slice::<ConfigRow>(&row).ok());
            let place = world.record(|history| {
                let (revision, snapshot) = (None, false);
                history.applied.push(Applied {
                    at,
                    node,
                    incarnation,
                    index,
                    term,
                    hash,
                    revision,
                    snapshot,
                });
                let ConfigRow { voters, voters_outgoing: outgoing, learners } = config?;
                let committed = None;
                history.configs.push(Config { at, node, index, voters, outgoing, learners, committed });
                Some(history.configs.len() - 1)
            });
            if let Some(place) = place {
                world.note_committed(address, incarnation, place);
            }
        })
    }

    /// Notes how far a member has committed as soon as its raft counts by the configuration that its tables took now.
    fn note_committed(&self, address: Address, incarnation: u32, place: usize) {
        let world = self.clone();
        let note = move || {
            let same = |slot: &mut Slot<H>| slot.up.clone().filter(|_| slot.incarnation == incarnation);
            let Some(handle) = world.slot(address, same).flatten() else { return };
            let Index(committed) = handle.status().committed;
            world.record(|history| {
                if let Some(config) = history.configs.get_mut(place) {
                    config.committed = Some(committed);
                }
            });
        };
        self.host.at(self.host.now() + 1, Box::new(note));
    }

    /// Notes what the log of a member that starts now recovers, read from a copy of its disk.
    pub(super) fn note_boot(&self, address: Address) {
        let found = self
            .slot(address, |slot| (slot.disk.fork(), slot.tables.clone(), slot.incarnation, slot.forgets));
        let Some((disk, tables, incarnation, forgets)) = found else { return };
        let dir = Path::new(DATA).join("member/wal");
        if !wal::exists(&disk, &dir).unwrap_or(false) {
            return;
        }
        let index = tables.get(Table::Meta, b"consistent_index").ok().flatten();
        let applied = index.and_then(|row| row[..].try_into().ok()).map_or(0, u64::from_be_bytes);
        // What lies before a snapshot that the tables have is not read, and may be damaged.
        let snapshots = snapshot_file::list_snapshots(&disk, &Path::new(DATA).join("member/snap"));
        let mut snapshots = snapshots.iter().flatten().map(|snapshot| snapshot.index);
        let from = snapshots.find(|Index(index)| *index <= applied).unwrap_or_default();
        let segment_bytes = self.knobs.segment_bytes;
        let options = wal::Options { segment_bytes, from, ..wal::Options::default() };
        if let Ok((_, recovered)) = Wal::open(disk, &dir, options) {
            let node = recovered.identity.node.0;
            let mut boot = Boot::new(self.time(), node, incarnation).recovered(
                &recovered.hard_state,
                recovered.start.last,
                &recovered.entries,
            );
            boot.forgets = forgets;
            boot.applied = applied;
            self.record(|history| history.boots.push(boot));
        }
    }
}
