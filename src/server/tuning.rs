//! Limits that no flag sets: how much of something is done, kept or sent at once.
//!
//! None of them changes what a client is told, but for a refusal under load. They are here, and not where they count, so
//! that the simulator can make them small: what is cut in pieces, and what does not fit into memory, is then the rule.

use serde::{Deserialize, Serialize};

use crate::{lease::ExpirerConfig, mvcc, raft, types::NodeId, watch};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tuning {
    /// Bytes of current values kept in memory; the rest are read from the tables.
    pub values_bytes_max: usize,
    /// Up to how many bytes in all those are kept, too, that nobody has read.
    pub unread_bytes_max: usize,
    /// Keys that are visited while the index is locked.
    pub chunk_keys_max: usize,
    /// Bytes after which a chunk of a range ends.
    pub chunk_bytes_max: usize,
    /// Bytes of entries in one append to a peer.
    pub append_bytes_max: usize,
    /// Appends with entries under way to one peer.
    pub inflight_max: usize,
    /// Bytes of entries under way to one peer.
    pub inflight_bytes_max: usize,
    /// Bytes of committed entries that are handed to the applier at once.
    pub committed_bytes_max: usize,
    /// Entries that applying may lag behind before proposals are refused (etcd: 5,000).
    pub apply_lag_max: u64,
    /// Entries after which a batch of the tables ends.
    pub run_entries_max: usize,
    /// Revisions of a read of history, for watches that are behind.
    pub history_revisions_max: usize,
    /// Bytes of such a read.
    pub history_bytes_max: usize,
    /// Bytes of events that a stream of watches may have waiting.
    pub stream_bytes_max: usize,
    /// Bytes of a fragment of a response, for watches that want them, where `--max-request-bytes` does not ask for less.
    pub fragment_bytes_max: usize,
    /// Responses that the watch hub hands out at once.
    pub frames_max: usize,
    /// Bytes of a frame of a snapshot's body.
    pub snapshot_frame_bytes_max: usize,
    /// Leases whose end is proposed in half a second.
    pub revokes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        let store = mvcc::Config::default();
        let raft = raft::Config::new(NodeId(1), 0);
        let watch = watch::Config::default();
        Self {
            values_bytes_max: store.cache_bytes_max,
            unread_bytes_max: store.unread_bytes_max,
            chunk_keys_max: store.chunk_keys_max,
            chunk_bytes_max: store.chunk_bytes_max,
            append_bytes_max: raft.append_bytes_max,
            inflight_max: raft.inflight_max,
            inflight_bytes_max: raft.inflight_bytes_max,
            committed_bytes_max: raft.committed_bytes_max,
            apply_lag_max: 5_000,
            run_entries_max: 4_096,
            history_revisions_max: watch.batch_revisions_max,
            history_bytes_max: watch.batch_bytes_max,
            stream_bytes_max: watch.stream_bytes_max,
            fragment_bytes_max: usize::MAX,
            frames_max: watch.poll_frames_max,
            snapshot_frame_bytes_max: 1 << 20,
            revokes_max: ExpirerConfig::default().window_revokes_max,
        }
    }
}

impl Tuning {
    /// The store's part.
    pub fn store(&self) -> mvcc::Config {
        mvcc::Config {
            cache_bytes_max: self.values_bytes_max,
            unread_bytes_max: self.unread_bytes_max,
            chunk_keys_max: self.chunk_keys_max,
            chunk_bytes_max: self.chunk_bytes_max,
        }
    }
}
