//! Snapshot files, and the tables as a stream.

use std::path::{Path, PathBuf};

use arbitrary::Result;
use bytes::Bytes;
use kontiki::{
    error::Fault,
    framed::{self, Broken, Frames},
    membership::Roster,
    raft::SnapshotMeta,
    state::{Config, Machine, Rows, SNAPSHOT_MAGIC, decode_rows, encode_rows, index_in, position},
    storage::{
        Backend, MemBackend, MemDisk,
        snapshot_file::{load_newest_snapshot, read_snapshot, snapshot_name, write_snapshot},
    },
    table::{Batch, Table, Write},
    wire::{raft::NUMBER_MAX, walpb},
};
use prost::Message as _;

use super::{
    arb::{self, Source, one, upto},
    machines::entry,
    replica::{Replica, rows},
};

const DIR: &str = "data/member/snap";

/// A `.snap` of any bytes, and a good one with a byte changed.
pub fn snap_file(u: &mut Source<'_>) -> Result<()> {
    let disk = MemDisk::new();
    let snapshot = arb::snapshot(u, NUMBER_MAX)?;
    let path = write_snapshot(&disk, Path::new(DIR), &snapshot).expect("the disk is on");
    assert_eq!(read_snapshot(&disk, &path).expect("it is whole"), snapshot);
    let mark = SnapshotMeta { last: snapshot.meta.last, ..SnapshotMeta::default() };
    let newest = load_newest_snapshot(&disk, Path::new(DIR), std::slice::from_ref(&mark));
    assert_eq!(newest.expect("the disk is on"), (Some(snapshot.clone()), vec![]));

    let mut bytes = disk.contents(&path).expect("it is there");
    let at = upto(u, bytes.len() as u64 - 1)? as usize;
    match upto(u, 2)? {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= u.int_in_range(1..=255)?,
        _ => {
            let data = u.bytes(u.len())?;
            let sound = walpb::SnapshotFile { crc: crc32c::crc32c(data), data: Some(data.to_vec().into()) };
            bytes = sound.encode_to_vec();
        }
    }
    let checked = walpb::SnapshotFile::decode(&bytes[..]).is_ok_and(|file| {
        file.crc != 0 && crc32c::crc32c(file.data.as_deref().unwrap_or_default()) == file.crc
    });
    disk.put(&path, &bytes).expect("the disk is on");
    match read_snapshot(&disk, &path) {
        Ok(found) => {
            assert!(checked, "its checksum is wrong");
            let again = write_snapshot(&disk, Path::new("again"), &found).expect("the disk is on");
            assert_eq!(read_snapshot(&disk, &again).expect("it is whole"), found);
            // What etcd keeps in it is the members.
            if let Ok(roster) = Roster::from_snapshot(&found.data) {
                assert_eq!(Roster::from_snapshot(&roster.to_snapshot()), Ok(roster));
            }
        }
        Err(Fault::Corrupt(_)) => {}
        Err(fault) => panic!("the disk is on, but {fault}"),
    }
    let (found, broken) = load_newest_snapshot(&disk, Path::new(DIR), &[mark]).expect("the disk is on");
    match found {
        Some(found) => assert_eq!(found.meta.last, snapshot.meta.last),
        None => assert_eq!(broken, [snapshot_name(snapshot.meta.last)], "what is broken is set aside"),
    }
    let _: PathBuf = path;
    Ok(())
}

/// The tables of a few commands, with rows of a peer's invention among them.
fn tables(u: &mut Source<'_>) -> Result<MemBackend> {
    let mut replica = Replica::new();
    for index in 1..=upto(u, 12)? {
        let entry = entry(u, index)?;
        if replica.apply(&[entry]).is_err() {
            break;
        }
    }
    let known: Vec<(Table, Bytes)> = rows(&replica.tables).into_keys().collect();
    for _ in 0..upto(u, 6)? {
        let mut batch = Batch::default();
        let (table, key) = match u.arbitrary::<bool>()? && !known.is_empty() {
            true => one(u, &known)?,
            false => (one(u, &Table::ALL)?, arb::bytes(u, 20)?),
        };
        if u.arbitrary()? {
            batch.put(table, key, arb::bytes(u, 20)?)
        } else {
            batch.delete(table, key)
        }
        replica.tables.write(batch).expect("it is in memory");
    }
    Ok(replica.tables)
}

fn read(stream: &[u8], piece: usize) -> std::result::Result<Vec<Batch>, Fault> {
    let broken = |Broken(why)| Fault::corrupt(why);
    let (mut frames, mut batches) = (Frames::new(SNAPSHOT_MAGIC), Vec::new());
    for piece in stream.chunks(piece) {
        frames.push(piece);
        while let Some(payload) = frames.next_frame().map_err(broken)? {
            batches.push(decode_rows(payload)?);
        }
    }
    frames.finish().map_err(broken)?;
    Ok(batches)
}

/// A stream comes out as it went in, or not at all; and what a peer may have put into it never panics.
pub fn snap_stream(u: &mut Source<'_>) -> Result<()> {
    let tables = tables(u)?;
    let (start, mut checksum) = framed::start(SNAPSHOT_MAGIC);
    let mut stream = start.to_vec();
    let mut sent = Vec::new();
    for batch in Rows::new(&tables.snapshot().expect("it is in memory"), 1 + upto(u, 200)? as usize) {
        let batch = batch.expect("it is in memory");
        stream.extend_from_slice(&framed::frame(&mut checksum, |out| encode_rows(&batch, out)));
        sent.push(batch);
    }
    stream.extend_from_slice(&framed::end(checksum));
    let piece = 1 + upto(u, 99)? as usize;
    let writes =
        |batches: &[Batch]| batches.iter().flat_map(|batch| batch.writes.clone()).collect::<Vec<Write>>();
    let got = read(&stream, piece).expect("it is whole");
    assert_eq!(writes(&got), writes(&sent));

    let taker = MemBackend::new();
    let indexed = got.iter().filter_map(index_in).count();
    taker.replace(&mut got.into_iter().map(Ok)).expect("it is in memory");
    assert!(indexed <= 1, "one batch alone has the applied index");
    assert_eq!(rows(&taker), rows(&tables));
    let _ = position(&taker);
    if let Ok(mut machine) = Machine::open(taker.clone(), Config::default()) {
        let entry = entry(u, machine.applied().0.saturating_add(1))?;
        if machine.applied().0 < NUMBER_MAX {
            let _ = machine.apply(&[entry], &kontiki::wire::command::decode);
        }
    }

    let at = upto(u, stream.len() as u64 - 1)? as usize;
    if u.arbitrary()? {
        stream.truncate(at);
    } else {
        stream[at] ^= u.int_in_range(1..=255)?;
    }
    assert!(matches!(read(&stream, piece), Err(Fault::Corrupt(_))), "damage at {at} shows");
    let _ = read(u.bytes(u.len())?, piece);
    Ok(())
}
