//! The log in memory: entries behind a base, and how far each of them has come.
//!
//! ```text
//!   base      applied   handed     durable      offered          last
//!     |----------|---------|----------|------------|--------------|
//!                          handed <= min(commit, durable)
//! ```
//!
//! `offered` went to the disk, `durable` came back. A write that is under way remembers how far it reaches
//! (`covers`), and a truncation cuts that back for all writes at once: so its acknowledgement never vouches for
//! an entry that was overwritten in the meantime, even if the very same entry came back since.

use std::collections::VecDeque;

use super::{Entry, HardState, LogId, Payload, PersistId, Snapshot};
use crate::{
    membership::Change,
    types::{Index, NodeId, Term},
};

/// What an entry costs besides its payload, so that empty ones are not free.
const ENTRY_OVERHEAD: usize = 24;

impl Entry {
    /// The bytes that limits count for it.
    pub fn size(&self) -> usize {
        ENTRY_OVERHEAD + self.payload.size()
    }
}

impl Payload {
    /// The bytes that it carries.
    pub fn size(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Command(bytes) => bytes.len(),
            Self::Change(Change::Single { id: _, step: _, context }) => 16 + context.len(),
            Self::Change(Change::Joint { transition: _, steps, context }) => 16 * steps.len() + context.len(),
        }
    }
}

/// A write that the disk has not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Write {
    id: PersistId,
    term: Term,
    vote: Option<NodeId>,
    /// Entries (or the snapshot) up to here are durable with it, as the log is now.
    covers: Index,
    /// When it was handed out, by [`Log::clock`].
    since: u64,
}

#[derive(Debug)]
pub(super) struct Log {
    base: LogId,
    entries: VecDeque<Entry>,
    /// Of all entries, and of those that are not committed.
    bytes: usize,
    uncommitted_bytes: usize,
    offered: Index,
    durable: Index,
    commit: Index,
    handed: Index,
    applied: Index,
    /// A snapshot to be handed out for installation.
    snapshot: Option<Snapshot>,
    /// The newest snapshot that was received and is not durable.
    installing: Option<Index>,
    writes: VecDeque<Write>,
    last_id: PersistId,
    clock: u64,
    /// The hard state as last handed out, and the part of it that is durable.
    written: HardState,
    durable_vote: (Term, Option<NodeId>),
}

/// What a write consists of.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub hard: Option<HardState>,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
    pub persist: Option<PersistId>,
}

impl Log {
    /// A log of durable entries that follow each other and the base.
    pub fn new(base: LogId, entries: Vec<Entry>, hard: HardState, commit: Index, applied: Index) -> Self {
        let mut log = Self {
            base,
            entries: VecDeque::new(),
            bytes: 0,
            uncommitted_bytes: 0,
            offered: base.index,
            durable: base.index,
            commit: base.index,
            handed: applied,
            applied,
            snapshot: None,
            installing: None,
            writes: VecDeque::new(),
            last_id: PersistId(0),
            clock: 0,
            written: hard,
            durable_vote: (hard.term, hard.vote),
        };
        entries.into_iter().for_each(|entry| log.append(entry));
        log.offered = log.last().index;
        log.durable = log.offered;
        log.commit_to(commit);
        assert!(log.base.index <= applied && applied <= log.commit, "restored entries were checked");
        log
    }

    pub fn base(&self) -> LogId {
        self.base
    }

    pub fn commit(&self) -> Index {
        self.commit
    }

    pub fn applied(&self) -> Index {
        self.applied
    }

    pub fn durable(&self) -> Index {
        self.durable
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Whether a received snapshot is not durable yet.
    pub fn installing(&self) -> bool {
        self.installing.is_some()
    }

    pub fn last(&self) -> LogId {
        self.entries.back().map_or(self.base, |entry| LogId { term: entry.term, index: entry.index })
    }

    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Entries from `from` up to and with `to`, at most `bytes_max` of them or one. `from` is behind the base.
    pub fn slice(&self, from: Index, to: Index, bytes_max: usize) -> Vec<Entry> {
        assert!(from > self.base.index, "a slice begins behind the base");
        let mut size = 0;
        let mut slice = Vec::new();
        for entry in self.entries.range((from.0 - self.base.index.0 - 1) as usize..) {
            size += entry.size();
            if entry.index > to || (size > bytes_max && !slice.is_empty()) {
                break;
            }
            slice.push(entry.clone());
        }
        slice
    }

    /// The indices of changes of the configuration in (`after`, `to`].
    pub fn changes(&self, after: Index, to: Index) -> Vec<Index> {
        let from = after.max(self.base.index);
        self.entries
            .range((from.0 - self.base.index.0).min(self.entries.len() as u64) as usize..)
            .take_while(|entry| entry.index <= to)
            .filter(|entry| matches!(entry.payload, Payload::Change(_)))
            .map(|entry| entry.index)
            .collect()
    }

    /// The last place at or before `index` with a term of at most `term`: where two logs may still agree, seen
    /// from the one that lacks the other's (`index`, `term`). The term is 0 where it is no longer known.
    pub fn agree_at_most(&self, index: Index, term: Term) -> LogId {
        let mut at = index.min(self.last().index);
        while at > self.base.index {
            match self.term_at(at) {
                Some(own) if own <= term => return LogId { term: own, index: at },
                Some(_) | None => at = at.prev(),
            }
        }
        LogId { term: self.term_at(at).unwrap_or_default(), index: at }
    }

    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index.next(), "the log has no gap");
        assert!(entry.term >= last.term, "terms never go down along the log");
        self.bytes += entry.size();
        self.uncommitted_bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Takes a leader's entries: skips those that are here, and drops what conflicts with the first that is not
    /// (Raft figure 2). They begin at or before the log's end + 1. Err(index) is where they contradict what is
    /// committed; then nothing was changed.
    pub fn merge(&mut self, entries: Vec<Entry>) -> Result<(), Index> {
        let known =
            |entry: &Entry| entry.index < self.base.index || self.term_at(entry.index) == Some(entry.term);
        let Some(at) = entries.iter().position(|entry| !known(entry)) else {
            return Ok(());
        };
        let first = entries[at].index;
        if first <= self.commit {
            return Err(first);
        }
        self.truncate_from(first);
        entries.into_iter().skip(at).for_each(|entry| self.append(entry));
        Ok(())
    }

