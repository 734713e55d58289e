//! Snapshot files against etcd's own, and which of several is loaded.

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
