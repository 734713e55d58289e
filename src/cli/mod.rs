//! The commands beside the server: the client and the load generator.

pub mod bench;
pub mod ctl;
