//! Reading a log back: what it holds, where it ends, and whether its end is torn or corrupt.
//!
//! Two passes over the segments, or over those that are needed, if a snapshot is known. [`survey`] checks every record and finds the last hard state, the marks and the
//! end; then the entries behind the chosen mark are collected. Only [`super::Wal::open`] changes anything.

use std::path::Path;

use super::{
    Identity,
    frame::{Damage, Kind, Reader, Record, furthest_mark},
    segment::{self, Name},
};
use crate::{
    error::Fault,
    raft::{Entry, HardState, LogId, SnapshotMeta},
    storage::{Disk, OpenMode},
    types::{ClusterId, Index, NodeId, Term},
    wire::{raft::decode_entry, raftpb, walpb},
};
use prost::Message as _;

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose it is.
    pub identity: Identity,
    /// The last hard state. Its term is raised to the last entry's if it is behind (see the module).
    pub hard_state: HardState,
    /// The snapshots that it names up to the commit index, in the order they were written.
    pub marks: Vec<SnapshotMeta>,
    /// The mark that the entries follow.
    pub start: SnapshotMeta,
    /// The entries behind it, without a gap, those beyond the commit index too.
    pub entries: Vec<Entry>,
    /// What was cut off as torn, for the node's log.
    pub repaired: Option<String>,
}

/// What a log holds besides its entries, read without changing anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Whose it is.
    pub identity: Identity,
    /// The last hard state.
    pub hard_state: HardState,
    /// The snapshots that it names up to the commit index, in the order they were written.
    pub marks: Vec<SnapshotMeta>,
    /// What [`super::Wal::open`] would cut off.
    pub torn: Option<String>,
}

/// Reads a log's marks, so that a snapshot can be chosen. Fails as [`super::Wal::open`] does.
pub fn survey<D: Disk>(disk: &D, dir: &Path) -> Result<Survey, Fault> {
    let findings = Findings::gather(disk, dir, Index(0))?;
    let (identity, marks) = (findings.identity()?, findings.usable_marks());
    Ok(Survey { identity, hard_state: findings.hard, marks, torn: findings.torn.map(|torn| torn.what) })
}

/// A torn end.
#[derive(Clone, Debug)]
pub(super) struct Torn {
    /// What is wrong, and where.
    pub what: String,
}

/// What the first pass found.
#[derive(Debug)]
pub(super) struct Findings {
    pub names: Vec<Name>,
    pub metadata: Option<Vec<u8>>,
    pub hard: HardState,
    pub marks: Vec<SnapshotMeta>,
    /// Where the tail's valid records end.
    pub end: u64,
    /// The crc chain there.
    pub chain: u32,
    /// What the tail's marks say is on the disk: the first so many bytes.
    pub durable: u64,
    /// Whether we wrote the last record.
    pub ours: bool,
    pub torn: Option<Torn>,
    /// The last entry in the log, by position.
    pub last: Index,
    /// The tail's bytes, for the second pass.
    tail: Vec<u8>,
}

/// Names a place and what to do about it.
fn corrupt(dir: &Path, name: Name, offset: u64, last: Index, what: &str) -> Fault {
    Fault::corrupt(format!(
        "the log is corrupt: {what} in {} at offset {offset}, after index {last}. Nothing was changed. A member of a \
         cluster whose other members are healthy: remove it, empty its data directory, add it again. A single \
         member: restore the file from a copy, or the whole from a snapshot.",
        name.path(dir).display()
    ))
}

fn undecodable(what: &str, error: impl std::fmt::Display) -> String {
    format!("{what} can't be decoded ({error})")
}

impl Findings {
    /// Reads the segments from that on which holds the entry behind `from`, where a mark should be; all of them, if
    /// there is none that counts.
    pub fn gather<D: Disk>(disk: &D, dir: &Path, from: Index) -> Result<Self, Fault> {
        let names = segment::newest_run(&segment::list(disk, dir)?).to_vec();
        let first = names.iter().rposition(|name| name.index <= from).unwrap_or(0);
        let found = Self::read(disk, dir, &names, first)?;
        if first == 0 || found.usable_marks().iter().any(|mark| mark.last.index >= from) {
            return Ok(found);
        }
        Self::read(disk, dir, &names, 0)
    }

    fn read<D: Disk>(disk: &D, dir: &Path, names: &[Name], first: usize) -> Result<Self, Fault> {
        let Some(tail) = names.last().copied() else {
            return Err(Fault::Refused(format!("there is no log in {}", dir.display())));
        };
        let mut found = Self {
            names: names.to_vec(),
            metadata: None,
            hard: HardState::default(),
            marks: Vec::new(),
            end: 0,
            chain: 0,
            durable: 0,
            ours: false,
            torn: None,
            last: Index(0),
            tail: Vec::new(),
        };
        let mut chain = (names[first].seq == 0).then_some(0);
        for name in names[first..].iter().copied() {
            let (_, bytes) = segment::read(disk, &name.path(dir), OpenMode::Read)?;
            let mut pass = Pass { dir, name, bytes: &bytes, found: &mut found, mark: 0, headed: false };
            chain = Some(pass.run(chain, name == tail)?);
            let durable = pass.mark;
            found.durable = durable;
            found.tail = bytes;
        }
        Ok(found)
    }

