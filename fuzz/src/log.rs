//! The log: segments of any bytes, and valid logs with damage.

use std::{collections::BTreeSet, path::PathBuf};

use arbitrary::Result;
use kontiki::{
    error::Fault,
    raft::{Entry, HardState, LogId, Payload},
    storage::{
        Disk, MemDisk,
        wal::{self, Options, Wal},
    },
    types::Index,
    wire::{
        raft::{decode_entry, encode_entry},
        raftpb, walpb,
    },
};
use prost::Message as _;

use super::{
    arb::{self, Source, one, upto},
    wal_model::{IDENTITY, Model, Op, choices, dir, operation, options, run, used},
};

const ENTRY: u8 = 2;

/// A segment in the making, by the format's description rather than by the writer that is tried.
struct Segment {
    seq: u64,
    bytes: Vec<u8>,
}

impl Segment {
    /// Adds a record. `durable` makes it one of ours, with a mark.
    fn push(&mut self, kind: u8, data: &[u8], chain: &mut u32, ours: bool, durable: Option<u64>) {
        let offset = self.bytes.len() as u64;
        if kind != 4 {
            *chain = crc32c::crc32c_append(*chain, data);
        }
        let mut record = vec![8, kind, 16];
        prost::encoding::encode_varint((*chain).into(), &mut record);
        if !data.is_empty() {
            prost::encoding::bytes::encode(3, &data.to_vec(), &mut record);
        }
        if ours {
            if let Some(durable) = durable {
                prost::encoding::uint64::encode(100, &durable, &mut record);
            }
            let mut checked = [self.seq, offset, kind.into()].map(u64::to_le_bytes).concat();
            checked.extend(chain.to_le_bytes());
            checked.extend(durable.unwrap_or(u64::MAX).to_le_bytes());
            prost::encoding::fixed32::encode(101, &crc32c::crc32c(&checked), &mut record);
        }
        let pad = (8 - record.len() % 8) % 8;
        let flag = if pad == 0 { 0 } else { 0x80 | pad as u64 };
        self.bytes.extend((record.len() as u64 | flag << 56).to_le_bytes());
        record.resize(record.len() + pad, 0);
        self.bytes.extend(record);
    }
}

/// One record's kind and data, most of them sound.
fn record(u: &mut Source<'_>, index: &mut u64) -> Result<(u8, Vec<u8>)> {
    Ok(match upto(u, 11)? {
        0..=4 => {
            *index = index.saturating_add_signed(i64::from(u.int_in_range(-2_i8..=2)?) + 1);
            let wire = raftpb::Entry {
                term: upto(u, 9)?,
                index: *index,
                r#type: one(u, &[0, 0, 0, 1, 2, 3])?,
                data: Some(arb::bytes(u, 40)?),
            };
            (ENTRY, wire.encode_to_vec())
        }
        5 | 6 => {
            let wire = raftpb::HardState { term: upto(u, 9)?, vote: upto(u, 3)?, commit: upto(u, 20)? };
            (3, wire.encode_to_vec())
        }
        7 => {
            let config = u.arbitrary::<bool>()?.then(walpb::ConfState::default);
            let wire = walpb::Snapshot { index: upto(u, 20)?, term: upto(u, 9)?, conf_state: config };
            (5, wire.encode_to_vec())
        }
        8 => (4, Vec::new()),
        9 => (1, arb::bytes(u, 4)?.to_vec()),
        _ => (upto(u, 7)? as u8, arb::bytes(u, 20)?.to_vec()),
    })
}

fn segments(u: &mut Source<'_>) -> Result<Vec<Segment>> {
    let (mut chain, mut index) = (0, 0);
    let count = 1 + upto(u, 2)?;
    (0..count)
        .map(|seq| {
            let mut segment = Segment { seq, bytes: Vec::new() };
            let ours = u.arbitrary()?;
            if upto(u, 30)? < 30 {
                segment.push(4, &[], &mut chain, ours, Some(0));
                segment.push(1, &[8, 1, 16, 2], &mut chain, ours, None);
            }
            if seq == 0 {
                segment.push(5, &walpb::Snapshot::default().encode_to_vec(), &mut chain, ours, None);
            }
            for _ in 0..upto(u, 12)? {
                let (kind, data) = record(u, &mut index)?;
                let mark = if u.arbitrary()? { Some(upto(u, segment.bytes.len() as u64 + 9)?) } else { None };
                segment.push(kind, &data, &mut chain, ours, mark);
            }
            if u.arbitrary()? {
                segment.bytes.resize(segment.bytes.len() + 600, 0);
            }
            Ok(segment)
        })
        .collect()
}

