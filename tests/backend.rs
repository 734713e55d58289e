//! The contract of `Backend`, checked on tables in memory and in RocksDB with one suite.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{fs, path::Path};

use bytes::Bytes;
use kontiki::{
    error::Fault,
    storage::{Backend, MemBackend, RocksBackend, RocksOptions},
    table::{Batch, Scan, Table, Tables, Write},
};
use proptest::prelude::*;

type Row = (Bytes, Bytes);

fn open(path: &Path) -> RocksBackend {
    RocksBackend::open(path, &RocksOptions::default()).unwrap()
}

fn rows(tables: &impl Tables, table: Table, start: &[u8], end: Option<&[u8]>) -> Vec<Row> {
    let mut rows = Vec::new();
    let collect = &mut |key: &[u8], value: &[u8]| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Scan::Continue
    };
    tables.scan(table, start, end, collect).unwrap();
    rows
}

fn all(tables: &impl Tables) -> Vec<(Table, Vec<Row>)> {
    Table::ALL.map(|table| (table, rows(tables, table, b"", None))).into()
}

/// Runs a check on an empty backend of each kind.
fn on_both(check: impl Fn(&dyn Fn() -> Kind)) {
    check(&|| Kind::Mem(MemBackend::new()));
    let dir = tempfile::tempdir().unwrap();
    check(&|| Kind::Rocks(open(&dir.path().join("tables"))));
}

/// Either backend, since `Backend` is no trait object.
enum Kind {
    Mem(MemBackend),
    Rocks(RocksBackend),
}

macro_rules! with {
    ($kind:expr, $backend:ident => $body:expr) => {
        match $kind {
            Kind::Mem($backend) => $body,
            Kind::Rocks($backend) => $body,
        }
    };
}

fn batch(writes: &[Write]) -> Batch {
    Batch { writes: writes.to_vec() }
}

fn put(table: Table, key: &'static str, value: &'static str) -> Write {
    Write::Put(table, key.into(), value.into())
}

