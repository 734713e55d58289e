//! RocksDB against its prefix contract, with a process that is really killed.
//!
//! The test starts itself as a child, which writes numbered batches over several column families, flushes now
//! and then and says so. The parent kills it at a random moment, opens the tables, and wants to find exactly
//! the batches 1 to n, whole, with n no less than the last flush that the child heard finish.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use kontiki::{
    storage::{Backend, RocksBackend, RocksOptions},
    table::{Batch, Scan, Table, Tables, Write},
};

const CHILD: &str = "KONTIKI_BACKEND_CRASH_DIR";
const REPLACER: &str = "KONTIKI_BACKEND_REPLACE_DIR";

/// Small enough that RocksDB flushes by itself, column families at different times if it were not atomic.
const OPTIONS: RocksOptions = RocksOptions {
    block_cache_max: 1 << 20,
    write_buffer_max: 64 << 10,
    background_jobs_max: 2,
    open_files_max: 64,
};

/// Keys of the ring, which each batch overwrites in turn and deletes from.
const RING: u64 = 16;

fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Batch `n`: a row of its own in two tables, a row in a ring, a deletion, and its number.
fn batch(n: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Rev, number(n), vec![n as u8; 100 + (n % 7) as usize * 300]);
    batch.put(Table::Lease, number(n), number(n));
    batch.put(Table::Members, number(n % RING), number(n));
    batch.delete(Table::AuthUsers, number(n - 1));
    batch.put(Table::AuthUsers, number(n), "");
    if n.is_multiple_of(50) {
        batch.writes.push(Write::DeleteRange(Table::Lease, number(0), number(n - 25)));
    }
    batch.put(Table::Meta, "applied", number(n));
    batch
}

/// The child: does nothing when the tests run, and writes for ever when the parent started it.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let backend = RocksBackend::open(Path::new(&dir), &OPTIONS).unwrap();
    let mut out = std::io::stdout();
    for n in applied(&backend) + 1.. {
        backend.write(batch(n)).unwrap();
        if n.is_multiple_of(37) {
            backend.flush().unwrap();
            writeln!(out, "flushed {n}").unwrap();
            out.flush().unwrap();
        }
    }
}

fn applied(backend: &RocksBackend) -> u64 {
    let bytes = backend.get(Table::Meta, b"applied").unwrap();
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()))
}

fn contents(tables: &impl Tables) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut contents = Vec::new();
    for table in Table::ALL {
        let row = &mut |key: &[u8], value: &[u8]| {
            contents.push((table, key.to_vec(), value.to_vec()));
            Scan::Continue
        };
        tables.scan(table, b"", None, row).unwrap();
    }
    contents
}

/// What the batches 1 to `n` leave, by a model that shares nothing with the backends.
fn expected(n: u64) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut model = BTreeMap::new();
    for write in (1..=n).flat_map(|n| batch(n).writes) {
        match write {
            Write::Put(table, key, value) => {
                model.insert((table, key.to_vec()), value.to_vec());
            }
            Write::Delete(table, key) => {
                model.remove(&(table, key.to_vec()));
            }
            Write::DeleteRange(table, start, end) => {
                model.retain(|(t, key), _| *t != table || **key < *start || **key >= *end);
            }
        }
    }
    model.into_iter().map(|((table, key), value)| (table, key, value)).collect()
}

/// A child that replaces all tables, again and again, each time with rows of its own number.
#[test]
fn replacer() {
    let Some(dir) = std::env::var_os(REPLACER) else { return };
    let backend = RocksBackend::open(Path::new(&dir), &OPTIONS).unwrap();
    let mut out = std::io::stdout();
    for round in applied(&backend) + 1.. {
        backend.replace(&mut replacement(round).into_iter().map(Ok)).unwrap();
        writeln!(out, "flushed {round}").unwrap();
        out.flush().unwrap();
    }
}

/// What round `round` puts: the applied index last.
fn replacement(round: u64) -> Vec<Batch> {
    let row = |n: u64| {
        let mut batch = Batch::default();
        batch.put(Table::Rev, number(round * 1000 + n), vec![round as u8; 2000]);
        batch.put(Table::Lease, number(round), number(n));
        batch
    };
    let mut last = Batch::default();
    last.put(Table::Meta, "applied", number(round));
    (0..100).map(row).chain([last]).collect()
}

/// Runs a child until it said `flushes` times that it flushed and then for `spin` turns more; kills it.
/// Returns the last flush that it said.
fn run_and_kill(test: &str, variable: &str, dir: &Path, flushes: usize, spin: u32) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(variable, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut flushed = 0;
    let mut heard = |line: &str| {
        // The test harness writes its own words before the first.
        let Some((_, n)) = line.split_once("flushed ") else { return false };
        flushed = n.trim().parse().unwrap();
        true
    };
    let mut count = 0;
    while count < flushes {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the child ended by itself");
        count += usize::from(heard(&line));
    }
    for turn in 0..spin {
        std::hint::black_box(turn);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    // A last line that was cut off says nothing.
    for line in rest.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        heard(line);
    }
    flushed
}

#[test]
fn a_killed_process_leaves_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut ahead_of_flush = 0;
    for round in 0..8u32 {
        // The moment differs by the machine's own noise; the rounds spread it over about a flush's time.
        let flushed = run_and_kill("child", CHILD, dir.path(), 1 + round as usize % 3, round * 400_000);
        let backend = RocksBackend::open(dir.path(), &OPTIONS).unwrap();
        let survived = applied(&backend);
        assert!(survived >= flushed, "round {round}: flushed {flushed}, but only {survived} survived");
        assert!(contents(&backend) == expected(survived), "round {round}: not the batches 1 to {survived}");
        ahead_of_flush += usize::from(survived > flushed);
    }
    println!("{ahead_of_flush} of 8 rounds kept more than was flushed");
}

#[test]
fn a_replace_that_was_cut_short_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cut = 0;
    for round in 0..8u32 {
        let said = run_and_kill("replacer", REPLACER, dir.path(), 1, round * 150_000);
        let backend = RocksBackend::open(dir.path(), &OPTIONS).unwrap();
        let found = applied(&backend);
        if found == 0 {
            cut += 1;
            // Without an applied index: nothing of before the replacement, which took part of its own.
            let lease = contents(&backend).into_iter().filter(|(table, ..)| *table == Table::Lease);
            assert!(lease.count() <= 1, "round {round}: rows of two replacements");
        } else {
            assert!(found >= said, "round {round}: said {said}, found {found}");
            let rows = contents(&backend);
            assert_eq!(rows.len(), 102, "round {round}: 100 revisions, a lease and the applied index");
            assert!(rows.iter().all(|(table, key, _)| *table != Table::Lease || **key == *number(found)));
        }
    }
    println!("{cut} of 8 replacements were cut short");
}
