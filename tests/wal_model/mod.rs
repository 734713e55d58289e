//! A naive model of the log: all records that were written, and how many of them are durable for sure.

use std::path::PathBuf;

use bytes::Bytes;
use kontiki::{
    error::Fault,
    raft::{ConfState, Entry, HardState, LogId, Payload, SnapshotMeta},
    storage::{
        MemDisk,
        wal::{Identity, Options, Recovered, Wal},
    },
    types::{ClusterId, Index, NodeId, Term},
};

pub const IDENTITY: Identity = Identity { node: NodeId(0xbf0c), cluster: ClusterId(0xbdc7) };

pub fn dir() -> PathBuf {
    PathBuf::from("data/member/wal")
}

pub fn options() -> Options {
    Options { segment_bytes: 1500, wals_max: 1, ..Options::default() }
}

/// Splitmix64: choices for a crash.
pub fn choices(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move |n| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Often nothing, often everything, else anything.
        match seed % 4 {
            0 => 0,
            1 => n - 1,
            _ => (z ^ (z >> 31)) % n,
        }
    }
}

pub fn entry(term: u64, index: u64, len: usize) -> Entry {
    let payload = match len {
        0 => Payload::Empty,
        len => Payload::Command(Bytes::from(vec![b'a' + (index % 26) as u8; len])),
    };
    Entry { term: Term(term), index: Index(index), payload }
}

pub fn hard(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: Some(NodeId(term)), commit: Index(commit) }
}

pub fn meta(term: u64, index: u64) -> SnapshotMeta {
    let config = ConfState { voters: [NodeId(0xbf0c)].into(), ..ConfState::default() };
    SnapshotMeta { last: LogId { term: Term(term), index: Index(index) }, config }
}

/// What is asked of a log.
#[derive(Clone, Debug)]
pub enum Op {
    Append(Vec<Entry>, Option<HardState>, bool),
    Mark(SnapshotMeta, Option<HardState>),
    Sync,
    Purge(u64),
}

/// A record as the model has it.
#[derive(Clone, Debug)]
pub enum Rec {
    Entry(Entry),
    State(HardState),
    Mark(LogId),
}

/// The naive model: all records, and how many are durable for sure.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub records: Vec<Rec>,
    pub acked: usize,
    hard: HardState,
}

impl Model {
    pub fn begin(&mut self, op: &Op) {
        match op {
            Op::Append(entries, hard, _) => {
                self.records.extend(entries.iter().cloned().map(Rec::Entry));
                self.state(*hard);
            }
            Op::Mark(meta, hard) => {
                self.records.push(Rec::Mark(meta.last));
                let mut hard = hard.unwrap_or(self.hard);
                hard.commit = hard.commit.max(meta.last.index);
                self.state((hard != self.hard).then_some(hard));
            }
            Op::Sync | Op::Purge(_) => {}
        }
    }

    fn state(&mut self, hard: Option<HardState>) {
        self.records.extend(hard.map(Rec::State));
        self.hard = hard.unwrap_or(self.hard);
    }

    pub fn end(&mut self, op: &Op) {
        if matches!(op, Op::Append(_, _, true) | Op::Mark(..) | Op::Sync) {
            self.acked = self.records.len();
        }
    }

    /// The log after the first `n` records: state, start and entries.
    pub fn after(&self, n: usize) -> (HardState, LogId, Vec<Entry>) {
        let records = &self.records[..n];
        let states =
            records.iter().filter_map(|rec| if let Rec::State(hard) = rec { Some(*hard) } else { None });
        let mut hard = states.last().unwrap_or_default();
        let mut start = LogId::default();
        let mut log: Vec<Entry> = Vec::new();
        for rec in records {
            match rec {
                Rec::Entry(entry) => {
                    log.retain(|old| old.index < entry.index);
                    log.push(entry.clone());
                }
                Rec::State(_) => {}
                Rec::Mark(id) if id.index > hard.commit => {}
                Rec::Mark(id) => {
                    if !log.iter().any(|old| old.index == id.index && old.term == id.term) {
                        log.clear();
                    }
                    start = start.max(*id);
                }
            }
        }
        log.retain(|entry| entry.index > start.index);
        if let Some(last) = log.last().filter(|last| last.term > hard.term) {
            hard = HardState { term: last.term, vote: None, commit: hard.commit };
        }
        (hard, start, log)
    }

    /// What may be left after a crash, seeing `found`: all that was acknowledged and some of what came behind it.
    /// Several, since a mark without its state can't be seen until the commit index has reached it.
    pub fn survivors(&self, found: &Recovered) -> Vec<Self> {
        let found = (found.hard_state, found.start.last, found.entries.clone());
        let fits = (self.acked..=self.records.len()).filter(|n| self.after(*n) == found);
        fits.map(|n| {
            let mut left = self.clone();
            left.keep(n);
            left
        })
        .collect()
    }

    /// Forgets what a crash has lost.
    fn keep(&mut self, n: usize) {
        self.records.truncate(n);
        self.acked = n;
        let states =
            self.records.iter().filter_map(|rec| if let Rec::State(hard) = rec { Some(*hard) } else { None });
        self.hard = states.last().unwrap_or_default();
    }
}

pub fn run(wal: &mut Wal<MemDisk>, op: &Op) -> Result<(), Fault> {
    match op {
        Op::Append(entries, hard, sync) => wal.append(entries, *hard, *sync),
        Op::Mark(meta, hard) => wal.save_snapshot_mark(meta, *hard),
        Op::Sync => wal.sync(),
        Op::Purge(index) => {
            wal.release_to(Index(*index));
            wal.purge().map(|_| ())
        }
    }
}

/// Turns numbers into an operation that raft could ask for.
pub fn operation(model: &Model, last: u64, (kind, a, b): (u8, u8, u16)) -> Op {
    let (state, start, _) = model.after(model.records.len());
    let commit = state.commit.0;
    let term = state.term.0.max(1) + u64::from(a == 0);
    let sync = b % 3 != 0;
    match kind % 8 {
        0..5 => {
            // Now and then over what is there, as a new leader does.
            let first = if a < 40 { (commit + 1).max(start.index.0 + 1) } else { last + 1 };
            let term = term + u64::from(a < 40);
            let entries = (first..first + u64::from(a % 5) + 1).map(|i| entry(term, i, usize::from(b % 700)));
            Op::Append(entries.collect(), (kind % 2 == 0 || a < 40).then(|| hard(term, commit)), sync)
        }
        5 => Op::Append(
            vec![],
            Some(hard(term, commit + (last - commit) * u64::from(a) / 255)),
            sync || a == 0,
        ),
        6 if a < 60 => {
            let index = last + u64::from(a) + 1;
            Op::Mark(meta(term, index), Some(hard(term, index)))
        }
        6 => {
            let entries = model.after(model.records.len()).2;
            match entries.iter().find(|entry| entry.index.0 == commit) {
                Some(entry) => Op::Mark(meta(entry.term.0, commit), None),
                None => Op::Sync,
            }
        }
        _ => Op::Purge(start.index.0),
    }
}

/// The end of the last frame in a segment.
pub fn used(bytes: &[u8]) -> u64 {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 8) {
        let head = u64::from_le_bytes(head.try_into().expect("8 bytes"));
        if head == 0 {
            break;
        }
        at += 8 + (head & 0xff_ffff) as usize + (head >> 56 & 7) as usize;
    }
    at as u64
}
