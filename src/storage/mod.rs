//! What lies on disk: the log, snapshot files and the backend's tables, behind seams.

mod backend;
mod disk;

pub use backend::*;
pub use disk::*;