    pub fn identity(&self) -> Result<Identity, Fault> {
        let bytes = self.metadata.as_deref().unwrap_or_default();
        let wire = walpb::Metadata::decode(bytes)
            .map_err(|error| Fault::corrupt(undecodable("the log's metadata", error)))?;
        Ok(Identity { node: NodeId(wire.node_id), cluster: ClusterId(wire.cluster_id) })
    }

    /// Marks of snapshots that are known committed: others may have been written just before a crash.
    pub fn usable_marks(&self) -> Vec<SnapshotMeta> {
        self.marks.iter().filter(|mark| mark.last.index <= self.hard.commit).cloned().collect()
    }
}

/// The first pass through one segment.
struct Pass<'a> {
    dir: &'a Path,
    name: Name,
    bytes: &'a [u8],
    found: &'a mut Findings,
    /// The furthest valid mark so far.
    mark: u64,
    /// Whether the metadata was there: the head is synced before the segment gets its name.
    headed: bool,
}

impl Pass<'_> {
    fn corrupt(&self, offset: usize, what: &str) -> Fault {
        corrupt(self.dir, self.name, offset as u64, self.found.last, what)
    }

    /// Returns the crc chain at the segment's end.
    fn run(&mut self, chain: Option<u32>, tail: bool) -> Result<u32, Fault> {
        let mut reader = Reader::new(self.bytes, self.name.seq, chain);
        let damage = loop {
            match reader.next() {
                Ok(Some((offset, record))) => self.take(offset, record)?,
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        let end = reader.offset;
        let chain = reader.chain.unwrap_or(0);
        let damage = damage.or_else(|| {
            // Nothing was written from here on, so nothing may follow.
            (segment::used(self.bytes) > end).then_some(Damage::Hole)
        });
        if let Some(damage) = damage {
            self.judge(end, damage, tail)?;
        } else if !self.headed {
            return Err(self.corrupt(end, "there is no metadata"));
        }
        self.found.end = end as u64;
        self.found.chain = chain;
        Ok(chain)
    }

    /// A torn end, or corruption.
    fn judge(&mut self, end: usize, damage: Damage, tail: bool) -> Result<(), Fault> {
        let what = damage.text();
        if !tail || !self.headed {
            return Err(self.corrupt(end, what));
        }
        // The last record's checksum and padding may end in zeros: it has to be whole to be found.
        let whole = self.bytes.len().min(segment::used(self.bytes) + 16);
        let mark = furthest_mark(&self.bytes[..whole], self.name.seq, end).unwrap_or(0).max(self.mark);
        if mark > end as u64 {
            return Err(self.corrupt(end, &format!("{what} (the first {mark} bytes were durable)")));
        }
        let torn = self.found.ours || matches!(damage, Damage::Cut | Damage::Hole);
        if !torn {
            return Err(self.corrupt(end, what));
        }
        self.found.torn = Some(Torn {
            what: format!(
                "{what} in {} at offset {end}, after index {}: a write that a crash cut short, never acknowledged",
                self.name.path(self.dir).display(),
                self.found.last
            ),
        });
        Ok(())
    }

    fn take(&mut self, offset: usize, record: Record<'_>) -> Result<(), Fault> {
        let data = record.data.unwrap_or_default();
        match record.kind {
            Kind::Crc => {}
            Kind::Metadata => {
                if self.found.metadata.get_or_insert_with(|| data.to_vec()) != data {
                    return Err(self.corrupt(offset, "the metadata is not that of the segments before"));
                }
                self.headed = true;
            }
            Kind::Entry => {
                // The payload is left to the second pass; what raft can't work with is refused there.
                let wire = raftpb::Entry::decode(data)
                    .map_err(|error| self.corrupt(offset, &undecodable("an entry", error)))?;
                self.found.last = Index(wire.index);
            }
            Kind::State => {
                let hard = raftpb::HardState::decode(data)
                    .map_err(|error| error.to_string())
                    .and_then(|wire| HardState::try_from(wire).map_err(|error| error.to_string()));
                self.found.hard =
                    hard.map_err(|error| self.corrupt(offset, &undecodable("a state", error)))?;
            }
            Kind::Snapshot => {
                let mark = walpb::Snapshot::decode(data)
                    .map_err(|error| error.to_string())
                    .and_then(|wire| SnapshotMeta::try_from(wire).map_err(|error| error.to_string()));
                let mark =
                    mark.map_err(|error| self.corrupt(offset, &undecodable("a snapshot mark", error)))?;
                self.found.last = self.found.last.max(mark.last.index);
                self.found.marks.push(mark);
            }
        }
        self.found.ours = record.ours;
        if let Some(mark) = record.durable {
            if mark > offset as u64 {
                return Err(self.corrupt(offset, "a mark lies behind its own record"));
            }
            self.mark = self.mark.max(mark);
        }
        Ok(())
    }
}

/// The second pass: the log as raft had it, from `start` on.
struct Replay {
    start: LogId,
    /// The term of the entry at `start`, as long as it is in the log.
    start_term: Option<Term>,
    entries: Vec<Entry>,
}

impl Replay {
    /// An entry takes the place of what is there and of all behind it.
    fn entry(&mut self, entry: Entry) -> Result<(), String> {
        if entry.index <= self.start.index {
            self.entries.clear();
            self.start_term = (entry.index == self.start.index).then_some(entry.term);
            return Ok(());
        }
        let at = entry.index.0 - self.start.index.0 - 1;
        if at > self.entries.len() as u64 {
            let due = self.start.index.0 + self.entries.len() as u64 + 1;
            return Err(format!("entry {} where {due} should be", entry.index));
        }
        self.entries.truncate(at as usize);
        self.entries.push(entry);
        Ok(())
    }

    /// A snapshot that raft did not have in its log replaced the whole log, so older entries behind it are gone.
    fn mark(&mut self, mark: LogId) -> Result<(), String> {
        if mark.index != self.start.index {
            return Ok(());
        }
        if mark.term != self.start.term {
            return Err(format!(
                "a mark at {} of term {} instead of {}",
                mark.index, mark.term, self.start.term
            ));
        }
        if self.start_term != Some(mark.term) {
            self.entries.clear();
            self.start_term = Some(mark.term);
        }
        Ok(())
    }
}

/// The entries behind `start`.
pub(super) fn replay<D: Disk>(
    disk: &D,
    dir: &Path,
    found: &Findings,
    start: LogId,
) -> Result<Vec<Entry>, Fault> {
    let Some(first) = found.names.iter().rposition(|name| name.index <= start.index) else {
        return Err(Fault::corrupt(format!(
            "the log in {} begins behind index {}, where the snapshot ends: a segment is missing; restore it",
            dir.display(),
            start.index
        )));
    };
    let mut replay = Replay { start, start_term: None, entries: Vec::new() };
    let tail = found.names.last().copied();
    for name in &found.names[first..] {
        let read;
        let bytes = if Some(*name) == tail {
            &found.tail[..found.end as usize]
        } else {
            (_, read) = segment::read(disk, &name.path(dir), OpenMode::Read)?;
            &read[..]
        };
        let mut reader = Reader::new(bytes, name.seq, None);
        loop {
            let offset = reader.offset as u64;
            let last = Index(start.index.0 + replay.entries.len() as u64);
            let fault = |what: &str| corrupt(dir, *name, offset, last, what);
            // The first pass took these bytes; that they differ now is the disk's doing.
            let Some((_, record)) = reader.next().map_err(|damage| fault(damage.text()))? else {
                break;
            };
            let data = record.data.unwrap_or_default();
            let taken = match record.kind {
                Kind::Entry => decode_entry(data)
                    .map_err(|error| undecodable("an entry", error))
                    .and_then(|entry| replay.entry(entry)),
                Kind::Snapshot => walpb::Snapshot::decode(data)
                    .map_err(|error| undecodable("a snapshot mark", error))
                    .and_then(|mark| replay.mark(LogId { term: Term(mark.term), index: Index(mark.index) })),
                Kind::Metadata | Kind::State | Kind::Crc => Ok(()),
            };
            taken.map_err(|what| fault(&what))?;
        }
    }
    Ok(replay.entries)
}

/// What [`super::Wal::open`] hands back, but for the repair.
pub(super) fn conclude<D: Disk>(
    disk: &D,
    dir: &Path,
    found: &Findings,
    start: Option<LogId>,
) -> Result<Recovered, Fault> {
    let marks = found.usable_marks();
    let identity = found.identity()?;
    let chosen = match start {
        Some(start) => marks.iter().find(|mark| mark.last == start),
        None => marks.iter().max_by_key(|mark| mark.last.index),
    };
    let Some(start) = chosen.cloned() else {
        let wanted =
            start.map_or_else(|| "any snapshot".to_owned(), |id| format!("the snapshot at {}", id.index));
        return Err(Fault::corrupt(format!(
            "the log in {} has no mark for {wanted}: if segments before {} are missing, put them back",
            dir.display(),
            found.names.first().map(|name| name.text()).unwrap_or_default()
        )));
    };
    let entries = replay(disk, dir, found, start.last)?;
    let last = entries.last().map_or(start.last, |entry| LogId { term: entry.term, index: entry.index });
    let mut hard_state = found.hard;
    if hard_state.commit > last.index {
        return Err(Fault::corrupt(format!(
            "the log in {} ends at index {}, but {} was committed: entries are missing; a member of a cluster has to \
             be removed and added again, a single one restored from a snapshot",
            dir.display(),
            last.index,
            hard_state.commit
        )));
    }
    if hard_state.term < last.term {
        hard_state = HardState { term: last.term, vote: None, commit: hard_state.commit };
    }
    Ok(Recovered { identity, hard_state, marks, start, entries, repaired: None })
}