fn pairs(rows: &[(&'static str, &'static str)]) -> Vec<Row> {
    rows.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[test]
fn reads_see_writes_in_order() {
    on_both(|make| {
        with!(make(), backend => {
            backend
                .write(batch(&[
                    put(Table::Rev, "b", "1"),
                    put(Table::Rev, "a", "1"),
                    put(Table::Rev, "c", "1"),
                    put(Table::Meta, "a", "meta"),
                    Write::Delete(Table::Rev, "b".into()),
                    put(Table::Rev, "a", "2"),
                ]))
                .unwrap();
            assert_eq!(backend.get(Table::Rev, b"a").unwrap(), Some("2".into()));
            assert_eq!(backend.get(Table::Rev, b"b").unwrap(), None);
            assert_eq!(backend.get(Table::Meta, b"a").unwrap(), Some("meta".into()));
            assert_eq!(rows(&backend, Table::Rev, b"", None), pairs(&[("a", "2"), ("c", "1")]));
            assert_eq!(rows(&backend, Table::Rev, b"a", Some(b"c")), pairs(&[("a", "2")]));
            assert_eq!(rows(&backend, Table::Rev, b"b", None), pairs(&[("c", "1")]));
            assert_eq!(rows(&backend, Table::Rev, b"c", Some(b"a")), pairs(&[]));
            assert_eq!(rows(&backend, Table::Rev, b"c", Some(b"c")), pairs(&[]));
            let mut seen = 0;
            let stop = &mut |_: &[u8], _: &[u8]| { seen += 1; Scan::Stop };
            backend.scan(Table::Rev, b"", None, stop).unwrap();
            assert_eq!(seen, 1);
        });
    });
}

#[test]
fn range_deletes_leave_their_end() {
    on_both(|make| {
        with!(make(), backend => {
            let keys = ["a", "b", "c", "d"].map(|key| put(Table::Lease, key, "1"));
            backend.write(batch(&keys)).unwrap();
            let delete = |start: &'static str, end: &'static str| {
                Write::DeleteRange(Table::Lease, start.into(), end.into())
            };
            // Empty ranges, one of them the wrong way round, change nothing.
            backend.write(batch(&[delete("c", "a"), delete("b", "b"), delete("b", "d")])).unwrap();
            assert_eq!(rows(&backend, Table::Lease, b"", None), pairs(&[("a", "1"), ("d", "1")]));
        });
    });
}

#[test]
fn snapshots_stand_still() {
    on_both(|make| {
        with!(make(), backend => {
            backend.write(batch(&[put(Table::Rev, "a", "1"), put(Table::Meta, "m", "1")])).unwrap();
            let snapshot = backend.snapshot().unwrap();
            backend.write(batch(&[put(Table::Rev, "a", "2"), put(Table::Rev, "b", "2")])).unwrap();
            backend.write(batch(&[Write::Delete(Table::Meta, "m".into())])).unwrap();
            backend.flush().unwrap();
            assert_eq!(rows(&snapshot, Table::Rev, b"", None), pairs(&[("a", "1")]));
            assert_eq!(snapshot.get(Table::Meta, b"m").unwrap(), Some("1".into()));
            assert_eq!(snapshot.get(Table::Rev, b"b").unwrap(), None);
            assert_eq!(rows(&backend, Table::Rev, b"", None), pairs(&[("a", "2"), ("b", "2")]));
        });
    });
}

#[test]
fn a_scan_may_write() {
    on_both(|make| {
        with!(make(), backend => {
            backend.write(batch(&[put(Table::Rev, "a", "1"), put(Table::Rev, "b", "1")])).unwrap();
            let mut seen = Vec::new();
            let row = &mut |key: &[u8], _: &[u8]| {
                seen.push(key.to_vec());
                backend.write(batch(&[put(Table::Rev, "c", "1")])).unwrap();
                Scan::Continue
            };
            backend.scan(Table::Rev, b"", None, row).unwrap();
            assert_eq!(seen, [b"a", b"b"], "a scan sees the moment it began");
        });
    });
}

#[test]
fn replace_leaves_nothing_of_before() {
    on_both(|make| {
        with!(make(), backend => {
            for table in Table::ALL {
                backend.write(batch(&[put(table, "old", "1")])).unwrap();
            }
            backend.flush().unwrap();
            let batches = [batch(&[put(Table::Rev, "new", "2")]), batch(&[put(Table::Meta, "applied", "9")])];
            backend.replace(&mut batches.into_iter().map(Ok)).unwrap();
            assert_eq!(rows(&backend, Table::Rev, b"", None), pairs(&[("new", "2")]));
            assert_eq!(rows(&backend, Table::Meta, b"", None), pairs(&[("applied", "9")]));
            assert_eq!(all(&backend).iter().map(|(_, rows)| rows.len()).sum::<usize>(), 2);
        });
    });
}

#[test]
fn a_replace_that_fails_leaves_no_applied_index() {
    on_both(|make| {
        with!(make(), backend => {
            backend.write(batch(&[put(Table::Meta, "applied", "1"), put(Table::Rev, "old", "1")])).unwrap();
            let batches = [Ok(batch(&[put(Table::Rev, "new", "2")])), Err(Fault::corrupt("cut short"))];
            let error = backend.replace(&mut batches.into_iter()).unwrap_err();
            assert_eq!(error.to_string(), "cut short");
            assert_eq!(backend.get(Table::Meta, b"applied").unwrap(), None);
            assert_eq!(backend.get(Table::Rev, b"old").unwrap(), None);
        });
    });
}

#[test]
fn size_follows_the_data() {
    on_both(|make| {
        with!(make(), backend => {
            let before = backend.size().unwrap();
            let mut random = 1u64;
            let mut noise = || {
                // Bytes that do not compress: a xorshift generator's.
                let word = || { random ^= random << 13; random ^= random >> 7; random ^= random << 17; random };
                std::iter::repeat_with(word).take(128 << 10).flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
            };
            for key in ["a", "b", "c", "d"] {
                backend.write(Batch { writes: vec![Write::Put(Table::Rev, key.into(), noise().into())] }).unwrap();
            }
            let size = backend.size().unwrap();
            assert!((4 << 20..6 << 20).contains(&(size - before)), "{size} after 4 MiB in memory");
            backend.flush().unwrap();
            let size = backend.size().unwrap();
            assert!((4 << 20..6 << 20).contains(&(size - before)), "{size} after 4 MiB flushed");
            let used = backend.size_in_use().unwrap();
            assert!((4 << 20..=size).contains(&used), "{used} in use of {size}");
            backend.replace(&mut std::iter::empty()).unwrap();
            let size = backend.size().unwrap();
            assert!(size < before + (1 << 20), "{size} after all was removed");
            backend.defragment().unwrap();
        });
    });
}

#[test]
fn a_crash_in_memory_keeps_the_chosen_prefix() {
    let backend = MemBackend::new();
    let write = |n: u8| {
        let value = Bytes::copy_from_slice(&[n]);
        let writes = vec![
            Write::Put(Table::Rev, value.clone(), value.clone()),
            Write::Put(Table::Meta, "applied".into(), value),
        ];
        backend.write(Batch { writes }).unwrap();
    };
    write(1);
    write(2);
    backend.flush().unwrap();
    write(3);
    write(4);
    assert_eq!(backend.unflushed(), 2);
    for (keep, survives) in [(0, 2u8), (1, 3), (2, 4), (9, 4)] {
        let survivor = backend.crash(keep);
        assert_eq!(survivor.get(Table::Meta, b"applied").unwrap().unwrap(), [survives].as_slice());
        assert_eq!(rows(&survivor, Table::Rev, b"", None).len(), usize::from(survives));
        assert_eq!(survivor.unflushed(), 0, "what was found on start is durable");
    }
    let survivor = backend.crash(2);
    write(5);
    assert_eq!(survivor.get(Table::Rev, &[5]).unwrap(), None, "a dead process' writes go into nowhere");
    // A crash in the middle of a replace leaves no applied index, whatever survives.
    let batches = (7..9).map(|n: u8| Ok(batch(&[Write::Put(Table::Rev, vec![n].into(), Bytes::new())])));
    let cut = batches.chain([Err(Fault::corrupt("crash"))]);
    backend.replace(&mut cut.into_iter()).unwrap_err();
    for keep in 0..=2 {
        let survivor = backend.crash(keep);
        assert_eq!(survivor.get(Table::Meta, b"applied").unwrap(), None);
        assert_eq!(rows(&survivor, Table::Rev, b"", None).len(), keep);
    }
}

#[test]
fn rocks_keeps_what_was_written_over_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    backend.write(batch(&[put(Table::Rev, "a", "1"), put(Table::Meta, "applied", "1")])).unwrap();
    backend.flush().unwrap();
    let before = all(&backend);
    drop(backend);
    assert_eq!(all(&open(dir.path())), before);
}

