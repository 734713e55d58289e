//! A node's limits and periods, in one place.

use crate::{lease::ExpirerConfig, raft};

/// A node's limits and periods. Times are in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Raft's own.
    pub raft: raft::Config,
    /// How long a tick is.
    pub tick_ms: u64,
    /// How long a proposal or a read may wait: etcd's 5 s and two election timeouts.
    pub request_timeout_ms: u64,
    /// After how long an unanswered read round is asked anew.
    pub read_retry_ms: u64,
    /// How far the applied index may lag the commit index before proposals are refused (etcd: 5,000).
    pub apply_lag_max: u64,
    /// How many proposals may wait at once.
    pub proposals_max: usize,
    /// How many reads may wait at once.
    pub reads_max: usize,
    /// Entries between checkpoints (`--snapshot-count`).
    pub snapshot_entries: u64,
    /// Bytes of entries between checkpoints, so that large values do not pile up in the log.
    pub snapshot_bytes: u64,
    /// Entries kept in memory behind the applied index for followers that lag.
    pub catchup_entries: u64,
    /// Bytes of entries kept in memory behind the applied index.
    pub catchup_bytes: u64,
    /// How many of its own state hashes a member remembers, to compare with its peers' that lag.
    pub marks_max: usize,
    /// How fast leases end.
    pub expirer: ExpirerConfig,
}

impl Config {
    /// An election timeout in milliseconds.
    pub fn election_ms(&self) -> u64 {
        self.raft.election_ticks * self.tick_ms
    }
}
