//! The log's worker: while one fsync is under way, what arrives forms the next batch.

use std::{path::PathBuf, sync::Arc};

use crate::{
    error::Fault,
    node::{Event, Persist, Report},
    raft::{PersistId, Snapshot},
    runtime::Runtime,
    storage::{Disk, snapshot_file, wal::Wal},
};

use super::{
    driver::{Reports, Way},
    exit::{Exit, Exits},
    stats::Stats,
};

/// What the log is asked to do.
pub(super) enum LogJob {
    /// Write, and say when it is durable.
    Append(Persist),
    /// The backend is durable up to this snapshot: write its file, name it, let what is before it go.
    Checkpoint(Snapshot),
}

/// The log and its snapshot files.
pub(super) struct LogWorker<R: Runtime> {
    pub wal: Wal<R::Disk>,
    pub files: SnapshotFiles<R::Disk>,
    pub driver: Reports<R>,
    pub exits: Exits,
    pub clock: R::Clock,
    pub stats: Arc<Stats>,
    /// After a fault nothing is written any more: what is durable is then unknown.
    pub failed: bool,
}

/// The snapshot files beside the log.
pub(super) struct SnapshotFiles<D> {
    pub disk: D,
    pub dir: PathBuf,
    /// How many are kept; 0 for all.
    pub max: usize,
}

impl<D: Disk> SnapshotFiles<D> {
    fn write(&self, snapshot: &Snapshot) -> Result<(), Fault> {
        snapshot_file::write_snapshot(&self.disk, &self.dir, snapshot).map(drop)
    }

    fn purge(&self) -> Result<(), Fault> {
        snapshot_file::purge_snapshots(&self.disk, &self.dir, self.max)
    }
}

impl<R: Runtime> LogWorker<R> {
    /// Does all jobs with one fsync, and then says so.
    pub fn work(&mut self, jobs: Vec<LogJob>) {
        if self.failed {
            return;
        }
        if let Err(fault) = self.try_work(jobs) {
            self.failed = true;
            self.exits.tell(Exit::Fault(fault));
        }
    }

    fn try_work(&mut self, jobs: Vec<LogJob>) -> Result<(), Fault> {
        let mut checkpoint = None;
        let mut sync = false;
        let mut done: Option<PersistId> = None;
        let mut entries = 0;
        for job in jobs {
            match job {
                LogJob::Append(persist) => {
                    sync |= persist.sync;
                    done = persist.id.or(done);
                    entries += persist.entries.len();
                    self.append(persist)?;
                }
                LogJob::Checkpoint(snapshot) => checkpoint = Some(snapshot),
            }
        }
        if sync {
            self.stats.wal_fsync_time.time(&self.clock, || self.wal.sync())?;
        }
        self.stats.wal_bytes.set(self.wal.written());
        if let Some(id) = done {
            self.driver.tell(Event::Persisted(id), Way::of(entries));
        }
        if let Some(snapshot) = checkpoint {
            self.checkpoint(&snapshot)?;
        }
        Ok(())
    }

    fn append(&mut self, persist: Persist) -> Result<(), Fault> {
        let Persist { id: _, snapshot, entries, hard, sync: _ } = persist;
        if let Some(snapshot) = snapshot {
            // From a peer: its body is durable already. The file comes first, so that the log names what is there.
            self.files.write(&snapshot)?;
            self.wal.save_snapshot_mark(&snapshot.meta, hard)?;
        }
        self.wal.append(&entries, hard, false)
    }

    fn checkpoint(&mut self, snapshot: &Snapshot) -> Result<(), Fault> {
        let index = snapshot.meta.last.index;
        self.stats.snap_save_time.time(&self.clock, || self.files.write(snapshot))?;
        self.wal.save_snapshot_mark(&snapshot.meta, None)?;
        self.wal.release_to(index);
        self.wal.purge()?;
        self.files.purge()?;
        let report = Report { flushed: Some(index), ..Report::default() };
        self.driver.tell(Event::Applied(report), Way::Task);
        Ok(())
    }
}
