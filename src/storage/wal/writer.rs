//! Writing: batches, cuts, marks, and the removal of what is not needed any more.

use std::path::{Path, PathBuf};

use prost::Message as _;

use super::{
    Identity, Options, RECORD_MAX, Recovered,
    frame::{Encoder, Kind},
    recover::{self, Findings},
    segment::{self, Name},
};
use crate::{
    error::Fault,
    raft::{Entry, HardState, SnapshotMeta},
    storage::{Disk, DiskFile, OpenMode},
    types::Index,
    wire::{raft::encode_entry, raftpb, walpb},
};

/// A log that is open to be written. It holds the lock of every segment that is not released.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    /// The same bytes at the head of each segment.
    metadata: Vec<u8>,
    /// Unreleased segments before the tail, oldest first.
    held: Vec<(Name, D::File)>,
    name: Name,
    tail: D::File,
    /// Where the next record goes in the tail.
    offset: u64,
    /// How many bytes of the tail are durable.
    durable: u64,
    chain: u32,
    /// Bytes written since it was opened.
    written: u64,
    hard: HardState,
    /// The last index written.
    last: Index,
    poison: Option<String>,
}

impl<D: Disk> Wal<D> {
    /// Makes a new log in `dir`, whose parent is made too. Durable on return. A half-made one is replaced;
    /// where a log is, it is refused.
    pub fn create(disk: D, dir: &Path, identity: Identity, options: Options) -> Result<Self, Fault> {
        if super::exists(&disk, dir)? {
            return Err(Fault::Refused(format!("there is a log in {} already", dir.display())));
        }
        let parent = dir.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut staging = dir.as_os_str().to_owned();
        staging.push(".tmp");
        let staging = PathBuf::from(staging);
        let fault = |error| Fault::io(format!("making the log in {}", dir.display()), error);
        if disk.exists(&staging).map_err(fault)? {
            disk.remove_dir_all(&staging).map_err(fault)?;
        }
        disk.create_dir_all(&staging).map_err(fault)?;
        let name = Name { seq: 0, index: Index(0) };
        let metadata =
            walpb::Metadata { node_id: identity.node.0, cluster_id: identity.cluster.0 }.encode_to_vec();
        let path = name.path(&staging);
        let mut tail = disk.open(&path, OpenMode::Truncate).map_err(fault)?;
        segment::lock(&mut tail, &path)?;
        let mut head = Encoder::new(0, 0, 0);
        head.push(Kind::Crc, None, Some(0));
        head.push(Kind::Metadata, Some(&metadata), None);
        head.push(Kind::Snapshot, Some(&mark(&SnapshotMeta::default())), None);
        tail.allocate(options.segment_bytes).map_err(fault)?;
        tail.write_at(0, &head.out).map_err(fault)?;
        tail.sync().map_err(fault)?;
        disk.sync_dir(&staging).map_err(fault)?;
        disk.rename(&staging, dir).map_err(fault)?;
        disk.sync_dir(parent).map_err(fault)?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata,
            held: Vec::new(),
            name,
            tail,
            offset: head.end(),
            durable: head.end(),
            chain: head.chain,
            hard: HardState::default(),
            last: Index(0),
            written: 0,
            poison: None,
        })
    }

    /// Opens a log, cuts off a torn end, and gives back what it holds. All of it is durable on return.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] for damage that a crash does not explain, entries with a gap, a commit index behind the
    /// last entry; nothing is changed then. [`Fault::Refused`] if another process has the log, or there is none.
    pub fn open(disk: D, dir: &Path, options: Options) -> Result<(Self, Recovered), Fault> {
        let fault = |error| Fault::io(format!("opening the log in {}", dir.display()), error);
        let mut held = Vec::new();
        for name in segment::newest_run(&segment::list(&disk, dir)?) {
            let path = name.path(dir);
            let mut file = disk.open(&path, OpenMode::Write).map_err(fault)?;
            segment::lock(&mut file, &path)?;
            held.push((*name, file));
        }
        let found = Findings::gather(&disk, dir, options.from)?;
        let mut recovered = recover::conclude(&disk, dir, &found, options.start)?;
        let Some((name, tail)) = held.pop() else {
            return Err(Fault::Refused(format!("there is no log in {}", dir.display())));
        };
        let last = recovered.entries.last().map_or(recovered.start.last.index, |entry| entry.index);
        let mut wal = Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata: found.metadata.clone().unwrap_or_default(),
            held,
            name,
            tail,
            offset: found.end,
            durable: found.end,
            chain: found.chain,
            hard: found.hard,
            last,
            written: 0,
            poison: None,
        };
        wal.settle(&found)?;
        recovered.repaired = found.torn.map(|torn| torn.what);
        Ok((wal, recovered))
    }

    /// Makes what was read durable and the rest zeros: until then it may only be in the page cache, and marks to
    /// come will say that it is on the disk.
    fn settle(&mut self, found: &Findings) -> Result<(), Fault> {
        let path = self.name.path(&self.dir);
        let fault = |error| Fault::io(format!("repairing {}", path.display()), error);
        let len = self.tail.len().map_err(fault)?;
        if found.torn.is_some() {
            self.keep_copy(&path).map_err(fault)?;
            self.tail.set_len(found.end).map_err(fault)?;
        }
        if len < self.options.segment_bytes || found.torn.is_some() {
            self.tail.allocate(len.max(self.options.segment_bytes)).map_err(fault)?;
        }
        // Written once more: what a sync of an earlier process failed to bring to the disk reads as if it were there,
        // and no sync that only follows would write it.
        let mut unsure = vec![0; found.end.saturating_sub(found.durable) as usize];
        let read = self.tail.read_at(found.durable, &mut unsure).map_err(fault)?;
        self.tail.write_at(found.durable, &unsure[..read]).map_err(fault)?;
        self.tail.sync().map_err(fault)?;
        self.disk.sync_dir(&self.dir).map_err(fault)?;
        if !found.ours {
            // From here on our rule for a torn end holds, so the place where that begins is durable first.
            let mut batch = self.encoder();
            batch.push(Kind::Crc, None, Some(self.durable));
            self.write(batch)?;
            self.sync()?;
        }
        Ok(())
    }

    /// etcd keeps a copy of a segment before it cuts it, and so do we: of what is not zeros.
    fn keep_copy(&self, path: &Path) -> std::io::Result<()> {
        let bytes = crate::storage::read_all(&self.tail)?;
        let mut copy = path.as_os_str().to_owned();
        copy.push(".broken");
        let mut copy = self.disk.open(Path::new(&copy), OpenMode::Truncate)?;
        copy.write_at(0, &bytes[..segment::used(&bytes)])?;
        copy.sync()
    }

    /// Appends a batch: the entries, then the hard state if there is a new one. With `sync` it is durable on
    /// return, by one fdatasync; a hard state whose commit alone is new needs none.
    ///
    /// # Errors
    /// Any I/O error poisons the log. An entry of [`RECORD_MAX`] bytes is refused.
    ///
    /// # Panics
    /// If the entries do not follow each other, leave a gap behind what was written, or replace a committed one.
    pub fn append(&mut self, entries: &[Entry], hard: Option<HardState>, sync: bool) -> Result<(), Fault> {
        self.usable()?;
        let mut batch = self.encoder();
        let mut mark = Some(self.durable);
        let mut last = self.last;
        if let Some(first) = entries.first() {
            let commit = self.hard.commit;
            assert!(
                first.index > commit,
                "entry {} is written again, but {commit} is committed",
                first.index
            );
        }
        for (at, entry) in entries.iter().enumerate() {
            let follows = if at == 0 { entry.index <= last.next() } else { entry.index == last.next() };
            assert!(follows, "entry {} after {last} leaves a gap", entry.index);
            let data = encode_entry(entry);
            if data.len() as u64 + 64 > RECORD_MAX {
                return Err(Fault::Refused(format!(
                    "entry {} has {} bytes; the log takes less than {RECORD_MAX}",
                    entry.index,
                    data.len()
                )));
            }
            batch.push(Kind::Entry, Some(&data), mark.take());
            last = entry.index;
        }
        if let Some(hard) = hard.filter(|hard| *hard != HardState::default()) {
            batch.push(Kind::State, Some(&state(&hard)), mark.take());
            self.hard = hard;
        }
        self.last = last;
        self.write(batch)?;
        if sync {
            self.sync()?;
        }
        self.cut_if_full()
    }

    /// Writes that a snapshot is on disk, whole. Durable on return. A snapshot is of committed entries, so the hard
    /// state (`hard`, or else the last one) goes with it in the same write, its commit index at least the mark's.
    pub fn save_snapshot_mark(&mut self, meta: &SnapshotMeta, hard: Option<HardState>) -> Result<(), Fault> {
        self.usable()?;
        let mut hard = hard.unwrap_or(self.hard);
        hard.commit = hard.commit.max(meta.last.index);
        let mut batch = self.encoder();
        batch.push(Kind::Snapshot, Some(&mark(meta)), Some(self.durable));
        if hard != self.hard {
            batch.push(Kind::State, Some(&state(&hard)), None);
            self.hard = hard;
        }
        self.last = self.last.max(meta.last.index);
        self.write(batch)?;
        self.sync()?;
        self.cut_if_full()
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.usable()?;
        let synced = self.tail.sync();
        self.poisoning("syncing", synced)?;
        self.durable = self.offset;
        Ok(())
    }

    /// Whether all that was appended is durable.
    pub fn is_synced(&self) -> bool {
        self.durable == self.offset
    }

    /// How many bytes of records have been appended since it was opened.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Gives up the segments that nothing behind `index` is in: [`Wal::purge`] may remove them. `index` is at most
    /// the newest snapshot's on disk and what the state machine has flushed.
    pub fn release_to(&mut self, index: Index) {
        let before = |name: &Name| name.index < index;
        let keep = if before(&self.name) {
            self.held.len()
        } else {
            self.held.iter().rposition(|(name, _)| before(name)).unwrap_or(0)
        };
        self.held.drain(..keep);
    }

    /// Removes released segments, the oldest first, down to `wals_max`; returns how many.
    pub fn purge(&mut self) -> Result<usize, Fault> {
        self.usable()?;
        if self.options.wals_max == 0 {
            return Ok(0);
        }
        let names = segment::list(&self.disk, &self.dir)?;
        let first_held = self.held.first().map_or(self.name.seq, |(name, _)| name.seq);
        let surplus = names.len().saturating_sub(self.options.wals_max);
        let mut removed = 0;
        for name in names.iter().take(surplus).take_while(|name| name.seq < first_held) {
            let path = name.path(&self.dir);
            self.disk
                .remove_file(&path)
                .map_err(|error| Fault::io(format!("removing {}", path.display()), error))?;
            removed += 1;
        }
        if removed > 0 {
            let synced = self.disk.sync_dir(&self.dir);
            self.poisoning("syncing the directory of", synced)?;
        }
        Ok(removed)
    }

    /// The last hard state written.
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// The index of the last entry, or of a snapshot mark behind it.
    pub fn last_index(&self) -> Index {
        self.last
    }

    fn usable(&self) -> Result<(), Fault> {
        match &self.poison {
            None => Ok(()),
            Some(why) => Err(Fault::io(
                "the log is closed",
                std::io::Error::other(format!("an earlier write failed: {why}")),
            )),
        }
    }

    /// After a failed write nobody knows what is on the disk, so nothing is written any more.
    fn poisoning<T>(&mut self, what: &str, result: std::io::Result<T>) -> Result<T, Fault> {
        result.map_err(|error| {
            let path = self.name.path(&self.dir);
            self.poison = Some(error.to_string());
            Fault::io(format!("{what} {}", path.display()), error)
        })
    }

    fn encoder(&self) -> Encoder {
        Encoder::new(self.name.seq, self.offset, self.chain)
    }

    fn write(&mut self, batch: Encoder) -> Result<(), Fault> {
        if batch.out.is_empty() {
            return Ok(());
        }
        assert_eq!(batch.start, self.offset, "a batch goes where the last one ended");
        let written = self.tail.write_at(self.offset, &batch.out);
        self.poisoning("writing", written)?;
        self.written += batch.out.len() as u64;
        self.offset = batch.end();
        self.chain = batch.chain;
        Ok(())
    }

    fn cut_if_full(&mut self) -> Result<(), Fault> {
        if self.offset < self.options.segment_bytes {
            return Ok(());
        }
        let cut = self.cut();
        self.poisoning("cutting", cut)
    }

    /// Ends the tail and starts the next segment, which gets its name only when its head is durable.
    fn cut(&mut self) -> std::io::Result<()> {
        self.tail.set_len(self.offset)?;
        self.tail.sync()?;
        let name = Name { seq: self.name.seq + 1, index: self.last.next() };
        let staging = self.dir.join(format!("{}.tmp", name.seq % 2));
        let mut tail = self.disk.open(&staging, OpenMode::Truncate)?;
        let mut head = Encoder::new(name.seq, 0, self.chain);
        head.push(Kind::Crc, None, Some(0));
        head.push(Kind::Metadata, Some(&self.metadata), None);
        if self.hard != HardState::default() {
            head.push(Kind::State, Some(&state(&self.hard)), None);
        }
        if !tail.try_lock()? {
            return Err(std::io::Error::other("the new segment is locked by another process"));
        }
        tail.allocate(self.options.segment_bytes)?;
        tail.write_at(0, &head.out)?;
        tail.sync()?;
        self.disk.rename(&staging, &name.path(&self.dir))?;
        self.disk.sync_dir(&self.dir)?;
        let old = std::mem::replace(&mut self.tail, tail);
        self.held.push((self.name, old));
        self.name = name;
        self.offset = head.end();
        self.durable = head.end();
        self.chain = head.chain;
        Ok(())
    }
}

fn mark(meta: &SnapshotMeta) -> Vec<u8> {
    walpb::Snapshot::from(meta).encode_to_vec()
}

fn state(hard: &HardState) -> Vec<u8> {
    raftpb::HardState::from(hard).encode_to_vec()
}
