//! A file that gets its name only when it is whole and durable.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Disk, DiskFile, OpenMode};

/// A file on its way to its name. Until [`StagedFile::keep`] it is called otherwise, beginning with `tmp`: what a crash
/// leaves of it is swept away at the next start, what is dropped goes at once.
pub struct StagedFile<D: Disk> {
    disk: D,
    dir: PathBuf,
    name: String,
    staging: PathBuf,
    file: D::File,
    offset: u64,
    kept: bool,
}

impl<D: Disk> StagedFile<D> {
    /// A new file that is to be `name` in `dir`. `by` tells apart those who write one of that name at the same time.
    pub fn create(disk: D, dir: &Path, name: &str, by: u64) -> io::Result<Self> {
        let staging = dir.join(format!("tmp{by}.{name}"));
        let file = disk.open(&staging, OpenMode::Truncate)?;
        let (dir, name) = (dir.to_owned(), name.to_owned());
        Ok(Self { disk, dir, name, staging, file, offset: 0, kept: false })
    }

    /// Goes on with `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Gives the file, which was synced, its name, in place of what had it; durable on return.
    pub fn keep(mut self) -> io::Result<PathBuf> {
        let path = self.dir.join(&self.name);
        self.disk.rename(&self.staging, &path)?;
        self.kept = true;
        self.disk.sync_dir(&self.dir)?;
        Ok(path)
    }
}

impl<D: Disk> Drop for StagedFile<D> {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is swept away at the next start.
            let _ = self.disk.remove_file(&self.staging);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{EIO, MemDisk, read_all};

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let (dir, path) = (Path::new("/snap"), Path::new("/snap/name"));
        let write = |disk: &MemDisk| {
            let mut file = StagedFile::create(disk.clone(), dir, "name", 1)?;
            file.write(b"wh")?;
            file.write(b"ole")?;
            file.sync()?;
            file.keep()
        };
        for step in 0.. {
            let disk = MemDisk::new();
            disk.create_dir_all(dir).expect("no fault");
            disk.fail_at(disk.operations() + step, EIO);
            let written = write(&disk);
            let there = disk.exists(path).expect("no fault");
            if there {
                let file = disk.open(path, OpenMode::Read).expect("it is there");
                assert_eq!(read_all(&file).expect("no fault"), b"whole");
            }
            assert_eq!(disk.list(dir).expect("no fault").len(), usize::from(there), "step {step}");
            if written.is_ok() {
                return assert!(
                    there && step > 4,
                    "it opens, writes twice, syncs, renames, syncs the directory"
                );
            }
        }
    }
}
