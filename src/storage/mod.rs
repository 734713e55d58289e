//! What lies on disk: the log, snapshot files and the backend's tables, behind seams.

mod backend;
mod disk;
mod mem;
mod mem_disk;
#[cfg(not(madsim))]
mod os_disk;
#[cfg(not(any(madsim, fuzzing)))]
mod rocks;
pub mod snapshot_file;
mod staged_file;
pub mod wal;

pub use backend::*;
pub use disk::*;
pub use mem::MemBackend;
pub use mem_disk::{EIO, ENOSPC, MemDisk, MemFile, SECTOR};
#[cfg(not(madsim))]
pub use os_disk::{OsDisk, OsFile};
#[cfg(not(any(madsim, fuzzing)))]
pub use rocks::{RocksBackend, RocksOptions};
pub use staged_file::StagedFile;