    fn truncate_from(&mut self, first: Index) {
        assert!(first > self.commit, "what is committed stays");
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.index >= first) {
            self.bytes -= entry.size();
            self.uncommitted_bytes -= entry.size();
        }
        self.cut_back(first.prev());
    }

    /// What lies behind `keep` in this log has been replaced, on the disk and in all writes under way.
    fn cut_back(&mut self, keep: Index) {
        self.offered = self.offered.min(keep);
        self.durable = self.durable.min(keep);
        for write in &mut self.writes {
            write.covers = write.covers.min(keep);
        }
    }

    /// Raises the commit index, if it is a raise.
    pub fn commit_to(&mut self, index: Index) {
        assert!(index <= self.last().index, "only what is in the log commits");
        while self.commit < index {
            self.commit = self.commit.next();
            self.uncommitted_bytes -= self.get(self.commit).map_or(0, Entry::size);
        }
    }

    /// Replaces the whole log by a snapshot that is ahead of the commit index.
    pub fn restore(&mut self, snapshot: Snapshot) {
        let last = snapshot.meta.last;
        assert!(last.index > self.commit, "a snapshot never takes back what is committed");
        self.cut_back(self.commit);
        self.entries.clear();
        self.bytes = 0;
        self.uncommitted_bytes = 0;
        self.base = last;
        self.offered = last.index;
        self.commit = last.index;
        self.handed = last.index;
        self.installing = Some(last.index);
        self.snapshot = Some(snapshot);
    }

    /// Drops entries up to `index`, which are applied.
    pub fn compact(&mut self, index: Index) {
        assert!(index <= self.applied, "what is not applied stays");
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= index) {
            self.bytes -= entry.size();
            self.base = LogId { term: entry.term, index: entry.index };
        }
    }

    /// Whether the state machine may have got this far.
    pub fn applied_to(&mut self, index: Index) -> bool {
        let possible = index >= self.applied && index <= self.handed;
        if possible {
            self.applied = index;
        }
        possible
    }

    /// The next entries to apply: committed and durable, each given once.
    pub fn take_committed(&mut self, bytes_max: usize) -> Vec<Entry> {
        let to = self.commit.min(self.durable);
        if to <= self.handed {
            return Vec::new();
        }
        let entries = self.slice(self.handed.next(), to, bytes_max);
        self.handed = entries.last().map_or(self.handed, |entry| entry.index);
        entries
    }

    /// The next write, if anything changed since the last.
    pub fn take_batch(&mut self, term: Term, vote: Option<NodeId>) -> Batch {
        let hard = HardState { term, vote, commit: self.commit };
        let mut batch = Batch { snapshot: self.snapshot.take(), ..Batch::default() };
        let last = self.last().index;
        if self.offered < last {
            batch.entries = self.slice(self.offered.next(), last, usize::MAX);
            self.offered = last;
        }
        let promises = (hard.term, hard.vote) != (self.written.term, self.written.vote);
        if hard != self.written {
            self.written = hard;
            batch.hard = Some(hard);
        }
        if promises || batch.snapshot.is_some() || !batch.entries.is_empty() {
            self.last_id = PersistId(self.last_id.0 + 1);
            let id = self.last_id;
            self.writes.push_back(Write { id, term, vote, covers: last, since: self.clock });
            batch.persist = Some(id);
        }
        batch
    }

    /// Takes the disk's acknowledgement of this write and all before it. False if there was no such write.
    pub fn persisted(&mut self, id: PersistId) -> bool {
        if id > self.last_id {
            return false;
        }
        while let Some(write) = self.writes.pop_front_if(|write| write.id <= id) {
            self.durable = self.durable.max(write.covers);
            self.durable_vote = (write.term, write.vote);
        }
        if self.installing.is_some_and(|index| index <= self.durable) {
            self.installing = None;
        }
        assert!(self.durable <= self.offered, "only what was written is durable");
        true
    }

    /// Whether this term and vote would survive a crash.
    pub fn vote_durable(&self, term: Term, vote: Option<NodeId>) -> bool {
        self.durable_vote == (term, vote)
    }

    pub fn tick(&mut self) {
        self.clock += 1;
    }

    /// How many ticks the oldest write has been under way.
    pub fn oldest_write(&self) -> u64 {
        self.writes.front().map_or(0, |write| self.clock - write.since)
    }
}
