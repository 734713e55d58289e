//! Physical compaction: removing what no reader can see any more, a batch at a time.
//!
//! Accepting a compaction is an entry of the log (`Writer::compact`); this is each member's own housekeeping
//! and changes nothing that anyone can read. It may stop anywhere: what is left is found again on start, for
//! the scheduled mark is there and the finished one is not.

use super::{
    Store,
    store::{FINISHED, lock},
};
use crate::{
    error::Fault,
    table::{Batch, Table, Tables},
    types::{Revision, SubRevision},
};

impl<T: Tables> Store<T> {
    /// The next deletions of the published compaction, which the caller writes before it asks again: at most
    /// `revisions_max`, and with the last of them the finished mark. None if there is nothing to do, or if a
    /// reader still needs what would go.
    pub fn compact_step(&self, revisions_max: usize) -> Result<Option<Batch>, Fault> {
        let mut compaction = lock(&self.compaction);
        let mut gone = Vec::new();
        loop {
            let mut index = self.index_mut();
            let target = index.compacted;
            if compaction.finished >= target || self.lowest_pin().is_some_and(|pin| pin < target) {
                return Ok((!gone.is_empty()).then(|| batch_of(&gone)));
            }
            if compaction.target != target {
                // Accepted while another was under way: from the start again, with less left to find.
                compaction.target = target;
                compaction.next = Box::default();
            }
            let visits_max = self.config.chunk_keys_max;
            match index.compact(&compaction.next, target, revisions_max.max(1), visits_max, &mut gone) {
                Some(next) => compaction.next = next,
                None => {
                    let mut batch = batch_of(&gone);
                    batch.put(Table::Meta, FINISHED, SubRevision { main: target, sub: 0 }.to_key(false));
                    compaction.finished = target;
                    return Ok(Some(batch));
                }
            }
            if gone.len() >= revisions_max.max(1) {
                return Ok(Some(batch_of(&gone)));
            }
            // Writers and readers get their turn between two chunks.
            drop(index);
        }
    }

    /// The last compaction of which all batches have been handed out; -1 for none. It has been finished when
    /// the last of them is written.
    pub fn compaction_finished(&self) -> Revision {
        lock(&self.compaction).finished
    }
}

fn batch_of(gone: &[(SubRevision, bool)]) -> Batch {
    let mut batch = Batch::default();
    for (at, tombstone) in gone {
        batch.delete(Table::Rev, at.to_key(*tombstone));
    }
    batch
}
