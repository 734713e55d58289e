//! The keeper: long work on the tables that neither applying nor appending may wait for.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    exit::Exit,
    index_file::{self, NotWritten},
    log::LogJob,
    shared::Shared,
    snapshot,
};
use crate::{
    error::Fault,
    interchange,
    mvcc::{CHECKPOINT_KEY, CheckpointName},
    node::Event,
    raft::Snapshot,
    runtime::Runtime,
    storage::{Backend, Disk, DiskFile, OpenMode},
    table::{Scan, Table, Tables},
    types::{Index, NodeId, Term},
};

/// What the keeper is asked to do.
pub(super) enum KeepJob<R: Runtime> {
    /// Flush the tables, then have the log name a snapshot there.
    Checkpoint,
    /// A compaction is through, which may have made the index's checkpoint useless.
    Compacted,
    /// The member stops: leave what makes its next start quick.
    Close(oneshot::Sender<()>),
    /// Write a snapshot's body for a peer.
    BuildSnapshot(NodeId),
    /// Look whether the body of a snapshot that came in is whole; the node hears of it only then.
    Verify {
        /// Who sent it.
        from: NodeId,
        /// Its term.
        term: Term,
        /// What raft is to know of it.
        snapshot: Snapshot,
    },
    /// Remove the body of a snapshot that came in and is not wanted.
    Discard(Index),
    /// Remove the bodies that went out to a peer.
    Sent(NodeId),
    /// Hash all tables, as etcd's `Hash` does.
    Hash(oneshot::Sender<u32>),
    /// Make a backup.
    Backup(oneshot::Sender<Backup<R>>),
    /// Remove a file, if it is there.
    Remove(PathBuf),
}

/// A backup in a file of its own.
pub(super) struct Backup<R: Runtime> {
    pub path: PathBuf,
    pub bytes: u64,
    file: <R::Disk as Disk>::File,
}

impl<R: Runtime> Backup<R> {
    /// The bytes from `offset` on, as many as one piece has; none at the end.
    pub fn read(&self, offset: u64) -> io::Result<Bytes> {
        const PIECE: u64 = 32 * 1024;
        let mut piece = vec![0; PIECE.min(self.bytes - offset) as usize];
        let read = self.file.read_at(offset, &mut piece)?;
        piece.truncate(read);
        Ok(piece.into())
    }
}

/// How far the index's checkpoint is behind.
struct Behind {
    /// Revisions since, for each key: what writing it anew costs is spread over so many.
    share: f64,
    /// A start could not use it.
    useless: bool,
}

/// Does the keeper's jobs one by one.
pub(super) struct Keeper<R: Runtime> {
    pub shared: Arc<Shared<R>>,
    pub log: tokio::sync::mpsc::UnboundedSender<LogJob>,
    /// How large a frame of a snapshot's body is, about.
    pub frame_bytes_max: usize,
    /// How many backups have been made, for their files' names.
    pub backups: u64,
}

impl<R: Runtime> Keeper<R> {
    pub fn work(&mut self, jobs: Vec<KeepJob<R>>) {
        for job in jobs {
            if let Err(fault) = self.job(job) {
                self.shared.exits.tell(Exit::Fault(fault));
            }
        }
    }

    fn job(&mut self, job: KeepJob<R>) -> Result<(), Fault> {
        match job {
            KeepJob::Checkpoint => self.checkpoint(),
            KeepJob::Compacted => self.compacted(),
            // Who asked may have given up.
            KeepJob::Close(done) => self.close().map(|()| _ = done.send(())),
            KeepJob::BuildSnapshot(to) => self.build(to),
            KeepJob::Verify { from, term, snapshot } => self.verify(from, term, snapshot),
            // One that is not applied may have come in again meanwhile, and be wanted now.
            KeepJob::Discard(index) if index > self.shared.facts.applied() => Ok(()),
            KeepJob::Discard(index) => self.remove(&self.shared.paths.received(index)),
            KeepJob::Sent(to) => self.remove_outgoing(to),
            // Who asked may have gone.
            KeepJob::Hash(reply) => self.hash().map(|hash| _ = reply.send(hash)),
            KeepJob::Backup(reply) => self.backup().map(|backup| drop(reply.send(backup))),
            KeepJob::Remove(path) => self.remove(&path),
        }
    }

    fn checkpoint(&self) -> Result<(), Fault> {
        // Read before the flush: what is flushed is this far at least.
        let snapshot = snapshot::describe(&self.shared.backend)?;
        self.save_index(|behind| behind.share >= if behind.useless { 1.0 / 16.0 } else { 1.0 / 4.0 })?;
        self.flush()?;
        let _ = self.log.send(LogJob::Checkpoint(snapshot));
        Ok(())
    }

    fn compacted(&self) -> Result<(), Fault> {
        self.save_index(|behind| behind.useless && behind.share >= 1.0 / 16.0)
    }

    fn close(&self) -> Result<(), Fault> {
        self.save_index(|behind| behind.useless || behind.share >= 1.0 / 64.0)?;
        self.flush()
    }

