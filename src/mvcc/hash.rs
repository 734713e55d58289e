//! etcd's `HashKV`: members that agree up to a revision give the same number, however far each has compacted.

use super::{Error, Store, index::Seen};
use crate::{
    error::Refusal,
    table::{Scan, Table, Tables},
    types::{Revision, SubRevision},
};

/// What `HashKV` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// CRC-32C of the revisions.
    pub hash: u32,
    /// To which revision the store was compacted; -1 for never.
    pub compacted: Revision,
    /// Up to which revision it was taken.
    pub revision: Revision,
    /// The store's revision then.
    pub current: Revision,
}

impl<T: Tables> Store<T> {
    /// etcd's `HashKV` at `revision`; 0 for the newest. Refused at a compacted revision and, as etcd 3.5.1
    /// does it, at the one compacted to.
    pub fn hash_kv(&self, revision: Revision) -> Result<Hash, Error> {
        let (view, _pin) = {
            let index = self.index();
            let view = Self::published_view(&index);
            if revision.0 > 0 && revision <= view.compacted {
                return Err(Refusal::Compacted.into());
            }
            if revision > view.now {
                return Err(Refusal::FutureRevision.into());
            }
            (view, self.pin(&index, view.compacted))
        };
        let upto = if revision == Revision(0) { view.now } else { revision };
        // etcd leaves out what is at or below the compaction and is no current state at `upto`. Where nothing is
        // current it leaves out nothing, which is then what the compaction keeps.
        let mut keep = self.keep(upto);
        if keep.is_empty() {
            keep = self.keep(view.compacted);
        }
        let mut hash = crc32c::crc32c(Table::Rev.name().as_bytes());
        if upto.0 >= 0 {
            let end = SubRevision { main: upto.next(), sub: 0 }.to_key(false);
            self.tables.scan(Table::Rev, &[], Some(&end), &mut |row, bytes| {
                let Some((at, tombstone)) = SubRevision::from_key(row) else { return Scan::Continue };
                // Before 3.5.16 etcd removed a tombstone at the revision compacted to; hashes must not differ.
                if at.main > view.compacted || (!tombstone && keep.binary_search(&at).is_ok()) {
                    hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, row), bytes);
                }
                Scan::Continue
            })?;
        }
        Ok(Hash { hash, compacted: view.compacted, revision: upto, current: view.now })
    }

    /// The current states at `at`, by revision. The revision compacted to is pinned, so that no newer compaction
    /// changes them between two chunks.
    fn keep(&self, at: Revision) -> Vec<SubRevision> {
        let mut keep = Vec::new();
        let mut next = Some(Vec::new());
        while let Some(start) = next.take() {
            let index = self.index();
            for (visited, entry) in index.from(&start).enumerate() {
                if visited == self.config.chunk_keys_max {
                    next = Some(entry.key().to_vec());
                    break;
                }
                keep.extend(entry.seen(at).as_ref().map(Seen::at));
            }
        }
        keep.sort_unstable();
        keep
    }
}