/// Damage of one place: what it did is `bytes[from..to]`.
struct Damage {
    from: usize,
    to: usize,
}

fn damage(u: &mut Source<'_>, bytes: &mut Vec<u8>, used: usize) -> Result<Damage> {
    let from = upto(u, used.saturating_sub(1) as u64)? as usize;
    let len = one(u, &[1, 2, 8, 60, 512, 1024])?;
    let mut to = (from + len).min(bytes.len());
    match upto(u, 4)? {
        0 => bytes[from..to].fill(0),
        1 => {
            to = bytes.len();
            bytes.truncate(from);
        }
        2 => {
            let source = upto(u, used as u64)? as usize;
            let end = (source + to - from).min(bytes.len());
            to = from + (end - source);
            bytes.copy_within(source..end, from);
        }
        _ => {
            let mask = u.int_in_range(1..=255)?;
            bytes[from..to].iter_mut().for_each(|byte| *byte ^= mask);
        }
    }
    Ok(Damage { from, to })
}

/// Recovery of any segments: it answers, and with nothing but what a record held.
pub fn wal_bytes(u: &mut Source<'_>) -> Result<()> {
    let disk = MemDisk::new();
    let mut written = BTreeSet::new();
    for segment in segments(u)? {
        let first = upto(u, 12)?.min(segment.seq * 12);
        let mut bytes = segment.bytes;
        let mut chain = None;
        for (kind, data) in records(&bytes) {
            chain = Some(kind);
            if kind == ENTRY
                && let Ok(entry) = decode_entry(&data[..])
            {
                let again = decode_entry(&encode_entry(&entry)[..]);
                assert_eq!(again.as_ref(), Ok(&entry), "an entry is read as it was written");
                written.insert(encode_entry(&entry));
            }
        }
        if chain.is_some() && upto(u, 9)? == 9 {
            let used = used(&bytes) as usize;
            damage(u, &mut bytes, used)?;
        }
        let name = format!("{:016x}-{first:016x}.wal", segment.seq);
        disk.put(&dir().join(name), &bytes).expect("the disk is on");
    }
    let surveyed = wal::survey(&disk, &dir());
    let before = all(&disk);
    let (wal, found) = match Wal::open(disk.clone(), &dir(), options()) {
        Ok(opened) => opened,
        Err(Fault::Io { what, source }) => panic!("the disk is sound, but {what}: {source}"),
        Err(Fault::Corrupt(_) | Fault::Refused(_)) => {
            assert_eq!(before, all(&disk), "nothing is changed where nothing is recovered");
            return Ok(());
        }
    };
    let surveyed = surveyed.expect("what opens can be surveyed");
    assert_eq!((surveyed.marks, surveyed.torn), (found.marks.clone(), found.repaired.clone()));
    let mut due = found.start.last.index;
    for entry in &found.entries {
        due = due.next();
        assert_eq!(entry.index, due, "entries have no gap");
        assert!(written.contains(&encode_entry(entry)), "{entry:?} was never written");
    }
    assert!(found.hard_state.commit <= due, "the log is short of its commit index");
    drop(wal);
    let (mut wal, again) = Wal::open(disk.clone(), &dir(), options()).expect("what was opened opens again");
    assert_eq!(again, wal::Recovered { repaired: None, ..found });
    let entry = Entry {
        term: again.hard_state.term,
        index: wal.last_index().next(),
        payload: Payload::Command("new".into()),
    };
    wal.append(std::slice::from_ref(&entry), None, true).expect("the disk is on");
    let written_at = wal.last_index();
    drop(wal);
    disk.crash(choices(2));
    let (_, found) = Wal::open(disk, &dir(), options()).expect("what was written opens");
    if found.start.last.index < written_at {
        assert_eq!(found.entries.last(), Some(&entry), "an acknowledged entry is there");
    }
    Ok(())
}

