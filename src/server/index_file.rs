//! Checkpoints of the index as files: `member/kontiki-index/REVISION`, in hex.
//!
//! The tables say which file counts, and with which checksum; a file that they don't name is left over. None of them is
//! needed: what can't be written is tried again at the next occasion, what can't be read is made up for from the tables.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    frames_file::{FramesReader, FramesWriter},
    paths::Paths,
};
use crate::{
    error::Fault,
    framed::MAGIC_BYTES,
    mvcc::{CheckpointName, Cut, Overtaken, Store},
    storage::{Disk, DiskFile, OpenMode},
    table::Tables,
    types::Revision,
};

const MAGIC: &[u8; MAGIC_BYTES] = b"kontikii";

/// Why there is no new checkpoint.
pub(super) enum NotWritten {
    /// A compaction or a snapshot came in between.
    Overtaken,
    /// The disk.
    Failed(Fault),
}

impl From<Fault> for NotWritten {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

fn path_of(dir: &Path, at: Revision) -> PathBuf {
    dir.join(format!("{:016x}", at.0))
}

/// Writes a checkpoint; durable on return, and of use once the tables have its name. What could not be finished takes no
/// space.
pub(super) fn write<T: Tables>(
    disk: &impl Disk,
    paths: &Paths,
    store: &Store<T>,
    cut: &mut Cut,
) -> Result<CheckpointName, NotWritten> {
    let path = path_of(&paths.index, cut.at());
    let written = write_to(disk, &path, &paths.index, store, cut);
    if written.is_err() {
        let _ = disk.remove_file(&path);
    }
    written
}

fn write_to<T: Tables>(
    disk: &impl Disk,
    path: &Path,
    dir: &Path,
    store: &Store<T>,
    cut: &mut Cut,
) -> Result<CheckpointName, NotWritten> {
    let synced = |path: &Path, e| Fault::io(format!("sync {}", path.display()), e);
    disk.create_dir_all(dir).map_err(|e| Fault::io(format!("create {}", dir.display()), e))?;
    let mut out = FramesWriter::create(disk, path, MAGIC)?;
    while let Some(piece) = cut.piece(store).map_err(|Overtaken| NotWritten::Overtaken)? {
        out.frame(|out| out.extend_from_slice(&piece))?;
    }
    let (mut file, checksum) = out.end()?;
    file.sync().map_err(|e| synced(path, e))?;
    disk.sync_dir(dir).map_err(|e| synced(dir, e))?;
    Ok(CheckpointName { at: cut.at(), checksum })
}

/// The checkpoint that the tables name, if it is there.
pub(super) fn open<D: Disk>(
    disk: &D,
    paths: &Paths,
    tables: &impl Tables,
) -> Result<Option<FramesReader<D::File>>, Fault> {
    let Some(CheckpointName { at, checksum }) = CheckpointName::load(tables)? else { return Ok(None) };
    let path = path_of(&paths.index, at);
    let file = disk.open(&path, OpenMode::Read).ok();
    Ok(file.map(|file| FramesReader::new(file, path, MAGIC, Some(checksum))))
}

/// Removes all files but that of `kept`.
pub(super) fn purge(disk: &impl Disk, paths: &Paths, kept: Revision) -> Result<(), Fault> {
    let fault = |e| Fault::io(format!("tidy {}", paths.index.display()), e);
    let names = match disk.list(&paths.index) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(fault)?,
    };
    let kept = path_of(&paths.index, kept);
    for path in names.iter().map(|name| paths.index.join(name)).filter(|path| *path != kept) {
        disk.remove_file(&path).map_err(fault)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        mvcc::{Config, Leases, PutRequest},
        storage::{Backend, ENOSPC, MemBackend, MemDisk},
        table::Batch,
        types::LeaseId,
    };

    struct NoLeases;

    impl Leases for NoLeases {
        fn exists(&self, _: LeaseId) -> bool {
            false
        }

        fn attach(&mut self, _: LeaseId, _: &Bytes) {}

