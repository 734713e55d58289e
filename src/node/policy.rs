//! When to checkpoint, and how much of the log to keep in memory.

use std::collections::VecDeque;

use super::limits::Config;
use crate::types::Index;

/// Watches the log grow and says when to cut it back.
#[derive(Debug)]
pub(super) struct LogPolicy {
    /// The last checkpoint, and whether one is under way.
    checkpointed: Index,
    running: bool,
    /// Bytes handed to the applier so far, and so far at the last checkpoint.
    bytes: u64,
    bytes_checkpointed: u64,
    /// Ends of the runs handed to the applier, with `bytes` there: where memory can be cut.
    runs: VecDeque<(Index, u64)>,
    /// Entries up to here are no longer in memory.
    dropped: Index,
    bytes_dropped: u64,
}

/// Memory is cut in steps of this share of what is kept, so that it is not cut at each entry.
const SLACK: u64 = 4;

impl LogPolicy {
    pub fn new(base: Index) -> Self {
        Self {
            checkpointed: base,
            running: false,
            bytes: 0,
            bytes_checkpointed: 0,
            runs: VecDeque::new(),
            dropped: base,
            bytes_dropped: 0,
        }
    }

    /// A run of entries of so many bytes went to the applier.
    pub fn handed(&mut self, last: Index, bytes: u64) {
        self.bytes += bytes;
        self.runs.push_back((last, self.bytes));
    }

    /// Whether to checkpoint now; the caller does if so.
    pub fn checkpoint_due(&mut self, applied: Index, config: &Config) -> bool {
        let entries = applied.0.saturating_sub(self.checkpointed.0);
        let bytes = self.bytes - self.bytes_checkpointed;
        let due = !self.running
            && (entries >= config.snapshot_entries || bytes >= config.snapshot_bytes && entries > 0);
        self.running |= due;
        due
    }

    pub fn checkpointed(&mut self, index: Index) {
        self.running = false;
        self.checkpointed = self.checkpointed.max(index);
        self.bytes_checkpointed = self.bytes;
    }

    /// All before `index` was replaced by a snapshot.
    pub fn installed(&mut self, index: Index) {
        self.checkpointed(index);
        self.runs.clear();
        self.dropped = index;
        self.bytes_dropped = self.bytes;
    }

    /// Up to where entries can leave memory, if that is worth it.
    pub fn compact_to(&mut self, applied: Index, config: &Config) -> Option<Index> {
        let entries = applied.0.saturating_sub(self.dropped.0);
        let bytes = self.bytes - self.bytes_dropped;
        let over = |held: u64, kept: u64| held > kept + kept / SLACK;
        if !over(entries, config.catchup_entries) && !over(bytes, config.catchup_bytes) {
            return None;
        }
        let mut cut = None;
        while let Some(&(last, upto)) = self.runs.front() {
            let fits = applied.0.saturating_sub(last.0) < config.catchup_entries
                && self.bytes - upto < config.catchup_bytes;
            if last > applied || fits {
                break;
            }
            self.runs.pop_front();
            cut = Some((last, upto));
        }
        let (last, upto) = cut?;
        self.dropped = last;
        self.bytes_dropped = upto;
        Some(last)
    }
}
