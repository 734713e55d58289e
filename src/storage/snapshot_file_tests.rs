//! Snapshot files against etcd's own; bodies that are cut, rotten, or caught by a crash.

#![allow(clippy::disallowed_methods, reason = "fixtures are read from the repository")]

use super::*;
use crate::storage::MemDisk;

const NAME: &str = "0000000000000002-000000000000001a.snap";

fn dir() -> PathBuf {
    PathBuf::from("member/snap")
}

fn etcds() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(root.join("tests/fixtures/disk").join(NAME)).expect("the fixture")
}

fn at(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: Index(index) }
}

#[test]
fn etcds_file_reads_and_comes_out_the_same() {
    let disk = MemDisk::new();
    disk.put(&dir().join(NAME), &etcds()).expect("put");
    let snapshot = read_snapshot(&disk, &dir().join(NAME)).expect("read");
    assert_eq!(snapshot.meta.last, at(2, 0x1a));
    assert_eq!((snapshot.meta.config.voters.len(), snapshot.meta.config.learners.len()), (1, 1));
    let json: serde_json::Value = serde_json::from_slice(&snapshot.data).expect("etcd's JSON");
    assert!(json["Root"].is_object());
    let path = write_snapshot(&disk, Path::new("other"), &snapshot).expect("write");
    assert_eq!(path, Path::new("other").join(NAME));
    assert_eq!(disk.contents(&path).expect("contents"), etcds());
}

#[test]
fn the_newest_whole_one_that_the_log_names_is_loaded() {
    let disk = MemDisk::new();
    let snapshot = |term, index| Snapshot {
        meta: SnapshotMeta { last: at(term, index), ..SnapshotMeta::default() },
        data: Bytes::from_static(b"{}"),
    };
    for index in [5, 9, 12, 20] {
        write_snapshot(&disk, &dir(), &snapshot(1, index)).expect("write");
    }
    let marks = [5, 9, 12].map(|index| snapshot(1, index).meta);
    disk.rot(&dir().join(snapshot_name(at(1, 12))), 9, 1).expect("rot");
    let (found, broken) = load_newest_snapshot(&disk, &dir(), &marks).expect("load");
    assert_eq!(found, Some(snapshot(1, 9)));
    assert_eq!(broken, [snapshot_name(at(1, 12))]);
    assert!(disk.exists(&dir().join("0000000000000001-000000000000000c.snap.broken")).expect("exists"));
    purge_snapshots(&disk, &dir(), 2).expect("purge");
    assert_eq!(list_snapshots(&disk, &dir()).expect("list"), [at(1, 20), at(1, 9)]);
    assert_eq!(load_newest_snapshot(&disk, Path::new("none"), &marks).expect("load").0, None);
}

fn body(rows: usize) -> Vec<u8> {
    let mut encoder = BodyEncoder::new(Vec::new(), at(3, 77)).expect("memory");
    for i in 0..rows {
        let table = Table::ALL[i % Table::ALL.len()];
        encoder.push(table, &i.to_be_bytes(), &vec![i as u8; i % 5]).expect("memory");
    }
    encoder.finish().expect("memory")
}

#[test]
fn a_body_comes_back_row_by_row() {
    // Enough for several chunks.
    let bytes = body(40_000);
    let mut reader = BodyReader::new(&bytes[..]).expect("a body");
    assert_eq!(reader.at(), at(3, 77));
    let (mut rows, mut chunks) = (0, 0);
    while let Some(batch) = reader.next_batch().expect("whole") {
        for write in batch.writes {
            let mut expected = Batch::default();
            expected.put(Table::ALL[rows % 10], rows.to_be_bytes().to_vec(), vec![rows as u8; rows % 5]);
            assert_eq!(expected.writes, [write]);
            rows += 1;
        }
        chunks += 1;
    }
    assert!(rows == 40_000 && chunks > 1);
    assert_eq!(BodyReader::new(&body(0)[..]).expect("a body").verify().expect("whole"), 0);
}

#[test]
fn a_cut_or_rotten_body_never_passes() {
    let bytes = body(30);
    let verify = |bytes: &[u8]| BodyReader::new(bytes).and_then(BodyReader::verify);
    assert_eq!(verify(&bytes).expect("whole"), 30);
    for at in 0..bytes.len() {
        assert!(matches!(verify(&bytes[..at]), Err(Fault::Corrupt(_))), "cut at {at}");
        for bit in 0..8 {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1 << bit;
            assert!(matches!(verify(&rotten), Err(Fault::Corrupt(_))), "bit {bit} of {at}");
        }
    }
    let more = [&bytes[..], &[0]].concat();
    assert!(matches!(verify(&more), Err(Fault::Corrupt(_))));
}

#[test]
fn a_body_has_its_name_only_when_it_is_whole_and_durable() {
    let bytes = body(30);
    let path = dir().join("body");
    let disk = MemDisk::new();
    let mut short = BodyReceiver::create(disk.clone(), &dir(), "body").expect("create");
    short.push(&bytes[..bytes.len() - 1]).expect("push");
    assert!(matches!(short.finish(), Err(Fault::Corrupt(_))));
    assert!(!disk.exists(&path).expect("exists"));
    remove_leftovers(&disk, &dir()).expect("remove");
    assert!(disk.list(&dir()).expect("list").is_empty());
    for crash_at in 0.. {
        let disk = MemDisk::new();
        disk.crash_at(crash_at);
        let received = BodyReceiver::create(disk.clone(), &dir(), "body").and_then(|mut to| {
            bytes.chunks(100).try_for_each(|part| to.push(part))?;
            to.finish()
        });
        if !disk.is_off() {
            assert_eq!(received.expect("received"), path);
            break;
        }
        assert!(received.is_err());
        for pick in [0, 1, u64::MAX] {
            let disk = disk.fork();
            disk.crash(|n| pick.min(n - 1));
            if disk.exists(&path).expect("exists") {
                open_body(&disk, &path).and_then(BodyReader::verify).expect("what has the name is whole");
            }
        }
    }
    let mut writer = BodyWriter::create(disk.clone(), &dir(), "own", at(1, 2)).expect("create");
    writer.push(Table::Rev, b"k", b"v").expect("push");
    let path = writer.finish().expect("finish");
    disk.crash(|_| 0);
    assert_eq!(open_body(&disk, &path).and_then(BodyReader::verify).expect("durable"), 1);
}