/// The records of a segment, as far as their frames go.
fn records(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    #[derive(prost::Message)]
    struct Record {
        #[prost(uint32, tag = "1")]
        kind: u32,
        #[prost(bytes, tag = "3")]
        data: Vec<u8>,
    }
    let (mut at, mut found) = (0, Vec::new());
    while let Some(head) = bytes.get(at..at + 8).and_then(|head| head.try_into().ok()).map(u64::from_le_bytes)
    {
        let len = (head & 0xff_ffff) as usize;
        let Some(body) = bytes.get(at + 8..at + 8 + len).filter(|body| !body.is_empty()) else { break };
        if let Ok(record) = Record::decode(body) {
            found.push((record.kind as u8, record.data));
        }
        at += 8 + len + (head >> 56 & 7) as usize;
    }
    found
}

/// Every file of the log.
fn all(disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(&dir()).unwrap_or_default();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&dir().join(&name)).unwrap_or_default()))
        .collect()
}

/// Where a batch ended.
struct End {
    tail: PathBuf,
    offset: u64,
    /// Whether all before it was durable when it was written, so that its mark says so.
    marked: bool,
    /// Where it began, if in the same segment.
    start: u64,
    records: usize,
}

fn tail(disk: &MemDisk) -> PathBuf {
    let names = disk.list(&dir()).expect("the log is there");
    let last = names.iter().rfind(|name| name.ends_with(".wal"));
    dir().join(last.expect("a log has a segment"))
}

/// A log of many batches, whole on the disk.
fn written(u: &mut Source<'_>, disk: &MemDisk) -> Result<(Model, Vec<End>)> {
    let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("the disk is on");
    let mut model = Model::default();
    let mut ends = Vec::new();
    for _ in 0..1 + upto(u, 23)? {
        let op = operation(&model, wal.last_index().0, (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?));
        let (marked, before) = (wal.is_synced(), tail(disk));
        let start = used(&disk.contents(&before).expect("it is there"));
        model.begin(&op);
        run(&mut wal, &op).expect("the disk is on");
        model.end(&op);
        let tail = tail(disk);
        let offset = used(&disk.contents(&tail).expect("it is there"));
        if offset != start || tail != before {
            let start = if tail == before { start } else { 0 };
            let marked = marked && matches!(op, Op::Append(..) | Op::Mark(..));
            ends.push(End { tail, offset, marked, start, records: model.records.len() });
        }
    }
    drop(wal);
    disk.crash(|outcomes| outcomes - 1);
    Ok((model, ends))
}

type Log = (HardState, LogId, Vec<Entry>);

/// A valid log with one place damaged: what opens is a prefix of what was written, and one that was vouched for
/// is never shorter.
pub fn wal_mutated(u: &mut Source<'_>) -> Result<()> {
    let disk = MemDisk::new();
    let (model, ends) = written(u, &disk)?;
    let names = disk.list(&dir()).expect("the log is there");
    let segments: Vec<&String> = names.iter().filter(|name| name.ends_with(".wal")).collect();
    let path = dir().join(one(u, &segments)?);
    let mut bytes = disk.contents(&path).expect("it is there");
    let used = used(&bytes) as usize;
    let damage = damage(u, &mut bytes, used)?;
    disk.put(&path, &bytes).expect("the disk is on");
    let found = match Wal::open(disk, &dir(), Options { start: None, ..options() }) {
        Ok((_, found)) => found,
        Err(Fault::Corrupt(_)) => return Ok(()),
        Err(fault) => panic!("the log is there and the disk is on, but {fault}"),
    };
    let log: Log = (found.hard_state, found.start.last, found.entries);
    let kept = kept(&path, &damage, &model, &ends);
    let fits = (kept..=model.records.len()).any(|records| model.after(records) == log);
    assert!(fits, "{log:?}\nis no prefix of at least {kept} records of\n{model:?}");
    if let Some(entry) = log.2.first() {
        assert!(entry.index > Index(0));
    }
    Ok(())
}

/// How many records must be there after the damage, if the log opens.
fn kept(path: &PathBuf, damage: &Damage, model: &Model, ends: &[End]) -> usize {
    let all = model.records.len();
    let Some(last) = ends.last() else { return all };
    if *path != last.tail {
        return all;
    }
    // The last batch is whole, and says that all before it was durable.
    if last.marked && (damage.to as u64) <= last.start {
        return all;
    }
    let before = ends.iter().rfind(|end| end.tail != *path || end.offset <= damage.from as u64);
    before.map_or(0, |end| end.records)
}
