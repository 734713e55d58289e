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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{lease::ExpirerConfig, raft, types::NodeId};

    fn config() -> Config {
        Config {
            raft: raft::Config::new(NodeId(1), 0),
            tick_ms: 100,
            request_timeout_ms: 7000,
            read_retry_ms: 500,
            apply_lag_max: 100,
            proposals_max: 100,
            reads_max: 100,
            snapshot_entries: 5,
            snapshot_bytes: 50,
            catchup_entries: 8,
            catchup_bytes: 80,
            marks_max: 16,
            expirer: ExpirerConfig::default(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Handed { entries: u64, bytes: u64 },
        Applied { lag: u64 },
        Checkpointed,
        Installed { ahead: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..4u64, 0..40u64).prop_map(|(entries, bytes)| Step::Handed { entries, bytes }),
            8 => (0..6u64).prop_map(|lag| Step::Applied { lag }),
            3 => Just(Step::Checkpointed),
            1 => (1..9u64).prop_map(|ahead| Step::Installed { ahead }),
        ]
    }

    /// All runs since the last snapshot, each with its end and its bytes, and what the policy has said.
    #[derive(Default)]
    struct Model {
        runs: Vec<(u64, u64)>,
        last: u64,
        applied: u64,
        checkpointed: u64,
        running: bool,
        bytes_since: u64,
        dropped: u64,
    }

    impl Model {
        fn checkpoint_due(&self) -> bool {
            let entries = self.applied.saturating_sub(self.checkpointed);
            !self.running && (entries >= 5 || entries > 0 && self.bytes_since >= 50)
        }

        fn bytes_behind(&self, index: u64) -> u64 {
            self.runs.iter().filter(|(last, _)| *last > index).map(|(_, bytes)| bytes).sum()
        }

        /// Once a quarter too much is held, all goes but the runs that both limits keep.
        fn compact_to(&self) -> Option<Index> {
            if self.applied - self.dropped <= 10 && self.bytes_behind(self.dropped) <= 100 {
                return None;
            }
            let kept = |last: u64| self.applied - last < 8 && self.bytes_behind(last) < 80;
            let held = self.runs.iter().map(|(last, _)| *last).filter(|last| *last > self.dropped);
            held.take_while(|last| *last <= self.applied && !kept(*last)).last().map(Index)
        }
    }

    proptest! {
        #[test]
        fn checkpoints_and_memory_go_by_the_limits(steps in prop::collection::vec(step(), 1..60)) {
            let (config, mut policy, mut model) = (config(), LogPolicy::new(Index(0)), Model::default());
            for step in steps {
                match step {
                    Step::Handed { entries, bytes } => {
                        model.last += entries;
                        model.bytes_since += bytes;
                        model.runs.push((model.last, bytes));
                        policy.handed(Index(model.last), bytes);
                    }
                    Step::Applied { lag } => model.applied = model.applied.max(model.last.saturating_sub(lag)),
                    Step::Checkpointed => {
                        (model.checkpointed, model.running, model.bytes_since) = (model.applied, false, 0);
                        policy.checkpointed(Index(model.applied));
                    }
                    Step::Installed { ahead } => {
                        let last = model.last + ahead;
                        model = Model { last, applied: last, checkpointed: last, dropped: last, ..Model::default() };
                        policy.installed(Index(last));
                    }
                }
                let due = model.checkpoint_due();
                prop_assert_eq!(policy.checkpoint_due(Index(model.applied), &config), due);
                model.running |= due;
                let cut = model.compact_to();
                prop_assert_eq!(policy.compact_to(Index(model.applied), &config), cut);
                model.dropped = cut.map_or(model.dropped, |index| index.0);
            }
        }
    }
}