#[test]
fn rocks_refuses_a_directory_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let Err(Fault::Refused(text)) = RocksBackend::open(dir.path(), &RocksOptions::default()) else {
        panic!("opened twice")
    };
    assert!(text.contains("is in use by another process"), "{text}");
}

/// The path of the one file with this ending.
fn file_ending(dir: &Path, ending: &str) -> std::path::PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found.pop().unwrap()
}

#[test]
fn rocks_names_a_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    for n in 0..1000u32 {
        let key = Bytes::copy_from_slice(&n.to_be_bytes());
        backend.write(Batch { writes: vec![Write::Put(Table::Rev, key.clone(), key)] }).unwrap();
    }
    backend.flush().unwrap();
    drop(backend);
    let path = file_ending(dir.path(), ".sst");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 0x40;
    fs::write(&path, bytes).unwrap();

    let backend = open(dir.path());
    let error = backend.scan(Table::Rev, b"", None, &mut |_, _| Scan::Continue).unwrap_err();
    let Fault::Corrupt(text) = error else { panic!("{error}") };
    assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
    assert!(text.contains("move the directory"), "{text}");
    assert!(matches!(backend.get(Table::Rev, &[0; 4]).unwrap_err(), Fault::Corrupt(_)));
    drop(backend);

    // So does one that is not there at all.
    fs::remove_file(&path).unwrap();
    let Err(Fault::Corrupt(text)) = RocksBackend::open(dir.path(), &RocksOptions::default()) else {
        panic!("a missing file went unseen")
    };
    assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
}

fn any_write() -> impl Strategy<Value = Write> {
    let table = (0..Table::ALL.len()).prop_map(|n| Table::ALL[n]);
    let key = || prop::collection::vec(0u8..4, 0..4).prop_map(Bytes::from);
    let value = prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
    (table, key(), key(), value, 0..8u8).prop_map(|(table, key, end, value, kind)| match kind {
        0 => Write::DeleteRange(table, key, end),
        1 | 2 => Write::Delete(table, key),
        _ => Write::Put(table, key, value),
    })
}

/// What is done to both backends.
#[derive(Clone, Debug)]
enum Step {
    Write(Batch),
    Flush,
    Replace(Vec<Batch>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let any_batch = || prop::collection::vec(any_write(), 0..6).prop_map(|writes| Batch { writes });
    prop_oneof![
        20 => any_batch().prop_map(Step::Write),
        1 => Just(Step::Flush),
        1 => prop::collection::vec(any_batch(), 0..3).prop_map(Step::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_backends_are_one(steps in prop::collection::vec(any_step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (mem, rocks) = (MemBackend::new(), open(dir.path()));
        for step in steps {
            match step {
                Step::Write(batch) => {
                    mem.write(batch.clone()).unwrap();
                    rocks.write(batch).unwrap();
                }
                Step::Flush => {
                    mem.flush().unwrap();
                    rocks.flush().unwrap();
                }
                Step::Replace(batches) => {
                    mem.replace(&mut batches.clone().into_iter().map(Ok)).unwrap();
                    rocks.replace(&mut batches.into_iter().map(Ok)).unwrap();
                }
            }
            prop_assert_eq!(all(&mem), all(&rocks));
        }
        let (start, end) = ([1u8, 2], [3u8]);
        for table in Table::ALL {
            prop_assert_eq!(rows(&mem, table, &start, Some(&end)), rows(&rocks, table, &start, Some(&end)));
            prop_assert_eq!(mem.get(table, &start).unwrap(), rocks.get(table, &start).unwrap());
        }
        drop(rocks);
        prop_assert_eq!(all(&mem), all(&open(dir.path())), "a clean close loses nothing");
    }
}
