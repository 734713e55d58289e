//! Snapshots as files: bodies that go to peers and come from them.

use std::path::Path;

use super::{
    frames_file::{FramesReader, FramesWriter},
    paths::Paths,
};
use crate::{
    error::Fault,
    membership::Roster,
    raft::Snapshot,
    state::{self, Rows},
    storage::{Backend, Disk, OpenMode},
    table::{Batch, Tables},
    types::Index,
};

/// What raft and the log are told of the state in `view`, which is one moment.
pub(super) fn describe(view: &impl Tables) -> Result<Snapshot, Fault> {
    let meta = state::position(view)?;
    Ok(Snapshot { meta, data: Roster::load(view)?.to_snapshot().into() })
}

/// How far the tables are.
pub(super) fn applied_index(tables: &impl Tables) -> Result<Index, Fault> {
    Ok(state::position(tables)?.last.index)
}

/// Writes the tables in `view` as a body, in frames of about `frame_bytes_max` bytes.
pub(super) fn write_body(
    disk: &impl Disk,
    path: &Path,
    view: &impl Tables,
    frame_bytes_max: usize,
) -> Result<(), Fault> {
    let mut file = FramesWriter::create(disk, path, state::SNAPSHOT_MAGIC)?;
    for batch in Rows::new(view, frame_bytes_max) {
        let batch = batch?;
        file.frame(|out| state::encode_rows(&batch, out))?;
    }
    file.end().map(drop)
}

/// Whether the body of the snapshot at `index` is whole, and of that index: asked before anything counts on it.
pub(super) fn verify(disk: &impl Disk, paths: &Paths, index: Index) -> Result<(), Fault> {
    let path = paths.received(index);
    let mut found = None;
    for batch in batches(disk, &path)? {
        found = state::index_in(&batch?).or(found);
    }
    match found {
        Some(found) if found == index => Ok(()),
        _ => Err(Fault::corrupt(format!("{} is of another index", path.display()))),
    }
}

/// Replaces the tables by the body of the snapshot at `index`, then removes the body.
pub(super) fn install(
    disk: &impl Disk,
    paths: &Paths,
    backend: &impl Backend,
    index: Index,
) -> Result<(), Fault> {
    let path = paths.received(index);
    // Read through once before anything is replaced: a body that is not whole must not cost the tables.
    for batch in batches(disk, &path)? {
        batch.map_err(|fault| not_whole(&path, fault))?;
    }
    backend.replace(&mut batches(disk, &path)?)?;
    disk.remove_file(&path).map_err(|e| Fault::io(format!("remove {}", path.display()), e))
}

/// Says what to do about a body that the log names, and that is not what came in.
fn not_whole(path: &Path, fault: Fault) -> Fault {
    match fault {
        Fault::Corrupt(why) => Fault::corrupt(format!(
            "the snapshot {} is corrupt: {why}. Nothing was changed. Remove this member from its cluster, empty its data \
             directory, add it again.",
            path.display()
        )),
        fault @ (Fault::Io { .. } | Fault::Refused(_)) => fault,
    }
}

/// Whether the body of the snapshot at `index` has come in.
pub(super) fn is_received(disk: &impl Disk, paths: &Paths, index: Index) -> Result<bool, Fault> {
    let path = paths.received(index);
    disk.exists(&path).map_err(|e| Fault::io(format!("look at {}", path.display()), e))
}

/// At a start: the log begins behind what the tables hold.
pub(super) fn tables_missing(disk: &impl Disk, paths: &Paths, base: Index) -> Fault {
    if disk.exists(&paths.snap.join("db")).unwrap_or(false) {
        return Fault::Refused(format!(
            "{} is etcd's data directory; Kontiki can't take one over yet: start with an empty directory and \
             restore the keys, or add this member to its cluster anew",
            paths.data.display()
        ));
    }
    Fault::corrupt(format!(
        "the tables in {} end before the log, which begins behind index {base}: put the tables back, or remove \
         this member from the cluster and add it again with an empty data directory",
        paths.backend.display()
    ))
}

/// The batches of a body.
fn batches<D: Disk>(
    disk: &D,
    path: &Path,
) -> Result<impl Iterator<Item = Result<Batch, Fault>> + use<D>, Fault> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(|e| Fault::io(format!("read the snapshot {}", path.display()), e))?;
    let payloads = FramesReader::new(file, path.to_owned(), state::SNAPSHOT_MAGIC, None);
    Ok(payloads.map(|payload| state::decode_rows(payload?)))
}
