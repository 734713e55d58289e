//! The seam below the log and the snapshot files: real files, or a simulated disk that loses bytes.
//!
//! All calls block. In production the log's thread makes them; in the simulator a call returns at once and
//! the driver delays its completion. What is not synced may be lost in any order of sectors; a name (create,
//! rename, remove) is durable only after its directory was synced.

use std::{io, path::Path};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To read; it must exist.
    Read,
    /// To read and write; it must exist.
    Write,
    /// To read and write; made if it is not there, as it is if it is.
    Create,
    /// To read and write, empty: made, or cut to nothing.
    Truncate,
}

/// A directory tree of files.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Makes a directory with mode 0700, and those above it. Nothing happens if it is there. The names that it
    /// makes are durable on return.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted. A missing directory is `NotFound`.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Opens a file; a new one has mode 0600.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;

    /// Whether a file or directory is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file or directory, replacing a file that has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file. Dropping it closes it and releases its lock.
pub trait DiskFile: Send + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; the file grows as needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Reserves space up to `len` bytes and extends the file to it with zeros.
    fn allocate(&mut self, len: u64) -> io::Result<()>;

    /// Makes its bytes and length durable (fdatasync). A failure is final: what is durable is then unknown.
    fn sync(&mut self) -> io::Result<()>;

    /// Takes the file's exclusive lock; false if another holder has it.
    fn try_lock(&mut self) -> io::Result<bool>;
}

/// A file's bytes from its start to its end.
pub fn read_all<F: DiskFile>(file: &F) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let n = file.read_at(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}