        fn detach(&mut self, _: LeaseId, _: &Bytes) {}
    }

    fn filled() -> (MemBackend, Store<MemBackend>) {
        let backend = MemBackend::new();
        let store = Store::open(backend.clone(), Config::default()).expect("it is empty");
        for n in 0..20 {
            put(&backend, &store, &format!("key{n}"));
        }
        (backend, store)
    }

    fn put(backend: &MemBackend, store: &Store<MemBackend>, key: &str) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = PutRequest { key, value: "value".into(), ..PutRequest::default() };
        let mut batch = Batch::default();
        let put = store.writer().put(&request, &mut NoLeases, &mut batch, &mut Vec::new());
        put.expect("nothing refuses it");
        backend.write(batch).expect("memory has no faults");
        store.publish();
    }

    /// Whether a start finds a checkpoint, and why it could not use it.
    fn start(disk: &MemDisk, paths: &Paths, backend: &MemBackend) -> (bool, Option<String>) {
        let mut found = open(disk, paths, backend).expect("memory has no faults");
        let there = found.is_some();
        let pieces = found.as_mut().map(|pieces| pieces as &mut dyn Iterator<Item = _>);
        let (store, unusable) =
            Store::open_from(backend.clone(), Config::default(), pieces).expect("it is whole");
        assert_eq!(store.revision(), Revision(21));
        (there, unusable.map(|why| why.to_string()))
    }

    #[test]
    fn a_file_counts_if_it_is_the_one_that_is_named() {
        let (disk, paths) = (MemDisk::new(), Paths::new(Path::new("/data"), None));
        let (backend, store) = filled();
        let mut cut = store.cut().expect("no fault").expect("no compaction is under way");
        let Ok(name) = write(&disk, &paths, &store, &mut cut) else { panic!("memory has no faults") };
        assert_eq!(start(&disk, &paths, &backend), (false, None), "nobody has named it");
        backend.write(name.batch()).expect("memory has no faults");
        assert_eq!(start(&disk, &paths, &backend), (true, None));

        let path = path_of(&paths.index, name.at);
        let mut file = disk.open(&path, OpenMode::Write).expect("it is there");
        let good = crate::storage::read_all(&file).expect("it can be read");
        for at in 0..good.len() {
            file.write_at(at as u64, &[good[at] ^ 1]).expect("it can be written");
            assert!(start(&disk, &paths, &backend).1.is_some(), "byte {at}");
            file.write_at(at as u64, &good[at..=at]).expect("it can be written");
        }
        let other = CheckpointName { checksum: name.checksum ^ 1, ..name };
        backend.write(other.batch()).expect("memory has no faults");
        let why = start(&disk, &paths, &backend).1.expect("it is another");
        assert!(why.contains("another one than the tables name"), "{why}");

        purge(&disk, &paths, name.at).expect("nothing to do");
        assert!(disk.exists(&path).expect("no fault"));
        purge(&disk, &paths, name.at.next()).expect("no fault");
        assert_eq!(start(&disk, &paths, &backend), (false, None));
        backend.write(CheckpointName::forget()).expect("memory has no faults");
        assert_eq!(CheckpointName::load(&backend).expect("no fault"), None);
    }

    #[test]
    fn half_a_file_takes_no_space() {
        let (disk, paths) = (MemDisk::new(), Paths::new(Path::new("/data"), None));
        let (_, store) = filled();
        disk.create_dir_all(&paths.index).expect("no fault");
        for step in 0.. {
            let disk = disk.fork();
            let before = disk.operations();
            disk.fail_at(before + step, ENOSPC);
            let mut cut = store.cut().expect("no fault").expect("no compaction is under way");
            match write(&disk, &paths, &store, &mut cut) {
                Ok(_) => return assert!(step > 4, "it opens, writes, and syncs the file and its name"),
                Err(NotWritten::Failed(_)) => {}
                Err(NotWritten::Overtaken) => panic!("nobody else writes"),
            }
            assert_eq!(disk.list(&paths.index).expect("it is there"), [""; 0], "step {step}");
        }
    }
}
