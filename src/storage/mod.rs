//! What lies on disk: the log, snapshot files and the backend's tables, behind seams.

mod backend;
mod disk;
mod mem;
#[cfg(not(any(madsim, fuzzing)))]
mod rocks;

pub use backend::*;
pub use disk::*;
pub use mem::MemBackend;
#[cfg(not(any(madsim, fuzzing)))]
pub use rocks::{RocksBackend, RocksOptions};
