//! The log's bytes against etcd's own (`tests/fixtures/disk`), and etcd's rule for its torn ends.

#![allow(clippy::disallowed_methods, reason = "fixtures are read from the repository")]

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    Options, RECORD_MAX, Wal,
    frame::{Encoder, Kind, Reader},
    segment::{self, Name},
};
use crate::{
    error::Fault,
    raft::{Entry, HardState, Payload},
    storage::MemDisk,
    types::Index,
    wire::{
        raft::{decode_entry, encode_entry},
        raftpb, walpb,
    },
};
use prost::Message as _;

const FIRST: &str = "0000000000000000-0000000000000000.wal";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/disk").join(name)).expect(name)
}

fn described(name: &str) -> Value {
    serde_json::from_slice(&fixture(&format!("{name}.json"))).expect("the fixture's description")
}

fn kind_of(text: &str) -> Kind {
    match text {
        "crc" => Kind::Crc,
        "metadata" => Kind::Metadata,
        "entry" => Kind::Entry,
        "state" => Kind::State,
        "snapshot" => Kind::Snapshot,
        other => panic!("unknown record type {other}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// Reads a fixture as described, writes the same records, and compares the bytes.
fn round_trip(name: &str, seq: u64) {
    let (bytes, json) = (fixture(&format!("{name}.wal")), described(name));
    let seed = u32::from_str_radix(json["seed_crc"].as_str().unwrap_or("0"), 16).expect("hex");
    let mut reader = Reader::new(&bytes, seq, None);
    let mut encoder = Encoder { stamped: false, ..Encoder::new(seq, 0, seed) };
    for expected in json["records"].as_array().expect("records") {
        let (offset, record) = reader.next().expect("a whole record").expect("a record");
        assert_eq!(offset as u64, expected["offset"], "{name}");
        assert_eq!(record.kind, kind_of(expected["type"].as_str().expect("type")));
        assert_eq!(format!("{:08x}", record.crc), expected["crc"]);
        assert_eq!(record.data.map(<[u8]>::to_vec), expected["data_hex"].as_str().map(unhex));
        assert!(!record.ours && record.durable.is_none());
        let data = record.data.map(|data| recode(record.kind, data));
        encoder.push(record.kind, data.as_deref(), None);
    }
    assert_eq!(reader.next(), Ok(None));
    assert_eq!(reader.offset as u64, json["end_offset"]);
    assert_eq!(format!("{:08x}", reader.chain.unwrap_or(0)), json["last_crc"]);
    assert!(encoder.out == bytes[..reader.offset], "{name}: other bytes than etcd's");
}

/// Decodes a record's data into our types and encodes those.
fn recode(kind: Kind, data: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Entry => encode_entry(&decode_entry(data).expect("an entry")),
        Kind::State => {
            let wire = raftpb::HardState::decode(data).expect("a state");
            raftpb::HardState::from(&HardState::try_from(wire).expect("a state")).encode_to_vec()
        }
        Kind::Snapshot => {
            let wire = walpb::Snapshot::decode(data).expect("a mark");
            let meta = crate::raft::SnapshotMeta::try_from(wire).expect("a mark");
            walpb::Snapshot::from(&meta).encode_to_vec()
        }
        Kind::Metadata => walpb::Metadata::decode(data).expect("metadata").encode_to_vec(),
        Kind::Crc => data.to_vec(),
    }
}

#[test]
fn etcds_segments_come_out_as_they_went_in() {
    round_trip("wal-0", 0);
    round_trip("wal-1-segment-head", 1);
    round_trip("wal-joined-by-snapshot", 0);
}

fn dir() -> PathBuf {
    PathBuf::from("member/wal")
}

fn options() -> Options {
    Options { segment_bytes: 4096, ..Options::default() }
}

fn etcds(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new();
    disk.put(&dir().join(FIRST), bytes).expect("put");
    disk
}

#[test]
fn a_log_of_etcd_is_opened_and_continued() {
    let disk = etcds(&fixture("wal-0.wal"));
    let (mut wal, found) = Wal::open(disk.clone(), &dir(), options()).expect("open");
    assert_eq!(format!("{}", found.identity.node), "bf0cc0850d55cb3c");
    assert_eq!(format!("{}", found.identity.cluster), "bdc787b862ba4cb0");
    let indices: Vec<u64> = found.entries.iter().map(|entry| entry.index.0).collect();
    let from = found.start.last.index.0;
    assert_eq!(indices, (from + 1..=29).collect::<Vec<_>>());
    assert_eq!((found.hard_state.commit, found.marks.len(), found.repaired), (Index(29), 3, None));
    let mut next = found.entries.last().expect("entries").clone();
    next.index = Index(30);
    wal.append(std::slice::from_ref(&next), None, true).expect("append");
    drop(wal);
    let (_, again) = Wal::open(disk, &dir(), options()).expect("open again");
    assert_eq!(again.entries.last(), Some(&next));
    assert_eq!(again.entries.len(), found.entries.len() + 1);
}

#[test]
fn a_member_that_joined_by_snapshot_starts_behind_it() {
    let disk = etcds(&fixture("wal-joined-by-snapshot.wal"));
    let (_, found) = Wal::open(disk, &dir(), options()).expect("open");
    assert_eq!(found.start.last.index, Index(5606));
    assert_eq!(found.start.config.voters.len(), 2);
    assert_eq!(found.entries.first().map(|entry| entry.index), Some(Index(5607)));
}

/// A record of etcd's that is wrong is corrupt; one of ours may be half written. Where ours begin is marked when such a
/// log is opened, and nothing is written where they have begun.
#[test]
fn from_its_first_start_on_our_rule_holds_for_a_log_of_etcd() {
    let path = dir().join(FIRST);
    let disk = etcds(&fixture("wal-0.wal"));
    let contents = |disk: &MemDisk| {
        let bytes = disk.contents(&path).expect("it is there");
        bytes[..segment::used(&bytes)].to_vec()
    };
    let etcds = contents(&disk);
    let (wal, found) = Wal::open(disk.clone(), &dir(), options()).expect("open");
    drop(wal);
    let marked = contents(&disk);
    assert!(marked.starts_with(&etcds) && marked.len() > etcds.len());
    let (mut wal, _) = Wal::open(disk.clone(), &dir(), options()).expect("open");
    assert_eq!(contents(&disk), marked, "it was marked already");
    let last = found.entries.last().expect("entries");
    let next = Entry { index: last.index.next(), ..last.clone() };
    wal.append(&[next], None, true).expect("append");
    drop(wal);
    // Nothing vouches for the newest batch.
    disk.rot(&path, marked.len() as u64 + 12, 1).expect("rot");
    let (_, again) = Wal::open(disk.clone(), &dir(), options()).expect("it is torn");
    assert!(again.repaired.is_some());
    assert_eq!(again.entries, found.entries);
    disk.rot(&path, marked.len() as u64 - 20, 1).expect("rot");
    assert!(matches!(Wal::open(disk, &dir(), options()), Err(Fault::Corrupt(_))), "the mark itself");
}

/// A length that the file has no room for is one that was cut off, unless no record can be so long.
#[test]
fn a_length_is_below_the_limit() {
    let whole = fixture("wal-0.wal");
    let mut reader = Reader::new(&whole, 0, None);
    while reader.next().expect("sound").is_some() {}
    let with = |len: u64| {
        let bytes = [&whole[..reader.offset], &len.to_le_bytes(), &[1; 64]].concat();
        Wal::open(etcds(&bytes), &dir(), options()).map(|(_, found)| found.repaired)
    };
    for len in [RECORD_MAX - 8, RECORD_MAX - 16, 1 << 20] {
        assert!(with(len).expect("cut").is_some_and(|what| what.contains("ends inside a record")), "{len}");
    }
    for len in [RECORD_MAX, RECORD_MAX + 8, 1 << 40] {
        assert!(matches!(with(len), Err(Fault::Corrupt(what)) if what.contains("a length field is wrong")));
    }
    // A length's flag says how many zeros follow it.
    assert!(
        matches!(with(1 << 20 | 0x81 << 56), Err(Fault::Corrupt(what)) if what.contains("a length field"))
    );
}

/// The last two of wal-0's records are an entry at 3152 and a state at 3200; damage them in several ways.
#[test]
fn without_marks_etcds_rule_tells_torn_from_corrupt() {
    let whole = fixture("wal-0.wal");
    let open = |bytes: &[u8]| Wal::open(etcds(bytes), &dir(), options()).map(|(_, found)| found);
    let cut = open(&whole[..3230]).expect("a cut record is torn");
    assert_eq!((cut.hard_state.commit, cut.entries.last().map(|e| e.index)), (Index(28), Some(Index(29))));
    assert!(cut.repaired.expect("repaired").contains("offset 3200"));
    let mut stray = whole[..3240].to_vec();
    stray.extend_from_slice(&[1, 2, 3]);
    assert!(open(&stray).expect("a partial length is torn").repaired.is_some());
    let mut hole = whole.clone();
    hole[2048..2560].fill(0);
    assert!(open(&hole).expect("an empty sector is torn").repaired.is_some());
    let mut garbage = whole.clone();
    garbage[3220] ^= 1;
    let fault = open(&garbage).expect_err("another byte is corrupt");
    assert!(
        matches!(&fault, Fault::Corrupt(text) if text.contains("offset 3200") && text.contains("index 29")),
        "{fault}"
    );
    let mut head = whole;
    head[0x30..0x38].fill(0);
    assert!(matches!(open(&head), Err(Fault::Corrupt(_))), "the head is never torn");
}

/// A record over several sectors, of which one was never written, and one that rotted.
#[test]
fn without_marks_an_empty_sector_inside_a_record_is_torn() {
    let whole = fixture("wal-0.wal");
    let mut reader = Reader::new(&whole, 0, None);
    let mut last = None;
    while let Some((_, record)) = reader.next().expect("sound") {
        if record.kind == Kind::Entry {
            last = Some(decode_entry(record.data.expect("an entry has data")).expect("an entry"));
        }
    }
    let mut entry = last.expect("it has entries");
    entry.index = entry.index.next();
    entry.payload = Payload::Command(vec![7; 4000].into());
    let (end, chain) = (reader.offset, reader.chain.expect("it has records"));
    let mut encoder = Encoder { stamped: false, ..Encoder::new(0, end as u64, chain) };
    encoder.push(Kind::Entry, Some(&encode_entry(&entry)), None);
    let bytes = [&whole[..end], &encoder.out].concat();
    let sector = end.next_multiple_of(512) + 512;
    let with = |zeros: std::ops::Range<usize>| {
        let mut bytes = bytes.clone();
        bytes[zeros].fill(0);
        Wal::open(etcds(&bytes), &dir(), options()).map(|(_, found)| found)
    };
    assert_eq!(with(0..0).expect("sound").entries.last(), Some(&entry));
    let torn = with(sector..sector + 512).expect("a sector is empty");
    assert!(torn.repaired.is_some() && torn.entries.last().map(|e| e.index.next()) == Some(entry.index));
    for rotten in [sector..sector + 511, sector + 1..sector + 512, sector + 256..sector + 768] {
        assert!(matches!(with(rotten.clone()), Err(Fault::Corrupt(_))), "{rotten:?}");
    }
}

/// What a record's own checksum covers besides its bytes: its segment, its place, its mark.
#[test]
fn a_record_of_ours_belongs_where_it_is() {
    let mut encoder = Encoder::new(5, 0, 0);
    encoder.push(Kind::Crc, None, Some(0));
    let read =
        |bytes: &[u8], seq| Reader::new(bytes, seq, None).next().map(|record| record.map(|(_, r)| r.ours));
    assert_eq!(read(&encoder.out, 5), Ok(Some(true)));
    assert!(read(&encoder.out, 6).is_err(), "another segment");
    let mut moved = Encoder::new(5, 64, 0);
    moved.push(Kind::Crc, None, Some(0));
    assert!(read(&moved.out, 5).is_err(), "another place");
    let mut marked = Encoder::new(5, 0, 0);
    marked.push(Kind::Crc, None, Some(1));
    let at = encoder.out.iter().zip(&marked.out).position(|(a, b)| a != b).expect("the mark differs");
    let mut forged = encoder.out.clone();
    forged[at] = marked.out[at];
    assert!(read(&forged, 5).is_err(), "another mark");
}

/// wal-0 with one more record.
fn with_one_more(kind: Kind, data: &[u8]) -> Result<super::Recovered, Fault> {
    let whole = fixture("wal-0.wal");
    let mut reader = Reader::new(&whole, 0, None);
    while reader.next().expect("sound").is_some() {}
    let chain = reader.chain.expect("it has records");
    let mut encoder = Encoder { stamped: false, ..Encoder::new(0, reader.offset as u64, chain) };
    encoder.push(kind, Some(data), None);
    let bytes = [&whole[..reader.offset], &encoder.out].concat();
    Wal::open(etcds(&bytes), &dir(), options()).map(|(_, found)| found)
}

#[test]
fn what_is_wrong_with_a_sound_record_is_said() {
    for (kind, what) in
        [(Kind::Entry, "an entry"), (Kind::State, "a state"), (Kind::Snapshot, "a snapshot mark")]
    {
        let Err(Fault::Corrupt(text)) = with_one_more(kind, b"\xff") else { panic!("{kind:?} is taken") };
        assert!(text.contains(&format!("{what} can't be decoded (")), "{text}");
        assert!(text.contains("after index 29"), "{text}");
    }
    let next = |index| {
        let (term, payload) = (crate::types::Term(9), Payload::Empty);
        encode_entry(&Entry { term, index: Index(index), payload })
    };
    assert_eq!(
        with_one_more(Kind::Entry, &next(30)).expect("sound").entries.last().map(|e| e.index.0),
        Some(30)
    );
    let Err(Fault::Corrupt(text)) = with_one_more(Kind::Entry, &next(31)) else { panic!("it has a gap") };
    assert!(text.contains("entry 31 where 30 should be") && text.contains("after index 29"), "{text}");
}

#[test]
fn names_are_16_lowercase_digits_each() {
    let name = Name { seq: 10, index: Index(0xabc) };
    assert_eq!(Name::parse(&name.text()), Some(name));
    for wrong in [
        "000000000000000A-0000000000000abc.wal",
        "a-abc.wal",
        "000000000000000a-00000000000000abc.wal",
        "000000000000000a-0000000000000abc.wal.broken",
        "000000000000000a.wal",
    ] {
        assert_eq!(Name::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn zeros_at_the_end_are_not_used() {
    for len in [0, 1, 63, 64, 65, 200] {
        for zeros in [0, 1, 63, 64, 65, 200] {
            let bytes = [vec![1; len], vec![0; zeros]].concat();
            assert_eq!(segment::used(&bytes), len);
        }
    }
}
