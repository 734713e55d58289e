//! What a file's bytes and a directory's names are, live and durable, and what a crash makes of them.

use std::{collections::BTreeMap, sync::Arc};

use super::{NodeNumber, SECTOR};

type Sector = Arc<[u8; SECTOR as usize]>;

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) len: u64,
    sectors: BTreeMap<u64, Sector>,
    durable_len: u64,
    durable: BTreeMap<u64, Sector>,
    /// Lengths and sector versions since the last sync, oldest first.
    lens: Vec<u64>,
    dirty: BTreeMap<u64, Vec<Sector>>,
    /// How far anything was written, and how much of that is durable.
    written: u64,
    synced: u64,
    /// What [`super::MemDisk::vouched`] says, now and after a crash.
    pub(super) vouched: u64,
    vouched_durable: u64,
    /// The handle that has the lock.
    pub(super) lock: Option<u64>,
}

/// One change of a directory's names: all of it survives or none.
pub(super) type NameChange = Vec<(String, Option<NodeNumber>)>;

#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) names: BTreeMap<String, NodeNumber>,
    pub(super) durable: BTreeMap<String, NodeNumber>,
    pending: Vec<NameChange>,
}

impl FileNode {
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        if end <= offset {
            return 0;
        }
        let out = &mut buf[..(end - offset) as usize];
        out.fill(0);
        // Most of a file may be sectors that nothing was written to.
        for (sector, bytes) in self.sectors.range(offset / SECTOR..end.div_ceil(SECTOR)) {
            let start = sector * SECTOR;
            let (from, to) = (start.max(offset), (start + SECTOR).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
        out.len()
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let end = offset + bytes.len() as u64;
        if at < end {
            self.vouched = self.synced.min(offset);
            self.written = self.written.max(end);
        }
        while at < end {
            let (sector, skip) = (at / SECTOR, (at % SECTOR) as usize);
            let n = ((end - at) as usize).min(SECTOR as usize - skip);
            let mut new = self.sectors.get(&sector).map_or([0; SECTOR as usize], |old| **old);
            new[skip..skip + n].copy_from_slice(&bytes[(at - offset) as usize..][..n]);
            self.put_sector(sector, Arc::new(new));
            at += n as u64;
        }
        if end > self.len {
            self.change_len(end);
        }
    }

    fn put_sector(&mut self, number: u64, sector: Sector) {
        self.dirty.entry(number).or_default().push(sector.clone());
        self.sectors.insert(number, sector);
    }

    fn change_len(&mut self, len: u64) {
        self.len = len;
        self.lens.push(len);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            for place in [&mut self.written, &mut self.synced, &mut self.vouched, &mut self.vouched_durable] {
                *place = len.min(*place);
            }
            let gone: Vec<u64> =
                self.sectors.range(len.div_ceil(SECTOR)..).map(|(number, _)| *number).collect();
            for number in gone {
                self.put_sector(number, Arc::new([0; SECTOR as usize]));
            }
            if !len.is_multiple_of(SECTOR)
                && let Some(last) = self.sectors.get(&(len / SECTOR))
            {
                let mut last = **last;
                last[(len % SECTOR) as usize..].fill(0);
                self.put_sector(len / SECTOR, Arc::new(last));
            }
        }
        if len != self.len {
            self.change_len(len);
        }
    }

    pub(super) fn sync(&mut self) {
        // Only what was written since the last sync: a failed one may have dropped the rest.
        for (number, versions) in std::mem::take(&mut self.dirty) {
            if let Some(newest) = versions.into_iter().next_back() {
                self.durable.insert(number, newest);
            }
        }
        if let Some(len) = self.lens.drain(..).next_back() {
            self.durable_len = len;
        }
        (self.synced, self.vouched_durable) = (self.written, self.vouched);
    }

    /// Changes bytes as no write does: they are durable, and nothing else becomes so.
    pub(super) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        let (written, synced, vouched) = (self.written, self.synced, (self.vouched, self.vouched_durable));
        self.write(offset, bytes);
        self.sync();
        (self.written, self.synced, (self.vouched, self.vouched_durable)) = (written, synced, vouched);
    }

    /// What a failed sync leaves: the changes are no longer known to be unwritten.
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
        self.lens.clear();
        self.written = self.synced;
    }

    pub(super) fn crash(&mut self, choose: &mut impl FnMut(u64) -> u64) {
        if !self.lens.is_empty() {
            let n = self.lens.len() as u64 + 1;
            match choose(n) {
                0 => {}
                pick => self.durable_len = self.lens[(pick.min(n - 1) - 1) as usize],
            }
        }
        for (number, versions) in std::mem::take(&mut self.dirty) {
            let old = self.durable.get(&number).map_or([0; SECTOR as usize], |old| **old);
            // The durable one, the newest torn over it, or any version whole.
            let n = versions.len() as u64 + 2;
            let new = match choose(n).min(n - 1) {
                0 => continue,
                1 => {
                    let newest = versions.last().expect("a dirty sector has a version");
                    let cut = choose(SECTOR) as usize;
                    let mut torn = old;
                    torn[..cut].copy_from_slice(&newest[..cut]);
                    Arc::new(torn)
                }
                pick => versions[pick as usize - 2].clone(),
            };
            self.durable.insert(number, new);
        }
        // What lies beyond the length that survived is not there.
        let len = self.durable_len;
        self.durable.retain(|number, _| number * SECTOR < len);
        if !len.is_multiple_of(SECTOR)
            && let Some(last) = self.durable.get_mut(&(len / SECTOR))
        {
            Arc::make_mut(last)[(len % SECTOR) as usize..].fill(0);
        }
        self.sectors = self.durable.clone();
        self.len = len;
        self.lens.clear();
        self.written = self.synced;
        self.vouched = self.vouched_durable;
        self.lock = None;
    }
}

impl DirNode {
    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
    }

    pub(super) fn crash(&mut self, choose: &mut impl FnMut(u64) -> u64) {
        for change in std::mem::take(&mut self.pending) {
            if choose(2) != 0 {
                apply(&mut self.durable, &change);
            }
        }
        self.names = self.durable.clone();
    }
}

fn apply(names: &mut BTreeMap<String, NodeNumber>, change: &NameChange) {
    for (name, node) in change {
        match node {
            Some(node) => _ = names.insert(name.clone(), *node),
            None => _ = names.remove(name),
        }
    }
}