    fn flush(&self) -> Result<(), Fault> {
        let Shared { backend, runtime, paths, .. } = &*self.shared;
        let named = CheckpointName::load(backend)?;
        backend.flush()?;
        // Only now is it durable that the others are not named.
        if let Some(name) = named
            && let Err(error) = index_file::purge(&runtime.disk(), paths, name.at)
        {
            tracing::warn!(%error, "old checkpoints of the index stay");
        }
        Ok(())
    }

    /// Writes a checkpoint of the index if it is `due`. One that can't be written is no fault of the member: its next
    /// start takes longer.
    fn save_index(&self, due: impl FnOnce(Behind) -> bool) -> Result<(), Fault> {
        let Shared { store, backend, runtime, paths, .. } = &*self.shared;
        let now = store.revision();
        let behind = match CheckpointName::load(backend)? {
            Some(CheckpointName { at, .. }) if at == now => return Ok(()),
            Some(CheckpointName { at, .. }) => Behind {
                share: (now.0 - at.0) as f64 / (self.shared.stats.keys.get() as f64).max(1.0),
                useless: store.compacted() > at,
            },
            None => Behind { share: 1.0, useless: true },
        };
        if !due(behind) {
            return Ok(());
        }
        let Some(mut cut) = store.cut()? else { return Ok(()) };
        match index_file::write(&runtime.disk(), paths, store, &mut cut) {
            Ok(name) => {
                let _tables = self.shared.replacing();
                if cut.is_of(store) { backend.write(name.batch()) } else { Ok(()) }
            }
            Err(NotWritten::Overtaken) => Ok(()),
            Err(NotWritten::Failed(error)) => {
                tracing::warn!(%error, "no checkpoint of the index could be written");
                Ok(())
            }
        }
    }

    /// A body that is not whole is no fault of the member: its sender will try again.
    fn verify(&self, from: NodeId, term: Term, snapshot: Snapshot) -> Result<(), Fault> {
        let index = snapshot.meta.last.index;
        match snapshot::verify(&self.shared.runtime.disk(), &self.shared.paths, index) {
            Ok(()) => {
                let _ = self.shared.driver.send(Event::SnapshotReceived { from, term, snapshot });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%from, %error, "a snapshot's body is not taken");
                let _ = self.shared.driver.send(Event::SnapshotUnfit);
                self.remove(&self.shared.paths.received(index))
            }
        }
    }

    /// A body that can't be written is no fault of the member: the peer stays behind, and is tried again.
    fn build(&self, to: NodeId) -> Result<(), Fault> {
        let snapshot = self.try_build(to).ok();
        let _ = self.shared.driver.send(Event::SnapshotBuilt { to, snapshot });
        Ok(())
    }

    fn try_build(&self, to: NodeId) -> Result<Snapshot, Fault> {
        self.remove_outgoing(to)?;
        let view = self.shared.backend.snapshot()?;
        let snapshot = snapshot::describe(&view)?;
        let path = self.shared.paths.outgoing(to, snapshot.meta.last.index);
        snapshot::write_body(&self.shared.runtime.disk(), &path, &view, self.frame_bytes_max)?;
        Ok(snapshot)
    }

    fn remove_outgoing(&self, to: NodeId) -> Result<(), Fault> {
        let dir = &self.shared.paths.snap;
        let names = self
            .shared
            .runtime
            .disk()
            .list(dir)
            .map_err(|e| Fault::io(format!("list {}", dir.display()), e))?;
        for name in names.iter().filter(|name| name.starts_with(&format!("tmp-{to}-"))) {
            self.remove(&dir.join(name))?;
        }
        Ok(())
    }

    fn remove(&self, path: &std::path::Path) -> Result<(), Fault> {
        match self.shared.runtime.disk().remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Fault::io(format!("remove {}", path.display()), e))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn backup(&mut self) -> Result<Backup<R>, Fault> {
        self.backups += 1;
        let shared = &self.shared;
        let path = self.shared.paths.snap.join(format!("tmp-backup-{}", self.backups));
        let disk = self.shared.runtime.disk();
        let open =
            |mode| disk.open(&path, mode).map_err(|e| Fault::io(format!("open {}", path.display()), e));
        let view = self.shared.backend.snapshot()?;
        let bytes = shared.stats.backend_snapshot_time.time(&shared.runtime.clock(), || {
            interchange::write_database(open(OpenMode::Truncate)?, &view)
        })?;
        Ok(Backup { bytes, file: open(OpenMode::Read)?, path: path.clone() })
    }

    fn hash(&self) -> Result<u32, Fault> {
        self.shared.stats.hash_time.time(&self.shared.runtime.clock(), || self.hash_tables())
    }

    fn hash_tables(&self) -> Result<u32, Fault> {
        let view = self.shared.backend.snapshot()?;
        let mut hash = 0;
        for table in Table::ALL {
            hash = crc32c::crc32c_append(hash, table.name().as_bytes());
            view.scan(table, b"", None, &mut |key, value| {
                let own = table == Table::Meta
                    && (matches!(key, b"consistent_index" | b"term") || key == CHECKPOINT_KEY);
                if !own {
                    hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
                }
                Scan::Continue
            })?;
        }
        Ok(hash)
    }
}
