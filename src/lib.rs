//! Kontiki: a consensus store that speaks etcd's v3 API, simulation first.
//!
//! What decides is pure code (`membership`, `raft`, `node`, `mvcc`, `watch`, `lease`, `auth`, `state`); what does
//! I/O is thin (`storage`, `runtime`, `server`). `ARCHITECTURE.md` has the map.

pub mod auth;
pub mod error;
pub mod framed;
pub mod interchange;
pub mod lease;
pub mod membership;
pub mod mvcc;
pub mod node;
pub mod raft;
pub mod runtime;
pub mod server;
pub mod state;
pub mod storage;
pub mod table;
pub mod types;
pub mod watch;
pub mod wire;

#[cfg(not(madsim))]
pub mod cli;
