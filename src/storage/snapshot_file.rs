//! Files of snapshots: etcd's `.snap`.
//!
//! A `.snap` (`TERM-INDEX.snap`, 16 hex digits each) holds raft's part of a snapshot: the configuration and etcd's
//! JSON of the members. It counts only if the log has a mark for it, and is written before the mark. The tables that
//! a member far behind is sent are a stream of their own, of [`crate::state::Rows`].
//!
//! Files get their names only when they are durable; what has not got so far begins with `tmp`, which etcd, too,
//! removes at start.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;

use super::{Disk, OpenMode, StagedFile, read_all, wal::hex};
use crate::{
    error::Fault,
    raft::{LogId, Snapshot, SnapshotMeta},
    types::{Index, Term},
    wire::{raftpb, walpb},
};

/// The name of a snapshot's file.
pub fn snapshot_name(at: LogId) -> String {
    format!("{:016x}-{:016x}.snap", at.term.0, at.index.0)
}

fn parse_name(name: &str) -> Option<LogId> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some(LogId { term: Term(hex(term)?), index: Index(hex(index)?) })
}

/// The snapshots in a directory, by their names, the newest first. A missing directory has none.
pub fn list_snapshots<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<LogId>, Fault> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Fault::io(format!("listing {}", dir.display()), error)),
    };
    let mut ids: Vec<LogId> = names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort();
    ids.reverse();
    Ok(ids)
}

/// Writes a snapshot's file; durable on return. The log's mark comes after.
pub fn write_snapshot<D: Disk>(disk: &D, dir: &Path, snapshot: &Snapshot) -> Result<PathBuf, Fault> {
    let data = raftpb::Snapshot::from(snapshot).encode_to_vec();
    let file = walpb::SnapshotFile { crc: crc32c::crc32c(&data), data: Some(data.into()) };
    let name = snapshot_name(snapshot.meta.last);
    let write = || {
        disk.create_dir_all(dir)?;
        let mut out = StagedFile::create(disk.clone(), dir, &name, 0)?;
        out.write(&file.encode_to_vec())?;
        out.sync()?;
        out.keep()
    };
    write().map_err(|error| Fault::io(format!("writing {}", dir.join(&name).display()), error))
}

/// Reads a snapshot's file.
///
/// # Errors
/// [`Fault::Corrupt`] if it is not what was written.
pub fn read_snapshot<D: Disk>(disk: &D, path: &Path) -> Result<Snapshot, Fault> {
    let fault = |error| Fault::io(format!("reading {}", path.display()), error);
    let file = disk.open(path, OpenMode::Read).map_err(fault)?;
    let bytes = read_all(&file).map_err(fault)?;
    decode_snapshot(bytes.into())
        .map_err(|what| Fault::corrupt(format!("the snapshot {} is corrupt: {what}", path.display())))
}

fn decode_snapshot(bytes: Bytes) -> Result<Snapshot, String> {
    let file = walpb::SnapshotFile::decode(bytes).map_err(|error| error.to_string())?;
    let data = file.data.unwrap_or_default();
    if data.is_empty() || file.crc == 0 {
        return Err("it is empty".to_owned());
    }
    if crc32c::crc32c(&data) != file.crc {
        return Err("its checksum is wrong".to_owned());
    }
    let wire = raftpb::Snapshot::decode(data).map_err(|error| error.to_string())?;
    Snapshot::try_from(wire).map_err(|error| error.to_string())
}

/// The newest whole snapshot that `marks` names, with the names of those that were broken: they are renamed to
/// `….broken` and the next older one is tried.
pub fn load_newest_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    marks: &[SnapshotMeta],
) -> Result<(Option<Snapshot>, Vec<String>), Fault> {
    let mut broken = Vec::new();
    for id in list_snapshots(disk, dir)? {
        if !marks.iter().any(|mark| mark.last == id) {
            continue;
        }
        let name = snapshot_name(id);
        let path = dir.join(&name);
        match read_snapshot(disk, &path) {
            Ok(snapshot) if snapshot.meta.last == id => return Ok((Some(snapshot), broken)),
            Ok(_) | Err(Fault::Corrupt(_)) => {
                let aside = dir.join(format!("{name}.broken"));
                disk.rename(&path, &aside)
                    .map_err(|error| Fault::io(format!("renaming {}", path.display()), error))?;
                broken.push(name);
            }
            Err(fault @ (Fault::Io { .. } | Fault::Refused(_))) => return Err(fault),
        }
    }
    Ok((None, broken))
}

/// Removes all but the newest `snapshots_max` snapshots (0 keeps all).
pub fn purge_snapshots<D: Disk>(disk: &D, dir: &Path, snapshots_max: usize) -> Result<(), Fault> {
    let remove = |name: &str| {
        let path = dir.join(name);
        disk.remove_file(&path).map_err(|error| Fault::io(format!("removing {}", path.display()), error))
    };
    if snapshots_max > 0 {
        for id in list_snapshots(disk, dir)?.into_iter().skip(snapshots_max) {
            remove(&snapshot_name(id))?;
        }
    }
    Ok(())
}

/// Removes what was left half-written under `dir`; for the start, before anything is written there.
pub fn remove_leftovers<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fault> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Fault::io(format!("listing {}", dir.display()), error)),
    };
    for name in names.iter().filter(|name| name.starts_with("tmp")) {
        let path = dir.join(name);
        disk.remove_file(&path).map_err(|error| Fault::io(format!("removing {}", path.display()), error))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "snapshot_file_tests.rs"]
mod tests;
